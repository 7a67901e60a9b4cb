package main

import (
	"bytes"
	"context"
	"math"
	"slices"
	"testing"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/sdktest"
)

func TestContract(t *testing.T) { sdktest.Loss(t, New, sdk.Settings{"beta": 0.5}) }

// pairs is a batch in which completion 2k is chosen over 2k+1. The reference is at −50, so the
// log-ratios are as given.
func pairs(weight float64, ratios ...float64) sdk.LossBatch {
	var b sdk.LossBatch
	for i, h := range ratios {
		b.Group, b.Tokens, b.Teacher = append(b.Group, int32(i/2)), append(b.Tokens, 9), append(b.Teacher, false)
		b.Policy, b.Reference = append(b.Policy, h-50), append(b.Reference, -50)
		b.WinRate, b.WinRateSE = append(b.WinRate, 0.5), append(b.WinRateSE, 0.1)
	}
	for i := int32(0); i < int32(len(ratios)); i += 2 {
		b.Chosen, b.Rejected, b.Weight = append(b.Chosen, i), append(b.Rejected, i+1), append(b.Weight, weight)
		b.Target, b.Preference = append(b.Target, 1), append(b.Preference, 1)
		b.ChosenWinRate, b.RejectedWinRate = append(b.ChosenWinRate, 1), append(b.RejectedWinRate, 0)
	}
	return b
}

func evaluate(t *testing.T, l sdk.Loss, b sdk.LossBatch) sdk.LossResult {
	t.Helper()
	out, err := l.Evaluate(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func near(t *testing.T, what string, have, want float64) {
	t.Helper()
	if !(math.Abs(have-want) <= 1e-14*(1+math.Abs(want))) {
		t.Errorf("%s is %v, want %v", what, have, want)
	}
}

func TestValues(t *testing.T) {
	ln3 := math.Log(3)
	l := &Loss{Beta: 0.5}
	// Rewards ½·(4·ln 3) and 0, their mean δ = ln 3: both are ln 3 from it on the right side, where
	// σ = ¾. 2·log(4/3); ∓½·¼.
	out := evaluate(t, l, pairs(1, 4*ln3, 0))
	near(t, "delta", out.Metrics["delta"], ln3)
	near(t, "loss", out.Loss, 2*math.Log(4.0/3))
	near(t, "derivative of chosen", out.Gradient[0], -0.125)
	near(t, "derivative of rejected", out.Gradient[1], 0.125)
	// A second batch with rewards ½·8·ln 3 and 0: δ = (2 + 4)/4·ln 3 = 1.5·ln 3.
	next := pairs(1, 8*ln3, 0)
	next.State = out.State
	near(t, "delta", evaluate(t, l, next).Metrics["delta"], 1.5*ln3)
	// Before any training all rewards are 0, and so is δ: 2·log 2; ∓½·½ of each, weight 3.
	out = evaluate(t, l, pairs(3, 0, 0))
	near(t, "loss", out.Loss, 6*math.Ln2)
	near(t, "derivative of chosen", out.Gradient[0], -0.75)
}

// A run that is cut between two batches, and goes on in a new process, is the same run: to the bit.
func TestARestartChangesNothing(t *testing.T) {
	batches := []sdk.LossBatch{pairs(1, 0.5, -0.25, 3, 2), pairs(2, -1.5, 0.75), pairs(1, 8, -3, 0, 1)}
	whole, cut := New(), New()
	var state, saved []byte
	for i, b := range batches {
		b.State = state
		want := evaluate(t, whole, b)
		b.State = bytes.Clone(saved)
		have := evaluate(t, cut, b)
		if have.Loss != want.Loss || !slices.Equal(have.Gradient, want.Gradient) || !bytes.Equal(have.State, want.State) {
			t.Errorf("batch %d after a restart: have %+v, want %+v", i, have, want)
		}
		state, saved, cut = want.State, have.State, New()
	}
	last, err := decode(state)
	if err != nil {
		t.Fatal(err)
	}
	// 4 + 2·2 + 4 rewards; their sum is 0.1·(5.25 + 2·(−0.75) + 6) = 0.975.
	near(t, "count", last.count, 12)
	near(t, "mean", last.mean, 0.975/12)
}

// The derivatives are the slope of the loss with δ where it is.
func TestDerivativesWithDeltaFixed(t *testing.T) {
	l := &Loss{Beta: 0.5}
	b := pairs(1.5, 0.5, -0.25, 3, 2, -6, 4)
	b.Chosen[2] = 0 // completion 0 is chosen twice
	out := evaluate(t, l, b)
	delta := out.Metrics["delta"]
	value := func(policy []float64) (sum float64) {
		for k := range b.Chosen {
			w := l.Beta * (policy[b.Chosen[k]] + 50)
			r := l.Beta * (policy[b.Rejected[k]] + 50)
			sum += 1.5 * (math.Log(1+math.Exp(delta-w)) + math.Log(1+math.Exp(r-delta)))
		}
		return sum
	}
	near(t, "loss", out.Loss, value(b.Policy))
	const h = 1e-5
	for i := range b.Policy {
		up, down := slices.Clone(b.Policy), slices.Clone(b.Policy)
		up[i] += h
		down[i] -= h
		if slope := (value(up) - value(down)) / (2 * h); math.Abs(out.Gradient[i]-slope) > 1e-8 {
			t.Errorf("derivative %d is %v, the slope %v", i, out.Gradient[i], slope)
		}
	}
}

func TestForeignStateIsRefused(t *testing.T) {
	good := running{count: 3, mean: 0.5}.encode()
	for name, state := range map[string][]byte{
		"another loss's":      []byte(`{"mean":0.5}`),
		"another version's":   append([]byte("bco2"), good[4:]...),
		"cut":                 good[:19],
		"longer":              append(bytes.Clone(good), 0),
		"a mean over nothing": running{mean: 0.5}.encode(),
		"not a number":        running{count: 3, mean: math.NaN()}.encode(),
	} {
		t.Run(name, func(t *testing.T) {
			b := pairs(1, 0, 0)
			b.State = state
			if out, err := New().Evaluate(context.Background(), b); sdk.CodeOf(err) != sdk.CodeCorrupt {
				t.Errorf("got %+v, %v", out, err)
			}
		})
	}
}
