package kernel

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
)

// everyLevel runs a test at each level of this CPU.
func everyLevel(t *testing.T, f func(t *testing.T)) {
	for _, name := range Levels() {
		t.Run(name, func(t *testing.T) {
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

func TestPeakCountsWhatItDoes(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		lanes := map[string]float64{"generic": 12, "avx2": 48 * 8, "avx512": 48 * 16}[Level()]
		for n, want := range map[int]float64{-1: 0, 0: 0, 1: 2 * lanes, 1000: 2000 * lanes} {
			if got := Peak(n); got != want {
				t.Errorf("%d rounds are %v operations, want %v", n, got, want)
			}
		}
	})
}
