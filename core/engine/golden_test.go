package engine

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/engine/optim"
	"github.com/dno-project/dno/core/engine/weights"
	"github.com/dno-project/dno/sdk/sdktest"
)

// trajectory is a trajectory.json: 20 steps of training, with what PyTorch saw at each.
type trajectory struct {
	Run struct {
		Kind          string     `json:"kind"`
		Ref           string     `json:"ref"`
		Beta          float64    `json:"beta"`
		LR            float64    `json:"lr"`
		Betas         [2]float64 `json:"betas"`
		WD            float64    `json:"wd"`
		ExcludesNorms bool       `json:"decay_excludes_norms"`
		Clip          float64    `json:"clip"`
		Warmup        int        `json:"warmup"`
		Steps         int        `json:"steps"`
		Batch         int        `json:"batch"`
		Eps           float64    `json:"eps"`
	} `json:"run"`
	Data []struct {
		Prompt   []int32 `json:"prompt"`
		Chosen   []int32 `json:"chosen"`
		Rejected []int32 `json:"rejected"`
	} `json:"data"`
	Log []struct {
		LR          float64   `json:"lr"`
		Pairs       []int     `json:"pairs"`
		Tokens      int       `json:"completion_tokens"`
		PerPair     []float64 `json:"per_pair_loss"`
		Chosen      []float64 `json:"chosen_logps"`
		Rejected    []float64 `json:"rejected_logps"`
		RefChosen   []float64 `json:"ref_chosen_logps"`
		RefRejected []float64 `json:"ref_rejected_logps"`
		Loss        float64   `json:"loss"`
		GradNorm    float64   `json:"grad_norm"`
	} `json:"log"`
}

func TestGoldenTrajectories(t *testing.T) {
	for _, file := range sdktest.GoldenCases(t, "traj/*/trajectory.json", "testdata/golden") {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) { goldenTrajectory(t, dir) })
	}
}

func goldenTrajectory(t *testing.T, dir string) {
	ctx := context.Background()
	data, err := os.ReadFile(filepath.Join(dir, "trajectory.json"))
	must(t, err)
	var tr trajectory
	must(t, json.Unmarshal(data, &tr))
	run := tr.Run
	e := bare(t, filepath.Join(dir, "init"))
	reference := e
	if _, err := os.Stat(filepath.Join(dir, "reference")); err == nil {
		reference = bare(t, filepath.Join(dir, "reference"))
	}
	pairs := func(indices []int) (seqs []Sequence) {
		for _, i := range indices {
			seqs = append(seqs, Sequence{tr.Data[i].Prompt, tr.Data[i].Chosen})
			if run.Kind == "dpo" {
				seqs = append(seqs, Sequence{tr.Data[i].Prompt, tr.Data[i].Rejected})
			}
		}
		return seqs
	}
	refs := map[int][2]float64{}
	if run.Kind == "dpo" {
		for i := range tr.Data {
			logps, err := reference.LogProbs(ctx, pairs([]int{i}))
			must(t, err)
			refs[i] = [2]float64{logps[0], logps[1]}
		}
	}
	must(t, e.StartOptimizer(OptimizerConfig{Beta1: run.Betas[0], Beta2: run.Betas[1], Eps: run.Eps, WeightDecay: run.WD, Clip: run.Clip,
		DecayExcludesNorms: run.ExcludesNorms}))
	schedule := optim.Cosine(run.LR, run.Warmup, run.Steps)
	for step, want := range tr.Log {
		lr := schedule(step)
		near(t, step, "learning rate", lr, want.LR, 1e-12)
		for j, i := range want.Pairs {
			if i != (step*run.Batch+j)%len(tr.Data) {
				t.Fatalf("step %d uses pair %d, by the rule %d", step, i, (step*run.Batch+j)%len(tr.Data))
			}
		}
		seqs := pairs(want.Pairs)
		if run.Kind == "sft" {
			tokens, total := make([]int, len(seqs)), 0
			for i, s := range seqs {
				tokens[i] = len(s.Completion)
				total += tokens[i]
			}
			if total != want.Tokens {
				t.Fatalf("step %d: %d completion tokens, want %d", step, total, want.Tokens)
			}
			result, err := e.Step(ctx, seqs, lr, func(logps []float64) (float64, []float64, error) {
				loss, grad, err := SFTLoss(tokens)(logps)
				if step == 0 {
					compareStep0(t, dir, seqs, grad, run.Clip)
				}
				return loss, grad, err
			})
			must(t, err)
			near(t, step, "loss", result.Loss, want.Loss, 5e-6)
			near(t, step, "gradient norm", result.GradNorm, want.GradNorm, 1e-4*want.GradNorm)
			continue
		}
		// The sigmoid loss, −log σ(β((c − c_ref) − (r − r_ref))), and its derivative.
		result, err := e.Step(ctx, seqs, lr, func(logps []float64) (float64, []float64, error) {
			loss, grad, n := 0.0, make([]float64, len(logps)), float64(len(want.Pairs))
			for j, i := range want.Pairs {
				c, r := logps[2*j], logps[2*j+1]
				z := run.Beta * ((c - refs[i][0]) - (r - refs[i][1]))
				if step == 0 && run.Ref == "same" && z != 0 {
					t.Errorf("pair %d: the margin before the first update is %g, want 0 exactly", i, z)
				}
				pair := math.Log1p(math.Exp(-z))
				near(t, step, "loss of a pair", pair, want.PerPair[j], 5e-6)
				near(t, step, "log-prob of a chosen completion", c, want.Chosen[j], 1e-4)
				near(t, step, "log-prob of a rejected completion", r, want.Rejected[j], 1e-4)
				near(t, step, "reference log-prob of a chosen completion", refs[i][0], want.RefChosen[j], 1e-4)
				near(t, step, "reference log-prob of a rejected completion", refs[i][1], want.RefRejected[j], 1e-4)
				loss += pair / n
				grad[2*j] = -run.Beta / (1 + math.Exp(z)) / n
				grad[2*j+1] = -grad[2*j]
			}
			if step == 0 {
				compareStep0(t, dir, seqs, grad, run.Clip)
			}
			return loss, grad, nil
		})
		must(t, err)
		near(t, step, "loss", result.Loss, want.Loss, 5e-6)
		near(t, step, "gradient norm", result.GradNorm, want.GradNorm, 1e-4*want.GradNorm)
	}
	final, err := weights.Open(filepath.Join(dir, "final.safetensors"))
	must(t, err)
	defer final.Close()
	for _, p := range e.model.Params().All {
		want := tensor(t, final, p.Name)
		for i := range want {
			if d := math.Abs(float64(p.W[i] - want[i])); !(d <= 1e-5) {
				t.Fatalf("%s[%d] is off by %.3g at the end", p.Name, i, d)
			}
		}
	}
}

// compareStep0 compares the clipped gradients of the first step, on an engine of its own.
func compareStep0(t *testing.T, dir string, seqs []Sequence, grad []float64, clip float64) {
	other := bare(t, filepath.Join(dir, "init"))
	train, err := other.model.Train()
	must(t, err)
	order := arrange(seqs)
	pack(&other.batch, seqs, order)
	_, err = train.Run(context.Background(), &other.batch, func([]float64) (float64, []float64, error) {
		arranged := make([]float64, len(grad))
		for s, i := range order {
			arranged[s] = grad[i]
		}
		return 0, arranged, nil
	})
	must(t, err)
	norm := 0.0
	for _, g := range other.model.Params().Grad {
		norm += float64(g) * float64(g)
	}
	scale := min(1, clip/(math.Sqrt(norm)+1e-6))
	f, err := weights.Open(filepath.Join(dir, "step0_clipped_grads.safetensors"))
	must(t, err)
	defer f.Close()
	for _, p := range other.model.Params().All {
		want, worst, largest := tensor(t, f, p.Name), 0.0, 0.0
		for i := range want {
			worst = max(worst, math.Abs(scale*float64(p.Grad[i])-float64(want[i])))
			largest = max(largest, math.Abs(float64(want[i])))
		}
		if !(worst <= 1e-4*largest) {
			t.Errorf("the first clipped gradient of %s is off by %.3g, its largest entry is %.3g", p.Name, worst, largest)
		}
	}
}

// bare loads a model without a tokenizer: the runs' directories have none.
func bare(t *testing.T, dir string) *Engine {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	must(t, err)
	c, err := model.ParseConfig(data)
	must(t, err)
	f, err := weights.Open(dir)
	must(t, err)
	defer f.Close()
	m, err := model.FromWeights(c, f)
	must(t, err)
	return newEngine(m)
}

func tensor(t *testing.T, f *weights.File, name string) []float32 {
	t.Helper()
	found, ok := f.Tensor(name)
	if !ok {
		t.Fatalf("there is no tensor %s", name)
	}
	x, err := found.Float32s(nil)
	must(t, err)
	return x
}

func near(t *testing.T, step int, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("step %d: %s is %.9g, want %.9g within %.3g", step, what, got, want, tolerance)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
