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
	Prompts          int `json:"prompts"`         // that the sequences share
	Pairs            int `json:"pairs,omitempty"` // of a step
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

// Batch is the sequences of a run: some completions of each of some prompts.
type Batch struct{ Prompts, Completions, PromptTokens, CompletionTokens int }

// The runs if nobody says otherwise: an update on one pair of each prompt, as of DPO, and sampling several completions of
// each prompt.
var (
	DefaultTrain  = Batch{Prompts: 4, Completions: 2, PromptTokens: 64, CompletionTokens: 64}
	DefaultSample = Batch{Prompts: 8, Completions: 5, PromptTokens: 64, CompletionTokens: 64}
)

// String is as [ParseBatch] reads it.
func (b Batch) String() string {
	return fmt.Sprintf("%dx%d:%d+%d", b.Prompts, b.Completions, b.PromptTokens, b.CompletionTokens)
}

// maxTokens is how many tokens a batch may have.
const maxTokens = 1 << 20

// ParseBatch reads prompts, completions of each, and the tokens of both: "8x5:64+64".
func ParseBatch(s string) (b Batch, err error) {
	var rest string
	n, _ := fmt.Sscanf(s+"\n", "%dx%d:%d+%d%s\n", &b.Prompts, &b.Completions, &b.PromptTokens, &b.CompletionTokens, &rest)
	if n != 4 {
		return Batch{}, fmt.Errorf("%q is no batch: want prompts x completions : tokens of a prompt + tokens of a completion, like 8x5:64+64", s)
	}
	for _, v := range []int{b.Prompts, b.Completions, b.PromptTokens, b.CompletionTokens} {
		if v < 1 || v > maxTokens {
			return Batch{}, fmt.Errorf("%q is no batch: %d is not between 1 and %d", s, v, maxTokens)
		}
	}
	if total := b.Sequences() * (b.PromptTokens + b.CompletionTokens); b.Sequences() > maxTokens || total > maxTokens {
		return Batch{}, fmt.Errorf("%q is more than the %d tokens that are measured at a time", s, maxTokens)
	}
	return b, nil
}

// Sequences is the number of all completions.
func (b Batch) Sequences() int { return b.Prompts * b.Completions }

// Pairs is the number of all pairs of completions of a prompt.
func (b Batch) Pairs() int { return b.Prompts * b.Completions * (b.Completions - 1) / 2 }

// speed is of a run that counts so many tokens.
func (b Batch) speed(tokens int) Speed {
	return Speed{Sequences: b.Sequences(), Prompts: b.Prompts, PromptTokens: b.PromptTokens, CompletionTokens: b.CompletionTokens, Tokens: tokens}
}

// MeasureModel times an update and, with weights held as w says, sampling on random tokens, and leaves the weights a
// little changed.
//
// Errors: those of [engine.Engine.Step] and [generate.Generator.Generate].
func MeasureModel(ctx context.Context, name string, e *engine.Engine, w generate.Weights, m Machine, train, sample Batch, t Timer) (Model, error) {
	t.Progress.Start("bench model", 2)
	defer t.Progress.Done()
	p := e.Model().Precision()
	out := Model{Name: name, Precision: p.String(), Weights: string(w), Parameters: e.Model().Config.Parameters()}
	var err error
	if out.Sample, err = measureSampling(ctx, e, w, sample, t); err != nil {
		return out, err
	}
	if out.Train, err = measureTraining(ctx, e, train, t); err != nil {
		return out, err
	}
	out.Sample.under(m.peak(p))
	out.Train.under(m.peak(p))
	return out, nil
}

// measureSampling draws from the model's own distribution. No token ends a completion, so that every run does the
// same work; that alone is why this has a generator of its own and not the engine's.
func measureSampling(ctx context.Context, e *engine.Engine, w generate.Weights, b Batch, t Timer) (s Speed, err error) {
	s = b.speed(b.Sequences() * b.CompletionTokens)
	c := e.Model().Config
	prompts := draw(c.Vocab, b.Prompts, b.PromptTokens)
	reqs := make([]generate.Request, b.Sequences())
	for i := range reqs {
		reqs[i] = generate.Request{Prompt: prompts[i/b.Completions], Seed: uint64(i)}
	}
	g := generate.New(e.Model(), nil, e.Decode)
	g.SetWeights(w)
	s.Timing, err = t.time(ctx, func() error {
		_, err := g.Generate(ctx, reqs, generate.DefaultOptions(b.CompletionTokens), nil)
		return err
	})
	s.FLOP = sampleFLOP(c, b)
	return s, err
}

// measureTraining makes updates with the loss of DPO over all pairs of a prompt's completions. The reference's log-probabilities are computed once, before, as
// a run computes them once an iteration.
func measureTraining(ctx context.Context, e *engine.Engine, b Batch, t Timer) (s Speed, err error) {
	s = b.speed(b.Sequences() * (b.PromptTokens + b.CompletionTokens))
	c := e.Model().Config
	prompts, completions := draw(c.Vocab, b.Prompts, b.PromptTokens), draw(c.Vocab, b.Sequences(), b.CompletionTokens)
	seqs := make([]engine.Sequence, b.Sequences())
	for i := range seqs {
		seqs[i] = engine.Sequence{Prompt: prompts[i/b.Completions], Completion: completions[i]}
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
		r, err := e.Step(ctx, seqs, 1e-6, dpoLoss(0.1, b.Completions, reference))
		phases = r.Phases
		return err
	})
	s.FLOP = stepFLOP(c, b, phases)
	s.Pairs = b.Pairs()
	return s, err
}

// dpoLoss is the loss of DPO over all pairs of each n completions that stand side by side, of which the earlier one is
// chosen:
//
//	L = −(1/B)·Σ log σ(β·h),  h = (log π/π_ref of chosen) − (log π/π_ref of rejected)
//
// Source: Rafailov et al. 2023 (arXiv 2305.18290), Eq. 7.
func dpoLoss(beta float64, n int, reference []float64) engine.LossFunc {
	return func(logps []float64) (loss float64, grad []float64, err error) {
		grad = make([]float64, len(logps))
		pairs := float64(len(logps)) * float64(n-1) / 2
		for i := range logps {
			for j := i + 1; j < (i/n+1)*n; j++ {
				h := (logps[i] - reference[i]) - (logps[j] - reference[j])
				loss += math.Log1p(math.Exp(-beta*h)) / pairs
				g := -beta / (1 + math.Exp(beta*h)) / pairs
				grad[i] += g
				grad[j] -= g
			}
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

// shapes are models of random weights, which are drawn in seconds: what is measured does not depend on the values.
var shapes = []struct {
	name   string
	config model.Config
}{
	{"tiny", shape(256, 128, 4, 4, 512, false)},
	{"small", shape(4096, 288, 6, 6, 768, true)},
	{"small32k", shape(32000, 288, 6, 6, 768, true)},
	{"gemma270m", gemma270m()},
}

func shape(vocab, width, layers, heads, ffn int, tied bool) model.Config {
	return model.Config{
		Vocab: vocab, Width: width, FFN: ffn, Layers: layers, Heads: heads, KVHeads: heads, HeadDim: width / heads,
		MaxPositions: 512, NormEps: 1e-5, Rope: model.Rope{Theta: 10000, Type: "default"}, Tied: tied, InitStd: 0.04,
		BOS: 1, Pad: 0, EOS: []int32{2},
	}
}

// gemma270m is the shape of Gemma 3 270M: 168 of its 268 million parameters are the embedding.
func gemma270m() model.Config {
	c := model.Config{
		Family: model.Gemma3, Vocab: 262144, Width: 640, FFN: 2048, Layers: 18, Heads: 4, KVHeads: 1, HeadDim: 256, QueryScalar: 256,
		MaxPositions: 32768, NormEps: 1e-6, Rope: model.Rope{Theta: 1e6, Type: "default"},
		Window: 512, LocalRope: model.Rope{Theta: 10000, Type: "default"}, Tied: true, InitStd: 0.02, BOS: 2, Pad: 0, EOS: []int32{1},
	}
	for l := range c.Layers {
		c.Sliding = append(c.Sliding, (l+1)%6 != 0)
	}
	return c
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
