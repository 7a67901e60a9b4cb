package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

var update = flag.Bool("update", false, "write the golden files of testdata anew")

// estimate is a mean with its interval.
func estimate(mean, low, high float64) *rundir.Estimate {
	return &rundir.Estimate{Mean: mean, Low: &low, High: &high, N: 40}
}

// figures are a policy's on the test prompts, all different.
func figures(t int) rundir.Figures {
	x := float64(t)
	f := rundir.Figures{
		Accuracy: estimate(0.125+x/10, 0.055+x/10, 0.261+x/10), AccuracySampled: estimate(0.2+x/10, 0.1, 0.5),
		MeanTokens: *estimate(39.96-x, 35-x, 45-x),
	}
	if t == 0 {
		return f
	}
	for s := range t {
		f.CrossPlay = append(f.CrossPlay, estimate(0.9-x/10+float64(s)/100, 0.4, 0.95))
	}
	f.WinRate, f.WinRateParent = f.CrossPlay[0], f.CrossPlay[t-1]
	f.WinRateSampled = estimate(0.55, 0.4, 0.7)
	f.KLParent, f.KLInitial = estimate(0.25, 0.1, 0.4), estimate(0.5*x, 0.1, 3)
	return f
}

// record is iteration t's, by hand.
func record(t int) rundir.IterationRecord {
	f := figures(t)
	rec := rundir.IterationRecord{
		Iteration: t, Evaluation: rundir.Evaluation{Validation: f, Test: f},
		Seconds: map[string]float64{"evaluate": 1.5}, Pairs: map[string]int{},
	}
	if t > 0 {
		rec.Prompts, rec.Completions, rec.Asked, rec.Abstained, rec.Flipped, rec.Cycles = 20, 100, 240, 2, 0.0625, 1
		rec.Pairs = map[string]int{"teacher_student": 11, "student_teacher": 1, "student_student": 30, "teacher_teacher": 2}
		rec.Steps, rec.Loss, rec.LR, rec.Oracle, rec.LossName = 6, 0.69314718, 1e-4, "verifier", "dno"
		rec.Cached = 30
		if t == 2 {
			rec.Skipped = 1
		}
		rec.Seconds = map[string]float64{"sample": 4, "pair": 0.25, "train": 2, "evaluate": 1.5}
		rec.Inequality = &rundir.Inequality{Left: 0.55, Right: 0.5 + 0.1*float64(t)}
	}
	return rec
}

// runOf makes a run directory of the records; end is why it has ended, or "".
func runOf(t *testing.T, end string, records ...rundir.IterationRecord) *rundir.Run {
	t.Helper()
	run, err := rundir.Create(filepath.Join(t.TempDir(), "run"), rundir.Header{
		Script: "my.lua", Model: "embedded:geometry", Seed: 7, Iterations: len(records) - 1,
	}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { run.Close() })
	for _, rec := range records {
		if err := run.Finish(rec); err != nil {
			t.Fatal(err)
		}
		it, err := run.Iteration(rec.Iteration)
		if err != nil {
			t.Fatal(err)
		}
		if err := rundir.WriteLog(it.Path(rundir.TestFile), answers(rec.Iteration)); err != nil {
			t.Fatal(err)
		}
	}
	if end != "" {
		if err := run.Conclude(end); err != nil {
			t.Fatal(err)
		}
	}
	return run
}

// The policies' answers to the test prompts: of the first three the verdict changes in each way
// that it can, the fourth has no label, the fifth is corrected too, with a text that would do harm.
func answers(t int) []rundir.EvalRecord {
	label := func(x float64) *sdk.Assessment { return &sdk.Assessment{Labels: map[string]float64{"correct": x}} }
	answer := func(id, text string, a *sdk.Assessment) rundir.EvalRecord {
		return rundir.EvalRecord{Prompt: id, Greedy: sdk.Completion{Text: text}, Assessed: a}
	}
	if t == 0 {
		return []rundir.EvalRecord{
			answer("a", "7+5=2", label(0)), answer("b", "2+2=4", label(1)), answer("c", "3+3=7", label(0)),
			answer("d", "what?", nil), answer("e", "1+1=\x1b[31m3", label(0)),
		}
	}
	return []rundir.EvalRecord{
		answer("a", "7+5=12", label(1)), answer("b", "2+2=5", label(0)), answer("c", "3+3=8", label(0)),
		answer("d", "well", nil), answer("e", "1+1=\n2\u202e", label(1)),
	}
}

func prompts() []sdk.Prompt {
	var out []sdk.Prompt
	for _, p := range [][3]string{{"a", "7 and 5?", "12"}, {"b", "2 and 2?", "4"}, {"c", "3 and 3?", "6"}, {"d", "Well?", ""}, {"e", "1 and 1?", "2"}} {
		out = append(out, sdk.Prompt{ID: p[0], Messages: []sdk.Message{{Role: "user", Content: p[1]}}, Answer: p[2]})
	}
	return out
}

// withoutLabels is a record of an oracle that only compares, does so for nobody's β, and abstained
// from all against the parent.
func withoutLabels(t int) rundir.IterationRecord {
	rec := record(t)
	f := &rec.Evaluation.Test
	f.Accuracy, f.AccuracySampled, f.WinRateParent = nil, nil, nil
	f.MeanTokens.Low, f.MeanTokens.High = nil, nil
	if t > 0 {
		f.CrossPlay[t-1] = nil
	}
	rec.Inequality = nil
	return rec
}

// perfect has the widest figure in every column.
func perfect(t int) rundir.IterationRecord {
	rec := record(t)
	f := &rec.Evaluation.Test
	f.Accuracy, f.AccuracySampled = estimate(1, 0.9125, 1), estimate(1, 0.9125, 1)
	f.MeanTokens = *estimate(256, 256, 256)
	if t > 0 {
		for i := range f.CrossPlay {
			f.CrossPlay[i] = estimate(1, 0.9125, 1)
		}
		f.WinRate, f.WinRateParent = estimate(1, 0.9125, 1), estimate(1, 0.9125, 1)
		f.KLParent, f.KLInitial = estimate(12.34, 1, 20), estimate(99.94, 1, 100)
		rec.Pairs = map[string]int{"teacher_student": 99999, "student_teacher": 99999, "student_student": 99999}
		rec.Prompts, rec.Steps, rec.Flipped = 999999, 99999, 1
		rec.Seconds = map[string]float64{"sample": 9999, "train": 9999, "evaluate": 999}
	}
	return rec
}

// runs are what the golden files show.
func runs(t *testing.T) map[string]Report {
	t.Helper()
	build := func(run *rundir.Run, prompts []sdk.Prompt) Report {
		r, err := Build(run, prompts)
		if err != nil {
			t.Fatal(err)
		}
		r.Dir = "runs/mine" // in place of a temporary one
		return r
	}
	series := func(n int, f func(int) rundir.IterationRecord) (out []rundir.IterationRecord) {
		for t := range n + 1 {
			out = append(out, f(t))
		}
		return out
	}
	return map[string]Report{
		"three":          build(runOf(t, "all 3 iterations are done", series(3, record)...), prompts()),
		"without-labels": build(runOf(t, "", series(2, withoutLabels)...), nil),
		"baseline-only":  build(runOf(t, "", record(0)), prompts()),
		"nothing":        build(runOf(t, ""), prompts()),
		"wide":           build(runOf(t, "all 11 iterations are done", series(11, perfect)...), nil),
	}
}

func TestReportsAreDrawnAsInTheGoldenFiles(t *testing.T) {
	for name, r := range runs(t) {
		t.Run(name, func(t *testing.T) {
			var text bytes.Buffer
			if err := Write(&text, r); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".txt", text.Bytes())
			if name != "wide" { // its text alone is special
				object, err := json.MarshalIndent(r, "", "  ")
				if err != nil {
					t.Fatal(err)
				}
				golden(t, name+".json", append(object, '\n'))
			}
			for i, line := range strings.Split(text.String(), "\n") {
				if n := utf8.RuneCountInString(line); n > 80 {
					t.Errorf("line %d has %d columns: %s", i+1, n, line)
				}
				if strings.TrimRight(line, " ") != line {
					t.Errorf("line %d ends with white space: %q", i+1, line)
				}
			}
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got), renew with -update:\n%s", path, diff)
	}
}

func TestTheWallTimeIsTheSumOfAllStages(t *testing.T) {
	r := runs(t)["three"]
	// The baseline's 1.5 s, and 3 iterations of 4 + 0.25 + 2 + 1.5 s.
	if want := 1.5 + 3*7.75; r.WallSeconds != want {
		t.Errorf("%v s, want %v s", r.WallSeconds, want)
	}
}

func TestWithoutLabelsAccuracyIsNull(t *testing.T) {
	r := runs(t)["without-labels"]
	object, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Baseline   map[string]any
		Iterations []map[string]any
		CrossPlay  [][]any `json:"cross_play"`
		Corrected  []any
	}
	if err := json.Unmarshal(object, &got); err != nil {
		t.Fatal(err)
	}
	for i, object := range append(got.Iterations, got.Baseline) {
		for _, key := range []string{"accuracy", "accuracy_low", "accuracy_high", "accuracy_sampled", "mean_tokens_low"} {
			if v, there := object[key]; !there || v != nil {
				t.Errorf("object %d: %s is %v, there: %v", i, key, v, there)
			}
		}
	}
	if it := got.Iterations[1]; it["win_rate"] == nil || it["win_rate_parent"] != nil || it["kl"] != 0.25 || it["inequality"] != nil {
		t.Errorf("iteration 2: %v", it)
	}
	if len(got.CrossPlay) != 3 || got.CrossPlay[2][0] == nil || got.CrossPlay[2][1] != nil || len(got.CrossPlay[0]) != 0 {
		t.Errorf("the cross-play is %v", got.CrossPlay)
	}
	if got.Corrected == nil || len(got.Corrected) != 0 {
		t.Errorf("corrected is %v: want an empty list", got.Corrected)
	}
}

func TestOnlyMistakesThatWereCorrectedAreListed(t *testing.T) {
	want := []Corrected{{"7 and 5?", "12", "7+5=2", "7+5=12"}, {"1 and 1?", "2", "1+1=\x1b[31m3", "1+1=\n2\u202e"}}
	if diff := cmp.Diff(want, runs(t)["three"].Corrected); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestADamagedRunIsNotReported(t *testing.T) {
	run := runOf(t, "", record(0), record(1))
	path := filepath.Join(run.Dir(), "iter-001", rundir.TestFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[3] ^= 1
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(run, prompts()); sdk.CodeOf(err) != sdk.CodeCorrupt {
		t.Errorf("with a damaged answer: %v", err)
	}
}

func TestCleanShowsWhatATerminalWouldObey(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"plain text stays":                   {"12*4=48; π ≥ 3, 日本, é", "12*4=48; π ≥ 3, 日本, é"},
		"a line end is shown":                {"a\nb", "a⏎b"},
		"a colour is not obeyed":             {"\x1b[31mred\x1b[0m", "␛[31mred␛[0m"},
		"a title is not set":                 {"\x1b]0;title\x07", "␛]0;title␇"},
		"a carriage return hides nothing":    {"good\rbad", "good␍bad"},
		"a backspace hides nothing":          {"good\b\b", "good␈␈"},
		"tabs and nulls are shown":           {"\t\x00", "␉␀"},
		"delete is shown":                    {"\x7f", "␡"},
		"C1 controls are shown":              {"\u009b31m\u0085", "␡31m␡"},
		"an override is dropped":             {"abc\u202edef\u202c", "abcdef"},
		"isolates and marks are dropped":     {"\u2066a\u2069\u200eb\u200f\u061c", "ab"},
		"line and paragraph ends are shown":  {"a\u2028b\u2029c", "a⏎b⏎c"},
		"bytes that are no UTF-8 are marked": {"a\xffb\x9b", "a\ufffdb\ufffd"},
		"nothing stays nothing":              {"", ""},
	} {
		if got := Clean(test.text); got != test.want {
			t.Errorf("%s: %q became %q, want %q", name, test.text, got, test.want)
		}
	}
}

// Whatever a model writes, no control character and no bidi control reaches the terminal.
func FuzzClean(f *testing.F) {
	for _, text := range []string{"", "a\nb", "\x1b[31m", "\u202e", "\x9b", "\u0085\u2028"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := Clean(text)
		if !utf8.ValidString(got) {
			t.Fatalf("%q became %q: not UTF-8", text, got)
		}
		for _, r := range got {
			if r < 0x20 || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x2028 || r == 0x2029 {
				t.Fatalf("%q became %q, with %U in it", text, got, r)
			}
		}
		if Clean(got) != got {
			t.Fatalf("%q is clean, and became %q", got, Clean(got))
		}
	})
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, fmt.Errorf("no space") }

func TestAReportThatCannotBeWrittenIsAnError(t *testing.T) {
	if err := Write(full{}, runs(t)["three"]); err == nil || err.Error() != "no space" {
		t.Errorf("it ended with %v", err)
	}
}
