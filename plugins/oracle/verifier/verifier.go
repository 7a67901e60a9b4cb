// Package verifier is the oracle that verifies answers: arithmetic with its steps, numbers, LaTeX, choices, texts, JSON, instructions.
package verifier

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dno-project/dno/plugins/internal/pairs"
	"github.com/dno-project/dno/sdk"
)

// Oracle verifies each completion by itself, as its setting "check" says, and prefers the one that
// does better. Without the setting it is worked arithmetic.
//
//	arithmetic    the final number, and among wrong ones the right steps
//	number        the final number, exact, with units and tolerances
//	boxed         LaTeX in \boxed{}
//	choice        the letter A to J of a multiple choice
//	exact         the whole text
//	regex         a pattern in the text
//	json_schema   JSON that is valid against a schema
//	instructions  constraints on the text, the share of them that is followed
//
// P is 1 or 0 where one of two completions has the higher score, else ½. Every assessment carries a
// score and [sdk.LabelCorrect]. A score is 1 for a right completion and 0 for a wrong one; arithmetic and
// instructions grade, as their own comments say.
//
// Where a prompt cannot be checked (no reference answer, one of another form, no schema, no
// instructions) the oracle abstains from its pairs and assesses nothing. What is the completion's fault
// is wrong: no answer, several answers, more than 1 MiB of text (64 KiB for arithmetic).
type Oracle struct {
	check check // nil: arithmetic
}

// check reads what a prompt asks for. It returns the grader of the prompt's completions, or why there is
// none; an error where the prompt's metadata is at fault.
type check func(p sdk.Prompt) (grader, string, error)

// grader grades one completion of at most maxCompletion bytes.
type grader func(text string) grade

// grade is what a completion has earned.
type grade struct {
	score   float64 // 0 to 1
	correct bool
	labels  map[string]float64 // beside [sdk.LabelCorrect]
}

// maxCompletion is the longest text, in bytes, that is checked by anything but arithmetic.
const maxCompletion = 1 << 20

// New returns the oracle, which checks arithmetic until it is configured otherwise.
func New() sdk.Oracle { return &Oracle{} }

// checks are the legal values of the setting "check" with the settings that each of them reads.
var checks = map[string]struct {
	settings  []string
	configure func(sdk.Settings) (check, error)
}{
	"arithmetic":   {nil, func(sdk.Settings) (check, error) { return nil, nil }},
	"number":       {[]string{"abs_tol", "rel_tol"}, configureNumber},
	"boxed":        {nil, func(sdk.Settings) (check, error) { return boxed, nil }},
	"choice":       {nil, func(sdk.Settings) (check, error) { return choice, nil }},
	"exact":        {[]string{"ignore_case", "ignore_space"}, configureExact},
	"regex":        {[]string{"pattern"}, configureRegex},
	"json_schema":  {[]string{"schema"}, configureSchema},
	"instructions": {nil, func(sdk.Settings) (check, error) { return instructed, nil }},
}

// Manifest declares a pairwise oracle for which the order does not matter.
//
// No setting has a default in the manifest: the host would fill it in, and settings are part of the key
// under which a run keeps a judgment, so that runs recorded before there were settings could not be
// gone on with.
func (*Oracle) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Kind:    sdk.KindOracle,
		Name:    "verifier",
		Version: "1",
		Help:    "verifies answers: arithmetic with its steps, numbers, LaTeX, choices, texts, JSON, instructions",
		Settings: []sdk.Setting{
			{Name: "check", Type: sdk.TypeString, OneOf: slices.Sorted(maps.Keys(checks)),
				Help: "how: arithmetic (if not given), number, boxed, choice, exact, regex, json_schema, instructions"},
			{Name: "abs_tol", Type: sdk.TypeNumber, Min: sdk.AtLeast(0),
				Help: "number: greatest difference, in the reference's unit; 0 if not given"},
			{Name: "rel_tol", Type: sdk.TypeNumber, Min: sdk.AtLeast(0),
				Help: "number: greatest difference, as a share of the reference; 0 if not given"},
			{Name: "ignore_case", Type: sdk.TypeBool, Help: "exact: A is a; false if not given"},
			{Name: "ignore_space", Type: sdk.TypeBool, Help: "exact: white space at the ends and its kind and amount within do not count; false if not given"},
			{Name: "pattern", Type: sdk.TypeString, Help: "regex: what is to be found (RE2); if not given, the reference answer is the pattern"},
			{Name: "schema", Type: sdk.TypePath, Help: "json_schema: file; if not given, the schema is the prompt's metadata \"schema\""},
		},
		Oracle: sdk.OracleTraits{Form: sdk.FormPairwise, Concurrency: 4},
	}
}

// Configure takes the settings. One that the check does not read is an error, for it would be without effect.
func (o *Oracle) Configure(_ context.Context, s sdk.Settings) error {
	name := s.String("check", "arithmetic")
	c, ok := checks[name]
	if !ok {
		return sdk.Errorf(sdk.CodeUsage, "setting \"check\": want one of %s, have %q", strings.Join(slices.Sorted(maps.Keys(checks)), ", "), name)
	}
	for _, given := range slices.Sorted(maps.Keys(s)) {
		if given == "check" || slices.Contains(c.settings, given) {
			continue
		}
		err := sdk.Errorf(sdk.CodeUsage, "setting %q: the check %q does not read it", given, name)
		for other, c := range checks {
			if slices.Contains(c.settings, given) {
				return err.WithHint("leave it out, or set check = %q", other)
			}
		}
		return err
	}
	check, err := c.configure(s)
	if err != nil {
		return err
	}
	o.check = check
	return nil
}

// Judge assesses each candidate once and compares the asked pairs.
func (o *Oracle) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	if o.check == nil {
		return pairs.Judge(ctx, batch, arithmetic)
	}
	out := make([]sdk.Verdicts, len(batch))
	for i, c := range batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := pairs.Check(c); err != nil {
			return nil, err
		}
		grade, why, err := o.check(c.Prompt)
		if err != nil {
			return nil, err
		}
		out[i] = judge(c, grade, why)
	}
	return out, nil
}

func judge(c sdk.Comparison, grade grader, why string) sdk.Verdicts {
	out := sdk.Verdicts{ID: c.ID, Pairs: make([]sdk.Verdict, len(c.Pairs))}
	if why != "" {
		for i := range out.Pairs {
			out.Pairs[i].Abstain = why
		}
		return out
	}
	for _, text := range c.Candidates {
		out.Assessed = append(out.Assessed, assess(grade, text))
	}
	for i, p := range c.Pairs {
		out.Pairs[i] = prefer(out.Assessed[p.A], out.Assessed[p.B])
	}
	return out
}

func assess(grader grader, text string) sdk.Assessment {
	var g grade
	if len(text) <= maxCompletion {
		g = grader(text)
	}
	labels := map[string]float64{sdk.LabelCorrect: 0}
	if g.correct {
		labels[sdk.LabelCorrect] = 1
	}
	maps.Copy(labels, g.labels)
	return sdk.Assessment{Score: &g.score, Labels: labels}
}

func prefer(a, b sdk.Assessment) sdk.Verdict {
	rightA, rightB := a.Labels[sdk.LabelCorrect] == 1, b.Labels[sdk.LabelCorrect] == 1
	v := sdk.Verdict{P: 0.5, Reason: "both answers are right"}
	if *a.Score > *b.Score {
		v.P = 1
	} else if *a.Score < *b.Score {
		v.P = 0
	}
	switch {
	case rightA && rightB:
	case rightA:
		v.Reason = "only the first answer is right"
	case rightB:
		v.Reason = "only the second answer is right"
	default:
		v.Reason = "both answers are wrong"
		if *a.Score > 0 || *b.Score > 0 {
			v.Reason = fmt.Sprintf("both answers are wrong, by score %.3g to %.3g", *a.Score, *b.Score)
		}
	}
	return v
}

// rightOrWrong is the grade of a check that knows nothing between.
func rightOrWrong(right bool) grade {
	if right {
		return grade{score: 1, correct: true}
	}
	return grade{}
}

// unreadable says why a reference answer cannot be used.
func unreadable(answer, want string) string {
	if strings.TrimSpace(answer) == "" {
		return "the prompt has no reference answer"
	}
	return fmt.Sprintf("the prompt's reference answer %.40q is not %s", answer, want)
}

var _ sdk.Oracle = (*Oracle)(nil)
