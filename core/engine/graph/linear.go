package graph

import (
	"github.com/dno-project/dno/core/engine/kernel"
	"gorgonia.org/gorgonia"
)

// workspace is memory that all Ops of a graph use in turn. It only grows.
type workspace struct {
	h, a                []float32     // the norm's and the gated unit's output
	gain                []float32     // 1 + the weight of the norm at work
	q, k                []float32     // attention's, where their norms' inputs are kept
	dh, da, dgate, dup  []float32     // their gradients
	dout, dq, dk, dv    []float32     // attention's gradients
	attention           attentionActs // where nothing is kept for a backward pass
	mlp                 mlpActs
	rows, drows, logits []float32 // of the head
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

// linear is y (=|+=) x·Wᵀ over n rows, W being out×in with its adapter.
func (d *Dims) linear(y, x []float32, w *Param, n int, acc bool) {
	out, in := w.Shape[0], w.Shape[1]
	if w.Held != nil {
		kernel.GemmPacked(n, x, in, w.Held, y, out, acc)
	} else {
		d.Precision.Gemm(false, true, n, out, in, x, in, w.W, in, y, out, acc)
	}
	if w.Adapter != nil {
		d.adapt(y, x, w.Adapter, n)
	}
}

// linearBackward is dx (=|+=) dy·W and, unless W is frozen, dW += dyᵀ·x; for an adapter of W likewise.
func (d *Dims) linearBackward(dx []float32, w *Param, dy, x []float32, n int, acc bool) {
	out, in := w.Shape[0], w.Shape[1]
	if w.Held != nil {
		d.heldBackward(dx, w, dy, n, acc)
	} else {
		d.Precision.Gemm(false, false, n, in, out, dy, out, w.W, in, dx, in, acc)
	}
	if dw := w.dW(); dw != nil {
		d.Precision.Gemm(true, false, out, in, n, dy, out, x, in, dw, in, true)
	}
	if w.Adapter != nil {
		d.adaptBackward(dx, w.Adapter, dy, x, n)
	}
}

// residual is y += x·Wᵀ over n rows or, with a norm, y += RMSNorm(x·Wᵀ), where product and rstd are kept for
// residualBackward. h is overwritten then.
func (s *workspace) residual(d *Dims, y, x []float32, w, norm *Param, product, rstd []float32, n int) {
	if norm == nil {
		d.linear(y, x, w, n, true)
		return
	}
	c := d.Width
	h := take(&s.h, n*c)
	d.linear(product, x, w, n, false)
	kernel.RMSNorm(h, rstd, product, norm.Gain(d.PlusOne, &s.gain), n, c, d.Eps)
	eachRows(n, c, func(i int) {
		row := y[i*c : (i+1)*c]
		kernel.Add(row, row, h[i*c:])
	})
}

// residualBackward is dx = dy·W and dW += dyᵀ·x with dy taken back through the norm, if there is one. dy itself stays
// what it is, the gradient of what went around. dh is overwritten.
func (s *workspace) residualBackward(d *Dims, dx []float32, w, norm *Param, dy, x, product, rstd []float32, n int) {
	if norm != nil {
		dproduct := take(&s.dh, n*d.Width)
		kernel.RMSNormBackward(dproduct, norm.dW(), dy, product, norm.Gain(d.PlusOne, &s.gain), rstd, n, d.Width, false)
		dy = dproduct
	}
	d.linearBackward(dx, w, dy, x, n, false)
}

// copyRows copies x [n, c] to an Op's own output.
func copyRows(o *output, x []float32, n, c int) ([]float32, gorgonia.Value) {
	y, t := o.get(n, c)
	copy(y, x[:n*c])
	return y, t
}
