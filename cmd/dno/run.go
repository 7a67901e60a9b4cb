package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/core/script"
	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

func (a *app) runCommand() *cobra.Command {
	var dir string
	var seed uint64
	var sets []string
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
			s := setup{src: src, sets: sets, dir: dir}
			if c.Flags().Changed("seed") {
				s.seed = &seed
			}
			return a.start(c.Context(), s)
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "run directory (default: runs/<script>-<n>)")
	c.Flags().Uint64Var(&seed, "seed", 0, "the run's seed (default: the script's)")
	c.Flags().StringArrayVar(&sets, "set", nil, "override a setting: key=value; may be repeated")
	return c
}

func (a *app) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "resume [DIR]",
		Short:   "Go on with an unfinished run (default: the latest)",
		Long:    "Go on with an unfinished run at its first missing record. What is on disk is not done again.",
		Example: "  dno resume\n  dno resume runs/dno-1",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				dir, err := latestRun()
				if err != nil {
					return err
				}
				args = []string{dir}
			}
			return a.resume(c.Context(), args[0])
		},
	}
}

// setup is what a new run is made of.
type setup struct {
	src  source
	sets []string
	seed *uint64
	dir  string
}

// start makes the run directory and executes the run. All that can be wrong with the input is found
// before the directory is made.
func (a *app) start(ctx context.Context, s setup) error {
	if err := checkKernel(); err != nil {
		return err
	}
	session, err := a.prepare(s)
	if err != nil {
		return err
	}
	if err := a.try(ctx, session); err != nil {
		return err
	}
	dir := s.dir
	if dir == "" {
		dir = nextRunDir(s.src.name)
	}
	scriptDir, err := filepath.Abs(s.src.dir)
	if err != nil {
		return err
	}
	e := session.script.Experiment()
	session.prompts.hashes["script"] = session.script.Hash()
	run, err := rundir.Create(dir, rundir.Header{
		Version: versionString(), Script: s.src.name, ScriptDir: scriptDir,
		Files: map[string]string{"train": e.Files.Train, "validation": e.Files.Validation, "test": e.Files.Test},
		Seed:  e.Seed, Settings: s.sets, Model: e.Model, Fingerprint: session.policy.Fingerprint(),
		Kernel: kernel.Level(), Hashes: session.prompts.hashes, Iterations: e.Iterations,
		Started: time.Now().Format(time.RFC3339),
	}, s.src.text)
	if err != nil {
		return err
	}
	defer run.Close()
	return a.execute(ctx, session, run)
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
func (a *app) resume(ctx context.Context, dir string) error {
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
	h := run.Header()
	text, err := run.Script()
	if err != nil {
		return err
	}
	session, err := a.prepare(setup{src: source{name: h.Script, text: text, dir: h.ScriptDir}, sets: h.Settings, seed: &h.Seed})
	if err != nil {
		return err
	}
	if err := session.same(h); err != nil {
		return err
	}
	return a.execute(ctx, session, run)
}

// session is a run's input, read and checked.
type session struct {
	script  *script.Script
	policy  *policy
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
	engine, err := loadModel(e.Model, s.src.dir)
	if err != nil {
		return nil, err
	}
	return &session{script: loaded, policy: &policy{engine}, prompts: prompts, dir: s.src.dir}, nil
}

// same refuses to go on with other input than the run began with.
func (s *session) same(h rundir.Header) error {
	s.prompts.hashes["script"] = s.script.Hash()
	for _, what := range []string{"script", "train", "validation", "test"} {
		if s.prompts.hashes[what] != h.Hashes[what] {
			return sdk.Errorf(sdk.CodeUsage, "resume the run: its %s has changed since it began", what).WithHint("put the old file back, or start a new run")
		}
	}
	if s.policy.Fingerprint() != h.Fingerprint {
		return sdk.Errorf(sdk.CodeUsage, "resume the run: model %q has changed since it began", h.Model).WithHint("put the old model back, or start a new run")
	}
	if k := kernel.Level(); k != h.Kernel {
		return sdk.Errorf(sdk.CodeUsage, "resume the run: it began with the kernels of %q, this machine uses %q, and results are exact per instruction set only", h.Kernel, k).
			WithHint("set DNO_KERNEL=%s if this machine has it, or start a new run", h.Kernel)
	}
	return nil
}

func (a *app) execute(ctx context.Context, s *session, run *rundir.Run) error {
	h, err := a.newHost(s.dir, filepath.Join(run.Dir(), "inputs"))
	if err != nil {
		return err
	}
	defer h.Close()
	a.writing = run.Dir()
	a.log.Info("run", telemetry.Run.Of(run.Dir()))
	l := &loop.Loop{
		Experiment: s.script.Experiment(), Script: s.script, Policy: s.policy, Run: run,
		Plugins: opener{host: h, from: s.dir},
		Train:   s.prompts.train, Validation: s.prompts.validation, Test: s.prompts.test,
		Progress: telemetry.NewProgress(a.log),
		Log:      func(format string, args ...any) { a.log.Info(fmt.Sprintf(format, args...)) },
	}
	if err := l.Execute(ctx); err != nil {
		return err
	}
	return a.report(run)
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
