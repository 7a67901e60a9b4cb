package preference

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/dno-project/dno/sdk"
	"pgregory.net/rapid"
)

// Rock, scissors, paper by rows: each beats the next.
var rps = []float64{
	.5, 1, 0,
	0, .5, 1,
	1, 0, .5,
}

func newTable(t rapid.TB, p []float64, n int) Table {
	t.Helper()
	table, err := NewTable(p, n)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func wantNear(t *testing.T, what string, want, got []float64, tolerance float64) {
	t.Helper()
	for i := range want {
		if len(got) != len(want) || !(math.Abs(got[i]-want[i]) <= tolerance) {
			t.Errorf("%s: %v, want %v", what, got, want)
			return
		}
	}
}

// The figures come from a separate implementation of Algorithms 1 and 4 (Option II), to six digits.
func TestSelfPlayOnRockPaperScissors(t *testing.T) {
	tests := map[string]struct {
		rules               Rules
		last                []float64
		gapLast, gapAverage float64 // NaN: not stated
		minSlack            float64
	}{
		"the plain game's last iterate cycles and its average converges": {
			rules: Rules{Steps: 2000, Eta: 10},
			last:  []float64{0.659800, 0.033445, 0.306754}, gapLast: 0.626355, gapAverage: 0.014469, minSlack: 0.00106588,
		},
		"smaller steps, longer": {
			rules: Rules{Steps: 20000, Eta: 50},
			last:  []float64{0.548351, 0.058744, 0.392905}, gapLast: 0.489606, gapAverage: 0.007429, minSlack: 0.000212359,
		},
		"the regularised game converges in its last iterate": {
			rules: Rules{Steps: 20000, Eta: 10, Tau: 0.1},
			last:  []float64{0.430882, 0.228437, 0.340681}, gapLast: 0.202445, gapAverage: none, minSlack: 0.0000779,
		},
		"and elsewhere at another eta": {
			rules: Rules{Steps: 20000, Eta: 1, Tau: 0.1},
			last:  []float64{0.4194094, 0.2092979, 0.3712930}, gapLast: 0.210112, gapAverage: none, minSlack: 0.000576716,
		},
	}
	start := []float64{.6, .3, .1}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := newTable(t, rps, 3).Play(start, test.rules)
			if err != nil {
				t.Fatal(err)
			}
			wantNear(t, "last iterate", test.last, got.Last, 5.1e-7)
			wantNear(t, "gap of the last iterate", []float64{test.gapLast}, []float64{got.GapLast}, 5.1e-7)
			if !math.IsNaN(test.gapAverage) {
				wantNear(t, "gap of the average", []float64{test.gapAverage}, []float64{got.GapAverage}, 5.1e-7)
			}
			wantNear(t, "least slack", []float64{test.minSlack}, []float64{got.MinSlack}, 5.1e-9)
		})
	}
	if !slices.Equal(start, []float64{.6, .3, .1}) {
		t.Error("the start was written to")
	}
}

func TestTheRegularisedGameStandsStill(t *testing.T) {
	table, rules := newTable(t, rps, 3), Rules{Steps: 10000, Eta: 10, Tau: 0.1}
	a, err := table.Play([]float64{.6, .3, .1}, rules)
	if err != nil {
		t.Fatal(err)
	}
	rules.Steps++
	b, err := table.Play([]float64{.6, .3, .1}, rules)
	if err != nil {
		t.Fatal(err)
	}
	wantNear(t, "one more step", a.Last, b.Last, 1e-12)
}

// Minimising Eq. 8 over the log-ratios by plain gradient descent ends where the closed form says.
// For η = ½ from (.6, .3, .1): r = (.6, .25, .65), and π' ∝ .6e^1.2, .3e^.5, .1e^1.3.
func TestRegressionRecoversTheStep(t *testing.T) {
	const eta = 0.5
	pi := []float64{.6, .3, .1}
	table := newTable(t, rps, 3)
	r, err := table.Rewards(pi)
	if err != nil {
		t.Fatal(err)
	}
	wantNear(t, "rewards", []float64{.6, .25, .65}, r, 1e-15)

	h := make([]float64, 3) // log π/π_t of each choice
	for range 4000 {
		gradient := make([]float64, 3)
		for i := range h {
			for j := range h {
				// d/dz of −σ(r₁−r₂)·log σ(z) − σ(r₂−r₁)·log σ(−z) is σ(z) − σ(r₁−r₂), z = η(h₁−h₂).
				d := eta * pi[i] * pi[j] * (SoftTarget(eta, h[i], h[j]) - SoftTarget(1, r[i], r[j]))
				gradient[i] += d
				gradient[j] -= d
			}
		}
		for i := range h {
			h[i] -= 20 * gradient[i]
		}
	}
	fitted := make([]float64, 3)
	for i := range fitted {
		fitted[i] = math.Log(pi[i]) + h[i]
	}
	softmax(fitted)
	step, err := table.Step(pi, eta)
	if err != nil {
		t.Fatal(err)
	}
	target := []float64{0.69808622, 0.17332968, 0.1285841}
	wantNear(t, "regression", target, fitted, 5.1e-9)
	wantNear(t, "closed form", target, step, 5.1e-9)
}

func TestAMissingChoiceStaysMissing(t *testing.T) {
	for name, tau := range map[string]float64{"plain": 0, "regularised": 0.5, "all of the pull": 2} {
		got, err := newTable(t, rps, 3).Play([]float64{.5, .5, 0}, Rules{Steps: 2000, Eta: 2, Tau: tau})
		if err != nil {
			t.Fatal(err)
		}
		if got.Last[2] != 0 || math.IsNaN(got.Last[0]) || got.MinSlack < -1e-12 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// drawTable draws preferences of n choices, many of them 0, ½ or 1.
func drawTable(t *rapid.T, most int) ([]float64, int) {
	n := rapid.IntRange(1, most).Draw(t, "n")
	p := make([]float64, n*n)
	value := rapid.OneOf(rapid.SampledFrom([]float64{0, 0.5, 1}), rapid.Float64Range(0, 1))
	for i := range n {
		p[i*n+i] = 0.5
		for j := range i {
			p[i*n+j] = value.Draw(t, fmt.Sprint("P", i, j))
			p[j*n+i] = 1 - p[i*n+j]
		}
	}
	return p, n
}

func drawPolicy(t *rapid.T, n int) []float64 {
	logits := rapid.SliceOfN(rapid.Float64Range(-5, 5), n, n).Draw(t, "logits")
	return softmax(slices.Clone(logits))
}

func TestEveryStepImprovesOnItsParent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, n := drawTable(t, 6)
		eta := rapid.Float64Range(0.1, 20).Draw(t, "eta")
		tau := rapid.Float64Range(0, 1).Draw(t, "share") * eta
		got, err := newTable(t, p, n).Play(drawPolicy(t, n), Rules{Steps: 20, Eta: eta, Tau: tau})
		if err != nil {
			t.Fatal(err)
		}
		if got.MinSlack < -1e-9 {
			t.Fatalf("P(next ≻ parent) falls short of ½ + η·KL by %v", -got.MinSlack)
		}
		for _, gap := range []float64{got.GapLast, got.GapAverage} {
			if gap < -1e-12 || gap > 1+1e-12 {
				t.Fatalf("gap %v", gap)
			}
		}
	})
}

func TestNashOfKnownGames(t *testing.T) {
	tests := map[string]struct {
		p    []float64
		n    int
		want []float64
	}{
		"one choice":          {[]float64{.5}, 1, []float64{1}},
		"the better of two":   {[]float64{.5, .3, .7, .5}, 2, []float64{0, 1}},
		"rock paper scissors": {rps, 3, []float64{1. / 3, 1. / 3, 1. / 3}},
		// A = P − ½ = [[0,a,−b],[−a,0,c],[b,−c,0]] has the equilibrium (c, b, a)/(a+b+c).
		"uneven rock paper scissors": {[]float64{.5, .6, .3, .4, .5, .9, .7, .1, .5}, 3, []float64{.4 / .7, .2 / .7, .1 / .7}},
		"an order":                   {[]float64{.5, .6, .7, .4, .5, .8, .3, .2, .5}, 3, []float64{1, 0, 0}},
		"a cycle below a head":       {[]float64{.5, 1, 0, .4, 0, .5, 1, .4, 1, 0, .5, .4, .6, .6, .6, .5}, 4, []float64{0, 0, 0, 1}},
		// Five in a ring, each beating the next two: uniform.
		"rock paper scissors lizard spock": {[]float64{
			.5, 1, 1, 0, 0,
			0, .5, 1, 1, 0,
			0, 0, .5, 1, 1,
			1, 0, 0, .5, 1,
			1, 1, 0, 0, .5}, 5, []float64{.2, .2, .2, .2, .2}},
		"all tie: the first": {[]float64{.5, .5, .5, .5}, 2, []float64{1, 0}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			wantNear(t, "mixture", test.want, newTable(t, test.p, test.n).Nash(), 1e-11)
		})
	}
}

func checkNash(t rapid.TB, table Table) {
	t.Helper()
	pi := table.Nash()
	if gap, err := table.Gap(pi); err != nil || gap > 1e-11 || gap < -1e-11 {
		t.Fatalf("gap %v of %v, error %v", gap, pi, err)
	}
	if again := table.Nash(); !slices.Equal(pi, again) {
		t.Fatalf("twice: %v and %v", pi, again)
	}
}

func TestNoChoiceBeatsTheNashMixture(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, n := drawTable(t, 10)
		checkNash(t, newTable(t, p, n))
	})
}

func TestNashOfManyChoices(t *testing.T) {
	// Any n numbers will do: the fractional parts of i·j·√2 below the diagonal.
	const n = 32
	p := make([]float64, n*n)
	for i := range n {
		p[i*n+i] = 0.5
		for j := range i {
			_, p[i*n+j] = math.Modf(float64(i*j+i) * math.Sqrt2)
			p[j*n+i] = 1 - p[i*n+j]
		}
	}
	checkNash(t, newTable(t, p, n))
}

// In floats, this near-tie of 2⁻¹⁷ ended the same method 2e-6 away from the equilibrium.
func TestNashOfNearTies(t *testing.T) {
	const n = 8
	below := [][]float64{
		{}, {0}, {0, 0}, {1, 0, 0}, {.5, 0, 0, 0}, {.5, .5, .5, 1, .5}, {0, 0, 0, 0, 0, 0}, {1, 1, 0x1p-17, 0, 1, 0, 0},
	}
	p := make([]float64, n*n)
	for i, row := range below {
		p[i*n+i] = 0.5
		for j, v := range row {
			p[i*n+j], p[j*n+i] = v, 1-v
		}
	}
	checkNash(t, newTable(t, p, n))
}

func TestExploitabilityIsHalfTheGap(t *testing.T) {
	table := newTable(t, rps, 3)
	for name, test := range map[string]struct {
		pi   []float64
		want float64
	}{
		"rock alone loses to paper always":     {[]float64{1, 0, 0}, 0.5},
		"the uniform mixture loses to nothing": {[]float64{1. / 3, 1. / 3, 1. / 3}, 0},
		"(.6,.3,.1): paper wins .6 + .05":      {[]float64{.6, .3, .1}, 0.15},
	} {
		e, err := table.Exploitability(test.pi)
		gap, err2 := table.Gap(test.pi)
		if err != nil || err2 != nil || math.Abs(e-test.want) > 1e-12 || gap != 2*e {
			t.Errorf("%s: exploitability %v, gap %v, want %v (%v, %v)", name, e, gap, test.want, err, err2)
		}
	}
}

func TestTablesRefuse(t *testing.T) {
	for name, test := range map[string]struct {
		p []float64
		n int
	}{
		"no choice":             {nil, 0},
		"too few values":        {[]float64{.5, .5}, 2},
		"a sum other than one":  {[]float64{.5, .7, .7, .5}, 2},
		"a diagonal not at ½":   {[]float64{.4}, 1},
		"a value not a number":  {[]float64{.5, none, none, .5}, 2},
		"a value outside [0,1]": {[]float64{.5, 1.5, -.5, .5}, 2},
	} {
		if _, err := NewTable(test.p, test.n); sdk.CodeOf(err) != sdk.CodeUsage {
			t.Errorf("%s: error %v", name, err)
		}
	}
	table := newTable(t, rps, 3)
	for name, pi := range map[string][]float64{
		"too few": {.5, .5}, "no distribution": {.5, .5, .5}, "negative": {1.5, -.5, 0}, "not a number": {none, .5, .5},
	} {
		_, err1 := table.Rewards(pi)
		_, err2 := table.Step(pi, 1)
		_, err3 := table.Play(pi, Rules{Steps: 1, Eta: 1})
		_, err4 := table.Gap(pi)
		for _, err := range []error{err1, err2, err3, err4} {
			if sdk.CodeOf(err) != sdk.CodeUsage {
				t.Errorf("policy %s: error %v", name, err)
			}
		}
	}
	for name, rules := range map[string]Rules{
		"no step": {Eta: 1}, "eta zero": {Steps: 1}, "eta not a number": {Steps: 1, Eta: none}, "eta infinite": {Steps: 1, Eta: math.Inf(1)},
		"tau above eta": {Steps: 1, Eta: 1, Tau: 2}, "tau below zero": {Steps: 1, Eta: 1, Tau: -1},
	} {
		if _, err := table.Play([]float64{1, 0, 0}, rules); sdk.CodeOf(err) != sdk.CodeUsage {
			t.Errorf("rules with %s: error %v", name, err)
		}
	}
	if _, err := table.Step([]float64{1, 0, 0}, 0); sdk.CodeOf(err) != sdk.CodeUsage {
		t.Errorf("step with eta zero: error %v", err)
	}
}

func FuzzNash(f *testing.F) {
	f.Add([]byte{128, 255, 0, 3, 77, 200})
	f.Fuzz(func(t *testing.T, data []byte) {
		n := 1
		for (n+1)*n/2 <= len(data) && n < 12 {
			n++
		}
		p := make([]float64, n*n)
		at := 0
		for i := range n {
			p[i*n+i] = 0.5
			for j := range i {
				p[i*n+j] = float64(data[at]) / 255
				p[j*n+i] = 1 - p[i*n+j]
				at++
			}
		}
		checkNash(t, newTable(t, p, n))
	})
}
