package graph

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"runtime/debug"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

var (
	matrixType = gorgonia.TensorType{Dims: 2, Of: tensor.Float32}
	vectorType = gorgonia.TensorType{Dims: 1, Of: tensor.Float32}
	tokenType  = gorgonia.TensorType{Dims: 1, Of: tensor.Float64} // a value a scored token
	scalarType = tensor.Float64
)

// inputs are the types of an Op's arguments: x, the parameters, the batch.
func inputs(params []*Param) []hm.Type {
	types := []hm.Type{matrixType}
	for _, p := range params {
		types = append(types, p.typ())
	}
	return append(types, batchType)
}

// typ is the type of a parameter's node.
func (p *Param) typ() gorgonia.TensorType {
	if len(p.Shape) == 2 {
		return matrixType
	}
	return vectorType
}

// present are those of the parameters that are there.
func present(params ...*Param) (list []*Param) {
	for _, p := range params {
		if p != nil {
			list = append(list, p)
		}
	}
	return list
}

// differentiable says of each argument of an Op whether there is a derivative by it: by all but the batch.
func (o *op) differentiable() []bool {
	d := make([]bool, len(o.in))
	for i := range len(d) - 1 {
		d[i] = true
	}
	return d
}

// nominal is the static shape of what depends on the batch. Gorgonia wants one, and its tape
// machine never compares it with the real sizes.
var nominal = map[int]tensor.Shape{0: tensor.ScalarShape(), 1: {1}, 2: {1, 1}}

// run is what the Ops of one graph share while it runs.
type run struct {
	ctx    context.Context
	batch  *Batch
	blocks blocks
	train  bool  // activations are kept for the backward pass
	err    error // the first failure, with its type: Gorgonia's wrapping hides it from errors.As
	shared workspace
}

// op is the part of gorgonia.Op that all of ours have in common. Only Do is implemented, never
// UsePreallocDo or UnsafeDo: outputs belong to the Op, and the machine allocates nothing.
type op struct {
	name string
	id   int // unique in its graph, and the same each time the model is built
	run  *run
	in   []hm.Type
	out  hm.Type
	dims tensor.Shape
}

func (o *op) Arity() int { return len(o.in) }

// Type returns a fresh function type at each call: Gorgonia gives it back to a pool.
func (o *op) Type() hm.Type {
	return hm.NewFnType(append(append(make([]hm.Type, 0, len(o.in)+1), o.in...), o.out)...)
}
func (o *op) InferShape(...gorgonia.DimSizer) (tensor.Shape, error) { return o.dims.Clone(), nil }
func (o *op) ReturnsPtr() bool                                      { return true }
func (o *op) CallsExtern() bool                                     { return false }
func (o *op) OverwritesInput() int                                  { return -1 }
func (o *op) String() string                                        { return fmt.Sprintf("%s#%d", o.name, o.id) }

// WriteHash writes the id: nodes of equal hash would silently become one.
func (o *op) WriteHash(h hash.Hash) { fmt.Fprint(h, o.String()) }

func (o *op) Hashcode() uint32 {
	h := fnv.New32a()
	o.WriteHash(h)
	return h.Sum32()
}

// begin is the first line of every Do that works: it refuses to begin after a cancellation.
func (o *op) begin() error { return o.run.ctx.Err() }

// guard is deferred by every Do. The tape machine runs the Ops in a goroutine of its own, where
// a panic would end the process and no caller could recover it.
func (o *op) guard(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("%v panicked: %v\n%s", o, v, debug.Stack())
	}
	if *err != nil && o.run.err == nil {
		o.run.err = *err
	}
}

// output is a tensor that an Op returns again and again. Its memory only grows.
type output struct {
	t          *tensor.Dense
	data       []float32
	rows, cols int
}

func (u *output) get(rows, cols int) ([]float32, *tensor.Dense) {
	if u.t == nil || u.rows != rows || u.cols != cols {
		u.t = tensor.New(tensor.WithShape(rows, cols), tensor.WithBacking(take(&u.data, rows*cols)))
		u.rows, u.cols = rows, cols
	}
	return u.data, u.t
}

func floats(v gorgonia.Value) []float32 { return v.Data().([]float32) }

var errShape = errors.New("sizes do not fit")

// emptyTensor stands for one of some dimensions that nobody reads.
func emptyTensor(dims int) *tensor.Dense {
	return tensor.New(tensor.Of(tensor.Float32), tensor.WithShape(nominal[dims]...))
}

// gradView is a node whose value is the gradient of one parameter. The backward Op that it hangs
// from has added to that gradient as a side effect.
type gradView struct {
	op
	p    *Param
	none *tensor.Dense // the value for one that is frozen and has no memory for a gradient
}

func (o *gradView) Do(...gorgonia.Value) (gorgonia.Value, error) {
	if o.p.grad == nil {
		return o.none, nil
	}
	return o.p.grad, nil
}

// gradients returns the derivative nodes of an Op with the inputs x, params..., batch: dx and a
// view a parameter, all hanging from the backward node.
func (b *Builder) gradients(backward *gorgonia.Node, params ...*Param) (gorgonia.Nodes, error) {
	nodes := gorgonia.Nodes{backward}
	from := backward.Type()
	for _, p := range params {
		o := &gradView{b.op("gradient of "+p.Name, p.typ(), from), p, emptyTensor(len(p.Shape))}
		o.dims = tensor.Shape(p.Shape)
		view, err := gorgonia.ApplyOp(o, backward)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, view)
	}
	return append(nodes, nil), nil // the batch has no derivative
}
