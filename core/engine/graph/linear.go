package graph

import (
	"github.com/dno-project/dno/core/engine/kernel"
)

// workspace is memory that all Ops of a graph use in turn. It only grows.
type workspace struct {
	pads     kernel.Shelf[pad] // those that no strip has
	factors  [4]factor
	unpacked []float32 // values of a matrix that is held packed
	low      []float32 // of an adapter

	h, a                     []float32     // the norm's and the gated unit's output
	gain, qGain, kGain, post []float32     // 1 + the weight of a norm
	q, k                     []float32     // attention's, where their norms' inputs are kept
	dproduct, dh, dgate, dup []float32     // gradients
	dout, dq, dk, dv         []float32     // attention's gradients
	attention                attentionActs // where nothing is kept for a backward pass
	logits                   []float32     // of the head
}

// take returns n values of *x, which becomes a new slice where it is too short. What they hold is
// undefined.
func take(x *[]float32, n int) []float32 {
	if cap(*x) < n {
		*x = make([]float32, n)
	}
	*x = (*x)[:n]
	return *x
}

// residual is the end of a sublayer: y += x·Wᵀ or, with a norm, y += RMSNorm(x·Wᵀ).
type residual struct {
	w, norm       *Param
	product, rstd []float32 // what the norm had, kept for the backward pass
}

// add makes the rows lo to hi of y those of from and the sublayer's output; x are those rows alone of what W takes.
func (r residual) add(d *Dims, f *factor, gain, y, from, x []float32, lo, hi int, p *pad) {
	n, c := hi-lo, d.Width
	y = y[lo*c : hi*c]
	if from = from[lo*c : hi*c]; &y[0] != &from[0] {
		copy(y, from)
	}
	if r.norm == nil {
		f.times(y, x, n, true, p)
		return
	}
	h, product := take(&p.h, n*c), r.product[lo*c:hi*c]
	f.times(product, x, n, false, p)
	kernel.RMSNorm(h, r.rstd[lo:hi], product, gain, n, c, d.Eps)
	kernel.Add(y, y, h)
}

// back takes dy, the gradient of all rows of y, back through the norm. dy itself stays what it is, the gradient of what went
// around.
func (r residual) back(d *Dims, s *workspace, dy []float32, n int) []float32 {
	if r.norm == nil {
		return dy
	}
	dproduct := take(&s.dproduct, n*d.Width)
	kernel.RMSNormBackward(dproduct, r.norm.dW(), dy, r.product, r.norm.Gain(d.PlusOne, &s.post), r.rstd, n, d.Width, false)
	return dproduct
}
