// Package graph is the Gorgonia graph: coarse differentiable Ops over kernels.
//
// Gorgonia supplies the tensors, the expression graph, symbolic differentiation across Ops, the
// tape machine and the Solver interface. The derivative inside each Op is written by hand here
// and held against PyTorch and finite differences. No other package imports Gorgonia.
//
// Results do not depend on the number of threads, and a sequence's log-probability is the same
// bytes whatever else is in the batch, with and without gradients.
package graph

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/chewxy/hm"
	"github.com/dno-project/dno/core/engine/kernel"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Dims are what the Ops of a decoder share: sizes, and what its blocks compute.
type Dims struct {
	Width, FFN              int // C, F
	Heads, KVHeads, HeadDim int // H, G, D
	Eps                     float32
	Scale                   float32          // of attention's scores
	PlusOne                 bool             // norms multiply by 1 + weight, else by the weight
	GELU                    bool             // the MLP's gated unit is GeGLU, else SwiGLU
	Precision               kernel.Precision // of products with weights
}

// Builder wires a model's Ops one after another, then turns them into a [Score] or [Train] graph.
// The first error stays and is returned by that last call.
type Builder struct {
	dims   Dims
	params *Params
	run    *run
	graph  *gorgonia.ExprGraph
	batch  *gorgonia.Node
	leaves gorgonia.Nodes
	logps  *gorgonia.Node
	head   *headOp
	ids    int
	err    error
}

// Hidden is the residual stream between two Ops, [N, C], or [R, C] behind [Builder.Scored].
type Hidden struct{ node *gorgonia.Node }

// NewBuilder returns a Builder of a graph that trains params; what it uses beside them is frozen.
func NewBuilder(params *Params, dims Dims) *Builder {
	g := gorgonia.NewGraph()
	return &Builder{dims: dims, params: params, run: &run{}, graph: g,
		batch: gorgonia.NewTensor(g, tensor.Int32, 1, gorgonia.WithShape(1), gorgonia.WithName("batch"))}
}

// op returns the common part of a new Op of this graph.
func (b *Builder) op(name string, out hm.Type, in ...hm.Type) op {
	b.ids++
	dims := 0
	if t, ok := out.(gorgonia.TensorType); ok {
		dims = t.Dims
	}
	return op{name: name, id: b.ids, run: b.run, in: in, out: out, dims: nominal[dims]}
}

// leaf returns an input node over a parameter. Its name is unique although a tied head is a
// second leaf over the embedding's tensor: with one leaf for both, Gorgonia would add up the two
// gradients, which are already one.
func (b *Builder) leaf(p *Param) *gorgonia.Node {
	value := p.value
	if value == nil { // held packed, as Gorgonia knows no tensor; the Ops read the parameter
		value = emptyTensor(len(p.Shape))
	}
	n := gorgonia.NewTensor(b.graph, tensor.Float32, len(p.Shape), gorgonia.WithShape(p.Shape...),
		gorgonia.WithName(fmt.Sprintf("%s as leaf %d", p.Name, len(b.leaves))), gorgonia.WithValue(value))
	b.leaves = append(b.leaves, n)
	return n
}

// apply adds a node for o over x (nil for the first Op), the parameters and the batch.
func (b *Builder) apply(o gorgonia.Op, x *gorgonia.Node, params ...*Param) *gorgonia.Node {
	if b.err != nil {
		return nil
	}
	var in []*gorgonia.Node
	if x != nil {
		in = append(in, x)
	}
	for _, p := range params {
		in = append(in, b.leaf(p))
	}
	n, err := gorgonia.ApplyOp(o, append(in, b.batch)...)
	if err != nil {
		b.err = fmt.Errorf("add %v to the graph: %w", o, err)
	}
	return n
}

// need records an error unless p has the given shape.
func (b *Builder) need(p *Param, shape ...int) {
	if b.err == nil && (p == nil || fmt.Sprint(p.Shape) != fmt.Sprint(shape)) {
		b.err = fmt.Errorf("build a graph: a parameter of shape %v is wanted, got %+v: %w", shape, p, errShape)
	}
}

// machine is a compiled graph.
type machine struct {
	run   *run
	batch *gorgonia.Node
	logps *gorgonia.Node
	head  *headOp
	vm    gorgonia.VM
}

// Score is a graph without gradients, ending in log-probabilities. It is not safe for concurrent
// use, nor are a Score and a Train over the same parameters.
type Score struct{ machine }

// Train is a graph with gradients, ending in a loss.
type Train struct {
	machine
	loss *lossOp
	node *gorgonia.Node
	each []float64 // [S] a sequence's derivative for each of its tokens
}

// Score compiles what has been wired, up to HeadLogProbs.
func (b *Builder) Score() (*Score, error) {
	m, err := b.compile()
	if err != nil {
		return nil, err
	}
	return &Score{m}, nil
}

// Train adds an external loss and every gradient, and compiles. The gradients' arena is
// allocated by the first Train over the parameters.
func (b *Builder) Train() (*Train, error) {
	b.run.train = true
	b.params.ensureGrads()
	loss := &lossOp{op: b.op("external loss", scalarType, tokenType), b: b}
	var node *gorgonia.Node
	if b.err == nil && b.logps != nil {
		building.Lock()
		if node, b.err = gorgonia.ApplyOp(loss, b.logps); b.err == nil {
			_, b.err = gorgonia.Grad(node, b.leaves...)
		}
		building.Unlock()
	}
	m, err := b.compile()
	if err != nil {
		return nil, err
	}
	return &Train{machine: m, loss: loss, node: node}, nil
}

// building guards constants that all graphs of the process share: Gorgonia hashes them on first
// use without a lock.
var building sync.Mutex

func (b *Builder) compile() (m machine, err error) {
	switch {
	case b.err != nil:
		return machine{}, fmt.Errorf("build a graph: %w", b.err)
	case b.logps == nil:
		return machine{}, errors.New("build a graph: it does not end in HeadLogProbs")
	}
	// The compiler merges nodes of equal 32-bit hash without comparing them.
	seen := make(map[uint32]*gorgonia.Node)
	for _, n := range b.graph.AllNodes() {
		if other, ok := seen[n.Hashcode()]; ok && other != n {
			return machine{}, fmt.Errorf("build a graph: %v and %v have the same hash", n, other)
		}
		seen[n.Hashcode()] = n
	}
	defer func() { // its errors are panics
		if v := recover(); v != nil {
			err = fmt.Errorf("compile a graph: %v", v)
		}
	}()
	vm := gorgonia.NewTapeMachine(b.graph)
	// The finalizer sits on a cycle, so that machine, graph and workspaces would never be freed;
	// it has work to do on a GPU only.
	runtime.SetFinalizer(vm, nil)
	return machine{run: b.run, batch: b.batch, logps: b.logps, head: b.head, vm: vm}, nil
}

// exec runs the whole tape over a batch.
func (m *machine) exec(ctx context.Context, b *Batch) error {
	if b.Sequences() == 0 {
		return errors.New("run a graph: the batch is empty")
	}
	m.run.ctx, m.run.batch, m.run.err = ctx, b, nil
	if !m.run.train {
		m.run.blocks.divide(b, scoreBlockRows)
	}
	if err := gorgonia.Let(m.batch, b); err != nil {
		return fmt.Errorf("run a graph: bind the batch: %w", err)
	}
	m.vm.Reset() // after an error the machine would go on where it stopped
	if err := m.vm.RunAll(); err != nil {
		if m.run.err != nil {
			err = m.run.err
		}
		return fmt.Errorf("run a graph: %w", err)
	}
	return nil
}

// LogProbs returns, of the last run, the summed log-probability of each sequence's scored tokens
// [B], in nats. The slice is overwritten by the next run.
func (m *machine) LogProbs() []float64 { return m.head.sums }

// TokenLogProbs returns, of the last run, the log-probability of each scored token [S], in nats.
// The slice is overwritten by the next run.
func (m *machine) TokenLogProbs() []float64 { return m.head.tokens }

// Run computes the log-probabilities of a batch.
//
// Errors: ctx's, where it is done before the last Op has begun.
func (s *Score) Run(ctx context.Context, b *Batch) error { return s.exec(ctx, b) }

// Run computes the log-probabilities of a batch, calls loss once with those of the sequences [B],
// and adds d loss/dW to the gradient of every parameter that is not frozen. Each token of a
// sequence has the derivative of the sum.
//
// Errors: loss's own (wrapped), and ctx's. After an error the gradients hold an undefined part
// of the sum: clear them.
func (t *Train) Run(ctx context.Context, b *Batch, loss LossFunc) (float64, error) {
	return t.RunTokens(ctx, b, func([]float64) (float64, []float64, error) {
		value, grad, err := loss(t.LogProbs())
		if err == nil {
			err = fits(grad, b.Sequences())
		}
		if err != nil {
			return 0, nil, err
		}
		t.each = t.each[:0]
		for s, g := range grad {
			for range b.ScoredCu[s+1] - b.ScoredCu[s] {
				t.each = append(t.each, g)
			}
		}
		return value, t.each, nil
	})
}

// RunTokens is [Train.Run] for a loss of the log-probability of each scored token [S].
func (t *Train) RunTokens(ctx context.Context, b *Batch, loss TokenLossFunc) (float64, error) {
	t.loss.f = loss
	defer func() { t.loss.f = nil }()
	if err := t.exec(ctx, b); err != nil {
		return 0, err
	}
	return t.loss.value, nil
}
