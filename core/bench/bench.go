// Package bench measures what this machine can do, and how much of it the kernels and a model use.
//
// Every share is of a peak and a bandwidth that were measured in the same run, at the same instruction set and with
// as many threads: a figure of another machine, or of another day, says nothing here.
package bench

import (
	"context"
	"math"
	"slices"
	"time"
)

// Result is what `dno bench --json` prints. A part that was not asked for is null. Seconds are of one run of a case:
// the fastest, and the median of all.
type Result struct {
	Kernel    string     `json:"kernel"`  // the instruction set in use, as `dno version` names it
	Threads   int        `json:"threads"` // of everything but the keys that say one_thread
	Machine   *Machine   `json:"machine"`
	Kernels   []Kernel   `json:"kernels"`
	Model     *Model     `json:"model"`
	Iteration *Iteration `json:"iteration"`
}

// Iteration is the wall time of the first iteration of an experiment, from the records of its run.
type Iteration struct {
	Script       string             `json:"script"`
	Model        string             `json:"model"`
	Prompts      int                `json:"prompts"`
	Completions  int                `json:"completions"`
	Steps        int                `json:"steps"`
	Seconds      map[string]float64 `json:"seconds"` // by stage: sample (with judging), pair, train, evaluate
	TotalSeconds float64            `json:"total_seconds"`
}

// Timing is how long a case took.
type Timing struct {
	Runs          int     `json:"runs"`
	Seconds       float64 `json:"seconds"`
	SecondsMedian float64 `json:"seconds_median"`
}

// Progress is told how far a part is.
type Progress interface {
	Start(part string, cases int)
	Add(n int)
	Done()
}

// Timer says how long each case is run again and again, and whom to tell.
type Timer struct {
	Seconds  float64 // of all runs of a case together, at least; one run there is in any case
	Progress Progress
}

// time runs a case once untimed, so that memory and caches are as they stay, and then for the time that was asked for.
func (t Timer) time(ctx context.Context, run func() error) (Timing, error) {
	if err := ctx.Err(); err != nil {
		return Timing{}, err
	}
	if err := run(); err != nil {
		return Timing{}, err
	}
	var all []float64
	for sum := 0.0; len(all) == 0 || sum < t.Seconds; sum += all[len(all)-1] {
		if err := ctx.Err(); err != nil {
			return Timing{}, err
		}
		start := time.Now()
		if err := run(); err != nil {
			return Timing{}, err
		}
		// A clock too coarse to see a run must not make it infinitely fast.
		all = append(all, math.Max(time.Since(start).Seconds(), 1e-9))
	}
	slices.Sort(all)
	t.Progress.Add(1)
	return Timing{Runs: len(all), Seconds: all[0], SecondsMedian: all[len(all)/2]}, nil
}

// rate is amount/seconds in billions.
func rate(amount, seconds float64) float64 { return amount / seconds / 1e9 }
