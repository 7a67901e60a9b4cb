package main

import (
	"context"
	"testing"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/sdktest"
)

func TestContract(t *testing.T) { sdktest.Loss(t, New, sdk.Settings{"beta": 0.5}) }

func configured(t *testing.T, beta float64) sdk.Loss {
	t.Helper()
	l := New()
	settings, err := l.Manifest().Resolve(sdk.Settings{"beta": beta})
	if err == nil {
		err = l.Configure(context.Background(), settings)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TRL's values, where the golden data are at hand.
func TestGolden(t *testing.T) {
	sdktest.LossCases(t, sdktest.GoldenDir(t, "losses"), func(loss string, params map[string]float64) (sdk.Loss, bool) {
		if loss != "hinge" {
			return nil, false
		}
		return configured(t, params["beta"]), true
	})
}

func TestValues(t *testing.T) {
	for name, c := range map[string]struct {
		beta, chosen, rejected float64 // log-ratios
		want, wantChosen       float64
	}{
		"no margin costs 1":              {0.5, 0, 0, 1, -0.5},
		"halfway, 0.5·1 = ½":             {0.5, -1, -2, 0.5, -0.5},
		"the wrong way, 1 + 0.25·4 = 2":  {0.25, -4, 0, 2, -0.25},
		"at the kink there is no slope":  {0.5, 0, -2, 0, 0},
		"beyond the margin, it is still": {0.5, 0, -9, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			// The reference is at −20, so that all log-probabilities are below 0.
			out, err := configured(t, c.beta).Evaluate(context.Background(), sdk.LossBatch{
				Group: []int32{0, 0}, Policy: []float64{c.chosen - 20, c.rejected - 20}, Reference: []float64{-20, -20}, Tokens: []int32{3, 4},
				Chosen: []int32{0}, Rejected: []int32{1}, Target: []float64{1}, Preference: []float64{1},
				ChosenWinRate: []float64{1}, RejectedWinRate: []float64{0}, Weight: []float64{1},
			})
			if err != nil {
				t.Fatal(err)
			}
			if out.Loss != c.want || out.Gradient[0] != c.wantChosen || out.Gradient[1] != -c.wantChosen {
				t.Errorf("got %v, %v; want %v, ±%v", out.Loss, out.Gradient, c.want, c.wantChosen)
			}
		})
	}
}

func TestBetaOfZeroIsRefused(t *testing.T) {
	if _, err := New().Manifest().Resolve(sdk.Settings{"beta": 0}); sdk.CodeOf(err) != sdk.CodeUsage {
		t.Errorf("got %v", err)
	}
}
