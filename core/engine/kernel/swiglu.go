package kernel

import "math"

// SwiGLU is the gated unit of the feed-forward layers: y[i] = silu(gate[i])·up[i], silu(z) = z/(1+exp(−z)).
// y may be gate or up; all are as long as y.
//
// Source: Shazeer 2020 (arXiv 2002.05202), Eq. 5 (Swish with β = 1), without the products.
func SwiGLU(y, gate, up []float32) {
	n := len(y)
	gate, up = gate[:n], up[:n]
	if n == 0 {
		return
	}
	if n < 2*grain {
		swiGLU(y, gate, up)
		return
	}
	Parallel((n+grain-1)/grain, func(t int) {
		i, j := t*grain, min(n, (t+1)*grain)
		swiGLU(y[i:j], gate[i:j], up[i:j])
	})
}

// SwiGLUBackward is the derivative of [SwiGLU] for the gradient dy, with σ = 1/(1+exp(−gate)):
//
//	dup = dy · gate · σ,  dgate = dy · up · σ · (1 + gate·(1−σ))
//
// dgate and dup may be gate, up or dy in any order; all are as long as dy.
func SwiGLUBackward(dgate, dup, dy, gate, up []float32) {
	n := len(dy)
	dgate, dup, gate, up = dgate[:n], dup[:n], gate[:n], up[:n]
	if n == 0 {
		return
	}
	if n < 2*grain {
		swiGLUBackward(dgate, dup, dy, gate, up)
		return
	}
	Parallel((n+grain-1)/grain, func(t int) {
		i, j := t*grain, min(n, (t+1)*grain)
		swiGLUBackward(dgate[i:j], dup[i:j], dy[i:j], gate[i:j], up[i:j])
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
