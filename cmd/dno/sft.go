package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/dno-project/dno/core/dataset"
	"github.com/dno-project/dno/core/engine"
	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/engine/optim"
	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

// fineTuning are the settings of `dno sft`.
type fineTuning struct {
	model, data, out string
	precision        string
	steps, batch     int
	warmup           int
	lr, decay, clip  float64
	seed             uint64
	bf16             bool
}

func (a *app) sftCommand() *cobra.Command {
	var f fineTuning
	c := &cobra.Command{
		Use:   "sft --model DIR --data FILE --out DIR",
		Short: "Fine-tune a model on demonstrations",
		Long: `Fine-tune a model on demonstrations: JSON lines {"prompt", "completion"}. Only completions are
learned from. A model directory without weights (config.json and tokenizer only) is trained from scratch.
The learning rate rises over the warm-up, then follows half a cosine to 0.`,
		Example: "  dno sft --model my-model --data worked.jsonl --out tuned --steps 500 --lr 1e-4",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return a.sft(c.Context(), f) },
	}
	c.Flags().StringVar(&f.model, "model", "", "model directory, or "+embeddedModel)
	c.Flags().StringVar(&f.data, "data", "", "demonstrations")
	c.Flags().StringVar(&f.out, "out", "", "where the tuned model goes; a model that is there is replaced")
	c.Flags().IntVar(&f.steps, "steps", 1000, "updates")
	c.Flags().IntVar(&f.batch, "batch", 64, "demonstrations an update")
	c.Flags().IntVar(&f.warmup, "warmup", 50, "updates of warm-up")
	c.Flags().Float64Var(&f.lr, "lr", 3e-3, "largest learning rate")
	c.Flags().Float64Var(&f.decay, "weight-decay", 0.01, "AdamW's decoupled weight decay")
	c.Flags().Float64Var(&f.clip, "clip", 1, "largest gradient norm")
	c.Flags().Uint64Var(&f.seed, "seed", 0, "of fresh weights and of the order of the demonstrations")
	precisionFlag(c, &f.precision)
	c.Flags().BoolVar(&f.bf16, "bf16", false, "save weights rounded to bfloat16")
	return c
}

func (a *app) sft(ctx context.Context, f fineTuning) error {
	if err := checkKernel(); err != nil {
		return err
	}
	if f.model == "" || f.data == "" || f.out == "" {
		return sdk.Errorf(sdk.CodeUsage, "fine-tune: want all three of --model, --data and --out").WithHint("dno sft --help shows an example")
	}
	if f.steps < 1 || f.batch < 1 || f.warmup < 0 || f.warmup > f.steps {
		return sdk.Errorf(sdk.CodeUsage, "fine-tune: want steps and batch of at least 1 and a warm-up within the steps, have %d, %d and %d", f.steps, f.batch, f.warmup)
	}
	if !(f.lr >= 0) || math.IsInf(f.lr, 0) {
		return sdk.Errorf(sdk.CodeUsage, "fine-tune: the learning rate is %v, want a finite number of at least 0", f.lr)
	}
	if err := replaceable("fine-tune", f.out); err != nil {
		return err
	}
	e, err := openOrNew(f.model, f.seed)
	if err != nil {
		return err
	}
	if err := setPrecision(e, f.precision); err != nil {
		return err
	}
	text, err := readRef(f.data, ".")
	if err != nil {
		return err
	}
	demos, err := dataset.ReadDemonstrations(bytes.NewReader(text), f.data)
	if err != nil {
		return err
	}
	seqs := make([]engine.Sequence, len(demos))
	for i, d := range demos {
		seqs[i] = engine.Sequence{Prompt: e.EncodePrompt(messages(d.Prompt.Messages)), Completion: e.EncodeCompletion(d.Completion)}
	}
	final, err := a.fineTune(ctx, e, seqs, f)
	if err != nil {
		return coded(err)
	}
	if err := save(e, f.out, engine.SaveOptions{BF16: f.bf16}); err != nil {
		return err
	}
	weights, err := os.ReadFile(filepath.Join(f.out, "model.safetensors"))
	if err != nil {
		return sdk.Errorf(sdk.CodeIO, "%w", err)
	}
	if a.json {
		return a.printJSON(map[string]any{"out": f.out, "steps": f.steps, "loss": final, "sha256": hash(weights)})
	}
	fmt.Fprintf(a.stdout, "%s: %d steps on %d demonstrations, loss %.4f nats a token, sha256 %s\n", f.out, f.steps, len(demos), final, hash(weights))
	return nil
}

// replaceable refuses to put a model where something else lies: saving replaces the whole folder.
func replaceable(doing, out string) error {
	entries, err := os.ReadDir(out)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Dir(out)); err != nil {
			return sdk.Errorf(sdk.CodeUsage, "%s: look at the folder of the output %s: %w", doing, out, err).WithHint("make it first")
		}
		return nil
	case err != nil:
		return sdk.Errorf(sdk.CodeUsage, "%s: look at the output: %w", doing, err).WithHint("name a folder that is not there yet")
	case len(entries) == 0:
		return nil
	}
	if _, err := os.Stat(filepath.Join(out, "config.json")); err != nil {
		return sdk.Errorf(sdk.CodeUsage, "%s: the output %s is no model: it holds %s, and all of it would be replaced", doing, out, entries[0].Name()).
			WithHint("name a folder that is not there yet")
	}
	return nil
}

// fineTune passes over the demonstrations in an order that each epoch shuffles anew, and returns the
// mean loss of the last tenth of the steps.
func (a *app) fineTune(ctx context.Context, e *engine.Engine, seqs []engine.Sequence, f fineTuning) (float64, error) {
	if err := e.StartOptimizer(engine.OptimizerConfig{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: f.decay, Clip: f.clip, DecayExcludesNorms: true}); err != nil {
		return 0, sdk.Errorf(sdk.CodeUsage, "%w", err)
	}
	schedule := optim.Cosine(f.lr, f.warmup, f.steps)
	progress := telemetry.NewProgress(a.log)
	progress.Start("fine-tune", f.steps)
	defer progress.Done()
	rng := rand.New(rand.NewPCG(f.seed, 0x736674))
	var order []int
	tail, sum := max(1, f.steps/10), 0.0
	for step := range f.steps {
		batch := make([]engine.Sequence, 0, f.batch)
		var lengths []int
		for len(batch) < f.batch {
			if len(order) == 0 {
				order = rng.Perm(len(seqs))
			}
			batch = append(batch, seqs[order[0]])
			lengths = append(lengths, len(seqs[order[0]].Completion))
			order = order[1:]
		}
		r, err := e.Step(ctx, batch, schedule(step), engine.SFTLoss(lengths))
		if err != nil {
			return 0, err
		}
		if step >= f.steps-tail {
			sum += r.Loss
		}
		progress.Add(1)
	}
	return sum / float64(tail), nil
}

// openOrNew reads a model, or draws fresh weights for a directory that has none.
func openOrNew(dir string, seed uint64) (*engine.Engine, error) {
	if strings.HasPrefix(dir, embedded) {
		return loadWhole(dir, ".")
	}
	found, _ := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if len(found) > 0 || err != nil {
		return loadWhole(dir, ".")
	}
	config, err := model.ParseConfig(text)
	if err != nil {
		return nil, modelError(dir, err)
	}
	e, err := engine.New(config, os.DirFS(dir), seed)
	if err != nil {
		return nil, sdk.Errorf(sdk.CodeUsage, "%w", err)
	}
	return e, nil
}
