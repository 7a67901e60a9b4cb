package sdk

import (
	"math"
	"slices"
	"strings"
)

// IsName says whether s may name a plugin or a setting: lower-case letters, digits, '-' and '_'.
func IsName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}

// Check says whether the manifest of a plugin of known kind is whole: its name, its version and
// what its kind has to declare. The settings are not checked. The error is of [CodePlugin].
func (m Manifest) Check() error {
	forms := []OracleForm{FormPairwise, FormListwise, FormPointwise}
	units := []Unit{"", UnitPair, UnitCompletion, UnitGroup}
	switch {
	case !IsName(m.Name):
		return Errorf(CodePlugin, "name is %q: want lower-case letters, digits, '-' and '_'", m.Name)
	case m.Version == "":
		return Errorf(CodePlugin, "it has no version, which is part of what its answers are kept under")
	case m.Kind == KindOracle && !slices.Contains(forms, m.Oracle.Form):
		return Errorf(CodePlugin, "form is %q: want pairwise, listwise or pointwise", m.Oracle.Form)
	case m.Kind == KindOracle && m.Oracle.Concurrency < 0:
		return Errorf(CodePlugin, "concurrency is %d: want 1 or more, or 0 for 1", m.Oracle.Concurrency)
	case m.Kind == KindLoss && !slices.Contains(units, m.Loss.Unit):
		return Errorf(CodePlugin, "unit is %q: want pair, completion or group", m.Loss.Unit)
	}
	return nil
}

// CheckVerdicts says whether answers are what an oracle with these traits owes: one for each
// comparison, in order, with probabilities in [0, 1] or reasons to abstain. The error, of
// [CodePlugin], names the first field that is not as it should be.
//
// One wrong number spoils a batch, for nobody knows what else is wrong.
func (t OracleTraits) CheckVerdicts(asked []Comparison, answers []Verdicts) error {
	if len(answers) != len(asked) {
		return Errorf(CodePlugin, "%d verdicts for %d comparisons", len(answers), len(asked))
	}
	pointwise := t.Form == FormPointwise
	for i, v := range answers {
		c := asked[i]
		switch {
		case v.ID != c.ID:
			return Errorf(CodePlugin, "verdicts[%d].id is %q, comparison %d is %q: they must be in order", i, v.ID, i, c.ID)
		case pointwise && len(v.Pairs) != 0:
			return Errorf(CodePlugin, "verdicts[%d].pairs has %d answers: a pointwise oracle gives none", i, len(v.Pairs))
		case !pointwise && len(v.Pairs) != len(c.Pairs):
			return Errorf(CodePlugin, "verdicts[%d].pairs has %d answers for %d pairs", i, len(v.Pairs), len(c.Pairs))
		case len(v.Assessed) != len(c.Candidates) && (pointwise || len(v.Assessed) != 0):
			return Errorf(CodePlugin, "verdicts[%d].assessed has %d entries for %d candidates", i, len(v.Assessed), len(c.Candidates))
		case !finite(v.Cost) || v.Cost < 0:
			return Errorf(CodePlugin, "verdicts[%d].cost is %v: want a number from 0", i, v.Cost)
		case v.Tokens < 0 || v.Tokens > math.MaxInt32:
			return Errorf(CodePlugin, "verdicts[%d].tokens is %d: want a count from 0", i, v.Tokens)
		}
		for k, p := range v.Pairs {
			if p.Abstain == "" && !(p.P >= 0 && p.P <= 1) {
				return Errorf(CodePlugin, "verdicts[%d].pairs[%d].p is %v: want a probability in [0, 1], or a reason to abstain", i, k, p.P)
			}
		}
		for k, a := range v.Assessed {
			if pointwise && a.Score == nil && a.Abstain == "" {
				return Errorf(CodePlugin, "verdicts[%d].assessed[%d] has neither a score nor a reason to abstain", i, k)
			}
			if a.Score != nil && !finite(*a.Score) {
				return Errorf(CodePlugin, "verdicts[%d].assessed[%d].score is %v", i, k, *a.Score)
			}
			if label, found := notFinite(a.Labels); found {
				return Errorf(CodePlugin, "verdicts[%d].assessed[%d].labels[%q] is %v", i, k, label, a.Labels[label])
			}
		}
	}
	return nil
}

// CheckResult says whether a result is what a loss with these traits owes for the batch: a
// derivative for each completion, or for each of its tokens, and finite numbers.
//
// The error names the first field that is not as it should be. It is of [CodePlugin], but of
// [CodeNumeric] for a number that is not finite: the log-probabilities may have been too large.
func (t LossTraits) CheckResult(b LossBatch, r LossResult) error {
	values, rows := len(b.Policy), 0
	if t.TokenLevel {
		values, rows = 0, len(b.Policy)
	}
	if len(r.Gradient) != values {
		return Errorf(CodePlugin, "gradient has %d values for %d completions, want %d", len(r.Gradient), len(b.Policy), values)
	}
	if len(r.TokenGradients) != rows {
		return Errorf(CodePlugin, "token_gradients has %d rows for %d completions, want %d", len(r.TokenGradients), len(b.Policy), rows)
	}
	if !finite(r.Loss) {
		return Errorf(CodeNumeric, "loss is %v", r.Loss)
	}
	for i, g := range r.Gradient {
		if !finite(g) {
			return Errorf(CodeNumeric, "gradient[%d] is %v", i, g)
		}
	}
	for i, row := range r.TokenGradients {
		if len(row) != int(b.Tokens[i]) {
			return Errorf(CodePlugin, "token_gradients[%d] has %d values for %d tokens", i, len(row), b.Tokens[i])
		}
		for k, g := range row {
			if !finite(g) {
				return Errorf(CodeNumeric, "token_gradients[%d][%d] is %v", i, k, g)
			}
		}
	}
	if name, found := notFinite(r.Metrics); found {
		return Errorf(CodeNumeric, "metrics[%q] is %v", name, r.Metrics[name])
	}
	return nil
}

// A log-probability is at most 0; a sum of rounded ones may be a little more.
const logProbRounding = 1e-3

// CheckResponse says whether a response is what was asked for: for each prompt at most K
// completions, with the fields that they have in range. The error, of [CodePlugin], names the
// first field that is not as it should be.
func (r SampleRequest) CheckResponse(out SampleResponse) error {
	if len(out.Completions) != len(r.Prompts) {
		return Errorf(CodePlugin, "completions has %d rows for %d prompts", len(out.Completions), len(r.Prompts))
	}
	for i, row := range out.Completions {
		if len(row) > r.K {
			return Errorf(CodePlugin, "completions[%d] has %d completions, at most %d were asked for", i, len(row), r.K)
		}
		for k, c := range row {
			if p := c.LogProb; p != nil && (!finite(*p) || *p > logProbRounding) {
				return Errorf(CodePlugin, "completions[%d][%d].log_prob is %v: want nats, at most 0", i, k, *p)
			}
			if c.Finish != "" && c.Finish != FinishStop && c.Finish != FinishLength {
				return Errorf(CodePlugin, "completions[%d][%d].finish is %q: want stop, length or nothing", i, k, c.Finish)
			}
			for t, id := range c.Tokens {
				if id < 0 {
					return Errorf(CodePlugin, "completions[%d][%d].tokens[%d] is %d", i, k, t, id)
				}
			}
		}
	}
	return nil
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// notFinite returns the first name, in the order of names, whose number is not finite.
func notFinite(x map[string]float64) (first string, found bool) {
	for name, v := range x {
		if !finite(v) && (!found || name < first) {
			first, found = name, true
		}
	}
	return first, found
}
