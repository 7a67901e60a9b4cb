package main

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/dno-project/dno/core/bench"
	"github.com/dno-project/dno/core/engine"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/report"
	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

// benchParts are what `dno bench` can measure, in the order in which it shows them.
var benchParts = []string{"machine", "kernels", "model", "iteration"}

// benchOptions are the flags of `dno bench`.
type benchOptions struct {
	only  []string
	model string
	// Of the model's products.
	precision string
	weights   string
	script    string
	seconds   float64

	train, sample           string
	trainBatch, sampleBatch bench.Batch // the same, parsed
}

func (o benchOptions) wants(part string) bool { return slices.Contains(o.only, part) }

func (a *app) benchCommand() *cobra.Command {
	var o benchOptions
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine, the kernels, a model, an iteration",
		Long: `Measure, with the kernels in use and with all threads:

  machine    the peak in GFLOP/s, and the memory's bandwidth in GB/s
  kernels    each as a share of what the machine allows it
  model      tokens a second of training and sampling, and which share of the peak their matrix products make
  iteration  the wall time of one iteration by stage; only if it is asked for, for it takes long

A model is a directory, a checkpoint, ` + embeddedModel + `, or a shape with random weights: ` + strings.Join(bench.Shapes(), ", ") + `.
Shares are of the peak and the bandwidth of the same call, so machine is measured with kernels and with model.
Let nothing else run meanwhile.`,
		Example: `  dno bench
  dno bench --only machine,model --model small --seconds 5
  dno bench --only iteration --script my.lua --json`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(c.Flags().Changed); err != nil {
				return err
			}
			return a.bench(c.Context(), o)
		},
	}
	c.Flags().StringSliceVar(&o.only, "only", benchParts[:3], "parts to measure, of "+strings.Join(benchParts, ", "))
	c.Flags().StringVar(&o.model, "model", embeddedModel, "model to train and to sample")
	c.Flags().StringVar(&o.script, "script", "dno", "experiment of the iteration: a Lua file or a recipe")
	precisionFlag(c, &o.precision)
	c.Flags().StringVar(&o.train, "train", bench.DefaultTrain.String(), "an update's prompts x completions : their tokens; all pairs of a prompt's completions count")
	c.Flags().StringVar(&o.sample, "sample", bench.DefaultSample.String(), "the same of sampling")
	weightsFlag(c, &o.weights)
	c.Flags().Float64Var(&o.seconds, "seconds", 0.5, "how long each case is repeated; it is run once at least")
	return c
}

func (a *app) bench(ctx context.Context, o benchOptions) error {
	if err := checkKernel(); err != nil {
		return err
	}
	w, err := parseWeights(o.weights)
	if err != nil {
		return err
	}
	var e *engine.Engine
	if o.wants("model") {
		if e, err = benchModel(o); err != nil {
			return err
		}
	}
	t := bench.Timer{Seconds: o.seconds, Progress: telemetry.NewProgress(a.log)}
	r := bench.Result{Kernel: kernel.Level(), Threads: runtime.GOMAXPROCS(0)}
	if o.wants("iteration") { // first, for a script is where most can be wrong
		var err error
		if r.Iteration, err = a.benchIteration(ctx, o.script); err != nil {
			return err
		}
	}
	if o.wants("machine") || o.wants("kernels") || o.wants("model") {
		m, err := bench.MeasureMachine(ctx, t)
		if err != nil {
			return err
		}
		r.Machine = &m
	}
	if o.wants("kernels") {
		var err error
		if r.Kernels, err = bench.MeasureKernels(ctx, *r.Machine, t); err != nil {
			return err
		}
	}
	if o.wants("model") {
		m, err := bench.MeasureModel(ctx, o.model, e, w, *r.Machine, o.trainBatch, o.sampleBatch, t)
		if err != nil {
			return coded(err)
		}
		r.Model = &m
	}
	if a.json {
		return a.printJSON(r)
	}
	if r.Model != nil {
		r.Model.Name = report.Clean(r.Model.Name)
	}
	if r.Iteration != nil {
		r.Iteration.Script, r.Iteration.Model = report.Clean(r.Iteration.Script), report.Clean(r.Iteration.Model)
	}
	return bench.Write(a.stdout, r)
}

// check refuses a wrong command line; given says whether it has a flag.
func (o *benchOptions) check(given func(flag string) bool) error {
	if len(o.only) == 0 {
		return sdk.Errorf(sdk.CodeUsage, "bench: --only names no part").WithHint("parts are: %s", strings.Join(benchParts, ", "))
	}
	for _, part := range o.only {
		if !slices.Contains(benchParts, part) {
			err := sdk.Errorf(sdk.CodeUsage, "bench: there is no part %q", part)
			if near := sdk.Nearest(part, benchParts); near != "" {
				err = sdk.Errorf(sdk.CodeUsage, "bench: there is no part %q; did you mean %q?", part, near)
			}
			return err.WithHint("parts are: %s", strings.Join(benchParts, ", "))
		}
	}
	for _, flag := range []struct{ name, part string }{{"model", "model"}, {"precision", "model"}, {"weights", "model"}, {"train", "model"}, {"sample", "model"}, {"script", "iteration"}} {
		if given(flag.name) && !o.wants(flag.part) {
			return sdk.Errorf(sdk.CodeUsage, "bench: --%s is of the part %s, which --only leaves out", flag.name, flag.part).
				WithHint("add it: --only %s,%s", strings.Join(o.only, ","), flag.part)
		}
	}
	for _, b := range []struct {
		flag, value string
		to          *bench.Batch
		completions int // at least
	}{{"train", o.train, &o.trainBatch, 2}, {"sample", o.sample, &o.sampleBatch, 1}} {
		var err error
		if *b.to, err = bench.ParseBatch(b.value); err == nil && b.to.Completions < b.completions {
			err = errors.New("an update needs pairs, so two completions of a prompt at least")
		}
		if err != nil {
			return sdk.Errorf(sdk.CodeUsage, "bench: --%s: %w", b.flag, err)
		}
	}
	if !(o.seconds > 0) || math.IsInf(o.seconds, 0) {
		return sdk.Errorf(sdk.CodeUsage, "bench: --seconds is %v, want a finite number above 0", o.seconds)
	}
	return nil
}

// benchModel makes a named shape, or reads a model.
func benchModel(o benchOptions) (*engine.Engine, error) {
	e, err := shapeOrModel(o.model)
	if err != nil {
		return nil, err
	}
	for _, b := range []bench.Batch{o.trainBatch, o.sampleBatch} {
		if n := e.Model().Config.MaxPositions; n < b.PromptTokens+b.CompletionTokens {
			return nil, sdk.Errorf(sdk.CodeUsage, "bench: model %q takes %d tokens, and the sequences of %v have more", o.model, n, b)
		}
	}
	return e, setPrecision(e, o.precision)
}

func shapeOrModel(name string) (*engine.Engine, error) {
	if slices.Contains(bench.Shapes(), name) {
		return bench.NewModel(name)
	}
	e, err := loadWhole(name, ".")
	if errors.Is(err, engine.ErrNoModel) {
		return nil, sdk.Errorf(sdk.CodeUsage, "%w", err).
			WithHint("model = a Hugging Face directory, %q, or a shape: %s", embeddedModel, strings.Join(bench.Shapes(), ", "))
	}
	return e, err
}

// benchIteration runs an experiment up to the end of its first iteration, in a temporary directory, and reads its record.
func (a *app) benchIteration(ctx context.Context, script string) (*bench.Iteration, error) {
	src, err := readScript([]string{script})
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "dno-bench-")
	if err != nil {
		return nil, sdk.Errorf(sdk.CodeIO, "%w", err)
	}
	defer os.RemoveAll(tmp)
	session, run, err := a.create(ctx, setup{src: src, dir: filepath.Join(tmp, "run")})
	if err != nil {
		return nil, err
	}
	defer run.Close()
	h, err := a.newHost(session.dir, filepath.Join(tmp, "inputs"))
	if err != nil {
		return nil, err
	}
	defer h.Close()
	l := a.loop(session, run, opener{host: h, from: session.dir})
	l.Script = until{l.Script, 2}
	if err := l.Execute(ctx); err != nil {
		return nil, err
	}
	records, err := run.Iterations()
	if err != nil {
		return nil, err
	}
	if len(records) < 2 {
		return nil, sdk.Errorf(sdk.CodeUsage, "bench: the schedule of %s plans no iteration", src.name)
	}
	rec := records[1]
	it := &bench.Iteration{
		Script: src.name, Model: run.Header().Model, Prompts: rec.Prompts, Completions: rec.Completions, Steps: rec.Steps, Seconds: rec.Seconds,
	}
	for _, s := range rec.Seconds {
		it.TotalSeconds += s
	}
	return it, nil
}
