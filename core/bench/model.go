package bench

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"

	"github.com/dno-project/dno/core/engine"
	"github.com/dno-project/dno/core/engine/generate"
	"github.com/dno-project/dno/core/engine/model"
)

// Model is a model's speed: one update on pairs, and one batch of sampling.
type Model struct {
	Name       string `json:"name"`
	Precision  string `json:"precision"` // of its products
	Weights    string `json:"weights"`   // of sampling; see [generate.Weights]
	Parameters int64  `json:"parameters"`
	Train      Speed  `json:"train"`
	Sample     Speed  `json:"sample"`
}

// Speed is how fast a run of some sequences is.
type Speed struct {
	Sequences        int `json:"sequences"`
	Prompts          int `json:"prompts"` // that the sequences share
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	Tokens           int `json:"tokens"` // of a run, that tokens_per_second counts
	Timing
	TokensPerSecond       float64 `json:"tokens_per_second"`
	TokensPerSecondMedian float64 `json:"tokens_per_second_median"`
	FLOP
	GFLOPS            float64 `json:"gflops"`      // of what is executed
	Utilisation       float64 `json:"utilisation"` // gflops over the machine's peak in the model's precision
	UtilisationMedian float64 `json:"utilisation_median"`
}

// under sets what follows from the timing, the operations and the machine.
func (s *Speed) under(peak float64) {
	s.TokensPerSecond, s.TokensPerSecondMedian = float64(s.Tokens)/s.Seconds, float64(s.Tokens)/s.SecondsMedian
	s.GFLOPS = rate(s.Executed, s.Seconds)
	s.Utilisation, s.UtilisationMedian = s.GFLOPS/peak, rate(s.Executed, s.SecondsMedian)/peak
}

// The runs: an update on pairs of one prompt each, as of DPO, and sampling several completions of each prompt.
const (
	pairs                          = 4
	sampled, sampledPrompts        = 40, 8
	promptTokens, completionTokens = 64, 64
)

// MinPositions is how many positions a model must have to be measured.
const MinPositions = promptTokens + completionTokens

// MeasureModel times an update and, with weights held as w says, sampling on random tokens, and leaves the weights a
// little changed.
//
// Errors: those of [engine.Engine.Step] and [generate.Generator.Generate].
func MeasureModel(ctx context.Context, name string, e *engine.Engine, w generate.Weights, m Machine, t Timer) (Model, error) {
	t.Progress.Start("bench model", 2)
	defer t.Progress.Done()
	p := e.Model().Precision()
	out := Model{Name: name, Precision: p.String(), Weights: string(w), Parameters: e.Model().Config.Parameters()}
	var err error
	if out.Sample, err = measureSampling(ctx, e, w, t); err != nil {
		return out, err
	}
	if out.Train, err = measureTraining(ctx, e, t); err != nil {
		return out, err
	}
	out.Sample.under(m.peak(p))
	out.Train.under(m.peak(p))
	return out, nil
}

// measureSampling draws from the model's own distribution. No token ends a completion, so that every run does the
// same work; that alone is why this has a generator of its own and not the engine's.
func measureSampling(ctx context.Context, e *engine.Engine, w generate.Weights, t Timer) (s Speed, err error) {
	s = Speed{Sequences: sampled, Prompts: sampledPrompts, PromptTokens: promptTokens, CompletionTokens: completionTokens,
		Tokens: sampled * completionTokens}
	c := e.Model().Config
	prompts := draw(c.Vocab, sampledPrompts, promptTokens)
	reqs := make([]generate.Request, sampled)
	for i := range reqs {
		reqs[i] = generate.Request{Prompt: prompts[i*sampledPrompts/sampled], Seed: uint64(i)}
	}
	g := generate.New(e.Model(), nil, e.Decode)
	g.SetWeights(w)
	s.Timing, err = t.time(ctx, func() error {
		_, err := g.Generate(ctx, reqs, generate.DefaultOptions(completionTokens), nil)
		return err
	})
	s.FLOP = sampleFLOP(c, sampled, sampledPrompts, promptTokens, completionTokens)
	return s, err
}

// measureTraining makes updates with the loss of DPO. The reference's log-probabilities are computed once, before, as
// a run computes them once an iteration.
func measureTraining(ctx context.Context, e *engine.Engine, t Timer) (s Speed, err error) {
	s = Speed{Sequences: 2 * pairs, Prompts: pairs, PromptTokens: promptTokens, CompletionTokens: completionTokens,
		Tokens: 2 * pairs * (promptTokens + completionTokens)}
	c := e.Model().Config
	prompts, completions := draw(c.Vocab, pairs, promptTokens), draw(c.Vocab, 2*pairs, completionTokens)
	seqs := make([]engine.Sequence, 2*pairs)
	for i := range seqs {
		seqs[i] = engine.Sequence{Prompt: prompts[i/2], Completion: completions[i]}
	}
	reference, err := e.LogProbs(ctx, seqs)
	if err != nil {
		return s, err
	}
	if err := e.StartOptimizer(engine.OptimizerConfig{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01, Clip: 1}); err != nil {
		return s, err
	}
	phases := 1
	s.Timing, err = t.time(ctx, func() error {
		r, err := e.Step(ctx, seqs, 1e-6, dpoLoss(0.1, reference))
		phases = r.Phases
		return err
	})
	s.FLOP = stepFLOP(c, 2*pairs, pairs, promptTokens, completionTokens, phases)
	return s, err
}

// dpoLoss is the loss of DPO over pairs that stand side by side, the chosen one first:
//
//	L = −(1/B)·Σ log σ(β·h),  h = (log π/π_ref of chosen) − (log π/π_ref of rejected)
//
// Source: Rafailov et al. 2023 (arXiv 2305.18290), Eq. 7.
func dpoLoss(beta float64, reference []float64) engine.LossFunc {
	return func(logps []float64) (loss float64, grad []float64, err error) {
		grad = make([]float64, len(logps))
		n := float64(len(logps) / 2)
		for i := 0; i < len(logps); i += 2 {
			h := (logps[i] - reference[i]) - (logps[i+1] - reference[i+1])
			loss += math.Log1p(math.Exp(-beta*h)) / n
			grad[i] = -beta / (1 + math.Exp(beta*h)) / n
			grad[i+1] = -grad[i]
		}
		return loss, grad, nil
	}
}

// draw returns n sequences of random tokens.
func draw(vocab, n, length int) [][]int32 {
	r := rand.New(rand.NewPCG(uint64(n), uint64(length)))
	out := make([][]int32, n)
	for i := range out {
		out[i] = make([]int32, length)
		for j := range out[i] {
			out[i][j] = int32(r.IntN(vocab))
		}
	}
	return out
}

// shapes are models of random weights, small enough to be drawn at once: what is measured does not depend on the values.
var shapes = []struct {
	name   string
	config model.Config
}{
	{"tiny", shape(256, 128, 4, 4, 512, false)},
	{"small", shape(4096, 288, 6, 6, 768, true)},
	{"small32k", shape(32000, 288, 6, 6, 768, true)},
}

func shape(vocab, width, layers, heads, ffn int, tied bool) model.Config {
	return model.Config{
		Vocab: vocab, Width: width, FFN: ffn, Layers: layers, Heads: heads, KVHeads: heads, HeadDim: width / heads,
		MaxPositions: 512, NormEps: 1e-5, Rope: model.Rope{Theta: 10000, Type: "default"}, Tied: tied, InitStd: 0.04,
		BOS: 1, Pad: 0, EOS: []int32{2},
	}
}

// Shapes names the models that [NewModel] makes.
func Shapes() (names []string) {
	for _, s := range shapes {
		names = append(names, s.name)
	}
	return names
}

//go:embed tokenizer
var tokenizerFiles embed.FS

// NewModel makes a named model. Its tokenizer has three special tokens and no others: ids are what is measured.
func NewModel(name string) (*engine.Engine, error) {
	for _, s := range shapes {
		if s.name == name {
			files, err := fs.Sub(tokenizerFiles, "tokenizer")
			if err != nil {
				return nil, err
			}
			return engine.New(s.config, files, 0)
		}
	}
	return nil, fmt.Errorf("there is no shape %q", name)
}
