package main

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/sdktest"
)

func TestContract(t *testing.T) {
	sdktest.Loss(t, New)
	sdktest.Loss(t, New, sdk.Settings{"beta": 0})
}

func TestValues(t *testing.T) {
	nan := math.NaN()
	own := []bool{false, false, false}
	for name, c := range map[string]struct {
		beta                       float64
		policy, reference, winRate []float64
		teacher                    []bool
		weight                     float64
		want                       float64
		wantGradient               []float64
	}{
		// A = 0.75 − 0.375, 0.5 − 0.5, 0.25 − 0.625; −(0.375·(−10) − 0.375·(−30))/3 = −2.5; ∓0.375/3.
		"win rates less those of the others": {1, []float64{-10, -20, -30}, []float64{-10, -20, -30}, []float64{0.75, 0.5, 0.25}, own, 1,
			-2.5, []float64{-0.125, 0, 0.125}},
		// A = 0; h = 3, 0, −3: 0.5/2·(9 + 9)/3 = 1.5; 0.5·3/3.
		"equal win rates leave the penalty": {0.5, []float64{-7, -20, -33}, []float64{-10, -20, -30}, []float64{0.5, 0.5, 0.5}, own, 1,
			1.5, []float64{0.5, 0, -0.5}},
		// k = 2: A = ±0.5; −(0.5·(−10) − 0.5·(−30))/2·4 = −20; ∓0.5/2·4.
		"without an opponent it is left out": {1, []float64{-10, -20, -30}, []float64{-10, -99, -30}, []float64{0.75, nan, 0.25}, own, 4,
			-20, []float64{-1, 0, 1}},
		"the teacher's is left out": {1, []float64{-10, -30, -20}, []float64{-10, -30, -99}, []float64{0.75, 0.25, 1}, []bool{false, false, true}, 4,
			-20, []float64{-1, 1, 0}},
		"one alone has no baseline": {1, []float64{-10, -20, -30}, []float64{-11, -20, -30}, []float64{0.75, nan, nan}, own, 1,
			0, []float64{0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			l := New()
			if err := l.Configure(context.Background(), sdk.Settings{"beta": c.beta}); err != nil {
				t.Fatal(err)
			}
			out, err := l.Evaluate(context.Background(), sdk.LossBatch{Group: []int32{0, 0, 0}, Policy: c.policy, Reference: c.reference,
				Tokens: []int32{9, 9, 9}, WinRate: c.winRate, Teacher: c.teacher, UnitWeight: []float64{c.weight}})
			if err != nil {
				t.Fatal(err)
			}
			if out.Loss != c.want || !slices.Equal(out.Gradient, c.wantGradient) {
				t.Errorf("got %v, %v; want %v, %v", out.Loss, out.Gradient, c.want, c.wantGradient)
			}
		})
	}
}

// A baseline of one group does not leak into another.
func TestGroupsAreApart(t *testing.T) {
	one := sdk.LossBatch{Group: []int32{0, 0}, Policy: []float64{-10, -30}, Reference: []float64{-11, -29},
		Tokens: []int32{9, 9}, WinRate: []float64{0.75, 0.25}, Teacher: []bool{false, false}, UnitWeight: []float64{1}}
	two := sdk.LossBatch{Group: []int32{1, 0, 1, 0}, Policy: []float64{-5, -10, -6, -30}, Reference: []float64{-5, -11, -6, -29},
		Tokens: []int32{9, 9, 9, 9}, WinRate: []float64{1, 0.75, 1, 0.25}, Teacher: make([]bool, 4), UnitWeight: []float64{1, 1}}
	a, err := New().Evaluate(context.Background(), one)
	if err != nil {
		t.Fatal(err)
	}
	b, err := New().Evaluate(context.Background(), two)
	if err != nil {
		t.Fatal(err)
	}
	if want := []float64{0, a.Gradient[0], 0, a.Gradient[1]}; a.Loss != b.Loss || !slices.Equal(b.Gradient, want) {
		t.Errorf("got %v, %v; want %v, %v", b.Loss, b.Gradient, a.Loss, want)
	}
}
