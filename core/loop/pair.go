package loop

import (
	"context"
	"math"

	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// pair is a pair of the game, under a short name.
type pair = preference.Pair

// pair makes the games out of the verdicts, asks the script for the pairs of each, and records
// them. It computes nothing that the verdicts do not hold, so it is simply done again on resume.
func (l *Loop) pair(ctx context.Context, t int, it rundir.Iteration, plan *Plan, games []judged, rec *rundir.IterationRecord) ([][]pair, error) {
	out := make([][]pair, len(games))
	var records []rundir.PairRecord
	var both, flips int
	for i := range games {
		g := &games[i]
		var err error
		if g.game, err = newGame(g.GroupRecord, g.verdicts, plan); err != nil {
			return nil, err
		}
		if g.game.Cycles().Cyclic {
			rec.Cycles++
		}
		consistency := g.game.Consistency()
		both += consistency.BothOrders
		flips += consistency.Flips
		rule := preference.Rule{MinMargin: plan.MinMargin, MaxPairs: plan.MaxPairs}
		if out[i], err = l.Script.Pairs(ctx, t, g.Prompt, g.game, rule); err != nil {
			return nil, err
		}
		for _, p := range out[i] {
			rec.Pairs[string(p.Class)]++
			rec.MeanMargin += p.Margin
			records = append(records, pairRecord(g.GroupRecord, p))
		}
	}
	if both > 0 {
		rec.Flipped = float64(flips) / float64(both)
	}
	if len(records) > 0 {
		rec.MeanMargin /= float64(len(records))
	}
	return out, rundir.WriteLog(it.Path(rundir.PairsFile), records)
}

func newGame(g rundir.GroupRecord, v rundir.VerdictsRecord, plan *Plan) (*preference.Game, error) {
	mixed := g.Mixed
	if mixed == nil {
		mixed = []int{} // nothing may be paired; nil would mean all
	}
	return preference.NewGame(g.Completions, flat(v.Raw), preference.Options{
		Opponents: plan.Opponents, Estimator: plan.Estimator, OrderMatters: v.BothOrders, Allowed: mixed,
	})
}

// flat lays the verdicts out as a game takes them: row by row, NaN for null.
func flat(raw [][]*float64) []float64 {
	var out []float64
	for _, row := range raw {
		for _, p := range row {
			if p == nil {
				out = append(out, math.NaN())
			} else {
				out = append(out, *p)
			}
		}
	}
	return out
}

func pairRecord(g rundir.GroupRecord, p pair) rundir.PairRecord {
	turn := func(i int) []sdk.Message {
		return []sdk.Message{{Role: "assistant", Content: g.Completions[i].Text}}
	}
	return rundir.PairRecord{
		Prompt: g.Prompt.Messages, Chosen: turn(p.Chosen), Rejected: turn(p.Rejected),
		PromptID: g.Prompt.ID, ChosenIndex: p.Chosen, RejectedIndex: p.Rejected,
		ChosenWinRate: p.ChosenWinRate, RejectedWinRate: p.RejectedWinRate,
		ChosenSE: known(p.ChosenSE), RejectedSE: known(p.RejectedSE),
		Opponents: p.Opponents, Preference: p.Preference, Margin: p.Margin,
		Weight: p.Weight, Class: string(p.Class),
	}
}

// known is nil for NaN: JSON has no NaN.
func known(x float64) *float64 {
	if math.IsNaN(x) {
		return nil
	}
	return &x
}
