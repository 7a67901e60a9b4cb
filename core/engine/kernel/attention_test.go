package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

type attentionCase struct {
	cu      []int
	H, G, D int
	scale   float64
	q, k, v []float32
}

func newAttentionCase(r *rand.Rand, H, G, D int, lengths ...int) attentionCase {
	c := attentionCase{cu: []int{0}, H: H, G: G, D: D, scale: 1 / math.Sqrt(float64(D))}
	for _, n := range lengths {
		c.cu = append(c.cu, c.cu[len(c.cu)-1]+n)
	}
	N := c.cu[len(c.cu)-1]
	c.q, c.k, c.v = normal(r, N*H*D), normal(r, N*G*D), normal(r, N*G*D)
	for i := range c.q {
		c.q[i] *= 2
	}
	return c
}

func (c attentionCase) String() string {
	return fmt.Sprintf("cu=%v H=%d G=%d D=%d", c.cu, c.H, c.G, c.D)
}

// attention64 is the definition, row by row.
func (c attentionCase) attention64(q, k, v []float64) []float64 {
	out := make([]float64, len(q))
	H, G, D := c.H, c.G, c.D
	for s := range len(c.cu) - 1 {
		for i := c.cu[s]; i < c.cu[s+1]; i++ {
			for h := range H {
				g := h / (H / G)
				sum := 0.0
				p := make([]float64, i-c.cu[s]+1)
				for j := range p {
					p[j] = math.Exp(c.scale * inner(q[(i*H+h)*D:(i*H+h+1)*D], k[((c.cu[s]+j)*G+g)*D:]))
					sum += p[j]
				}
				for j := range p {
					for e := range D {
						out[(i*H+h)*D+e] += p[j] / sum * v[((c.cu[s]+j)*G+g)*D+e]
					}
				}
			}
		}
	}
	return out
}

func (c attentionCase) forward() (out, probs []float32) {
	out, probs = make([]float32, len(c.q)), make([]float32, AttentionScratch(c.cu, c.H))
	Attention(out, probs, c.q, c.k, c.v, c.cu, c.H, c.G, c.D, float32(c.scale))
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
			AttentionBackward(dq, dk, dv, dout, probs, c.q, c.k, c.v, c.cu, c.H, c.G, c.D, float32(c.scale))
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
	for s := range len(c.cu) - 1 {
		for i := c.cu[s]; i < c.cu[s+1]; i++ {
			for h := range H {
				g, at := h/(H/G), (i*H+h)*D
				n := i - c.cu[s] + 1
				p, dp := make([]float64, n), make([]float64, n)
				key := func(j int) int { return ((c.cu[s]+j)*G + g) * D }
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
	c := newAttentionCase(r, 4, 2, 3, 4, 1, 3)
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

// A row depends on what is before it in its own sequence, to the bit: not on its neighbours in the batch, not on
// later rows.
func TestAttentionRowsDoNotDependOnTheBatch(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(4)
		for _, c := range attentionCases(r) {
			out, _ := c.forward()
			H, G, D := c.H, c.G, c.D
			for s := range len(c.cu) - 1 {
				from, to := c.cu[s], c.cu[s+1]
				if from == to {
					continue
				}
				n := 1 + r.IntN(to-from) // the first n rows alone
				alone := attentionCase{cu: []int{0, n}, H: H, G: G, D: D, scale: c.scale,
					q: c.q[from*H*D : (from+n)*H*D], k: c.k[from*G*D : (from+n)*G*D], v: c.v[from*G*D : (from+n)*G*D]}
				got, _ := alone.forward()
				same(t, c.String(), got, out[from*H*D:(from+n)*H*D])
			}
		}
	})
}

// A step gives the bytes of Attention's row, whatever steps with it and however its cache was filled.
func TestAttentionStepIsAttention(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(6)
		for _, c := range attentionCases(r) {
			out, _ := c.forward()
			S, qd, kd := len(c.cu)-1, c.H*c.D, c.G*c.D
			longest := 0
			for s := range S {
				longest = max(longest, c.cu[s+1]-c.cu[s])
			}
			for _, prompt := range []int{0, 1, 31, 32, 33, longest} { // positions that are there before the first step
				caches := NewCaches(S+1, longest, c.G, c.D)
				for s := range S {
					from, n := c.cu[s], min(prompt, c.cu[s+1]-c.cu[s])
					other := &caches[S] // is filled in two parts, and beyond the prompt
					other.Clear()
					other.Add(c.k[from*kd:], c.v[from*kd:], n/2)
					other.Add(c.k[(from+n/2)*kd:], c.v[(from+n/2)*kd:], c.cu[s+1]-from-n/2)
					caches[s].Copy(other, n)
				}
				for T := prompt; T < longest; T++ {
					var at []*Cache
					var q, k, v, want []float32
					for s := range S {
						if row := c.cu[s] + T; row < c.cu[s+1] {
							at = append(at, &caches[s])
							q, want = append(q, c.q[row*qd:(row+1)*qd]...), append(want, out[row*qd:(row+1)*qd]...)
							k, v = append(k, c.k[row*kd:(row+1)*kd]...), append(v, c.v[row*kd:(row+1)*kd]...)
						}
					}
					got, check := guarded(len(q))
					AttentionStep(got, q, k, v, at, c.H, float32(c.scale))
					check(t)
					same(t, fmt.Sprintf("%v: step %d after a prompt of %d", c, T, prompt), got, want)
				}
			}
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
