package graph

import (
	"math"

	"github.com/dno-project/dno/core/engine/kernel"
	"gorgonia.org/gorgonia"
)

// AttentionParams are the weights of the attention half of a layer.
type AttentionParams struct {
	Norm *Param // C
	Q    *Param // (H·D)×C
	K, V *Param // (G·D)×C
	O    *Param // C×(H·D)
}

func (p AttentionParams) list() []*Param { return []*Param{p.Norm, p.Q, p.K, p.V, p.O} }

// Attention is the attention half of a layer with its norm and residual,
//
//	y = x + softmax(q·kᵀ/√D, causal)·v·Oᵀ,  q, k = rope(h·Qᵀ), rope(h·Kᵀ),  v = h·Vᵀ,  h = RMSNorm(x)
//
// within each sequence, with a prompt that sequences share; H/G query heads share a key-value head.
func (b *Builder) Attention(x Hidden, p AttentionParams) Hidden {
	c, q, kv := b.dims.Width, b.dims.Heads*b.dims.HeadDim, b.dims.KVHeads*b.dims.HeadDim
	b.need(p.Norm, c)
	b.need(p.Q, q, c)
	b.need(p.K, kv, c)
	b.need(p.V, kv, c)
	b.need(p.O, c, q)
	o := &attentionOp{op: b.op("attention", matrixType, matrixType, vectorType, matrixType, matrixType, matrixType, matrixType, batchType), b: b, p: p}
	return Hidden{b.apply(o, x.node, p.list()...)}
}

type attentionOp struct {
	op
	b    *Builder
	p    AttentionParams
	out  output
	kept attentionActs
}

// attentionActs are what the backward pass wants again; the norm is recomputed.
type attentionActs struct{ rstd, q, k, v, probs, out []float32 }

func (a *attentionActs) grow(d Dims, n int) {
	take(&a.rstd, n)
	take(&a.q, n*d.Heads*d.HeadDim)
	take(&a.k, n*d.KVHeads*d.HeadDim)
	take(&a.v, n*d.KVHeads*d.HeadDim)
	take(&a.out, n*d.Heads*d.HeadDim)
	take(&a.probs, n*d.probs())
}

// probs is what the attention kernel keeps of a row.
func (d Dims) probs() int { return kernel.AttentionScratch(1, d.Heads) }

func (d Dims) scale() float32 { return float32(1 / math.Sqrt(float64(d.HeadDim))) }

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
		o.kept.grow(d, batch.Rows())
	}
	cos, sin := d.Rope(batch.longest)
	for _, b := range o.run.blocks.list {
		acts, at := &o.kept, b
		if !o.run.train {
			acts, at = &s.attention, b.alone()
			acts.grow(d, b.rows())
		}
		n, pos := b.rows(), batch.Positions[b.lo:b.hi]
		q, k, v, out := at.of(acts.q, qd), at.of(acts.k, kd), at.of(acts.v, kd), at.of(acts.out, qd)
		h := take(&s.h, n*d.Width)
		kernel.RMSNorm(h, at.of(acts.rstd, 1), b.of(x, d.Width), p.Norm.W, n, d.Width, d.Eps)
		d.linear(q, h, p.Q, n, false)
		d.linear(k, h, p.K, n, false)
		d.linear(v, h, p.V, n, false)
		kernel.Rope(q, pos, cos, sin, d.Heads, d.HeadDim, false)
		kernel.Rope(k, pos, cos, sin, d.KVHeads, d.HeadDim, false)
		kernel.Attention(out, at.of(acts.probs, d.probs()), q, k, v, b.spans, d.Heads, d.KVHeads, d.HeadDim, d.scale(), 0)
		d.linear(b.of(y, d.Width), out, p.O, n, true)
	}
	return t, nil
}

func (o *attentionOp) DiffWRT(int) []bool { return []bool{true, true, true, true, true, true, false} }

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
	cos, sin := d.Rope(batch.longest)
	for _, b := range o.run.blocks.list {
		n, x, dy := b.rows(), b.of(floats(in[0]), d.Width), b.of(floats(in[1]), d.Width)
		pos, rstd, out := batch.Positions[b.lo:b.hi], b.of(acts.rstd, 1), b.of(acts.out, qd)
		h, dh, dout := take(&s.h, n*d.Width), take(&s.dh, n*d.Width), take(&s.dout, n*qd)
		dq, dk, dv := take(&s.dq, n*qd), take(&s.dk, n*kd), take(&s.dv, n*kd)

		kernel.RMSNorm(h, rstd, x, p.Norm.W, n, d.Width, d.Eps)
		d.linearBackward(dout, p.O, dy, out, n, false)
		kernel.AttentionBackward(dq, dk, dv, dout, b.of(acts.probs, d.probs()), b.of(acts.q, qd), b.of(acts.k, kd), b.of(acts.v, kd),
			b.spans, d.Heads, d.KVHeads, d.HeadDim, d.scale(), 0)
		kernel.Rope(dq, pos, cos, sin, d.Heads, d.HeadDim, true)
		kernel.Rope(dk, pos, cos, sin, d.KVHeads, d.HeadDim, true)
		d.linearBackward(dh, p.Q, dq, h, n, false)
		d.linearBackward(dh, p.K, dk, h, n, true)
		d.linearBackward(dh, p.V, dv, h, n, true)
		kernel.RMSNormBackward(dy, p.Norm.dW(), dh, x, p.Norm.W, rstd, n, d.Width, true)
	}
	return in[1], nil
}
