package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

func (a *app) replayCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "replay [DIR]",
		Short: "Make a run again from its records, and compare",
		Long: `Make a run (default: the latest) again, and compare every record and checkpoint with what it left. No oracle is
asked and no teacher: their answers come from the run's records. What the policy does is computed anew, so this
shows that the run's results follow from its input. It exits with 10 at the first difference.`,
		Example: "  dno replay runs/dno-1\n  dno replay runs/dno-1 --out again",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			run, err := openRead(args)
			if err != nil {
				return err
			}
			return a.replay(c.Context(), run, out)
		},
	}
	c.Flags().StringVar(&out, "out", "", "keep the new run in this directory (default: it is removed)")
	return c
}

func (a *app) replay(ctx context.Context, run *rundir.Run, out string) error {
	if err := checkKernel(); err != nil {
		return err
	}
	session, pins, err := a.again(run, nil)
	if err != nil {
		return err
	}
	began, err := run.Pins()
	if err != nil {
		return err
	}
	if _, differ := began.Differ(pins); len(differ) > 0 {
		return sdk.Errorf(sdk.CodeUsage, "replay %s: what it depends on has changed: %s", run.Dir(), strings.Join(differ, "; ")).
			WithHint("a run can be replayed only with what it was made of")
	}
	done, err := run.Iterations()
	if err != nil {
		return err
	}
	if len(done) == 0 {
		return sdk.Errorf(sdk.CodeUsage, "replay %s: it has no finished iteration", run.Dir()).WithHint("go on with it: dno resume %s", run.Dir())
	}
	if out == "" {
		tmp, err := os.MkdirTemp("", "dno-replay-")
		if err != nil {
			return sdk.Errorf(sdk.CodeIO, "%w", err)
		}
		defer func() { _ = os.RemoveAll(tmp) }()
		out = filepath.Join(tmp, "run")
	}
	fresh, err := rundir.Copy(run, out)
	if err != nil {
		return err
	}
	defer fresh.Close()
	h, err := a.newHost(session.dir, filepath.Join(out, "inputs"))
	if err != nil {
		return err
	}
	defer h.Close()
	plugins, err := loop.Recorded(run, opener{host: h, from: session.dir}, session.script.Experiment().Seed)
	if err != nil {
		return err
	}
	l := a.loop(session, fresh, plugins)
	l.Script, l.Experiment.Budget = until{l.Script, len(done)}, loop.Budget{} // nothing is asked, and time is not the run's
	if err := l.Execute(ctx); err != nil {
		return fmt.Errorf("replay %s: %w", run.Dir(), err)
	}
	compared, err := compareRuns(run, fresh, len(done))
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"dir": run.Dir(), "iterations": len(done) - 1, "files": compared, "same": true})
	}
	fmt.Fprintf(a.stdout, "%s: %d iterations made again, %d files the same to the byte\n", run.Dir(), len(done)-1, compared)
	return nil
}

// until is a script that ends a run before an iteration.
type until struct {
	loop.Script
	end int
}

func (u until) Plan(ctx context.Context, t int, history []rundir.IterationRecord) (*loop.Plan, error) {
	if t >= u.end {
		return nil, nil
	}
	return u.Script.Plan(ctx, t, history)
}

// compareRuns compares all files of the finished iterations, and what each iteration's record says but for wall time.
func compareRuns(run, fresh *rundir.Run, iterations int) (compared int, err error) {
	differs := func(path, how string) error {
		return sdk.Errorf(sdk.CodeCorrupt, "replay %s: %s %s", run.Dir(), path, how).
			WithHint("it was changed, or made by other means than its run.lock says")
	}
	for t := range iterations {
		was, err := run.Iteration(t)
		if err != nil {
			return compared, err
		}
		is, err := fresh.Iteration(t)
		if err != nil {
			return compared, err
		}
		names, err := is.Files()
		if err != nil {
			return compared, err
		}
		for _, name := range names {
			want, err := os.ReadFile(was.Path(name))
			if err != nil {
				return compared, differs(was.Path(name), "is missing")
			}
			have, err := os.ReadFile(is.Path(name))
			if err != nil {
				return compared, sdk.Errorf(sdk.CodeIO, "%w", err)
			}
			if !bytes.Equal(want, have) {
				return compared, differs(was.Path(name), fmt.Sprintf("differs in line %d", differingLine(want, have)))
			}
			compared++
		}
	}
	before, err := run.Iterations()
	if err != nil {
		return compared, err
	}
	after, err := fresh.Iterations()
	if err != nil {
		return compared, err
	}
	for t := range iterations {
		before[t].Seconds, after[t].Seconds = nil, nil
		want, _ := rundir.Line(before[t])
		have, _ := rundir.Line(after[t])
		if !bytes.Equal(want, have) {
			return compared, differs("the record of iteration "+fmt.Sprint(t), "is another one")
		}
	}
	return compared, nil
}

func differingLine(a, b []byte) int {
	la, lb := bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))
	n := 0
	for n < min(len(la), len(lb)) && bytes.Equal(la[n], lb[n]) {
		n++
	}
	return n + 1
}
