package host

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
)

func TestVerdictsAreChecked(t *testing.T) {
	batch := comparisons(2, "") // c0 and c1, each with two candidates and two ordered pairs
	score, nan := 1.0, math.NaN()
	for name, c := range map[string]struct {
		form   sdk.OracleForm
		change func(v []sdk.Verdicts) []sdk.Verdicts
		want   string // "" passes
	}{
		"probabilities from 0 to 1 pass": {sdk.FormPairwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			v[0].Pairs[0].P, v[0].Pairs[1].P = 0, 1
			return v
		}, ""},
		"an abstention's number is not read": {sdk.FormPairwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			v[0].Pairs[0] = sdk.Verdict{P: nan, Abstain: "no idea"}
			return v
		}, ""},
		"a missing comparison": {sdk.FormPairwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			return v[:1]
		}, "1 verdicts for 2 comparisons"},
		"another order": {sdk.FormPairwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			v[0], v[1] = v[1], v[0]
			return v
		}, `verdicts[0].id is "c1", comparison 0 is "c0"`},
		"a probability above 1": {sdk.FormPairwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			v[1].Pairs[1].P = 1.0000001
			return v
		}, "verdicts[1].pairs[1].p is 1.0000001"},
		"a probability that is NaN": {sdk.FormPairwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			v[1].Pairs[0].P = nan
			return v
		}, "verdicts[1].pairs[0].p is NaN"},
		"a missing pair": {sdk.FormListwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			v[1].Pairs = v[1].Pairs[:1]
			return v
		}, "verdicts[1].pairs has 1 answers for 2 pairs"},
		"an assessment for one candidate of two": {sdk.FormPairwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			v[0].Assessed = make([]sdk.Assessment, 1)
			return v
		}, "verdicts[0].assessed has 1 entries for 2 candidates"},
		"a cost below 0": {sdk.FormPairwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			v[0].Cost = -1
			return v
		}, "verdicts[0].cost is -1"},
		"a label that is NaN": {sdk.FormPairwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			v[0].Assessed = []sdk.Assessment{{}, {Labels: map[string]float64{"correct": nan}}}
			return v
		}, `verdicts[0].assessed[1].labels["correct"] is NaN`},
		"scores pass from a pointwise oracle": {sdk.FormPointwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			for i := range v {
				v[i].Pairs, v[i].Assessed = nil, []sdk.Assessment{{Score: &score}, {Abstain: "empty"}}
			}
			return v
		}, ""},
		"a pointwise oracle without scores": {sdk.FormPointwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			v[0].Pairs, v[0].Assessed = nil, make([]sdk.Assessment, 2)
			return v
		}, "verdicts[0].assessed[0] has neither a score nor a reason to abstain"},
		"a score that is NaN": {sdk.FormPointwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			v[0].Pairs, v[0].Assessed = nil, []sdk.Assessment{{Score: &score}, {Score: &nan}}
			return v
		}, "verdicts[0].assessed[1].score is NaN"},
		"pairs from a pointwise oracle": {sdk.FormPointwise, func(v []sdk.Verdicts) []sdk.Verdicts {
			return v
		}, "a pointwise oracle gives none"},
	} {
		t.Run(name, func(t *testing.T) {
			v := make([]sdk.Verdicts, len(batch))
			for i := range v {
				v[i] = sdk.Verdicts{ID: batch[i].ID, Pairs: []sdk.Verdict{{P: 0.5}, {P: 0.5}}}
			}
			expect(t, contract{"oracle \"x\""}.verdicts(c.form, batch, c.change(v)), c.want)
		})
	}
}

func TestTokenGradientsAreChecked(t *testing.T) {
	traits := sdk.LossTraits{TokenLevel: true}
	b := pairBatch() // one token and two tokens
	for name, c := range map[string]struct {
		out  sdk.LossResult
		want string
	}{
		"whole rows pass":           {sdk.LossResult{TokenGradients: [][]float64{{1}, {2, 3}}}, ""},
		"a row that is short":       {sdk.LossResult{TokenGradients: [][]float64{{1}, {2}}}, "token_gradients[1] has 1 values for 2 tokens"},
		"a row that is missing":     {sdk.LossResult{TokenGradients: [][]float64{{1}}}, "token_gradients has 1 rows for 2 completions"},
		"an infinity":               {sdk.LossResult{TokenGradients: [][]float64{{1}, {2, math.Inf(-1)}}}, "token_gradients[1][1] = -Inf"},
		"a gradient per completion": {sdk.LossResult{Gradient: []float64{1, 2}, TokenGradients: [][]float64{{1}, {2, 3}}}, "gradient has 2 values"},
		"a metric that is NaN": {sdk.LossResult{TokenGradients: [][]float64{{1}, {2, 3}}, Metrics: map[string]float64{"kl": math.NaN()}},
			`metrics["kl"] = NaN`},
	} {
		t.Run(name, func(t *testing.T) { expect(t, contract{"loss \"x\""}.result(traits, b, c.out), c.want) })
	}
}

func TestCompletionsAreChecked(t *testing.T) {
	req := sampleRequest() // two prompts, K = 2
	p, rounded, positive, nan := -1.0, 1e-9, 0.5, math.NaN()
	ok := sdk.Completion{Text: "a", LogProb: &p, Finish: sdk.FinishLength, Tokens: []int32{0, 5}}
	for name, c := range map[string]struct {
		out  [][]sdk.Completion
		want string
	}{
		"fewer than K, or none, pass":  {[][]sdk.Completion{{ok}, nil}, ""},
		"a rounded 0 passes":           {[][]sdk.Completion{{{LogProb: &rounded}}, nil}, ""},
		"a prompt that is missing":     {[][]sdk.Completion{{ok}}, "completions has 1 rows for 2 prompts"},
		"more than K":                  {[][]sdk.Completion{nil, {ok, ok, ok}}, "completions[1] has 3 completions, at most 2"},
		"a log-probability above 0":    {[][]sdk.Completion{{ok, {LogProb: &positive}}, nil}, "completions[0][1].log_prob is 0.5"},
		"a log-probability of NaN":     {[][]sdk.Completion{{{LogProb: &nan}}, nil}, "completions[0][0].log_prob is NaN"},
		"a finish that nobody knows":   {[][]sdk.Completion{{{Finish: "eos"}}, nil}, `completions[0][0].finish is "eos"`},
		"a token below 0":              {[][]sdk.Completion{{{Tokens: []int32{3, -1}}}, nil}, "completions[0][0].tokens[1] is -1"},
		"completions for a third one.": {[][]sdk.Completion{nil, nil, nil}, "completions has 3 rows for 2 prompts"},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, contract{"sampler \"x\""}.completions(req, sdk.SampleResponse{Completions: c.out}), c.want)
		})
	}
}

func expect(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("want %q, have %v", want, err)
	}
}

func TestManifestsAreChecked(t *testing.T) {
	spec := Spec{Kind: sdk.KindOracle, Name: "x"}
	good := sdk.Manifest{Kind: sdk.KindOracle, Name: "x", Version: "1", Oracle: sdk.OracleTraits{Form: sdk.FormListwise}}
	for name, c := range map[string]struct {
		change func(*sdk.Manifest)
		want   string
	}{
		"a whole one passes":    {func(*sdk.Manifest) {}, ""},
		"one without a version": {func(m *sdk.Manifest) { m.Version = "" }, "no version"},
		"one without a form":    {func(m *sdk.Manifest) { m.Oracle.Form = "" }, `form ""`},
		"a name with a space":   {func(m *sdk.Manifest) { m.Name = "x y" }, "lower-case"},
	} {
		t.Run(name, func(t *testing.T) {
			m := good
			c.change(&m)
			expect(t, checkManifest(spec, m), c.want)
		})
	}
}

func TestPrintsAreKeptAndLimited(t *testing.T) {
	logged := &syncBuffer{}
	log, err := telemetry.New(telemetry.Options{Writer: logged, JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	log.Secrets().Add("hunter2")
	l := newLines(log)
	now := time.Unix(0, 0)
	l.now = func() time.Time { return now }
	for range logBurst + 5 {
		l.add("password hunter2")
	}
	if n := strings.Count(logged.String(), "password ***"); n != logBurst {
		t.Errorf("%d lines at once, want %d", n, logBurst)
	}
	now = now.Add(time.Second) // allows logRate more
	l.add("later")
	if s := logged.String(); !strings.Contains(s, `"dropped":5`) || !strings.Contains(s, "later") {
		t.Errorf("after a second the log is\n%s", s[len(s)-300:])
	}
	kept := l.kept()
	if len(kept) != keptLines || kept[0] != "password ***" || kept[keptLines-1] != "later" {
		t.Errorf("kept are %q", kept)
	}
	l.add("panic: boom")
	for range 100 {
		l.add("goroutine")
	}
	if kept = l.kept(); len(kept) != keptLines || kept[0] != "panic: boom" {
		t.Errorf("of a crash, kept are %q", kept)
	}
}

func TestPrintableTakesOutWhatATerminalWouldObey(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[1;31mred\x1b[0m":              "red",
		"\x1b]0;title\x07text":              "text",
		"bell\x07 and \u202eright-to-left":  "bell\uFFFD and \uFFFDright-to-left",
		"tab\tand \xff byte":                "tab and \uFFFD byte",
		strings.Repeat("é", lineBytes):      strings.Repeat("é", lineBytes/2) + "…",
		"grün, 漢字":                          "grün, 漢字",
		"cut \x1b":                          "cut ",
		"\x1b[38;5;196mcolour\x1b[K and \r": "colour and \uFFFD",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m")
	f.Add("\x1b]8;;http://x\x1b\\link")
	f.Fuzz(func(t *testing.T, in string) {
		if out := printable(in); strings.ContainsAny(out, "\x1b\x07\n\r\x00") {
			t.Errorf("printable(%q) = %q", in, out)
		}
	})
}
