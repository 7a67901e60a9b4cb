package verifier

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/dno-project/dno/sdk"
)

// configureExact is the check "exact": the completion is the reference answer, byte for byte. With
// ignore_case letters are compared by Unicode's simple case folding; with ignore_space white space at the
// ends is left out and each run of it within is one space. Nothing else is normalised.
func configureExact(s sdk.Settings) (check, error) {
	ignoreCase, ignoreSpace := s.Bool("ignore_case", false), s.Bool("ignore_space", false)
	return func(p sdk.Prompt) (grader, string, error) {
		if p.Answer == "" {
			return nil, unreadable("", ""), nil
		}
		want := p.Answer
		if ignoreSpace {
			want = strings.Join(strings.Fields(want), " ")
		}
		return func(text string) grade {
			if ignoreSpace {
				text = strings.Join(strings.Fields(text), " ")
			}
			return rightOrWrong(text == want || ignoreCase && strings.EqualFold(text, want))
		}, "", nil
	}, nil
}

// What a pattern may be: RE2 matches in time of its instructions times the text's bytes, so that their
// product bounds the time (about a second).
const (
	maxPattern = 4 << 10 // bytes
	maxWork    = 1 << 27 // instructions times bytes
)

// pattern is a compiled pattern with the longest text that it is matched against.
type pattern struct {
	re      *regexp.Regexp
	longest int // bytes
}

func compile(text string) (pattern, error) {
	if len(text) > maxPattern {
		return pattern{}, fmt.Errorf("it has %d bytes, at most %d are read", len(text), maxPattern)
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return pattern{}, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return pattern{}, err
	}
	re, err := regexp.Compile(text)
	return pattern{re, maxWork / max(1, len(program.Inst))}, err
}

func (p pattern) grader(text string) grade {
	return rightOrWrong(len(text) <= p.longest && p.re.MatchString(text))
}

// configureRegex is the check "regex": the pattern (RE2 as in Go's regexp, no back references) is found
// somewhere in the completion; ^ and $ in the pattern hold it to the ends. The pattern is the setting, for
// every prompt the same, or else each prompt's reference answer. A pattern of many instructions, as counted
// repetitions are, reads less than 1 MiB: a longer completion is wrong.
func configureRegex(s sdk.Settings) (check, error) {
	if text := s.String("pattern", ""); text != "" {
		p, err := compile(text)
		if err != nil {
			return nil, sdk.Errorf(sdk.CodeUsage, "setting \"pattern\": %w", err).
				WithHint("patterns are RE2: no back references, no look-around, repetitions up to 1000")
		}
		return func(sdk.Prompt) (grader, string, error) { return p.grader, "", nil }, nil
	}
	return func(prompt sdk.Prompt) (grader, string, error) {
		if prompt.Answer == "" {
			return nil, unreadable("", ""), nil
		}
		p, err := compile(prompt.Answer)
		if err != nil {
			return nil, unreadable(prompt.Answer, "a pattern: "+err.Error()), nil
		}
		return p.grader, "", nil
	}, nil
}
