package verifier

import (
	"fmt"
	"maps"
	"math/big"
	"strings"

	"github.com/dno-project/dno/sdk"
)

// Labels of the check "arithmetic", beside [sdk.LabelCorrect].
const (
	LabelStepsRight = "steps_right" // steps that earn credit
	LabelStepsTotal = "steps_total" // the most that can earn it, for this prompt
)

// arithmetic is the check "arithmetic". It reads a completion such as "17+45=62;62+8=70" and compares it
// with the prompt's
// reference answer, in exact decimal arithmetic.
//
// Steps stand between semicolons and newlines, each "expression = value": decimals, + - * / and
// brackets; words or a label may come before, a unit after. Nothing is rounded: 10/3=3.33 is wrong.
//
// The final answer is the value after the last "=", or in a text without "=" the last number. It
// is right if it equals the reference answer as a number; units are not compared. A completion
// that was cut off counts by its text; one of more than 64 KiB is wrong.
//
// A step is right if its arithmetic holds and each of its operands is in stock, from which it
// takes them. In stock are the prompt's numbers, as often as they stand there, and the value of
// each written step, right or wrong, that took something from stock. So a slip costs one step and
// not all that follow, and a true equation about nothing earns nothing.
//
// Only the first N written steps can earn credit. A step needs an operator to be one ("1=1" is
// none), and one written before earns nothing. So padding displaces the steps that count, and
// where the right solution itself repeats a step, N is out of reach by that much.
//
// N comes from the prompt's metadata "steps", the reference's worked steps: a list of texts like
// "17+45", or just their number. Without it (or with anything else under that name), N is one less
// than the prompt has numbers m, and at least 1. N steps of two operands need N+1 numbers: where
// m is less, N+1−m operands may be numbers that were in stock and are used up. From a list it is
// known exactly how many such operands there are, and its constants, as in "2*(3+4)", are in stock.
//
// What it does not know is which operation a prompt asks for: a true equation of the
// prompt's own numbers earns its step.
//
// P is 1 or 0 where only one of two is right, or both are wrong and one has more right steps;
// else ½. The score is 10·correct + steps_right/steps_total, so right answers, which tie, still
// differ in score. Without a readable reference answer the oracle abstains.
func arithmetic(c sdk.Comparison) sdk.Verdicts {
	out := sdk.Verdicts{ID: c.ID, Pairs: make([]sdk.Verdict, len(c.Pairs))}
	answer, ok := parseValue(plain(c.Prompt.Answer))
	if !ok {
		why := "the prompt has no reference answer"
		if c.Prompt.Answer != "" {
			why = fmt.Sprintf("the prompt's reference answer %.40q is not a number", c.Prompt.Answer)
		}
		for i := range out.Pairs {
			out.Pairs[i].Abstain = why
		}
		return out
	}
	e := expect(c.Prompt, answer)
	marks := make([]mark, len(c.Candidates))
	for i, text := range c.Candidates {
		marks[i] = e.mark(text)
		out.Assessed = append(out.Assessed, marks[i].assessment(e.steps))
	}
	for i, p := range c.Pairs {
		out.Pairs[i] = compare(marks[p.A], marks[p.B])
	}
	return out
}

// expected is what a prompt asks for.
type expected struct {
	answer *big.Rat
	steps  int // N, how many written steps can earn credit
	stock  stock
}

// stock is what operands are taken from.
type stock struct {
	count map[string]int // how often each number is there, by its [key]; 0 where it is used up
	spare int            // how many operands may be numbers that are used up
}

// key names a number whatever its sign, since in "5-7" the 7 is the prompt's.
func key(v *big.Rat) string { return new(big.Rat).Abs(v).RatString() }

// take takes the operands out of stock and returns how many of them were there.
func (s *stock) take(operands []*big.Rat) (taken int) {
	for _, v := range operands {
		k := key(v)
		switch n, known := s.count[k]; {
		case n > 0:
			s.count[k]--
		case known && s.spare > 0:
			s.spare--
		default:
			continue
		}
		taken++
	}
	return taken
}

func expect(prompt sdk.Prompt, answer *big.Rat) expected {
	text := prompt.Text()
	if len(text) > maxText {
		text = text[:maxText]
	}
	given := numbers(plain(text))
	s := stock{count: map[string]int{}}
	for _, v := range given {
		s.count[key(v)]++
	}
	if list := referenceSteps(prompt.Metadata["steps"]); list != nil {
		return expected{answer, len(list), s.asUsedBy(list)}
	}
	steps, _ := prompt.Metadata["steps"].(float64)
	n := int(steps)
	if !(steps >= 1 && steps <= maxSteps) || float64(n) != steps {
		n = max(1, len(given)-1)
	}
	s.spare = max(0, n+1-len(given))
	return expected{answer, n, s}
}

// asUsedBy returns the stock, with the constants and the spare operands that the reference needs.
func (s stock) asUsedBy(reference []expression) stock {
	left := maps.Clone(s.count)
	for _, step := range reference {
		for _, v := range step.operands {
			switch n, known := left[key(v)]; {
			case n > 0:
				left[key(v)]--
			case known:
				s.spare++
			default:
				s.count[key(v)]++
				left[key(v)] = 0
			}
		}
		if step.value != nil {
			left[key(step.value)]++
		}
	}
	return s
}

// referenceSteps reads a list of expressions; nil where it is none.
func referenceSteps(metadata any) []expression {
	list, _ := metadata.([]any)
	if len(list) > maxSteps {
		return nil
	}
	var out []expression
	for _, entry := range list {
		text, _ := entry.(string)
		left, _, _ := strings.Cut(plain(text), "=")
		_, e, ok := parseEquation(left)
		if !ok {
			return nil
		}
		out = append(out, e)
	}
	return out
}

// mark is what a completion has earned.
type mark struct {
	correct bool
	right   int // steps that earn credit
}

func (e expected) mark(text string) mark {
	if len(text) > maxText {
		return mark{}
	}
	text = plain(text)
	var m mark
	if final := finalAnswer(text); final != nil {
		m.correct = final.Cmp(e.answer) == 0
	}
	left := stock{maps.Clone(e.stock.count), e.stock.spare}
	seen := map[string]bool{}
	written := 0
	for _, fragment := range lines(text) {
		s, ok := parseStep(fragment)
		if !ok {
			continue
		}
		if written == e.steps {
			break
		}
		written++
		taken := left.take(s.operands)
		if s.holds() && taken == len(s.operands) && !seen[s.text] {
			m.right++
		}
		seen[s.text] = true
		if taken > 0 {
			left.count[key(s.claimed)]++
		}
	}
	return m
}

func (m mark) assessment(steps int) sdk.Assessment {
	correct := 0.0
	if m.correct {
		correct = 1
	}
	score := 10*correct + float64(m.right)/float64(steps)
	return sdk.Assessment{Score: &score, Labels: map[string]float64{
		sdk.LabelCorrect: correct, LabelStepsRight: float64(m.right), LabelStepsTotal: float64(steps)}}
}

func compare(a, b mark) sdk.Verdict {
	switch {
	case a.correct && b.correct:
		return sdk.Verdict{P: 0.5, Reason: "both answers are right"}
	case a.correct:
		return sdk.Verdict{P: 1, Reason: "only the first answer is right"}
	case b.correct:
		return sdk.Verdict{P: 0, Reason: "only the second answer is right"}
	}
	v := sdk.Verdict{P: 0.5, Reason: fmt.Sprintf("both answers are wrong, right steps %d to %d", a.right, b.right)}
	if a.right > b.right {
		v.P = 1
	} else if a.right < b.right {
		v.P = 0
	}
	return v
}
