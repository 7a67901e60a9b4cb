package nucleus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/sdk"
)

// recorder is a generator whose completions say what they were asked with.
type recorder struct {
	asked []sdk.GenerateRequest
	err   error
}

func (r *recorder) Generate(_ context.Context, req sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	r.asked = append(r.asked, req)
	var out sdk.GenerateResponse
	for i, p := range req.Prompts {
		var of []sdk.Completion
		for _, seed := range req.Seeds[i] {
			of = append(of, sdk.Completion{Text: fmt.Sprint(p[0].Content, seed), Seed: seed, Finish: sdk.FinishStop})
		}
		out.Completions = append(out.Completions, of)
	}
	return out, r.err
}

func configured(t *testing.T, given sdk.Settings) (sdk.Sampler, error) {
	t.Helper()
	s := New()
	resolved, err := s.Manifest().Resolve(given)
	if err != nil {
		return nil, err
	}
	return s, s.Configure(context.Background(), resolved)
}

func request() sdk.SampleRequest {
	prompt := func(text string) sdk.Prompt {
		return sdk.Prompt{ID: text, Messages: []sdk.Message{{Role: "user", Content: text}}}
	}
	return sdk.SampleRequest{Prompts: []sdk.Prompt{prompt("a"), prompt("b")}, K: 2, Seeds: [][]uint64{{1, 2}, {3, 4}}}
}

func TestWhatTheGeneratorIsAsked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		given sdk.Settings
		want  sdk.GenerateOptions
	}{
		"the defaults are the policy's own distribution": {sdk.Settings{},
			sdk.GenerateOptions{Temperature: 1, TopP: 1, RepetitionPenalty: 1, MaxTokens: 64}},
		"every setting arrives": {sdk.Settings{"temperature": 0.7, "top_p": 0.95, "top_k": 40, "min_p": 0.05,
			"repetition_penalty": 1.1, "max_tokens": 256, "stop": []any{"\n", "END"}},
			sdk.GenerateOptions{Temperature: 0.7, TopP: 0.95, TopK: 40, MinP: 0.05, RepetitionPenalty: 1.1,
				MaxTokens: 256, Stop: []string{"\n", "END"}}},
		"a temperature of 0 is greedy": {sdk.Settings{"temperature": 0},
			sdk.GenerateOptions{Temperature: 0, TopP: 1, RepetitionPenalty: 1, MaxTokens: 64}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := configured(t, c.given)
			if err != nil {
				t.Fatal(err)
			}
			g := &recorder{}
			out, err := s.Sample(context.Background(), request(), g)
			if err != nil {
				t.Fatal(err)
			}
			want := []sdk.GenerateRequest{{Prompts: [][]sdk.Message{{{Role: "user", Content: "a"}}, {{Role: "user", Content: "b"}}},
				Seeds: [][]uint64{{1, 2}, {3, 4}}, Options: c.want}}
			if diff := cmp.Diff(want, g.asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
			var texts []string
			for _, of := range out.Completions {
				for _, completion := range of {
					texts = append(texts, completion.Text)
				}
			}
			if got := strings.Join(texts, " "); got != "a1 a2 b3 b4" {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestRefusedSettings(t *testing.T) {
	t.Parallel()
	for name, given := range map[string]sdk.Settings{
		"a negative temperature":      {"temperature": -1},
		"a top_p above 1":             {"top_p": 1.1},
		"a top_p of 0":                {"top_p": 0},
		"half a token":                {"top_k": 0.5},
		"no tokens at all":            {"max_tokens": 0},
		"a repetition penalty of 0":   {"repetition_penalty": 0},
		"an empty stop text":          {"stop": []any{"x", ""}},
		"a stop that is not a text":   {"stop": []any{1.0}},
		"a stop that is not a list":   {"stop": "x"},
		"a setting that is not there": {"topp": 1},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := configured(t, given); sdk.CodeOf(err) != sdk.CodeUsage {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	failure := errors.New("out of tokens")
	for name, c := range map[string]struct {
		change    func(*sdk.SampleRequest)
		generator sdk.Generator
		want      string
	}{
		"no generator":           {func(*sdk.SampleRequest) {}, nil, "no generator"},
		"a prompt without seeds": {func(r *sdk.SampleRequest) { r.Seeds = r.Seeds[:1] }, &recorder{}, "seeds for 1"},
		"a seed too few":         {func(r *sdk.SampleRequest) { r.Seeds[1] = r.Seeds[1][:1] }, &recorder{}, `prompt "b" came with 1 seeds`},
		"the generator fails":    {func(*sdk.SampleRequest) {}, &recorder{err: failure}, "out of tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := configured(t, sdk.Settings{})
			if err != nil {
				t.Fatal(err)
			}
			req := request()
			c.change(&req)
			if _, err := s.Sample(context.Background(), req, c.generator); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}
