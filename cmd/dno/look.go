package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dno-project/dno/core/report"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

// The commands of this file only read a run directory; they never wait for a running writer.

// runsDir is where runs go that are not told otherwise.
const runsDir = "runs"

// latestRun is the run directory in runs/ that was started last.
func latestRun() (string, error) {
	found, _ := filepath.Glob(filepath.Join(runsDir, "*", "run.json"))
	best, at := "", time.Time{}
	for _, path := range found {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(at) {
			best, at = filepath.Dir(path), info.ModTime()
		}
	}
	if best == "" {
		return "", sdk.Errorf(sdk.CodeUsage, "look for the latest run: there is none in %s/", runsDir).
			WithHint("start one with: dno run; or name its directory")
	}
	return best, nil
}

// runOf is the run directory that the arguments name, or the latest.
func runOf(args []string) (string, error) {
	if len(args) == 0 {
		return latestRun()
	}
	return args[0], nil
}

// openRead opens the run that the arguments name, or the latest.
func openRead(args []string) (*rundir.Run, error) {
	dir, err := runOf(args)
	if err != nil {
		return nil, err
	}
	return rundir.Read(dir)
}

func (a *app) reportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "report [DIR]",
		Short: "Show what came out of a run",
		Long: `Show, for each iteration of a run (default: the latest): accuracy, cross-play win rates with 95 %
intervals, length, KL, pairs, wall time, and mistakes that are now corrected.`,
		Example: "  dno report runs/dno-1\n  dno report --json runs/dno-1",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			run, err := openRead(args)
			if err != nil {
				return err
			}
			return a.report(run)
		},
	}
}

// report prints the run's report. Where the test prompts cannot be read any more, it leaves out the
// corrected mistakes.
func (a *app) report(run *rundir.Run) error {
	prompts, err := testPrompts(run)
	if err != nil {
		fmt.Fprintf(a.stderr, "dno: without the corrected mistakes: %v\n", err)
	}
	r, err := report.Build(run, prompts)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	return report.Write(a.stdout, r)
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status [DIR]",
		Short:   "Show how far a run is",
		Example: "  dno status\n  dno status --json runs/dno-1",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			run, err := openRead(args)
			if err != nil {
				return err
			}
			s, err := readStatus(run)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(s)
			}
			fmt.Fprintf(a.stdout, "%s: %s\n", s.Dir, s.State)
			fmt.Fprintf(a.stdout, "%d of %d iterations are done\n", s.Done, s.Iterations)
			if s.State == "unfinished" {
				fmt.Fprintf(a.stdout, "iteration %d: %d prompts sampled, %d judged\n", s.Done+1, s.Sampled, s.Judged)
				fmt.Fprintf(a.stdout, "if nobody is writing to it, go on with: dno resume %s\n", s.Dir)
			}
			return nil
		},
	}
}

// status is what `dno status --json` prints.
type status struct {
	Dir        string `json:"dir"`
	State      string `json:"state"` // "unfinished", or "finished: reason"
	Iterations int    `json:"iterations"`
	Done       int    `json:"done"`
	Sampled    int    `json:"sampled"` // prompts of the iteration in progress
	Judged     int    `json:"judged"`
}

func readStatus(run *rundir.Run) (status, error) {
	s := status{Dir: run.Dir(), State: "unfinished", Iterations: run.Header().Iterations}
	reason, err := run.Concluded()
	if err != nil {
		return s, err
	}
	if reason != "" {
		s.State = "finished: " + reason
	}
	done, err := run.Iterations()
	if err != nil {
		return s, err
	}
	s.Done = max(0, len(done)-1)
	it, err := run.Iteration(s.Done + 1)
	if err != nil {
		return s, err
	}
	groups, err := rundir.ReadLog[rundir.GroupRecord](it.Path(rundir.CompletionsFile))
	if err != nil {
		return s, err
	}
	verdicts, err := rundir.ReadLog[rundir.VerdictsRecord](it.Path(rundir.VerdictsFile))
	s.Sampled, s.Judged = len(groups), len(verdicts)
	return s, err
}

func (a *app) samplesCommand() *cobra.Command {
	var n, iteration int
	var changed bool
	c := &cobra.Command{
		Use:     "samples [DIR]",
		Short:   "Read completions of test prompts, before and after training",
		Example: "  dno samples -n 5\n  dno samples runs/dno-1 --iteration 2 --changed",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			run, err := openRead(args)
			if err != nil {
				return err
			}
			return a.samples(run, iteration, n, changed)
		},
	}
	c.Flags().IntVarP(&n, "number", "n", 10, "how many prompts")
	c.Flags().IntVar(&iteration, "iteration", 0, "the policy after this iteration (default: the last)")
	c.Flags().BoolVar(&changed, "changed", false, "only prompts whose completions differ")
	return c
}

// sample is one entry of samples in `dno samples --json`.
type sample struct {
	Prompt string `json:"prompt"`
	Answer string `json:"answer"`
	Before string `json:"before"`
	After  string `json:"after"`
}

func (a *app) samples(run *rundir.Run, iteration, n int, changed bool) error {
	done, err := run.Iterations()
	if err != nil {
		return err
	}
	last := len(done) - 1
	if iteration == 0 {
		iteration = last
	}
	if last < 1 {
		return sdk.Errorf(sdk.CodeUsage, "read samples: the run has finished no iteration yet")
	}
	if iteration < 1 || iteration > last {
		return sdk.Errorf(sdk.CodeUsage, "read samples of iteration %d: the run has finished %d", iteration, last)
	}
	prompts, err := testPrompts(run)
	if err != nil {
		return err
	}
	before, after, err := report.Answers(run, iteration)
	if err != nil {
		return err
	}
	out := []sample{}
	for i := range min(len(before), len(after), len(prompts)) {
		if len(out) < n && !(changed && before[i].Greedy.Text == after[i].Greedy.Text) {
			out = append(out, sample{prompts[i].Text(), prompts[i].Answer, before[i].Greedy.Text, after[i].Greedy.Text})
		}
	}
	if a.json {
		return a.printJSON(map[string]any{"iteration": iteration, "samples": out})
	}
	for _, s := range out {
		fmt.Fprintf(a.stdout, "prompt  %s\n", report.Clean(s.Prompt))
		if s.Answer != "" {
			fmt.Fprintf(a.stdout, "answer  %s\n", report.Clean(s.Answer))
		}
		fmt.Fprintf(a.stdout, "%-*s | %s\n", columnWidth, "before", "after")
		before, after := column(report.Clean(s.Before)), column(report.Clean(s.After))
		for i := range max(len(before), len(after)) {
			fmt.Fprintf(a.stdout, "%-*s | %s\n", columnWidth, line(before, i), line(after, i))
		}
		fmt.Fprintln(a.stdout)
	}
	return nil
}

// Two columns and a rule between them fill 80.
const columnWidth = 38

// column cuts a text into lines of at most columnWidth characters.
func column(text string) (lines []string) {
	for runes := []rune(text); len(runes) > 0; {
		n := min(columnWidth, len(runes))
		lines = append(lines, string(runes[:n]))
		runes = runes[n:]
	}
	return lines
}

// line is the i-th line of a column, empty below its last.
func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}
