package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/core/engine/weights"
	"github.com/dno-project/dno/core/report"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// These tests run whole experiments on the small prompts and look at what their records say.

// records reads a log of the run at dir.
func records[T any](t *testing.T, dir, name string) []T {
	t.Helper()
	out, err := rundir.ReadLog[T](filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatalf("%s in %s holds nothing", name, dir)
	}
	return out
}

// reportOf decodes `dno report --json`.
func reportOf(t *testing.T, dir, run string) report.Report {
	t.Helper()
	var r report.Report
	if err := json.Unmarshal([]byte(works(t, dir, "report", "--json", run)), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// longerIsChosen checks that of each pair the longer text is chosen.
func longerIsChosen(t *testing.T, run string, iteration int) {
	t.Helper()
	for i, p := range records[rundir.PairRecord](t, run, fmt.Sprintf("iter-%03d/pairs.jsonl", iteration)) {
		chosen, rejected := p.Chosen[0].Content, p.Rejected[0].Content
		if len(chosen) <= len(rejected) {
			t.Errorf("iteration %d, pair %d: the chosen %q is not longer than the rejected %q", iteration, i, chosen, rejected)
		}
	}
}

func TestTheOracleOfTrainingIsSwitchedFromOutside(t *testing.T) {
	t.Parallel()
	dir := small(t)
	works(t, dir, "run", "small.lua", "--dir", "r", "--set", "oracle=length")
	for _, rec := range records[rundir.IterationRecord](t, dir, "r/run.jsonl")[1:] {
		if rec.Oracle != "length" {
			t.Errorf("iteration %d was judged by %q", rec.Iteration, rec.Oracle)
		}
		longerIsChosen(t, dir+"/r", rec.Iteration)
	}
	// The evaluation is still the verifier's: it alone labels answers as correct.
	for _, it := range reportOf(t, dir, "r").Iterations {
		if it.Accuracy == nil || it.AccuracySampled == nil || it.Oracle != "length" {
			t.Errorf("iteration %d: oracle %q, accuracy %v and %v", it.Iteration, it.Oracle, it.Accuracy, it.AccuracySampled)
		}
	}
	for _, rec := range records[rundir.EvalRecord](t, dir, "r/iter-002/eval-test.jsonl") {
		if rec.Assessed == nil {
			t.Fatalf("prompt %s was not assessed", rec.Prompt)
		}
	}
}

func TestAnyProgramIsAnOracle(t *testing.T) {
	t.Parallel()
	skipOnWindows(t)
	dir := small(t)
	judge := `#!/bin/sh
# The longer text wins.
while IFS= read -r line; do
  id=${line#*'"id":"'}; id=${id%%'"'*}
  a=${line#*'"a":"'}; a=${a%%'"'*}
  b=${line#*'"b":"'}; b=${b%%'"'*}
  p=0.5
  [ ${#a} -gt ${#b} ] && p=1
  [ ${#a} -lt ${#b} ] && p=0
  echo "{\"id\":\"$id\",\"p\":$p}"
done
`
	if err := os.WriteFile(filepath.Join(dir, "judge.sh"), []byte(judge), 0o755); err != nil {
		t.Fatal(err)
	}
	works(t, dir, "run", "small.lua", "--dir", "r", "--set", "iterations=1", "--set", `oracle={"command", path="./judge.sh"}`)
	longerIsChosen(t, dir+"/r", 1)
	for _, v := range records[rundir.VerdictsRecord](t, dir, "r/iter-001/verdicts.jsonl") {
		if !v.BothOrders {
			t.Errorf("prompt %s was not asked in both orders", v.Prompt)
		}
	}
	if r := reportOf(t, dir, "r"); r.Iterations[0].Oracle != "command" || r.Iterations[0].Accuracy == nil || r.Iterations[0].FlipRate != 0 {
		t.Errorf("the report says %+v", r.Iterations[0])
	}
}

// withMix is the small experiment with a teacher and the given body of mix.
func withMix(body string) string {
	return `local dno = require "dno"
return dno.experiment {
  model = "embedded:geometry",
  prompts = { train = "train.jsonl", validation = "validation.jsonl", test = "test.jsonl" },
  iterations = 2, samples = 4, oracle = "verifier", batch_size = 8,
  teacher = { "file", path = "teacher.jsonl" },
  mix = function(prompt, own, teacher, t) return ` + body + ` end,
}
`
}

func TestMixDecidesWhereTheTeacherStands(t *testing.T) {
	t.Parallel()
	// Groups of 2 iterations with 20 prompts each in which the teacher is mixed. Of 40 draws with
	// probability 1/2 the number is 20 ± 3.2; more than 3 standard deviations off is an error.
	tests := map[string]struct {
		mix              string
		fewest, most     int
		teacher, student bool // whether there must be pairs with, and without, the teacher
	}{
		"never":          {mix: `own`, student: true},
		"always":         {mix: `own .. teacher`, fewest: 40, most: 40, teacher: true, student: true},
		"half the time":  {mix: `own .. dno.when(dno.chance(0.5), teacher)`, fewest: 11, most: 29, teacher: true, student: true},
		"nobody but him": {mix: `dno.list { own[1] } .. teacher`, fewest: 40, most: 40, teacher: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := small(t)
			if err := os.WriteFile(filepath.Join(dir, "mix.lua"), []byte(withMix(test.mix)), 0o644); err != nil {
				t.Fatal(err)
			}
			works(t, dir, "run", "mix.lua", "--dir", "r")
			mixed := 0
			for i, it := range reportOf(t, dir, "r").Iterations {
				for _, g := range records[rundir.GroupRecord](t, dir, fmt.Sprintf("r/iter-%03d/completions.jsonl", i+1)) {
					if len(g.Completions) != 5 || g.Completions[4].Source != sdk.FromTeacher {
						t.Fatalf("prompt %s has %d completions: want 4 and the teacher's", g.Prompt.ID, len(g.Completions))
					}
					if slices.Contains(g.Mixed, 4) {
						mixed++
					}
				}
				counts := map[string]int{}
				for _, p := range records[rundir.PairRecord](t, dir, fmt.Sprintf("r/iter-%03d/pairs.jsonl", i+1)) {
					counts[p.Class]++
				}
				want := report.Pairs{TeacherStudent: counts["teacher_student"], StudentTeacher: counts["student_teacher"], StudentStudent: counts["student_student"]}
				if it.Pairs != want {
					t.Errorf("iteration %d: the report counts %+v, pairs.jsonl holds %+v", i+1, it.Pairs, want)
				}
				withTeacher := it.Pairs.TeacherStudent + it.Pairs.StudentTeacher
				if withTeacher > 0 != test.teacher || it.Pairs.StudentStudent > 0 != test.student {
					t.Errorf("iteration %d has the pairs %+v", i+1, it.Pairs)
				}
			}
			if mixed < test.fewest || mixed > test.most {
				t.Errorf("the teacher is in %d of 40 groups, want %d to %d", mixed, test.fewest, test.most)
			}
		})
	}
}

func TestAScheduleSwitchesOracleAndLoss(t *testing.T) {
	t.Parallel()
	dir := small(t)
	script := `local dno = require "dno"
return dno.experiment {
  model = "embedded:geometry",
  prompts = { train = "train.jsonl", validation = "validation.jsonl", test = "test.jsonl" },
  iterations = 3, samples = 4, oracle = "verifier", batch_size = 8,
  evaluate = { oracle = "verifier", max_tokens = 48 },
  schedule = function(t, history)
    if t < 3 then return {} end
    return { oracle = "length", loss = { "ipo", beta = 0.2 }, lr = 5e-5 }
  end,
}
`
	if err := os.WriteFile(filepath.Join(dir, "switch.lua"), []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	works(t, dir, "run", "switch.lua", "--dir", "r")
	type choice struct {
		Oracle, Loss string
		Beta, LR     float64
	}
	// The betas of the first two are the plugin's default, 1.
	want := []choice{{"verifier", "dno", 1, 1e-4}, {"verifier", "dno", 1, 1e-4}, {"length", "ipo", 0.2, 5e-5}}
	var recorded, reported []choice
	for _, rec := range records[rundir.IterationRecord](t, dir, "r/run.jsonl")[1:] {
		recorded = append(recorded, choice{rec.Oracle, rec.LossName, rec.Beta, rec.LR})
	}
	if diff := cmp.Diff(want, recorded); diff != "" {
		t.Errorf("run.jsonl (-want +got):\n%s", diff)
	}
	for i, it := range reportOf(t, dir, "r").Iterations {
		reported = append(reported, choice{it.Oracle, it.LossName, want[i].Beta, it.LR})
	}
	if diff := cmp.Diff(want, reported); diff != "" {
		t.Errorf("report --json (-want +got):\n%s", diff)
	}
	longerIsChosen(t, dir+"/r", 3)
}

// tensors reads a checkpoint's weights.
func tensors(t *testing.T, dir string) map[string][]float32 {
	t.Helper()
	f, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string][]float32{}
	for _, name := range f.Names() {
		tensor, _ := f.Tensor(name)
		x, err := tensor.Float32s(nil)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = x
	}
	return out
}

func TestTheLearningRateMovesEveryTensorOrNone(t *testing.T) {
	t.Parallel()
	dir := small(t)
	works(t, dir, "run", "small.lua", "--dir", "still", "--set", "lr=0", "--set", "iterations=1")
	works(t, dir, "run", "small.lua", "--dir", "moved", "--set", "iterations=1")
	before := tensors(t, dir+"/still/iter-000/checkpoint")
	if len(before) < 29 { // 3 layers of 9 tensors, the embedding and the last norm
		t.Fatalf("the model has %d tensors", len(before))
	}
	for name, after := range tensors(t, dir+"/still/iter-001/checkpoint") {
		if !slices.Equal(before[name], after) {
			t.Errorf("at lr 0 %s has moved", name)
		}
	}
	for name, after := range tensors(t, dir+"/moved/iter-001/checkpoint") {
		if slices.Equal(before[name], after) {
			t.Errorf("at lr 1e-4 %s has not moved", name)
		}
	}
	still := records[rundir.IterationRecord](t, dir, "still/run.jsonl")
	for _, sets := range [][2]rundir.Figures{
		{still[0].Evaluation.Validation, still[1].Evaluation.Validation}, {still[0].Evaluation.Test, still[1].Evaluation.Test},
	} {
		was, is := sets[0], sets[1]
		if *was.Accuracy.Low != *is.Accuracy.Low || was.Accuracy.Mean != is.Accuracy.Mean || was.AccuracySampled.Mean != is.AccuracySampled.Mean {
			t.Errorf("at lr 0 the accuracy went from %+v to %+v", *was.Accuracy, *is.Accuracy)
		}
		if is.WinRate.Mean != 0.5 || is.WinRateParent.Mean != 0.5 || is.KLParent.Mean != 0 || is.KLInitial.Mean != 0 {
			t.Errorf("at lr 0: win rate %v, against the start %v, KL %v", is.WinRate.Mean, is.WinRateParent.Mean, is.KLParent.Mean)
		}
	}
	// The same prompts, samples and pairs: only the updates differ.
	for _, name := range []string{"completions.jsonl", "verdicts.jsonl", "pairs.jsonl"} {
		if !slices.Equal(read(t, dir+"/still/iter-001/"+name), read(t, dir+"/moved/iter-001/"+name)) {
			t.Errorf("%s depends on the learning rate", name)
		}
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestF43TheNumberOfProcessorsChangesNoByte(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs three experiments")
	}
	t.Parallel()
	dir := small(t)
	counts := []string{"1", "2", "7"}
	for _, n := range counts {
		if _, errs, code := dno(t, dir, []string{"GOMAXPROCS=" + n}, "run", "small.lua", "--dir", n); code != 0 {
			t.Fatalf("with %s processors dno exited with %d: %s", n, code, errs)
		}
	}
	for _, n := range counts[1:] {
		for _, name := range []string{"completions.jsonl", "verdicts.jsonl", "pairs.jsonl", "steps.jsonl", "eval.json", "eval-test.jsonl", "checkpoint/model.safetensors"} {
			for _, it := range []string{"iter-001/", "iter-002/"} {
				if !slices.Equal(read(t, filepath.Join(dir, "1", it, name)), read(t, filepath.Join(dir, n, it, name))) {
					t.Errorf("%s differs between 1 and %s processors", it+name, n)
				}
			}
		}
	}
}

// A program that reads reports stands on these keys.
func TestTheReportHasTheDocumentedKeys(t *testing.T) {
	t.Parallel()
	dir := small(t)
	works(t, dir, "run", "small.lua", "--dir", "r")
	r, err := oneObject(works(t, dir, "report", "--json", "r"))
	if err != nil {
		t.Fatal(err)
	}
	// number returns the number at a path, and checks its range.
	number := func(object any, low, high float64, path ...string) float64 {
		t.Helper()
		for _, key := range path {
			m, _ := object.(map[string]any)
			object = m[key]
		}
		x, ok := object.(float64)
		if !ok || x < low || x > high {
			t.Errorf("%s is %v: want a number from %v to %v", strings.Join(path, "."), object, low, high)
		}
		return x
	}
	number(r, 0, 0, "seed")
	number(r, 0.01, 600, "wall_seconds")
	number(r, 0, 1, "baseline", "accuracy")
	number(r, 0, 1, "baseline", "accuracy_sampled")
	number(r, 1, 64, "baseline", "mean_tokens") // evaluate.max_tokens is 64
	iterations, _ := r["iterations"].([]any)
	if len(iterations) != 2 {
		t.Fatalf("there are %d iterations", len(iterations))
	}
	for i, it := range iterations {
		number(it, float64(i+1), float64(i+1), "iteration")
		accuracy := number(it, 0, 1, "accuracy")
		number(it, 0, accuracy, "accuracy_low")
		number(it, accuracy, 1, "accuracy_high")
		number(it, 0, 1, "accuracy_sampled")
		win := number(it, 0, 1, "win_rate")
		number(it, 0, win, "win_rate_low")
		number(it, win, 1, "win_rate_high")
		number(it, -5, 50, "kl") // an estimate of something ≥ 0 from 20 completions may be below it
		number(it, 1, 64, "mean_tokens")
		number(it, 0, 0, "pairs", "teacher_student")
		number(it, 0, 0, "pairs", "student_teacher")
		number(it, 1, 20*6, "pairs", "student_student") // of 20 prompts with 4 completions, 6 pairs each
		for _, stage := range []string{"sample", "pair", "train", "evaluate"} {
			number(it, 0, 600, "seconds", stage)
		}
	}

	text := works(t, dir, "report", "r")
	head, _, _ := strings.Cut(text, "\n  prompt ") // model text may be longer
	for _, line := range strings.Split(head, "\n") {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}
