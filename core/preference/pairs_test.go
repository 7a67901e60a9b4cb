package preference

import (
	"math"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// four is a game of four own completions and one of the teacher, each order asked:
//
//	P̃     a    b    c    d    T
//	a     ·    1    1   .8    0
//	b     0    ·    1   .6    0
//	c     0    0    ·   .5    1
//	d    .2   .4   .5    ·    0
//	T     1    1    0    1    ·
func four(t *testing.T, options Options) *Game {
	return newGame(t, append(own("a", "b", "c", "d"), teacher("T")...), []float64{
		none, 1, 1, .8, 0,
		0, none, 1, .6, 0,
		0, 0, none, .5, 1,
		.2, .4, .5, none, 0,
		1, 1, 0, 1, none,
	}, options)
}

func TestWinRatesAreOverTheOpponents(t *testing.T) {
	tests := map[string]struct {
		options Options
		i       int
		want    Estimate
	}{
		// a: 1, 1, .8: mean 2.8/3, squares 2(1/15)²+(2/15)² = 6/225, /2/3.
		"own completions": {i: 0, want: Estimate{Rate: 2.8 / 3, SE: math.Sqrt(6. / 225 / 2 / 3), Opponents: 3}},
		// T: 1, 1, 0, 1: mean .75, squares 3·.0625+.5625 = .75, /3/4 = .0625.
		"a teacher's completion is ranked": {i: 4, want: Estimate{Rate: 0.75, SE: 0.25, Opponents: 4}},
		// a: 1, 1, .8, 0: mean .7, squares .09+.09+.01+.49 = .68.
		"all":                                {options: Options{Opponents: OpponentsAll}, i: 0, want: Estimate{Rate: 0.7, SE: math.Sqrt(.68 / 3 / 4), Opponents: 4}},
		"what may be paired changes nothing": {options: Options{Allowed: []int{4, 0}}, i: 4, want: Estimate{Rate: 0.75, SE: 0.25, Opponents: 4}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, four(t, test.options).WinRate(test.i), near); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPairWinRatesLeaveThePairOut(t *testing.T) {
	tests := map[string]struct {
		options Options
		i, j    int
		wi, wj  Estimate
	}{
		// a over c, d: 1, .8: squares 2·.01, /1/2 = .01. b over c, d: 1, .6: 2·.04/2 = .04.
		"two own completions": {i: 0, j: 1, wi: Estimate{0.9, 0.1, 2}, wj: Estimate{0.8, 0.2, 2}},
		// T over b, c, d: 1, 0, 1: squares 6/9, /2/3 = 1/9. a over b, c, d as in its win rate.
		"teacher and student": {i: 4, j: 0, wi: Estimate{2. / 3, 1. / 3, 3}, wj: Estimate{2.8 / 3, math.Sqrt(6. / 225 / 2 / 3), 3}},
		// a over c, d, T: 1, .8, 0: mean .6, squares .16+.04+.36 = .56. b: 1, .6, 0: mean 1.6/3.
		"all are opponents": {options: Options{Opponents: OpponentsAll}, i: 0, j: 1,
			wi: Estimate{0.6, math.Sqrt(.56 / 6), 3},
			wj: Estimate{1.6 / 3, math.Sqrt((1 + .36 - 1.6*1.6/3) / 6), 3}},
		// b over a, c, d: 0, 1, .6: squares as above.
		"leave self out": {options: Options{Estimator: LeaveSelfOut}, i: 0, j: 1,
			wi: Estimate{2.8 / 3, math.Sqrt(6. / 225 / 2 / 3), 3},
			wj: Estimate{1.6 / 3, math.Sqrt((1 + .36 - 1.6*1.6/3) / 6), 3}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ri, rj := four(t, test.options).PairWinRates(test.i, test.j)
			if diff := cmp.Diff([]Estimate{test.wi, test.wj}, []Estimate{ri, rj}, near); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPairWinRatesWithFewOpponents(t *testing.T) {
	one := func(rate float64) Estimate { return Estimate{rate, none, 1} }
	tests := map[string]struct {
		completions []sdk.Completion
		raw         []float64
		ri, rj      Estimate // of completions 0 and 1
	}{
		"no opponent left: the verdict on the pair": {
			own("a", "b"), []float64{none, .7, none, none}, one(.7), one(.3)},
		"one own completion and a teacher's": {
			append(own("a"), teacher("T")...), []float64{none, .2, .4, none}, one(.4), one(.6)}, // (.2+1-.4)/2
		"one opponent: no standard error": {
			own("a", "b", "c"), []float64{none, 1, .9, none, none, .4, none, none, none}, one(.9), one(.4)},
		"an abstained comparison is left out": {
			own("a", "b", "c", "d"), []float64{
				none, 1, .9, 1,
				none, none, none, .4,
				none, none, none, none,
				none, none, none, none}, Estimate{.95, .05, 2}, one(.4)}, // squares 2·.05², /1/2
		"an opponent of one only: the verdict on the pair for both": {
			own("a", "b", "c"), []float64{none, .8, .1, none, none, none, none, none, none}, one(.8), one(.2)},
		"nothing compared": {
			own("a", "b"), []float64{none, none, none, none}, Estimate{none, none, 0}, Estimate{none, none, 0}},
		"a second draw of either is an opponent": {
			own("a", "b", "a"), []float64{none, .8, none, none, none, none, none, none, none}, one(.5), one(.2)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ri, rj := newGame(t, test.completions, test.raw, Options{}).PairWinRates(0, 1)
			if diff := cmp.Diff([]Estimate{test.ri, test.rj}, []Estimate{ri, rj}, near); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// On uniform rock-paper-scissors every choice's win rate is 1/2, so the true gap of every pair is
// 0. The expectation over K = 5 independent draws of which the first two are rock and scissors is
// computed exactly, over all 3³ ways to draw the other three. Leaving only self out, the verdict r
// ≻ s itself stands in one of four terms: (1 + 3·½)/4 − (0 + 3·½)/4 = 0.25.
func TestLeavePairOutIsUnbiased(t *testing.T) {
	for estimator, want := range map[string]float64{LeavePairOut: 0, LeaveSelfOut: 0.25} {
		t.Run(estimator, func(t *testing.T) {
			var sum float64
			letters := strings.Split("rps", "")
			for _, x := range letters {
				for _, y := range letters {
					for _, z := range letters {
						completions := own("r", "s", x, y, z)
						g := newGame(t, completions, judged(completions, rockPaperScissors), Options{Estimator: estimator})
						ri, rj := g.PairWinRates(0, 1)
						sum += ri.Rate - rj.Rate
					}
				}
			}
			if got := sum / 27; math.Abs(got-want) > 1e-12 {
				t.Errorf("expected gap %v, want %v", got, want)
			}
		})
	}
}

func TestPairsOfARule(t *testing.T) {
	type ij struct{ Chosen, Rejected int }
	// Leave-pair-out margins of four's arrows:
	//   a≻b (1+.8)/2 − (1+.6)/2 = .1      a≻c (1+.8)/2 − (0+.5)/2 = .65
	//   a≻d (1+1)/2 − (.4+.5)/2 = .55     b≻c (0+.6)/2 − (0+.5)/2 = .05
	//   b≻d (0+1)/2 − (.2+.5)/2 = .15     c≻T (0+0+.5)/3 − 3/3 = −.83333
	//   T≻a 2/3 − 2.8/3 = −.26667         T≻b 2/3 − 1.6/3 = .13333
	//   T≻d 2/3 − 1.1/3 = .3 exactly, in floats a little less or more
	tests := map[string]struct {
		options Options
		rule    Rule
		want    []ij
	}{
		"the default margin":            {rule: Rule{MinMargin: DefaultMinMargin}, want: []ij{{0, 2}, {0, 3}, {4, 3}}},
		"no margin":                     {want: []ij{{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {4, 1}, {4, 3}}},
		"any margin":                    {rule: Rule{MinMargin: -1}, want: []ij{{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 4}, {4, 0}, {4, 1}, {4, 3}}},
		"a margin that none has":        {rule: Rule{MinMargin: 0.7}},
		"the two largest margins":       {rule: Rule{MaxPairs: 2}, want: []ij{{0, 2}, {0, 3}}},
		"own completions only":          {options: Options{Allowed: []int{0, 1, 2, 3}}, rule: Rule{MinMargin: 0.1}, want: []ij{{0, 1}, {0, 2}, {0, 3}, {1, 3}}},
		"the mix in another order":      {options: Options{Allowed: []int{4, 3, 0, 3}}, rule: Rule{}, want: []ij{{0, 3}, {4, 3}}},
		"a mix of nobody":               {options: Options{Allowed: []int{}}, rule: Rule{MinMargin: -1}},
		"best over worst":               {rule: Rule{Select: SelectBestWorst}, want: []ij{{0, 2}}}, // r: .933 .533 .167 .367 .75
		"best over worst of the others": {options: Options{Allowed: []int{1, 3, 4}}, rule: Rule{Select: SelectBestWorst, MinMargin: 0.3}, want: []ij{{4, 3}}},
		"best over worst, too close":    {options: Options{Allowed: []int{1, 3}}, rule: Rule{Select: SelectBestWorst, MinMargin: 0.3}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			pairs, err := four(t, test.options).Pairs(test.rule)
			if err != nil {
				t.Fatal(err)
			}
			var got []ij
			for _, pair := range pairs {
				got = append(got, ij{pair.Chosen, pair.Rejected})
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAPairCarriesItsFigures(t *testing.T) {
	pairs, err := four(t, Options{}).Pairs(Rule{MinMargin: 0.2})
	if err != nil {
		t.Fatal(err)
	}
	want := []Pair{
		{Chosen: 0, Rejected: 2, ChosenWinRate: .9, RejectedWinRate: .25, ChosenSE: .1, RejectedSE: .25, Opponents: 2, Preference: 1, Margin: .65, Weight: 1, Class: StudentStudent},
		{Chosen: 0, Rejected: 3, ChosenWinRate: 1, RejectedWinRate: .45, ChosenSE: 0, RejectedSE: .05, Opponents: 2, Preference: .8, Margin: .55, Weight: 1, Class: StudentStudent},
		// d over a, b, c: .2, .4, .5: mean 1.1/3, squares .45−1.21/3.
		{Chosen: 4, Rejected: 3, ChosenWinRate: 2. / 3, RejectedWinRate: 1.1 / 3, ChosenSE: 1. / 3, RejectedSE: math.Sqrt((.45 - 1.21/3) / 6), Opponents: 3, Preference: 1, Margin: .3, Weight: 1, Class: TeacherStudent},
	}
	if diff := cmp.Diff(want, pairs, near); diff != "" {
		t.Error(diff)
	}
}

func TestClassesNameTheChosenFirst(t *testing.T) {
	completions := append(own("a", "b"), teacher("T", "U")...)
	raw := judged(completions, func(a, b string) float64 { return 0.5 })
	g := newGame(t, completions, raw, Options{})
	for want, pair := range map[Class][2]int{
		StudentStudent: {0, 1}, StudentTeacher: {1, 2}, TeacherStudent: {3, 0}, TeacherTeacher: {2, 3},
	} {
		if got, err := g.Pair(pair[0], pair[1], 2.5); err != nil || got.Class != want || got.Weight != 2.5 {
			t.Errorf("pair %v: class %q, weight %v, error %v; want %q", pair, got.Class, got.Weight, err, want)
		}
	}
}

func TestDrawsOfOneTextGiveOnePair(t *testing.T) {
	// r, s, r, s: r ≻ s. Of r's opponents but one s: s, r → (1 + ½)/2; of s's: r, s → (0 + ½)/2.
	completions := own("r", "s", "r", "s")
	g := newGame(t, completions, judged(completions, rockPaperScissors), Options{})
	pairs, err := g.Pairs(Rule{MinMargin: DefaultMinMargin})
	want := []Pair{{Chosen: 0, Rejected: 1, ChosenWinRate: .75, RejectedWinRate: .25, ChosenSE: .25, RejectedSE: .25, Opponents: 2, Preference: 1, Margin: .5, Weight: 1, Class: StudentStudent}}
	if diff := cmp.Diff(want, pairs, near); err != nil || diff != "" {
		t.Error(err, diff)
	}

	g = newGame(t, completions, judged(completions, rockPaperScissors), Options{Allowed: []int{3, 2}})
	pairs, err = g.Pairs(Rule{})
	want[0].Chosen, want[0].Rejected = 2, 3
	if diff := cmp.Diff(want, pairs, near); err != nil || diff != "" {
		t.Error("allowed draws stand for their text:", err, diff)
	}
}

func TestEqualMarginsGoToTheLowerIndex(t *testing.T) {
	// a and b tie and both beat c and d, which tie: four pairs of equal margins.
	completions := own("a", "b", "c", "d")
	g := newGame(t, completions, judged(completions, func(a, b string) float64 {
		switch {
		case a <= "b" && b >= "c":
			return 1
		case a >= "c" && b <= "b":
			return 0
		}
		return 0.5
	}), Options{})
	for k := 1; k <= 4; k++ {
		pairs, err := g.Pairs(Rule{MaxPairs: k})
		if err != nil {
			t.Fatal(err)
		}
		var got [][2]int
		for _, pair := range pairs {
			got = append(got, [2]int{pair.Chosen, pair.Rejected})
		}
		if diff := cmp.Diff([][2]int{{0, 2}, {0, 3}, {1, 2}, {1, 3}}[:k], got); diff != "" {
			t.Errorf("at most %d: %s", k, diff)
		}
	}
	pairs, err := g.Pairs(Rule{Select: SelectBestWorst})
	if err != nil || len(pairs) != 1 || pairs[0].Chosen != 0 || pairs[0].Rejected != 2 {
		t.Errorf("best over worst: %+v, %v", pairs, err)
	}
}

func TestBestOverWorstOfOneAndATeacher(t *testing.T) {
	// The student has no opponent, the teacher's completion has it: both rank by their one verdict.
	g := newGame(t, append(own("a"), teacher("T")...), []float64{none, 0, none, none}, Options{})
	pairs, err := g.Pairs(Rule{Select: SelectBestWorst, MinMargin: 0.3})
	if err != nil || len(pairs) != 1 || pairs[0].Chosen != 1 || pairs[0].Class != TeacherStudent || pairs[0].Margin != 1 {
		t.Errorf("pairs %+v, error %v", pairs, err)
	}
}

func TestPairsRefuseARuleOutOfRange(t *testing.T) {
	g := four(t, Options{})
	for name, rule := range map[string]Rule{
		"margin above one":  {MinMargin: 1.5},
		"margin of no size": {MinMargin: math.NaN()},
		"negative limit":    {MaxPairs: -1},
		"unknown selection": {Select: "some"},
	} {
		if _, err := g.Pairs(rule); sdk.CodeOf(err) != sdk.CodeUsage {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestANamedPairIsChecked(t *testing.T) {
	completions := own("a", "b", "a", "c", "d")
	raw := judged(completions, func(a, b string) float64 {
		if a == "c" || b == "c" {
			return none
		}
		return 0.5
	})
	g := newGame(t, completions, raw, Options{Allowed: []int{0, 1, 2, 3}})
	tests := map[string]struct {
		chosen, rejected int
		weight           float64
		words            string
	}{
		"index too high":   {0, 5, 1, "completions 0 to 4"},
		"index below zero": {-1, 0, 1, "completions 0 to 4"},
		"not in the mix":   {0, 4, 1, "4 is not in the mix"},
		"itself":           {1, 1, 1, "same text"},
		"its twin":         {0, 2, 1, "same text"},
		"not compared":     {0, 3, 1, "abstained"},
		"weight zero":      {0, 1, 0, "weight above 0"},
		"weight not real":  {0, 1, none, "weight above 0"},
		"weight infinite":  {0, 1, math.Inf(1), "weight above 0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := g.Pair(test.chosen, test.rejected, test.weight)
			if err == nil || !strings.Contains(err.Error(), test.words) || sdk.CodeOf(err) != sdk.CodeScript {
				t.Errorf("error %v, want one with %q", err, test.words)
			}
		})
	}
	if diff := cmp.Diff([]int{0, 1, 3}, g.Pairable(), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestSoftTarget(t *testing.T) {
	for name, test := range map[string]struct{ c, r1, r2, want float64 }{
		"no difference":                        {4, .7, .7, .5},
		"no sharpening":                        {0, 1, 0, .5},
		"σ(4·0.5) = σ(2)":                      {4, .75, .25, 0.8807970779778823},
		"the other way round":                  {4, .25, .75, 1 - 0.8807970779778823},
		"sharp enough that e^-x underflows":    {1e6, 1, 0, 1},
		"sharp enough that e^x overflows to 0": {1e6, 0, 1, 0},
	} {
		if got := SoftTarget(test.c, test.r1, test.r2); math.Abs(got-test.want) > 1e-15 {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestCycles(t *testing.T) {
	// One completion a letter of texts; arrows "ab" mean a ≻ b, "?ab" not compared, else a tie.
	tests := map[string]struct {
		texts  string
		arrows []string
		want   Cycles
	}{
		"an order":             {"abc", []string{"ab", "ac", "bc"}, Cycles{Triples: 1, Condorcet: 0}},
		"the last wins":        {"abc", []string{"ca", "cb"}, Cycles{Triples: 1, Condorcet: 2}},
		"rock paper scissors":  {"abc", []string{"ab", "bc", "ca"}, Cycles{Cyclic: true, Triples: 1, ThreeCycles: 1, Intransitive: 1, Condorcet: -1}},
		"the other way round":  {"abc", []string{"ba", "cb", "ac"}, Cycles{Cyclic: true, Triples: 1, ThreeCycles: 1, Intransitive: 1, Condorcet: -1}},
		"draws are one text":   {"abcabca", []string{"ab", "bc", "ca"}, Cycles{Cyclic: true, Triples: 1, ThreeCycles: 1, Intransitive: 1, Condorcet: -1}},
		"a chain and a tie":    {"abc", []string{"ab", "bc"}, Cycles{Triples: 1, Intransitive: 1, Condorcet: -1}},
		"all tie":              {"abc", nil, Cycles{Triples: 1, Condorcet: -1}},
		"not compared":         {"abc", []string{"ab", "bc", "?ac"}, Cycles{Condorcet: -1}},
		"a ring of four":       {"abcd", []string{"ab", "bc", "cd", "da"}, Cycles{Cyclic: true, Triples: 4, Intransitive: 4, Condorcet: -1}},
		"a cycle below a head": {"abcd", []string{"ab", "ac", "ad", "bc", "cd", "db"}, Cycles{Cyclic: true, Triples: 4, ThreeCycles: 1, Intransitive: 1, Condorcet: 0}},
		"two":                  {"ab", []string{"ba"}, Cycles{Condorcet: 1}},
		"one text":             {"aa", nil, Cycles{Condorcet: -1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			completions := own(strings.Split(test.texts, "")...)
			raw := judged(completions, func(a, b string) float64 {
				for _, arrow := range test.arrows {
					switch arrow {
					case a + b:
						return 1
					case b + a:
						return 0
					case "?" + a + b, "?" + b + a:
						return none
					}
				}
				return 0.5
			})
			c := newGame(t, completions, raw, Options{}).Cycles()
			if diff := cmp.Diff(test.want, c); diff != "" {
				t.Error(diff)
			}
			if test.want.Triples > 0 && c.Share() != float64(test.want.Intransitive)/float64(test.want.Triples) {
				t.Errorf("share %v of %+v", c.Share(), c)
			}
		})
	}
}
