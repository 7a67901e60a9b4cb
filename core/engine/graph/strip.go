package graph

import (
	"runtime"

	"github.com/dno-project/dno/core/engine/kernel"
)

// Strips are rows that one task takes through all steps of a sublayer in which rows do not see one another: what lies
// between the steps stays in a core's cache, and threads meet once a sublayer, not once a step. A row's bytes do not depend
// on how rows are cut into strips.

// A strip is high enough to make use of packed weights, and low enough for all threads to have several. The height is a
// multiple of the kernels' highest tile.
const (
	tallestStrip, lowestStrip, stripUnit = 112, 28, 14
	stripsPerThread                      = 12
)

// pad is the memory of one strip at a time.
type pad struct{ h, rstd, gate, up, a, low []float32 }

// strips cuts n rows and calls f for each strip, in several threads.
func (s *workspace) strips(n int, f func(lo, hi int, p *pad)) {
	each := n / (stripsPerThread * runtime.GOMAXPROCS(0))
	each = min(max(each+stripUnit-1-(each+stripUnit-1)%stripUnit, lowestStrip), tallestStrip)
	kernel.Parallel((n+each-1)/each, func(task int) {
		p := s.pads.Take()
		defer s.pads.Give(p)
		f(task*each, min((task+1)*each, n), p)
	})
}

// factor is a weight matrix W as the strips of an Op multiply by it, or by its transpose.
type factor struct {
	w      *Param
	packed *kernel.Packed
	own    kernel.Packed
}

// forward makes factors for x·Wᵀ. They are good until the next call of forward or backward.
func (s *workspace) forward(d *Dims, ws ...*Param) []factor {
	var list [len(s.factors)]kernel.Packing
	count := 0
	for i, w := range ws {
		f := &s.factors[i]
		f.w, f.packed = w, w.Held
		if w.Held == nil {
			out, in := w.Shape[0], w.Shape[1]
			list[count] = kernel.Packing{To: &f.own, B: w.W, N: out, K: in, LDB: in}
			count++
			f.packed = &f.own
		}
	}
	d.Precision.PackAll(false, list[:count]...)
	return s.factors[:len(ws)]
}

// backward makes factors for dy·W. A matrix that is held packed is unpacked, to the very numbers that x·Wᵀ takes.
func (s *workspace) backward(d *Dims, ws ...*Param) []factor {
	var list [len(s.factors)]kernel.Packing
	count := 0
	for i, w := range ws {
		f, out, in := &s.factors[i], w.Shape[0], w.Shape[1]
		f.w, f.packed = w, &f.own
		if w.Held != nil { // one at a time: there is memory for the largest alone
			values := take(&s.unpacked, out*in)
			w.Held.Rows(0, out, values)
			d.Precision.PackTransposed(&f.own, values, in, out, in)
			continue
		}
		list[count] = kernel.Packing{To: &f.own, B: w.W, N: in, K: out, LDB: in}
		count++
	}
	d.Precision.PackAll(true, list[:count]...)
	return s.factors[:len(ws)]
}

// times is y (=|+=) x·Wᵀ over n rows, with W's adapter.
func (f *factor) times(y, x []float32, n int, acc bool, p *pad) {
	kernel.GemmPacked(n, x, f.packed.K(), f.packed, y, f.packed.N(), acc)
	if a := f.w.Adapter; a != nil {
		a.times(y, x, n, &p.low)
	}
}

// timesAll is times for factors of the same x.
func timesAll(fs []factor, ys [][]float32, x []float32, n int, p *pad) {
	var products [3]kernel.Product
	for i := range fs {
		products[i] = kernel.Product{B: fs[i].packed, C: ys[i]}
	}
	kernel.GemmPackedAll(n, x, fs[0].packed.K(), products[:len(fs)]...)
	for i := range fs {
		if a := fs[i].w.Adapter; a != nil {
			a.times(ys[i], x, n, &p.low)
		}
	}
}

// back is dx (=|+=) dy·W over n rows, with W's adapter.
func (f *factor) back(dx, dy []float32, n int, acc bool, p *pad) {
	kernel.GemmPacked(n, dy, f.packed.K(), f.packed, dx, f.packed.N(), acc)
	if a := f.w.Adapter; a != nil {
		a.back(dx, dy, n, &p.low)
	}
}

// gradient is of a matrix W that took x [n, in] to rows whose gradient is dy [n, out].
type gradient struct {
	w     *Param
	dy, x []float32
}

// weightGradients is dW += dyᵀ·x over all n rows for each W, up to 4, that is not frozen; for an adapter of W likewise.
func (s *workspace) weightGradients(d *Dims, n int, of ...gradient) {
	var products [4]kernel.Outer
	count := 0
	for _, g := range of {
		if dw := g.w.dW(); dw != nil {
			products[count] = kernel.Outer{A: g.dy, B: g.x, C: dw, M: g.w.Shape[0], N: g.w.Shape[1]}
			count++
		}
		if g.w.Adapter != nil {
			g.w.Adapter.gradient(g.dy, g.x, n, &s.low)
		}
	}
	d.Precision.AddOuter(n, products[:count]...)
}
