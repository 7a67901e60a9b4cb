package kernel

import "math"

// AdamW is one step of Adam with decoupled weight decay, for one parameter; all slices are as long as w:
//
//	g *= gradScale;  m = beta1·m + (1−beta1)·g;  v = beta2·v + (1−beta2)·g²
//	w = w·(1 − lr·decay) − lr·(m/bc1) / (sqrt(v/bc2) + eps);  g = 0
//
// bc1 = 1 − beta1ᵗ and bc2 = 1 − beta2ᵗ at step t ≥ 1. The gradient is left at zero. The scalars are float64, so that
// 1 − beta2 is rounded once and not by 1e-5 of itself.
//
// Source: Loshchilov and Hutter 2017 (arXiv 1711.05101), Algorithm 2.
//
// Differs: the decay is lr·decay, as PyTorch has it, where the paper has a schedule times decay.
func AdamW(w, g, m, v []float32, lr, beta1, beta2, eps, decay, gradScale, bc1, bc2 float64) {
	n := len(w)
	g, m, v = g[:n], m[:n], v[:n]
	c := adamConstants{
		gradScale: float32(gradScale), beta1: float32(beta1), rest1: float32(1 - beta1),
		beta2: float32(beta2), rest2: float32(1 - beta2), keep: float32(1 - lr*decay),
		step: float32(lr / bc1), root2: float32(1 / math.Sqrt(bc2)), eps: float32(eps),
	}
	inParallel((n+grain-1)/grain, n, func(t int) {
		i, j := t*grain, min(n, (t+1)*grain)
		adamW(w[i:j], g[i:j], m[i:j], v[i:j], &c)
	})
}

// adamConstants are read by the assembly in this order.
type adamConstants struct {
	gradScale, beta1, rest1, beta2, rest2, keep, step, root2, eps float32
}

func adamWGeneric(w, g, m, v []float32, c *adamConstants) {
	for i := range w {
		d := g[i] * c.gradScale
		m[i] = float32(c.beta1*m[i]) + float32(c.rest1*d)
		v[i] = float32(c.beta2*v[i]) + float32(c.rest2*(d*d))
		w[i] = float32(w[i]*c.keep) - float32(c.step*m[i])/(float32(float32(math.Sqrt(float64(v[i])))*c.root2)+c.eps)
		g[i] = 0
	}
}
