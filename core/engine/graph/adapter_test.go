package graph_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/sdk/sdktest"
)

func TestGoldenLoRA(t *testing.T) {
	for _, file := range sdktest.GoldenCases(t, "arch/*/lora/adapter_config.json", "../testdata/golden") {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(filepath.Dir(dir)), func(t *testing.T) { goldenLoRA(t, filepath.Dir(dir), dir) })
	}
}

func goldenLoRA(t *testing.T, base, dir string) {
	c, err := model.ParseConfig(read(t, base, "config.json"))
	if errors.Is(err, model.ErrFamily) {
		t.Skipf("family %s: not built yet", filepath.Base(base))
	}
	must(t, err)
	m, err := model.FromWeights(c, open(t, filepath.Join(base, "model.safetensors")))
	must(t, err)
	var ref, own reference
	must(t, json.Unmarshal(read(t, base, "reference.json"), &ref))
	must(t, json.Unmarshal(read(t, dir, "reference.json"), &own))
	var b graph.Batch
	for _, ids := range ref.IDs {
		b.Add(ids[:1], ids[1:])
	}
	plain, err := m.Score()
	must(t, err)
	must(t, plain.Run(context.Background(), &b))
	before := slices.Clone(plain.TokenLogProbs())

	lora, err := model.ParseLoRA(read(t, dir, "adapter_config.json"))
	must(t, err)
	must(t, m.ReadAdapter(lora, open(t, filepath.Join(dir, "adapter_model.safetensors"))))
	train, err := m.Train()
	must(t, err)
	tensors := open(t, filepath.Join(dir, "reference.safetensors"))
	g := golden{t: t, f: tensors, lengths: ref.Lengths}
	b.Reset()
	for _, ids := range ref.IDs {
		b.Add(ids[:1], append(slices.Clone(ids[1:]), 0))
	}
	_, err = train.Run(context.Background(), &b, zeroLoss)
	must(t, err)
	g.compare("logits", graph.BuilderOf(train).Logits(0, len(b.Scored)), c.Vocab, 2e-4)

	b.Reset()
	for _, ids := range ref.IDs {
		b.Add(ids[:1], ids[1:])
	}
	logps := func(what string, tolerance float64) {
		t.Helper()
		score, err := m.Score()
		must(t, err)
		must(t, score.Run(context.Background(), &b))
		want := numbers(t, tensors, "token_logps")
		for s, n := range ref.Lengths {
			for i := ref.Prompts[s] - 1; i < n-1; i++ { // the file has 0 for what is in the prompt
				near(t, what, score.TokenLogProbs()[b.ScoredCu[s]+i], float64(want[s*(slices.Max(ref.Lengths)-1)+i]), tolerance)
			}
		}
		if slices.Equal(score.TokenLogProbs(), before) {
			t.Errorf("%s: they are those of the base", what)
		}
	}
	logps("token_logps", 2e-4)

	// The completions alone, and the gradient of each tensor of the adapter.
	b.Reset()
	for s, ids := range ref.IDs {
		b.Add(ids[:ref.Prompts[s]], ids[ref.Prompts[s]:])
	}
	m.Trainable().ZeroGrad()
	nll, err := train.Run(context.Background(), &b, meanNLL(&b))
	must(t, err)
	near(t, "completion_mean_nll", nll, own.CompletionNLL, 1e-5*own.CompletionNLL)
	grads := open(t, filepath.Join(dir, "gradients.safetensors"))
	if len(grads.Names()) != len(m.Trainable().All) {
		t.Errorf("%d gradients, the reference has %d", len(m.Trainable().All), len(grads.Names()))
	}
	for _, p := range m.Trainable().All {
		name := strings.TrimSuffix(p.Name, "weight") + "default.weight"
		want := numbers(t, grads, name)
		worst, largest := 0.0, 0.0
		for i := range want {
			worst = max(worst, math.Abs(float64(p.Grad[i]-want[i])))
			largest = max(largest, math.Abs(float64(want[i])))
		}
		if !(worst <= 2e-4*largest) {
			t.Errorf("gradient of %s is off by %.3g, its largest entry is %.3g", p.Name, worst, largest)
		}
		near(t, "norm of the gradient of "+p.Name, norm(p.Grad), own.GradNorm[name], 1e-4*own.GradNorm[name])
	}

	must(t, m.Merge())
	b.Reset()
	for _, ids := range ref.IDs {
		b.Add(ids[:1], ids[1:])
	}
	logps("token_logps after merging", 2e-4)
}

// adapted returns a model with an adapter on every linear layer, whose B is not 0.
func adapted(t *testing.T, seed uint64) *model.Model {
	t.Helper()
	return adapt(t, newModel(t, tiny(seed%2 == 0)), seed)
}

func adapt(t *testing.T, m *model.Model, seed uint64) *model.Model {
	t.Helper()
	must(t, m.AddAdapter(model.LoRA{Rank: 3, Alpha: 4, Targets: []string{model.AllLinear}}, seed))
	rng := rand.New(rand.NewPCG(seed, 1))
	for i, p := range m.Trainable().All {
		for j := range p.W {
			if i%2 == 1 {
				p.W[j] = float32(rng.NormFloat64() * 0.3)
			}
		}
	}
	return m
}

func TestAdapterGradientsAgainstFiniteDifferences(t *testing.T) {
	m := adapted(t, 1)
	train, err := m.Train()
	must(t, err)
	score, err := m.Score()
	must(t, err)
	b := pack(ragged(37, 9, 1+1, 14, 5)...)
	loss, err := train.Run(context.Background(), b, mixed)
	must(t, err)
	at := func() float64 {
		must(t, score.Run(context.Background(), b))
		l, _, _ := mixed(score.LogProbs())
		return l
	}
	if got := at(); got != loss {
		t.Fatalf("the loss is %v on the score graph, %v on the train graph", got, loss)
	}
	for _, p := range m.Trainable().All {
		n, old := norm(p.Grad), slices.Clone(p.W)
		move := func(h float64) float64 { // along the gradient
			for i := range p.W {
				p.W[i] = old[i] + float32(h*float64(p.Grad[i])/n)
			}
			l := at()
			copy(p.W, old)
			return l
		}
		const h = 0.01
		got := (8*(move(h)-move(-h)) - (move(2*h) - move(-2*h))) / (12 * h)
		near(t, "derivative by "+p.Name, n, got, 2e-3*math.Abs(got)+2e-4)
	}
}

func TestAFrozenBaseCostsNoGradient(t *testing.T) {
	m := adapted(t, 2)
	b := pack(ragged(37, 9, 14, 5)...)
	train, err := m.Train()
	must(t, err)
	_, err = train.Run(context.Background(), b, mixed)
	must(t, err)
	solver, err := graph.NewSolver(m.Trainable(), func(*graph.Param) bool { return true })
	must(t, err)
	base := slices.Clone(m.Params().W)
	_, err = solver.Update(1e-2)
	must(t, err)
	if m.Params().Grad != nil || m.Layers[0].Q.Grad != nil || m.Norm.Grad != nil {
		t.Error("the base has memory for gradients")
	}
	values := 0
	for _, s := range solver.AdamW.State().Moments {
		values += len(s.M)
	}
	want := 0
	for _, p := range m.Trainable().All {
		want += len(p.W)
	}
	if values != want {
		t.Errorf("the optimizer has moments for %d values, the adapter has %d", values, want)
	}
	if !slices.Equal(m.Params().W, base) {
		t.Error("an update has changed the base")
	}
	m.Params().Thaw() // a graph that is not of adapters has gradients again
	if m.Layers[0].Q.Frozen {
		t.Error("the base is frozen after thawing")
	}
}

// Of a base that bfloat16 holds exactly, holding it changes no byte of bfloat16's products; in float32 likewise.
func TestAHeldBaseIsTheSameBytes(t *testing.T) {
	for name, p := range map[string]kernel.Precision{"bfloat16": kernel.BFloat16, "float32": kernel.Float32} {
		t.Run(name, func(t *testing.T) {
			run := func(hold bool) ([]float64, []float32) {
				c := tiny(false)
				c.FFN = 2*256 + 72 // rows of Gate and Up that are unpacked in three parts
				m := adapt(t, newModel(t, c), 1)
				for _, w := range m.Params().All {
					for i := range w.W {
						w.W[i] = kernel.RoundBF16(w.W[i])
					}
				}
				m.SetPrecision(p)
				if hold {
					must(t, m.Hold(p.Pack))
				}
				train, err := m.Train()
				must(t, err)
				_, err = train.Run(context.Background(), pack(ragged(37, 9, 14, 5, 40)...), mixed)
				must(t, err)
				return slices.Clone(train.TokenLogProbs()), slices.Clone(m.Trainable().Grad)
			}
			logps, grad := run(false)
			heldLogps, heldGrad := run(true)
			if !slices.Equal(logps, heldLogps) || !slices.Equal(grad, heldGrad) {
				t.Error("log-probabilities or gradients are others where the base is held packed")
			}
		})
	}
}

// A q8_0 base: the forward pass rounds activations to int8, too, and the gradient is that of the numbers held, as if it
// did not.
func TestAQ8BaseIsNearlyItself(t *testing.T) {
	run := func(change func(m *model.Model)) ([]float64, []float32) {
		m := adapted(t, 1)
		change(m)
		train, err := m.Train()
		must(t, err)
		_, err = train.Run(context.Background(), pack(ragged(37, 9, 14, 5, 40)...), meanOfAll)
		must(t, err)
		return slices.Clone(train.TokenLogProbs()), slices.Clone(m.Trainable().Grad)
	}
	want, wantGrad := run(func(m *model.Model) { // the same numbers, as float32
		for _, p := range m.Params().All {
			if len(p.Shape) == 2 {
				var q kernel.Packed
				kernel.PackQ8(&q, p.W, p.Shape[0], p.Shape[1], p.Shape[1])
				q.Rows(0, p.Shape[0], p.W)
			}
		}
	})
	got, grad := run(func(m *model.Model) { must(t, m.Hold(kernel.PackQ8)) })
	worst, off := 0.0, 0.0
	for i := range want {
		worst = max(worst, math.Abs(got[i]-want[i]))
	}
	for i := range grad {
		d := float64(grad[i] - wantGrad[i])
		off += d * d
	}
	if worst == 0 || worst > 0.4 || math.Sqrt(off) > 0.1*norm(wantGrad) {
		t.Errorf("log-probabilities are off by %v, the gradient by %v of its norm", worst, math.Sqrt(off)/norm(wantGrad))
	}
}

func meanOfAll(logps []float64) (float64, []float64, error) {
	loss, grad := 0.0, make([]float64, len(logps))
	for i, lp := range logps {
		loss -= lp
		grad[i] = -1
	}
	return loss, grad, nil
}
