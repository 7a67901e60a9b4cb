package main

import (
	"context"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/dno-project/dno/plugins/loss/dpo"
	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/sdktest"
)

func TestContract(t *testing.T) {
	sdktest.Loss(t, New)
	sdktest.Loss(t, New, sdk.Settings{"beta": 2, "ld_alpha": 0})
}

func configured(t *testing.T, l sdk.Loss, given sdk.Settings) sdk.Loss {
	t.Helper()
	settings, err := l.Manifest().Resolve(given)
	if err == nil {
		err = l.Configure(context.Background(), settings)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func evaluate(t *testing.T, l sdk.Loss, b sdk.LossBatch) sdk.LossResult {
	t.Helper()
	out, err := l.Evaluate(context.Background(), b)
	if err == nil {
		err = l.Manifest().Loss.CheckResult(b, out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// batch makes a batch of completions of one prompt, given by their tokens' log-probabilities.
func batch(policy, reference [][]float64, pairs ...[2]int32) sdk.LossBatch {
	b := sdk.LossBatch{PolicyTokens: policy, ReferenceTokens: reference}
	sum := func(row []float64) (s float64) {
		for _, x := range row {
			s += x
		}
		return s
	}
	for i := range policy {
		b.Group, b.Tokens, b.Teacher = append(b.Group, 0), append(b.Tokens, int32(len(policy[i]))), append(b.Teacher, false)
		b.Policy, b.Reference = append(b.Policy, sum(policy[i])), append(b.Reference, sum(reference[i]))
		b.WinRate, b.WinRateSE = append(b.WinRate, 0.5), append(b.WinRateSE, 0.1)
	}
	for _, p := range pairs {
		b.Chosen, b.Rejected, b.Weight = append(b.Chosen, p[0]), append(b.Rejected, p[1]), append(b.Weight, 1)
		b.Target, b.Preference = append(b.Target, 1), append(b.Preference, 1)
		b.ChosenWinRate, b.RejectedWinRate = append(b.ChosenWinRate, 1), append(b.RejectedWinRate, 0)
	}
	return b
}

func near(t *testing.T, what string, have, want float64) {
	t.Helper()
	if !(math.Abs(have-want) <= 1e-14*(1+math.Abs(want))) {
		t.Errorf("%s is %v, want %v", what, have, want)
	}
}

func TestValues(t *testing.T) {
	l := configured(t, New(), sdk.Settings{"beta": 1, "ld_alpha": 0.25})
	ln3 := math.Log(3)
	// Tokens 1, 2 are shared, 3 and 4 of the chosen are the tail: s(y⁺) = 0 + ¼·(2 + 2)·ln 3 and
	// s(y⁻) = 0, so z = ln 3, σ(−z) = ¼.
	b := batch([][]float64{{-9, -9, -9 + 2*ln3, -9 + 2*ln3}, {-9, -9}}, [][]float64{{-9, -9, -9, -9}, {-9, -9}}, [2]int32{0, 1})
	out := evaluate(t, l, b)
	near(t, "loss", out.Loss, math.Log(4.0/3))
	for tok, want := range []float64{-0.25, -0.25, -0.0625, -0.0625} {
		near(t, "derivative of chosen", out.TokenGradients[0][tok], want)
	}
	for _, have := range out.TokenGradients[1] {
		near(t, "derivative of rejected", have, 0.25)
	}
}

// Completion 1 is the longer one against 0 and the shorter one against 2: its rows add up. All
// ratios are 0, so each pair's slope is ∓½·β = ∓½.
func TestACompletionOfSeveralPairs(t *testing.T) {
	rows := [][]float64{{-1}, {-1, -1}, {-1, -1, -1}}
	out := evaluate(t, configured(t, New(), sdk.Settings{"beta": 1, "ld_alpha": 0.5}), batch(rows, rows, [2]int32{1, 0}, [2]int32{1, 2}))
	near(t, "loss", out.Loss, 2*math.Ln2)
	for i, row := range [][]float64{{0.5}, {-0.5 - 0.5, -0.25 - 0.5}, {0.5, 0.5, 0.25}} {
		for tok, want := range row {
			near(t, "derivative", out.TokenGradients[i][tok], want)
		}
	}
}

func TestAlphaOfOneIsDPO(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	row := func(n int) (out []float64) {
		for range n {
			out = append(out, -4*r.Float64())
		}
		return out
	}
	var policy, reference [][]float64
	for _, n := range []int{1, 7, 7, 30, 12} {
		policy, reference = append(policy, row(n)), append(reference, row(n))
	}
	b := batch(policy, reference, [2]int32{0, 1}, [2]int32{1, 2}, [2]int32{3, 1}, [2]int32{4, 0})
	b.Weight = []float64{1, 0.3, 2.7, 1.1}
	want := evaluate(t, configured(t, dpo.New(), sdk.Settings{"beta": 0.3}), b)
	have := evaluate(t, configured(t, New(), sdk.Settings{"beta": 0.3, "ld_alpha": 1}), b)
	if have.Loss != want.Loss {
		t.Errorf("loss is %v, DPO's %v", have.Loss, want.Loss)
	}
	for i, row := range have.TokenGradients {
		for tok, g := range row {
			if g != want.Gradient[i] {
				t.Errorf("derivative of token %d of completion %d is %v, DPO's of the completion %v", tok, i, g, want.Gradient[i])
			}
		}
	}
	if other := evaluate(t, configured(t, New(), sdk.Settings{"beta": 0.3, "ld_alpha": 0.5}), b); other.Loss == want.Loss {
		t.Error("alpha changes nothing")
	}
}
