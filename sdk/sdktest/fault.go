package sdktest

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/dno-project/dno/sdk"
)

// slope is what differences of the loss say of one derivative.
type slope struct {
	completion, token int
	value             float64 // the mean of the slopes to both sides
	doubt             float64 // rounding, and half the difference of the two sides: at a kink any number between them will do
}

// allows says whether a derivative of k times the slope may be g.
func (s slope) allows(g, k float64) bool {
	return math.Abs(g-k*s.value) <= s.tolerance(g, k)
}

func (s slope) tolerance(g, k float64) float64 {
	return 1e-4*math.Abs(g) + math.Abs(k)*s.doubt + 1e-9
}

// fault is a known way to be wrong: derivative i is factor(i) times slope of(i).
type fault struct {
	words  string
	factor func(i int) float64 // nil is 1
	of     func(i int) int     // nil is i
}

// fits says whether the fault explains all the derivatives.
func (f fault) fits(have []float64, slopes []slope) bool {
	for i, g := range have {
		at, k := i, 1.0
		if f.of != nil {
			at = f.of(i)
		}
		if f.factor != nil {
			k = f.factor(i)
		}
		if !slopes[at].allows(g, k) {
			return false
		}
	}
	return true
}

// diagnose names the known faults that explain every derivative of the batch, "" where none does. Two
// slopes at least must be clear of their doubt, or anything would explain them.
func diagnose(b sdk.LossBatch, traits sdk.LossTraits, have []float64, slopes []slope) string {
	clear := 0
	for _, s := range slopes {
		if math.Abs(s.value) > 100*(s.doubt+1e-9) {
			clear++
		}
	}
	if clear < 2 {
		return ""
	}
	var words []string
	for _, f := range append(scales(b, have, slopes), orders(b, traits, len(have), slopes)...) {
		if f.fits(have, slopes) {
			words = append(words, f.words)
		}
	}
	return strings.Join(words, "; or ")
}

// scales are the faults that leave each derivative at its place.
func scales(b sdk.LossBatch, have []float64, slopes []slope) []fault {
	up, down := 0.0, 0.0
	for i, s := range slopes {
		up += have[i] * s.value
		down += s.value * s.value
	}
	constant := func(k float64, words string) fault {
		return fault{words: words, factor: func(int) float64 { return k }}
	}
	k := up / down
	all := constant(k, fmt.Sprintf("wrong scale: every derivative is %.4g times the slope%s", k, meanOf(b, k)))
	if math.Abs(k) < 1e-6 {
		all = constant(0, "no derivative: every one is 0, and the slopes are not")
	} else if math.Abs(k+1) < 1e-4 {
		all = constant(-1, "wrong sign: every derivative is −1 times the slope: return dLoss/dlog π, not its negative")
	}
	tokens := func(i int) float64 { return float64(b.Tokens[slopes[i].completion]) }
	out := []fault{all,
		{words: "wrong scale: each derivative is its slope divided by the completion's number of tokens",
			factor: func(i int) float64 { return 1 / tokens(i) }},
		{words: "wrong scale: each derivative is its slope times the completion's number of tokens", factor: tokens},
	}
	w := weightOf(b)
	if w == nil {
		return out
	}
	out = append(out,
		fault{words: "weights ignored: each derivative is its slope without the weight of its unit",
			factor: func(i int) float64 { return 1 / w[slopes[i].completion] }},
		fault{words: "weights twice: each derivative is its slope times the weight of its unit",
			factor: func(i int) float64 { return w[slopes[i].completion] }})
	if len(b.Chosen) == 0 {
		return out
	}
	negative := func(side []int32) func(int) float64 {
		return func(i int) float64 {
			if slices.Contains(side, int32(slopes[i].completion)) {
				return -1
			}
			return 1
		}
	}
	return append(out,
		fault{words: "wrong sign of the derivatives by the chosen completions, and of these alone", factor: negative(b.Chosen)},
		fault{words: "wrong sign of the derivatives by the rejected completions, and of these alone", factor: negative(b.Rejected)})
}

// meanOf says of what a factor makes a mean.
func meanOf(b sdk.LossBatch, k float64) string {
	total, tokens := 0.0, 0.0
	for _, w := range slices.Concat(b.Weight, b.UnitWeight) {
		total += w
	}
	for _, n := range b.Tokens {
		tokens += float64(n)
	}
	for _, c := range []struct {
		n    float64
		what string
	}{
		{float64(len(b.Chosen)), "1/number of pairs"}, {float64(len(b.Policy)), "1/number of completions"},
		{float64(len(b.UnitWeight)), "1/number of groups"},
		{total, "1/total weight"}, {tokens, "1/number of tokens"},
	} {
		if c.n > 1 && math.Abs(k*c.n-1) < 1e-4 {
			return ", " + c.what + ": a mean instead of the weighted sum"
		}
	}
	return ""
}

// weightOf returns the weight of each completion's unit; nil where a completion is in several.
func weightOf(b sdk.LossBatch) []float64 {
	out := make([]float64, len(b.Policy))
	switch {
	case len(b.Chosen) > 0:
		for _, side := range [][]int32{b.Chosen, b.Rejected} {
			for k, i := range side {
				if out[i] != 0 {
					return nil
				}
				out[i] = b.Weight[k]
			}
		}
	case len(b.UnitWeight) == len(b.Policy):
		copy(out, b.UnitWeight)
	default:
		for i, g := range b.Group {
			out[i] = b.UnitWeight[g]
		}
	}
	return out
}

// orders are the faults that put the right derivatives into wrong places.
func orders(b sdk.LossBatch, traits sdk.LossTraits, n int, slopes []slope) []fault {
	shift := func(by int) func(int) int { return func(i int) int { return (i + by + n) % n } }
	out := []fault{
		{words: "transposed: the derivatives are in reversed order", of: func(i int) int { return n - 1 - i }},
		{words: "transposed: each derivative is that of the next place", of: shift(1)},
		{words: "transposed: each derivative is that of the place before", of: shift(-1)},
	}
	if traits.TokenLevel {
		within := func(by int) func(int) int {
			return func(i int) int {
				row := slopes[i]
				first, tokens := i-row.token, int(b.Tokens[row.completion])
				if by == 0 {
					return first + tokens - 1 - row.token
				}
				return first + (row.token+by+tokens)%tokens
			}
		}
		return append(out,
			fault{words: "transposed: the derivatives of each completion's tokens are in reversed order", of: within(0)},
			fault{words: "transposed: the derivative of each token is that of the next one", of: within(1)},
			fault{words: "transposed: the derivative of each token is that of the one before", of: within(-1)})
	}
	pairs := len(b.Chosen)
	if pairs == 0 || 2*pairs != n || weightOf(b) == nil {
		return out
	}
	other := make([]int, n)
	for k, i := range b.Chosen {
		other[i], other[b.Rejected[k]] = int(b.Rejected[k]), int(i)
	}
	swapped := fault{words: "transposed: the derivatives by the chosen and by the rejected are swapped", of: func(i int) int { return other[i] }}
	if pairs == 1 {
		return []fault{swapped} // any other order is this one
	}
	at := func(side []int32, k int) int { return int(side[k]) }
	return append(out, swapped,
		fault{words: "transposed: the derivatives are in the order of pairs, all chosen and then all rejected: gradient[i] is of completion i", of: func(i int) int {
			if i < pairs {
				return at(b.Chosen, i)
			}
			return at(b.Rejected, i-pairs)
		}},
		fault{words: "transposed: the derivatives are in the order of pairs, chosen and rejected in turn: gradient[i] is of completion i", of: func(i int) int {
			if i%2 == 0 {
				return at(b.Chosen, i/2)
			}
			return at(b.Rejected, i/2)
		}})
}
