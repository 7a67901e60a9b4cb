package graph

import (
	"github.com/dno-project/dno/core/engine/kernel"
	"gorgonia.org/gorgonia"
)

// MLPParams are the weights of the feed-forward half of a layer.
type MLPParams struct {
	Norm     *Param // C
	Gate, Up *Param // F×C
	Down     *Param // C×F
}

func (p MLPParams) list() []*Param { return []*Param{p.Norm, p.Gate, p.Up, p.Down} }

// MLP is the feed-forward half of a layer with its norm and residual,
//
//	y = x + (SiLU(h·Gateᵀ) ⊙ h·Upᵀ)·Downᵀ,  h = RMSNorm(x)
func (b *Builder) MLP(x Hidden, p MLPParams) Hidden {
	c, f := b.dims.Width, b.dims.FFN
	b.need(p.Norm, c)
	b.need(p.Gate, f, c)
	b.need(p.Up, f, c)
	b.need(p.Down, c, f)
	o := &mlpOp{op: b.op("mlp", matrixType, matrixType, vectorType, matrixType, matrixType, matrixType, batchType), b: b, p: p}
	return Hidden{b.apply(o, x.node, p.list()...)}
}

type mlpOp struct {
	op
	b    *Builder
	p    MLPParams
	out  output
	kept mlpActs
}

// mlpActs are what the backward pass wants again; what is cheap (norm, SwiGLU) is recomputed.
type mlpActs struct{ rstd, gate, up []float32 }

func (a *mlpActs) grow(d Dims, n int) {
	take(&a.rstd, n)
	take(&a.gate, n*d.FFN)
	take(&a.up, n*d.FFN)
}

func (o *mlpOp) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	if err := o.begin(); err != nil {
		return nil, err
	}
	d, batch, s, p := o.b.dims, o.run.batch, &o.run.shared, o.p
	x := floats(in[0])
	y, t := x, in[0]
	if o.run.train {
		y, t = copyRows(&o.out, x, batch.Rows(), d.Width)
		o.kept.grow(d, batch.Rows())
	}
	for _, k := range o.run.blocks.list {
		acts, at := &o.kept, k
		if !o.run.train {
			acts, at = &s.mlp, k.alone()
			acts.grow(d, k.rows())
		}
		n := k.rows()
		rstd, gate, up := at.of(acts.rstd, 1), at.of(acts.gate, d.FFN), at.of(acts.up, d.FFN)
		h, a := take(&s.h, n*d.Width), take(&s.a, n*d.FFN)
		kernel.RMSNorm(h, rstd, k.of(x, d.Width), p.Norm.W, n, d.Width, d.Eps)
		d.linear(gate, h, p.Gate, n, false)
		d.linear(up, h, p.Up, n, false)
		kernel.SwiGLU(a, gate, up)
		d.linear(k.of(y, d.Width), a, p.Down, n, true)
	}
	return t, nil
}

func (o *mlpOp) DiffWRT(int) []bool { return []bool{true, true, true, true, true, false} }

func (o *mlpOp) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	back := &mlpBackward{op: o.b.op("mlp backward", matrixType, matrixType, matrixType, batchType), forward: o}
	dx, err := gorgonia.ApplyOp(back, in[0], grad, in[len(in)-1])
	if err != nil {
		return nil, err
	}
	return o.b.gradients(dx, o.p.list()...)
}

type mlpBackward struct {
	op
	forward *mlpOp
}

// Do turns dy into dx in place.
func (o *mlpBackward) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	if err := o.begin(); err != nil {
		return nil, err
	}
	f := o.forward
	d, s, p := f.b.dims, &o.run.shared, f.p
	for _, k := range o.run.blocks.list {
		n, x, dy := k.rows(), k.of(floats(in[0]), d.Width), k.of(floats(in[1]), d.Width)
		rstd, gate, up := k.of(f.kept.rstd, 1), k.of(f.kept.gate, d.FFN), k.of(f.kept.up, d.FFN)
		h, dh, a := take(&s.h, n*d.Width), take(&s.dh, n*d.Width), take(&s.a, n*d.FFN)
		da, dgate, dup := take(&s.da, n*d.FFN), take(&s.dgate, n*d.FFN), take(&s.dup, n*d.FFN)

		kernel.RMSNorm(h, rstd, x, p.Norm.W, n, d.Width, d.Eps)
		kernel.SwiGLU(a, gate, up)
		d.linearBackward(da, p.Down, dy, a, n, false)
		kernel.SwiGLUBackward(dgate, dup, da, gate, up)
		d.linearBackward(dh, p.Gate, dgate, h, n, false)
		d.linearBackward(dh, p.Up, dup, h, n, true)
		kernel.RMSNormBackward(dy, p.Norm.dW(), dh, x, p.Norm.W, rstd, n, d.Width, true)
	}
	return in[1], nil
}
