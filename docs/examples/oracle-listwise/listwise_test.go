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
	sdktest.Oracle(t, New)
	sdktest.Oracle(t, New, sdk.Settings{"sharpness": 0})
}

func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want mark
	}{
		"the embedded model's form":          {"12*7=84;12*4=48;84+48=132", mark{3, 0, 132}},
		"a slip is wrong":                    {"12*7=74;12*4=48", mark{1, 1, 48}},
		"spaces and lines":                   {" 9 - 4 = 5 \n 8/2=4", mark{2, 0, 4}},
		"a step written twice counts once":   {"2+2=4;2+2=4;2+2=5", mark{1, 0, 5}},
		"a difference may be below 0":        {"4-9=-5", mark{1, 0, -5}},
		"a quotient has no rest":             {"9/2=4;8/0=0", mark{0, 2, 0}},
		"words, chains and cuts are no step": {"so 2+2=4;1+2+3=6;12*7=;1=1;2+2=4 cm", mark{}},
		"great numbers are exact":            {"999999999*999999999=999999998000000001", mark{1, 0, 999999998000000001}},
		"greater ones are no step":           {"1000000000+1=1000000001", mark{}},
		"nothing":                            {"", mark{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := read(c.text); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func judge(t *testing.T, sharpness float64, answer string, candidates ...string) sdk.Verdicts {
	t.Helper()
	o := New()
	if err := o.Configure(context.Background(), sdk.Settings{"sharpness": sharpness}); err != nil {
		t.Fatal(err)
	}
	c := sdk.Comparison{ID: "q", Prompt: sdk.Prompt{Answer: answer}, Candidates: candidates}
	for i := range candidates {
		c.Pairs = append(c.Pairs, sdk.Ordered{A: 0, B: i})
	}
	out, err := o.Judge(context.Background(), []sdk.Comparison{c})
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

// With s = ln 3, one rank is worth σ(ln 3) = 3/4, and two σ(2·ln 3) = 9/10: the same two
// completions are further apart when another one stands between them.
func TestPreferencesComeFromTheWholeList(t *testing.T) {
	right, half, wrong, mute := "1+1=2;2+2=4", "1+1=2;2+2=5", "1+1=3", "two"
	for name, c := range map[string]struct {
		candidates []string
		want       []float64 // of the first over each; −1: abstains
	}{
		"alone with the worst":         {[]string{right, wrong}, []float64{0.5, 0.75}},
		"another one stands between":   {[]string{right, wrong, half}, []float64{0.5, 0.9, 0.75}},
		"copies change nothing":        {[]string{right, wrong, half, half, right}, []float64{0.5, 0.9, 0.75, 0.75, 0.5}},
		"from below":                   {[]string{wrong, right}, []float64{0.5, 0.25}},
		"fewer wrong steps are better": {[]string{"1+1=2", half}, []float64{0.5, 0.75}},
		"what cannot be read":          {[]string{right, mute, wrong}, []float64{0.5, -1, 0.75}},
		"when the first is mute":       {[]string{mute, right}, []float64{-1, -1}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []float64
			for _, v := range judge(t, math.Log(3), "4", c.candidates...).Pairs {
				if v.Abstain != "" {
					v.P = -1
				}
				got = append(got, math.Round(v.P*1e12)/1e12)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestLabels(t *testing.T) {
	got := judge(t, 1, "4", "1+1=2;2+2=4", "2+2=4;1+1=3", "4").Assessed
	for i, want := range []map[string]float64{
		{LabelStepsRight: 2, LabelStepsWrong: 0, LabelRank: 1, sdk.LabelCorrect: 1},
		{LabelStepsRight: 1, LabelStepsWrong: 1, LabelRank: 2, sdk.LabelCorrect: 0},
		{LabelStepsRight: 0, LabelStepsWrong: 0, sdk.LabelCorrect: 0},
	} {
		for label, x := range want {
			if y, there := got[i].Labels[label]; !there || y != x || len(got[i].Labels) != len(want) {
				t.Errorf("candidate %d: got %v, want %v", i, got[i].Labels, want)
			}
		}
	}
	if _, there := judge(t, 1, "four", "2+2=4").Assessed[0].Labels[sdk.LabelCorrect]; there {
		t.Error("it marks without a reference answer")
	}
}
