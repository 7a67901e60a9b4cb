package model

import (
	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/kernel"
)

// Matrix is a weight matrix with its adapter as decoding multiplies by it: the same operations in the same order as in
// the graph that trains it, so that the products are the same bytes. The zero value is ready for [Matrix.Pack].
type Matrix struct {
	base  *kernel.Packed // own, or the one that the model holds
	own   kernel.Packed
	a, b  kernel.Packed // of the adapter
	rank  int           // of the adapter; 0: none
	scale float32
}

// Pack takes a copy of p, laid out for products by pack. A matrix that is held packed is not copied.
func (m *Matrix) Pack(p *graph.Param, pack func(to *kernel.Packed, b []float32, N, K, ldb int)) {
	if m.base = p.Held; m.base == nil {
		pack(&m.own, p.W, p.Shape[0], p.Shape[1], p.Shape[1])
		m.base = &m.own
	}
	if m.rank = 0; p.Adapter == nil {
		return
	}
	a, b := p.Adapter.A, p.Adapter.B
	m.rank, m.scale = a.Shape[0], p.Adapter.Scale
	kernel.Pack(&m.a, a.W, m.rank, a.Shape[1], a.Shape[1])
	kernel.Pack(&m.b, b.W, b.Shape[0], m.rank, m.rank)
}

// Size is the memory of the packed matrix without its adapter, in bytes.
func (m *Matrix) Size() int {
	if m.base == nil { // nothing has been packed
		return 0
	}
	return m.base.Size()
}

// Rank is that of the adapter, 0 without one.
func (m *Matrix) Rank() int { return m.rank }

// Multiply is y (=|+=) x·Wᵀ over n rows. low has room for n rows of [Matrix.Rank] numbers.
func (m *Matrix) Multiply(n int, x, y, low []float32, acc bool) {
	kernel.GemmPacked(n, x, m.base.K(), m.base, y, m.base.N(), acc)
	m.adapt(n, x, y, low)
}

// adapt adds the adapter's product.
func (m *Matrix) adapt(n int, x, y, low []float32) {
	if m.rank == 0 {
		return
	}
	t := low[:n*m.rank]
	kernel.GemmPacked(n, x, m.base.K(), &m.a, t, m.rank, false)
	kernel.Scale(m.scale, t)
	kernel.GemmPacked(n, t, m.rank, &m.b, y, m.base.N(), true)
}

// Product is a matrix, and where its product goes.
type Product struct {
	W *Matrix
	Y []float32
}

// MultiplyAll is [Matrix.Multiply] of the same x with each of up to 3 matrices, in one piece of work.
func MultiplyAll(n int, x, low []float32, products ...Product) {
	var all [3]kernel.Product
	for i, p := range products {
		all[i] = kernel.Product{B: p.W.base, C: p.Y}
	}
	kernel.GemmPackedAll(n, x, products[0].W.base.K(), all[:len(products)]...)
	for _, p := range products {
		p.W.adapt(n, x, p.Y, low)
	}
}
