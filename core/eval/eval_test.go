package eval

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/dno-project/dno/sdk"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

var none = math.NaN()

// to compares floats to an absolute tolerance and takes NaN for equal to NaN.
func to(tolerance float64) cmp.Option {
	return cmp.Options{cmpopts.EquateNaNs(), cmpopts.EquateApprox(0, tolerance)}
}

// counted returns wins ones and losses zeros.
func counted(wins, n int) []float64 {
	values := make([]float64, n)
	for i := range wins {
		values[i] = 1
	}
	return values
}

func TestStudentsPointsAreThoseOfTheTable(t *testing.T) {
	// The usual table of t at 97.5 %, to three digits.
	for nu, want := range map[float64]float64{1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 30: 2.042, 120: 1.980, 1e6: 1.960} {
		if got := t975(nu); math.Abs(got-want) > 6e-4 {
			t.Errorf("%v degrees of freedom: %v, want %v", nu, got, want)
		}
	}
}

func TestMean(t *testing.T) {
	tests := map[string]struct {
		values []float64
		want   Interval
	}{
		// s² = (4+1+0+1+4)/4 = 2.5, SE = √(2.5/5), t(4) = 2.776445.
		"one to five":  {[]float64{1, 2, 3, 4, 5}, Interval{3, math.Sqrt(0.5), 3 - 2.776445*math.Sqrt(0.5), 3 + 2.776445*math.Sqrt(0.5), 5}},
		"two values":   {[]float64{-1, 1}, Interval{0, 1, -12.706205, 12.706205, 2}}, // s² = 2, SE = 1
		"equal values": {[]float64{7, 7, 7}, Interval{7, 0, 7, 7, 3}},
		"one value":    {[]float64{7}, Interval{7, none, none, none, 1}},
		"no value":     {nil, Interval{none, none, none, none, 0}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, Mean(test.values), to(1e-6)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWinRateHasWilsonsInterval(t *testing.T) {
	// 81/263 to 1/29 are Newcombe's examples (1998, Statistics in Medicine 17, Table I, method 3).
	// n of n: the lower end is n/(n + z²); the upper end of 0 of n is z²/(n + z²); z² = 3.841459.
	tests := map[string]struct {
		values    []float64
		low, high float64
	}{
		"81 of 263":              {counted(81, 263), 0.2553, 0.3662},
		"15 of 148":              {counted(15, 148), 0.0624, 0.1605},
		"0 of 20":                {counted(0, 20), 0, 0.1611},
		"1 of 29":                {counted(1, 29), 0.0061, 0.1718},
		"all of 20":              {counted(20, 20), 20 / 23.841459, 1},
		"one win":                {counted(1, 1), 1 / 4.841459, 1},
		"one loss":               {counted(0, 1), 0, 3.841459 / 4.841459},
		"a tie counts as half":   {[]float64{1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0}, 0.2366, 0.7634}, // 5 of 10
		"verdicts without a win": {[]float64{0.25, 0.75, 0.5, 0.5}, 0.1500, 0.8500},                         // 2 of 4: ½ ± z√(n+z²)/2(n+z²) = 1.96/2√7.8415
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := WinRate(test.values)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]float64{test.low, test.high}, []float64{got.Low, got.High}, to(6e-5)); diff != "" {
				t.Error(diff)
			}
			if m := Mean(test.values); got.Mean != m.Mean || got.N != m.N || !cmp.Equal(got.SE, m.SE, cmpopts.EquateNaNs()) {
				t.Errorf("%+v, want the mean and standard error of %+v", got, m)
			}
		})
	}
	if got, err := WinRate(nil); err != nil || got.N != 0 || !math.IsNaN(got.Mean) {
		t.Errorf("no verdicts: %+v, %v", got, err)
	}
	for _, bad := range []float64{-0.1, 1.1, none} {
		if _, err := WinRate([]float64{1, bad}); sdk.CodeOf(err) != sdk.CodeInternal {
			t.Errorf("verdict %v: error %v", bad, err)
		}
	}
}

// Over win probabilities 0.01 … 0.99 the interval of n games holds the true one with 95 % on
// average: computed from the binomial distribution, not simulated.
func TestWinRateCoversTheTruth(t *testing.T) {
	for _, n := range []int{10, 40, 150} {
		var held, points float64
		for p := 0.01; p < 0.995; p += 0.01 {
			points++
			for wins := range n + 1 {
				m, err := WinRate(counted(wins, n))
				if err != nil {
					t.Fatal(err)
				}
				if m.Low <= p && p <= m.High {
					a, _ := math.Lgamma(float64(n + 1))
					b, _ := math.Lgamma(float64(wins + 1))
					c, _ := math.Lgamma(float64(n - wins + 1))
					held += math.Exp(a - b - c + float64(wins)*math.Log(p) + float64(n-wins)*math.Log1p(-p))
				}
			}
		}
		if coverage := held / points; coverage < 0.945 || coverage > 0.965 {
			t.Errorf("%d games: coverage %v, want about 0.95", n, coverage)
		}
	}
}

func TestPropertiesOfAnyWinRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(0, 1), 1, 30).Draw(t, "verdicts")
		m, err := WinRate(values)
		if err != nil {
			t.Fatal(err)
		}
		if !(0 <= m.Low && m.Low <= m.Mean && m.Mean <= m.High && m.High <= 1+1e-12) || m.Low == m.High {
			t.Fatalf("interval %+v", m)
		}
		turned := make([]float64, len(values))
		for i, v := range values {
			turned[i] = 1 - v
		}
		o, err := WinRate(turned)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]float64{1 - m.Mean, 1 - m.High, 1 - m.Low}, []float64{o.Mean, o.Low, o.High}, to(1e-9)); diff != "" {
			t.Fatalf("the opponent's view: %s", diff)
		}
	})
}

func TestPairingTakesOutTheDifficultyOfPrompts(t *testing.T) {
	a := []float64{10, 21, 32, 41}
	b := []float64{9, 20, 30, 40}
	// a − b = 1, 1, 2, 1: mean 1.25, s² = 3(1/16)+(9/16) over 3 = 1/4, SE = 1/4, t(3) = 3.182446.
	want := Interval{1.25, 0.25, 1.25 - 3.182446/4, 1.25 + 3.182446/4, 4}
	got, err := Difference(a, b)
	if diff := cmp.Diff(want, got, to(1e-6)); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if _, err := Difference(a, b[:3]); sdk.CodeOf(err) != sdk.CodeInternal {
		t.Errorf("different lengths: error %v", err)
	}
}

func TestKLIsInNatsOverThePolicysOwnCompletions(t *testing.T) {
	// log-ratios 0.5, −0.5, 1, 1: mean 0.5, s² = (0+1+.25+.25)/3 = 0.5, SE = √(0.5/4).
	se := math.Sqrt(0.125)
	want := Interval{0.5, se, 0.5 - 3.182446*se, 0.5 + 3.182446*se, 4}
	got, err := KL([]float64{-10, -20, -30, -5}, []float64{-10.5, -19.5, -31, -6})
	if diff := cmp.Diff(want, got, to(1e-6)); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestKLAveragesToTheDivergence(t *testing.T) {
	// Completions in exactly their proportions under π = (¾, ¼) against (½, ½):
	// ¾·ln 1.5 + ¼·ln 0.5 = 0.130812.
	log := math.Log
	got, err := KL([]float64{log(.75), log(.75), log(.75), log(.25)}, []float64{log(.5), log(.5), log(.5), log(.5)})
	if err != nil || math.Abs(got.Mean-0.130812) > 1e-6 {
		t.Errorf("%v nats, error %v, want 0.130812", got.Mean, err)
	}
}

func TestRelativeChange(t *testing.T) {
	tests := map[string]struct {
		before, after []float64
		want          Interval
	}{
		"each a tenth longer: no doubt": {[]float64{10, 20, 40}, []float64{11, 22, 44}, Interval{0.1, 0, 0.1, 0.1, 3}},
		// R = 36/30 = 1.2; after − R·before = 12−12, 10−12, 14−12 = 0, −2, 2, over the mean 10:
		// 0, −.2, .2, s² = .08/2 = .04, SE = √(.04/3), t(2) = 4.302653.
		"a fifth, with doubt": {[]float64{10, 10, 10}, []float64{12, 10, 14},
			Interval{0.2, math.Sqrt(.04 / 3), 0.2 - 4.302653*math.Sqrt(.04/3), 0.2 + 4.302653*math.Sqrt(.04/3), 3}},
		"one prompt": {[]float64{10}, []float64{5}, Interval{-0.5, none, none, none, 1}},
		"no prompt":  {nil, nil, Interval{none, none, none, none, 0}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := RelativeChange(test.before, test.after)
			if diff := cmp.Diff(test.want, got, to(1e-6)); err != nil || diff != "" {
				t.Error(err, diff)
			}
		})
	}
	for name, bad := range map[string][2][]float64{
		"different lengths": {{1, 2}, {1}}, "nothing before": {{0, 0}, {1, 1}}, "below nothing": {{-1}, {1}},
	} {
		if _, err := RelativeChange(bad[0], bad[1]); sdk.CodeOf(err) != sdk.CodeInternal {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestIntervalsTravelAsJSON(t *testing.T) {
	tests := map[string]struct {
		interval Interval
		text     string
	}{
		"whole":      {Interval{0.5, 0.25, 0, 1, 4}, `{"mean":0.5,"se":0.25,"low":0,"high":1,"n":4}`},
		"one value":  {Interval{7, none, none, none, 1}, `{"mean":7,"se":null,"low":null,"high":null,"n":1}`},
		"no value":   {Interval{none, none, none, none, 0}, `{"mean":null,"se":null,"low":null,"high":null,"n":0}`},
		"all tokens": {Mean([]float64{3, 3}), `{"mean":3,"se":0,"low":3,"high":3,"n":2}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			text, err := json.Marshal(test.interval)
			if err != nil || string(text) != test.text {
				t.Errorf("wrote %s, error %v, want %s", text, err, test.text)
			}
			var back Interval
			if err := json.Unmarshal([]byte(test.text), &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.interval, back, cmpopts.EquateNaNs()); diff != "" {
				t.Error(diff)
			}
		})
	}
	if text, err := json.Marshal(Interval{Mean: math.Inf(1), N: 2}); err != nil || string(text) != `{"mean":null,"se":0,"low":0,"high":0,"n":2}` {
		t.Errorf("an infinite mean: %s, %v", text, err)
	}
	var m Interval
	if err := json.Unmarshal([]byte(`{"mean":"a"}`), &m); err == nil {
		t.Error("text for a mean was read")
	}
}
