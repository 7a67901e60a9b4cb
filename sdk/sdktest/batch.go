package sdktest

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/dno-project/dno/sdk"
)

type lossCase struct {
	name  string
	batch sdk.LossBatch
	hint  string // what is usually wrong where its numbers are not finite
}

// lossBatches are the batches that a loss is checked on: the typical one first.
func lossBatches(traits sdk.LossTraits) []lossCase {
	r := rand.New(rand.NewPCG(1, 2))
	between := func(lo, hi float64) float64 { return lo + (hi-lo)*r.Float64() }
	var typical pairList
	for g := range 4 {
		first := len(typical.policy)
		for range 3 {
			p := between(-80, -5)
			typical.completion(g, p, p+between(-4, 4), int32(1+r.IntN(60)))
		}
		typical.pair(first, first+1, between(0, 1), between(0.5, 2)) // each stands in two pairs, the second on both sides
		typical.pair(first, first+2, between(0, 1), between(0.5, 2))
		typical.pair(first+1, first+2, between(0, 1), between(0.5, 2))
	}
	cases := []lossCase{
		{"a typical batch", typical.batch(traits, r), "these are ordinary log-probabilities; a win rate's standard error may be NaN"},
		{"pairs that share no completion", apart(traits, r), ""},
		{"weights of 1", typical.ones().batch(traits, r), ""},
	}
	for _, e := range []struct {
		name                                   string
		policyC, policyR, referenceC, rejected float64
		tokensC, tokensR                       int32
		target                                 float64
		hint                                   string
	}{
		{"a policy that is its reference", -20, -30, -20, -30, 10, 12, 0.7, ""},
		{"a pair of equals", -25, -25, -25, -25, 8, 8, 0.5, "a division by the margin, or its logarithm? here it is 0"},
		{"a margin of 1e-9 nats", -25, -25, -25 - 1e-9, -25, 8, 8, 0.5, ""},
		{"a chosen completion far above", -1, -10001, -10001, -1, 50, 50, 1, naive},
		{"a chosen completion far below", -10001, -1, -1, -10001, 50, 50, 1, naive},
		{"a label of 0", -12, -9, -11, -10, 4, 5, 0, "0·log 0? it is 0, not NaN"},
		{"lengths of 1 and 199 tokens", -2, -400, -3, -390, 1, 199, 0.9, ""},
		{"completions that are nearly certain", -0.05, -0.04, -0.06, -0.05, 3, 2, 0.6, "log(1 − p) where p is nearly 1? use log1p and expm1"},
	} {
		var l pairList
		l.completion(0, e.policyC, e.referenceC, e.tokensC)
		l.completion(0, e.policyR, e.rejected, e.tokensR)
		l.pair(0, 1, e.target, 1)
		cases = append(cases, lossCase{e.name, l.batch(traits, r), e.hint})
	}
	return cases
}

const naive = "a naive log(sigmoid(x))? use log1p(exp(-|x|)), a softplus that overflows at neither end"

// apart are five pairs of ten completions, none of which stands in two: the derivative by each is that
// of one pair, so that derivatives in another order can be told. The pairs' order is not the completions'.
func apart(traits sdk.LossTraits, r *rand.Rand) sdk.LossBatch {
	var l pairList
	for i := range 10 {
		p := -5 - 40*r.Float64()
		l.completion(i/2, p, p-4+8*r.Float64(), int32(3+4*i))
	}
	for _, k := range []int{3, 0, 4, 1, 2} {
		chosen := 2*k + k%2
		l.pair(chosen, 4*k+1-chosen, 0.2+0.15*float64(k), 0.5+0.3*float64(k))
	}
	return l.batch(traits, r)
}

// ones is the list with weights of 1.
func (l *pairList) ones() *pairList {
	out := *l
	out.weight, out.unitsOfOne = slices.Repeat([]float64{1}, len(l.weight)), true
	return &out
}

// pairList builds a batch.
type pairList struct {
	group, tokens     []int32
	policy, reference []float64
	chosen, rejected  []int32
	target, weight    []float64
	unitsOfOne        bool // weights of completions and groups are 1, like those of pairs
}

func (l *pairList) completion(group int, policy, reference float64, tokens int32) {
	l.group, l.tokens = append(l.group, int32(group)), append(l.tokens, tokens)
	l.policy, l.reference = append(l.policy, policy), append(l.reference, min(reference, -1e-3))
}

func (l *pairList) pair(chosen, rejected int, target, weight float64) {
	l.chosen, l.rejected = append(l.chosen, int32(chosen)), append(l.rejected, int32(rejected))
	l.target, l.weight = append(l.target, target), append(l.weight, weight)
}

// batch fills in what the loss's manifest asks for, and leaves out what it does not.
func (l *pairList) batch(traits sdk.LossTraits, r *rand.Rand) sdk.LossBatch {
	b := sdk.LossBatch{Group: l.group, Policy: l.policy, Tokens: l.tokens}
	for i := range l.policy {
		b.WinRate = append(b.WinRate, r.Float64())
		b.WinRateSE = append(b.WinRateSE, math.NaN()) // as below two opponents
		b.Teacher = append(b.Teacher, i%3 == 2)
	}
	if !traits.NoReference {
		b.Reference = l.reference
	}
	if traits.TokenLevel {
		b.PolicyTokens = spread(l.policy, l.tokens)
		if !traits.NoReference {
			b.ReferenceTokens = spread(l.reference, l.tokens)
		}
	}
	if prompts := slices.Max(l.group) + 1; traits.Mismatched && prompts > 1 {
		for i := range l.policy { // a prompt finds the answer to another one improbable
			p := l.policy[i] - 20 - 40*r.Float64()
			b.MismatchedPolicy = append(b.MismatchedPolicy, p)
			if !traits.NoReference {
				b.MismatchedReference = append(b.MismatchedReference, p-3+4*r.Float64())
			}
		}
	}
	weights := func(n int) (out []float64) {
		for range n {
			w := 0.5 + r.Float64()
			if l.unitsOfOne {
				w = 1
			}
			out = append(out, w)
		}
		return out
	}
	switch traits.Unit {
	case sdk.UnitCompletion:
		b.UnitWeight = weights(len(l.policy))
	case sdk.UnitGroup:
		b.UnitWeight = weights(int(slices.Max(l.group)) + 1)
	default:
		b.Chosen, b.Rejected, b.Target, b.Weight = l.chosen, l.rejected, l.target, l.weight
		for _, p := range l.target {
			b.ChosenWinRate, b.RejectedWinRate = append(b.ChosenWinRate, p), append(b.RejectedWinRate, 1-p)
			b.Preference = append(b.Preference, p)
		}
	}
	return b
}

// spread divides each completion's log-probability over its tokens, unevenly.
func spread(sums []float64, tokens []int32) [][]float64 {
	out := make([][]float64, len(sums))
	for i, n := range tokens {
		total := 0.0
		for k := range n {
			out[i] = append(out[i], 1+float64(k*k%5))
			total += out[i][k]
		}
		for k := range out[i] {
			out[i][k] *= sums[i] / total
		}
	}
	return out
}
