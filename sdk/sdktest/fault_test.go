package sdktest

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dno-project/dno/sdk"
)

// spoiled is a loss whose results go through change, with the batch that they are of.
type spoiled struct {
	sdk.Loss
	change func(sdk.LossBatch, *sdk.LossResult)
}

func (s *spoiled) Evaluate(ctx context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	out, err := s.Loss.Evaluate(ctx, b)
	if err == nil {
		s.change(b, &out)
	}
	return out, err
}

// perLength is the sigmoid loss of log-probabilities a token: the derivatives by chosen and rejected
// are not each other's negatives, so that faults that are one for DPO are two here.
func perLength(beta float64) sdk.PairFunc {
	f := logistic(beta)
	return func(p sdk.PairTerm) (float64, float64, float64) {
		p.Chosen, p.Rejected = p.Chosen/p.ChosenTokens, p.Rejected/p.RejectedTokens
		l, c, r := f(p)
		return l, c / p.ChosenTokens, r / p.RejectedTokens
	}
}

func gradient(change func(sdk.LossBatch, []float64) []float64) func(sdk.LossBatch, *sdk.LossResult) {
	return func(b sdk.LossBatch, r *sdk.LossResult) { r.Gradient = change(b, slices.Clone(r.Gradient)) }
}

func scaled(k func(sdk.LossBatch, int) float64) func(sdk.LossBatch, *sdk.LossResult) {
	return gradient(func(b sdk.LossBatch, g []float64) []float64 {
		for i := range g {
			g[i] *= k(b, i)
		}
		return g
	})
}

// places moves each derivative to where a list of completions says.
func places(order func(b sdk.LossBatch) []int32) func(sdk.LossBatch, *sdk.LossResult) {
	return gradient(func(b sdk.LossBatch, g []float64) []float64 {
		out := slices.Clone(g)
		if of := order(b); len(of) == len(g) {
			for i, j := range of {
				out[i] = g[j]
			}
		}
		return out
	})
}

func tokenRows(change func(row []float64)) func(sdk.LossBatch, *sdk.LossResult) {
	return func(_ sdk.LossBatch, r *sdk.LossResult) {
		for _, row := range r.TokenGradients {
			change(row)
		}
	}
}

func sum(x []float64) (total float64) {
	for _, v := range x {
		total += v
	}
	return total
}

// Each known fault is called by its name.
func TestFaultsAreNamed(t *testing.T) {
	weight := func(b sdk.LossBatch, i int) float64 {
		if w := weightOf(b); w != nil {
			return w[i]
		}
		return 1
	}
	tokens := func() sdk.Loss { return &perToken{} }
	units := func() sdk.Loss { return &baseline{} }
	for name, c := range map[string]struct {
		loss   func() sdk.Loss
		change func(sdk.LossBatch, *sdk.LossResult)
		want   string
	}{
		"the negative": {pairwise(perLength), scaled(func(sdk.LossBatch, int) float64 { return -1 }),
			"derivatives of a typical batch: wrong sign: every derivative is −1 times the slope: return dLoss/dlog π, not its negative: derivative 0 of completion 0 is "},
		"the negative, of completions": {units, scaled(func(sdk.LossBatch, int) float64 { return -1 }),
			"derivatives of a typical batch: wrong sign: every derivative is −1 times the slope"},
		"half": {pairwise(perLength), scaled(func(sdk.LossBatch, int) float64 { return 0.5 }),
			"derivatives of a typical batch: wrong scale: every derivative is 0.5 times the slope: derivative 0"},
		"the mean over pairs": {pairwise(perLength), scaled(func(b sdk.LossBatch, _ int) float64 { return 1 / float64(len(b.Chosen)) }),
			"derivatives of pairs that share no completion: wrong scale: every derivative is 0.2 times the slope, 1/number of pairs: a mean instead of the weighted sum"},
		"the mean over completions": {units, scaled(func(b sdk.LossBatch, _ int) float64 { return 1 / float64(len(b.Policy)) }),
			"wrong scale: every derivative is 0.1 times the slope, 1/number of completions: a mean"},
		"the mean over groups": {tokens, func(b sdk.LossBatch, r *sdk.LossResult) {
			for _, row := range r.TokenGradients {
				for i := range row {
					row[i] /= float64(len(b.UnitWeight))
				}
			}
		}, "0.25 times the slope, 1/number of groups: a mean"},
		"the mean over weights": {pairwise(perLength), scaled(func(b sdk.LossBatch, _ int) float64 {
			return 1 / sum(b.Weight)
		}), "1/total weight: a mean instead of the weighted sum"},
		"per token": {pairwise(logistic), scaled(func(b sdk.LossBatch, i int) float64 { return 1 / float64(b.Tokens[i]) }),
			"derivatives of a typical batch: wrong scale: each derivative is its slope divided by the completion's number of tokens"},
		"times tokens": {pairwise(perLength), scaled(func(b sdk.LossBatch, i int) float64 { return float64(b.Tokens[i]) }),
			"wrong scale: each derivative is its slope times the completion's number of tokens"},
		"none": {pairwise(logistic), scaled(func(sdk.LossBatch, int) float64 { return 0 }), "no derivative: every one is 0"},
		"no weights": {pairwise(perLength), scaled(func(b sdk.LossBatch, i int) float64 { return 1 / weight(b, i) }),
			"derivatives of pairs that share no completion: weights ignored: each derivative is its slope without the weight of its unit"},
		"no weights of completions": {units, scaled(func(b sdk.LossBatch, i int) float64 { return 1 / weight(b, i) }),
			"derivatives of a typical batch: weights ignored"},
		"weights twice": {pairwise(perLength), scaled(weight), "weights twice: each derivative is its slope times the weight of its unit"},
		"the rejected's sign": {pairwise(perLength), scaled(func(b sdk.LossBatch, i int) float64 {
			if weightOf(b) != nil && slices.Contains(b.Rejected, int32(i)) {
				return -1
			}
			return 1
		}), "wrong sign of the derivatives by the rejected completions, and of these alone"},
		"swapped": {pairwise(perLength), places(func(b sdk.LossBatch) []int32 {
			of := make([]int32, len(b.Policy))
			for k, i := range b.Chosen {
				of[i], of[b.Rejected[k]] = b.Rejected[k], i
			}
			return of
		}), "derivatives of pairs that share no completion: transposed: the derivatives by the chosen and by the rejected are swapped: derivative 0"},
		"all chosen, then all rejected": {pairwise(perLength), places(func(b sdk.LossBatch) []int32 { return slices.Concat(b.Chosen, b.Rejected) }),
			"derivatives of pairs that share no completion: transposed: the derivatives are in the order of pairs, all chosen and then all rejected"},
		"pair by pair": {pairwise(perLength), places(func(b sdk.LossBatch) []int32 {
			var of []int32
			for k := range b.Chosen {
				of = append(of, b.Chosen[k], b.Rejected[k])
			}
			return of
		}), "transposed: the derivatives are in the order of pairs, chosen and rejected in turn"},
		"reversed": {pairwise(perLength), gradient(func(_ sdk.LossBatch, g []float64) []float64 { return reversed(g) }),
			"derivatives of a typical batch: transposed: the derivatives are in reversed order"},
		"shifted": {pairwise(perLength), gradient(func(_ sdk.LossBatch, g []float64) []float64 { return append(g[1:], g[0]) }),
			"derivatives of a typical batch: transposed: each derivative is that of the next place"},
		"tokens shifted": {tokens, tokenRows(func(row []float64) { copy(row, append(slices.Clone(row[1:]), row[0])) }),
			"derivatives of a typical batch: transposed: the derivative of each token is that of the next one"},
		"tokens reversed": {tokens, tokenRows(slices.Reverse), "the derivatives of each completion's tokens are in reversed order"},
		"tokens negative": {tokens, tokenRows(func(row []float64) {
			for i := range row {
				row[i] = -row[i]
			}
		}), "derivatives of a typical batch: wrong sign"},
		"NaN beside finite derivatives": {pairwise(logistic), func(b sdk.LossBatch, r *sdk.LossResult) {
			if b.Policy[0] == -1 {
				r.Loss = math.NaN()
			}
		}, "derivatives of a chosen completion far above: loss is NaN while every derivative is finite: a naive log(sigmoid(x))?"},
		"a NaN derivative": {pairwise(logistic), func(b sdk.LossBatch, r *sdk.LossResult) {
			if b.Policy[0] == b.Policy[1] {
				r.Gradient[1] = math.NaN()
			}
		}, "derivatives of a pair of equals: gradient[1] is NaN while the loss is finite: a division by the margin"},
		"a metric of nothing": {pairwise(logistic), func(_ sdk.LossBatch, r *sdk.LossResult) {
			r.Metrics = map[string]float64{"margin": math.NaN()}
		}, `metrics["margin"] is NaN: leave a metric out where there is nothing to average`},
		"a mean in all": {pairwise(logistic), func(b sdk.LossBatch, r *sdk.LossResult) {
			r.Loss /= float64(len(b.Chosen))
			for i := range r.Gradient {
				r.Gradient[i] /= float64(len(b.Chosen))
			}
		}, "sum: a mean instead of the weighted sum"},
		"divided by the weights": {pairwise(logistic), func(b sdk.LossBatch, r *sdk.LossResult) {
			r.Loss /= sum(b.Weight)
		}, ": it is divided by the total weight, which the host does"},
		"no weights at all": {func() sdk.Loss {
			return &wrapped{pairwise(logistic)(), func(b *sdk.LossBatch) { b.Weight = slices.Repeat([]float64{1}, len(b.Weight)) }, nil}
		}, func(sdk.LossBatch, *sdk.LossResult) {}, ": weights ignored"},
		"squared weights": {pairwise(logistic), func(b sdk.LossBatch, r *sdk.LossResult) { r.Loss *= sum(b.Weight) }, ": the weight is in it twice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRecorder()
			Loss(r, func() sdk.Loss { return &spoiled{c.loss(), c.change} })
			r.wants(t, c.want)
		})
	}
}

// kto reads the mismatched columns: the mean of their log-ratios is a constant of the batch.
type kto struct{ wrong float64 }

func (*kto) Manifest() sdk.Manifest {
	return sdk.Manifest{Name: "mismatched", Version: "1", Help: "a loss of mismatched pairs", Loss: sdk.LossTraits{Mismatched: true}}
}
func (*kto) Configure(context.Context, sdk.Settings) error { return nil }
func (l *kto) Evaluate(_ context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	kl := 0.0
	for i, p := range b.MismatchedPolicy {
		kl += (p - b.MismatchedReference[i]) / float64(len(b.MismatchedPolicy))
	}
	return sdk.SumPairs(b, func(p sdk.PairTerm) (float64, float64, float64) {
		c, r := p.Chosen-kl, p.Rejected-kl
		return c * c / 2, c * (1 + l.wrong), 0 * r
	}), nil
}

func TestALossOfMismatchedPairsIsChecked(t *testing.T) {
	Loss(t, func() sdk.Loss { return &kto{} })
	r := newRecorder()
	Loss(r, func() sdk.Loss { return &kto{wrong: -2} })
	r.wants(t, "in process/derivatives of a typical batch: wrong sign")
	filled, empty := 0, 0
	for _, c := range lossBatches(sdk.LossTraits{Mismatched: true}) {
		switch n := len(c.batch.MismatchedPolicy); {
		case n != len(c.batch.MismatchedReference):
			t.Errorf("%s: %d and %d mismatched", c.name, n, len(c.batch.MismatchedReference))
		case n == len(c.batch.Policy):
			filled++
		case n == 0:
			empty++
		}
	}
	if filled == 0 || empty == 0 {
		t.Errorf("%d batches with mismatched completions, %d without", filled, empty)
	}
}

// surrogate has derivatives that are not the slopes of its value.
type surrogate struct {
	sdk.Loss
	infinite bool
}

func (s *surrogate) Manifest() sdk.Manifest {
	m := s.Loss.Manifest()
	m.Loss.Surrogate = true
	return m
}
func (s *surrogate) Evaluate(ctx context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	out, err := s.Loss.Evaluate(ctx, b)
	out.Loss *= 3
	if s.infinite && b.Policy[1] == -10001 {
		out.Gradient[1] = math.Inf(1)
	}
	return out, err
}

func TestASurrogateIsCheckedButForItsSlopes(t *testing.T) {
	r := newRecorder()
	Loss(r, func() sdk.Loss { return &surrogate{pairwise(logistic)(), false} })
	if len(*r.failed) > 0 {
		t.Errorf("refused: %q", *r.failed)
	}
	if len(*r.logged) == 0 || !strings.Contains((*r.logged)[0], "NOT COMPARED") {
		t.Errorf("it is not said that the slopes are not compared: %q", *r.logged)
	}
	r = newRecorder()
	Loss(r, func() sdk.Loss { return &surrogate{pairwise(logistic)(), true} })
	r.wants(t, "derivatives of a chosen completion far above: gradient[1] is +Inf")
}

// stuck is a loss that answers once and then waits for ever.
type stuck struct {
	sdk.Loss
	closed chan struct{}
}

func (s *stuck) Evaluate(ctx context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	if ctx.Done() != nil {
		<-s.closed
	}
	return s.Loss.Evaluate(ctx, b)
}

func TestACallThatDoesNotReturnIsCaught(t *testing.T) {
	closed := make(chan struct{})
	defer close(closed)
	l := &stuck{pairwise(logistic)(), closed}
	if err := l.Configure(t.Context(), sdk.Settings{"beta": 1.0}); err != nil {
		t.Fatal(err)
	}
	r := newRecorder()
	r.Run("cancelled", func(r *recorder) {
		returnsWithin(r, time.Millisecond, func(ctx context.Context) {
			_, _ = l.Evaluate(ctx, lossBatches(sdk.LossTraits{})[0].batch)
		})
	})
	r.wants(t, "a cancelled call has not returned after 1ms")
}

func TestOfManyDifferencesThreeAreShown(t *testing.T) {
	for name, c := range map[string]struct {
		have []float64
		want []string
	}{
		"none":  {[]float64{1, 2, 3, 4, 5}, nil},
		"three": {[]float64{1, 0, 0, 0, 5}, []string{"pair 1: loss is 0, want 2", "pair 2: loss is 0, want 3", "pair 3: loss is 0, want 4"}},
		"five": {make([]float64, 5), []string{"pair 0: loss is 0, want 1", "pair 1: loss is 0, want 2", "pair 2: loss is 0, want 3",
			"the loss differs in 5 of 5 pairs"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRecorder()
			agreeAll(r, "loss", c.have, []number{1, 2, 3, 4, 5})
			if len(*r.failed) != len(c.want) {
				t.Fatalf("said %q, want %q", *r.failed, c.want)
			}
			for i, words := range c.want {
				if !strings.HasSuffix((*r.failed)[i], words) {
					t.Errorf("said %q, want %q", (*r.failed)[i], words)
				}
			}
		})
	}
}
