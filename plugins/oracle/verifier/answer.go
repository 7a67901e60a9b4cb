package verifier

import (
	"math/big"
	"strconv"

	"github.com/dno-project/dno/plugins/internal/answers"
	"github.com/dno-project/dno/sdk"
)

// configureNumber is the check "number": the completion's final number, as [answers.Number] reads it,
// equals the reference answer, as [answers.Reference] reads it, by [answers.Quantity.Equal].
func configureNumber(s sdk.Settings) (check, error) {
	tol := answers.Tolerance{Abs: asWritten(s.Number("abs_tol", 0)), Rel: asWritten(s.Number("rel_tol", 0))}
	return func(p sdk.Prompt) (grader, string, error) {
		ref, ok := answers.Reference(p.Answer)
		if !ok {
			return nil, unreadable(p.Answer, "a number"), nil
		}
		return func(text string) grade {
			have, ok := answers.Number(text)
			return rightOrWrong(ok && ref.Equal(have, tol))
		}, "", nil
	}, nil
}

// asWritten is the decimal that the script wrote: its 0.1 is 1/10, not the float64 nearest to it.
func asWritten(f float64) *big.Rat {
	r, ok := new(big.Rat).SetString(strconv.FormatFloat(f, 'g', -1, 64))
	if !ok {
		return nil
	}
	return r
}

// boxed is the check "boxed": the completion's last \boxed{} equals the reference answer, by
// [answers.LaTeX.Equal].
func boxed(p sdk.Prompt) (grader, string, error) {
	ref := answers.ReadLaTeX(p.Answer)
	if ref.Empty() {
		return nil, unreadable("", ""), nil
	}
	return func(text string) grade {
		box, ok := answers.Boxed(text)
		return rightOrWrong(ok && ref.Equal(answers.ReadLaTeX(box)))
	}, "", nil
}

// choice is the check "choice": the completion chooses the reference's letter, as [answers.Choice] reads
// it. A completion that names no letter, or several, is wrong.
func choice(p sdk.Prompt) (grader, string, error) {
	ref := answers.ReferenceChoice(p.Answer)
	if ref == 0 {
		return nil, unreadable(p.Answer, "a choice from A to J"), nil
	}
	return func(text string) grade { return rightOrWrong(answers.Choice(text) == ref) }, "", nil
}
