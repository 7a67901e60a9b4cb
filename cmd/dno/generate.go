package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/dno-project/dno/core/report"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

func (a *app) generateCommand() *cobra.Command {
	var model, precision, weights string
	var n int
	var seed uint64
	o := sdk.GenerateOptions{}
	c := &cobra.Command{
		Use:   "generate PROMPT",
		Short: "Draw completions of a prompt from a model",
		Example: `  dno generate "A box is 12 by 4 by 3 cm. Find its surface." -n 5
  dno generate --model runs/dno-1/iter-004/checkpoint "A box is 12 by 4 by 3 cm. Find its surface." --temperature 0`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.generate(c.Context(), model, precision, weights, args[0], n, seed, o)
		},
	}
	c.Flags().StringVar(&model, "model", embeddedModel, "model directory or checkpoint")
	c.Flags().IntVarP(&n, "number", "n", 1, "how many completions")
	c.Flags().Uint64Var(&seed, "seed", 0, "of the first completion; the next ones count on")
	c.Flags().Float64Var(&o.Temperature, "temperature", 1, "0 is greedy")
	c.Flags().IntVar(&o.TopK, "top-k", 0, "keep the k most probable tokens; 0 is off")
	c.Flags().Float64Var(&o.TopP, "top-p", 1, "keep tokens while the mass before them is below it")
	c.Flags().Float64Var(&o.MinP, "min-p", 0, "keep tokens at least this fraction of the most probable one's")
	c.Flags().Float64Var(&o.RepetitionPenalty, "repetition-penalty", 1, "above 1 makes seen tokens less probable")
	c.Flags().IntVar(&o.MaxTokens, "max-tokens", 128, "longest completion")
	precisionFlag(c, &precision)
	weightsFlag(c, &weights)
	c.Flags().StringArrayVar(&o.Stop, "stop", nil, "text that ends a completion; may be repeated")
	return c
}

func (a *app) generate(ctx context.Context, model, precision, weights, prompt string, n int, seed uint64, o sdk.GenerateOptions) error {
	if err := checkKernel(); err != nil {
		return err
	}
	if n < 1 || strings.TrimSpace(prompt) == "" {
		return sdk.Errorf(sdk.CodeUsage, "generate: want a prompt and at least one completion")
	}
	if err := optionsError(o); err != nil {
		return err
	}
	w, err := parseWeights(weights)
	if err != nil {
		return err
	}
	e, err := loadModel(model, ".")
	if err != nil {
		return err
	}
	if err := setPrecision(e, precision); err != nil {
		return err
	}
	seeds := make([]uint64, n)
	for i := range seeds {
		seeds[i] = seed + uint64(i)
	}
	res, err := (&policy{e, w}).Generate(ctx, sdk.GenerateRequest{
		Prompts: [][]sdk.Message{{{Role: "user", Content: prompt}}}, Seeds: [][]uint64{seeds}, Options: o,
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"model": model, "prompt": prompt, "completions": res.Completions[0]})
	}
	for _, c := range res.Completions[0] {
		cut := ""
		if c.Finish == sdk.FinishLength {
			cut = " …"
		}
		fmt.Fprintf(a.stdout, "%s%s\n", report.Clean(c.Text), cut)
	}
	return nil
}

// optionsError reports wrong options as a wrong command line. A 0 that the SDK takes for "off" is none of
// a user who wrote it.
func optionsError(o sdk.GenerateOptions) error {
	out := options(o)
	err := out.Validate()
	switch {
	case o.TopP == 0:
		err = errors.New("top-p 0: must be above 0; 1 turns it off")
	case o.RepetitionPenalty == 0:
		err = errors.New("repetition penalty 0: must be above 0; 1 turns it off")
	}
	if err != nil {
		return sdk.Errorf(sdk.CodeUsage, "%w", err)
	}
	return nil
}
