package loop

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// priced bills each ordered pair.
type priced struct{ bigger }

const (
	pairMoney  = 0.25 // a power of two: sums are exact
	pairTokens = 7
)

func (o *priced) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	out, err := o.bigger.Judge(ctx, batch)
	for i := range out {
		n := len(out[i].Pairs)
		out[i].Cost, out[i].Tokens = pairMoney*float64(n), pairTokens*n
	}
	return out, err
}

// A run that stops at a budget, however often, ends as one without.
func TestABudgetStopsARunThatGoesOn(t *testing.T) {
	t.Parallel()
	whole := create(t)
	l, _, _ := newLoop(t, whole, testPlan())
	l.Plugins = with{l.Plugins.(plugins), &priced{}}
	if err := l.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := l.Judgments.Spent()
	if all.Money != pairMoney*float64(all.Calls) || all.Tokens != pairTokens*all.Calls || all.Calls == 0 {
		t.Fatalf("the whole run spent %+v", all)
	}
	want := records(t, whole)
	for name, budget := range map[string]Budget{
		"calls":  {Calls: float64(all.Calls) / 5},
		"tokens": {Tokens: float64(all.Tokens) / 4},
		"money":  {Money: all.Money / 3},
		"all":    {Calls: float64(all.Calls) / 2, Tokens: float64(all.Tokens) / 3, Money: all.Money / 4},
	} {
		t.Run(name, func(t *testing.T) {
			run, step := create(t), budget
			for stops := 0; ; stops++ {
				l, _, _ := newLoop(t, run, testPlan())
				l.Plugins, l.Experiment.Budget = with{l.Plugins.(plugins), &priced{}}, budget
				err := l.Execute(t.Context())
				spent := l.Judgments.Spent()
				for what, over := range map[string]bool{
					"calls":  budget.Calls > 0 && float64(spent.Calls) > budget.Calls,
					"tokens": budget.Tokens > 0 && float64(spent.Tokens) > budget.Tokens,
					"money":  budget.Money > 0 && spent.Money > budget.Money,
				} {
					if over {
						t.Errorf("%s: spent %+v of %+v", what, spent, budget)
					}
				}
				if err == nil {
					if stops < 2 || spent != all {
						t.Errorf("ended after %d stops with %+v spent, the whole run with %+v", stops, spent, all)
					}
					break
				}
				if sdk.CodeOf(err) != sdk.CodeBudget || stops > 20 {
					t.Fatalf("stop %d: %v", stops, err)
				}
				budget.Calls, budget.Tokens, budget.Money = budget.Calls+step.Calls, budget.Tokens+step.Tokens, budget.Money+step.Money
			}
			have := records(t, run)
			for _, name := range slices.Sorted(maps.Keys(want)) {
				if have[name] != want[name] {
					t.Errorf("%s differs from that of a run without a budget", name)
				}
			}
		})
	}
}

func TestAWallBudgetStopsARunThatGoesOn(t *testing.T) {
	t.Parallel()
	whole, run := create(t), create(t)
	l, _, _ := newLoop(t, whole, testPlan())
	if err := l.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, _, _ = newLoop(t, run, testPlan())
	l.Experiment.Budget.Wall = 1e-9
	if err := l.Execute(t.Context()); sdk.CodeOf(err) != sdk.CodeBudget {
		t.Fatalf("want the budget's error, have %v", err)
	}
	l, _, _ = newLoop(t, run, testPlan())
	if err := l.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	want, have := records(t, whole), records(t, run)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if have[name] != want[name] {
			t.Errorf("%s differs from that of a run without a budget", name)
		}
	}
	done, err := run.Iterations()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := l.withinWall(t.Context(), done) // without a limit
	cancel()
	if err := overrun(ctx, ctx.Err()); sdk.CodeOf(err) == sdk.CodeBudget {
		t.Errorf("a run that was cancelled says %v", err)
	}
}

// What a budget is expected to carry is reckoned from what answers took.
func TestABudgetCarriesWhatItIsExpectedTo(t *testing.T) {
	t.Parallel()
	known := rundir.NewJudgments()
	if err := known.Add(rundir.Judgment{Calls: 10, Tokens: 100, Cost: 5}); err != nil {
		t.Fatal(err)
	}
	calls := []int{2, 2, 2, 2}
	for _, c := range []struct {
		limit Budget
		took  rundir.Spent
		want  int // 0: the error
	}{
		{Budget{}, rundir.Spent{}, 4},
		{Budget{Calls: 18}, rundir.Spent{}, 4},
		{Budget{Calls: 15}, rundir.Spent{}, 2},
		{Budget{Calls: 11}, rundir.Spent{}, 0},
		{Budget{Money: 5}, rundir.Spent{}, 0},
		{Budget{Money: 6}, rundir.Spent{}, 3}, // nothing is known: the first few
		{Budget{Money: 6}, rundir.Spent{Calls: 10, Money: 5}, 1},
		{Budget{Money: 7.5}, rundir.Spent{Calls: 10, Money: 5}, 2},
		{Budget{Money: 5.5}, rundir.Spent{Calls: 10, Money: 5}, 0},
		{Budget{Money: 6}, rundir.Spent{Calls: 10}, 4}, // it is free
		{Budget{Tokens: 121}, rundir.Spent{Calls: 10, Tokens: 100}, 1},
		{Budget{Tokens: 121, Calls: 12}, rundir.Spent{Calls: 10, Tokens: 50}, 1},
	} {
		p := purse{limit: c.limit, known: known, took: c.took}
		n, err := p.fit(calls, 3)
		if n != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("%+v after %+v: %d, %v; want %d", c.limit, c.took, n, err, c.want)
		}
	}
}
