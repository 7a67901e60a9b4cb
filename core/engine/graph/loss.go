package graph

import (
	"fmt"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// LossFunc computes a loss outside of the graph. logps holds a summed log-probability a sequence
// [B], in nats; it returns the loss and d loss/d logps [B]. It must not keep or change logps.
type LossFunc func(logps []float64) (loss float64, grad []float64, err error)

// TokenLossFunc is a [LossFunc] of the log-probability of each scored token [S]: it returns
// d loss/d tokens [S].
type TokenLossFunc func(tokens []float64) (loss float64, grad []float64, err error)

// lossOp is ExternalLoss: its Do calls out, and keeps the derivative for the backward pass.
type lossOp struct {
	op
	b     *Builder
	f     TokenLossFunc
	value float64
	grad  []float64
}

func (o *lossOp) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	if err := o.begin(); err != nil {
		return nil, err
	}
	tokens := in[0].Data().([]float64)
	if o.value, o.grad, err = o.f(tokens); err == nil {
		err = fits(o.grad, len(tokens))
	}
	if err != nil {
		return nil, fmt.Errorf("compute the loss: %w", err)
	}
	return gorgonia.NewF64(o.value), nil
}

func fits(grad []float64, logps int) error {
	if len(grad) != logps {
		return fmt.Errorf("%d derivatives for %d log-probabilities: %w", len(grad), logps, errShape)
	}
	return nil
}

func (o *lossOp) DiffWRT(int) []bool { return []bool{true} }

func (o *lossOp) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	back := &lossBackward{op: o.b.op("external loss backward", tokenType, scalarType, scalarType), forward: o}
	d, err := gorgonia.ApplyOp(back, out, grad)
	return gorgonia.Nodes{d}, err
}

type lossBackward struct {
	op
	forward *lossOp
	d       []float64
}

func (o *lossBackward) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	up := float64(*in[1].(*gorgonia.F64)) // 1: nothing stands above the loss
	d := o.d[:0]
	for _, g := range o.forward.grad {
		d = append(d, up*g)
	}
	o.d = d
	return tensor.New(tensor.WithShape(len(d)), tensor.WithBacking(d)), nil
}
