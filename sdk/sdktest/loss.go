package sdktest

import (
	"bytes"
	"context"
	"maps"
	"math"
	"slices"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/wire"
)

// Loss checks a loss: its manifest; its derivatives against finite differences, at typical and
// extreme log-probabilities, naming the fault where it is a known one; that it is a sum weighted by its
// units' weights, whatever their order; that all it remembers is in the state bytes; that it returns
// when it is cancelled; and that the wire changes nothing.
//
// newLoss returns a new value each time; given are settings beyond the defaults. The derivatives of a
// surrogate are checked for number and range only.
func Loss[S T[S]](t S, newLoss func() sdk.Loss, given ...sdk.Settings) {
	s := subject[sdk.Loss]{suite(t), newLoss, wire.LossService, given}
	m := s.manifest()
	cases := lossBatches(m.Loss)
	s.everywhere(func(where string, p Served[sdk.Loss]) { checkLoss(s.runner, where+"/", p, m.Loss, cases) })
	s.run("the same over the wire", func(t TB) {
		local, remote := s.configured(t, s.local(t)), s.configured(t, s.remote(t))
		for _, c := range cases {
			sameResult(t, c.name, "", evaluate(t, local, c.batch), evaluate(t, remote, c.batch))
		}
	})
}

// ServedLoss checks a loss that runs in a process of its own: what [Loss] checks, but for that which
// needs the plugin in this process.
func ServedLoss[S T[S]](t S, p Served[sdk.Loss]) {
	r := suite(t)
	if m, ok := p.manifest(r); ok {
		checkLoss(r, "", p, m.Loss, lossBatches(m.Loss))
	}
}

func checkLoss(r runner, where string, p Served[sdk.Loss], traits sdk.LossTraits, cases []lossCase) {
	if traits.Surrogate {
		r.Logf("NOT COMPARED with the slopes: the derivatives, which the manifest says are a surrogate's; all else is checked")
	}
	for _, c := range cases {
		r.run(where+"derivatives of "+c.name, func(t TB) { checkDerivatives(t, p.Any(t), traits, c) })
	}
	typical := cases[0].batch
	r.run(where+"weights", func(t TB) { checkWeights(t, p.Any(t), traits, typical) })
	r.run(where+"sum", func(t TB) { checkSum(t, p.Any(t), typical) })
	r.run(where+"order", func(t TB) { checkOrder(t, p.Any(t), traits, typical) })
	r.run(where+"state", func(t TB) { checkState(t, p, typical) })
	r.run(where+"cancelled", func(t TB) {
		l := p.Any(t)
		before := evaluate(t, l, typical)
		returns(t, func(ctx context.Context) { _, _ = l.Evaluate(ctx, typical) })
		sameResult(t, "the call after a cancelled one", "", before, evaluate(t, p.next(t, l), typical))
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
func checkDerivatives(t TB, l sdk.Loss, traits sdk.LossTraits, c lossCase) {
	t.Helper()
	at, err := l.Evaluate(context.Background(), c.batch)
	if err == nil {
		err = traits.CheckResult(c.batch, at)
	}
	if sdk.CodeOf(err) == sdk.CodeNumeric {
		t.Fatalf("%v%s", err, notFinite(c, at))
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	if traits.Surrogate {
		return
	}
	var have []float64
	var slopes []slope
	wrong := -1
	for i, row := range derivatives(t, traits, c.batch, at) {
		for k, g := range row {
			s := slopeAt(t, l, traits, c.batch, at.Loss, i, k)
			if have, slopes = append(have, g), append(slopes, s); wrong < 0 && !s.allows(g, 1) {
				wrong = len(have) - 1
			}
		}
	}
	if wrong < 0 {
		return
	}
	words := diagnose(c.batch, traits, have, slopes)
	if words != "" {
		words += ": "
	}
	g, s := have[wrong], slopes[wrong]
	t.Errorf("%sderivative %d of completion %d is %v, the slope is %v (within %.2g)", words, s.token, s.completion, g, s.value, s.tolerance(g, 1))
}

// notFinite says more of a result with a number that is not finite. The host keeps such a result to itself.
func notFinite(c lossCase, out sdk.LossResult) string {
	finite := func(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
	rows := append(slices.Clone(out.TokenGradients), out.Gradient)
	bad := slices.ContainsFunc(rows, func(row []float64) bool {
		return slices.ContainsFunc(row, func(g float64) bool { return !finite(g) })
	})
	words := ""
	switch {
	case finite(out.Loss) && !bad && len(out.Metrics) > 0:
		return ": leave a metric out where there is nothing to average"
	case !finite(out.Loss) && !bad && len(out.Gradient)+len(out.TokenGradients) > 0:
		words = " while every derivative is finite"
	case finite(out.Loss) && bad:
		words = " while the loss is finite"
	}
	if c.hint != "" {
		words += ": " + c.hint
	}
	return words
}

// slopeAt moves one log-probability to both sides.
func slopeAt(t TB, l sdk.Loss, traits sdk.LossTraits, b sdk.LossBatch, at float64, i, k int) slope {
	t.Helper()
	x := b.Policy[i]
	if traits.TokenLevel {
		x = b.PolicyTokens[i][k]
	}
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
	right, left := (up-at)/h, (at-down)/h
	rounding := 8 * 0x1p-52 * (math.Abs(up) + math.Abs(down) + math.Abs(at)) / h
	return slope{completion: i, token: k, value: (right + left) / 2, doubt: rounding + math.Abs(right-left)/2}
}

func checkWeights(t TB, l sdk.Loss, traits sdk.LossTraits, b sdk.LossBatch) {
	t.Helper()
	once := evaluate(t, l, b)
	double := b
	double.Weight, double.UnitWeight = times2(b.Weight), times2(b.UnitWeight)
	twice := evaluate(t, l, double)
	if !near(twice.Loss, 2*once.Loss, 1e-12) {
		t.Errorf("with weights doubled the loss is %v instead of twice %v%s", twice.Loss, once.Loss, weightFault(t, l, b, once.Loss, twice.Loss))
	}
	a, c := derivatives(t, traits, b, once), derivatives(t, traits, b, twice)
	for i := range a {
		for k := range a[i] {
			if !near(c[i][k], 2*a[i][k], 1e-12) {
				t.Errorf("with weights doubled, derivative %d of completion %d is %v instead of twice %v", k, i, c[i][k], a[i][k])
				return
			}
		}
	}
}

// weightFault says what a loss does with its weights instead.
func weightFault(t TB, l sdk.Loss, b sdk.LossBatch, once, twice float64) string {
	t.Helper()
	switch {
	case near(twice, 4*once, 1e-12):
		return ": the weight is in it twice"
	case !near(twice, once, 1e-12):
		return ""
	}
	for _, w := range []*[]float64{&b.Weight, &b.UnitWeight} {
		if len(*w) > 0 {
			*w = slices.Clone(*w)
			(*w)[0] *= 2
		}
	}
	if near(evaluate(t, l, b).Loss, once, 1e-12) {
		return ": weights ignored"
	}
	return ": it is divided by the total weight, which the host does"
}

func times2(x []float64) []float64 {
	out := slices.Clone(x)
	for i := range out {
		out[i] *= 2
	}
	return out
}

// checkSum has every completion and every pair stand twice: the loss of a sum is then twice what it was.
func checkSum(t TB, l sdk.Loss, b sdk.LossBatch) {
	t.Helper()
	twice := b
	for _, x := range []*[]float64{&twice.Policy, &twice.Reference, &twice.WinRate, &twice.WinRateSE, &twice.ChosenWinRate,
		&twice.RejectedWinRate, &twice.Target, &twice.Preference, &twice.Weight, &twice.UnitWeight,
		&twice.MismatchedPolicy, &twice.MismatchedReference} {
		*x = slices.Repeat(*x, 2)
	}
	twice.Tokens, twice.Teacher = slices.Repeat(b.Tokens, 2), slices.Repeat(b.Teacher, 2)
	twice.PolicyTokens, twice.ReferenceTokens = slices.Repeat(b.PolicyTokens, 2), slices.Repeat(b.ReferenceTokens, 2)
	moved := func(x []int32, by int32) []int32 {
		out := slices.Repeat(x, 2)
		for i := range x {
			out[len(x)+i] += by
		}
		return out
	}
	completions := int32(len(b.Policy))
	twice.Group = moved(b.Group, slices.Max(b.Group)+1)
	twice.Chosen, twice.Rejected = moved(b.Chosen, completions), moved(b.Rejected, completions)
	one, two := evaluate(t, l, b).Loss, evaluate(t, l, twice).Loss
	switch {
	case near(two, 2*one, 1e-9):
	case near(two, one, 1e-9):
		t.Errorf("a mean instead of the weighted sum: with every unit twice in the batch the loss is %v, as before: return the sum, the host divides", two)
	default:
		t.Logf("NO PLAIN SUM: with every unit twice in the batch the loss is %v instead of twice %v: right only if a unit's loss depends on the others of its batch", two, one)
	}
}

// checkOrder turns the completions' and the pairs' order around.
func checkOrder(t TB, l sdk.Loss, traits sdk.LossTraits, b sdk.LossBatch) {
	t.Helper()
	last := int32(len(b.Policy) - 1)
	turned := b
	for _, x := range []*[]float64{&turned.Policy, &turned.Reference, &turned.WinRate, &turned.WinRateSE,
		&turned.ChosenWinRate, &turned.RejectedWinRate, &turned.Target, &turned.Preference, &turned.Weight,
		&turned.MismatchedPolicy, &turned.MismatchedReference} {
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
		t.Errorf("order dependent: in the other order of completions and pairs the loss is %v instead of %v", second.Loss, first.Loss)
	}
	a, c := derivatives(t, traits, b, first), reversed(derivatives(t, traits, turned, second))
	for i := range a {
		for k := range a[i] {
			if !near(c[i][k], a[i][k], 1e-9) {
				t.Errorf("order dependent: in the other order of completions and pairs, derivative %d of completion %d is %v instead of %v", k, i, c[i][k], a[i][k])
				return
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
func checkState(t TB, p Served[sdk.Loss], b sdk.LossBatch) {
	t.Helper()
	const memory = "state kept in memory: what a call needs of those before it has to be in State"
	l := p.Fresh(t)
	first := evaluate(t, l, b)
	next := b
	next.State = first.State
	second := evaluate(t, l, next)
	sameResult(t, "a repeated first call", memory, first, evaluate(t, l, b))
	b.State = []byte{}
	sameResult(t, "a call with an empty state", memory, first, evaluate(t, l, b))
	sameResult(t, "the second call, in a new process", memory, second, evaluate(t, p.Fresh(t), next))
}

// sameResult compares results to the bit; words say what a difference means, where that is known.
func sameResult(t TB, what, words string, want, have sdk.LossResult) {
	t.Helper()
	if words != "" {
		words = ": " + words
	}
	rows := slices.EqualFunc(want.TokenGradients, have.TokenGradients, slices.Equal[[]float64])
	if want.Loss != have.Loss || !slices.Equal(want.Gradient, have.Gradient) || !rows ||
		!maps.Equal(want.Metrics, have.Metrics) || !bytes.Equal(want.State, have.State) {
		t.Errorf("%s gives another result%s\nhave %+v\nwant %+v", what, words, have, want)
	}
}

// near compares relative to the wanted number.
func near(have, want, relative float64) bool {
	return math.Abs(have-want) <= relative*math.Abs(want)+1e-12
}
