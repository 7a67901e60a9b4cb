package loop

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// table is a policy over ten one-digit completions, the same for every prompt: a softmax of ten
// logits. Its derivatives are exact, so the loop is tested without the engine.
type table struct {
	Logits   [10]float64
	Velocity [10]float64             // the optimizer's state
	fault    func(call string) error // called before each call; nil: none
}

func (p *table) before(call string) error {
	if p.fault == nil {
		return nil
	}
	return p.fault(call)
}

func (p *table) probs(temperature float64) [10]float64 {
	var out [10]float64
	top, sum := math.Inf(-1), 0.0
	for _, x := range p.Logits {
		top = max(top, x)
	}
	for i, x := range p.Logits {
		out[i] = math.Exp((x - top) / temperature)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

func (p *table) Generate(ctx context.Context, req sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	if err := errors.Join(ctx.Err(), p.before("generate")); err != nil {
		return sdk.GenerateResponse{}, err
	}
	probs := p.probs(max(req.Options.Temperature, 1e-3))
	natural := p.probs(1)
	var out sdk.GenerateResponse
	for _, seeds := range req.Seeds {
		var row []sdk.Completion
		for _, seed := range seeds {
			u := rand.New(rand.NewPCG(seed, 0)).Float64()
			k := 0
			for u -= probs[0]; u > 0 && k < 9; u -= probs[k] {
				k++
			}
			logp := math.Log(natural[k])
			row = append(row, sdk.Completion{Text: strconv.Itoa(k), Tokens: []int32{int32(k)}, LogProb: &logp, Finish: sdk.FinishStop, Seed: seed})
		}
		out.Completions = append(out.Completions, row)
	}
	return out, nil
}

func (p *table) GenerateAll(ctx context.Context, reqs ...sdk.GenerateRequest) ([]sdk.GenerateResponse, error) {
	return generateAll(ctx, p, reqs)
}

func generateAll(ctx context.Context, g sdk.Generator, reqs []sdk.GenerateRequest) (out []sdk.GenerateResponse, err error) {
	for _, req := range reqs {
		res, err := g.Generate(ctx, req)
		if err != nil {
			return nil, err
		}
		out = append(out, res)
	}
	return out, nil
}

func digit(t Text) int { k, _ := strconv.Atoi(t.Completion.Text); return k }

func (p *table) LogProbs(_ context.Context, texts []Text) ([]LogProb, error) {
	if err := p.before("logprobs"); err != nil {
		return nil, err
	}
	probs := p.probs(1)
	out := make([]LogProb, len(texts))
	for i, t := range texts {
		out[i] = LogProb{math.Log(probs[digit(t)]), 1}
	}
	return out, nil
}

// TokenLogProbs: every completion is one token.
func (p *table) TokenLogProbs(ctx context.Context, texts []Text) ([][]float64, error) {
	logps, err := p.LogProbs(ctx, texts)
	return rows(sums(logps)), err
}

func rows(x []float64) [][]float64 {
	out := make([][]float64, len(x))
	for i := range x {
		out[i] = x[i : i+1]
	}
	return out
}

func (p *table) StepTokens(ctx context.Context, texts []Text, lr float64, loss TokenLossFunc) (StepResult, error) {
	return p.Step(ctx, texts, lr, func(logps []float64) (float64, []float64, error) {
		value, gradient, err := loss(rows(logps))
		return value, slices.Concat(gradient...), err
	})
}

func (p *table) StartTraining(context.Context, Optimizer) error {
	p.Velocity = [10]float64{}
	return p.before("start")
}

func (p *table) Step(_ context.Context, texts []Text, lr float64, loss LossFunc) (StepResult, error) {
	if err := p.before("step"); err != nil {
		return StepResult{}, err
	}
	probs := p.probs(1)
	logps := make([]float64, len(texts))
	for i, t := range texts {
		logps[i] = math.Log(probs[digit(t)])
	}
	value, gradient, err := loss(logps)
	if err != nil {
		return StepResult{}, err
	}
	// d log π(k)/d logit j = [j = k] − π(j)
	var grad [10]float64
	for i, t := range texts {
		for j := range grad {
			grad[j] -= gradient[i] * probs[j]
		}
		grad[digit(t)] += gradient[i]
	}
	for j, g := range grad {
		p.Velocity[j] = 0.1*p.Velocity[j] + g
		p.Logits[j] -= lr * p.Velocity[j]
	}
	return StepResult{Loss: value, Tokens: len(texts)}, nil
}

func (p *table) Save(_ context.Context, dir string, position []byte, training bool) error {
	if err := p.before("save"); err != nil {
		return err
	}
	state := *p
	if !training {
		state.Velocity = [10]float64{}
	}
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	err = fsx.WriteDir(dir, func(tmp string) error {
		return errors.Join(
			fsx.Put(filepath.Join(tmp, "logits.json"), text),
			fsx.Put(filepath.Join(tmp, "position.json"), position),
			fsx.Seal(tmp))
	})
	if err != nil {
		return sdk.Errorf(sdk.CodeIO, "%w", err)
	}
	return nil
}

func (p *table) Load(_ context.Context, dir string) ([]byte, error) {
	if err := p.before("load"); err != nil {
		return nil, err
	}
	if err := errors.Join(fsx.Recover(dir), fsx.Verify(dir)); err != nil {
		return nil, sdk.Errorf(sdk.CodeCorrupt, "%w", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "logits.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, p); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(dir, "position.json"))
}

func (p *table) Fingerprint() string {
	text, _ := json.Marshal(p.Logits)
	return fmt.Sprintf("%x", sha256.Sum256(text))
}

// bigger prefers the bigger digit; 9 is correct.
type bigger struct {
	fault   func(call string) error
	abstain string
	manual  sdk.OracleTraits
}

func (o *bigger) Manifest() sdk.Manifest {
	return sdk.Manifest{Kind: sdk.KindOracle, Name: "bigger", Version: "1", Oracle: o.manual}
}
func (o *bigger) Configure(context.Context, sdk.Settings) error { return nil }
func (o *bigger) Judge(_ context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	if o.fault != nil {
		if err := o.fault("judge"); err != nil {
			return nil, err
		}
	}
	var out []sdk.Verdicts
	for _, c := range batch {
		v := sdk.Verdicts{ID: c.ID}
		for _, p := range c.Pairs {
			verdict := sdk.Verdict{Abstain: o.abstain}
			if c.Candidates[p.A] > c.Candidates[p.B] {
				verdict.P = 1
			}
			v.Pairs = append(v.Pairs, verdict)
		}
		for _, text := range c.Candidates {
			correct := 0.0
			if text == "9" {
				correct = 1
			}
			v.Assessed = append(v.Assessed, sdk.Assessment{Labels: map[string]float64{sdk.LabelCorrect: correct}})
		}
		out = append(out, v)
	}
	return out, nil
}

// generatorSampler draws from the generator at T=1.
type generatorSampler struct{}

func (generatorSampler) Manifest() sdk.Manifest {
	return sdk.Manifest{Kind: sdk.KindSampler, Name: "nucleus", Sampler: sdk.SamplerTraits{UsesGenerator: true}}
}
func (generatorSampler) Configure(context.Context, sdk.Settings) error { return nil }
func (generatorSampler) Sample(ctx context.Context, req sdk.SampleRequest, g sdk.Generator) (sdk.SampleResponse, error) {
	r := sdk.GenerateRequest{Seeds: req.Seeds, Options: sdk.GenerateOptions{Temperature: 1, MaxTokens: 4}}
	for _, p := range req.Prompts {
		r.Prompts = append(r.Prompts, p.Messages)
	}
	res, err := g.Generate(ctx, r)
	return sdk.SampleResponse(res), err
}

// nines is a teacher that always answers 9.
type nines struct{ generatorSampler }

func (nines) Manifest() sdk.Manifest { return sdk.Manifest{Kind: sdk.KindSampler, Name: "nines"} }
func (nines) Sample(_ context.Context, req sdk.SampleRequest, _ sdk.Generator) (out sdk.SampleResponse, err error) {
	for range req.Prompts {
		out.Completions = append(out.Completions, []sdk.Completion{{Text: "9"}})
	}
	return out, nil
}

// dpo is the DPO loss with β 0.5, whose state counts its calls.
type dpo struct{ sdk.Loss }

func newDPO() sdk.Loss {
	return dpo{sdk.Pairwise(sdk.Manifest{Name: "dpo", Settings: []sdk.Setting{{Name: "beta", Type: sdk.TypeNumber, Default: 0.5}}}, func(s sdk.Settings) (sdk.PairFunc, error) {
		beta := s.Number("beta", 0)
		return func(t sdk.PairTerm) (float64, float64, float64) {
			z := beta * (t.Chosen - t.Rejected)
			d := -beta / (1 + math.Exp(z))
			return math.Log1p(math.Exp(-z)), d, -d
		}, nil
	})}
}

func (l dpo) Evaluate(ctx context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	out, err := l.Loss.Evaluate(ctx, b)
	out.State = append(b.State, 'x')
	return out, err
}

type plugins struct {
	oracle *bigger
	loss   sdk.Loss    // nil: dpo
	all    sdk.Sampler // nil: by name
}

func (p plugins) Oracle(context.Context, Plugin) (sdk.Oracle, rundir.PluginRecord, error) {
	return p.oracle, rundir.PluginRecord{Kind: sdk.KindOracle, Name: "bigger"}, nil
}
func (p plugins) Loss(context.Context, Plugin) (sdk.Loss, rundir.PluginRecord, error) {
	if p.loss != nil {
		return p.loss, rundir.PluginRecord{Kind: sdk.KindLoss, Name: "given"}, nil
	}
	return newDPO(), rundir.PluginRecord{Kind: sdk.KindLoss, Name: "dpo"}, nil
}
func (p plugins) Sweep() {}
func (p plugins) Sampler(_ context.Context, q Plugin) (sdk.Sampler, rundir.PluginRecord, error) {
	rec := rundir.PluginRecord{Kind: sdk.KindSampler, Name: q.Name}
	if p.all != nil {
		return p.all, rec, nil
	}
	if q.Name == "nines" {
		return nines{}, rec, nil
	}
	return generatorSampler{}, rec, nil
}

// script is the paper's behaviour; with a teacher, all completions may be paired.
type script struct{ plan Plan }

func (s script) Plan(_ context.Context, t int, history []rundir.IterationRecord) (*Plan, error) {
	if len(history) != t {
		return nil, fmt.Errorf("iteration %d has a history of %d", t, len(history))
	}
	plan := s.plan
	plan.Prompts = Selection{Split: t, Of: 3}
	return &plan, nil
}
func (s script) Mix(_ context.Context, _ int, _ sdk.Prompt, own, teacher []sdk.Completion) ([]int, error) {
	var all []int
	for i := range len(own) + len(teacher) {
		all = append(all, i)
	}
	return all, nil
}
func (s script) Pairs(_ context.Context, _ int, _ sdk.Prompt, g *preference.Game, rule preference.Rule) ([]preference.Pair, error) {
	return g.Pairs(rule)
}

type silent struct{}

func (silent) Start(string, int) {}
func (silent) Add(int)           {}
func (silent) Already(int)       {}
func (silent) Done()             {}

func testPlan() Plan {
	p := DefaultPlan()
	p.Oracle, p.Loss, p.LR, p.BatchSize = Plugin{Name: "bigger"}, Plugin{Name: "dpo", C: 4}, 2, 16
	return p
}

func prompts(name string, n int) []sdk.Prompt {
	var out []sdk.Prompt
	for i := range n {
		out = append(out, sdk.Prompt{ID: fmt.Sprintf("%s-%d", name, i), Messages: []sdk.Message{{Role: "user", Content: fmt.Sprintf("%s %d", name, i)}}})
	}
	return out
}

func newLoop(t *testing.T, run *rundir.Run, plan Plan) (*Loop, *table, *bigger) {
	t.Helper()
	policy, oracle := &table{}, &bigger{}
	for i := range policy.Logits {
		policy.Logits[i] = -float64(i) / 4 // prefers small digits
	}
	return &Loop{
		Experiment: Experiment{Seed: 7, Iterations: 3, CheckpointEvery: 2, Evaluate: Evaluate{Oracle: Plugin{Name: "bigger"}, Temperature: 0, MaxTokens: 4}, Plan: plan},
		Script:     script{plan}, Policy: policy, Plugins: plugins{oracle: oracle}, Run: run,
		Train: prompts("train", 210), Validation: prompts("validation", 30), Test: prompts("test", 60),
		Progress: silent{}, Log: func(string, ...any) {},
	}, policy, oracle
}

func create(t *testing.T) *rundir.Run {
	t.Helper()
	run, err := rundir.Create(filepath.Join(t.TempDir(), "run"), rundir.Header{Seed: 7, Iterations: 3}, []byte("-- test"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { run.Close() })
	return run
}

// records returns what must be equal between two runs: all records but wall time.
func records(t *testing.T, run *rundir.Run) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(run.Dir(), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "lock" || d.Name() == "run.json" {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(run.Dir(), path)
		out[rel] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	its, err := run.Iterations()
	if err != nil {
		t.Fatal(err)
	}
	for i := range its {
		its[i].Seconds = nil
	}
	text, err := json.Marshal(its)
	if err != nil {
		t.Fatal(err)
	}
	out["run.jsonl"] = string(text)
	return out
}

func TestThePolicyLearnsWhatTheOraclePrefers(t *testing.T) {
	run := create(t)
	l, _, _ := newLoop(t, run, testPlan())
	if err := l.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	its, err := run.Iterations()
	if err != nil {
		t.Fatal(err)
	}
	if len(its) != 4 {
		t.Fatalf("%d records, want π_1 and 3 iterations", len(its))
	}
	first, last := its[0].Evaluation.Test, its[3].Evaluation.Test
	if last.AccuracySampled.Mean < first.AccuracySampled.Mean+0.1 || last.WinRate.Mean < 0.9 {
		t.Errorf("sampled accuracy went from %v to %v, win rate over π_1 is %v", first.AccuracySampled.Mean, last.AccuracySampled.Mean, last.WinRate.Mean)
	}
	for _, it := range its[1:] {
		if it.Prompts != 70 || it.Completions != 350 || it.Steps == 0 || it.Pairs["student_student"] == 0 || it.Evaluation.Test.KLParent.Mean <= 0 {
			t.Errorf("iteration %d: %+v", it.Iteration, it)
		}
		if len(it.Evaluation.Test.CrossPlay) != it.Iteration {
			t.Errorf("iteration %d plays %d earlier policies", it.Iteration, len(it.Evaluation.Test.CrossPlay))
		}
	}
	// The state crosses iterations: one letter for each step of the run.
	if n := its[1].Steps + its[2].Steps + its[3].Steps; len(its[3].LossState) != n {
		t.Errorf("the loss's state has %d letters after %d steps", len(its[3].LossState), n)
	}
	if reason, _ := run.Concluded(); reason != "all 3 iterations are done" {
		t.Errorf("concluded: %q", reason)
	}
}

// What an evaluation says of a completion is what each policy gives it, whether it was scored or known from before.
func TestLogProbabilitiesOfAnEvaluationAreThoseOfItsPolicies(t *testing.T) {
	run := create(t)
	l, _, _ := newLoop(t, run, testPlan())
	if err := l.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	known, scored := 0, 0
	var before []rundir.EvalRecord
	for i := range 4 {
		it, err := run.Iteration(i)
		if err != nil {
			t.Fatal(err)
		}
		records, err := rundir.ReadLog[rundir.EvalRecord](it.Path(rundir.TestFile))
		if err != nil {
			t.Fatal(err)
		}
		for _, under := range []struct {
			policy  int
			logProb func(r rundir.EvalRecord) float64
		}{
			{i, func(r rundir.EvalRecord) float64 { return r.LogProb }},
			{max(0, i-1), func(r rundir.EvalRecord) float64 { return r.LogProbParent }},
			{0, func(r rundir.EvalRecord) float64 { return r.LogProbInitial }},
		} {
			if err := l.loadIteration(t.Context(), under.policy); err != nil {
				t.Fatal(err)
			}
			for k, r := range records {
				want, err := l.Policy.LogProbs(t.Context(), []Text{{l.Test[k].Messages, r.Sampled}})
				if err != nil {
					t.Fatal(err)
				}
				if got := under.logProb(r); got != want[0].LogProb {
					t.Errorf("iteration %d, prompt %s: log-probability %v under policy %d, want %v", i, r.Prompt, got, under.policy, want[0].LogProb)
				}
			}
		}
		for k := range before {
			if sameTokens(records[k].Sampled, before[k].Sampled) {
				known++
			} else {
				scored++
			}
		}
		before = records
	}
	if known == 0 || scored == 0 {
		t.Errorf("%d completions were known and %d not: the test is of both", known, scored)
	}
}

// The margins of the first step are 0: policy and reference are the same weights. So the DPO loss
// of its batch is ln 2.
func TestTheFirstLossIsLogTwo(t *testing.T) {
	run := create(t)
	l, _, _ := newLoop(t, run, testPlan())
	if err := l.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 3; i++ {
		it, _ := run.Iteration(i)
		steps, err := rundir.ReadLog[rundir.StepRecord](it.Path(rundir.StepsFile))
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(steps[0].Loss-math.Ln2) > 1e-12 || steps[0].Metrics["rewards/margins"] != 0 {
			t.Errorf("iteration %d: the first loss is %v, its margin %v", i, steps[0].Loss, steps[0].Metrics["rewards/margins"])
		}
	}
}

// Whatever call fails, and however often, the run that goes on afterwards writes the same records
// as one that was never interrupted.
func TestAnInterruptedRunGoesOnToTheSameRecords(t *testing.T) {
	whole := create(t)
	l, policy, oracle := newLoop(t, whole, testPlan())
	calls := map[string]int{}
	var mu sync.Mutex // sampling and judging overlap
	count := func(call string) error {
		mu.Lock()
		defer mu.Unlock()
		calls[call]++
		return nil
	}
	policy.fault, oracle.fault = count, count
	if err := l.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := records(t, whole)

	boom := errors.New("boom")
	for call, n := range calls {
		for _, at := range []int{1, n / 2, n} {
			if at == 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s %d of %d", call, at, n), func(t *testing.T) {
				run := create(t)
				seen := 0
				fault := func(c string) error {
					if c == call {
						if seen++; seen == at {
							return boom
						}
					}
					return nil
				}
				l, policy, oracle := newLoop(t, run, testPlan())
				policy.fault, oracle.fault = fault, fault
				if err := l.Execute(t.Context()); !errors.Is(err, boom) {
					t.Fatalf("want the fault, have %v", err)
				}
				l, _, _ = newLoop(t, run, testPlan())
				if err := l.Execute(t.Context()); err != nil {
					t.Fatal(err)
				}
				got := records(t, run)
				for name := range want {
					if got[name] != want[name] {
						t.Errorf("%s differs from the uninterrupted run's", name)
					}
				}
			})
		}
	}
}

func TestACancelledRunKeepsWhatItHas(t *testing.T) {
	run := create(t)
	l, policy, _ := newLoop(t, run, testPlan())
	ctx, cancel := context.WithCancel(t.Context())
	policy.fault = func(call string) error {
		if call == "step" {
			cancel()
		}
		return ctx.Err()
	}
	if err := l.Execute(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("want cancelled, have %v", err)
	}
	it, _ := run.Iteration(1)
	verdicts, err := rundir.ReadLog[rundir.VerdictsRecord](it.Path(rundir.VerdictsFile))
	if err != nil || len(verdicts) != 70 {
		t.Errorf("%d verdicts are kept (%v), want 70", len(verdicts), err)
	}
}

func TestTeacherCompletionsArePairedAndCounted(t *testing.T) {
	run := create(t)
	plan := testPlan()
	plan.Teacher = &Plugin{Name: "nines"}
	l, _, _ := newLoop(t, run, plan)
	if err := l.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	its, _ := run.Iterations()
	if its[1].Pairs["teacher_student"] == 0 || its[1].Completions != 70*6 {
		t.Errorf("pairs %v of %d completions", its[1].Pairs, its[1].Completions)
	}
}

func TestRunsThatCannotGoOnSayWhy(t *testing.T) {
	cases := map[string]struct {
		change func(*Loop, *bigger)
		code   sdk.Code
		words  string
	}{
		"an oracle that abstains": {func(_ *Loop, o *bigger) { o.abstain = "too hard" }, sdk.CodeOracle, "too hard"},
		"no pairs":                {func(l *Loop, _ *bigger) { l.Script = script{noPairs(l)} }, sdk.CodeOracle, "no pairs"},
		"an empty split":          {func(l *Loop, _ *bigger) { l.Train = l.Train[:2] }, sdk.CodeUsage, "split"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l, _, oracle := newLoop(t, create(t), testPlan())
			c.change(l, oracle)
			err := l.Execute(t.Context())
			if sdk.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.words) {
				t.Errorf("code %d: %v", sdk.CodeOf(err), err)
			}
		})
	}
}

func noPairs(l *Loop) Plan {
	p := l.Experiment.Plan
	p.Samples = 1
	return p
}

// An oracle with a position bias answers "the first" always: both orders disagree, which is a tie.
func TestBothOrdersAreAskedWhereOrderMatters(t *testing.T) {
	l, _, oracle := newLoop(t, create(t), testPlan())
	oracle.manual.OrderMatters = true
	if err := l.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	its, _ := l.Run.Iterations()
	plain, _, _ := newLoop(t, create(t), testPlan())
	if err := plain.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	once, _ := plain.Run.Iterations()
	if its[1].Asked != 2*once[1].Asked || its[1].Flipped != 0 {
		t.Errorf("asked %d, once %d, flipped %v", its[1].Asked, once[1].Asked, its[1].Flipped)
	}
}

// marked is a generator of the table whose completions tell by their end that it drew them.
type marked struct{ *table }

func (g marked) Generate(ctx context.Context, req sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	res, err := g.table.Generate(ctx, req)
	for _, row := range res.Completions {
		for i := range row {
			row[i].Finish, row[i].LogProb = sdk.FinishLength, nil
		}
	}
	return res, err
}

// What samplers draw from is another policy than the one that is trained and measured: a reference's log-probabilities are
// the policy's, or the first step would fail, and so are an evaluation's completions.
func TestSamplersDrawFromTheGeneratorForThem(t *testing.T) {
	plan := testPlan()
	l, policy, _ := newLoop(t, create(t), plan)
	l.Draws = marked{policy}
	l.Experiment.Iterations = 1
	l.Train = l.Train[:8]
	if err := l.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	it, err := l.Run.Iteration(1)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := rundir.ReadLog[rundir.GroupRecord](it.Path(rundir.CompletionsFile))
	if err != nil {
		t.Fatal(err)
	}
	answers, err := rundir.ReadLog[rundir.EvalRecord](it.Path(rundir.TestFile))
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) == 0 || len(answers) == 0 {
		t.Fatalf("%d groups and %d answers were recorded", len(groups), len(answers))
	}
	for _, g := range groups {
		for _, c := range g.Completions {
			if c.Finish != sdk.FinishLength || c.LogProb != nil {
				t.Errorf("a sampler drew %+v", c)
			}
		}
	}
	for _, r := range answers {
		if r.Greedy.Finish != sdk.FinishStop || r.Sampled.Finish != sdk.FinishStop {
			t.Errorf("an evaluation's completions were drawn for samplers: %+v and %+v", r.Greedy, r.Sampled)
		}
	}
}
