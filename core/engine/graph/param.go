package graph

import (
	"fmt"
	"math"

	"github.com/dno-project/dno/core/engine/kernel"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Param is one named weight tensor with its gradient.
type Param struct {
	Name   string
	Shape  []int     // rows, columns of a matrix (row-major); the length alone of a vector
	W      []float32 // the values, a part of the arena; nil where they are held packed
	Grad   []float32 // d loss/dW; nil until a training graph is built
	Frozen bool      // no gradient is computed and the optimizer leaves it alone

	Held    *kernel.Packed // the values of a frozen matrix, rounded, in place of W; see [Params.Hold]
	Adapter *Adapter       // added to a matrix in products; nil: none

	value, grad *tensor.Dense // W and Grad as Gorgonia sees them: the same memory
}

// Value returns the weights as Gorgonia's solvers take them.
func (p *Param) Value() gorgonia.Value { return p.value }

// Row writes to dst the values of row i of a matrix, as products take them where it is held.
func (p *Param) Row(i int, dst []float32) {
	if p.Held != nil {
		p.Held.Row(i, dst)
		return
	}
	in := p.Shape[1]
	copy(dst, p.W[i*in:(i+1)*in])
}

// dW returns where a backward kernel adds the gradient; nil for a frozen parameter.
func (p *Param) dW() []float32 {
	if p.Frozen {
		return nil
	}
	return p.Grad
}

// Gain returns what a norm of this weight multiplies by: W or, with plusOne, 1 + W in to, which grows as it needs.
func (p *Param) Gain(plusOne bool, to *[]float32) []float32 {
	if !plusOne {
		return p.W
	}
	gain := take(to, len(p.W))
	for i, w := range p.W {
		gain[i] = 1 + w
	}
	return gain
}

// Spec names a parameter that is to be made.
type Spec struct {
	Name  string
	Shape []int
}

// Size returns the number of values, or an error where a dimension is not positive or the
// product is beyond 2^40.
func (s Spec) Size() (int, error) {
	n := 1
	for _, d := range s.Shape {
		if d <= 0 {
			return 0, fmt.Errorf("size of %s: shape %v has a dimension that is not positive", s.Name, s.Shape)
		}
		if n > (1<<40)/d {
			return 0, fmt.Errorf("size of %s: shape %v is too large", s.Name, s.Shape)
		}
		n *= d
	}
	return n, nil
}

// Params are parameters, in the order in which they were asked for, over one
// arena of values and one of gradients: those of a model, or those of its adapter.
type Params struct {
	All  []*Param
	W    []float32 // every parameter's values, each starting on a cache line; nil after Hold
	Grad []float32 // the same layout; nil until a training graph is built

	offsets []int
}

// lineFloats is a cache line of 64 bytes in float32.
const lineFloats = 16

// NewParams allocates one parameter a spec, all zero.
func NewParams(specs []Spec) (*Params, error) {
	ps := &Params{}
	sizes := make([]int, len(specs))
	total, names := 0, make(map[string]bool, len(specs))
	for i, s := range specs {
		n, err := s.Size()
		if err != nil {
			return nil, err
		}
		if names[s.Name] || s.Name == "" {
			return nil, fmt.Errorf("allocate parameters: the name %q is empty or used twice", s.Name)
		}
		if len(s.Shape) != 1 && len(s.Shape) != 2 {
			return nil, fmt.Errorf("allocate parameters: %s has %d dimensions, want 1 or 2", s.Name, len(s.Shape))
		}
		names[s.Name], sizes[i] = true, n
		ps.offsets = append(ps.offsets, total)
		total += (n + lineFloats - 1) / lineFloats * lineFloats
		if total > math.MaxInt32*16 {
			return nil, fmt.Errorf("allocate parameters: more than %d values", math.MaxInt32*16)
		}
	}
	ps.W = make([]float32, total)
	for i, s := range specs {
		o, n := ps.offsets[i], sizes[i]
		w := ps.W[o : o+n : o+n]
		ps.All = append(ps.All, &Param{Name: s.Name, Shape: s.Shape, W: w,
			value: tensor.New(tensor.WithShape(s.Shape...), tensor.WithBacking(w))})
	}
	return ps, nil
}

// ensureGrads allocates the gradient arena on first use: scoring and sampling never pay for it.
func (ps *Params) ensureGrads() {
	if ps.Grad != nil {
		return
	}
	ps.Grad = make([]float32, len(ps.W))
	for i, p := range ps.All {
		o, n := ps.offsets[i], len(p.W)
		p.Grad = ps.Grad[o : o+n : o+n]
		p.grad = tensor.New(tensor.WithShape(p.Shape...), tensor.WithBacking(p.Grad))
	}
}

// ZeroGrad clears every gradient.
func (ps *Params) ZeroGrad() { clear(ps.Grad) }

// Freeze freezes every parameter and gives up the memory of the gradients. Graphs and solvers over them that train are
// of no use then.
func (ps *Params) Freeze() {
	ps.Grad = nil
	for _, p := range ps.All {
		p.Frozen, p.Grad, p.grad = true, nil, nil
	}
}

// Thaw is the opposite of Freeze.
func (ps *Params) Thaw() {
	for _, p := range ps.All {
		p.Frozen = false
	}
}

// Hold gives up the values of every matrix for what pack makes of them, once and for all; vectors stay. All must be
// frozen: nothing can be trained or written back afterwards.
func (ps *Params) Hold(pack func(to *kernel.Packed, b []float32, N, K, ldb int)) {
	for _, p := range ps.All {
		if len(p.Shape) == 2 {
			p.Held = new(kernel.Packed)
			pack(p.Held, p.W, p.Shape[0], p.Shape[1], p.Shape[1])
			p.W, p.value = nil, nil
			continue
		}
		p.W = append([]float32(nil), p.W...) // no part of the arena, which is given up
		p.value = tensor.New(tensor.WithShape(p.Shape...), tensor.WithBacking(p.W))
	}
	ps.W = nil
}
