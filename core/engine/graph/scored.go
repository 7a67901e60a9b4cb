package graph

import (
	"slices"

	"gorgonia.org/gorgonia"
)

// Scored leaves the rows from which something is scored, [R, C] of [N, C], in their order. What follows costs nothing for the
// others, such as a prompt's: of these, the last layer is asked for no more than its keys and values.
func (b *Builder) Scored(x Hidden) Hidden {
	o := &scoredOp{op: b.op("scored rows", matrixType, matrixType, batchType), b: b}
	return Hidden{b.apply(o, x.node)}
}

type scoredOp struct {
	op
	b   *Builder
	out output
}

func (o *scoredOp) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	if err := o.begin(); err != nil {
		return nil, err
	}
	x, c, batch := floats(in[0]), o.b.dims.Width, o.run.batch
	y, t := o.out.get(len(batch.Scored), c)
	o.run.shared.strips(len(batch.Scored), func(lo, hi int, _ *pad) {
		for i, row := range batch.Scored[lo:hi] {
			copy(y[(lo+i)*c:(lo+i+1)*c], x[int(row)*c:])
		}
	})
	return t, nil
}

func (o *scoredOp) DiffWRT(int) []bool { return o.differentiable() }

func (o *scoredOp) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	back := &scoredBackward{op: o.b.op("scored rows backward", matrixType, matrixType, batchType), b: o.b}
	dx, err := gorgonia.ApplyOp(back, grad, in[len(in)-1])
	return gorgonia.Nodes{dx, nil}, err
}

type scoredBackward struct {
	op
	b   *Builder
	out output
}

// Do computes dx of all rows, zero where nothing is scored; the backward Ops below it work in the same memory.
func (o *scoredBackward) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	dy, c, batch := floats(in[0]), o.b.dims.Width, o.run.batch
	dx, t := o.out.get(batch.Rows(), c)
	o.run.shared.strips(batch.Rows(), func(lo, hi int, _ *pad) {
		clear(dx[lo*c : hi*c])
		i, _ := slices.BinarySearch(batch.Scored, int32(lo))
		for ; i < len(batch.Scored) && int(batch.Scored[i]) < hi; i++ {
			copy(dx[int(batch.Scored[i])*c:], dy[i*c:(i+1)*c])
		}
	})
	return t, nil
}
