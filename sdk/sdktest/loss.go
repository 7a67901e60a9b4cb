package sdktest

import (
	"bytes"
	"context"
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/wire"
)

// Loss checks a loss: its manifest; its derivatives against finite differences, at typical and
// extreme log-probabilities; that it is a sum weighted by its units' weights, whatever their order;
// that all it remembers is in the state bytes; and that the wire changes nothing.
//
// newLoss returns a new value each time; given are settings beyond the defaults. A loss that needs
// mismatched pairs is checked by its manifest only, for a batch cannot hold them; the derivatives of a
// surrogate are checked for number and range only.
func Loss[S T[S]](t S, newLoss func() sdk.Loss, given ...sdk.Settings) {
	s := subject[sdk.Loss]{suite(t), newLoss, wire.LossService, given}
	m := s.manifest()
	if m.Loss.Mismatched {
		s.Logf("NOT CHECKED: values and derivatives of %q, which needs mismatched pairs", m.Name)
		return
	}
	cases := lossBatches(m.Loss)
	s.everywhere(func(where string, fresh func(TB) sdk.Loss) {
		for _, c := range cases {
			s.run(where+"/derivatives of "+c.name, func(t TB) { checkDerivatives(t, fresh(t), c.batch) })
		}
		typical := cases[0].batch
		s.run(where+"/weights", func(t TB) { checkWeights(t, fresh(t), typical) })
		s.run(where+"/order", func(t TB) { checkOrder(t, fresh(t), m.Loss, typical) })
		s.run(where+"/state", func(t TB) { checkState(t, fresh(t), fresh(t), typical) })
		s.run(where+"/cancelled", func(t TB) {
			_, _ = fresh(t).Evaluate(cancelled(), typical) // it returns, with or without an error
		})
	})
	s.run("the same over the wire", func(t TB) {
		local, remote := s.configured(t, s.local(t)), s.configured(t, s.remote(t))
		for _, c := range cases {
			sameResult(t, c.name, evaluate(t, local, c.batch), evaluate(t, remote, c.batch))
		}
	})
}

func evaluate(t TB, l sdk.Loss, b sdk.LossBatch) sdk.LossResult {
	t.Helper()
	before := slices.Clone(b.Policy)
	out, err := l.Evaluate(context.Background(), b)
	if err != nil {
		t.Fatalf("evaluate: %v", err)
	}
	if !slices.Equal(before, b.Policy) {
		t.Fatalf("the loss wrote into its batch")
	}
	return out
}

// derivatives returns the derivatives of a result that passes its check, a row for each
// completion whatever the loss's level.
func derivatives(t TB, traits sdk.LossTraits, b sdk.LossBatch, out sdk.LossResult) [][]float64 {
	t.Helper()
	if err := traits.CheckResult(b, out); err != nil {
		t.Fatalf("%v", err)
	}
	rows := out.TokenGradients
	for i := range out.Gradient {
		rows = append(rows, out.Gradient[i:i+1])
	}
	return rows
}

// checkDerivatives compares each derivative with the loss's slope to both sides:
//
//	(f(x+h) − f(x))/h and (f(x) − f(x−h))/h
//
// It has to lie between them, as at a kink, or as near to their mean as rounding and h allow.
func checkDerivatives(t TB, l sdk.Loss, b sdk.LossBatch) {
	t.Helper()
	traits := l.Manifest().Loss
	at := evaluate(t, l, b)
	rows := derivatives(t, traits, b, at)
	if traits.Surrogate {
		return
	}
	for i, row := range rows {
		for k, g := range row {
			x := b.Policy[i]
			h := min(1e-4*max(1, -x/100), -x/100)
			value := func(h float64) float64 {
				moved := b
				moved.Policy = slices.Clone(b.Policy)
				moved.Policy[i] += h
				if traits.TokenLevel {
					moved.PolicyTokens = slices.Clone(b.PolicyTokens)
					moved.PolicyTokens[i] = slices.Clone(b.PolicyTokens[i])
					moved.PolicyTokens[i][k] += h
				}
				return evaluate(t, l, moved).Loss
			}
			up, down := value(h), value(-h)
			right, left := (up-at.Loss)/h, (at.Loss-down)/h
			mean := (right + left) / 2
			rounding := 8 * 0x1p-52 * (math.Abs(up) + math.Abs(down) + math.Abs(at.Loss)) / h
			allowed := 1e-4*math.Abs(g) + rounding + math.Abs(right-left)/2 + 1e-9
			if !(math.Abs(g-mean) <= allowed) {
				t.Errorf("derivative %d of completion %d is %v, the slope is %v (within %.2g)", k, i, g, mean, allowed)
				return
			}
		}
	}
}

func checkWeights(t TB, l sdk.Loss, b sdk.LossBatch) {
	t.Helper()
	once := evaluate(t, l, b)
	double := b
	double.Weight, double.UnitWeight = times2(b.Weight), times2(b.UnitWeight)
	twice := evaluate(t, l, double)
	traits := l.Manifest().Loss
	if !near(twice.Loss, 2*once.Loss, 1e-12) {
		t.Errorf("with weights doubled the loss is %v instead of twice %v", twice.Loss, once.Loss)
	}
	a, c := derivatives(t, traits, b, once), derivatives(t, traits, b, twice)
	for i := range a {
		for k := range a[i] {
			if !near(c[i][k], 2*a[i][k], 1e-12) {
				t.Errorf("with weights doubled, derivative %d of completion %d is %v instead of twice %v", k, i, c[i][k], a[i][k])
			}
		}
	}
}

func times2(x []float64) []float64 {
	out := slices.Clone(x)
	for i := range out {
		out[i] *= 2
	}
	return out
}

// checkOrder turns the completions' and the pairs' order around.
func checkOrder(t TB, l sdk.Loss, traits sdk.LossTraits, b sdk.LossBatch) {
	t.Helper()
	last := int32(len(b.Policy) - 1)
	turned := b
	for _, x := range []*[]float64{&turned.Policy, &turned.Reference, &turned.WinRate, &turned.WinRateSE,
		&turned.ChosenWinRate, &turned.RejectedWinRate, &turned.Target, &turned.Preference, &turned.Weight} {
		*x = reversed(*x)
	}
	if traits.Unit == sdk.UnitCompletion { // a group's weight stays with the group's number
		turned.UnitWeight = reversed(b.UnitWeight)
	}
	turned.Group, turned.Tokens, turned.Teacher = reversed(b.Group), reversed(b.Tokens), reversed(b.Teacher)
	turned.PolicyTokens, turned.ReferenceTokens = reversed(b.PolicyTokens), reversed(b.ReferenceTokens)
	turned.Chosen, turned.Rejected = reversed(b.Chosen), reversed(b.Rejected)
	for k := range turned.Chosen {
		turned.Chosen[k], turned.Rejected[k] = last-turned.Chosen[k], last-turned.Rejected[k]
	}
	first, second := evaluate(t, l, b), evaluate(t, l, turned)
	if !near(second.Loss, first.Loss, 1e-9) {
		t.Errorf("in the other order the loss is %v instead of %v", second.Loss, first.Loss)
	}
	a, c := derivatives(t, traits, b, first), reversed(derivatives(t, traits, turned, second))
	for i := range a {
		for k := range a[i] {
			if !near(c[i][k], a[i][k], 1e-9) {
				t.Errorf("in the other order, derivative %d of completion %d is %v instead of %v", k, i, c[i][k], a[i][k])
			}
		}
	}
}

func reversed[E any](x []E) []E {
	out := slices.Clone(x)
	slices.Reverse(out)
	return out
}

// checkState says whether a new process goes on where another one stopped, by the state bytes alone.
func checkState(t TB, l, fresh sdk.Loss, b sdk.LossBatch) {
	t.Helper()
	first := evaluate(t, l, b)
	next := b
	next.State = first.State
	second := evaluate(t, l, next)
	sameResult(t, "a repeated first call", first, evaluate(t, l, b))
	sameResult(t, "the second call of a new value", second, evaluate(t, fresh, next))
}

func sameResult(t TB, what string, want, have sdk.LossResult) {
	t.Helper()
	rows := slices.EqualFunc(want.TokenGradients, have.TokenGradients, slices.Equal[[]float64])
	if want.Loss != have.Loss || !slices.Equal(want.Gradient, have.Gradient) || !rows ||
		!maps.Equal(want.Metrics, have.Metrics) || !bytes.Equal(want.State, have.State) {
		t.Errorf("%s: have\n%+v\nwant\n%+v", what, have, want)
	}
}

// near compares relative to the wanted number.
func near(have, want, relative float64) bool {
	return math.Abs(have-want) <= relative*math.Abs(want)+1e-12
}

type lossCase struct {
	name  string
	batch sdk.LossBatch
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
	cases := []lossCase{{"a typical batch", typical.batch(traits, r)}}
	for _, e := range []struct {
		name                                   string
		policyC, policyR, referenceC, rejected float64
		tokensC, tokensR                       int32
		target                                 float64
	}{
		{"a policy that is its reference", -20, -30, -20, -30, 10, 12, 0.7},
		{"a pair of equals", -25, -25, -25, -25, 8, 8, 0.5},
		{"a margin of 1e-9 nats", -25, -25, -25 - 1e-9, -25, 8, 8, 0.5},
		{"a chosen completion far above", -1, -10001, -10001, -1, 50, 50, 1},
		{"a chosen completion far below", -10001, -1, -1, -10001, 50, 50, 1},
		{"a label of 0", -12, -9, -11, -10, 4, 5, 0},
		{"lengths of 1 and 199 tokens", -2, -400, -3, -390, 1, 199, 0.9},
		{"completions that are nearly certain", -0.05, -0.04, -0.06, -0.05, 3, 2, 0.6},
	} {
		var l pairList
		l.completion(0, e.policyC, e.referenceC, e.tokensC)
		l.completion(0, e.policyR, e.rejected, e.tokensR)
		l.pair(0, 1, e.target, 1)
		cases = append(cases, lossCase{e.name, l.batch(traits, r)})
	}
	return cases
}

// pairList builds a batch.
type pairList struct {
	group, tokens     []int32
	policy, reference []float64
	chosen, rejected  []int32
	target, weight    []float64
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
	switch traits.Unit {
	case sdk.UnitCompletion:
		for range l.policy {
			b.UnitWeight = append(b.UnitWeight, 0.5+r.Float64())
		}
	case sdk.UnitGroup:
		for range slices.Max(l.group) + 1 {
			b.UnitWeight = append(b.UnitWeight, 0.5+r.Float64())
		}
	default:
		b.Chosen, b.Rejected, b.Target, b.Weight = l.chosen, l.rejected, l.target, l.weight
		for _, p := range l.target {
			b.ChosenWinRate, b.RejectedWinRate = append(b.ChosenWinRate, p), append(b.RejectedWinRate, 1-p)
			b.Preference = append(b.Preference, p)
		}
	}
	return b
}

// spread divides each completion's log-probability evenly over its tokens.
func spread(sums []float64, tokens []int32) [][]float64 {
	out := make([][]float64, len(sums))
	for i := range out {
		out[i] = slices.Repeat([]float64{sums[i] / float64(tokens[i])}, int(tokens[i]))
	}
	return out
}
