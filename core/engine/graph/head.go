package graph

import (
	"fmt"

	"github.com/dno-project/dno/core/engine/kernel"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// HeadLogProbs is the last Op, over the rows that [Builder.Scored] leaves: the final norm, the head and the log-probability
// of each row's next token,
//
//	token[i] = z[r][target[i]] − log Σ_v exp(z[r][v]),  z = RMSNorm(x)·headᵀ, r the row before token i
//	logp[s]  = Σ token[i] over the scored tokens i of sequence s, in float64
//
// Logits live for a slice of the vocabulary only. The backward pass computes them again, but for those of the first slices,
// see [KeptLogits]. Of a slice, all rows are done before the next one, so that the head's weights are read once a pass.
func (b *Builder) HeadLogProbs(x Hidden, norm, head *Param) {
	b.need(norm, b.dims.Width)
	b.need(head, head.Shape[0], b.dims.Width)
	o := &headOp{op: b.op("head log-probs", tokenType, matrixType, vectorType, matrixType, batchType), b: b, norm: norm, head: head}
	b.head, b.logps = o, b.apply(o, x.node, norm, head)
}

// mostLogits is how many logits are kept for the backward pass, 16 MiB. Tests change it.
var mostLogits = 1 << 22

type headOp struct {
	op
	b          *Builder
	norm, head *Param
	held       kernel.Packed // the slice at work of a head that is held packed
	rstd       []float32
	h          []float32       // [R, C] the scored rows after the norm
	parts      []kernel.LogSum // [R, slices] of the logits
	rows       []kernel.LogSum // [R] of all logits
	logits     []float32       // [kept slices][R, ids of a slice]
	tokens     []float64       // [S]
	sums       []float64       // [B]
}

// slices is how many slices the vocabulary has: the blocks of a sum of exponentials.
func (o *headOp) slices() int { return (o.head.Shape[0] + kernel.SumBlock - 1) / kernel.SumBlock }

// slice returns the ids from and to of slice i.
func (o *headOp) slice(i int) (lo, hi int) {
	return i * kernel.SumBlock, min((i+1)*kernel.SumBlock, o.head.Shape[0])
}

// forward packs a slice of the head for h·Wᵀ.
func (o *headOp) forward(i int) *kernel.Packed {
	lo, hi := o.slice(i)
	f, c := &o.run.shared.factors[0], o.b.dims.Width
	if o.head.Held != nil {
		o.held = o.head.Held.Part(lo, hi)
		return &o.held
	}
	o.b.dims.Precision.Pack(&f.own, o.head.W[lo*c:hi*c], hi-lo, c, c)
	return &f.own
}

// backward packs a slice of the head for dz·W.
func (o *headOp) backward(i int) *kernel.Packed {
	lo, hi := o.slice(i)
	s, c := &o.run.shared, o.b.dims.Width
	var values []float32
	if o.head.Held != nil {
		values = take(&s.unpacked, (hi-lo)*c)
		o.head.Held.Rows(lo, hi, values)
	} else {
		values = o.head.W[lo*c : hi*c]
	}
	f := &s.factors[1]
	o.b.dims.Precision.PackTransposed(&f.own, values, c, hi-lo, c)
	return &f.own
}

// multiply computes the logits z of the scored rows lo to hi for a packed slice.
func (o *headOp) multiply(z []float32, w *kernel.Packed, lo, hi int) {
	c := o.b.dims.Width
	kernel.GemmPacked(hi-lo, o.h[lo*c:hi*c], c, w, z, w.N(), false)
}

func (o *headOp) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	if err := o.begin(); err != nil {
		return nil, err
	}
	b, s, c, count := o.run.batch, &o.run.shared, o.b.dims.Width, o.slices()
	scored, targets := len(b.Scored), len(b.Targets)
	for _, id := range b.Targets {
		if vocab := o.head.Shape[0]; id < 0 || int(id) >= vocab {
			return nil, fmt.Errorf("head log-probs: token id %d is not below the vocabulary's %d", id, vocab)
		}
	}
	x, gain := floats(in[0]), o.norm.Gain(o.b.dims.PlusOne, &s.gain)
	if cap(o.tokens) < targets {
		o.tokens = make([]float64, targets)
	}
	o.tokens = o.tokens[:targets]
	if cap(o.rows) < scored {
		o.rows, o.parts = make([]kernel.LogSum, scored), make([]kernel.LogSum, scored*count)
	}
	o.rows, o.parts = o.rows[:scored], o.parts[:scored*count]
	h, rstd := take(&o.h, scored*c), take(&o.rstd, scored)
	s.strips(scored, func(lo, hi int, _ *pad) {
		kernel.RMSNorm(h[lo*c:hi*c], rstd[lo:hi], x[lo*c:hi*c], gain, hi-lo, c, o.b.dims.Eps)
	})
	kept := 0 // ids
	if o.run.train {
		kept = KeptLogits(scored, o.head.Shape[0])
	}
	take(&o.logits, scored*kept)
	for i := range count {
		if err := o.begin(); err != nil {
			return nil, err
		}
		first, last := o.slice(i)
		w, all := o.forward(i), o.keeps(i)
		s.strips(scored, func(lo, hi int, p *pad) {
			var z []float32
			if all != nil {
				z = all[lo*w.N() : hi*w.N()]
			} else {
				z = take(&p.gate, (hi-lo)*w.N())
			}
			o.multiply(z, w, lo, hi)
			for r := lo; r < hi; r++ {
				row := z[(r-lo)*w.N() : (r-lo+1)*w.N()]
				o.parts[r*count+i] = kernel.LogSumOf(row)
				for _, t := range b.predicts(r) {
					if id := int(b.Targets[t]); first <= id && id < last {
						o.tokens[t] = float64(row[id-first])
					}
				}
			}
		})
	}
	s.strips(scored, func(lo, hi int, _ *pad) {
		for r := lo; r < hi; r++ {
			sum := o.parts[r*count]
			for _, next := range o.parts[r*count+1 : (r+1)*count] {
				sum = sum.Plus(next)
			}
			o.rows[r] = sum
			for _, t := range b.predicts(r) {
				o.tokens[t] -= float64(sum.Log())
			}
		}
	})
	o.sums = o.sums[:0]
	for q := range b.Sequences() {
		sum := 0.0
		for _, t := range o.tokens[b.ScoredCu[q]:b.ScoredCu[q+1]] {
			sum += t
		}
		o.sums = append(o.sums, sum)
	}
	return tensor.New(tensor.WithShape(targets), tensor.WithBacking(o.tokens)), nil
}

// KeptLogits returns of how many ids of a vocabulary a Train keeps the logits: whole slices, from the first id on.
func KeptLogits(scored, vocab int) (ids int) {
	for ids < vocab && scored*min(ids+kernel.SumBlock, vocab) <= mostLogits {
		ids = min(ids+kernel.SumBlock, vocab)
	}
	return ids
}

// keeps returns the logits of slice i, nil if they are not kept.
func (o *headOp) keeps(i int) []float32 {
	first, last := o.slice(i)
	scored := len(o.run.batch.Scored)
	if len(o.logits) < scored*last {
		return nil
	}
	return o.logits[scored*first : scored*last]
}

func (o *headOp) DiffWRT(int) []bool { return []bool{true, true, true, false} }

func (o *headOp) SymDiff(in gorgonia.Nodes, out, grad *gorgonia.Node) (gorgonia.Nodes, error) {
	back := &headBackward{op: o.b.op("head log-probs backward", matrixType, matrixType, tokenType, batchType), forward: o}
	dx, err := gorgonia.ApplyOp(back, in[0], grad, in[len(in)-1])
	if err != nil {
		return nil, err
	}
	return o.b.gradients(dx, o.norm, o.head)
}

type headBackward struct {
	op
	forward *headOp
	out     output
}

// Do computes dx; the backward Ops below it, as far as they have the same rows, work in the same memory.
//
//	dz[r][v] = Σ_i g[i]·(1{v = target[i]} − softmax(z[r])[v]) over the tokens i that r predicts,  g = d loss/d token
func (o *headBackward) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	f, b, s := o.forward, o.run.batch, &o.run.shared
	d, c, scored := &f.b.dims, f.b.dims.Width, len(b.Scored)
	x, g, dw := floats(in[0]), in[1].Data().([]float64), f.head.dW()
	dx, t := o.out.get(scored, c)
	for i := range f.slices() {
		if err := o.begin(); err != nil {
			return nil, err
		}
		first, last := f.slice(i)
		n := last - first
		var w *kernel.Packed
		back, dz := f.backward(i), f.keeps(i)
		kept := dz != nil
		if !kept {
			w, dz = f.forward(i), take(&s.logits, scored*n)
		}
		s.strips(scored, func(lo, hi int, _ *pad) {
			if !kept {
				f.multiply(dz[lo*n:hi*n], w, lo, hi)
			}
			for r := lo; r < hi; r++ {
				row, sum := dz[r*n:(r+1)*n], 0.0
				for _, t := range b.predicts(r) {
					sum += g[t]
				}
				kernel.SoftmaxOf(row, f.rows[r])
				kernel.Scale(float32(-sum), row)
				for _, t := range b.predicts(r) {
					if id := int(b.Targets[t]); first <= id && id < last {
						row[id-first] += float32(g[t])
					}
				}
			}
			kernel.GemmPacked(hi-lo, dz[lo*n:hi*n], n, back, dx[lo*c:hi*c], c, i > 0)
		})
		if dw != nil {
			d.Precision.Gemm(true, false, n, c, scored, dz, n, f.h, c, dw[first*c:last*c], c, true)
		}
	}
	kernel.RMSNormBackward(dx, f.norm.dW(), dx, x, f.norm.Gain(f.b.dims.PlusOne, &s.gain), f.rstd, scored, c, false)
	return t, nil
}
