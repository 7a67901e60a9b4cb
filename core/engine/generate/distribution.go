package generate

import (
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
	ids   []int32   // candidates of TopP, a heap with the most probable in front
	e     []float32 // [V] exponentials of the model's own distribution
}

// draw returns the id at u of the distribution that the options make of a row of logits, and the logarithm of the sum of
// their exponentials. It reports false if the logits are not finite or −Inf, or no more so after the repetition penalty.
func (d *distribution) draw(logits []float32, history [2][]int32, o *Options, u float64) (id int32, log float32, ok bool) {
	if o.own() { // one pass of exponentials, and one to find the place
		d.e = slices.Grow(d.e[:0], len(logits))[:len(logits)]
		var sum float32
		if log, sum = kernel.LogSumExpTo(d.e, logits); log-log != 0 {
			return 0, log, false
		}
		return at(d.e, 1/sum, u), log, true
	}
	if log = kernel.LogSumExp(logits); log-log != 0 { // a logit is NaN or +Inf, or all are −Inf
		return 0, log, false
	}
	if o.RepetitionPenalty == 1 && o.Temperature == 0 {
		return int32(kernel.Largest(logits)), log, true
	}
	if !fill(d, logits, history, o) {
		return 0, log, false
	}
	return d.pick(u), log, true
}

// own reports whether tokens are drawn from the model's own distribution.
func (o *Options) own() bool {
	return o.RepetitionPenalty == 1 && o.Temperature == 1 && o.TopK == 0 && o.TopP == 1 && o.MinP == 0
}

// at is pick for the weights w[i]·scale in float32. It sums the four quarters side by side: one sum
// over all would wait for each addition in turn.
func at(w []float32, scale float32, u float64) int32 {
	n := len(w) / 4
	a, b, c, d := w[:n], w[n:2*n], w[2*n:3*n], w[3*n:]
	var s0, s1, s2, s3 float64
	for i, v := range a {
		s0 += float64(float32(v * scale))
		s1 += float64(float32(b[:len(a)][i] * scale))
		s2 += float64(float32(c[:len(a)][i] * scale))
		s3 += float64(float32(d[:len(a)][i] * scale))
	}
	for _, v := range d[n:] {
		s3 += float64(float32(v * scale))
	}
	sums := [4]float64{s0, s1, s2, s3}
	target := u * (sums[0] + sums[1] + sums[2] + sums[3])
	for q, x := range [4][]float32{a, b, c, d} {
		if target >= sums[q] {
			target -= sums[q]
			continue
		}
		sum := 0.0
		for i, v := range x { // ends inside: the additions are those that made sums[q]
			if sum += float64(float32(v * scale)); sum > target {
				return int32(q*n + i)
			}
		}
	}
	last := len(w) - 1 // no sum exceeds u·total, by rounding
	for last > 0 && w[last]*scale == 0 {
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
	// in the nucleus. Half of it leaves room for rounding.
	least := 0.5 * (1 - p) * d.total / float64(len(d.w))
	d.ids = d.ids[:0]
	for i, w := range d.w {
		if w > 0 && w >= least {
			d.ids = append(d.ids, int32(i))
		}
	}
	for i := len(d.ids)/2 - 1; i >= 0; i-- {
		d.sink(i)
	}
	before, last := 0.0, int32(0)
	for first := true; len(d.ids) > 0 && (first || before < p*d.total); first = false { // only these are put in order
		last = d.ids[0]
		before += d.w[last]
		end := len(d.ids) - 1
		d.ids[0], d.ids = d.ids[end], d.ids[:end]
		d.sink(0)
	}
	least = d.w[last]
	d.keep(func(id int32, w float64) bool { return w > least || w == least && id <= last })
}

// sink makes ids a heap again whose element i may be too far in front.
func (d *distribution) sink(i int) {
	ids := d.ids
	before := func(a, b int32) bool { return d.w[a] > d.w[b] || d.w[a] == d.w[b] && a < b }
	for {
		c := 2*i + 1
		if c >= len(ids) {
			return
		}
		if c+1 < len(ids) && before(ids[c+1], ids[c]) {
			c++
		}
		if !before(ids[c], ids[i]) {
			return
		}
		ids[i], ids[c] = ids[c], ids[i]
		i = c
	}
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
