package generate

import (
	"cmp"
	"math"
	"slices"

	"github.com/dno-project/dno/core/engine/kernel"
)

// A distribution is where one token is drawn from. It is scratch for one row at a time: fill it,
// then pick. It belongs to one goroutine, and allocates only while it grows.
type distribution struct {
	w     []float64 // [V] weight of each id, 0 where it is filtered out, 1 for the largest logit
	total float64   // sum of w in id order
	top   []float64 // the TopK largest logits, a heap with the smallest in front
	ids   []int32   // candidates of TopP
	p     []float32 // of the model's own distribution
}

// draw returns the id at u of the distribution that the options make of a row of logits, which are finite or −Inf.
// It reports false if they are so no more after the repetition penalty.
func (d *distribution) draw(logits []float32, history [2][]int32, o *Options, u float64) (id int32, ok bool) {
	switch {
	case o.RepetitionPenalty == 1 && o.Temperature == 0:
		return largest(logits), true
	case o.RepetitionPenalty == 1 && o.Temperature == 1 && o.TopK == 0 && o.TopP == 1 && o.MinP == 0:
		d.p = append(d.p[:0], logits...)
		kernel.Softmax(d.p)
		return at(d.p, u), true
	}
	if !fill(d, logits, history, o) {
		return 0, false
	}
	return d.pick(u), true
}

// largest returns the first index of the largest of x, which has no NaN.
func largest(x []float32) int32 {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return int32(best)
}

// at is pick for weights in float32. It sums the four quarters side by side: one sum
// over all would wait for each addition in turn.
func at(w []float32, u float64) int32 {
	n := len(w) / 4
	a, b, c, d := w[:n], w[n:2*n], w[2*n:3*n], w[3*n:]
	var sums [4]float64
	for i := range n {
		sums[0] += float64(a[i])
		sums[1] += float64(b[i])
		sums[2] += float64(c[i])
		sums[3] += float64(d[i])
	}
	for _, v := range d[n:] {
		sums[3] += float64(v)
	}
	target := u * (sums[0] + sums[1] + sums[2] + sums[3])
	for q, x := range [4][]float32{a, b, c, d} {
		if target >= sums[q] {
			target -= sums[q]
			continue
		}
		sum := 0.0
		for i, v := range x { // ends inside: the additions are those that made sums[q]
			if sum += float64(v); sum > target {
				return int32(q*n + i)
			}
		}
	}
	last := len(w) - 1 // no sum exceeds u·total, by rounding
	for last > 0 && w[last] == 0 {
		last--
	}
	return int32(last)
}

// fill sets the weights of the next token from the logits of its row,
//
//	w[i] = exp((x[i] − max x)/T) where id i passes the filters, else 0;  p[i] = w[i]/total
//
// x being the logits after the repetition penalty over history. All of it is in float64. The filters
// compare weights with a threshold times the mass or the maximum of what is left, which is what
// renormalising between them would give. With temperature 0 the largest x has weight 1, all else 0.
//
// It reports false, and the weights are of no use, if a logit is NaN or +Inf, or if all are −Inf.
//
// Checked against: transformers' logits processors in the same order (the golden sampling cases).
func fill[F float32 | float64](d *distribution, logits []F, history [2][]int32, o *Options) bool {
	d.w = slices.Grow(d.w[:0], len(logits))[:len(logits)]
	x := d.w
	for i, l := range logits {
		x[i] = float64(l)
	}
	if r := o.RepetitionPenalty; r != 1 {
		for _, ids := range history {
			for _, id := range ids { // from the logits, so that an id that comes twice is penalised once
				if l := float64(logits[id]); l < 0 {
					x[id] = l * r
				} else {
					x[id] = l / r
				}
			}
		}
	}
	best, finite := 0, true
	for i, v := range x {
		if v > x[best] {
			best = i
		}
		finite = finite && v < math.Inf(1) // false for NaN too
	}
	largest := x[best]
	if !finite || math.IsInf(largest, -1) {
		return false
	}
	if o.Temperature == 0 {
		clear(x)
		x[best], d.total = 1, 1
		return true
	}
	floor := math.Inf(-1)
	if o.TopK > 0 && o.TopK < len(x) {
		floor = d.kth(x, o.TopK)
	}
	d.total = 0
	for i, v := range x {
		if v < floor {
			x[i] = 0
			continue
		}
		x[i] = math.Exp((v - largest) / o.Temperature)
		d.total += x[i]
	}
	if o.TopP < 1 {
		d.nucleus(o.TopP)
	}
	if o.MinP > 0 { // the largest weight is exp(0) = 1
		d.keep(func(_ int32, w float64) bool { return w >= o.MinP })
	}
	return true
}

// kth returns the k-th largest of x, counting equal ones apart; 0 < k < len(x).
func (d *distribution) kth(x []float64, k int) float64 {
	heap := append(d.top[:0], x[:k]...)
	d.top = heap
	down := func(i int) {
		for {
			c := 2*i + 1
			if c >= k {
				return
			}
			if c+1 < k && heap[c+1] < heap[c] {
				c++
			}
			if heap[i] <= heap[c] {
				return
			}
			heap[i], heap[c] = heap[c], heap[i]
			i = c
		}
	}
	for i := k/2 - 1; i >= 0; i-- {
		down(i)
	}
	for _, v := range x[k:] {
		if v > heap[0] {
			heap[0] = v
			down(0)
		}
	}
	return heap[0]
}

// nucleus zeroes every weight but those whose mass before them, from the largest weight down, is
// below p; at least one stays.
func (d *distribution) nucleus(p float64) {
	// Weights below (1−p)·total/V have less than (1−p)·total between them all, so none of them can be
	// in the nucleus and only the others need sorting. Half of it leaves room for rounding.
	least := 0.5 * (1 - p) * d.total / float64(len(d.w))
	d.ids = d.ids[:0]
	for i, w := range d.w {
		if w > 0 && w >= least {
			d.ids = append(d.ids, int32(i))
		}
	}
	slices.SortFunc(d.ids, func(a, b int32) int {
		return cmp.Or(cmp.Compare(d.w[b], d.w[a]), cmp.Compare(a, b))
	})
	before, n := 0.0, 0
	for n < len(d.ids) && (n == 0 || before < p*d.total) {
		before += d.w[d.ids[n]]
		n++
	}
	last := d.ids[n-1]
	least = d.w[last]
	d.keep(func(id int32, w float64) bool { return w > least || w == least && id <= last })
}

// keep zeroes the weights that pass reports false for, and sums the others anew.
func (d *distribution) keep(pass func(id int32, w float64) bool) {
	d.total = 0
	for i, w := range d.w {
		if !pass(int32(i), w) {
			d.w[i] = 0
			continue
		}
		d.total += w
	}
}

// pick returns the id at u of the cumulative distribution in id order,
//
//	min { i : w[0] + … + w[i] > u·total },  u in [0, 1)
//
// and so never an id of weight 0. Where rounding lets no sum exceed u·total it is the last id of
// positive weight.
func (d *distribution) pick(u float64) int32 {
	target, sum, last := u*d.total, 0.0, 0
	for i, w := range d.w {
		if w == 0 {
			continue
		}
		if sum += w; sum > target {
			return int32(i)
		}
		last = i
	}
	return int32(last)
}
