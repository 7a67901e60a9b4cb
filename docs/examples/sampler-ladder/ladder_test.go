package main

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/sdktest"
)

func TestContract(t *testing.T) { sdktest.Sampler(t, New) }

// recorder is a generator whose completions say what they were drawn with.
type recorder struct{ calls int }

func (r *recorder) Generate(_ context.Context, req sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	r.calls++
	out := make([][]sdk.Completion, len(req.Prompts))
	for i, p := range req.Prompts {
		for _, seed := range req.Seeds[i] {
			out[i] = append(out[i], sdk.Completion{
				Text: fmt.Sprintf("%s seed %d T %v max %d", p[0].Content, seed, req.Options.Temperature, req.Options.MaxTokens)})
		}
	}
	return sdk.GenerateResponse{Completions: out}, nil
}

func sample(t *testing.T, given sdk.Settings, g sdk.Generator, seeds ...[]uint64) ([][]string, error) {
	t.Helper()
	s := New()
	settings, err := s.Manifest().Resolve(given)
	if err == nil {
		err = s.Configure(context.Background(), settings)
	}
	if err != nil {
		return nil, err
	}
	req := sdk.SampleRequest{K: len(seeds[0]), Seeds: seeds}
	for i := range seeds {
		req.Prompts = append(req.Prompts, sdk.Prompt{ID: "p", Messages: []sdk.Message{{Role: "user", Content: string(rune('a' + i))}}})
	}
	out, err := s.Sample(context.Background(), req, g)
	if err != nil {
		return nil, err
	}
	var texts [][]string
	for _, row := range out.Completions {
		var of []string
		for _, c := range row {
			of = append(of, c.Text)
		}
		texts = append(texts, of)
	}
	return texts, nil
}

func TestRungs(t *testing.T) {
	for name, c := range map[string]struct {
		given sdk.Settings
		seeds [][]uint64
		want  [][]string
	}{
		"from low to high": {sdk.Settings{"low": 0.25, "high": 1.25, "max_tokens": 9}, [][]uint64{{1, 2, 3}, {4, 5, 6}}, [][]string{
			{"a seed 1 T 0.25 max 9", "a seed 2 T 0.75 max 9", "a seed 3 T 1.25 max 9"},
			{"b seed 4 T 0.25 max 9", "b seed 5 T 0.75 max 9", "b seed 6 T 1.25 max 9"}}},
		"a falling ladder":      {sdk.Settings{"low": 1, "high": 0}, [][]uint64{{7, 8}}, [][]string{{"a seed 7 T 1 max 64", "a seed 8 T 0 max 64"}}},
		"one completion is low": {sdk.Settings{}, [][]uint64{{7}}, [][]string{{"a seed 7 T 0.5 max 64"}}},
	} {
		t.Run(name, func(t *testing.T) {
			g := &recorder{}
			got, err := sample(t, c.given, g, c.seeds...)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(got, c.want, slices.Equal[[]string]) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if g.calls != len(c.seeds[0]) {
				t.Errorf("%d calls of the generator for %d rungs", g.calls, len(c.seeds[0]))
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		given sdk.Settings
		g     sdk.Generator
		want  sdk.Code
	}{
		"half a token":           {sdk.Settings{"max_tokens": 1.5}, &recorder{}, sdk.CodeUsage},
		"a negative temperature": {sdk.Settings{"low": -1}, &recorder{}, sdk.CodeUsage},
		"a setting of another":   {sdk.Settings{"temperature": 1}, &recorder{}, sdk.CodeUsage},
		"no policy to draw from": {sdk.Settings{}, nil, sdk.CodePlugin},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := sample(t, c.given, c.g, []uint64{1}); sdk.CodeOf(err) != c.want {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
