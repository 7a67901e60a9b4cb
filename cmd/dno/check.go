package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/dno-project/dno/core/engine"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/host"
	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/plugins"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version, the system and the kernels in use",
		Example: "  dno version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := checkKernel(); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]string{
					"version": versionString(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH, "kernel": kernel.Level(),
				})
			}
			fmt.Fprintf(a.stdout, "dno %s %s %s/%s kernels %s\n", versionString(), runtime.Version(), runtime.GOOS, runtime.GOARCH, kernel.Level())
			return nil
		},
	}
}

func (a *app) scriptCommand() *cobra.Command {
	var sets []string
	check := &cobra.Command{
		Use:     "check [SCRIPT]",
		Short:   "Check a script, its prompts and its plugins, without training",
		Example: "  dno script check my.lua\n  dno script check my.lua --set loss.beta=0.1",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			src, err := readScript(args)
			if err != nil {
				return err
			}
			s, plans, err := a.dryRun(c.Context(), setup{src: src, sets: sets})
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]any{"script": src.name, "experiment": s.script.Experiment(), "plans": plans})
			}
			fmt.Fprintf(a.stdout, "%s: good for %d iterations on %d training, %d validation and %d test prompts\n",
				src.name, len(plans), len(s.prompts.train), len(s.prompts.validation), len(s.prompts.test))
			return nil
		},
	}
	check.Flags().StringArrayVar(&sets, "set", nil, "override a setting: key=value; may be repeated")
	c := group(&cobra.Command{Use: "script", Short: "Check scripts", Example: "  dno script check my.lua"})
	c.AddCommand(check)
	return c
}

// dryRun prepares a run and asks the schedule for every plan, on a history that stands still, then
// opens and configures each plugin that a plan names. Nothing is sampled or trained.
func (a *app) dryRun(ctx context.Context, in setup) (*session, []loop.Plan, error) {
	s, err := a.prepare(in)
	if err != nil {
		return nil, nil, err
	}
	e := s.script.Experiment()
	history := []rundir.IterationRecord{still(0)}
	var plans []loop.Plan
	for t := 1; t <= e.Iterations; t++ {
		plan, err := s.script.Plan(ctx, t, history)
		if err != nil {
			return nil, nil, err
		}
		if plan == nil {
			break
		}
		plans = append(plans, *plan)
		history = append(history, still(t))
	}
	return s, plans, a.checkPlans(ctx, s, plans)
}

// checkPlans opens what the plans name, on a host of its own.
func (a *app) checkPlans(ctx context.Context, s *session, plans []loop.Plan) error {
	h, done, err := a.scratchHost(s.dir)
	if err != nil {
		return err
	}
	defer done()
	l := &loop.Loop{Experiment: s.script.Experiment(), Train: s.prompts.train, Plugins: opener{host: h, from: s.dir}}
	return l.Check(ctx, plans)
}

// still is the record of an iteration in a history that does not move: every figure is there, for a
// schedule that reads it.
func still(t int) rundir.IterationRecord {
	zero, half, one := 0.0, 0.5, 1.0
	rate := &rundir.Estimate{Mean: half, Low: &zero, High: &one, N: 1}
	kl := &rundir.Estimate{Low: &zero, High: &zero, N: 1}
	f := rundir.Figures{Accuracy: rate, AccuracySampled: rate}
	if t > 0 {
		f.WinRate, f.WinRateParent, f.KLParent, f.KLInitial = rate, rate, kl, kl
	}
	return rundir.IterationRecord{Iteration: t, Evaluation: rundir.Evaluation{Validation: f}}
}

// scratchHost is a host for a command without a run directory; done stops it.
func (a *app) scratchHost(scriptDir string) (h *host.Host, done func(), err error) {
	files, err := os.MkdirTemp("", "dno-")
	if err != nil {
		return nil, nil, sdk.Errorf(sdk.CodeIO, "%w", err)
	}
	if h, err = a.newHost(scriptDir, files); err != nil {
		os.RemoveAll(files)
		return nil, nil, err
	}
	return h, func() {
		h.Close()
		os.RemoveAll(files)
	}, nil
}

// check is one line of `dno doctor`, and one entry of checks with --json.
type check struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "doctor",
		Short:   "Check what dno needs on this machine",
		Example: "  dno doctor\n  dno doctor --json",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			checks := a.diagnose(c.Context())
			failed := 0
			for _, ch := range checks {
				if !ch.OK {
					failed++
				}
			}
			if a.json {
				if err := a.printJSON(map[string]any{"checks": checks}); err != nil {
					return err
				}
			} else {
				for _, ch := range checks {
					mark := "ok  "
					if !ch.OK {
						mark = "FAIL"
					}
					fmt.Fprintf(a.stdout, "%s  %-18s %s\n", mark, ch.What, ch.Detail)
				}
			}
			if failed > 0 {
				return sdk.Errorf(sdk.CodeInternal, "%d of %d checks failed", failed, len(checks))
			}
			return nil
		},
	}
}

func (a *app) diagnose(ctx context.Context) []check {
	out := []check{
		{"dno", true, versionString() + ", " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH},
		{"cores", true, fmt.Sprintf("%d, GOMAXPROCS %d", runtime.NumCPU(), runtime.GOMAXPROCS(0))},
	}
	if err := checkKernel(); err != nil {
		out = append(out, check{"kernels", false, err.Error()})
	} else {
		out = append(out, check{"kernels", true, fmt.Sprintf("%s, of %v", kernel.Level(), kernel.Levels())})
	}
	if e, err := loadModel(embeddedModel, "."); err != nil {
		out = append(out, check{"embedded model", false, err.Error()})
	} else {
		out = append(out, check{"embedded model", true, fmt.Sprintf("%d parameters", parameters(e))})
	}
	out = append(out, a.diagnosePlugins(ctx)...)
	python := check{"python3", true, "not found; needed by oracles written in Python only"}
	if path, err := exec.LookPath("python3"); err == nil {
		python.Detail = path
	}
	return append(out, python)
}

// diagnosePlugins starts every bundled plugin once.
func (a *app) diagnosePlugins(ctx context.Context) []check {
	h, done, err := a.scratchHost(".")
	if err != nil {
		return []check{{"plugins", false, err.Error()}}
	}
	defer done()
	o := opener{host: h, from: "."}
	var out []check
	for _, e := range plugins.List() {
		name, start := string(e.Kind)+"/"+e.Name, time.Now()
		var err error
		p := loop.Plugin{Name: e.Name, Settings: placeholder(e.New().Manifest())}
		switch e.Kind {
		case sdk.KindOracle:
			_, _, err = o.Oracle(ctx, p)
		case sdk.KindLoss:
			_, _, err = o.Loss(ctx, p)
		case sdk.KindSampler:
			_, _, err = o.Sampler(ctx, p)
		}
		c := check{name, err == nil, fmt.Sprintf("started in %d ms", time.Since(start).Milliseconds())}
		if err != nil {
			c.Detail = err.Error()
		}
		out = append(out, c)
	}
	return out
}

// placeholder gives each required path a file that exists, and each required text an URL that nobody asks.
func placeholder(m sdk.Manifest) sdk.Settings {
	s := sdk.Settings{}
	for _, setting := range m.Settings {
		switch {
		case setting.Required && setting.Type == sdk.TypePath:
			s[setting.Name] = embeddedModel + "/teacher.jsonl"
		case setting.Required && setting.Type == sdk.TypeString:
			s[setting.Name] = "https://localhost/"
		}
	}
	return s
}

func parameters(e *engine.Engine) (n int) {
	for _, p := range e.Model().Params().All {
		n += len(p.W)
	}
	return n
}
