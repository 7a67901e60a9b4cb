package loop

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// sick is a loss whose answers to some calls are not finite.
type sick struct {
	sdk.Loss
	bad   func(call int) bool
	calls int
}

func (l *sick) Evaluate(ctx context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	if l.calls++; l.bad(l.calls) {
		return sdk.LossResult{}, sdk.Errorf(sdk.CodeNumeric, "gradient[1] is NaN")
	}
	return l.Loss.Evaluate(ctx, b)
}

func smallSteps() Plan {
	plan := testPlan()
	plan.BatchSize = 4
	return plan
}

// F7: a step whose numbers are not finite is not made: the weights and the loss's state stay, its batch is kept, the
// step is counted. Three in a row stop the run, with the last checkpoint as it was.
func TestF7AStepThatIsNotFiniteIsSkipped(t *testing.T) {
	run := create(t)
	l, _, oracle := newLoop(t, run, smallSteps())
	l.Experiment.Iterations = 1
	l.Plugins = plugins{oracle: oracle, loss: &sick{Loss: newDPO(), bad: func(n int) bool { return n == 2 || n == 3 }}}
	if err := l.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	its, _ := run.Iterations()
	it, _ := run.Iteration(1)
	steps, err := rundir.ReadLog[rundir.StepRecord](it.Path(rundir.StepsFile))
	if err != nil {
		t.Fatal(err)
	}
	if its[1].Skipped != 2 || its[1].Steps != len(steps)-2 || len(its[1].LossState) != its[1].Steps {
		t.Errorf("%d steps were made and %d skipped of %d, and the loss's state has %d letters", its[1].Steps, its[1].Skipped, len(steps), len(its[1].LossState))
	}
	mean := 0.0
	for i, s := range steps {
		if (s.Skipped != "") != (i == 1 || i == 2) {
			t.Errorf("step %d: skipped is %q", i, s.Skipped)
		}
		mean += s.Loss / float64(its[1].Steps)
	}
	if mean != its[1].Loss {
		t.Errorf("the mean loss is %v, want %v", its[1].Loss, mean)
	}
	var bad badBatch
	if ok, err := it.ReadRecord(rundir.BadBatch(1), &bad); !ok || err != nil || bad.Step != 1 || len(bad.Pairs) != 4 || !strings.Contains(bad.Error, "gradient[1] is NaN") || bad.Completions[0].Policy == "" {
		t.Errorf("the batch that was kept is %+v, %v", bad, err)
	}

	run = create(t)
	l, policy, oracle := newLoop(t, run, smallSteps())
	l.Plugins = plugins{oracle: oracle, loss: &sick{Loss: newDPO(), bad: func(n int) bool { return n == 2 || n > 4 }}}
	err = l.Execute(t.Context())
	if sdk.CodeOf(err) != sdk.CodeNumeric || !strings.Contains(err.Error(), "3 steps in a row") {
		t.Fatalf("code %d: %v", sdk.CodeOf(err), err)
	}
	it, _ = run.Iteration(1)
	made, err := it.StepCheckpoints()
	if err != nil || len(made) == 0 || made[len(made)-1] != 6 { // every second step, skipped or not
		t.Errorf("the checkpoints are of the steps %v, %v", made, err)
	}
	after := policy.Fingerprint()
	if _, err := l.load(t.Context(), it.StepCheckpoint(4)); err != nil {
		t.Fatal(err)
	}
	if policy.Fingerprint() == after {
		return
	}
	t.Error("the weights moved in steps that were not made")
}

// Where training is interrupted, at most the steps since the last checkpoint are made again.
func TestF1TrainingGoesOnAtItsLastCheckpoint(t *testing.T) {
	const every = 3
	work := func(failAt int) (steps int, fingerprint string) {
		run := create(t)
		boom := errors.New("boom")
		for range 2 {
			l, policy, _ := newLoop(t, run, smallSteps())
			l.Experiment.Iterations, l.Experiment.CheckpointEvery = 1, every
			policy.fault = func(call string) error {
				if call != "step" {
					return nil
				}
				if steps++; steps == failAt {
					return boom
				}
				return nil
			}
			err := l.Execute(t.Context())
			if err == nil {
				return steps, policy.Fingerprint()
			}
			if !errors.Is(err, boom) {
				t.Fatal(err)
			}
		}
		t.Fatal("it did not end")
		return 0, ""
	}
	total, want := work(0)
	if total < 2*every {
		t.Fatalf("only %d steps", total)
	}
	for at := 1; at <= total; at++ {
		steps, got := work(at)
		if again := steps - total; again != (at-1)%every+1 { // the failed one too
			t.Errorf("stopped in step %d: %d steps are made again, want %d", at, again, (at-1)%every+1)
		}
		if got != want {
			t.Errorf("stopped in step %d: the weights are others", at)
		}
	}
}

// An interruption lets the step come to its end, and makes a checkpoint of it.
func TestF38AnInterruptedStepIsFinishedAndKept(t *testing.T) {
	run := create(t)
	l, policy, _ := newLoop(t, run, smallSteps())
	l.Experiment.CheckpointEvery = 0
	ctx, cancel := context.WithCancel(t.Context())
	steps := 0
	policy.fault = func(call string) error {
		if call == "step" {
			if steps++; steps == 5 {
				cancel()
			}
		}
		return nil
	}
	if err := l.Execute(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	it, _ := run.Iteration(1)
	if made, err := it.StepCheckpoints(); err != nil || !slices.Equal(made, []int{5}) {
		t.Errorf("after an interruption in step 5 there are the checkpoints %v, %v", made, err)
	}
}

// F4: whichever of the checkpoints is damaged, the newest one that is whole is used, it is said, and the weights
// at the end are the same.
func TestF4TheNewestWholeCheckpointIsUsed(t *testing.T) {
	whole, policy, _ := newLoop(t, create(t), smallSteps())
	if err := whole.Execute(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := policy.Fingerprint()
	interrupted := func(t *testing.T) *rundir.Run {
		run := create(t)
		l, policy, _ := newLoop(t, run, smallSteps())
		steps := 0
		done, _ := whole.Run.Iterations()
		policy.fault = func(call string) error {
			if call == "step" {
				if steps++; steps == done[1].Steps+6 { // in the second iteration, beyond two checkpoints
					return errors.New("boom")
				}
			}
			return nil
		}
		if err := l.Execute(t.Context()); err == nil {
			t.Fatal("it was not interrupted")
		}
		return run
	}
	for name, c := range map[string]struct {
		damaged []string // checkpoints, below the run's folder
		says    []string
	}{
		"none":                       {nil, []string{"goes on at step 4"}},
		"the newest of a step":       {[]string{"iter-002/step-000004"}, []string{"step-000004 of iteration 2 cannot be used", "goes on at step 2"}},
		"both of steps":              {[]string{"iter-002/step-000004", "iter-002/step-000002"}, []string{"step-000002 of iteration 2 cannot be used"}},
		"the last iteration's":       {[]string{"iter-001/checkpoint"}, []string{"going back to iteration 0"}},
		"the last iteration's and π": {[]string{"iter-001/checkpoint", "iter-000/checkpoint"}, []string{"made again from the model"}},
		"the first":                  {[]string{"iter-000/checkpoint"}, []string{"made again from the model", "goes on at step 4"}},
	} {
		for _, file := range []string{"logits.json", "position.json", "manifest.json"} {
			for how, damage := range map[string]func(path string) error{
				"a bit": func(path string) error {
					data, err := os.ReadFile(path)
					if err != nil {
						return err
					}
					data[len(data)/2] ^= 1
					return os.WriteFile(path, data, 0o644)
				},
				"cut":   func(path string) error { return os.Truncate(path, 5) },
				"empty": func(path string) error { return os.Truncate(path, 0) },
				"gone":  os.Remove,
			} {
				t.Run(name+"/"+file+"/"+how, func(t *testing.T) {
					t.Parallel()
					run := interrupted(t)
					for _, dir := range c.damaged {
						if err := damage(filepath.Join(run.Dir(), dir, file)); err != nil {
							t.Fatal(err)
						}
					}
					l, policy, _ := newLoop(t, run, smallSteps())
					var said strings.Builder
					l.Log = func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }
					if err := l.Execute(t.Context()); err != nil {
						t.Fatal(err)
					}
					for _, words := range c.says {
						if !strings.Contains(said.String(), words) {
							t.Errorf("it does not say %q:\n%s", words, &said)
						}
					}
					if policy.Fingerprint() != want {
						t.Error("the weights are others than those of a run without damage")
					}
				})
			}
		}
	}
}

// slow is an oracle that takes several calls at once, and whose answers come in any order.
type slow struct {
	*bigger
	open, most atomic.Int32
}

func (o *slow) Manifest() sdk.Manifest {
	m := o.bigger.Manifest()
	m.Oracle.Concurrency = 4
	return m
}

func (o *slow) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	n := o.open.Add(1)
	defer o.open.Add(-1)
	for most := o.most.Load(); n > most && !o.most.CompareAndSwap(most, n); most = o.most.Load() {
	}
	time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond) // a latency: nothing waits for it
	return o.bigger.Judge(ctx, batch)
}

// F43: the same bytes with any number of processors and in whatever order an oracle answers; the journal has the same
// judgments, in the order in which they came.
func TestF43TheOrderOfAnswersChangesNothing(t *testing.T) {
	var want map[string]string
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, procs := range []int{1, 2, 7} {
		runtime.GOMAXPROCS(procs)
		run := create(t)
		l, _, oracle := newLoop(t, run, testPlan())
		s := &slow{bigger: oracle}
		l.Plugins = with{plugins{oracle: oracle}, s}
		if err := l.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s.most.Load() < 2 {
			t.Error("the oracle was never asked twice at once")
		}
		got := records(t, run)
		lines := strings.Split(got[rundir.JudgmentsFile], "\n")
		slices.Sort(lines)
		got[rundir.JudgmentsFile] = strings.Join(lines, "\n")
		if want == nil {
			want = got
		}
		if len(got) != len(want) {
			t.Errorf("with %d processors there are %d files, not %d", procs, len(got), len(want))
		}
		for name, text := range want {
			if got[name] != text {
				t.Errorf("with %d processors %s differs", procs, name)
			}
		}
	}
}

// same is a sampler whose completions are all alike.
type same struct{ text string }

func (same) Manifest() sdk.Manifest {
	return sdk.Manifest{Kind: sdk.KindSampler, Name: "same", Version: "1"}
}
func (same) Configure(context.Context, sdk.Settings) error { return nil }
func (s same) Sample(_ context.Context, req sdk.SampleRequest, _ sdk.Generator) (sdk.SampleResponse, error) {
	var out sdk.SampleResponse
	for range req.Prompts {
		out.Completions = append(out.Completions, slices.Repeat([]sdk.Completion{{Text: s.text}}, req.K))
	}
	return out, nil
}

// F16: samples that are all alike are not asked about, and an iteration without pairs ends the run and says why.
func TestF16SamplesThatAreAllTheSame(t *testing.T) {
	for _, text := range []string{"5", ""} {
		run := create(t)
		l, _, oracle := newLoop(t, run, testPlan())
		l.Plugins = plugins{oracle: oracle, all: same{text}}
		err := l.Execute(t.Context())
		if sdk.CodeOf(err) != sdk.CodeOracle || !strings.Contains(err.Error(), "it has no pairs") {
			t.Errorf("%q: code %d: %v", text, sdk.CodeOf(err), err)
		}
		it, _ := run.Iteration(1)
		verdicts, err := rundir.ReadLog[rundir.VerdictsRecord](it.Path(rundir.VerdictsFile))
		if err != nil || len(verdicts) == 0 {
			t.Fatal(len(verdicts), err)
		}
		for _, v := range verdicts {
			if v.Asked != 0 || *v.Raw[0][1] != 0.5 {
				t.Errorf("%q: %d questions were asked, the verdict is %v", text, v.Asked, *v.Raw[0][1])
			}
		}
	}
}

// F35: what a prompt is called never becomes a path.
func TestF35PromptsOfAnyName(t *testing.T) {
	run := create(t)
	l, _, _ := newLoop(t, run, testPlan())
	names := []string{"../../x", "con", "/etc/passwd", strings.Repeat("n", 300), "a\x00b", "🙂", ".", "..", "a/b", "-rf"}
	for _, set := range [][]sdk.Prompt{l.Train, l.Validation, l.Test} {
		for i := range set {
			set[i].ID = fmt.Sprint(names[i%len(names)], i/len(names))
			if i < len(names) {
				set[i].ID = names[i]
			}
		}
	}
	plain, _, _ := newLoop(t, create(t), testPlan())
	for _, l := range []*Loop{l, plain} {
		if err := l.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	files := func(run *rundir.Run) (names []string) {
		err := filepath.WalkDir(filepath.Dir(run.Dir()), func(path string, _ os.DirEntry, err error) error {
			rel, _ := filepath.Rel(filepath.Dir(run.Dir()), path)
			names = append(names, rel)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	if have, want := files(run), files(plain.Run); !slices.Equal(have, want) {
		t.Errorf("the files are %q, want %q", have, want)
	}
}

// Whichever call fails, what was drawn and judged before it is not drawn or judged again: a batch at most.
func TestF1ABatchAtMostIsDoneAgain(t *testing.T) {
	work := func(call string, failAt int) (calls map[string]int) {
		run := create(t)
		boom := errors.New("boom")
		calls = map[string]int{}
		var mu sync.Mutex // sampling and judging overlap
		for range 2 {
			l, policy, oracle := newLoop(t, run, testPlan())
			l.Experiment.Iterations = 2
			fault := func(c string) error {
				mu.Lock()
				defer mu.Unlock()
				if calls[c]++; c == call && calls[c] == failAt {
					return boom
				}
				return nil
			}
			policy.fault, oracle.fault = fault, fault
			err := l.Execute(t.Context())
			if err == nil {
				return calls
			}
			if !errors.Is(err, boom) {
				t.Fatal(err)
			}
		}
		t.Fatal("it did not end")
		return nil
	}
	whole := work("", 0)
	// A batch of an evaluation is two calls, and one of sampling that is judged while the next is drawn may fail with it.
	for call, most := range map[string]int{"generate": 2, "judge": 1} {
		for at := 1; at <= whole[call]; at++ {
			calls := work(call, at)
			for _, c := range []string{"generate", "judge"} {
				if again := calls[c] - whole[c]; again > most {
					t.Errorf("where call %d of %s fails, %d calls of %s are made again, want at most %d", at, call, again, c, most)
				}
			}
		}
	}
}
