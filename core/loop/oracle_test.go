package loop

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// timid answers 0 where the smaller digit is shown first and a tie where the bigger one is: its two
// orders differ, but they never prefer different completions.
type timid struct {
	*bigger
	mu    sync.Mutex
	asked []sdk.Comparison
	most  int // comparisons in one call
}

func (o *timid) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	o.mu.Lock()
	o.asked = append(o.asked, batch...)
	o.most = max(o.most, len(batch))
	o.mu.Unlock()
	out, err := o.bigger.Judge(ctx, batch)
	for i, v := range out {
		for k, p := range batch[i].Pairs {
			v.Pairs[k].P = 0.5
			if batch[i].Candidates[p.A] < batch[i].Candidates[p.B] {
				v.Pairs[k].P = 0
			}
		}
	}
	return out, err
}

// with replaces the oracle, and names a sampler whose manifest has a token limit.
type with struct {
	plugins
	oracle sdk.Oracle
}

func (p with) Oracle(context.Context, Plugin) (sdk.Oracle, rundir.PluginRecord, error) {
	return p.oracle, rundir.PluginRecord{Kind: sdk.KindOracle, Name: "bigger"}, nil
}

func (p with) Sampler(ctx context.Context, q Plugin) (sdk.Sampler, rundir.PluginRecord, error) {
	if q.Name == "short" {
		return short{}, rundir.PluginRecord{Kind: sdk.KindSampler, Name: q.Name}, nil
	}
	return p.plugins.Sampler(ctx, q)
}

type short struct{ generatorSampler }

func (short) Manifest() sdk.Manifest {
	m := generatorSampler{}.Manifest()
	m.Settings = []sdk.Setting{{Name: "max_tokens", Type: sdk.TypeNumber, Default: 12.0}}
	return m
}

func TestATieInOneOrderIsNoFlip(t *testing.T) {
	l, _, oracle := newLoop(t, create(t), testPlan())
	oracle.manual.OrderMatters = true
	l.Plugins = with{plugins{oracle: oracle}, &timid{bigger: oracle}}
	l.Experiment.Iterations = 1
	if err := l.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	its, _ := l.Run.Iterations()
	if its[1].Asked == 0 || its[1].Flipped != 0 {
		t.Errorf("of %d ordered pairs the share %v is counted as flipped, want 0", its[1].Asked, its[1].Flipped)
	}
}

// judgeOf returns a judge whose oracle remembers what it is asked.
func judgeOf(t *testing.T) (*judge, *timid) {
	t.Helper()
	l, _, oracle := newLoop(t, create(t), testPlan())
	seen := &timid{bigger: oracle}
	l.Plugins = with{plugins{oracle: oracle}, seen}
	j, err := l.openJudge(t.Context(), 1, Plugin{Name: "bigger"})
	if err != nil {
		t.Fatal(err)
	}
	return j, seen
}

func groupsOf(n int) []rundir.GroupRecord {
	var out []rundir.GroupRecord
	for _, p := range prompts("group", n) {
		out = append(out, rundir.GroupRecord{Mixed: []int{0, 1}, Group: sdk.Group{Prompt: p, Completions: []sdk.Completion{
			{Text: "1", Source: sdk.FromPolicy}, {Text: "2", Source: sdk.FromPolicy}, {Text: "3", Source: sdk.FromTeacher},
		}}})
	}
	return out
}

func TestATeacherOutsideTheMixIsJudgedWhereItIsAnOpponent(t *testing.T) {
	for opponents, pairs := range map[string]int{preference.OpponentsOwn: 1, preference.OpponentsAll: 3} {
		j, _ := judgeOf(t)
		out, err := j.groups(t.Context(), groupsOf(1), opponents)
		if err != nil {
			t.Fatal(err)
		}
		if out[0].Asked != pairs {
			t.Errorf("opponents %q: %d pairs are asked, want %d", opponents, out[0].Asked, pairs)
		}
	}
}

func TestAComparisonDoesNotDependOnItsBatch(t *testing.T) {
	j, seen := judgeOf(t)
	all := groupsOf(3)
	if _, err := j.groups(t.Context(), all, preference.OpponentsOwn); err != nil {
		t.Fatal(err)
	}
	other, alone := judgeOf(t)
	if _, err := other.groups(t.Context(), all[2:], preference.OpponentsOwn); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(seen.asked[2], alone.asked[0]) {
		t.Errorf("asked alone:\n%+v\nafter two others:\n%+v", alone.asked[0], seen.asked[2])
	}
}

func TestOneCallOfAnOracleIsOfBoundedSize(t *testing.T) {
	j, seen := judgeOf(t)
	groups := groupsOf(150)
	out, err := j.groups(t.Context(), groups, preference.OpponentsOwn)
	if err != nil {
		t.Fatal(err)
	}
	if seen.most > 64 || len(seen.asked) != len(groups) {
		t.Errorf("%d comparisons, up to %d in a call; want %d, at most 64", len(seen.asked), seen.most, len(groups))
	}
	for i, v := range out {
		if v.Prompt != groups[i].Prompt.ID || v.Raw[0][1] == nil {
			t.Fatalf("verdicts %d are of prompt %q: %+v", i, v.Prompt, v)
		}
	}
}

// limits remembers the token limits that it was given.
type limits struct {
	*table
	seen []int
}

func (p *limits) Generate(ctx context.Context, req sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	p.seen = append(p.seen, req.Options.MaxTokens)
	return p.table.Generate(ctx, req)
}

func (p *limits) GenerateAll(ctx context.Context, reqs ...sdk.GenerateRequest) ([]sdk.GenerateResponse, error) {
	return generateAll(ctx, p, reqs)
}

func TestTheEvaluationHasTheSamplersTokenLimit(t *testing.T) {
	cases := map[string]struct {
		own     int
		sampler Plugin
		want    int
	}{
		"its own limit wins":                  {7, Plugin{Name: "short"}, 7},
		"the script's limit of the sampler":   {0, Plugin{Name: "short", Settings: sdk.Settings{"max_tokens": 9.0}}, 9},
		"the limit in the sampler's manifest": {0, Plugin{Name: "short"}, 12},
		"a sampler without a limit":           {0, Plugin{Name: "nucleus"}, 256},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l, policy, oracle := newLoop(t, create(t), testPlan())
			seen := &limits{table: policy}
			l.Policy, l.Plugins = seen, with{plugins{oracle: oracle}, oracle}
			l.Experiment.Evaluate.MaxTokens, l.Experiment.Plan.Sampler = c.own, c.sampler
			if _, err := l.Measure(t.Context(), l.Test); err != nil {
				t.Fatal(err)
			}
			if len(seen.seen) == 0 || slices.Min(seen.seen) != c.want || slices.Max(seen.seen) != c.want {
				t.Errorf("the limits are %v, want %d", seen.seen, c.want)
			}
		})
	}
}

// adrift computes log-probabilities otherwise than its steps do.
type adrift struct{ *table }

func (p adrift) LogProbs(ctx context.Context, texts []Text) ([]LogProb, error) {
	out, err := p.table.LogProbs(ctx, texts)
	for i := range out {
		out[i].LogProb -= 1e-9
	}
	return out, err
}

func TestAReferenceOfTheSameWeightsMustAgreeAtTheFirstStep(t *testing.T) {
	for _, reference := range []string{"previous", "initial"} {
		plan := testPlan()
		plan.Reference = reference
		l, policy, _ := newLoop(t, create(t), plan)
		l.Policy = adrift{policy}
		err := l.Execute(t.Context())
		if sdk.CodeOf(err) != sdk.CodeInternal || !strings.Contains(fmt.Sprint(err), "must be equal") {
			t.Errorf("reference %q: code %d: %v", reference, sdk.CodeOf(err), err)
		}
	}
}
