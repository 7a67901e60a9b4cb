package eval

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk"
	"github.com/google/go-cmp/cmp"
)

// played is the cross-play of three policies with the given win rates of 0 over 1, 0 over 2, 1 over
// 2.
func played(t *testing.T, rates ...float64) CrossPlay {
	t.Helper()
	c := NewCrossPlay([]string{"first", "second", "third"})
	for k, at := range [][2]int{{0, 1}, {0, 2}, {1, 2}}[:len(rates)] {
		if err := c.Set(at[0], at[1], Interval{Mean: rates[k], SE: 0.05, Low: rates[k] - 0.1, High: rates[k] + 0.15, N: 80}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func TestCrossPlayShowsBothSides(t *testing.T) {
	c := played(t, 0.6, 0.3, 0.9)
	if diff := cmp.Diff(Interval{0.7, 0.05, 0.55, 0.8, 80}, c.At(2, 0), to(1e-12)); diff != "" { // 1 − [0.2, 0.45]
		t.Error(diff)
	}
	if diff := cmp.Diff(Interval{0.3, 0.05, 0.2, 0.45, 80}, c.At(0, 2), to(1e-12)); diff != "" {
		t.Error(diff)
	}
	if got := c.At(1, 1).Mean; got != 0.5 {
		t.Errorf("a policy against itself: %v", got)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back CrossPlay
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, back, to(0)); diff != "" {
		t.Error(diff)
	}
}

func TestEquilibriumOfCrossPlay(t *testing.T) {
	tests := map[string]struct {
		rates []float64
		want  Equilibrium
	}{
		// The third beats both.
		"a best policy": {[]float64{0.4, 0.2, 0.3}, Equilibrium{[]float64{0, 0, 1}, []float64{0.3, 0.2, 0}}},
		// A = P − ½ with a = .1, −b = −.2, c = .4 has the equilibrium (c, b, a)/(a+b+c).
		"a circle": {[]float64{0.6, 0.3, 0.9}, Equilibrium{[]float64{4. / 7, 2. / 7, 1. / 7}, []float64{0.2, 0.1, 0.4}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := played(t, test.rates...).Equilibrium()
			if diff := cmp.Diff(test.want, got, to(1e-11)); err != nil || diff != "" {
				t.Error(err, diff)
			}
		})
	}
}

func TestCrossPlayRefuses(t *testing.T) {
	c := played(t, 0.6)
	for _, at := range [][2]int{{-1, 0}, {0, 3}, {3, 0}, {0, -1}, {1, 1}} {
		if err := c.Set(at[0], at[1], Interval{}); sdk.CodeOf(err) != sdk.CodeInternal {
			t.Errorf("%v: error %v", at, err)
		}
	}
	_, err := c.Equilibrium()
	if err == nil || !strings.Contains(err.Error(), "first against third") {
		t.Errorf("a game is missing: error %v", err)
	}
	if _, err := NewCrossPlay(nil).Equilibrium(); err == nil {
		t.Error("an equilibrium of nobody")
	}
	if got, err := NewCrossPlay([]string{"alone"}).Equilibrium(); err != nil || got.Mixture[0] != 1 || got.Exploitability[0] != 0 {
		t.Errorf("one policy: %+v, %v", got, err)
	}
}
