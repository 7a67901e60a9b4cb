package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dno-project/dno/core/engine/generate"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/core/script"
	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

func (a *app) runCommand() *cobra.Command {
	var s setup
	var seed uint64
	c := &cobra.Command{
		Use:   "run [SCRIPT]",
		Short: "Start a run: the whole of Direct Nash Optimization, by a script",
		Long: `Start a run. SCRIPT is a Lua file or the name of a recipe; without one, the recipe "dno" trains the
embedded model. Everything that the run does is recorded in its directory, and an interrupted run is
continued with "dno resume".

--set overrides the script: --set lr=0, --set loss.beta=0.5, --set oracle=length,
--set 'oracle={"command", path="./judge.py"}'. Values are Lua, or plain words.`,
		Example: `  dno run
  dno run dno-prct --seed 3
  dno run my.lua --dir runs/mine --set iterations=2`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			src, err := readScript(args)
			if err != nil {
				return err
			}
			s.src = src
			if c.Flags().Changed("seed") {
				s.seed = &seed
			}
			return a.start(c.Context(), s)
		},
	}
	c.Flags().StringVar(&s.dir, "dir", "", "run directory (default: runs/<script>-<n>)")
	c.Flags().Uint64Var(&seed, "seed", 0, "the run's seed (default: the script's)")
	c.Flags().StringArrayVar(&s.sets, "set", nil, "override a setting: key=value; may be repeated")
	c.Flags().StringArrayVar(&s.reuse, "reuse", nil, "directory of another run, whose judgments are not paid for again; may be repeated")
	return c
}

func (a *app) resumeCommand() *cobra.Command {
	var allow, sets []string
	c := &cobra.Command{
		Use:   "resume [DIR]",
		Short: "Go on with an unfinished run (default: the latest)",
		Long: `Go on with an unfinished run at its first missing record. What is on disk is not done again, and what was
paid for is not paid for again.

What the run depends on is in its run.lock: settings, seeds, versions, hashes of all that it reads. Where one has
changed the run is not gone on with, unless --allow-change names it; the change is noted there.
A budget may be another one at any time.`,
		Example: "  dno resume\n  dno resume runs/dno-1\n  dno resume runs/dno-1 --allow-change version",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			dir, err := runOf(args)
			if err != nil {
				return err
			}
			return a.resume(c.Context(), dir, allow, sets)
		},
	}
	c.Flags().StringArrayVar(&sets, "set", nil, "another budget: budget.money, .tokens, .calls or .wall=number; may be repeated")
	c.Flags().StringArrayVar(&allow, "allow-change", nil, "a key of run.lock whose value may differ; may be repeated")
	return c
}

// setup is what a new run is made of.
type setup struct {
	src   source
	sets  []string
	seed  *uint64
	dir   string
	reuse []string
}

// start makes the run directory and executes the run.
func (a *app) start(ctx context.Context, s setup) error {
	if err := checkKernel(); err != nil {
		return err
	}
	session, run, err := a.create(ctx, s)
	if err != nil {
		return err
	}
	defer run.Close()
	return a.execute(ctx, session, run)
}

// create makes a run directory. All that can be wrong with the input is found before.
func (a *app) create(ctx context.Context, s setup) (*session, *rundir.Run, error) {
	session, err := a.prepare(s)
	if err != nil {
		return nil, nil, err
	}
	if err := a.try(ctx, session); err != nil {
		return nil, nil, err
	}
	dir := s.dir
	if dir == "" {
		dir = nextRunDir(s.src.name)
	}
	scriptDir, err := filepath.Abs(s.src.dir)
	if err != nil {
		return nil, nil, err
	}
	for i, other := range s.reuse {
		if !rundir.Exists(other) {
			return nil, nil, sdk.Errorf(sdk.CodeUsage, "reuse the judgments of %s: there is no run in it", other)
		}
		if s.reuse[i], err = filepath.Abs(other); err != nil {
			return nil, nil, err
		}
	}
	e := session.script.Experiment()
	pins, err := session.pins()
	if err != nil {
		return nil, nil, err
	}
	run, err := rundir.Create(dir, rundir.Header{
		Script: s.src.name, ScriptDir: scriptDir,
		Files: map[string]string{"train": e.Files.Train, "validation": e.Files.Validation, "test": e.Files.Test},
		Seed:  e.Seed, Settings: s.sets, Model: e.Model, Iterations: e.Iterations, Reuse: s.reuse,
		Started: time.Now().Format(time.RFC3339),
	}, s.src.text, pins)
	return session, run, err
}

// try asks for the first iteration's plan, selects its prompts, and opens and configures every plugin
// that it names, so that what is wrong with them is found before anything is made or sampled. What a
// schedule asks for later is not known yet.
func (a *app) try(ctx context.Context, s *session) error {
	plan, err := s.script.Plan(ctx, 1, []rundir.IterationRecord{still(0)})
	if err != nil {
		return err
	}
	var plans []loop.Plan
	if plan != nil {
		plans = append(plans, *plan)
	}
	return a.checkPlans(ctx, s, plans)
}

// resume opens a run and executes the rest of it.
func (a *app) resume(ctx context.Context, dir string, allow, sets []string) error {
	if err := checkKernel(); err != nil {
		return err
	}
	run, err := rundir.Open(dir)
	if err != nil {
		return err
	}
	defer run.Close()
	if reason, err := run.Concluded(); err != nil || reason != "" {
		if err == nil {
			err = sdk.Errorf(sdk.CodeUsage, "resume %s: it is finished: %s", dir, reason).WithHint("see it with: dno report %s", dir)
		}
		return err
	}
	for _, s := range sets {
		if !strings.HasPrefix(s, "budget.") {
			return sdk.Errorf(sdk.CodeUsage, "resume %s: --set %s: of a run that has begun only its budget can be set", dir, s).
				WithHint("another setting makes another run: dno run --set %s", s)
		}
	}
	session, pins, err := a.again(run, sets)
	if err != nil {
		return err
	}
	if err := run.Allow(allow...); err != nil {
		return err
	}
	if err := run.Pin(pins); err != nil {
		return otherKernel(run, pins, err)
	}
	return a.execute(ctx, session, run)
}

// again reads a run's input as it is now, with more settings, and what the run depends on in it.
func (a *app) again(run *rundir.Run, sets []string) (*session, map[string]string, error) {
	h := run.Header()
	text, err := run.Script()
	if err != nil {
		return nil, nil, err
	}
	session, err := a.prepare(setup{src: source{name: h.Script, text: text, dir: h.ScriptDir}, sets: slices.Concat(h.Settings, sets), seed: &h.Seed})
	if err != nil {
		return nil, nil, err
	}
	pins, err := session.pins()
	return session, pins, err
}

// otherKernel adds to an error of Pin what can be done where the instruction set is another one.
func otherKernel(run *rundir.Run, pins map[string]string, err error) error {
	began, _ := run.Pins()
	if k := began.Values["kernel"]; k != "" && k != pins["kernel"] {
		return sdk.Errorf(sdk.CodeOf(err), "%w", err).WithHint("results are exact per instruction set: DNO_KERNEL=%s dno resume %s, if this machine has it; or add --allow-change kernel", k, run.Dir())
	}
	return err
}

// session is a run's input, read and checked.
type session struct {
	script  *script.Script
	policy  *policy
	sampler *policy // the same, with the weights of sampling
	prompts promptSets
	dir     string // the script's folder
}

func (a *app) prepare(s setup) (*session, error) {
	loaded, err := s.src.load(s.sets, s.seed, func(line string) { a.log.Info(line) })
	if err != nil {
		return nil, err
	}
	e := loaded.Experiment()
	prompts, err := readPrompts([3]string{e.Files.Train, e.Files.Validation, e.Files.Test}, s.src.dir)
	if err != nil {
		return nil, err
	}
	engine, err := loadWhole(e.Model, s.src.dir)
	if err != nil {
		return nil, err
	}
	if err := setPrecision(engine, e.Precision); err != nil {
		return nil, err
	}
	if err := addAdapter(engine, e, s.src.dir); err != nil {
		return nil, err
	}
	w, err := parseWeights(e.SamplingWeights)
	if err != nil {
		return nil, err
	}
	return &session{script: loaded, policy: &policy{engine: engine}, sampler: &policy{engine, w}, prompts: prompts, dir: s.src.dir}, nil
}

// pins are what the run depends on, but for its plugins, which are not open yet.
func (s *session) pins() (map[string]string, error) {
	pins := map[string]string{
		"kernel": s.kernel(), "script": s.script.Hash(), "model": s.policy.Fingerprint(),
	}
	if v := versionString(); v != unknownVersion { // which says nothing of the code
		pins["version"] = v
	}
	for set, sum := range s.prompts.hashes {
		pins["data."+set] = sum
	}
	text, err := json.Marshal(s.script.Experiment())
	if err != nil {
		return nil, err
	}
	var settings map[string]any
	decode := json.NewDecoder(bytes.NewReader(text))
	decode.UseNumber() // a seed has more digits than a float
	if err := decode.Decode(&settings); err != nil {
		return nil, err
	}
	plan, _ := settings["plan"].(map[string]any) // its keys are the script's own
	delete(settings, "plan")
	delete(settings, "budget") // what may be spent decides when a run stops, not what comes of it
	flatten(pins, "settings", plan)
	flatten(pins, "settings", settings)
	return pins, nil
}

// kernel names the first level of the same bytes, of training and of sampling. (Products of int8 are the same at all
// levels that another precision tells apart.)
func (s *session) kernel() string {
	if s.sampler.weights == generate.BFloat16Weights {
		return kernel.BFloat16.Level()
	}
	return s.policy.engine.Level()
}

// flatten adds a value's leaves, each as JSON, under dotted names.
func flatten(pins map[string]string, name string, v any) {
	if m, ok := v.(map[string]any); ok {
		for key, v := range m {
			flatten(pins, name+"."+key, v)
		}
		return
	}
	text, _ := json.Marshal(v) // it was decoded from JSON
	pins[name] = string(text)
}

func (a *app) execute(ctx context.Context, s *session, run *rundir.Run) error {
	h, err := a.newHost(s.dir, filepath.Join(run.Dir(), "inputs"))
	if err != nil {
		return err
	}
	defer h.Close()
	a.writing = run.Dir()
	defer context.AfterFunc(ctx, func() {
		a.log.Info("stopping as soon as what was begun is kept; a second signal does not wait for that")
	})()
	a.log.Info("run", telemetry.Run.Of(run.Dir()))
	if err := a.loop(s, run, opener{host: h, from: s.dir}).Execute(ctx); err != nil {
		return err
	}
	return a.report(run)
}

// loop wires a run.
func (a *app) loop(s *session, run *rundir.Run, plugins loop.Plugins) *loop.Loop {
	return &loop.Loop{
		Experiment: s.script.Experiment(), Script: s.script, Policy: s.policy, Draws: s.sampler, Run: run,
		Reuse: run.Header().Reuse, Plugins: plugins,
		Train: s.prompts.train, Validation: s.prompts.validation, Test: s.prompts.test,
		Progress: telemetry.NewProgress(a.log),
		Log:      func(format string, args ...any) { a.log.Info(fmt.Sprintf(format, args...)) },
	}
}

// nextRunDir is runs/<script>-<n> with the first n that is free.
func nextRunDir(script string) string {
	name := strings.TrimSuffix(script, ".lua")
	for n := 1; ; n++ {
		dir := filepath.Join(runsDir, fmt.Sprintf("%s-%d", name, n))
		if !rundir.Exists(dir) {
			return dir
		}
	}
}
