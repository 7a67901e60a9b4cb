package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/sdktest"
)

func TestContract(t *testing.T) { sdktest.Loss(t, New) }

func configured(t *testing.T, given sdk.Settings) sdk.Loss {
	t.Helper()
	l := New()
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

// add adds a pair of log-ratios to a batch whose references are at −50, as completions 2k and 2k+1.
func add(b *sdk.LossBatch, chosen, rejected float64) {
	first := int32(len(b.Policy))
	b.Policy, b.Reference = append(b.Policy, chosen-50, rejected-50), append(b.Reference, -50, -50)
	b.Group, b.Tokens = append(b.Group, first/2, first/2), append(b.Tokens, 9, 9)
	b.Chosen, b.Rejected, b.Weight = append(b.Chosen, first), append(b.Rejected, first+1), append(b.Weight, 1)
}

func near(t *testing.T, what string, have, want float64) {
	t.Helper()
	if !(math.Abs(have-want) <= 1e-14*(1+math.Abs(want))) {
		t.Errorf("%s is %v, want %v", what, have, want)
	}
}

func TestValues(t *testing.T) {
	ln3 := math.Log(3)
	l := configured(t, sdk.Settings{"beta": 0.5, "desirable_weight": 2})
	for name, c := range map[string]struct {
		mismatched                         []float64 // log-ratios
		chosen, rejected                   float64
		kl, want, wantChosen, wantRejected float64
	}{
		// kl = ln 3: z = ½·(2·ln 3) = ln 3 and ½·(ln 3 − 3·ln 3) = −ln 3, σ = ¾ and ¼.
		// 2·¼ + ¾; ∓w·½·¾·¼.
		"from the batch's distance": {[]float64{0, 2 * ln3}, 3 * ln3, 3 * ln3, ln3, 1.25, -0.1875, 0.09375},
		// A mean below 0 is no distance: z = ±½·2·ln 3.
		"never from below": {[]float64{-5, 1}, 2 * ln3, -2 * ln3, 0, 0.75, -0.1875, 0.09375},
		// z = 0: 2·½ + ½; ∓w·½·¼.
		"a batch of one prompt has no distance": {nil, 0, 0, 0, 1.5, -0.25, 0.125},
	} {
		t.Run(name, func(t *testing.T) {
			var b sdk.LossBatch
			add(&b, c.chosen, c.rejected)
			for _, h := range c.mismatched {
				b.MismatchedPolicy, b.MismatchedReference = append(b.MismatchedPolicy, h-90), append(b.MismatchedReference, -90)
			}
			out := evaluate(t, l, b)
			near(t, "kl", out.Metrics["kl"], c.kl)
			near(t, "loss", out.Loss, c.want)
			near(t, "derivative of chosen", out.Gradient[0], c.wantChosen)
			near(t, "derivative of rejected", out.Gradient[1], c.wantRejected)
		})
	}
}

// The conformance kit has no mismatched pairs, so weights and derivatives are checked here, on a
// batch in which completion 0 is chosen twice and completion 1 is on both sides.
func TestDerivativesAreTheSlope(t *testing.T) {
	l := configured(t, sdk.Settings{"beta": 0.5, "undesirable_weight": 1.5})
	var b sdk.LossBatch
	add(&b, 0.5, -0.25)
	add(&b, 3, 2)
	add(&b, -6, 4)
	b.Chosen[1], b.Chosen[2], b.Weight[1] = 0, 1, 2.5
	b.MismatchedPolicy, b.MismatchedReference = []float64{-80, -70, -60, -50, -40, -30}, []float64{-81, -72, -59, -50, -40, -33}
	out := evaluate(t, l, b)
	const h = 1e-5
	for i := range b.Policy {
		value := func(step float64) float64 {
			moved := b
			moved.Policy = slices.Clone(b.Policy)
			moved.Policy[i] += step
			return evaluate(t, l, moved).Loss
		}
		if slope := (value(h) - value(-h)) / (2 * h); math.Abs(out.Gradient[i]-slope) > 1e-8 {
			t.Errorf("derivative %d is %v, the slope %v", i, out.Gradient[i], slope)
		}
	}
	double := b
	double.Weight = []float64{2, 5, 2}
	near(t, "loss of twice the weights", evaluate(t, l, double).Loss, 2*out.Loss)
}

// TRL's values, where the golden data are at hand: both completions of pair i have entry i of the
// mismatched ones.
func TestGolden(t *testing.T) {
	dir := sdktest.GoldenDir(t, "losses")
	read := func(name string, into any) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var in struct {
		PolicyChosen   []float64 `json:"policy_chosen_logps"`
		PolicyRejected []float64 `json:"policy_rejected_logps"`
		RefChosen      []float64 `json:"ref_chosen_logps"`
		RefRejected    []float64 `json:"ref_rejected_logps"`
		KLPolicy       []float64 `json:"kl_policy_logps"`
		KLRef          []float64 `json:"kl_ref_logps"`
	}
	var golden struct {
		Cases []struct {
			Loss         string             `json:"loss"`
			Params       map[string]float64 `json:"params"`
			PerPair      []float64          `json:"per_pair"`
			GradChosen   []float64          `json:"grad_chosen"`
			GradRejected []float64          `json:"grad_rejected"`
			KL           float64            `json:"kl"`
		} `json:"cases"`
	}
	read("inputs.json", &in)
	read("losses.json", &golden)
	agrees := func(t *testing.T, what string, have, want float64) {
		t.Helper()
		if !(math.Abs(have-want) <= 1e-11+1e-9*math.Abs(want)) {
			t.Errorf("%s is %v, want %v", what, have, want)
		}
	}
	cases := 0
	for _, c := range golden.Cases {
		if c.Loss != "kto" {
			continue
		}
		cases++
		t.Run(fmt.Sprint(c.Params), func(t *testing.T) {
			given := sdk.Settings{}
			for k, v := range c.Params {
				given[k] = v
			}
			l := configured(t, given)
			var b sdk.LossBatch
			for i := range in.PolicyChosen {
				add(&b, 0, 0)
				b.Policy[2*i], b.Policy[2*i+1] = in.PolicyChosen[i], in.PolicyRejected[i]
				b.Reference[2*i], b.Reference[2*i+1] = in.RefChosen[i], in.RefRejected[i]
				b.MismatchedPolicy = append(b.MismatchedPolicy, in.KLPolicy[i], in.KLPolicy[i])
				b.MismatchedReference = append(b.MismatchedReference, in.KLRef[i], in.KLRef[i])
			}
			out := evaluate(t, l, b)
			agrees(t, "kl", out.Metrics["kl"], c.KL)
			for i, want := range c.PerPair {
				agrees(t, fmt.Sprintf("derivative of chosen %d", i), out.Gradient[2*i], c.GradChosen[i])
				agrees(t, fmt.Sprintf("derivative of rejected %d", i), out.Gradient[2*i+1], c.GradRejected[i])
				one := b // one pair; all the mismatched ones
				one.Chosen, one.Rejected, one.Weight = b.Chosen[i:i+1], b.Rejected[i:i+1], b.Weight[i:i+1]
				agrees(t, fmt.Sprintf("loss of pair %d", i), evaluate(t, l, one).Loss, want)
			}
		})
	}
	if cases == 0 {
		t.Fatal("there is no case of KTO")
	}
}
