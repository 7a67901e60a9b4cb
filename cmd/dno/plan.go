package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

func (a *app) planCommand() *cobra.Command {
	var sets []string
	c := &cobra.Command{
		Use:   "plan [SCRIPT]",
		Short: "Show what a run will do: iterations, oracle calls, tokens, time, memory",
		Long: `Show what a run will do, without doing it. The schedule is asked for every iteration, on a history that
does not move. Time is estimated from a short measurement of sampling and training on this machine.`,
		Example: "  dno plan\n  dno plan my.lua --set samples=8",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			src, err := readScript(args)
			if err != nil {
				return err
			}
			return a.plan(c.Context(), setup{src: src, sets: sets})
		},
	}
	c.Flags().StringArrayVar(&sets, "set", nil, "override a setting: key=value; may be repeated")
	return c
}

// forecast is what `dno plan --json` prints.
type forecast struct {
	Iterations  []iterationForecast `json:"iterations"`
	OracleCalls int                 `json:"oracle_calls"` // ordered pairs, at most: equal completions are not asked about
	Tokens      int                 `json:"tokens"`       // sampled, expected
	Seconds     float64             `json:"seconds"`      // expected
	MemoryBytes int                 `json:"memory_bytes"` // weights, gradients, optimizer: without activations
	Measured    measured            `json:"measured"`
}

type iterationForecast struct {
	Iteration   int    `json:"iteration"`
	Prompts     int    `json:"prompts"`
	Samples     int    `json:"samples"`
	OracleCalls int    `json:"oracle_calls"`
	Oracle      string `json:"oracle"`
	Loss        string `json:"loss"`
	Teacher     string `json:"teacher,omitempty"`
}

// measured is the short measurement that times are estimated from.
type measured struct {
	SampledTokensPerSecond float64 `json:"sampled_tokens_per_second"`
	TokensPerCompletion    float64 `json:"tokens_per_completion"`
	TrainSecondsPerStep    float64 `json:"train_seconds_per_step"`
}

func (a *app) plan(ctx context.Context, in setup) error {
	if err := checkKernel(); err != nil {
		return err
	}
	s, plans, err := a.dryRun(ctx, in)
	if err != nil {
		return err
	}
	e := s.script.Experiment()
	h, done, err := a.scratchHost(s.dir)
	if err != nil {
		return err
	}
	defer done()
	l := &loop.Loop{Experiment: e, Train: s.prompts.train, Plugins: opener{host: h, from: s.dir}}
	maxTokens, err := l.EvaluationTokens(ctx)
	if err != nil {
		return err
	}
	m, err := measure(ctx, s, e.Plan.BatchSize, maxTokens)
	if err != nil {
		return err
	}
	f := forecast{Iterations: []iterationForecast{}, Measured: m, MemoryBytes: s.policy.engine.Memory()}
	perPolicy := 2 * (len(s.prompts.validation) + len(s.prompts.test)) // greedy and T=1
	completions := perPolicy
	for i, plan := range plans {
		prompts, orders, err := l.Size(ctx, plan)
		if err != nil {
			return err
		}
		k, pairs := plan.Samples, plan.Samples*(plan.Samples-1)/2
		it := iterationForecast{Iteration: i + 1, Prompts: prompts, Samples: k, Oracle: plan.Oracle.Name, Loss: plan.Loss.Name}
		if plan.Teacher != nil {
			pairs += k
			it.Teacher = plan.Teacher.Name
		}
		it.OracleCalls = prompts * pairs * orders
		f.OracleCalls += it.OracleCalls
		f.Iterations = append(f.Iterations, it)
		completions += prompts*k + perPolicy
		// Nobody knows how many pairs there will be; the embedded experiment has about four a prompt.
		f.Seconds += float64(4*prompts*plan.Epochs) / float64(plan.BatchSize) * m.TrainSecondsPerStep
	}
	f.Tokens = int(float64(completions) * m.TokensPerCompletion)
	f.Seconds += float64(f.Tokens) / m.SampledTokensPerSecond
	if a.json {
		return a.printJSON(f)
	}
	fmt.Fprintf(a.stdout, "%s: %d iterations\n\n it  prompts  samples  oracle calls  oracle / loss / teacher\n", in.src.name, len(plans))
	for _, it := range f.Iterations {
		teacher := it.Teacher
		if teacher == "" {
			teacher = "-"
		}
		fmt.Fprintf(a.stdout, "%3d  %7d  %7d  ≤ %10d  %s / %s / %s\n", it.Iteration, it.Prompts, it.Samples, it.OracleCalls, it.Oracle, it.Loss, teacher)
	}
	fmt.Fprintf(a.stdout, "\noracle calls  at most %d\ntokens        about %d sampled\ntime          about %.0f s (measured here: %.0f tokens/s, %.0f ms a step)\nmemory        %.0f MB for weights, gradients and optimizer\n",
		f.OracleCalls, f.Tokens, f.Seconds, m.SampledTokensPerSecond, 1000*m.TrainSecondsPerStep, float64(f.MemoryBytes)/1e6)
	return nil
}

// measure draws completions of some training prompts, and makes one update with learning rate 0.
func measure(ctx context.Context, s *session, batchSize, maxTokens int) (measured, error) {
	var m measured
	prompts := s.prompts.train[:min(64, len(s.prompts.train))]
	req := sdk.GenerateRequest{Options: sdk.GenerateOptions{Temperature: 1, MaxTokens: maxTokens}}
	for i, p := range prompts {
		req.Prompts = append(req.Prompts, p.Messages)
		req.Seeds = append(req.Seeds, []uint64{uint64(2 * i), uint64(2*i + 1)})
	}
	// The first call allocates: it is not what a run spends its time on.
	if _, err := s.sampler.Generate(ctx, req); err != nil {
		return m, err
	}
	start := time.Now()
	res, err := s.sampler.Generate(ctx, req)
	if err != nil {
		return m, err
	}
	tokens := 0
	var texts []loop.Text
	for i, row := range res.Completions {
		for _, c := range row {
			tokens += len(c.Tokens)
			texts = append(texts, loop.Text{Prompt: prompts[i].Messages, Completion: c})
		}
	}
	m.SampledTokensPerSecond = float64(tokens) / time.Since(start).Seconds()
	m.TokensPerCompletion = float64(tokens) / float64(len(texts))
	if err := s.policy.StartTraining(ctx, loop.Optimizer{Beta1: 0.9, Beta2: 0.95, Epsilon: 1e-8}); err != nil {
		return m, err
	}
	texts = texts[:min(len(texts), 2*batchSize)]
	for range 2 {
		start = time.Now()
		if _, err := s.policy.Step(ctx, texts, 0, func(logps []float64) (float64, []float64, error) {
			return 0, make([]float64, len(logps)), nil
		}); err != nil {
			return m, err
		}
	}
	m.TrainSecondsPerStep = time.Since(start).Seconds()
	return m, nil
}
