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
// and turned by the rows' positions. It is x itself, or with a norm in y.
func (o *attentionOp) place(y, x, rstd []float32, norm *Param, gain []float32, heads int, pos []int32) {
	d := &o.b.dims
	if norm != nil {
		kernel.RMSNorm(y, rstd, x, gain, len(pos)*heads, d.HeadDim, d.Eps)
		x = y
	}
	cos, sin := o.reach.Rope(o.run.batch.longest)
	kernel.Rope(x, pos, cos, sin, heads, d.HeadDim, false)
}

// turnBack takes the gradients of the rows lo to hi of queries and keys back through their turn by position.
func (o *attentionOp) turnBack(dq, dk []float32, pos []int32, lo, hi int) {
	d := &o.b.dims
	cos, sin := o.reach.Rope(o.run.batch.longest)
	qd, kd := d.Heads*d.HeadDim, d.KVHeads*d.HeadDim
	kernel.Rope(dq[lo*qd:hi*qd], pos[lo:hi], cos, sin, d.Heads, d.HeadDim, true)
	kernel.Rope(dk[lo*kd:hi*kd], pos[lo:hi], cos, sin, d.KVHeads, d.HeadDim, true)
}

// placed are the queries and keys that place makes.
func (o *attentionOp) placed(acts *attentionActs, n int) (q, k []float32) {
	d, s := &o.b.dims, &o.run.shared
	if o.p.QNorm == nil {
		return acts.q, acts.k
	}
	return take(&s.q, n*d.Heads*d.HeadDim), take(&s.k, n*d.KVHeads*d.HeadDim)
}

// headGains are the factors of the norms of heads, nil without them.
func (o *attentionOp) headGains() (q, k []float32) {
	if o.p.QNorm == nil {
		return nil, nil
	}
	s, plusOne := &o.run.shared, o.b.dims.PlusOne
	return o.p.QNorm.Gain(plusOne, &s.qGain), o.p.KNorm.Gain(plusOne, &s.kGain)
}

func (o *attentionOp) end(acts *attentionActs) residual {
	return residual{o.p.O, o.p.Post, acts.product, acts.postStd}
}

func (o *attentionOp) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	if err := o.begin(); err != nil {
		return nil, err
	}
	d, batch, p := o.b.dims, o.run.batch, o.p
	x := floats(in[0])
	if !o.run.train {
		for _, b := range o.run.blocks.list {
			acts := &o.run.shared.attention
			acts.grow(d, p, b.rows())
			o.attend(acts, b.of(x, d.Width), b.of(x, d.Width), batch.Positions[b.lo:b.hi], b.spans)
		}
		return in[0], nil
	}
	y, t := o.out.get(batch.Rows(), d.Width)
	o.kept.grow(d, p, batch.Rows())
	o.attend(&o.kept, y, x, batch.Positions, batch.Spans)
	return t, nil
}

// attend makes y, the rows of some spans, of x, which may be the same memory.
func (o *attentionOp) attend(acts *attentionActs, y, x []float32, pos []int32, spans []kernel.Span) {
	d, s, p, n := o.b.dims, &o.run.shared, o.p, len(pos)
	c, qd, kd := d.Width, d.Heads*d.HeadDim, d.KVHeads*d.HeadDim
	gain := p.Norm.Gain(d.PlusOne, &s.gain)
	qGain, kGain := o.headGains()
	q, k := o.placed(acts, n)
	f := s.forward(&d, p.Q, p.K, p.V, p.O)
	s.strips(n, func(lo, hi int, w *pad) {
		h := take(&w.h, (hi-lo)*c)
		kernel.RMSNorm(h, acts.rstd[lo:hi], x[lo*c:hi*c], gain, hi-lo, c, d.Eps)
		qs, ks := acts.q[lo*qd:hi*qd], acts.k[lo*kd:hi*kd]
		timesAll(f[:3], [][]float32{qs, ks, acts.v[lo*kd : hi*kd]}, h, hi-lo, w)
		var qStd, kStd []float32
		if p.QNorm != nil {
			qStd, kStd = acts.qStd[lo*d.Heads:hi*d.Heads], acts.kStd[lo*d.KVHeads:hi*d.KVHeads]
		}
		o.place(q[lo*qd:hi*qd], qs, qStd, p.QNorm, qGain, d.Heads, pos[lo:hi])
		o.place(k[lo*kd:hi*kd], ks, kStd, p.KNorm, kGain, d.KVHeads, pos[lo:hi])
	})
	kernel.Attention(acts.out, acts.probs, q, k, acts.v, spans, d.Heads, d.KVHeads, d.HeadDim, d.Scale, o.reach.Window)
	end, post := o.end(acts), []float32(nil)
	if p.Post != nil {
		post = p.Post.Gain(d.PlusOne, &s.post)
	}
	s.strips(n, func(lo, hi int, w *pad) { end.add(&d, &f[3], post, y, x, acts.out[lo*qd:hi*qd], lo, hi, w) })
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
	x, dy, n, pos := floats(in[0]), floats(in[1]), batch.Rows(), batch.Positions
	c, qd, kd := d.Width, d.Heads*d.HeadDim, d.KVHeads*d.HeadDim
	h, dh, dout := take(&s.h, n*c), take(&s.dh, n*c), take(&s.dout, n*qd)
	dq, dk, dv := take(&s.dq, n*qd), take(&s.dk, n*kd), take(&s.dv, n*kd)
	gain := p.Norm.Gain(d.PlusOne, &s.gain)
	qGain, kGain := f.headGains()
	q, k := f.placed(acts, n)
	dproduct := f.end(acts).back(&d, s, dy, n)

	w := s.backward(&d, p.O, p.Q, p.K, p.V)
	s.strips(n, func(lo, hi int, t *pad) {
		kernel.RMSNorm(h[lo*c:hi*c], acts.rstd[lo:hi], x[lo*c:hi*c], gain, hi-lo, c, d.Eps)
		w[0].back(dout[lo*qd:hi*qd], dproduct[lo*c:hi*c], hi-lo, false, t)
		if p.QNorm != nil {
			f.place(q[lo*qd:hi*qd], acts.q[lo*qd:hi*qd], acts.qStd[lo*d.Heads:hi*d.Heads], p.QNorm, qGain, d.Heads, pos[lo:hi])
			f.place(k[lo*kd:hi*kd], acts.k[lo*kd:hi*kd], acts.kStd[lo*d.KVHeads:hi*d.KVHeads], p.KNorm, kGain, d.KVHeads, pos[lo:hi])
		}
	})
	kernel.AttentionBackward(dq, dk, dv, dout, acts.probs, q, k, acts.v, batch.Spans, d.Heads, d.KVHeads, d.HeadDim, d.Scale, f.reach.Window)
	if p.QNorm != nil { // their weights' gradients are sums over all rows
		s.strips(n, func(lo, hi int, _ *pad) { f.turnBack(dq, dk, pos, lo, hi) })
		kernel.RMSNormBackward(dq, p.QNorm.dW(), dq, acts.q, qGain, acts.qStd, n*d.Heads, d.HeadDim, false)
		kernel.RMSNormBackward(dk, p.KNorm.dW(), dk, acts.k, kGain, acts.kStd, n*d.KVHeads, d.HeadDim, false)
	}
	s.strips(n, func(lo, hi int, t *pad) {
		if p.QNorm == nil {
			f.turnBack(dq, dk, pos, lo, hi)
		}
		to := dh[lo*c : hi*c]
		w[1].back(to, dq[lo*qd:hi*qd], hi-lo, false, t)
		w[2].back(to, dk[lo*kd:hi*kd], hi-lo, true, t)
		w[3].back(to, dv[lo*kd:hi*kd], hi-lo, true, t)
	})
	s.weightGradients(&d, n, gradient{p.O, dproduct, acts.out}, gradient{p.Q, dq, h}, gradient{p.K, dk, h}, gradient{p.V, dv, h})
	kernel.RMSNormBackward(dy, p.Norm.dW(), dh, x, gain, acts.rstd, n, c, true)
	return in[1], nil
}
