package graph

import (
	"github.com/dno-project/dno/core/engine/kernel"
	"gorgonia.org/gorgonia"
)

// MLPParams are the weights of the feed-forward half of a layer. Post is nil in a family without it.
type MLPParams struct {
	Norm     *Param // C
	Gate, Up *Param // F×C
	Down     *Param // C×F
	Post     *Param // C
}

func (p MLPParams) list() []*Param { return present(p.Norm, p.Gate, p.Up, p.Down, p.Post) }

// MLP is the feed-forward half of a layer with its norms and residual,
//
//	y = x + post((act(h·Gateᵀ) ⊙ h·Upᵀ)·Downᵀ),  h = RMSNorm(x)
//
// where act is SiLU or the tanh form of GELU, and post an RMSNorm if p has it.
func (b *Builder) MLP(x Hidden, p MLPParams) Hidden {
	c, f := b.dims.Width, b.dims.FFN
	b.need(p.Norm, c)
	b.need(p.Gate, f, c)
	b.need(p.Up, f, c)
	b.need(p.Down, c, f)
	if p.Post != nil {
		b.need(p.Post, c)
	}
	o := &mlpOp{op: b.op("mlp", matrixType, inputs(p.list())...), b: b, p: p}
	return Hidden{b.apply(o, x.node, p.list()...)}
}

type mlpOp struct {
	op
	b    *Builder
	p    MLPParams
	out  output
	kept mlpActs
}

// mlpActs are what the backward pass wants again; what is cheap (norm, gated unit) is recomputed.
type mlpActs struct{ rstd, gate, up, product, postStd []float32 }

func (a *mlpActs) grow(d Dims, p MLPParams, n int) {
	take(&a.rstd, n)
	take(&a.gate, n*d.FFN)
	take(&a.up, n*d.FFN)
	if p.Post != nil {
		take(&a.product, n*d.Width)
		take(&a.postStd, n)
	}
}

// gated is the gated unit, and gatedBackward its derivative.
func (d *Dims) gated(y, gate, up []float32) {
	if d.GELU {
		kernel.GeGLU(y, gate, up)
	} else {
		kernel.SwiGLU(y, gate, up)
	}
}

func (d *Dims) gatedBackward(dgate, dup, dy, gate, up []float32) {
	if d.GELU {
		kernel.GeGLUBackward(dgate, dup, dy, gate, up)
	} else {
		kernel.SwiGLUBackward(dgate, dup, dy, gate, up)
	}
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
		o.kept.grow(d, p, batch.Rows())
	}
	for _, k := range o.run.blocks.list {
		acts, at := &o.kept, k
		if !o.run.train {
			acts, at = &s.mlp, k.alone()
			acts.grow(d, p, k.rows())
		}
		n := k.rows()
		rstd, gate, up := at.of(acts.rstd, 1), at.of(acts.gate, d.FFN), at.of(acts.up, d.FFN)
		h, a := take(&s.h, n*d.Width), take(&s.a, n*d.FFN)
		kernel.RMSNorm(h, rstd, k.of(x, d.Width), p.Norm.Gain(d.PlusOne, &s.gain), n, d.Width, d.Eps)
		d.linear(gate, h, p.Gate, n, false)
		d.linear(up, h, p.Up, n, false)
		d.gated(a, gate, up)
		s.residual(&d, k.of(y, d.Width), a, p.Down, p.Post, at.of(acts.product, d.Width), at.of(acts.postStd, 1), n)
	}
	return t, nil
}

func (o *mlpOp) DiffWRT(int) []bool { return o.differentiable() }

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

		kernel.RMSNorm(h, rstd, x, p.Norm.Gain(d.PlusOne, &s.gain), n, d.Width, d.Eps)
		d.gated(a, gate, up)
		s.residualBackward(&d, da, p.Down, p.Post, dy, a, k.of(f.kept.product, d.Width), k.of(f.kept.postStd, 1), n)
		d.gatedBackward(dgate, dup, da, gate, up)
		d.linearBackward(dh, p.Gate, dgate, h, n, false)
		d.linearBackward(dh, p.Up, dup, h, n, true)
		kernel.RMSNormBackward(dy, p.Norm.dW(), dh, x, p.Norm.Gain(d.PlusOne, &s.gain), rstd, n, d.Width, true)
	}
	return in[1], nil
}
