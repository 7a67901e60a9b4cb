package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/core/host"
	"github.com/dno-project/dno/core/report"
	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/sdktest"
	"github.com/spf13/cobra"
)

// pluginCheck is what `dno plugin check` was asked.
type pluginCheck struct {
	target      string
	kind        string
	exec        bool
	sets, env   []string
	cases, only string
	timeout     float64
}

func (a *app) pluginCheckCommand() *cobra.Command {
	var in pluginCheck
	c := &cobra.Command{
		Use:   "check PATH",
		Short: "Check that a plugin keeps the contract, and say what it does wrong",
		Long: `Run a plugin's program and ask it the questions of the conformance kit, as an author does before each release.
PATH is an executable named dno-<kind>-<name>, or any other with --kind; or KIND/NAME of a bundled plugin. The
program is run whether or not it is pinned in dno.lock.

With --exec it is a program that speaks JSON lines, as the oracle "command" asks it.
With --cases a loss is compared with values of another implementation: losses.json, with inputs.json beside it.

It ends with 0 if all is well, with 4 if the plugin is at fault.`,
		Example: `  dno plugin check plugins/dno-loss-mine --set beta=0.5
  dno plugin check ./judge.sh --exec
  dno plugin check loss/dpo --cases golden/losses --case sigmoid`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			in.target = args[0]
			return a.pluginCheck(c.Context(), in)
		},
	}
	f := c.Flags()
	f.StringVar(&in.kind, "kind", "", "oracle, loss or sampler, for an executable of another name")
	f.BoolVar(&in.exec, "exec", false, `the program answers JSON lines, as for the oracle "command"`)
	f.StringArrayVar(&in.sets, "set", nil, "a setting: key=value, the value being JSON or a text; may be repeated")
	f.StringArrayVar(&in.env, "env", nil, "name of an environment variable that the plugin may see; may be repeated")
	f.StringVar(&in.cases, "cases", "", "compare a loss with the values in this losses.json, or in its folder")
	f.StringVar(&in.only, "case", "", "name of the loss in the cases, where it is not the plugin's")
	f.Float64Var(&in.timeout, "timeout", 60, "seconds that a call may take")
	return c
}

// checked is the object that `dno plugin check --json` prints.
type checked struct {
	Plugin  string        `json:"plugin"` // kind/name, as the manifest says
	Version string        `json:"version"`
	Path    string        `json:"path"`   // of the program; "" for a bundled plugin
	SHA256  string        `json:"sha256"` // its checksum
	OK      bool          `json:"ok"`
	Checks  []checkResult `json:"checks"`
}

func (a *app) pluginCheck(ctx context.Context, in pluginCheck) error {
	cases, err := in.readCases()
	if err != nil {
		return err
	}
	spec, path, err := in.spec()
	if err != nil {
		return err
	}
	if cases != nil && spec.Kind != sdk.KindLoss {
		return sdk.Errorf(sdk.CodeUsage, "--cases: only a loss has cases, not the %s %s", spec.Kind, in.target)
	}
	sum := ""
	if path != "" {
		if sum, err = fsx.SumFile(path); err != nil {
			return sdk.Errorf(sdk.CodeUsage, "check %s: %w", in.target, err)
		}
		a.log.Info("running " + in.target)
	}
	files, err := os.MkdirTemp("", "dno-")
	if err != nil {
		return sdk.Errorf(sdk.CodeIO, "%w", err)
	}
	defer os.RemoveAll(files)
	h, err := a.hostWith(host.Only(sum), ".", files)
	if err != nil {
		return err
	}
	defer h.Close()
	defer context.AfterFunc(ctx, h.Close)() // the kit's calls do not know of ctx
	r := newReporter(ctx, a, spec.Timeout)
	running, err := runKit(ctx, h, spec, in, cases, r)
	if m := executableName.FindStringSubmatch(filepath.Base(path)); err == nil && m != nil && in.kind == "" {
		r.Run("name", func(r *reporter) {
			if m[2] != running.Name {
				r.Errorf("the executable is named %q and calls itself %q: the two must be the same", m[2], running.Name)
			}
		})
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	out := checked{Plugin: string(running.Kind) + "/" + running.Name, Version: a.log.Secrets().Clean(running.Version), Path: path, SHA256: sum, Checks: *r.results}
	what, failed, ran := report.Clean(out.Plugin+" "+out.Version), 0, 0
	if in.exec {
		what = in.target + `, through the oracle "command",`
	}
	for _, c := range out.Checks {
		if !c.OK {
			failed++
		}
		if !c.NotRun {
			ran++
		}
	}
	out.OK = failed == 0
	if a.json {
		if err := a.printJSON(out); err != nil {
			return err
		}
	} else if out.OK {
		fmt.Fprintf(a.stdout, "%s keeps the contract: %d checks\n", what, ran)
	}
	if failed > 0 {
		return sdk.Errorf(sdk.CodePlugin, "%s fails %d of %d checks", what, failed, ran)
	}
	return nil
}

// spec says what is to be started, and the path of the program that is checked, "" for a bundled plugin.
func (in pluginCheck) spec() (spec host.Spec, path string, err error) {
	settings, err := parseSettings(in.sets)
	if err != nil {
		return spec, "", err
	}
	if !(in.timeout > 0 && in.timeout < 1e6) {
		return spec, "", sdk.Errorf(sdk.CodeUsage, "--timeout %v: want seconds, above 0", in.timeout)
	}
	spec = host.Spec{Kind: sdk.Kind(in.kind), Settings: settings, Env: in.env, Timeout: time.Duration(in.timeout * float64(time.Second))}
	kind, name, _ := strings.Cut(in.target, "/")
	executable := executableName.FindStringSubmatch(filepath.Base(in.target))
	switch {
	case in.exec && in.kind != "" && spec.Kind != sdk.KindOracle:
		return spec, "", sdk.Errorf(sdk.CodeUsage, "check %s: a program that speaks JSON lines can be an oracle only, not a %s", in.target, in.kind)
	case in.exec:
		spec.Kind, spec.Name = sdk.KindOracle, "command"
		spec.Settings["path"] = locate(in.target, ".")
		return spec, locate(in.target, "."), nil
	case in.kind == "" && isBundled(sdk.Kind(kind), name):
		spec.Kind, spec.Name = sdk.Kind(kind), name
		return spec, "", nil
	case in.kind != "" && !slices.Contains(kinds, spec.Kind):
		return spec, "", sdk.Errorf(sdk.CodeUsage, "--kind %s: want oracle, loss or sampler", in.kind)
	case in.kind == "" && executable == nil && slices.Contains(kinds, sdk.Kind(kind)) && sdk.IsName(name):
		names := bundledNames(sdk.Kind(kind))
		e := sdk.Errorf(sdk.CodeUsage, "check %s: there is no bundled %s %q; there are %s", in.target, kind, name, strings.Join(names, ", "))
		if near := sdk.Nearest(name, names); near != "" {
			return spec, "", e.WithHint("did you mean %s/%s?", kind, near)
		}
		return spec, "", e
	case in.kind == "" && executable == nil:
		return spec, "", sdk.Errorf(sdk.CodeUsage, "check %s: of which kind is it? a plugin's executable is named dno-<kind>-<name>", in.target).
			WithHint("--kind says it; --exec checks a program that speaks JSON lines; a bundled plugin is KIND/NAME, as loss/dpo")
	case in.kind == "":
		spec.Kind = sdk.Kind(executable[1])
	}
	spec.Name = locate(in.target, ".")
	return spec, spec.Name, nil
}

// parseSettings reads key=value, the value being JSON or, where it is none, a text.
func parseSettings(sets []string) (sdk.Settings, error) {
	out := sdk.Settings{}
	for _, set := range sets {
		key, text, ok := strings.Cut(set, "=")
		if !ok || !sdk.IsName(key) {
			return nil, sdk.Errorf(sdk.CodeUsage, "--set %s: want key=value", set).WithHint("for example --set beta=0.05")
		}
		var value any
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			value = text
		}
		out[key] = value
	}
	return out, nil
}

// runKit starts the plugin and asks it everything.
func runKit(ctx context.Context, h *host.Host, spec host.Spec, in pluginCheck, cases *sdktest.Cases, r *reporter) (host.Running, error) {
	switch spec.Kind {
	case sdk.KindOracle:
		p, running, err := h.Oracle(ctx, spec)
		if err == nil {
			sdktest.ServedOracle(r, served[sdk.Oracle](h, p))
		}
		return running, err
	case sdk.KindSampler:
		p, running, err := h.Sampler(ctx, spec)
		if err == nil {
			sdktest.ServedSampler(r, served[sdk.Sampler](h, p))
		}
		return running, err
	default:
		p, running, err := h.Loss(ctx, spec)
		if err != nil {
			return running, err
		}
		var chosen []sdktest.Case
		if cases != nil {
			if chosen, err = in.choose(cases, running.Name); err != nil {
				return running, err
			}
		}
		sdktest.ServedLoss(r, served[sdk.Loss](h, p))
		return running, runCases(ctx, cases, chosen, p, spec.Settings, r)
	}
}

// served hands the one plugin out. The host starts a swept one anew at its next call.
func served[P sdk.Plugin](h *host.Host, p P) sdktest.Served[P] {
	return sdktest.Served[P]{
		Any: func(sdktest.TB) P { return p },
		Fresh: func(sdktest.TB) P {
			h.Sweep() // forgets that it was asked for
			h.Sweep()
			return p
		},
	}
}

func (in pluginCheck) readCases() (*sdktest.Cases, error) {
	if in.cases == "" {
		if in.only != "" {
			return nil, sdk.Errorf(sdk.CodeUsage, "--case %s: of which file? give --cases FILE too", in.only)
		}
		return nil, nil
	}
	cases, err := sdktest.ReadCases(in.cases)
	if err != nil {
		return nil, sdk.Errorf(sdk.CodeUsage, "--cases %s: %w", in.cases, err)
	}
	return cases, nil
}

// choose returns the cases of one loss.
func (in pluginCheck) choose(cases *sdktest.Cases, name string) ([]sdktest.Case, error) {
	if in.only != "" {
		name = in.only
	}
	var out []sdktest.Case
	var names []string
	for _, c := range cases.All {
		names = append(names, c.Loss)
		if c.Loss == name {
			out = append(out, c)
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	slices.Sort(names)
	return nil, sdk.Errorf(sdk.CodeUsage, "--cases %s: there is no case of a loss %q; there are %s", in.cases, name, strings.Join(slices.Compact(names), ", ")).
		WithHint("--case NAME takes another one's")
}

// neutral are values at which a parameter of a case changes nothing: a loss without such a setting can
// still be compared.
var neutral = map[string]float64{
	"label_smoothing": 0, "alpha": 0, "cpo_alpha": 0, "gamma": 0, "desirable_weight": 1, "undesirable_weight": 1,
}

func runCases(ctx context.Context, cases *sdktest.Cases, chosen []sdktest.Case, l sdk.Loss, given sdk.Settings, r *reporter) error {
	declared := map[string]bool{}
	for _, s := range l.Manifest().Settings {
		declared[s.Name] = true
	}
	ran := 0
	for _, c := range chosen {
		r.Run("case "+c.String(), func(r *reporter) {
			settings := maps.Clone(given)
			for _, name := range slices.Sorted(maps.Keys(c.Params)) {
				value := c.Params[name]
				if declared[name] {
					settings[name] = value
				} else if rest, ok := neutral[name]; !ok || rest != value {
					r.Skipf("NOT RUN: the loss has no setting %q, which is %v in this case", name, value)
				}
			}
			if err := l.Configure(ctx, settings); err != nil {
				r.Fatalf("configure: %v", err)
			}
			cases.Check(r, c, l)
			ran++
		})
	}
	if len(chosen) > 0 && ran == 0 && !r.anyFailed() {
		return sdk.Errorf(sdk.CodeUsage, "none of the %d cases of %q could be run", len(chosen), chosen[0].Loss)
	}
	return nil
}
