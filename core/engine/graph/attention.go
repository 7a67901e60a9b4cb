package graph

import (
	"github.com/dno-project/dno/core/engine/kernel"
	"gorgonia.org/gorgonia"
)

// AttentionParams are the weights of the attention half of a layer. Where a family has no norm of heads or of the
// output, these are nil.
type AttentionParams struct {
	Norm         *Param // C
	Q            *Param // (H·D)×C
	K, V         *Param // (G·D)×C
	QNorm, KNorm *Param // D, of each head: both or none
	O            *Param // C×(H·D)
	Post         *Param // C
}

func (p AttentionParams) list() []*Param {
	return present(p.Norm, p.Q, p.K, p.V, p.QNorm, p.KNorm, p.O, p.Post)
}

// Reach is what a layer's attention knows of positions.
type Reach struct {
	Rope   func(positions int) (cos, sin []float32) // tables of D/2 a position
	Window int                                      // how many positions a row sees, itself included; 0: all before it
}

// Attention is the attention half of a layer with its norms and residual,
//
//	y = x + post(softmax(scale·q·kᵀ, causal)·v·Oᵀ),  q, k = rope(norm(h·Qᵀ)), rope(norm(h·Kᵀ)),  v = h·Vᵀ,  h = RMSNorm(x)
//
// within each sequence, with a prompt that sequences share; H/G query heads share a key-value head. post and norm, of
// each head, are RMSNorms where p has them.
func (b *Builder) Attention(x Hidden, p AttentionParams, reach Reach) Hidden {
	c, q, kv := b.dims.Width, b.dims.Heads*b.dims.HeadDim, b.dims.KVHeads*b.dims.HeadDim
	b.need(p.Norm, c)
	b.need(p.Q, q, c)
	b.need(p.K, kv, c)
	b.need(p.V, kv, c)
	b.need(p.O, c, q)
	if p.QNorm != nil || p.KNorm != nil {
		b.need(p.QNorm, b.dims.HeadDim)
		b.need(p.KNorm, b.dims.HeadDim)
	}
	if p.Post != nil {
		b.need(p.Post, c)
	}
	o := &attentionOp{op: b.op("attention", matrixType, inputs(p.list())...), b: b, p: p, reach: reach}
	return Hidden{b.apply(o, x.node, p.list()...)}
}

type attentionOp struct {
	op
	b     *Builder
	p     AttentionParams
	reach Reach
	out   output
	kept  attentionActs
}

// attentionActs are what the backward pass wants again; the norm is recomputed. Where heads have norms, q and k are
// their inputs, and these norms are recomputed too.
type attentionActs struct {
	rstd, q, k, v, probs, out []float32
	qStd, kStd                []float32 // of each head of a row
	product, postStd          []float32
}

func (a *attentionActs) grow(d Dims, p AttentionParams, n int) {
	take(&a.rstd, n)
	take(&a.q, n*d.Heads*d.HeadDim)
	take(&a.k, n*d.KVHeads*d.HeadDim)
	take(&a.v, n*d.KVHeads*d.HeadDim)
	take(&a.out, n*d.Heads*d.HeadDim)
	take(&a.probs, n*d.probs())
	if p.QNorm != nil {
		take(&a.qStd, n*d.Heads)
		take(&a.kStd, n*d.KVHeads)
	}
	if p.Post != nil {
		take(&a.product, n*d.Width)
		take(&a.postStd, n)
	}
}

// probs is what the attention kernel keeps of a row.
func (d Dims) probs() int { return kernel.AttentionScratch(1, d.Heads) }

// place makes of x, the heads of the queries or keys of some rows, what attention takes: normalised if there is a norm,
// and turned by the rows' positions. It is x itself, or with a norm in to.
func (o *attentionOp) place(to *[]float32, x, rstd []float32, norm *Param, heads int, pos []int32) []float32 {
	d, s := &o.b.dims, &o.run.shared
	if norm != nil {
		y := take(to, len(x))
		kernel.RMSNorm(y, rstd, x, norm.Gain(d.PlusOne, &s.gain), len(pos)*heads, d.HeadDim, d.Eps)
		x = y
	}
	cos, sin := o.reach.Rope(o.run.batch.longest)
	kernel.Rope(x, pos, cos, sin, heads, d.HeadDim, false)
	return x
}

func (o *attentionOp) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	if err := o.begin(); err != nil {
		return nil, err
	}
	d, batch, s, p := o.b.dims, o.run.batch, &o.run.shared, o.p
	qd, kd := d.Heads*d.HeadDim, d.KVHeads*d.HeadDim
	x := floats(in[0])
	y, t := x, in[0]
	if o.run.train {
		y, t = copyRows(&o.out, x, batch.Rows(), d.Width)
		o.kept.grow(d, p, batch.Rows())
	}
	for _, b := range o.run.blocks.list {
		acts, at := &o.kept, b
		if !o.run.train {
			acts, at = &s.attention, b.alone()
			acts.grow(d, p, b.rows())
		}
		n, pos := b.rows(), batch.Positions[b.lo:b.hi]
		q, k, v, out := at.of(acts.q, qd), at.of(acts.k, kd), at.of(acts.v, kd), at.of(acts.out, qd)
		h := take(&s.h, n*d.Width)
		kernel.RMSNorm(h, at.of(acts.rstd, 1), b.of(x, d.Width), p.Norm.Gain(d.PlusOne, &s.gain), n, d.Width, d.Eps)
		d.linear(q, h, p.Q, n, false)
		d.linear(k, h, p.K, n, false)
		d.linear(v, h, p.V, n, false)
		q = o.place(&s.q, q, at.of(acts.qStd, d.Heads), p.QNorm, d.Heads, pos)
		k = o.place(&s.k, k, at.of(acts.kStd, d.KVHeads), p.KNorm, d.KVHeads, pos)
		kernel.Attention(out, at.of(acts.probs, d.probs()), q, k, v, b.spans, d.Heads, d.KVHeads, d.HeadDim, d.Scale, o.reach.Window)
		s.residual(&d, b.of(y, d.Width), out, p.O, p.Post, at.of(acts.product, d.Width), at.of(acts.postStd, 1), n)
	}
	return t, nil
}

func (o *attentionOp) DiffWRT(int) []bool { return o.differentiable() }

func (o *attentionOp) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	back := &attentionBackward{op: o.b.op("attention backward", matrixType, matrixType, matrixType, batchType), forward: o}
	dx, err := gorgonia.ApplyOp(back, in[0], grad, in[len(in)-1])
	if err != nil {
		return nil, err
	}
	return o.b.gradients(dx, o.p.list()...)
}

type attentionBackward struct {
	op
	forward *attentionOp
}

// Do turns dy into dx in place.
func (o *attentionBackward) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	if err := o.begin(); err != nil {
		return nil, err
	}
	f := o.forward
	d, batch, s, p, acts := f.b.dims, o.run.batch, &o.run.shared, f.p, &f.kept
	qd, kd := d.Heads*d.HeadDim, d.KVHeads*d.HeadDim
	cos, sin := f.reach.Rope(batch.longest)
	for _, b := range o.run.blocks.list {
		n, x, dy := b.rows(), b.of(floats(in[0]), d.Width), b.of(floats(in[1]), d.Width)
		pos, rstd, out := batch.Positions[b.lo:b.hi], b.of(acts.rstd, 1), b.of(acts.out, qd)
		q, k, qStd, kStd := b.of(acts.q, qd), b.of(acts.k, kd), b.of(acts.qStd, d.Heads), b.of(acts.kStd, d.KVHeads)
		h, dh, dout := take(&s.h, n*d.Width), take(&s.dh, n*d.Width), take(&s.dout, n*qd)
		dq, dk, dv := take(&s.dq, n*qd), take(&s.dk, n*kd), take(&s.dv, n*kd)

		kernel.RMSNorm(h, rstd, x, p.Norm.Gain(d.PlusOne, &s.gain), n, d.Width, d.Eps)
		s.residualBackward(&d, dout, p.O, p.Post, dy, out, b.of(acts.product, d.Width), b.of(acts.postStd, 1), n)
		placedQ, placedK := q, k
		if p.QNorm != nil {
			placedQ = f.place(&s.q, q, qStd, p.QNorm, d.Heads, pos)
			placedK = f.place(&s.k, k, kStd, p.KNorm, d.KVHeads, pos)
		}
		kernel.AttentionBackward(dq, dk, dv, dout, b.of(acts.probs, d.probs()), placedQ, placedK, b.of(acts.v, kd),
			b.spans, d.Heads, d.KVHeads, d.HeadDim, d.Scale, f.reach.Window)
		kernel.Rope(dq, pos, cos, sin, d.Heads, d.HeadDim, true)
		kernel.Rope(dk, pos, cos, sin, d.KVHeads, d.HeadDim, true)
		if p.QNorm != nil {
			kernel.RMSNormBackward(dq, p.QNorm.dW(), dq, q, p.QNorm.Gain(d.PlusOne, &s.gain), qStd, n*d.Heads, d.HeadDim, false)
			kernel.RMSNormBackward(dk, p.KNorm.dW(), dk, k, p.KNorm.Gain(d.PlusOne, &s.gain), kStd, n*d.KVHeads, d.HeadDim, false)
		}
		d.linearBackward(dh, p.Q, dq, h, n, false)
		d.linearBackward(dh, p.K, dk, h, n, true)
		d.linearBackward(dh, p.V, dv, h, n, true)
		kernel.RMSNormBackward(dy, p.Norm.dW(), dh, x, p.Norm.Gain(d.PlusOne, &s.gain), rstd, n, d.Width, true)
	}
	return in[1], nil
}
