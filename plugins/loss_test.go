package plugins

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"testing"

	"pgregory.net/rapid"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/sdktest"
)

// golden is a loss under the golden data's name.
type golden struct {
	plugin string
	extra  sdk.Settings
}

var goldenLosses = map[string]golden{
	"sigmoid":        {plugin: "dpo"},
	"ipo":            {plugin: "ipo"},
	"ipo_sum":        {plugin: "ipo", extra: sdk.Settings{"average": false}},
	"dno_regression": {plugin: "dno"},
}

// loss returns a configured loss of the list.
func loss(t testing.TB, name string, given sdk.Settings) sdk.Loss {
	t.Helper()
	p, err := New(sdk.KindLoss, name)
	if err != nil {
		t.Fatal(err)
	}
	resolved, err := p.Manifest().Resolve(given)
	if err == nil {
		err = p.Configure(context.Background(), resolved)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p.(sdk.Loss)
}

// onePair is a batch of a chosen and a rejected completion.
func onePair(policy, reference [2]float64, tokens [2]int32, target float64) sdk.LossBatch {
	nan := []float64{math.NaN(), math.NaN()}
	return sdk.LossBatch{Group: []int32{0, 0}, Policy: policy[:], Reference: reference[:], Tokens: tokens[:],
		WinRate: nan, WinRateSE: nan, Teacher: []bool{false, false}, Chosen: []int32{0}, Rejected: []int32{1},
		ChosenWinRate: nan[:1], RejectedWinRate: nan[:1], Target: []float64{target}, Preference: []float64{target}, Weight: []float64{1}}
}

func evaluate(t testing.TB, l sdk.Loss, b sdk.LossBatch) sdk.LossResult {
	t.Helper()
	out, err := l.Evaluate(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// 1e-9 of the value and 1e-11 besides, as the golden data asks for; a naive log(sigmoid(x)) fails.
func agrees(t *testing.T, what string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) <= 1e-11+1e-9*math.Abs(want)) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestGoldenLosses(t *testing.T) {
	t.Parallel()
	sdktest.LossCases(t, sdktest.GoldenDir(t, "losses"), func(name string, params map[string]float64) (sdk.Loss, bool) {
		g, built := goldenLosses[name]
		if !built {
			return nil, false
		}
		given := sdk.Settings{}
		maps.Copy(given, g.extra)
		for k, v := range params {
			given[k] = v
		}
		return loss(t, g.plugin, given), true
	})
}

// A second set, computed independently of the first, of single pairs with all settings at the top.
func TestGoldenLossFixtures(t *testing.T) {
	t.Parallel()
	var f struct {
		Params map[string]float64
		Cases  []struct {
			Inputs map[string]float64
			Out    map[string]struct{ Loss, Dpw, Dpl float64 }
		}
	}
	data, err := os.ReadFile(sdktest.GoldenDir(t, "loss_fixtures.json"))
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Cases) == 0 {
		t.Fatal("there are no cases")
	}
	beta := f.Params["beta"]
	sigma := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	for i, c := range f.Cases {
		for name, want := range c.Out {
			t.Run(fmt.Sprintf("%s %d", name, i), func(t *testing.T) {
				var l sdk.Loss
				target := math.NaN()
				switch name {
				case "dpo":
					l = loss(t, "dpo", sdk.Settings{"beta": beta, "label_smoothing": f.Params["eps"]})
				case "ipo_avg", "ipo_sum":
					l = loss(t, "ipo", sdk.Settings{"beta": beta, "average": name == "ipo_avg"})
				case "dno_bce":
					l = loss(t, "dno", sdk.Settings{"beta": f.Params["eta"]})
					target = sigma(f.Params["c"] * (f.Params["r1"] - f.Params["r2"]))
				default:
					t.Skipf("%s is not built yet", name)
				}
				got := evaluate(t, l, onePair([2]float64{c.Inputs["pw"], c.Inputs["pl"]}, [2]float64{c.Inputs["rw"], c.Inputs["rl"]},
					[2]int32{int32(c.Inputs["nw"]), int32(c.Inputs["nl"])}, target))
				agrees(t, "loss", got.Loss, want.Loss)
				agrees(t, "gradient of chosen", got.Gradient[0], want.Dpw)
				agrees(t, "gradient of rejected", got.Gradient[1], want.Dpl)
			})
		}
	}
}

// The derivatives of a batch in which completions stand in several pairs, by central differences.
func TestDerivativesAreThoseOfTheLoss(t *testing.T) {
	t.Parallel()
	for _, e := range List() {
		if e.Kind != sdk.KindLoss {
			continue
		}
		t.Run(e.Name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				l := e.New().(sdk.Loss)
				settings, err := l.Manifest().Resolve(sdk.Settings{"beta": rapid.Float64Range(0.05, 2).Draw(t, "beta")})
				if err == nil {
					err = l.Configure(context.Background(), settings)
				}
				if err != nil {
					t.Fatal(err)
				}
				b := drawBatch(t)
				got, err := l.Evaluate(context.Background(), b)
				if err != nil {
					t.Fatal(err)
				}
				for i, at := range b.Policy {
					// h = 1e-4: the error of the difference is about h² of the third derivative, and
					// 1e-16/h of the loss by rounding.
					const h = 1e-4
					sides := [2]float64{}
					for k, step := range []float64{h, -h} {
						b.Policy[i] = at + step
						out, err := l.Evaluate(context.Background(), b)
						if err != nil {
							t.Fatal(err)
						}
						sides[k] = out.Loss
					}
					b.Policy[i] = at
					want := (sides[0] - sides[1]) / (2 * h)
					if !(math.Abs(got.Gradient[i]-want) <= 1e-6*(1+math.Abs(want))+1e-11*math.Abs(got.Loss)/h) {
						t.Fatalf("completion %d: derivative %v, differences give %v", i, got.Gradient[i], want)
					}
				}
			})
		})
	}
}

// drawBatch draws five completions of one prompt and some pairs of them.
func drawBatch(t *rapid.T) sdk.LossBatch {
	const n = 5
	var b sdk.LossBatch
	for range n {
		b.Group = append(b.Group, 0)
		b.Policy = append(b.Policy, rapid.Float64Range(-60, -1).Draw(t, "policy"))
		b.Reference = append(b.Reference, rapid.Float64Range(-60, -1).Draw(t, "reference"))
		b.Tokens = append(b.Tokens, rapid.Int32Range(1, 60).Draw(t, "tokens"))
		b.WinRate, b.WinRateSE, b.Teacher = append(b.WinRate, 0.5), append(b.WinRateSE, 0.1), append(b.Teacher, false)
	}
	for range rapid.IntRange(1, 6).Draw(t, "pairs") {
		i := rapid.Int32Range(0, n-1).Draw(t, "chosen")
		b.Chosen = append(b.Chosen, i)
		b.Rejected = append(b.Rejected, (i+rapid.Int32Range(1, n-1).Draw(t, "rejected"))%n)
		p := rapid.Float64Range(0, 1).Draw(t, "target")
		b.Target, b.Preference = append(b.Target, p), append(b.Preference, p)
		b.ChosenWinRate, b.RejectedWinRate = append(b.ChosenWinRate, p), append(b.RejectedWinRate, 1-p)
		b.Weight = append(b.Weight, rapid.Float64Range(0.1, 3).Draw(t, "weight"))
	}
	return b
}
