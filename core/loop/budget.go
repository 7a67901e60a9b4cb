package loop

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// Budget is the most that a run may spend; 0 is no limit. What was spent is kept across resumes.
type Budget struct {
	Money  float64 `json:"money"`  // in the currency of the oracles' bills
	Tokens float64 `json:"tokens"` // of the oracles
	Calls  float64 `json:"calls"`  // of the oracles: see [rundir.Spent]
	Wall   float64 `json:"wall"`   // seconds of work, those of finished iterations and of this process
}

// reached is the error of a budget that carries no further.
func reached(what string, spent, limit float64) error {
	return sdk.Errorf(sdk.CodeBudget, "the budget is reached: %.6g of %.6g %s are spent; all of it is kept", spent, limit, what).
		WithHint("go on with more of it: dno resume DIR --set budget.%s=%g", what, 2*limit)
}

// purse is what one oracle may still spend, and what its answers took so far in this process: the next ones are
// expected to take as much.
type purse struct {
	limit Budget
	known *rundir.Judgments

	mu   sync.Mutex
	took rundir.Spent
}

// fit returns how many of the questions at the head may be asked, for as many as the budget is expected to carry; calls is how
// many calls each of them is. An oracle that has not answered yet is asked the first few alone. The error is that the budget carries none.
func (p *purse) fit(calls []int, few int) (int, error) {
	p.mu.Lock()
	took := p.took
	p.mu.Unlock()
	spent, n := p.known.Spent(), len(calls)
	if took.Calls == 0 && (p.limit.Tokens > 0 || p.limit.Money > 0) {
		n = min(n, max(1, few))
	}
	answers := float64(max(1, took.Calls))
	for _, r := range []struct {
		what               string
		limit, spent, call float64 // call: what one is expected to take
	}{
		{"calls", p.limit.Calls, float64(spent.Calls), 1},
		{"tokens", p.limit.Tokens, float64(spent.Tokens), float64(took.Tokens) / answers},
		{"money", p.limit.Money, spent.Money, took.Money / answers},
	} {
		if r.limit == 0 {
			continue
		}
		sum, fits := r.spent, 0
		for fits < n && sum < r.limit && sum+r.call*float64(calls[fits]) <= r.limit {
			sum += r.call * float64(calls[fits])
			fits++
		}
		if n = fits; n == 0 && len(calls) > 0 {
			return 0, reached(r.what, r.spent, r.limit)
		}
	}
	return n, nil
}

// spend notes what an answer took.
func (p *purse) spend(s rundir.Spent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took.Calls += s.Calls
	p.took.Tokens += s.Tokens
	p.took.Money += s.Money
}

// withinWall returns a context that ends when the wall time of the budget has passed.
func (l *Loop) withinWall(ctx context.Context, done []rundir.IterationRecord) (context.Context, context.CancelFunc) {
	limit := l.Experiment.Budget.Wall
	if limit == 0 {
		return context.WithCancel(ctx)
	}
	spent := 0.0
	for _, rec := range done {
		for _, s := range rec.Seconds {
			spent += s
		}
	}
	left := time.Duration((limit - spent) * float64(time.Second))
	return context.WithTimeoutCause(ctx, left, reached("wall", max(limit, spent), limit))
}

// overrun is the budget's error where an error comes of its end.
func overrun(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	if cause := context.Cause(ctx); sdk.CodeOf(cause) == sdk.CodeBudget {
		return cause
	}
	return err
}
