package kernel

import "math"

// SwiGLU is the gated unit of the feed-forward layers: y[i] = silu(gate[i])·up[i], silu(z) = z/(1+exp(−z)).
// y may be gate or up; all are as long as y.
//
// Source: Shazeer 2020 (arXiv 2002.05202), Eq. 5 (Swish with β = 1), without the products.
func SwiGLU(y, gate, up []float32) { gated(swiGLU, y, gate, up) }

// SwiGLUBackward is the derivative of [SwiGLU] for the gradient dy, with σ = 1/(1+exp(−gate)):
//
//	dup = dy · gate · σ,  dgate = dy · up · σ · (1 + gate·(1−σ))
//
// dgate and dup may be gate, up or dy in any order; all are as long as dy.
func SwiGLUBackward(dgate, dup, dy, gate, up []float32) {
	gatedBackward(swiGLUBackward, dgate, dup, dy, gate, up)
}

// GeGLU is the gated unit with the tanh form of GELU: y[i] = gelu(gate[i])·up[i],
//
//	gelu(z) = z/2 · (1 + tanh(u/2)) = z·σ(u),  u = 2·√(2/π)·(z + 0.044715·z³),  σ(u) = 1/(1+exp(−u))
//
// y may be gate or up; all are as long as y.
//
// Source: Shazeer 2020 (arXiv 2002.05202), Eq. 5, without the products; Hendrycks and Gimpel 2016 (arXiv 1606.08415),
// Section 2.
func GeGLU(y, gate, up []float32) { gated(geGLU, y, gate, up) }

// GeGLUBackward is the derivative of [GeGLU] for the gradient dy, with σ and u of the gate:
//
//	dup = dy · gate · σ,  dgate = dy · up · σ · (1 + gate·u'·(1−σ)),  u' = 2·√(2/π)·(1 + 3·0.044715·gate²)
//
// dgate and dup may be gate, up or dy in any order; all are as long as dy.
func GeGLUBackward(dgate, dup, dy, gate, up []float32) {
	gatedBackward(geGLUBackward, dgate, dup, dy, gate, up)
}

// gated runs a gated unit, in parallel where it is long.
func gated(unit func(y, gate, up []float32), y, gate, up []float32) {
	n := len(y)
	gate, up = gate[:n], up[:n]
	if n == 0 {
		return
	}
	if n < 2*grain {
		unit(y, gate, up)
		return
	}
	Parallel((n+grain-1)/grain, func(t int) {
		i, j := t*grain, min(n, (t+1)*grain)
		unit(y[i:j], gate[i:j], up[i:j])
	})
}

func gatedBackward(unit func(dgate, dup, dy, gate, up []float32), dgate, dup, dy, gate, up []float32) {
	n := len(dy)
	dgate, dup, gate, up = dgate[:n], dup[:n], gate[:n], up[:n]
	if n == 0 {
		return
	}
	if n < 2*grain {
		unit(dgate, dup, dy, gate, up)
		return
	}
	Parallel((n+grain-1)/grain, func(t int) {
		i, j := t*grain, min(n, (t+1)*grain)
		unit(dgate[i:j], dup[i:j], dy[i:j], gate[i:j], up[i:j])
	})
}

func sigmoid(z float32) float32 { return float32(1 / (1 + math.Exp(-float64(z)))) }

func swiGLUGeneric(y, gate, up []float32) {
	for i, z := range gate {
		y[i] = z * sigmoid(z) * up[i]
	}
}

func swiGLUBackwardGeneric(dgate, dup, dy, gate, up []float32) {
	for i, z := range gate {
		s, u, g := sigmoid(z), up[i], dy[i]
		dup[i] = g * (z * s)
		dgate[i] = g * u * (s * (1 + float32(z*(1-s))))
	}
}

// u(z) = z·(gelu1 + gelu3·z²), z·u'(z) = z·(gelu1 + 3·gelu3·z²).
const (
	gelu1 = 1.5957691216057308  // 2·√(2/π)
	gelu3 = 0.07135481627260025 // 0.044715 of it
)

func geGLUGeneric(y, gate, up []float32) {
	for i, z := range gate {
		y[i] = z * sigmoid(z*(gelu1+float32(gelu3*float32(z*z)))) * up[i]
	}
}

func geGLUBackwardGeneric(dgate, dup, dy, gate, up []float32) {
	for i, z := range gate {
		square, u, g := z*z, up[i], dy[i]
		s := sigmoid(z * (gelu1 + float32(gelu3*square)))
		v := z * (gelu1 + float32(3*gelu3*square))
		dup[i] = g * (z * s)
		dgate[i] = g * u * (s * (1 + float32(v*(1-s))))
	}
}
