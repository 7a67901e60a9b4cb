package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

type attentionCase struct {
	spans   []Span
	H, G, D int
	scale   float64
	window  int
	q, k, v []float32
}

// newAttentionCase has a span of each length; one of a negative length continues the last one that does not.
func newAttentionCase(r *rand.Rand, H, G, D int, lengths ...int) attentionCase {
	c, N := attentionCase{H: H, G: G, D: D, scale: 1 / math.Sqrt(float64(D))}, 0
	for _, n := range lengths {
		s := Span{From: N, To: N + max(n, -n)}
		if n < 0 {
			for s.Behind = 1; c.spans[len(c.spans)-s.Behind].Behind > 0; s.Behind++ {
			}
		}
		c.spans = append(c.spans, s)
		N += max(n, -n)
	}
	c.q, c.k, c.v = normal(r, N*H*D), normal(r, N*G*D), normal(r, N*G*D)
	for i := range c.q {
		c.q[i] *= 2
	}
	return c
}

// seen returns the rows that row i of span s sees, in their order.
func (c attentionCase) seen(s, i int) (rows []int) {
	for _, p := range c.before(s) {
		for j := p[0]; j < p[1]; j++ {
			rows = append(rows, j)
		}
	}
	for j := c.spans[s].From; j <= i; j++ {
		rows = append(rows, j)
	}
	if c.window > 0 {
		rows = rows[max(0, len(rows)-c.window):]
	}
	return rows
}

// before returns the ranges of rows that span s continues.
func (c attentionCase) before(s int) (ranges [][2]int) {
	for c.spans[s].Behind > 0 {
		s -= c.spans[s].Behind
		ranges = append([][2]int{{c.spans[s].From, c.spans[s].To}}, ranges...)
	}
	return ranges
}

// deep reports whether a span continues one that continues another.
func (c attentionCase) deep() bool {
	for s := range c.spans {
		if len(c.before(s)) > 1 {
			return true
		}
	}
	return false
}

// behind is the case with other spans to continue: span s the one behind[s] before it.
func (c attentionCase) behind(behind ...int) attentionCase {
	c.spans = slices.Clone(c.spans)
	for s, n := range behind {
		c.spans[s].Behind = n
	}
	return c
}

// in is the case with a window.
func (c attentionCase) in(window int) attentionCase {
	c.window = window
	return c
}

func (c attentionCase) String() string {
	return fmt.Sprintf("%v H=%d G=%d D=%d window=%d", c.spans, c.H, c.G, c.D, c.window)
}

// attention64 is the definition, row by row.
func (c attentionCase) attention64(q, k, v []float64) []float64 {
	out := make([]float64, len(q))
	H, G, D := c.H, c.G, c.D
	for s, span := range c.spans {
		for i := span.From; i < span.To; i++ {
			seen := c.seen(s, i)
			for h := range H {
				g := h / (H / G)
				sum := 0.0
				p := make([]float64, len(seen))
				for n, j := range seen {
					p[n] = math.Exp(c.scale * inner(q[(i*H+h)*D:(i*H+h+1)*D], k[(j*G+g)*D:]))
					sum += p[n]
				}
				for n, j := range seen {
					for e := range D {
						out[(i*H+h)*D+e] += p[n] / sum * v[(j*G+g)*D+e]
					}
				}
			}
		}
	}
	return out
}

func (c attentionCase) forward() (out, probs []float32) {
	out, probs = make([]float32, len(c.q)), make([]float32, AttentionScratch(len(c.q)/(c.H*c.D), c.H))
	Attention(out, probs, c.q, c.k, c.v, c.spans, c.H, c.G, c.D, float32(c.scale), c.window)
	return out, probs
}

func attentionCases(r *rand.Rand) []attentionCase {
	return []attentionCase{
		newAttentionCase(r, 1, 1, 32, 1),
		newAttentionCase(r, 1, 1, 8, 2, 0, 3),
		newAttentionCase(r, 6, 2, 32, 17, 33, 64),
		newAttentionCase(r, 4, 4, 16, 15, 80),
		newAttentionCase(r, 16, 1, 24, 31),
		newAttentionCase(r, 2, 1, 40, 260),
		newAttentionCase(r, 3, 3, 64, 100, 5),
		newAttentionCase(r, 6, 2, 32, 33, -40, -7, -1, 12, 20, -130, 0, -3),
		newAttentionCase(r, 4, 1, 40, 1, -31, -32, -33, 260, -64),

		newAttentionCase(r, 6, 2, 32, 33, 20, 7, 40, 1, 9, 17, 5).behind(0, 1, 1, 2, 4, 1, 6, 0), // trees
		newAttentionCase(r, 4, 1, 40, 5, 0, 35, 60, 130, 20, 11).behind(0, 1, 1, 1, 2, 0, 1),
		newAttentionCase(r, 2, 2, 16, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 3).behind(0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 9), // of the greatest depth

		newAttentionCase(r, 6, 2, 32, 33, 20, 7, 40, 1, 9, 17, 5).behind(0, 1, 1, 2, 4, 1, 6, 0).in(25),
		newAttentionCase(r, 4, 1, 40, 5, 0, 35, 60, 130, 20, 11).behind(0, 1, 1, 1, 2, 0, 1).in(70),
		newAttentionCase(r, 1, 1, 8, 1, 2, 9).in(1),
		newAttentionCase(r, 6, 2, 32, 17, 33, 64).in(8),
		newAttentionCase(r, 2, 1, 40, 400, 32, 33).in(32),
		newAttentionCase(r, 3, 3, 16, 300).in(33),
		newAttentionCase(r, 4, 1, 24, 250, 100).in(115), // more than a block of the backward pass
		newAttentionCase(r, 6, 2, 32, 33, -40, -7, -1, 12, 20, -130, 0, -3).in(21),
		newAttentionCase(r, 4, 1, 40, 1, -31, -32, -33, 260, -64, -200, -2).in(70),
		newAttentionCase(r, 4, 2, 8, 50, -60, -3).in(51), // the first row of what continues still sees the whole prompt
		newAttentionCase(r, 4, 2, 8, 50, -60, -3).in(50), // and here all of it but one
	}
}

func TestAttention(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		for _, c := range attentionCases(generator(1)) {
			out, _ := c.forward()
			near(t, c.String(), out, c.attention64(wide(c.q), wide(c.k), wide(c.v)), 1e-5)
		}
	})
}

func TestAttentionBackward(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(2)
		for _, c := range attentionCases(r) {
			_, probs := c.forward()
			dout := normal(r, len(c.q))
			dq, check1 := guarded(len(c.q))
			dk, check2 := guarded(len(c.k))
			dv, check3 := guarded(len(c.v))
			AttentionBackward(dq, dk, dv, dout, probs, c.q, c.k, c.v, c.spans, c.H, c.G, c.D, float32(c.scale), c.window)
			check1(t)
			check2(t)
			check3(t)
			wantQ, wantK, wantV := c.backward64(wide(dout))
			near(t, c.String()+" dq", dq, wantQ, 2e-5)
			near(t, c.String()+" dk", dk, wantK, 2e-5)
			near(t, c.String()+" dv", dv, wantV, 2e-5)
		}
	})
}

// backward64 is the derivative in the closed form that AttentionBackward's comment states.
func (c attentionCase) backward64(dout []float64) (dq, dk, dv []float64) {
	q, k, v := wide(c.q), wide(c.k), wide(c.v)
	dq, dk, dv = make([]float64, len(q)), make([]float64, len(k)), make([]float64, len(v))
	H, G, D := c.H, c.G, c.D
	for s, span := range c.spans {
		for i := span.From; i < span.To; i++ {
			seen := c.seen(s, i)
			for h := range H {
				g, at := h/(H/G), (i*H+h)*D
				p, dp := make([]float64, len(seen)), make([]float64, len(seen))
				key := func(n int) int { return (seen[n]*G + g) * D }
				sum := 0.0
				for j := range p {
					p[j] = math.Exp(c.scale * inner(q[at:at+D], k[key(j):]))
					sum += p[j]
					dp[j] = inner(dout[at:at+D], v[key(j):])
				}
				delta := 0.0
				for j := range p {
					p[j] /= sum
					delta += p[j] * dp[j]
				}
				for j := range p {
					ds := c.scale * p[j] * (dp[j] - delta)
					for e := range D {
						dq[at+e] += ds * k[key(j)+e]
						dk[key(j)+e] += ds * q[at+e]
						dv[key(j)+e] += p[j] * dout[at+e]
					}
				}
			}
		}
	}
	return dq, dk, dv
}

// The closed form above is itself held against finite differences of the definition.
func TestAttentionClosedFormAgainstFiniteDifferences(t *testing.T) {
	r := generator(3)
	for _, window := range []int{0, 2, 4} {
		closedFormAgainstFiniteDifferences(t, r, newAttentionCase(r, 4, 2, 3, 4, 1, 3, -2, -3).in(window))
		closedFormAgainstFiniteDifferences(t, r, newAttentionCase(r, 2, 1, 3, 2, 2, 1, 3, 2).behind(0, 1, 1, 2, 4).in(window))
	}
}

func closedFormAgainstFiniteDifferences(t *testing.T, r *rand.Rand, c attentionCase) {
	dout := wide(normal(r, len(c.q)))
	q, k, v := wide(c.q), wide(c.k), wide(c.v)
	loss := func() float64 { return inner(c.attention64(q, k, v), dout) }
	dq, dk, dv := c.backward64(dout)
	for name, x := range map[string][2][]float64{"dq": {q, dq}, "dk": {k, dk}, "dv": {v, dv}} {
		for i := range x[0] {
			if want := slope(loss, x[0], i); math.Abs(x[1][i]-want) > 1e-7*(1+math.Abs(want)) {
				t.Fatalf("%s[%d] = %v, finite difference %v", name, i, x[1][i], want)
			}
		}
	}
}

// A row depends on what it sees, to the bit: not on its neighbours in the batch, not on later rows, and not on whether
// what comes before it is shared.
func TestAttentionRowsDoNotDependOnTheBatch(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(4)
		for _, c := range attentionCases(r) {
			out, _ := c.forward()
			qd := c.H * c.D
			for s, span := range c.spans {
				if span.From == span.To {
					continue
				}
				n := span.From + 1 + r.IntN(span.To-span.From) // the first rows
				alone := c.alone(append(c.before(s), [2]int{span.From, n})...)
				got, _ := alone.forward()
				same(t, c.String(), got[len(got)-(n-span.From)*qd:], out[span.From*qd:n*qd])
			}
		}
	})
}

// alone is the case of some ranges of rows as one sequence.
func (c attentionCase) alone(ranges ...[2]int) attentionCase {
	out, N := attentionCase{H: c.H, G: c.G, D: c.D, scale: c.scale, window: c.window}, 0
	for _, r := range ranges {
		qd, kd := c.H*c.D, c.G*c.D
		out.q = append(out.q, c.q[r[0]*qd:r[1]*qd]...)
		out.k, out.v = append(out.k, c.k[r[0]*kd:r[1]*kd]...), append(out.v, c.v[r[0]*kd:r[1]*kd]...)
		N += r[1] - r[0]
	}
	out.spans = []Span{{From: 0, To: N}}
	return out
}

// A step gives the bytes of Attention's row, whatever steps with it and however its cache was filled.
func TestAttentionStepIsAttention(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(6)
		for _, c := range attentionCases(r) {
			if slices.ContainsFunc(c.spans, func(s Span) bool { return s.Behind > 0 }) {
				continue // a cache is of one sequence
			}
			out, _ := c.forward()
			S, qd, kd := len(c.spans), c.H*c.D, c.G*c.D
			longest := 0
			for _, s := range c.spans {
				longest = max(longest, s.To-s.From)
			}
			for _, prompt := range []int{0, 1, 31, 32, 33, longest} { // positions that are there before the first step
				caches := NewCaches(S, longest, c.G, c.D)
				for s := range S {
					from, length := c.spans[s].From, c.spans[s].To-c.spans[s].From
					n := min(prompt, length)
					caches[s].Add(c.k[from*kd:], c.v[from*kd:], length) // what is forgotten
					caches[s].Clear()
					caches[s].Add(c.k[from*kd:], c.v[from*kd:], n/2) // in two parts
					caches[s].Add(c.k[(from+n/2)*kd:], c.v[(from+n/2)*kd:], n-n/2)
				}
				for T := prompt; T < longest; T++ {
					var at []*Cache
					var q, k, v, want []float32
					for s := range S {
						if row := c.spans[s].From + T; row < c.spans[s].To {
							at = append(at, &caches[s])
							q, want = append(q, c.q[row*qd:(row+1)*qd]...), append(want, out[row*qd:(row+1)*qd]...)
							k, v = append(k, c.k[row*kd:(row+1)*kd]...), append(v, c.v[row*kd:(row+1)*kd]...)
						}
					}
					got, check := guarded(len(q))
					AttentionStep(got, q, k, v, at, c.H, float32(c.scale), c.window)
					check(t)
					same(t, fmt.Sprintf("%v: step %d after a prompt of %d", c, T, prompt), got, want)
				}
			}
		}
	})
}

// backward returns dq, dk and dv for a gradient.
func (c attentionCase) backward(dout, probs []float32) [3][]float32 {
	d := [3][]float32{make([]float32, len(c.q)), make([]float32, len(c.k)), make([]float32, len(c.v))}
	AttentionBackward(d[0], d[1], d[2], dout, probs, c.q, c.k, c.v, c.spans, c.H, c.G, c.D, float32(c.scale), c.window)
	return d
}

// A window that reaches over all that a row sees gives the bytes of none.
func TestAWideWindowIsNone(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(7)
		for _, c := range attentionCases(r) {
			dout, all := normal(r, len(c.q)), c.in(0)
			want, probs := all.forward()
			wantD := all.backward(dout, probs)
			longest := 0
			for s, span := range c.spans {
				n := span.To - span.From
				for _, p := range c.before(s) {
					n += p[1] - p[0]
				}
				longest = max(longest, n)
			}
			for _, window := range []int{longest, longest + 1, 1 << 40} {
				wide := c.in(window)
				got, probs := wide.forward()
				same(t, wide.String(), got, want)
				for i, d := range wide.backward(dout, probs) {
					same(t, fmt.Sprint(wide, " gradient ", i), d, wantD[i])
				}
			}
		}
	})
}

// Far from a window nothing is read: what is not a number there leaves no trace.
func TestOutsideAWindowNothingIsRead(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(8)
		const T, far, window = 500, 200, 20
		// A panel of keys, a tile of rows and a window: so far a row's work reaches at most.
		const reach = panel + 14 + window
		c := newAttentionCase(r, 4, 2, 16, far, -(T - far), -40).in(window)
		dout := normal(r, len(c.q))
		out, probs := c.forward()
		want := c.backward(dout, probs)
		nan := float32(math.NaN())
		fill := func(x []float32, width int) {
			for i := range far * width {
				x[i] = nan
			}
		}
		qd, kd := c.H*c.D, c.G*c.D
		fill(c.k, kd)
		fill(c.v, kd)
		got, probs2 := c.forward()
		clean := (far + reach) * qd
		same(t, "out", got[clean:T*qd], out[clean:T*qd])
		fill(c.q, qd)
		fill(dout, qd)
		for i, d := range c.backward(dout, probs2) {
			clean := (far + reach) * len(d) / (T + 40)
			end := T * len(d) / (T + 40)
			same(t, fmt.Sprint("gradient ", i), d[clean:end], want[i][clean:end])
		}
		if !math.IsNaN(float64(got[0])) {
			t.Error("the test has put nothing into the sequence")
		}
		// A step of the decoder.
		caches := NewCaches(1, T, c.G, c.D)
		caches[0].Add(c.k, c.v, T-1)
		const last = T - 1
		AttentionStep(got[:qd], normal(r, qd), c.k[last*kd:], c.v[last*kd:], []*Cache{&caches[0]}, c.H, float32(c.scale), window)
		if slices.ContainsFunc(got[:qd], func(x float32) bool { return x != x }) {
			t.Error("a step reads keys and values from outside its window")
		}
	})
}

// However heads are shared out among tasks, sums are the same bytes: of few spans every head is a task.
func TestHeadsThatShareKeysAreSummedInOneOrder(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(9)
		for _, c := range []attentionCase{
			newAttentionCase(r, 8, 1, 24, 150, 3, 20, 60, 1), newAttentionCase(r, 8, 2, 24, 90, -40, -3, 200, -33).in(40),
		} {
			dout := normal(r, len(c.q))
			_, probs := c.forward()
			var want [3][]float32
			withThreads(1, func() {
				want = c.backward(dout, probs)
				if n := headsPerTask(len(c.spans), c.H, c.G); n != c.H/c.G {
					t.Errorf("with one thread a task has %d heads, want a whole group", n)
				}
			})
			withThreads(9, func() {
				for i, d := range c.backward(dout, probs) {
					same(t, fmt.Sprint(c, " gradient ", i), d, want[i])
				}
				if n := headsPerTask(len(c.spans), c.H, c.G); n != 1 {
					t.Errorf("with nine threads a task has %d heads, want one", n)
				}
			})
		}
	})
}

// Sequences that continue a shared cache get the bytes of sequences that hold all of it, whatever steps with them: a
// neighbour that continues the same one, another one, or none.
func TestAttentionStepSharesAPrefix(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(8)
		for _, c := range append(attentionCases(r),
			newAttentionCase(r, 4, 2, 40, 45, -3, -3, -3, -3, -3, -3, -3, -3, -3), // more sequences than heads share keys
			newAttentionCase(r, 4, 1, 32, append([]int{31}, slices.Repeat([]int{-2}, 9)...)...),
			newAttentionCase(r, 2, 2, 64, append([]int{64}, slices.Repeat([]int{-2}, 40)...)...), // more than a piece
		) {
			if c.deep() {
				continue // a cache continues one other
			}
			for _, window := range []int{c.window, 1, 20, 33, 70} {
				stepsAfterAPrefix(t, c.in(window))
			}
		}
	})
}

func stepsAfterAPrefix(t *testing.T, c attentionCase) {
	t.Helper()
	out, _ := c.forward()
	qd, kd, longest := c.H*c.D, c.G*c.D, 0
	for _, s := range c.spans {
		longest = max(longest, s.To-s.From)
	}
	prefixes, caches, others := NewCaches(len(c.spans), longest, c.G, c.D), NewCaches(len(c.spans), longest, c.G, c.D), NewCaches(len(c.spans), longest, c.G, c.D)
	for s, span := range c.spans {
		prefixes[s].Add(c.k[span.From*kd:], c.v[span.From*kd:], span.To-span.From)
		if s%3 != 1 {
			prefixes[s].Close()
		}
		caches[s].Add(c.k, c.v, 1) // what is forgotten
		caches[s].Clear()
		if span.Behind > 0 {
			caches[s].Continue(&prefixes[s-span.Behind])
		}
	}
	for T := range longest {
		var at []*Cache
		var q, k, v, want []float32
		for s, span := range c.spans {
			if row := span.From + T; row < span.To {
				if (T+s)%5 == 0 { // goes on in a copy
					others[s].CopyFrom(&caches[s])
					caches[s], others[s] = others[s], caches[s]
				}
				at = append(at, &caches[s])
				q, want = append(q, c.q[row*qd:(row+1)*qd]...), append(want, out[row*qd:(row+1)*qd]...)
				k, v = append(k, c.k[row*kd:(row+1)*kd]...), append(v, c.v[row*kd:(row+1)*kd]...)
			}
		}
		got, check := guarded(len(q))
		AttentionStep(got, q, k, v, at, c.H, float32(c.scale), c.window)
		check(t)
		same(t, fmt.Sprintf("%v: step %d", c, T), got, want)
	}
}

func TestAClosedCacheDoesNotGrow(t *testing.T) {
	for n, grows := range map[int]bool{1: false, 31: false, 32: true, 33: false} {
		c := &NewCaches(1, 40, 2, 4)[0]
		x := make([]float32, 40*8)
		c.Add(x, x, n)
		c.Close()
		func() {
			defer func() {
				if v := recover(); (v == nil) != grows {
					t.Errorf("a cache of %d positions that was closed grows: %v", n, v == nil)
				}
			}()
			c.Add(x, x, 1)
		}()
	}
}

// The bytes of a step do not depend on the threads, even where there are pieces for all of them.
func TestAttentionStepThreads(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(9)
		c := newAttentionCase(r, 4, 2, 64, append([]int{300}, slices.Repeat([]int{-1}, 40)...)...)
		out, _ := c.forward()
		for _, threads := range []int{1, 2, 7} {
			withThreads(threads, func() {
				prefix, caches := NewCaches(1, 300, c.G, c.D), NewCaches(40, 1, c.G, c.D)
				prefix[0].Add(c.k, c.v, 300)
				var at []*Cache
				for i := range caches {
					caches[i].Continue(&prefix[0])
					at = append(at, &caches[i])
				}
				qd, kd := c.H*c.D, c.G*c.D
				got := make([]float32, 40*qd)
				AttentionStep(got, c.q[300*qd:], c.k[300*kd:], c.v[300*kd:], at, c.H, float32(c.scale), c.window)
				same(t, fmt.Sprint(threads, " threads"), got, out[300*qd:])
			})
		}
	})
}

func TestCacheRefusesOneMoreThanItHolds(t *testing.T) {
	caches := NewCaches(2, 32, 1, 4)
	x := make([]float32, 33*4)
	defer func() {
		if recover() == nil {
			t.Error("a cache of 32 positions took 33, which are another cache's memory")
		}
	}()
	caches[0].Add(x, x, 33)
}

func TestAttentionOfLargeScores(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		c := newAttentionCase(generator(5), 1, 1, 16, 40)
		for i := range c.q {
			c.q[i] *= 100 // scores of some hundreds: exp of them would overflow
		}
		out, probs := c.forward()
		if slices.ContainsFunc(append(out, probs...), func(x float32) bool { return x-x != 0 }) {
			t.Fatal("a result is not finite")
		}
	})
}
