package sdk

import (
	"math"
	"strings"
	"testing"
)

func TestManifestsAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		manifest Manifest
		want     string // "" passes
	}{
		"a listwise oracle passes":           {Manifest{Kind: KindOracle, Name: "my-judge_2", Version: "1", Oracle: OracleTraits{Form: FormListwise}}, ""},
		"a loss of pairs need not say so":    {Manifest{Kind: KindLoss, Name: "l", Version: "1"}, ""},
		"a sampler has nothing more to say":  {Manifest{Kind: KindSampler, Name: "s", Version: "1"}, ""},
		"no name":                            {Manifest{Kind: KindSampler, Version: "1"}, `name is ""`},
		"a name with a space":                {Manifest{Kind: KindSampler, Name: "x y", Version: "1"}, `name is "x y": want lower-case`},
		"a name with a letter that is great": {Manifest{Kind: KindSampler, Name: "dPo", Version: "1"}, `name is "dPo"`},
		"a name that leads elsewhere":        {Manifest{Kind: KindSampler, Name: "../x", Version: "1"}, `name is "../x"`},
		"no version":                         {Manifest{Kind: KindSampler, Name: "s"}, "no version"},
		"an oracle without a form":           {Manifest{Kind: KindOracle, Name: "o", Version: "1"}, `form is "": want pairwise`},
		"an oracle with negative concurrency": {Manifest{Kind: KindOracle, Name: "o", Version: "1",
			Oracle: OracleTraits{Form: FormPairwise, Concurrency: -1}}, "concurrency is -1"},
		"a loss of a unit that nobody knows": {Manifest{Kind: KindLoss, Name: "l", Version: "1", Loss: LossTraits{Unit: "pairs"}}, `unit is "pairs": want pair,`},
	} {
		t.Run(name, func(t *testing.T) { expect(t, c.manifest.Check(), c.want) })
	}
}

func TestVerdictsAreChecked(t *testing.T) {
	both := []Ordered{{A: 0, B: 1}, {A: 1, B: 0}}
	batch := []Comparison{{ID: "c0", Candidates: []string{"4", "5"}, Pairs: both}, {ID: "c1", Candidates: []string{"4", "5"}, Pairs: both}}
	score, nan := 1.0, math.NaN()
	for name, c := range map[string]struct {
		form   OracleForm
		change func(v []Verdicts) []Verdicts
		want   string // "" passes
	}{
		"probabilities from 0 to 1 pass": {FormPairwise, func(v []Verdicts) []Verdicts {
			v[0].Pairs[0].P, v[0].Pairs[1].P = 0, 1
			return v
		}, ""},
		"an abstention's number is not read": {FormPairwise, func(v []Verdicts) []Verdicts {
			v[0].Pairs[0] = Verdict{P: nan, Abstain: "no idea"}
			return v
		}, ""},
		"a missing comparison": {FormPairwise, func(v []Verdicts) []Verdicts {
			return v[:1]
		}, "1 verdicts for 2 comparisons"},
		"another order": {FormPairwise, func(v []Verdicts) []Verdicts {
			v[0], v[1] = v[1], v[0]
			return v
		}, `verdicts[0].id is "c1", comparison 0 is "c0"`},
		"a probability above 1": {FormPairwise, func(v []Verdicts) []Verdicts {
			v[1].Pairs[1].P = 1.0000001
			return v
		}, "verdicts[1].pairs[1].p is 1.0000001"},
		"a probability that is NaN": {FormPairwise, func(v []Verdicts) []Verdicts {
			v[1].Pairs[0].P = nan
			return v
		}, "verdicts[1].pairs[0].p is NaN"},
		"a missing pair": {FormListwise, func(v []Verdicts) []Verdicts {
			v[1].Pairs = v[1].Pairs[:1]
			return v
		}, "verdicts[1].pairs has 1 answers for 2 pairs"},
		"an assessment for one candidate of two": {FormPairwise, func(v []Verdicts) []Verdicts {
			v[0].Assessed = make([]Assessment, 1)
			return v
		}, "verdicts[0].assessed has 1 entries for 2 candidates"},
		"a cost below 0": {FormPairwise, func(v []Verdicts) []Verdicts {
			v[0].Cost = -1
			return v
		}, "verdicts[0].cost is -1"},
		"a label that is NaN": {FormPairwise, func(v []Verdicts) []Verdicts {
			v[0].Assessed = []Assessment{{}, {Labels: map[string]float64{"correct": nan}}}
			return v
		}, `verdicts[0].assessed[1].labels["correct"] is NaN`},
		"scores pass from a pointwise oracle": {FormPointwise, func(v []Verdicts) []Verdicts {
			for i := range v {
				v[i].Pairs, v[i].Assessed = nil, []Assessment{{Score: &score}, {Abstain: "empty"}}
			}
			return v
		}, ""},
		"a pointwise oracle without scores": {FormPointwise, func(v []Verdicts) []Verdicts {
			v[0].Pairs, v[0].Assessed = nil, make([]Assessment, 2)
			return v
		}, "verdicts[0].assessed[0] has neither a score nor a reason to abstain"},
		"a score that is NaN": {FormPointwise, func(v []Verdicts) []Verdicts {
			v[0].Pairs, v[0].Assessed = nil, []Assessment{{Score: &score}, {Score: &nan}}
			return v
		}, "verdicts[0].assessed[1].score is NaN"},
		"pairs from a pointwise oracle": {FormPointwise, func(v []Verdicts) []Verdicts {
			return v
		}, "a pointwise oracle gives none"},
	} {
		t.Run(name, func(t *testing.T) {
			v := make([]Verdicts, len(batch))
			for i := range v {
				v[i] = Verdicts{ID: batch[i].ID, Pairs: []Verdict{{P: 0.5}, {P: 0.5}}}
			}
			expect(t, OracleTraits{Form: c.form}.CheckVerdicts(batch, c.change(v)), c.want)
		})
	}
}

func TestTokenGradientsAreChecked(t *testing.T) {
	traits := LossTraits{TokenLevel: true}
	b := LossBatch{Policy: []float64{-3, -5}, Tokens: []int32{1, 2}}
	for name, c := range map[string]struct {
		out  LossResult
		want string
	}{
		"whole rows pass":           {LossResult{TokenGradients: [][]float64{{1}, {2, 3}}}, ""},
		"a row that is short":       {LossResult{TokenGradients: [][]float64{{1}, {2}}}, "token_gradients[1] has 1 values for 2 tokens"},
		"a row that is missing":     {LossResult{TokenGradients: [][]float64{{1}}}, "token_gradients has 1 rows for 2 completions"},
		"an infinity":               {LossResult{TokenGradients: [][]float64{{1}, {2, math.Inf(-1)}}}, "token_gradients[1][1] is -Inf"},
		"a gradient per completion": {LossResult{Gradient: []float64{1, 2}, TokenGradients: [][]float64{{1}, {2, 3}}}, "gradient has 2 values"},
		"a metric that is NaN": {LossResult{TokenGradients: [][]float64{{1}, {2, 3}}, Metrics: map[string]float64{"kl": math.NaN()}},
			`metrics["kl"] is NaN`},
	} {
		t.Run(name, func(t *testing.T) { expect(t, traits.CheckResult(b, c.out), c.want) })
	}
}

// Training may survive numbers that are not finite, and nothing else.
func TestFaultsOfALossAreToldApart(t *testing.T) {
	b := LossBatch{Policy: []float64{-3, -5}, Tokens: []int32{1, 2}}
	for name, c := range map[string]struct {
		out  LossResult
		want string
		code Code
	}{
		"a gradient for each completion passes": {LossResult{Gradient: []float64{1, 2}}, "", CodeInternal},
		"a gradient for one of two":             {LossResult{Gradient: []float64{1}}, "gradient has 1 values for 2 completions, want 2", CodePlugin},
		"rows that nobody asked for":            {LossResult{Gradient: []float64{1, 2}, TokenGradients: [][]float64{{1}}}, "token_gradients has 1 rows for 2 completions, want 0", CodePlugin},
		"NaN in the gradient":                   {LossResult{Gradient: []float64{1, math.NaN()}}, "gradient[1] is NaN", CodeNumeric},
		"an infinite loss":                      {LossResult{Loss: math.Inf(1), Gradient: []float64{1, 2}}, "loss is +Inf", CodeNumeric},
		"the first faulty metric by alphabet": {LossResult{Gradient: []float64{1, 2}, Metrics: map[string]float64{
			"c": math.NaN(), "a": 1, "d": math.NaN(), "b": math.Inf(1)}}, `metrics["b"] is +Inf`, CodeNumeric},
	} {
		t.Run(name, func(t *testing.T) {
			err := LossTraits{}.CheckResult(b, c.out)
			expect(t, err, c.want)
			if CodeOf(err) != c.code {
				t.Errorf("code %d, want %d", CodeOf(err), c.code)
			}
		})
	}
}

func TestCompletionsAreChecked(t *testing.T) {
	req := SampleRequest{Prompts: make([]Prompt, 2), K: 2}
	p, rounded, positive, nan := -1.0, 1e-9, 0.5, math.NaN()
	ok := Completion{Text: "a", LogProb: &p, Finish: FinishLength, Tokens: []int32{0, 5}}
	for name, c := range map[string]struct {
		out  [][]Completion
		want string
	}{
		"fewer than K, or none, pass":  {[][]Completion{{ok}, nil}, ""},
		"a rounded 0 passes":           {[][]Completion{{{LogProb: &rounded}}, nil}, ""},
		"a prompt that is missing":     {[][]Completion{{ok}}, "completions has 1 rows for 2 prompts"},
		"more than K":                  {[][]Completion{nil, {ok, ok, ok}}, "completions[1] has 3 completions, at most 2"},
		"a log-probability above 0":    {[][]Completion{{ok, {LogProb: &positive}}, nil}, "completions[0][1].log_prob is 0.5"},
		"a log-probability of NaN":     {[][]Completion{{{LogProb: &nan}}, nil}, "completions[0][0].log_prob is NaN"},
		"a finish that nobody knows":   {[][]Completion{{{Finish: "eos"}}, nil}, `completions[0][0].finish is "eos"`},
		"a token below 0":              {[][]Completion{{{Tokens: []int32{3, -1}}}, nil}, "completions[0][0].tokens[1] is -1"},
		"completions for a third one.": {[][]Completion{nil, nil, nil}, "completions has 3 rows for 2 prompts"},
	} {
		t.Run(name, func(t *testing.T) {
			expect(t, req.CheckResponse(SampleResponse{Completions: c.out}), c.want)
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
