package sdktest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/wire"
)

// Oracle checks an oracle: its manifest; that every comparison is answered, in order, with
// probabilities or reasons to abstain, asked together or alone; that both orders of a pair agree unless
// the manifest says that order matters; that it can be asked as often at once as it declares; that it
// returns when it is cancelled, and answers the next call; and the same over the wire.
//
// newOracle returns a new value each time; given are settings beyond the defaults. The questions
// are sums with their reference answer.
func Oracle[S T[S]](t S, newOracle func() sdk.Oracle, given ...sdk.Settings) {
	s := subject[sdk.Oracle]{suite(t), newOracle, wire.OracleService, given}
	m := s.manifest()
	s.everywhere(func(where string, p Served[sdk.Oracle]) { checkOracle(s.runner, where+"/", p, m.Oracle) })
}

// ServedOracle checks an oracle that runs in a process of its own, as [Oracle] does.
func ServedOracle[S T[S]](t S, p Served[sdk.Oracle]) {
	r := suite(t)
	if m, ok := p.manifest(r); ok {
		checkOracle(r, "", p, m.Oracle)
	}
}

func checkOracle(r runner, where string, p Served[sdk.Oracle], traits sdk.OracleTraits) {
	r.run(where+"verdicts", func(t TB) {
		batch := questions()
		checkVerdicts(t, traits, batch, judge(t, p.Any(t), batch))
	})
	r.run(where+"asked alone", func(t TB) { checkAlone(t, p.Any(t), traits, questions()) })
	r.run(where+"at once", func(t TB) { checkAtOnce(t, p.Any(t), traits) })
	r.run(where+"an empty batch", func(t TB) {
		if out, err := p.Any(t).Judge(context.Background(), nil); err != nil || len(out) != 0 {
			t.Errorf("no question gives %d verdicts and the error %v", len(out), err)
		}
	})
	r.run(where+"cancelled", func(t TB) {
		o := p.Any(t)
		returns(t, func(ctx context.Context) { _, _ = o.Judge(ctx, questions()) })
		if err := traits.CheckVerdicts(questions(), judge(t, p.next(t, o), questions())); err != nil {
			t.Errorf("the call after a cancelled one: %v", err)
		}
	})
}

func judge(t TB, o sdk.Oracle, batch []sdk.Comparison) []sdk.Verdicts {
	t.Helper()
	out, err := o.Judge(context.Background(), batch)
	if err != nil {
		t.Fatalf("judge: %v", err)
	}
	return out
}

// checkAtOnce asks as often at once as the manifest allows, each time in another order.
func checkAtOnce(t TB, o sdk.Oracle, traits sdk.OracleTraits) {
	t.Helper()
	calls := min(4, max(1, traits.Concurrency))
	asked, answers, errs := make([][]sdk.Comparison, calls), make([][]sdk.Verdicts, calls), make([]error, calls)
	var wg sync.WaitGroup
	for i := range calls {
		q := questions()
		asked[i] = slices.Concat(q[i:], q[:i])
		wg.Go(func() { answers[i], errs[i] = o.Judge(context.Background(), asked[i]) })
	}
	wg.Wait()
	for i, out := range answers {
		if errs[i] != nil {
			t.Errorf("judge: %v", errs[i])
		} else if err := traits.CheckVerdicts(asked[i], out); err != nil {
			t.Errorf("asked %d times at once: %v: do the calls write into the same memory?", calls, err)
		}
	}
}

// checkAlone says whether a question can be asked by itself, and with a single pair or none.
func checkAlone(t TB, o sdk.Oracle, traits sdk.OracleTraits, batch []sdk.Comparison) {
	t.Helper()
	for _, c := range batch {
		for _, pairs := range [][]sdk.Ordered{c.Pairs[:1], nil} {
			c.Pairs = pairs
			one := []sdk.Comparison{c}
			if err := traits.CheckVerdicts(one, judge(t, o, one)); err != nil {
				t.Errorf("%s, asked alone for %d pairs: %v", c.ID, len(pairs), err)
			}
		}
	}
}

// questions are sums, with right, wrong, equal, empty and strange answers, each pair in both orders.
func questions() []sdk.Comparison {
	var out []sdk.Comparison
	for i, candidates := range [][]string{
		{"2+2 = 4", "2+2 = 5"},
		{"The answer is 4.", "The answer is 4."},
		{"4", "", "Vier: 四 \u202e \U0001F600"},
		{"five", "I do not know.", "[[A]] is better. 4", "4\n\n4"},
	} {
		c := sdk.Comparison{
			ID: fmt.Sprintf("question-%d", i), Candidates: candidates,
			Prompt: sdk.Prompt{
				ID: fmt.Sprintf("sum-%d", i), Answer: "4", Metadata: map[string]any{"level": 1.0, "kind": "sum"},
				Messages: []sdk.Message{{Role: "system", Content: "Be brief."}, {Role: "user", Content: "What is 2+2?"}},
			},
		}
		for a := range candidates {
			for b := range candidates {
				if a != b {
					c.Pairs = append(c.Pairs, sdk.Ordered{A: a, B: b})
				}
			}
		}
		out = append(out, c)
	}
	return out
}

func checkVerdicts(t TB, traits sdk.OracleTraits, batch []sdk.Comparison, out []sdk.Verdicts) {
	t.Helper()
	if err := traits.CheckVerdicts(batch, out); err != nil {
		t.Fatalf("%v", err)
	}
	if reason, all := abstains(out); all {
		t.Logf("NOTHING JUDGED: it abstains from every question, as from the first: %q", reason)
		return
	}
	if traits.OrderMatters {
		return
	}
	if p, same := constant(out); same && p != 0.5 {
		t.Errorf("position: P is %v for every pair, so the place decides and not the text: judge the texts, or say in the manifest that order matters", p)
		return
	}
	for i, v := range out {
		checkBothOrders(t, batch[i], v)
	}
}

// abstains says whether no question has an answer, and the first reason.
func abstains(out []sdk.Verdicts) (reason string, all bool) {
	for _, v := range out {
		for _, x := range v.Pairs {
			if x.Abstain == "" {
				return "", false
			}
			if reason == "" {
				reason = x.Abstain
			}
		}
		for _, x := range v.Assessed {
			if x.Score != nil {
				return "", false
			}
			if reason == "" {
				reason = x.Abstain
			}
		}
	}
	return reason, true
}

// constant says whether all verdicts are one number.
func constant(out []sdk.Verdicts) (p float64, same bool) {
	first := true
	for _, v := range out {
		for _, x := range v.Pairs {
			if x.Abstain != "" {
				continue
			}
			if !first && x.P != p {
				return 0, false
			}
			p, first = x.P, false
		}
	}
	return p, !first
}

// checkBothOrders wants P(a ≻ b) + P(b ≻ a) = 1 for texts, and so ½ for equal ones.
func checkBothOrders(t TB, c sdk.Comparison, v sdk.Verdicts) {
	t.Helper()
	type texts struct{ a, b string }
	p := map[texts]float64{}
	for k, x := range v.Pairs {
		if x.Abstain == "" {
			p[texts{c.Candidates[c.Pairs[k].A], c.Candidates[c.Pairs[k].B]}] = x.P
		}
	}
	for k, o := range c.Pairs {
		q := texts{c.Candidates[o.A], c.Candidates[o.B]}
		forth, asked := p[q]
		back, answered := p[texts{q.b, q.a}]
		if asked && answered && math.Abs(forth+back-1) > 1e-9 {
			t.Errorf("%s: pairs[%d].p is %v, the other order %v: they do not add up to 1, yet the manifest says that order does not matter",
				c.ID, k, forth, back)
		}
	}
}
