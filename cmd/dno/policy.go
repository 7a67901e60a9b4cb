package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dno-project/dno/core/engine"
	"github.com/dno-project/dno/core/engine/generate"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/engine/tokenizer"
	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

// policy fits the engine, which knows tokens, to the loop's Policy, which knows texts. Only Generate uses the weights;
// none are the engine's own.
type policy struct {
	engine  *engine.Engine
	weights generate.Weights
}

// loadModel reads a Hugging Face model directory, an adapter's with what it is an adapter of, or an embedded model. The
// weights below an adapter are held as in its training, so that the model says the same.
func loadModel(ref, from string) (*engine.Engine, error) {
	e, held, err := loadUnder(ref, from, maxAdapters)
	if err != nil {
		return nil, err
	}
	if err := e.HoldBase(held); err != nil {
		return nil, modelError(ref, err)
	}
	return e, nil
}

// setPrecision makes an engine round the factors of its products as a setting or a flag says.
func setPrecision(e *engine.Engine, name string) error {
	p, err := kernel.ParsePrecision(name)
	if err != nil {
		return sdk.Errorf(sdk.CodeUsage, "%w", err)
	}
	e.SetPrecision(p)
	return nil
}

// precisionFlag adds --precision to a command.
func precisionFlag(c *cobra.Command, value *string) {
	c.Flags().StringVar(value, "precision", loop.DefaultPrecision, "of products: float32, bfloat16, or auto: bfloat16 where that is faster on this CPU")
}

// weightsFlag adds --weights to a command.
func weightsFlag(c *cobra.Command, value *string) {
	c.Flags().StringVar(value, "weights", loop.DefaultSamplingWeights, "of sampling: same (as --precision says), float32, bfloat16, or q8_0, a quarter of the memory")
}

// parseWeights reads a setting or a flag.
func parseWeights(name string) (generate.Weights, error) {
	w, err := generate.ParseWeights(name)
	if err != nil {
		return w, sdk.Errorf(sdk.CodeUsage, "%w", err)
	}
	return w, nil
}

// modelError gives an engine's error on loading its code and its hint.
func modelError(ref string, err error) error {
	switch {
	case errors.Is(err, engine.ErrNoModel), errors.Is(err, fs.ErrNotExist):
		return sdk.Errorf(sdk.CodeUsage, "open model %q: %w", ref, err).
			WithHint("model = a Hugging Face directory (config.json, *.safetensors, tokenizer.json), or %q", embeddedModel)
	case errors.Is(err, model.ErrFamily), errors.Is(err, tokenizer.ErrTemplate), adapterError(err):
		return sdk.Errorf(sdk.CodeUsage, "open model %q: %w", ref, err)
	}
	return sdk.Errorf(sdk.CodeCorrupt, "open model %q: %w", ref, err)
}

func messages(in []sdk.Message) []tokenizer.Message {
	out := make([]tokenizer.Message, len(in))
	for i, m := range in {
		out[i] = tokenizer.Message(m)
	}
	return out
}

func (p *policy) Generate(ctx context.Context, req sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	all, err := p.GenerateAll(ctx, req)
	if err != nil {
		return sdk.GenerateResponse{}, err
	}
	return all[0], nil
}

func (p *policy) GenerateAll(ctx context.Context, reqs ...sdk.GenerateRequest) ([]sdk.GenerateResponse, error) {
	var all []generate.Request
	var opt generate.Options
	for _, req := range reqs {
		if len(req.Prompts) != len(req.Seeds) {
			return nil, sdk.Errorf(sdk.CodePlugin, "generate: %d prompts, but seeds for %d", len(req.Prompts), len(req.Seeds))
		}
		opt = options(req.Options)
		own := opt
		for i, m := range req.Prompts {
			ids := p.engine.EncodePrompt(messages(m))
			for _, seed := range req.Seeds[i] {
				all = append(all, generate.Request{Prompt: ids, Seed: seed, Options: &own})
			}
		}
	}
	results, err := p.engine.GenerateWith(ctx, cmp.Or(p.weights, generate.SameWeights), all, opt, nil)
	if err != nil {
		return nil, coded(err)
	}
	out := make([]sdk.GenerateResponse, len(reqs))
	for i, req := range reqs {
		for _, seeds := range req.Seeds {
			row := make([]sdk.Completion, len(seeds))
			for k, seed := range seeds {
				row[k] = completion(&results[0], seed)
				results = results[1:]
			}
			out[i].Completions = append(out[i].Completions, row)
		}
	}
	return out, nil
}

func completion(r *generate.Result, seed uint64) sdk.Completion {
	c := sdk.Completion{Text: r.Text, Tokens: r.Tokens, Finish: sdk.Finish(r.Finish), Source: sdk.FromPolicy, Seed: seed}
	if r.TokenLogProbs != nil { // else the policy's own is unknown, and that of rounded weights is none
		c.LogProb = &r.LogProb
	}
	return c
}

// options fills in what "off" means: the SDK's zero values are off, the engine's are not.
func options(o sdk.GenerateOptions) generate.Options {
	out := generate.Options{
		Temperature: o.Temperature, TopK: o.TopK, TopP: o.TopP, MinP: o.MinP,
		RepetitionPenalty: o.RepetitionPenalty, MaxTokens: o.MaxTokens, Stop: o.Stop,
	}
	if out.TopP == 0 {
		out.TopP = 1
	}
	if out.RepetitionPenalty == 0 {
		out.RepetitionPenalty = 1
	}
	return out
}

// sequences encodes texts. A completion without tokens (a teacher's) is text that ended by itself.
func (p *policy) sequences(texts []loop.Text) []engine.Sequence {
	out := make([]engine.Sequence, len(texts))
	for i, t := range texts {
		out[i] = engine.Sequence{Prompt: p.engine.EncodePrompt(messages(t.Prompt)), Completion: t.Completion.Tokens}
		if out[i].Completion == nil {
			out[i].Completion = p.engine.EncodeCompletion(t.Completion.Text)
		}
	}
	return out
}

func (p *policy) LogProbs(ctx context.Context, texts []loop.Text) ([]loop.LogProb, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	seqs := p.sequences(texts)
	logps, err := p.engine.LogProbs(ctx, seqs)
	if err != nil {
		return nil, coded(err)
	}
	out := make([]loop.LogProb, len(texts))
	for i := range out {
		out[i] = loop.LogProb{LogProb: logps[i], Tokens: len(seqs[i].Completion)}
	}
	return out, nil
}

func (p *policy) TokenLogProbs(ctx context.Context, texts []loop.Text) ([][]float64, error) {
	rows, err := p.engine.TokenLogProbs(ctx, p.sequences(texts))
	return rows, coded(err)
}

func (p *policy) StartTraining(_ context.Context, o loop.Optimizer) error {
	return p.engine.StartOptimizer(engine.OptimizerConfig{
		Beta1: o.Beta1, Beta2: o.Beta2, Eps: o.Epsilon, WeightDecay: o.WeightDecay, Clip: o.Clip,
	})
}

func (p *policy) Step(ctx context.Context, texts []loop.Text, lr float64, loss loop.LossFunc) (loop.StepResult, error) {
	return stepResult(p.engine.Step(ctx, p.sequences(texts), lr, engine.LossFunc(loss)))
}

func (p *policy) StepTokens(ctx context.Context, texts []loop.Text, lr float64, loss loop.TokenLossFunc) (loop.StepResult, error) {
	return stepResult(p.engine.StepTokens(ctx, p.sequences(texts), lr, engine.TokenLossFunc(loss)))
}

func stepResult(r engine.StepResult, err error) (loop.StepResult, error) {
	if err != nil {
		return loop.StepResult{}, coded(err)
	}
	return loop.StepResult{Loss: r.Loss, GradNorm: r.GradNorm, Tokens: r.Tokens}, nil
}

// coded gives the engine's errors their exit codes.
func coded(err error) error {
	switch {
	case errors.Is(err, engine.ErrNotFinite):
		return sdk.Errorf(sdk.CodeNumeric, "%w", err).WithHint("start again with a lower lr")
	case errors.Is(err, engine.ErrInput):
		return sdk.Errorf(sdk.CodeUsage, "%w", err)
	}
	return err
}

// save writes a model's directory.
func save(e *engine.Engine, dir string, o engine.SaveOptions) error {
	err := e.Save(dir, o)
	if err == nil || errors.Is(err, engine.ErrNotFinite) {
		return coded(err)
	}
	return sdk.Errorf(sdk.CodeIO, "%w", err)
}

// positionFile is what a checkpoint of a run has beside the model's files: where in the run it was made.
const positionFile = "position.json"

func (p *policy) Save(_ context.Context, dir string, position []byte, training bool) error {
	return save(p.engine, dir, engine.SaveOptions{Optimizer: training, Files: map[string][]byte{positionFile: position}})
}

func (p *policy) Load(_ context.Context, dir string) ([]byte, error) {
	if err := p.engine.Restore(dir); err != nil {
		var unread *fs.PathError
		switch { // only what is known to be damaged is made again
		case errors.Is(err, fsx.ErrFormat):
			return nil, sdk.Errorf(sdk.CodeUsage, "%w", err).WithHint("use the version of dno that wrote it, or a later one")
		case errors.As(err, &unread) && !errors.Is(err, fs.ErrNotExist):
			return nil, sdk.Errorf(sdk.CodeIO, "%w", err)
		}
		return nil, sdk.Errorf(sdk.CodeCorrupt, "%w", err)
	}
	position, err := os.ReadFile(filepath.Join(dir, positionFile)) // verified with the rest
	if err != nil {
		return nil, sdk.Errorf(sdk.CodeCorrupt, "restore the checkpoint at %s: %w", dir, err)
	}
	return position, nil
}

func (p *policy) Fingerprint() string { return p.engine.Fingerprint() }

var _ loop.Policy = (*policy)(nil)
