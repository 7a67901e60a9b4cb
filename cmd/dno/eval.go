package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/dno-project/dno/core/dataset"
	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

func (a *app) evalCommand() *cobra.Command {
	var prompts, oracle, precision, weights string
	var temperature float64
	var tokens int
	var seed uint64
	c := &cobra.Command{
		Use:   "eval [MODEL]",
		Short: "Measure a model on prompts with reference answers",
		Long: `Measure a model (a directory, a checkpoint, or the embedded one) on a file of prompts with an oracle that
says which completions are correct: accuracy at --temperature and at T=1, and length.`,
		Example: "  dno eval\n  dno eval runs/dno-1/iter-004/checkpoint --prompts my-test.jsonl",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			model := embeddedModel
			if len(args) > 0 {
				model = args[0]
			}
			e := loop.Evaluate{Oracle: loop.Plugin{Name: oracle}, Temperature: temperature, MaxTokens: tokens}
			return a.eval(c.Context(), model, precision, weights, prompts, seed, e)
		},
	}
	c.Flags().StringVar(&prompts, "prompts", embeddedModel+"/test.jsonl", "JSON lines with prompt and answer")
	c.Flags().StringVar(&oracle, "oracle", "verifier", "oracle that labels completions")
	c.Flags().Float64Var(&temperature, "temperature", 0, "of the first accuracy; 0 is greedy")
	c.Flags().IntVar(&tokens, "max-tokens", 128, "longest completion")
	c.Flags().Uint64Var(&seed, "seed", 0, "of the draws")
	precisionFlag(c, &precision)
	weightsFlag(c, &weights)
	return c
}

func (a *app) eval(ctx context.Context, model, precision, weights, file string, seed uint64, e loop.Evaluate) error {
	if err := checkKernel(); err != nil {
		return err
	}
	if err := optionsError(sdk.GenerateOptions{Temperature: e.Temperature, TopP: 1, RepetitionPenalty: 1, MaxTokens: e.MaxTokens}); err != nil {
		return err
	}
	w, err := parseWeights(weights)
	if err != nil {
		return err
	}
	text, err := readRef(file, ".")
	if err != nil {
		return err
	}
	set, err := dataset.ReadPrompts(bytes.NewReader(text), file)
	if err != nil {
		return err
	}
	loaded, err := loadModel(model, ".")
	if err != nil {
		return err
	}
	if err := setPrecision(loaded, precision); err != nil {
		return err
	}
	h, done, err := a.scratchHost(".")
	if err != nil {
		return err
	}
	defer done()
	l := &loop.Loop{
		Experiment: loop.Experiment{Seed: seed, Evaluate: e}, Policy: &policy{loaded, w},
		Plugins: opener{host: h, from: "."}, Progress: telemetry.NewProgress(a.log),
	}
	f, err := l.Measure(ctx, set.Prompts)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{
			"model": model, "prompts": len(set.Prompts), "accuracy": f.Accuracy, "accuracy_sampled": f.AccuracySampled, "mean_tokens": f.MeanTokens,
		})
	}
	fmt.Fprintf(a.stdout, "%s on %d prompts of %s\n", model, len(set.Prompts), file)
	fmt.Fprintf(a.stdout, "accuracy        %s at temperature %g\n", percent(f.Accuracy), e.Temperature)
	fmt.Fprintf(a.stdout, "                %s at temperature 1\n", percent(f.AccuracySampled))
	fmt.Fprintf(a.stdout, "mean length     %.1f tokens\n", f.MeanTokens.Mean)
	return nil
}

func percent(e *rundir.Estimate) string {
	if e == nil {
		return "unknown: the oracle gives no label " + sdk.LabelCorrect
	}
	if e.Low == nil || e.High == nil {
		return fmt.Sprintf("%.1f %%", 100*e.Mean)
	}
	return fmt.Sprintf("%.1f %% [%.1f, %.1f]", 100*e.Mean, 100**e.Low, 100**e.High)
}
