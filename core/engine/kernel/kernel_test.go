package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

// everyLevel runs a test at each level of this CPU, and skips those it lacks by name.
func everyLevel(t *testing.T, f func(t *testing.T)) {
	for _, name := range levelNames {
		t.Run(name, func(t *testing.T) {
			if !slices.Contains(Levels(), name) {
				t.Skip("this build on this CPU has no level " + name)
			}
			defer SetLevel(name)()
			f(t)
		})
	}
}

// withThreads runs f under GOMAXPROCS n.
func withThreads(n int, f func()) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
	f()
}

func generator(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// normal returns n standard normal numbers.
func normal(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

const canary = 1234.5

// guarded is n elements with 16 canaries before and behind; check fails the test if one has changed.
func guarded(n int) (x []float32, check func(t *testing.T)) {
	all := slices.Repeat([]float32{canary}, n+32)
	return all[16 : 16+n : 16+n], func(t *testing.T) {
		t.Helper()
		for i := range 16 {
			if all[i] != canary || all[16+n+i] != canary {
				t.Fatalf("wrote outside the slice of %d elements", n)
			}
		}
	}
}

// near fails unless |got-want| ≤ tol·(1+|want|) for each element.
func near(t *testing.T, what string, got []float32, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d elements, want %d", what, len(got), len(want))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= tol*(1+math.Abs(w))) {
			t.Fatalf("%s[%d] = %v, want %v", what, i, got[i], w)
		}
	}
}

// same fails unless the bytes are equal.
func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d elements, want %d", what, len(got), len(want))
	}
	for i, w := range want {
		if math.Float32bits(got[i]) != math.Float32bits(w) {
			t.Fatalf("%s[%d] = %v, want the same bytes as %v", what, i, got[i], w)
		}
	}
}

func wide(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

func TestChooseLevel(t *testing.T) {
	have := []instructions{generic, avx2}
	tests := map[string]struct {
		asked string
		want  instructions
		fails bool
	}{
		"without the variable the best is taken":        {"", avx2, false},
		"a level that the CPU has is taken":             {"generic", generic, false},
		"a level that the CPU lacks is an error":        {"avx512", avx2, true},
		"a level that nobody has heard of is one, too":  {"sse9", avx2, true},
		"names are exact":                               {"AVX2", avx2, true},
		"a blank is no name and does not pass silently": {" ", avx2, true},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := choose(c.asked, have)
			if got != c.want || (err != nil) != c.fails {
				t.Fatalf("choose(%q) = %v, %v", c.asked, got, err)
			}
		})
	}
}

func TestLevels(t *testing.T) {
	names := Levels()
	if names[0] != "generic" || !slices.Contains(names, Level()) {
		t.Fatalf("Levels() = %q, Level() = %q", names, Level())
	}
	if err := LevelError(); err != nil {
		t.Fatalf("the tests run under a DNO_KERNEL that this CPU lacks: %v", err)
	}
}

// The levels after avx512 are for products of other kinds: whatever is float32 is the same bytes.
func TestFloat32IsTheSameFromAVX512On(t *testing.T) {
	if !slices.Contains(Levels(), "avx512") {
		t.Skip("this build on this CPU has no level avx512")
	}
	results := func() map[string][]float32 {
		out := map[string][]float32{}
		r := generator(1)
		for mode := range 8 {
			p := newProduct(r, mode&1 > 0, mode&2 > 0, mode&4 > 0, 50, 70, 301)
			p.run(Gemm)
			out[p.String()] = p.c
		}
		p := newProduct(r, false, true, false, 50, 70, 301)
		p.run(kinds[0].packed)
		out["GemmPacked"] = p.c

		const rows, d = 40, 199 // many sums of many numbers: other orders show
		fresh := func(name string, n int) []float32 { out[name] = normal(r, n); return out[name] }
		x, y, z := normal(r, rows*d), normal(r, rows*d), normal(r, rows*d)
		Exp(fresh("Exp", rows*d), x)
		for i := range rows {
			Softmax(fresh(fmt.Sprint("Softmax ", i), d))
		}
		Axpy(2, x, fresh("Axpy", rows*d))
		Scale(2, fresh("Scale", d))
		Add(fresh("Add", d), x[:d], y[:d])
		for i := range rows {
			a, b := x[i*d:(i+1)*d], y[i*d:(i+1)*d]
			squares := SumSquares(a)
			out["sums"] = append(out["sums"], LogSumExp(a), Dot(a, b), float32(squares), float32(squares-float64(float32(squares))))
		}
		SwiGLU(fresh("SwiGLU", rows*d), x, y)
		SwiGLUBackward(fresh("dgate", rows*d), fresh("dup", rows*d), x, y, z)
		GeGLU(fresh("GeGLU", rows*d), x, y)
		GeGLUBackward(fresh("GeGLU dgate", rows*d), fresh("GeGLU dup", rows*d), x, y, z)
		m, v := fresh("m", d), fresh("v", d)
		SwiGLU(v, v, v)
		Exp(v, v) // above 0
		AdamW(fresh("AdamW", d), x[:d], m, v, 1, 0.9, 0.9, 1, 0, 1, 1, 1)
		rstd := fresh("rstd", rows)
		RMSNorm(fresh("RMSNorm", rows*d), rstd, z, y[:d], rows, d, 1)
		RMSNormBackward(fresh("dx", rows*d), fresh("dw", d), y, z, y[:d], rstd, rows, d, true)
		Rope(fresh("Rope", 4*d), []int32{1, 0}, y[:2*d], z[:2*d], 1, 2*d, false)

		c := newAttentionCase(r, 4, 2, 33, 40, -70)
		T, D := c.spans[1].To, c.D
		attended, probs := fresh("Attention", T*4*D), fresh("probs", AttentionScratch(T, 4))
		clear(probs)
		Attention(attended, probs, c.q, c.k, c.v, c.spans, 4, 2, D, 0.1, 0)
		AttentionBackward(fresh("dq", T*4*D), fresh("dk", T*2*D), fresh("dv", T*2*D), attended, probs, c.q, c.k, c.v, c.spans, 4, 2, D, 0.1, 0)
		caches := NewCaches(1, T+1, 2, D)
		caches[0].Add(c.k, c.v, T)
		AttentionStep(fresh("AttentionStep", 4*D), c.q, c.k, c.v, []*Cache{&caches[0]}, 4, 0.1, 0)
		return out
	}
	restore := SetLevel("avx512")
	want := results()
	restore()
	for _, level := range Levels() {
		if slices.Index(Levels(), level) > slices.Index(Levels(), "avx512") {
			t.Run(level, func(t *testing.T) {
				defer SetLevel(level)()
				for name, got := range results() {
					same(t, name, got, want[name])
				}
			})
		}
	}
}

func TestPeakCountsWhatItDoes(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		float := map[string]float64{"generic": 12, "neon": 48 * 4, "avx2": 48 * 8, "avx512": 48 * 16, "avx512vnni": 48 * 16, "bf16": 48 * 16, "vnni": 48 * 16}[Level()]
		lanes := map[Precision]float64{Float32: float, BFloat16: float}
		if level >= bf16 {
			lanes[BFloat16] *= 2
		}
		for p, lanes := range lanes {
			for n, want := range map[int]float64{-1: 0, 0: 0, 1: 2 * lanes, 1000: 2000 * lanes} {
				if got := Peak(p, n); got != want {
					t.Errorf("%d rounds of %v are %v operations, want %v", n, p, got, want)
				}
			}
		}
	})
}
