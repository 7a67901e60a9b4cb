package graph

import "github.com/dno-project/dno/core/engine/kernel"

// Adapter is a low-rank addition to a frozen matrix W, out×in: products take
//
//	W + Scale·B·A
//
// for W. B·A is never multiplied out. Its own products are float32 in any precision, as PEFT's are: they are few, and
// their factors are what is trained.
//
// An adapter is no leaf of the expression graph: the backward Op of its matrix adds to the gradients of A and B.
//
// Source: Hu et al. 2021 (arXiv 2106.09685), Eq. 3.
type Adapter struct {
	A     *Param // r×in
	B     *Param // out×r
	Scale float32
}

// lowRank is memory that all products with adapters and held matrices of a graph use in turn.
type lowRank struct {
	xa, dxa []float32 // [N, r]
	rows    []float32 // [heldRows, in]
}

// down is t = Scale·x·Aᵀ over n rows, [n, r].
func (a *Adapter) down(t, x []float32, n int) {
	r, in := a.A.Shape[0], a.A.Shape[1]
	kernel.Gemm(false, true, n, r, in, x, in, a.A.W, in, t, r, false)
	kernel.Scale(a.Scale, t)
}

// adapt is y += (Scale·x·Aᵀ)·Bᵀ over n rows.
func (d *Dims) adapt(y, x []float32, a *Adapter, n int) {
	out, r := a.B.Shape[0], a.B.Shape[1]
	t := take(&d.low.xa, n*r)
	a.down(t, x, n)
	kernel.Gemm(false, true, n, out, r, t, r, a.B.W, r, y, out, true)
}

// adaptBackward is dB += dyᵀ·t, dA += dtᵀ·x and dx += dt·A with t = Scale·x·Aᵀ, which is computed again, and
// dt = Scale·dy·B.
func (d *Dims) adaptBackward(dx []float32, a *Adapter, dy, x []float32, n int) {
	out, r, in := a.B.Shape[0], a.B.Shape[1], a.A.Shape[1]
	if db := a.B.dW(); db != nil {
		t := take(&d.low.xa, n*r)
		a.down(t, x, n)
		kernel.Gemm(true, false, out, r, n, dy, out, t, r, db, r, true)
	}
	dt := take(&d.low.dxa, n*r)
	kernel.Gemm(false, false, n, r, out, dy, out, a.B.W, r, dt, r, false)
	kernel.Scale(a.Scale, dt)
	if da := a.A.dW(); da != nil {
		kernel.Gemm(true, false, r, in, n, dt, r, x, in, da, in, true)
	}
	kernel.Gemm(false, false, n, in, r, dt, r, a.A.W, in, dx, in, true)
}

// heldRows is how many rows of a held matrix are unpacked at a time. It is even, so that products in bfloat16, which
// add in pairs, are the same bytes as those of the whole matrix.
const heldRows = 256

// heldBackward is dx (=|+=) dy·W for a matrix that is held packed. The layout serves x·Wᵀ; for the other orientation
// the rows are unpacked, to the very numbers that x·Wᵀ takes.
func (d *Dims) heldBackward(dx []float32, w *Param, dy []float32, n int, acc bool) {
	out, in := w.Shape[0], w.Shape[1]
	for lo := 0; lo < out; lo += heldRows {
		hi := min(lo+heldRows, out)
		rows := take(&d.low.rows, (hi-lo)*in)
		w.Held.Rows(lo, hi, rows)
		d.Precision.Gemm(false, false, n, in, hi-lo, dy[lo:], out, rows, in, dx, in, acc || lo > 0)
	}
}
