package generate

import (
	"math"
	"reflect"
	"runtime"
	"testing"

	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
)

// drawWith draws with weights held as w says from a model of a precision.
func drawWith(t *testing.T, m *model.Model, p kernel.Precision, w Weights, reqs []Request) []Result {
	t.Helper()
	m.SetPrecision(p)
	g := New(m, []int32{3}, nil)
	g.SetWeights(w)
	return draw(t, g, reqs, DefaultOptions(30))
}

// Weights of the other precision draw what a model of that precision draws, and nothing of it is said to be the model's.
func TestWeightsAreAnotherPolicy(t *testing.T) {
	m := small(t, nil)
	reqs := mixed(20, m.Config.Vocab)
	own := map[kernel.Precision][]Result{}
	for _, p := range []kernel.Precision{kernel.Float32, kernel.BFloat16} {
		own[p] = drawWith(t, m, p, SameWeights, reqs)
	}
	if reflect.DeepEqual(own[kernel.Float32], own[kernel.BFloat16]) {
		t.Fatal("the precisions draw the same: nothing is tested")
	}
	for _, w := range []Weights{Float32Weights, BFloat16Weights} {
		of := map[Weights]kernel.Precision{Float32Weights: kernel.Float32, BFloat16Weights: kernel.BFloat16}[w]
		for p, same := range own {
			got := drawWith(t, m, p, w, reqs)
			if p == of {
				if !reflect.DeepEqual(got, same) {
					t.Errorf("weights of %s differ from a model's of %v", w, p)
				}
				continue
			}
			for i, r := range got {
				want := own[of][i]
				if !reflect.DeepEqual(r.Tokens, want.Tokens) || !reflect.DeepEqual(r.DrawnLogProbs, want.TokenLogProbs) {
					t.Errorf("weights of %s in a model of %v: request %d gave %+v, want the draws of %+v", w, p, i, r, want)
				}
				if r.TokenLogProbs != nil || !math.IsNaN(r.LogProb) || want.DrawnLogProbs != nil {
					t.Errorf("weights of %s in a model of %v: request %d has log-probabilities of the model: %+v", w, p, i, r)
				}
			}
		}
	}
}

// Weights of int8 give nearly the model's log-probabilities, and none that is said to be the model's; the bytes depend on
// the request alone.
func TestQ8WeightsAreNearlyTheModel(t *testing.T) {
	m := small(t, func(c *model.Config) { c.Width, c.FFN, c.InitStd = 72, 130, 0.1 }) // blocks that are not full
	reqs := mixed(40, m.Config.Vocab)
	results := drawWith(t, m, kernel.Float32, Q8Weights, reqs)
	score := scored(t, m, reqs, results)
	tokens, largest := score.TokenLogProbs(), 0.0
	for i, r := range results {
		if r.TokenLogProbs != nil || !math.IsNaN(r.LogProb) || len(r.DrawnLogProbs) != len(r.Tokens) {
			t.Fatalf("request %d: %+v", i, r)
		}
		for j, p := range r.DrawnLogProbs {
			largest = max(largest, math.Abs(p-tokens[j]))
		}
		tokens = tokens[len(r.Tokens):]
	}
	// An int8 is within 1/254 of the block's largest number. Hundredths of a nat come of it, and 0 would mean that it was not used.
	if t.Logf("the largest difference is %.4f nats", largest); !(largest > 1e-4 && largest < 0.3) {
		t.Errorf("log-probabilities differ by %v nats from the model's", largest)
	}
	for _, threads := range []int{1, 3} {
		func() {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(threads))
			for _, bytes := range []int{0, 1 << 30} {
				g := New(m, []int32{3}, nil)
				g.SetWeights(Q8Weights)
				g.maxShared, g.maxSlots = bytes, 3
				for i, r := range draw(t, g, reqs, DefaultOptions(30)) {
					if !reflect.DeepEqual(r.Tokens, results[i].Tokens) || !reflect.DeepEqual(r.DrawnLogProbs, results[i].DrawnLogProbs) {
						t.Fatalf("%d threads, batches shared from %d bytes on: request %d differs", threads, bytes, i)
					}
				}
			}
		}()
	}
}

func TestParseWeights(t *testing.T) {
	for _, name := range WeightNames() {
		if w, err := ParseWeights(name); err != nil || string(w) != name {
			t.Errorf("%q is %q, %v", name, w, err)
		}
	}
	for _, name := range []string{"", "q8", "Same"} {
		if _, err := ParseWeights(name); err == nil {
			t.Errorf("%q passed", name)
		}
	}
}
