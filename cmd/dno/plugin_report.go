package main

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/dno-project/dno/sdk/sdktest"
)

// checkResult is one line of `dno plugin check`, and one entry of checks with --json.
type checkResult struct {
	Check    string   `json:"check"`
	OK       bool     `json:"ok"`
	NotRun   bool     `json:"not_run,omitempty"`
	Findings []string `json:"findings,omitempty"` // what is wrong, or why it was not run
	Notes    []string `json:"notes,omitempty"`
}

// reporter is the conformance kit's test: it prints a line as each check ends. Checks run one after
// the other, what one of them starts may report at once.
type reporter struct {
	app     *app
	ctx     context.Context // ends all checks
	limit   time.Duration   // of a call: a check that fails after it ends all checks too
	results *[]checkResult
	hangs   bool

	mu      sync.Mutex // guards what follows
	current checkResult
	cleanup []func()
}

func newReporter(ctx context.Context, a *app, limit time.Duration) *reporter {
	return &reporter{app: a, ctx: ctx, limit: limit, results: &[]checkResult{}}
}

// Run runs one check on a goroutine of its own, which the check may end, and waits for it.
func (r *reporter) Run(name string, f func(*reporter)) bool {
	if r.ctx.Err() != nil || r.hangs {
		return false
	}
	start := time.Now()
	sub := &reporter{app: r.app, ctx: r.ctx, results: r.results, current: checkResult{Check: name, OK: true}}
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		f(sub)
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	for i := len(sub.cleanup) - 1; i >= 0; i-- {
		sub.cleanup[i]()
	}
	if r.ctx.Err() != nil { // what it says is of a host that is being closed
		return false
	}
	if !sub.current.OK && time.Since(start) >= r.limit {
		r.hangs = true
		sub.current.Notes = append(sub.current.Notes, "NOT RUN: the other checks, which might take as long")
	}
	*r.results = append(*r.results, sub.current)
	sub.print()
	return sub.current.OK
}

func (r *reporter) print() {
	if r.app.json {
		return
	}
	mark := "✓"
	switch {
	case !r.current.OK:
		mark = "✗"
	case r.current.NotRun:
		mark = "–"
	}
	fmt.Fprintf(r.app.stdout, "%s %s\n", mark, printable(r.current.Check))
	for _, text := range append(r.current.Findings, r.current.Notes...) {
		fmt.Fprintf(r.app.stdout, "    %s\n", strings.ReplaceAll(printable(text), "\n", "\n    "))
	}
}

func (r *reporter) anyFailed() bool {
	for _, c := range *r.results {
		if !c.OK {
			return true
		}
	}
	return false
}

// say leaves out the keys that a plugin was given with --env and may have put into its words.
func (r *reporter) say(format string, args ...any) string {
	return r.app.log.Secrets().Clean(fmt.Sprintf(format, args...))
}

// Helper is of no use to a command.
func (r *reporter) Helper() {}

// Cleanup has f called after the check.
func (r *reporter) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanup = append(r.cleanup, f)
}

// Logf adds a note; outside of a check it goes to the log.
func (r *reporter) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current.Check == "" {
		r.app.log.Warn(r.say(format, args...))
		return
	}
	r.current.Notes = append(r.current.Notes, r.say(format, args...))
}

// Errorf adds a finding.
func (r *reporter) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current.OK = false
	r.current.Findings = append(r.current.Findings, r.say(format, args...))
}

// Fatalf adds a finding and ends the check.
func (r *reporter) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// Skipf ends the check and says why it is none.
func (r *reporter) Skipf(format string, args ...any) {
	r.mu.Lock()
	r.current.NotRun = true
	r.current.Findings = append(r.current.Findings, r.say(format, args...))
	r.mu.Unlock()
	runtime.Goexit()
}

var _ sdktest.T[*reporter] = (*reporter)(nil)
