package graph_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/engine/weights"
	"github.com/dno-project/dno/sdk/sdktest"
)

// reference is what reference.json says of a case.
type reference struct {
	Lengths        []int              `json:"lengths"`
	Prompts        []int              `json:"prompt_lengths"`
	IDs            [][]int32          `json:"input_ids"`
	MeanNLL        float64            `json:"mean_nll"`
	GradNorm       map[string]float64 `json:"grad_norm"`
	TotalNorm      float64            `json:"grad_total_norm"`
	CompletionNLL  float64            `json:"completion_mean_nll"`
	CompletionNorm map[string]float64 `json:"completion_grad_norm"`
	Greedy         [][]int32          `json:"greedy_ids"`
}

func TestGoldenArch(t *testing.T) {
	for _, file := range sdktest.GoldenCases(t, "arch/*/config.json", "../testdata/golden") {
		dir := filepath.Dir(file)
		for _, config := range []string{"config.json", "config.legacy.json"} {
			t.Run(filepath.Base(dir)+"/"+config, func(t *testing.T) { goldenArch(t, dir, config) })
		}
	}
}

func goldenArch(t *testing.T, dir, config string) {
	c, err := model.ParseConfig(read(t, dir, config))
	if name := filepath.Base(dir); errors.Is(err, model.ErrFamily) && slices.Contains([]string{"gemma2", "phi3", "qwen2"}, name) {
		t.Skipf("family %s: not built yet", name)
	}
	must(t, err)
	f := open(t, filepath.Join(dir, "model.safetensors"))
	m, err := model.FromWeights(c, f)
	must(t, err)
	train, err := m.Train()
	must(t, err)

	var ref reference
	must(t, json.Unmarshal(read(t, dir, "reference.json"), &ref))
	tensors := open(t, filepath.Join(dir, "reference.safetensors"))
	g := golden{t: t, f: tensors, lengths: ref.Lengths}

	// Every row scored, with a dummy target after the last token: activations at all positions.
	var b graph.Batch
	for _, ids := range ref.IDs {
		b.Add(ids[:1], append(slices.Clone(ids[1:]), 0))
	}
	_, err = train.Run(context.Background(), &b, zeroLoss)
	must(t, err)
	builder := graph.BuilderOf(train)
	layers, final := builder.Hidden()
	g.compare("hidden_embed", layers[0], c.Width, 5e-5)
	g.compare("hidden_layer0", layers[1], c.Width, 5e-5)
	g.compare("hidden_final", final, c.Width, 5e-5)
	g.compare("logits", builder.Logits(0, len(b.Scored)), c.Vocab, 1e-4)

	// The whole sequences: token log-probs and every gradient of their mean.
	b.Reset()
	for _, ids := range ref.IDs {
		b.Add(ids[:1], ids[1:])
	}
	m.Params().ZeroGrad()
	nll, err := train.Run(context.Background(), &b, meanNLL(&b))
	must(t, err)
	near(t, "mean_nll", nll, ref.MeanNLL, 1e-5*ref.MeanNLL)
	want := numbers(t, tensors, "token_logps")
	for s, n := range ref.Lengths {
		for i := range n - 1 {
			near(t, "token_logps", train.TokenLogProbs()[b.ScoredCu[s]+i], float64(want[s*(slices.Max(ref.Lengths)-1)+i]), 1e-4)
		}
	}
	grads := open(t, filepath.Join(dir, "gradients.safetensors"))
	if len(grads.Names()) != len(m.Params().All) {
		t.Errorf("%d gradients, the reference has %d", len(m.Params().All), len(grads.Names()))
	}
	total := 0.0
	for _, p := range m.Params().All {
		want := numbers(t, grads, p.Name)
		worst, largest := 0.0, 0.0
		for i := range want {
			worst = max(worst, math.Abs(float64(p.Grad[i]-want[i])))
			largest = max(largest, math.Abs(float64(want[i])))
		}
		if !(worst <= 1e-4*largest) {
			t.Errorf("gradient of %s is off by %.3g, its largest entry is %.3g", p.Name, worst, largest)
		}
		n := norm(p.Grad)
		near(t, "norm of the gradient of "+p.Name, n, ref.GradNorm[p.Name], 1e-4*ref.GradNorm[p.Name])
		total += n * n
	}
	near(t, "total gradient norm", math.Sqrt(total), ref.TotalNorm, 1e-4*ref.TotalNorm)

	// The completions alone.
	b.Reset()
	for s, ids := range ref.IDs {
		b.Add(ids[:ref.Prompts[s]], ids[ref.Prompts[s]:])
	}
	m.Params().ZeroGrad()
	nll, err = train.Run(context.Background(), &b, meanNLL(&b))
	must(t, err)
	near(t, "completion_mean_nll", nll, ref.CompletionNLL, 1e-5*ref.CompletionNLL)
	for s, want := range numbers(t, tensors, "seq_logps") {
		near(t, "seq_logps", train.LogProbs()[s], float64(want), 1e-4*float64(len(ref.IDs[s])))
	}
	for _, p := range m.Params().All {
		near(t, "norm of the completion gradient of "+p.Name, norm(p.Grad), ref.CompletionNorm[p.Name], 1e-4*ref.CompletionNorm[p.Name])
	}

	// Greedy continuation, the whole sequence forwarded for each token.
	for s, ids := range ref.IDs {
		for step, want := range ref.Greedy[s] {
			b.Reset()
			b.Add(ids, []int32{0})
			_, err := train.Run(context.Background(), &b, zeroLoss)
			must(t, err)
			z := builder.Logits(0, 1)
			best := 0
			for v := range z {
				if z[v] > z[best] {
					best = v
				}
			}
			if int32(best) != want {
				t.Fatalf("greedy token %d of row %d is %d, want %d", step, s, best, want)
			}
			ids = append(slices.Clone(ids), want)
		}
	}
}

// golden compares packed rows with a padded reference tensor.
type golden struct {
	t       *testing.T
	f       *weights.File
	lengths []int
}

func (g golden) compare(name string, got []float32, width int, tolerance float64) {
	g.t.Helper()
	want := numbers(g.t, g.f, name)
	longest, row := slices.Max(g.lengths), 0
	for s, n := range g.lengths {
		for i := range n {
			for j := range width {
				if d := math.Abs(float64(got[row*width+j] - want[(s*longest+i)*width+j])); !(d <= tolerance) {
					g.t.Fatalf("%s at row %d, position %d, column %d is off by %.3g, more than %g", name, s, i, j, d, tolerance)
				}
			}
			row++
		}
	}
}

func zeroLoss(logps []float64) (float64, []float64, error) {
	return 0, make([]float64, len(logps)), nil
}

// meanNLL is − Σ log p / the number of scored tokens.
func meanNLL(b *graph.Batch) graph.LossFunc {
	return func(logps []float64) (float64, []float64, error) {
		n, loss, grad := float64(len(b.Scored)), 0.0, make([]float64, len(logps))
		for s, lp := range logps {
			loss -= lp / n
			grad[s] = -1 / n
		}
		return loss, grad, nil
	}
}

func norm(x []float32) float64 {
	sum := 0.0
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return math.Sqrt(sum)
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s is %.9g, want %.9g within %.3g", what, got, want, tolerance)
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	must(t, err)
	return data
}

func open(t *testing.T, path string) *weights.File {
	t.Helper()
	f, err := weights.Open(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func numbers(t *testing.T, f *weights.File, name string) []float32 {
	t.Helper()
	tensor, ok := f.Tensor(name)
	if !ok {
		t.Fatalf("there is no tensor %s", name)
	}
	x, err := tensor.Float32s(nil)
	must(t, err)
	return x
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
