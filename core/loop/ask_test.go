package loop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// counted is an oracle of any form that counts what it is asked, and fails at a call.
type counted struct {
	traits sdk.OracleTraits
	asked  []string // one entry a pair, a candidate or a list
	calls  int
	failAt int
}

func (o *counted) Manifest() sdk.Manifest {
	return sdk.Manifest{Kind: sdk.KindOracle, Name: "counted", Version: "1", Oracle: o.traits}
}
func (o *counted) Configure(context.Context, sdk.Settings) error { return nil }

func (o *counted) Judge(_ context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	if o.calls++; o.calls == o.failAt {
		return nil, errors.New("boom")
	}
	var out []sdk.Verdicts
	for _, c := range batch {
		v := sdk.Verdicts{ID: c.ID}
		if o.traits.Form == sdk.FormListwise {
			o.asked = append(o.asked, fmt.Sprint(c.ID, c.Candidates))
		}
		for _, text := range c.Candidates {
			score := float64(text[0])
			v.Assessed = append(v.Assessed, sdk.Assessment{Score: &score})
			if o.traits.Form == sdk.FormPointwise {
				o.asked = append(o.asked, c.ID+text)
				v.Cost++
			}
		}
		for _, p := range c.Pairs {
			if o.traits.Form == sdk.FormPointwise {
				break
			}
			a, b := c.Candidates[p.A], c.Candidates[p.B]
			v.Pairs = append(v.Pairs, sdk.Verdict{P: float64(len(batch[0].Candidates)) / 100})
			if v.Cost++; o.traits.Form == sdk.FormPairwise {
				o.asked = append(o.asked, c.ID+a+b)
			}
		}
		out = append(out, v)
	}
	return out, nil
}

func (o *counted) judge(t *testing.T, iteration int, known *rundir.Judgments) *judge {
	t.Helper()
	l := &Loop{Plugins: with{plugins{}, o}, Judgments: known}
	j, err := l.openJudge(t.Context(), iteration, Plugin{Name: "counted"})
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func group(id string, texts ...string) rundir.GroupRecord {
	g := rundir.GroupRecord{Group: sdk.Group{Prompt: sdk.Prompt{ID: id}}}
	for i, text := range texts {
		g.Mixed = append(g.Mixed, i)
		g.Completions = append(g.Completions, sdk.Completion{Text: text, Source: sdk.FromPolicy})
	}
	return g
}

// What an oracle has said it is not asked again, in this iteration or a later one; of a comparison that is
// known in part the rest is asked, but for a list, whose answers depend on all of it.
func TestNothingIsAskedTwice(t *testing.T) {
	for form, want := range map[sdk.OracleForm][4]int{ // asked in each round
		sdk.FormPairwise:  {3, 0, 3, 0},
		sdk.FormPointwise: {3, 0, 1, 0},
		sdk.FormListwise:  {1, 0, 1, 1}, // another order is another list
	} {
		t.Run(string(form), func(t *testing.T) {
			o, known := &counted{traits: sdk.OracleTraits{Form: form}}, rundir.NewJudgments()
			rounds := []struct {
				iteration     int
				group         rundir.GroupRecord
				asked, cached int // pairs, by the record
			}{
				{1, group("p", "a", "b", "c"), 3, 0},
				{1, group("p", "a", "b", "c"), 3, 0}, // as after a crash: this iteration has paid for it
				{2, group("p", "a", "b", "c", "d"), 3, 3},
				{3, group("p", "b", "a"), 0, 1},
			}
			if form == sdk.FormListwise {
				rounds[2].asked, rounds[2].cached, rounds[3].asked, rounds[3].cached = 6, 0, 1, 0
			}
			if form == sdk.FormPairwise {
				rounds[3].group = group("p", "a", "b") // the other order is another question
			}
			for i, r := range rounds {
				before := len(o.asked)
				out, err := o.judge(t, r.iteration, known).groups(t.Context(), []rundir.GroupRecord{r.group}, preference.OpponentsOwn)
				if err != nil {
					t.Fatal(err)
				}
				if n := len(o.asked) - before; n != want[i] {
					t.Errorf("round %d: it is asked %d times: %v; want %d", i, n, o.asked[before:], want[i])
				}
				if out[0].Asked != r.asked || out[0].Cached != r.cached {
					t.Errorf("round %d: the record says %d asked and %d known, want %d and %d", i, out[0].Asked, out[0].Cached, r.asked, r.cached)
				}
				for a := range out[0].Raw {
					for b := range a {
						if out[0].Raw[b][a] == nil {
							t.Errorf("round %d: no verdict on %d and %d", i, b, a)
						}
					}
					if out[0].Assessed[a].Score == nil {
						t.Errorf("round %d: no score of %d", i, a)
					}
				}
			}
			slices.Sort(o.asked)
			if all := len(o.asked); len(slices.Compact(o.asked)) != all {
				t.Errorf("something was asked twice: %v", o.asked)
			}
		})
	}
}

// After a call that failed only its own comparisons are asked again, and the records are those of a run
// that went through, costs included.
func TestAFailedCallCostsItsOwnComparisonsOnly(t *testing.T) {
	var groups []rundir.GroupRecord
	for i := range 8 {
		groups = append(groups, group(fmt.Sprint(i), "a", "b"))
	}
	traits := sdk.OracleTraits{Form: sdk.FormPairwise}
	whole := &counted{traits: traits}
	want, err := whole.judge(t, 1, nil).groups(t.Context(), groups, preference.OpponentsOwn)
	if err != nil {
		t.Fatal(err)
	}
	known := rundir.NewJudgments()
	o := &counted{traits: traits, failAt: 2}
	if _, err := o.judge(t, 1, known).groups(t.Context(), groups[:4], preference.OpponentsOwn); err != nil {
		t.Fatal(err)
	}
	if _, err := o.judge(t, 1, known).groups(t.Context(), groups[4:], preference.OpponentsOwn); err == nil {
		t.Fatal("the second call did not fail")
	}
	got, err := o.judge(t, 1, known).groups(t.Context(), groups, preference.OpponentsOwn)
	if err != nil {
		t.Fatal(err)
	}
	if len(o.asked) != len(groups) {
		t.Errorf("%d pairs were answered, want each of %d once", len(o.asked), len(groups))
	}
	for i := range want {
		if got[i].Asked != want[i].Asked || got[i].Cost != want[i].Cost || *got[i].Raw[0][1] != *want[i].Raw[0][1] {
			t.Errorf("group %d: %+v, want %+v", i, got[i], want[i])
		}
	}
}

// What an oracle takes for an answer is counted once, however many pairs the answer is for; a later iteration pays for the
// rest only.
func TestAnAnswersCostIsCountedOnce(t *testing.T) {
	for form, want := range map[sdk.OracleForm][3]float64{
		sdk.FormPairwise:  {3, 3, 0},
		sdk.FormPointwise: {3, 1, 0},
		sdk.FormListwise:  {3, 6, 0},
	} {
		o, known := &counted{traits: sdk.OracleTraits{Form: form}}, rundir.NewJudgments()
		for i, texts := range [][]string{{"a", "b", "c"}, {"a", "b", "c", "d"}, {"a", "b", "c", "d"}} {
			out, err := o.judge(t, i+1, known).groups(t.Context(), []rundir.GroupRecord{group("p", texts...)}, preference.OpponentsOwn)
			if err != nil {
				t.Fatal(err)
			}
			if out[0].Cost != want[i] {
				t.Errorf("%s: iteration %d costs %v, want %v", form, i+1, out[0].Cost, want[i])
			}
		}
	}
}

// Whatever decides the answer is in the key.
func TestKeysAreOfAllThatAnOracleSees(t *testing.T) {
	base := rundir.PluginRecord{Kind: sdk.KindOracle, Name: "o", Version: "1", Settings: sdk.Settings{"x": 1.0}, Files: map[string]string{"f": "1"}}
	key := func(rec rundir.PluginRecord, form sdk.OracleForm, p sdk.Prompt, texts ...string) rundir.Key {
		k, err := newKeys(rec, sdk.OracleTraits{Form: form})
		if err != nil {
			t.Fatal(err)
		}
		c := keyed{Comparison: sdk.Comparison{Prompt: p, Candidates: texts, Pairs: []sdk.Ordered{{A: 0, B: 1}}}}
		if err := k.of(&c); err != nil {
			t.Fatal(err)
		}
		return c.pairs[0]
	}
	p := sdk.Prompt{ID: "p", Messages: []sdk.Message{{Role: "user", Content: "q"}}, Answer: "1"}
	want := key(base, sdk.FormPairwise, p, "a", "b")
	if key(base, sdk.FormPairwise, p, "a", "b") != want || key(base, sdk.FormPairwise, p, "a", "b", "c") != want {
		t.Error("the same question has two keys")
	}
	change := func(f func(*rundir.PluginRecord)) rundir.PluginRecord {
		rec := base
		f(&rec)
		return rec
	}
	other := p
	other.Answer = "2"
	seen := map[rundir.Key]string{want: "the question itself"}
	for name, k := range map[string]rundir.Key{
		"the order":     key(base, sdk.FormPairwise, p, "b", "a"),
		"a text":        key(base, sdk.FormPairwise, p, "a", "c"),
		"where it ends": key(base, sdk.FormPairwise, p, "ab", ""),
		"the prompt":    key(base, sdk.FormPairwise, other, "a", "b"),
		"the version":   key(change(func(r *rundir.PluginRecord) { r.Version = "2" }), sdk.FormPairwise, p, "a", "b"),
		"the name":      key(change(func(r *rundir.PluginRecord) { r.Name = "p" }), sdk.FormPairwise, p, "a", "b"),
		"the program":   key(change(func(r *rundir.PluginRecord) { r.SHA256 = "2" }), sdk.FormPairwise, p, "a", "b"),
		"a setting":     key(change(func(r *rundir.PluginRecord) { r.Settings = sdk.Settings{"x": 2.0} }), sdk.FormPairwise, p, "a", "b"),
		"a file":        key(change(func(r *rundir.PluginRecord) { r.Files = map[string]string{"f": "2"} }), sdk.FormPairwise, p, "a", "b"),
		"a list":        key(base, sdk.FormListwise, p, "a", "b"),
		"a longer list": key(base, sdk.FormListwise, p, "a", "b", "c"),
	} {
		if was, ok := seen[k]; ok {
			t.Errorf("%s has the key of %s", name, was)
		}
		seen[k] = name
	}
}

// aliased is an oracle whose server answers with another model from some call on.
type aliased struct {
	*counted
	from int
}

func (o aliased) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	out, err := o.counted.Judge(ctx, batch)
	for i := range out {
		out[i].Model = "judge-1"
		if o.calls >= o.from {
			out[i].Model = "judge-2"
		}
	}
	return out, err
}

// The model that answers may not become another one within a run, unless that is allowed; what it said is not kept.
func TestAnOracleThatBecomesAnotherModelEndsTheRun(t *testing.T) {
	run := create(t)
	o := aliased{&counted{traits: sdk.OracleTraits{Form: sdk.FormPairwise}}, 2}
	l := &Loop{Plugins: with{plugins{}, o}, Run: run, Judgments: rundir.NewJudgments()}
	ask := func(id string) error {
		j, err := l.openJudge(t.Context(), 1, Plugin{Name: "aliased"})
		if err != nil {
			return err
		}
		_, err = j.groups(t.Context(), []rundir.GroupRecord{group(id, "a", "b")}, preference.OpponentsOwn)
		return err
	}
	if err := ask("1"); err != nil {
		t.Fatal(err)
	}
	known := l.Judgments.Len()
	if err := ask("2"); err == nil || !strings.Contains(err.Error(), `model.oracle/aliased is "judge-2", it was "judge-1"`) {
		t.Errorf("it returns %v", err)
	}
	if l.Judgments.Len() != known {
		t.Error("what the other model said is kept")
	}
	if err := run.Allow("model.oracle/aliased"); err != nil {
		t.Fatal(err)
	}
	if err := ask("2"); err != nil {
		t.Error(err)
	}
}
