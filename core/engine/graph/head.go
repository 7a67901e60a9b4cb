package graph

import (
	"github.com/dno-project/dno/core/engine/kernel"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// HeadLogProbs is the last Op: the final norm, the head and the log-probability of each scored
// row's next token,
//
//	token[i] = z[r][target[i]] − log Σ_v exp(z[r][v]),  z = RMSNorm(x)·headᵀ, r the row before token i
//	logp[s]  = Σ token[i] over the scored tokens i of sequence s, in float64
//
// Rows that are not scored cost nothing, and logits live for a chunk of rows only: the backward
// pass computes them again.
func (b *Builder) HeadLogProbs(x Hidden, norm, head *Param) {
	b.need(norm, b.dims.Width)
	b.need(head, head.Shape[0], b.dims.Width)
	o := &headOp{op: b.op("head log-probs", tokenType, matrixType, vectorType, matrixType, batchType), b: b, norm: norm, head: head}
	b.head, b.logps = o, b.apply(o, x.node, norm, head)
}

type headOp struct {
	op
	b          *Builder
	norm, head *Param
	rstd       []float32
	h          []float32 // [R, C] the scored rows after the norm
	tokens     []float64 // [S]
	sums       []float64 // [B]
}

// chunk is how many rows of logits are held at a time: about 4 MB of them, 64 rows at least to
// keep the matrix products efficient.
func (o *headOp) chunk() int { return min(max((1<<20)/o.head.Shape[0], 64), 1024) }

// logits computes z of the scored rows lo to hi.
func (o *headOp) logits(lo, hi int) []float32 {
	c, s := o.b.dims.Width, &o.run.shared
	z := take(&s.logits, (hi-lo)*o.head.Shape[0])
	o.b.dims.linear(z, o.h[lo*c:hi*c], o.head, hi-lo)
	return z
}

func (o *headOp) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	if err := o.begin(); err != nil {
		return nil, err
	}
	b, c, v := o.run.batch, o.b.dims.Width, o.head.Shape[0]
	scored, targets := len(b.Scored), len(b.Targets)
	rows := gather(o.run, floats(in[0]), c)
	if cap(o.tokens) < targets {
		o.tokens = make([]float64, targets)
	}
	o.tokens = o.tokens[:targets]
	kernel.RMSNorm(take(&o.h, scored*c), take(&o.rstd, scored), rows, o.norm.Gain(o.b.dims.PlusOne, &o.run.shared.gain), scored, c, o.b.dims.Eps)
	for lo := 0; lo < scored; lo += o.chunk() {
		if err := o.begin(); err != nil {
			return nil, err
		}
		hi := min(lo+o.chunk(), scored)
		z := o.logits(lo, hi)
		eachRows(hi-lo, v, func(i int) {
			row := z[i*v : (i+1)*v]
			sum := float64(kernel.LogSumExp(row))
			for _, t := range b.predicts(lo + i) {
				o.tokens[t] = float64(row[b.Targets[t]]) - sum
			}
		})
	}
	o.sums = o.sums[:0]
	for s := range b.Sequences() {
		sum := 0.0
		for _, t := range o.tokens[b.ScoredCu[s]:b.ScoredCu[s+1]] {
			sum += t
		}
		o.sums = append(o.sums, sum)
	}
	return tensor.New(tensor.WithShape(targets), tensor.WithBacking(o.tokens)), nil
}

// gather copies the scored rows of x [N, C] next to each other.
func gather(r *run, x []float32, c int) []float32 {
	scored := r.batch.Scored
	rows := take(&r.shared.rows, len(scored)*c)
	for i, row := range scored {
		copy(rows[i*c:(i+1)*c], x[int(row)*c:])
	}
	return rows
}

// eachRows calls f for each of n rows of the given width, a few thousand values a task.
func eachRows(n, width int, f func(i int)) {
	per := max(1, (1<<13)/width)
	kernel.Parallel((n+per-1)/per, func(task int) {
		for i := task * per; i < min((task+1)*per, n); i++ {
			f(i)
		}
	})
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

// Do computes dx of all rows; the backward Ops below it work in the same memory.
//
//	dz[r][v] = Σ_i g[i]·(1{v = target[i]} − softmax(z[r])[v]) over the tokens i that r predicts,  g = d loss/d token
func (o *headBackward) Do(in ...gorgonia.Value) (_ gorgonia.Value, err error) {
	defer o.guard(&err)
	f, b, s := o.forward, o.run.batch, &o.run.shared
	c, v, scored := f.b.dims.Width, f.head.Shape[0], len(b.Scored)
	x, g := floats(in[0]), in[1].Data().([]float64)
	drows := take(&s.drows, scored*c)
	for lo := 0; lo < scored; lo += f.chunk() {
		if err := o.begin(); err != nil {
			return nil, err
		}
		hi := min(lo+f.chunk(), scored)
		z := f.logits(lo, hi)
		eachRows(hi-lo, v, func(i int) {
			row, sum := z[i*v:(i+1)*v], 0.0
			for _, t := range b.predicts(lo + i) {
				sum += g[t]
			}
			kernel.Softmax(row)
			kernel.Scale(float32(-sum), row)
			for _, t := range b.predicts(lo + i) {
				row[b.Targets[t]] += float32(g[t])
			}
		})
		s.linearBackward(&f.b.dims, drows[lo*c:hi*c], f.head, z, f.h[lo*c:hi*c], hi-lo)
	}
	rows := gather(o.run, x, c)
	kernel.RMSNormBackward(drows, f.norm.dW(), drows, rows, f.norm.Gain(f.b.dims.PlusOne, &s.gain), f.rstd, scored, c, false)
	dx, t := o.out.get(b.Rows(), c)
	clear(dx)
	for i, row := range b.Scored {
		copy(dx[int(row)*c:(int(row)+1)*c], drows[i*c:(i+1)*c])
	}
	return t, nil
}
