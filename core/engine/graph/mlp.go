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

func (o *mlpOp) end() residual {
	return residual{o.p.Down, o.p.Post, o.kept.product, o.kept.postStd}
}

func (o *mlpOp) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	if err := o.begin(); err != nil {
		return nil, err
	}
	d, s, p, x := o.b.dims, &o.run.shared, o.p, floats(in[0])
	c, ffn, keep, n := d.Width, d.FFN, o.run.train, len(x)/d.Width
	y, t := x, in[0]
	if keep {
		y, t = o.out.get(n, c)
		o.kept.grow(d, p, n)
	} else if p.Post != nil { // each strip needs a place of its own for it
		take(&o.kept.product, n*c)
		take(&o.kept.postStd, n)
	}
	gain, post, end := p.Norm.Gain(d.PlusOne, &s.gain), []float32(nil), o.end()
	if p.Post != nil {
		post = p.Post.Gain(d.PlusOne, &s.post)
	}
	f := s.forward(&d, p.Gate, p.Up, p.Down)
	s.strips(n, func(lo, hi int, w *pad) {
		m := hi - lo
		h, a := take(&w.h, m*c), take(&w.a, m*ffn)
		var rstd, gate, up []float32
		if keep {
			rstd, gate, up = o.kept.rstd[lo:hi], o.kept.gate[lo*ffn:hi*ffn], o.kept.up[lo*ffn:hi*ffn]
		} else {
			rstd, gate, up = take(&w.rstd, m), take(&w.gate, m*ffn), take(&w.up, m*ffn)
		}
		kernel.RMSNorm(h, rstd, x[lo*c:hi*c], gain, m, c, d.Eps)
		timesAll(f[:2], [][]float32{gate, up}, h, m, w)
		d.gated(a, gate, up)
		end.add(&d, &f[2], post, y, x, a, lo, hi, w)
	})
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
	d, s, p, acts := f.b.dims, &o.run.shared, f.p, &f.kept
	x, dy, c, ffn := floats(in[0]), floats(in[1]), d.Width, d.FFN
	n := len(x) / c
	h, dh, a := take(&s.h, n*c), take(&s.dh, n*c), take(&s.a, n*ffn)
	dgate, dup := take(&s.dgate, n*ffn), take(&s.dup, n*ffn)
	gain := p.Norm.Gain(d.PlusOne, &s.gain)
	dproduct := f.end().back(&d, s, dy, n)

	w := s.backward(&d, p.Down, p.Gate, p.Up)
	s.strips(n, func(lo, hi int, t *pad) {
		m := hi - lo
		gate, up, dg, du := acts.gate[lo*ffn:hi*ffn], acts.up[lo*ffn:hi*ffn], dgate[lo*ffn:hi*ffn], dup[lo*ffn:hi*ffn]
		kernel.RMSNorm(h[lo*c:hi*c], acts.rstd[lo:hi], x[lo*c:hi*c], gain, m, c, d.Eps)
		d.gated(a[lo*ffn:hi*ffn], gate, up)
		da := take(&t.a, m*ffn)
		w[0].back(da, dproduct[lo*c:hi*c], m, false, t)
		d.gatedBackward(dg, du, da, gate, up)
		w[1].back(dh[lo*c:hi*c], dg, m, false, t)
		w[2].back(dh[lo*c:hi*c], du, m, true, t)
	})
	s.weightGradients(&d, n, gradient{p.Down, dproduct, a}, gradient{p.Gate, dgate, h}, gradient{p.Up, dup, h})
	kernel.RMSNormBackward(dy, p.Norm.dW(), dh, x, gain, acts.rstd, n, c, true)
	return in[1], nil
}
