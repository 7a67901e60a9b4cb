package graph

import (
	"fmt"

	"github.com/dno-project/dno/core/engine/kernel"
	"gorgonia.org/gorgonia"
)

// Embed is the first Op: y[i] = scale · table[tokens[i]], [N, C].
func (b *Builder) Embed(table *Param, scale float32) Hidden {
	b.need(table, table.Shape[0], b.dims.Width)
	o := &embedOp{op: b.op("embed", matrixType, matrixType, batchType), b: b, table: table, scale: scale}
	return Hidden{b.apply(o, nil, table)}
}

type embedOp struct {
	op
	b     *Builder
	table *Param
	scale float32
	out   output
}

func (o *embedOp) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	if err := o.begin(); err != nil {
		return nil, err
	}
	tokens, c := o.run.batch.Tokens, o.b.dims.Width
	vocab := o.table.Shape[0]
	y, t := o.out.get(len(tokens), c)
	for _, id := range tokens {
		if id < 0 || int(id) >= vocab {
			return nil, fmt.Errorf("embed: token id %d is not below the vocabulary's %d", id, vocab)
		}
	}
	o.run.shared.strips(len(tokens), func(lo, hi int, _ *pad) {
		for i, id := range tokens[lo:hi] {
			o.table.Row(int(id), y[(lo+i)*c:(lo+i+1)*c])
		}
		if o.scale != 1 {
			kernel.Scale(o.scale, y[lo*c:hi*c])
		}
	})
	return t, nil
}

func (o *embedOp) DiffWRT(int) []bool { return []bool{true, false} }

func (o *embedOp) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	back := &embedBackward{op: o.b.op("embed backward", matrixType, matrixType, batchType), forward: o}
	n, err := gorgonia.ApplyOp(back, grad, in[1])
	if err != nil {
		return nil, err
	}
	nodes, err := o.b.gradients(n, o.table)
	if err != nil {
		return nil, err
	}
	return nodes[1:], nil // nothing stands below the tokens
}

type embedBackward struct {
	op
	forward *embedOp
}

// Do adds each row of scale · dy to its token's row of the gradient. Tokens repeat, so that the work is
// split by columns: the order of the sum is the batch's, whatever the threads.
func (o *embedBackward) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	dw, scale := o.forward.table.dW(), o.forward.scale
	if dw == nil {
		return in[0], nil
	}
	const cols = 32
	tokens, c, dy := o.run.batch.Tokens, o.forward.b.dims.Width, floats(in[0])
	kernel.Parallel((c+cols-1)/cols, func(block int) {
		lo, hi := block*cols, min(block*cols+cols, c)
		for i, id := range tokens {
			row := dw[int(id)*c+lo : int(id)*c+hi]
			for j, v := range dy[i*c+lo : i*c+hi] {
				row[j] += float32(scale * v)
			}
		}
	})
	return in[0], nil
}
