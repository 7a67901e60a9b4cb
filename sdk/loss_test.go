package sdk

import (
	"context"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Three completions, of which the second stands in both pairs, once on either side:
//
//	pair 0: chosen 0, rejected 1, weight 2; pair 1: chosen 1, rejected 2, weight 0.5
func twoPairs() LossBatch {
	return LossBatch{
		Group: []int32{0, 0, 0}, Policy: []float64{-2, -3, -7}, Reference: []float64{-1, -5, -6}, Tokens: []int32{4, 5, 6},
		WinRate: []float64{0.75, 0.5, 0.25}, WinRateSE: []float64{0.1, 0.1, 0.1}, Teacher: []bool{true, false, false},
		Chosen: []int32{0, 1}, Rejected: []int32{1, 2}, ChosenWinRate: []float64{0.75, 0.5}, RejectedWinRate: []float64{0.5, 0.25},
		Target: []float64{0.8, 0.6}, Preference: []float64{0.9, 0.7}, Weight: []float64{2, 0.5},
	}
}

// The loss of a pair is chosen·rejected, so its derivatives are each the other one. With the
// log-ratios −2+1 = −1, −3+5 = 2, −7+6 = −1:
//
//	loss       2·(−1·2) + 0.5·(2·−1) = −5
//	gradient   2·2 = 4;  2·(−1) + 0.5·(−1) = −2.5;  0.5·2 = 1
func TestSumPairsAddsUpWhereACompletionStandsTwice(t *testing.T) {
	got := SumPairs(twoPairs(), func(p PairTerm) (float64, float64, float64) { return p.Chosen * p.Rejected, p.Rejected, p.Chosen })
	if want := []float64{4, -2.5, 1}; got.Loss != -5 || !slices.Equal(got.Gradient, want) {
		t.Errorf("have %v and %v, want -5 and %v", got.Loss, got.Gradient, want)
	}
}

// Without a reference, chosen and rejected are the log-probabilities themselves:
//
//	loss       2·(−2·−3) + 0.5·(−3·−7) = 22.5
//	gradient   2·(−3) = −6;  2·(−2) + 0.5·(−7) = −7.5;  0.5·(−3) = −1.5
func TestSumPairsWithoutAReference(t *testing.T) {
	b := twoPairs()
	b.Reference = nil
	got := SumPairs(b, func(p PairTerm) (float64, float64, float64) { return p.Chosen * p.Rejected, p.Rejected, p.Chosen })
	if want := []float64{-6, -7.5, -1.5}; got.Loss != 22.5 || !slices.Equal(got.Gradient, want) {
		t.Errorf("have %v and %v, want 22.5 and %v", got.Loss, got.Gradient, want)
	}
}

func TestSumPairsShowsEachPairWhatIsItsOwn(t *testing.T) {
	var seen []PairTerm
	out := SumPairs(twoPairs(), func(p PairTerm) (float64, float64, float64) { seen = append(seen, p); return 0, 0, 0 })
	want := []PairTerm{
		{-1, 2, -2, -3, 4, 5, 0.8, 0.9, 0.75, 0.5},
		{2, -1, -3, -7, 5, 6, 0.6, 0.7, 0.5, 0.25},
	}
	if !slices.Equal(seen, want) {
		t.Errorf("have %+v\nwant %+v", seen, want)
	}
	if len(out.TokenGradients) != 0 || out.State != nil || out.Metrics != nil {
		t.Errorf("beyond loss and gradient there is %+v", out)
	}
}

func TestSumPairsOfNoPairsIsNothing(t *testing.T) {
	got := SumPairs(LossBatch{Policy: []float64{-1, -2}}, func(PairTerm) (float64, float64, float64) { return 1, 1, 1 })
	if !reflect.DeepEqual(got, LossResult{Gradient: []float64{0, 0}}) {
		t.Errorf("have %+v", got)
	}
}

func TestPairwiseIsALossOfPairs(t *testing.T) {
	l := Pairwise(Manifest{Name: "product"}, func(s Settings) (PairFunc, error) {
		k := s.Number("k", math.NaN())
		if k < 0 {
			return nil, Errorf(CodeUsage, "k is %v", k)
		}
		return func(p PairTerm) (float64, float64, float64) {
			return k * p.Chosen * p.Rejected, k * p.Rejected, k * p.Chosen
		}, nil
	})
	if m := l.Manifest(); m.Kind != KindLoss || m.Loss.Unit != UnitPair || m.Name != "product" {
		t.Errorf("manifest %+v", m)
	}
	ctx := context.Background()
	if _, err := l.Evaluate(ctx, twoPairs()); CodeOf(err) != CodePlugin || !strings.Contains(err.Error(), `"product" was asked to evaluate before`) {
		t.Errorf("before it is configured: %v", err)
	}
	for _, k := range []float64{1, 3} { // the second iteration's settings take the place of the first's
		if err := l.Configure(ctx, Settings{"k": k}); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Evaluate(ctx, twoPairs()); err != nil || got.Loss != -5*k {
			t.Errorf("have %v, %v, want %v", got.Loss, err, -5*k)
		}
	}
	if err := l.Configure(ctx, Settings{"k": -1.0}); CodeOf(err) != CodeUsage {
		t.Errorf("have %v", err)
	}
}
