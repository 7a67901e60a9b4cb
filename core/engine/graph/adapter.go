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

// down is t = Scale·x·Aᵀ over n rows, [n, r].
func (a *Adapter) down(t, x []float32, n int) {
	r, in := a.A.Shape[0], a.A.Shape[1]
	kernel.Gemm(false, true, n, r, in, x, in, a.A.W, in, t, r, false)
	kernel.Scale(a.Scale, t)
}

// up is dt = Scale·dy·B over n rows, [n, r].
func (a *Adapter) up(dt, dy []float32, n int) {
	out, r := a.B.Shape[0], a.B.Shape[1]
	kernel.Gemm(false, false, n, r, out, dy, out, a.B.W, r, dt, r, false)
	kernel.Scale(a.Scale, dt)
}

// times is y += (Scale·x·Aᵀ)·Bᵀ over n rows.
func (a *Adapter) times(y, x []float32, n int, low *[]float32) {
	out, r := a.B.Shape[0], a.B.Shape[1]
	t := take(low, n*r)
	a.down(t, x, n)
	kernel.Gemm(false, true, n, out, r, t, r, a.B.W, r, y, out, true)
}

// back is dx += (Scale·dy·B)·A over n rows.
func (a *Adapter) back(dx, dy []float32, n int, low *[]float32) {
	r, in := a.A.Shape[0], a.A.Shape[1]
	dt := take(low, n*r)
	a.up(dt, dy, n)
	kernel.Gemm(false, false, n, in, r, dt, r, a.A.W, in, dx, in, true)
}

// gradient is dB += dyᵀ·t and dA += dtᵀ·x over n rows, with t = Scale·x·Aᵀ and dt = Scale·dy·B computed again.
func (a *Adapter) gradient(dy, x []float32, n int, low *[]float32) {
	out, r, in := a.B.Shape[0], a.B.Shape[1], a.A.Shape[1]
	if db := a.B.dW(); db != nil {
		t := take(low, n*r)
		a.down(t, x, n)
		kernel.Gemm(true, false, out, r, n, dy, out, t, r, db, r, true)
	}
	if da := a.A.dW(); da != nil {
		dt := take(low, n*r)
		a.up(dt, dy, n)
		kernel.Gemm(true, false, r, in, n, dt, r, x, in, da, in, true)
	}
}
