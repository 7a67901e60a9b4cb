package preference

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/dno-project/dno/sdk"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var none = math.NaN()

// near compares floats to 1e-12 and takes NaN for equal to NaN.
var near = cmp.Options{cmpopts.EquateNaNs(), cmpopts.EquateApprox(0, 1e-12)}

// own makes one completion of the policy for each text.
func own(texts ...string) []sdk.Completion {
	var out []sdk.Completion
	for _, text := range texts {
		out = append(out, sdk.Completion{Text: text, Source: sdk.FromPolicy})
	}
	return out
}

func teacher(texts ...string) []sdk.Completion {
	out := own(texts...)
	for i := range out {
		out[i].Source = sdk.FromTeacher
	}
	return out
}

func newGame(t rapid.TB, completions []sdk.Completion, raw []float64, options Options) *Game {
	t.Helper()
	g, err := NewGame(completions, raw, options)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// judged asks p for every ordered pair of texts.
func judged(completions []sdk.Completion, p func(a, b string) float64) []float64 {
	var raw []float64
	for _, a := range completions {
		for _, b := range completions {
			raw = append(raw, p(a.Text, b.Text))
		}
	}
	return raw
}

// rockPaperScissors: each letter beats the next of "rsp".
func rockPaperScissors(a, b string) float64 {
	switch a + b {
	case "rs", "sp", "pr":
		return 1
	case "sr", "ps", "rp":
		return 0
	}
	return 0.5
}

func TestPreferenceIsSymmetrisedOnce(t *testing.T) {
	tests := map[string]struct {
		ab, ba     float64
		both       bool
		preference float64
		asymmetry  float64
	}{
		"both orders agree":                             {ab: 0.8, ba: 0.2, preference: 0.8, asymmetry: 0},
		"soft verdicts are averaged: (0.9+1-0.3)/2":     {ab: 0.9, ba: 0.3, preference: 0.8, asymmetry: 0.2},
		"a hard disagreement is a tie":                  {ab: 1, ba: 1, preference: 0.5, asymmetry: 1},
		"so is one for the second shown":                {ab: 0, ba: 0, preference: 0.5, asymmetry: 1},
		"equal soft verdicts are exactly a tie":         {ab: 0.7, ba: 0.7, preference: 0.5, asymmetry: 0.4},
		"only the first order":                          {ab: 0.7, ba: none, preference: 0.7, asymmetry: none},
		"only the second order: 1-0.3":                  {ab: none, ba: 0.3, preference: 0.7, asymmetry: none},
		"neither order":                                 {ab: none, ba: none, preference: none, asymmetry: none},
		"one order of an oracle whose order matters":    {ab: 0.7, ba: none, both: true, preference: none, asymmetry: none},
		"the other order of it":                         {ab: none, ba: 0.3, both: true, preference: none, asymmetry: none},
		"both orders of an oracle whose order matters":  {ab: 1, ba: 0.5, both: true, preference: 0.75, asymmetry: 0.5},
		"certainty stays certain, and its reverse zero": {ab: 1, ba: 0, preference: 1, asymmetry: 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			g := newGame(t, own("a", "b"), []float64{none, test.ab, test.ba, none}, Options{OrderMatters: test.both})
			got := []float64{g.Preference(0, 1), g.Preference(1, 0), g.Asymmetry(0, 1), g.Asymmetry(1, 0), g.Preference(0, 0)}
			want := []float64{test.preference, 1 - test.preference, test.asymmetry, test.asymmetry, 0.5}
			if diff := cmp.Diff(want, got, near); diff != "" {
				t.Error(diff)
			}
			if test.preference == 0.5 && g.Preference(0, 1) != 0.5 {
				t.Errorf("a tie is %v, want exactly one half", g.Preference(0, 1))
			}
		})
	}
}

func TestEqualTextsShareTheirVerdicts(t *testing.T) {
	// 0 and 2 are "a". Only 0 was asked against 1, and only 2 against 3, which 1 lost to in one
	// order.
	completions := own("a", "b", "a", "c")
	raw := judged(completions, func(a, b string) float64 { return none })
	raw[0*4+1], raw[1*4+0] = 0.9, 0.3
	raw[2*4+3] = 1
	raw[1*4+3] = 0
	raw[0*4+2] = 1 // a verdict between equal texts is not read
	g := newGame(t, completions, raw, Options{})
	want := [][]float64{
		{0.5, 0.8, 0.5, 1},
		{0.2, 0.5, 0.2, 0},
		{0.5, 0.8, 0.5, 1},
		{0, 1, 0, 0.5},
	}
	for i := range want {
		for j := range want {
			if !cmp.Equal(want[i][j], g.Preference(i, j), near) {
				t.Errorf("P̃(%d,%d) = %v, want %v", i, j, g.Preference(i, j), want[i][j])
			}
		}
	}
	if got := []int{g.FirstOf(0), g.FirstOf(1), g.FirstOf(2), g.FirstOf(3)}; !slices.Equal(got, []int{0, 1, 0, 3}) {
		t.Errorf("first of each text: %v", got)
	}

	raw[2*4+1] = 0.5 // asked for both draws: (0.9+0.5)/2 = 0.7, and 0.5+(0.7-0.3)/2 = 0.7
	g = newGame(t, completions, raw, Options{})
	if got := g.Preference(0, 1); !cmp.Equal(got, 0.7, near) {
		t.Errorf("P̃ over two draws is %v, want 0.7", got)
	}
}

func TestConsistencyCountsEachPairOfTextsOnce(t *testing.T) {
	completions := own("a", "b", "c", "a")
	answers := map[string]float64{
		"ab": 1, "ba": 1, // a flip, asymmetry 1
		"ac": 0.9, "ca": 0.2, // 0.1
		"bc": 0.5, "cb": 0.9, // a tie and a verdict are no flip: 0.4
	}
	raw := judged(completions, func(a, b string) float64 {
		if p, ok := answers[a+b]; ok {
			return p
		}
		return none
	})
	want := Consistency{BothOrders: 3, Flips: 1, Asymmetry: 0.5} // (1+0.1+0.4)/3
	if diff := cmp.Diff(want, newGame(t, completions, raw, Options{}).Consistency(), near); diff != "" {
		t.Error(diff)
	}
	if got := newGame(t, own("a", "b"), []float64{none, 1, none, none}, Options{}).Consistency(); got != (Consistency{}) {
		t.Errorf("one order: %+v, want zeros", got)
	}
}

func TestNewGameRefuses(t *testing.T) {
	two := func(v float64) []float64 { return []float64{none, v, none, none} }
	tests := map[string]struct {
		raw     []float64
		options Options
		code    sdk.Code
	}{
		"a matrix of another size":     {raw: []float64{1, 2, 3}, code: sdk.CodeInternal},
		"a preference above one":       {raw: two(1.5), code: sdk.CodeInternal},
		"a preference below zero":      {raw: two(-0.1), code: sdk.CodeInternal},
		"an infinite preference":       {raw: two(math.Inf(1)), code: sdk.CodeInternal},
		"unknown opponents":            {raw: two(1), options: Options{Opponents: "both"}, code: sdk.CodeUsage},
		"an unknown estimator":         {raw: two(1), options: Options{Estimator: "mean"}, code: sdk.CodeUsage},
		"an allowed index too high":    {raw: two(1), options: Options{Allowed: []int{0, 2}}, code: sdk.CodeUsage},
		"an allowed index below zero":  {raw: two(1), options: Options{Allowed: []int{-1}}, code: sdk.CodeUsage},
		"an empty string is a default": {raw: two(1)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := NewGame(own("a", "b"), test.raw, test.options)
			if test.code == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || sdk.CodeOf(err) != test.code {
				t.Errorf("error %v, want code %d", err, test.code)
			}
		})
	}
}

func TestAnEmptyGameHasNoPairs(t *testing.T) {
	g := newGame(t, nil, nil, Options{})
	for _, rule := range []Rule{{}, {Select: SelectBestWorst}} {
		if pairs, err := g.Pairs(rule); err != nil || len(pairs) != 0 {
			t.Errorf("%+v: pairs %v, error %v", rule, pairs, err)
		}
	}
	if got, want := g.Cycles(), (Cycles{Condorcet: -1}); got != want {
		t.Errorf("cycles %+v, want %+v", got, want)
	}
}

// drawGame draws up to 7 completions of up to 5 texts, some of them the teacher's, with missing
// verdicts.
func drawGame(t *rapid.T) ([]sdk.Completion, []float64, Options) {
	n := rapid.IntRange(0, 7).Draw(t, "n")
	var completions []sdk.Completion
	for i := range n {
		c := sdk.Completion{Text: rapid.StringMatching("[a-e]").Draw(t, fmt.Sprint("text", i)), Source: sdk.FromPolicy}
		if rapid.IntRange(0, 3).Draw(t, "teacher") == 0 {
			c.Source = sdk.FromTeacher
		}
		completions = append(completions, c)
	}
	value := rapid.OneOf(rapid.SampledFrom([]float64{0, 0.5, 1, none}), rapid.Float64Range(0, 1))
	raw := rapid.SliceOfN(value, n*n, n*n).Draw(t, "raw")
	options := Options{
		Opponents:    rapid.SampledFrom([]string{"", OpponentsOwn, OpponentsAll}).Draw(t, "opponents"),
		Estimator:    rapid.SampledFrom([]string{"", LeavePairOut, LeaveSelfOut}).Draw(t, "estimator"),
		OrderMatters: rapid.Bool().Draw(t, "order matters"),
	}
	if n > 0 && rapid.Bool().Draw(t, "mixed") {
		options.Allowed = rapid.SliceOfN(rapid.IntRange(0, n-1), 0, n).Draw(t, "allowed")
	}
	return completions, raw, options
}

func TestPropertiesOfAnyGame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		completions, raw, options := drawGame(t)
		g := newGame(t, completions, raw, options)
		var sum float64
		known := true
		for i := range g.N() {
			for j := range g.N() {
				a, b := g.Preference(i, j), g.Preference(j, i)
				if math.IsNaN(a) != math.IsNaN(b) || !math.IsNaN(a) && (a+b != 1 || a < 0 || a > 1) {
					t.Fatalf("P̃(%d,%d) = %v and P̃(%d,%d) = %v", i, j, a, j, i, b)
				}
				if i == j {
					continue
				}
				known = known && !math.IsNaN(a)
				ri, rj := g.PairWinRates(i, j)
				sj, si := g.PairWinRates(j, i)
				if diff := cmp.Diff([]Estimate{ri, rj}, []Estimate{si, sj}, cmpopts.EquateNaNs()); diff != "" {
					t.Fatalf("the pair's order matters: %s", diff)
				}
			}
			e := g.WinRate(i)
			sum += e.Rate
			if e.Opponents == 0 != math.IsNaN(e.Rate) || e.Opponents < 2 != math.IsNaN(e.SE) {
				t.Fatalf("win rate %+v", e)
			}
			if k := float64(e.Opponents); e.SE > 0.5/math.Sqrt(k-1)+1e-12 || e.Rate < -1e-12 || e.Rate > 1+1e-12 {
				t.Fatalf("win rate out of its range: %+v", e)
			}
		}
		everybody := options.Opponents == OpponentsAll || !slices.ContainsFunc(completions, func(c sdk.Completion) bool { return c.Source == sdk.FromTeacher })
		// P̃(i,k) + P̃(k,i) = 1, so over all ordered pairs the mean is one half.
		if g.N() > 1 && known && everybody && math.Abs(sum/float64(g.N())-0.5) > 1e-12 {
			t.Fatalf("mean win rate %v, want 1/2", sum/float64(g.N()))
		}
		checkPairs(t, g, options)
		c := g.Cycles()
		if c.ThreeCycles > c.Intransitive || c.Intransitive > c.Triples || c.ThreeCycles > 0 && !c.Cyclic || c.Share() < 0 || c.Share() > 1 {
			t.Fatalf("cycles %+v", c)
		}
	})
}

func checkPairs(t *rapid.T, g *Game, options Options) {
	rule := Rule{
		MinMargin: rapid.Float64Range(-1, 1).Draw(t, "margin"),
		MaxPairs:  rapid.IntRange(0, 4).Draw(t, "max pairs"),
		Select:    rapid.SampledFrom([]string{"", SelectAll, SelectBestWorst}).Draw(t, "select"),
	}
	pairs, err := g.Pairs(rule)
	if err != nil {
		t.Fatal(err)
	}
	if rule.MaxPairs > 0 && len(pairs) > rule.MaxPairs {
		t.Fatalf("%d pairs, at most %d were wanted", len(pairs), rule.MaxPairs)
	}
	seen := map[string]bool{}
	for i, pair := range pairs {
		a, b := g.Completion(pair.Chosen).Text, g.Completion(pair.Rejected).Text
		if a == b || seen[a+b] || seen[b+a] {
			t.Fatalf("pair %+v of equal texts, or a repeated one", pair)
		}
		seen[a+b] = true
		if !(pair.Preference > 0.5) || pair.Margin < rule.MinMargin-1e-9 || pair.Weight != 1 || pair.Opponents < 1 {
			t.Fatalf("pair %+v does not pass %+v", pair, rule)
		}
		if options.Allowed != nil && !(slices.Contains(options.Allowed, pair.Chosen) && slices.Contains(options.Allowed, pair.Rejected)) {
			t.Fatalf("pair %+v is not of %v", pair, options.Allowed)
		}
		if i > 0 && !(pairs[i-1].Chosen < pair.Chosen || pairs[i-1].Chosen == pair.Chosen && pairs[i-1].Rejected < pair.Rejected) {
			t.Fatalf("pairs out of order: %+v", pairs)
		}
		same, err := g.Pair(pair.Chosen, pair.Rejected, 1)
		if diff := cmp.Diff(pair, same, cmpopts.EquateNaNs()); err != nil || diff != "" {
			t.Fatalf("the same pair by name: %v %s", err, diff)
		}
	}
}

func FuzzNewGame(f *testing.F) {
	f.Add([]byte{3, 0, 1, 2, 255, 128, 0, 7, 9, 200, 100, 50, 25})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, data []byte) {
		next := func() byte {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return b
		}
		n := int(next() % 9)
		var completions []sdk.Completion
		for range n {
			b := next()
			source := sdk.FromPolicy
			if b&128 != 0 {
				source = sdk.FromTeacher
			}
			completions = append(completions, sdk.Completion{Text: string('a' + rune(b%6)), Source: source})
		}
		raw := make([]float64, n*n)
		for i := range raw {
			raw[i] = (float64(next()) - 20) / 200 // some below 0, some above 1
			if raw[i] == 0.5 {
				raw[i] = none
			}
		}
		allowed := []int{int(next()) - 1, int(next()) % 10}
		g, err := NewGame(completions, raw, Options{Allowed: allowed})
		if err != nil {
			return
		}
		for _, selection := range []string{SelectAll, SelectBestWorst} {
			pairs, err := g.Pairs(Rule{MinMargin: 0, Select: selection})
			if err != nil {
				t.Fatal(err)
			}
			for _, pair := range pairs {
				if math.IsNaN(pair.ChosenWinRate + pair.RejectedWinRate + pair.Preference + pair.Margin) {
					t.Fatalf("pair without figures: %+v", pair)
				}
			}
		}
		g.Cycles()
	})
}
