package loop

import (
	"context"
	"sync/atomic"

	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// judge is an oracle with what its manifest says about asking it, and with what it has said already.
type judge struct {
	oracle    sdk.Oracle
	name      string
	traits    sdk.OracleTraits
	keys      keys
	known     *rundir.Judgments
	iteration int          // in which it is asked
	run       *rundir.Run  // nil: nothing holds it to its model
	model     atomic.Value // string: that answered last
	purse     *purse
}

// answeredBy holds the oracle to the model that answered first in the run.
func (j *judge) answeredBy(model string) error {
	if last, _ := j.model.Load().(string); model == "" || model == last || j.run == nil {
		return nil
	}
	if err := j.run.Pin(map[string]string{"model.oracle/" + j.name: model}); err != nil {
		return err
	}
	j.model.Store(model)
	return nil
}

// openJudge opens the oracle that is asked in iteration t.
func (l *Loop) openJudge(ctx context.Context, t int, p Plugin) (*judge, error) {
	oracle, rec, err := l.Plugins.Oracle(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := l.note(p, rec, oracle.Manifest()); err != nil {
		return nil, err
	}
	if _, err := configure(ctx, oracle, p.Settings); err != nil {
		return nil, err
	}
	known := l.Judgments
	if known == nil {
		known = rundir.NewJudgments()
	}
	traits := oracle.Manifest().Oracle
	keys, err := newKeys(rec, traits)
	return &judge{oracle: oracle, name: p.Name, traits: traits, keys: keys, known: known, iteration: t, run: l.Run,
		purse: &purse{limit: l.Experiment.Budget, known: known}}, err
}

// question is one comparison by content: candidates may repeat, and pairs are of candidates in
// either order; answer holds P and assessments for them.
type question struct {
	prompt sdk.Prompt
	texts  []string
	pairs  [][2]int // i < j not required; each unordered pair once
}

// answer holds P(i≻j) as asked with i first, for both orders where order matters.
type answer struct {
	first    []int        // index of the first text that is the same
	place    []int        // index of the text among the comparison's candidates, which are distinct
	raw      [][]*float64 // null: not asked, or abstained
	abstain  []rundir.Abstention
	assessed []sdk.Assessment // for each candidate, or nil
	asked    int              // ordered pairs that were put to the oracle in this iteration
	cached   int              // and those that were known before
	cost     float64
	tokens   int
}

// groups judges the games of a batch of groups: every unordered pair of distinct texts among the
// completions that are opponents or may be paired.
func (j *judge) groups(ctx context.Context, groups []rundir.GroupRecord, opponents string) ([]rundir.VerdictsRecord, error) {
	questions := make([]question, len(groups))
	for i, g := range groups {
		q := question{prompt: g.Prompt}
		mixed := map[int]bool{}
		for _, m := range g.Mixed {
			mixed[m] = true
		}
		needed := func(k int) bool {
			return opponents == preference.OpponentsAll || g.Completions[k].Source == sdk.FromPolicy || mixed[k]
		}
		for k, c := range g.Completions {
			q.texts = append(q.texts, c.Text)
			for m := range k {
				if needed(m) && needed(k) {
					q.pairs = append(q.pairs, [2]int{m, k})
				}
			}
		}
		questions[i] = q
	}
	answers, err := j.ask(ctx, questions)
	if err != nil {
		return nil, err
	}
	out := make([]rundir.VerdictsRecord, len(groups))
	for i, a := range answers {
		out[i] = rundir.VerdictsRecord{
			Prompt: groups[i].Prompt.ID, Texts: a.first, Raw: a.raw, Abstain: a.abstain,
			Assessed: a.assessed, Asked: a.asked, Cached: a.cached, Cost: a.cost, Tokens: a.tokens, BothOrders: j.traits.OrderMatters,
		}
	}
	return out, nil
}

// compile makes the comparison of distinct texts, and an answer that holds what needs no asking.
func (j *judge) compile(q question) (sdk.Comparison, answer) {
	c := sdk.Comparison{ID: q.prompt.ID, Prompt: q.prompt}
	n := len(q.texts)
	a := answer{first: preference.FirstOf(q.texts), place: make([]int, n), raw: make([][]*float64, n)}
	for i, text := range q.texts {
		a.raw[i] = make([]*float64, n)
		if a.first[i] != i {
			a.place[i] = a.place[a.first[i]]
			continue
		}
		a.place[i] = len(c.Candidates)
		c.Candidates = append(c.Candidates, text)
	}
	asked := map[sdk.Ordered]bool{}
	for _, p := range q.pairs {
		o := sdk.Ordered{A: a.place[p[0]], B: a.place[p[1]]}
		if o.A == o.B || asked[o] || asked[sdk.Ordered{A: o.B, B: o.A}] {
			continue
		}
		asked[o] = true
		c.Pairs = append(c.Pairs, o)
		if j.traits.OrderMatters {
			c.Pairs = append(c.Pairs, sdk.Ordered{A: o.B, B: o.A})
		}
	}
	return c, a
}

// read spreads the verdicts over all candidates, equal texts alike.
func (j *judge) read(q question, c sdk.Comparison, v sdk.Verdicts, a *answer) {
	verdicts := v.Pairs
	if j.traits.Form == sdk.FormPointwise {
		verdicts = byScore(c, v)
	}
	known := map[sdk.Ordered]sdk.Verdict{}
	for k, o := range c.Pairs {
		known[o] = verdicts[k]
	}
	half := 0.5
	for _, p := range q.pairs {
		for _, o := range [][2]int{p, {p[1], p[0]}} {
			x, y := a.place[o[0]], a.place[o[1]]
			if x == y {
				a.raw[o[0]][o[1]] = &half
				continue
			}
			verdict, ok := known[sdk.Ordered{A: x, B: y}]
			switch {
			case !ok: // the other order alone was asked: order does not matter
			case verdict.Abstain != "":
				if a.first[o[0]] == o[0] && a.first[o[1]] == o[1] {
					a.abstain = append(a.abstain, rundir.Abstention{A: o[0], B: o[1], Reason: verdict.Abstain})
				}
			default:
				a.raw[o[0]][o[1]] = &verdict.P
			}
		}
	}
	if len(v.Assessed) > 0 {
		a.assessed = make([]sdk.Assessment, len(q.texts))
		for i, at := range a.place {
			a.assessed[i] = v.Assessed[at]
		}
	}
	a.cost, a.tokens = v.Cost, v.Tokens
}

// byScore is the rule by which a pointwise oracle's scores become preferences: the higher score is
// preferred, equal scores tie, and a pair with a missing score is abstained from.
func byScore(c sdk.Comparison, v sdk.Verdicts) []sdk.Verdict {
	out := make([]sdk.Verdict, len(c.Pairs))
	score := func(i int) *float64 {
		if i < len(v.Assessed) && v.Assessed[i].Abstain == "" {
			return v.Assessed[i].Score
		}
		return nil
	}
	for k, o := range c.Pairs {
		a, b := score(o.A), score(o.B)
		switch {
		case a == nil || b == nil:
			out[k].Abstain = "a candidate has no score"
		case *a > *b:
			out[k].P = 1
		case *a == *b:
			out[k].P = 0.5
		}
	}
	return out
}

// tally adds up what was judged, and holds the abstentions against the plan's cap.
func (l *Loop) tally(games []judged, plan *Plan, rec *rundir.IterationRecord) error {
	rec.Prompts = len(games)
	reason := ""
	for _, g := range games {
		rec.Completions += len(g.Completions)
		rec.Asked += g.verdicts.Asked
		rec.Cached += g.verdicts.Cached
		rec.Abstained += len(g.verdicts.Abstain)
		rec.Cost += g.verdicts.Cost
		rec.Tokens += g.verdicts.Tokens
		if len(g.verdicts.Abstain) > 0 && reason == "" {
			reason = g.verdicts.Abstain[0].Reason
		}
	}
	judged := rec.Asked + rec.Cached
	if share := float64(rec.Abstained) / float64(max(1, judged)); share > plan.MaxAbstain {
		return sdk.Errorf(sdk.CodeOracle, "oracle %q abstained from %.1f %% of %d comparisons in iteration %d, more than max_abstain allows (%.1f %%); its first reason: %s",
			plan.Oracle.Name, 100*share, judged, rec.Iteration, 100*plan.MaxAbstain, reason).
			WithHint("mend the oracle or the prompts, or raise max_abstain")
	}
	return nil
}
