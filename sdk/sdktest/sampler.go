package sdktest

import (
	"context"
	"fmt"
	"reflect"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/wire"
)

// Sampler checks a sampler: its manifest; that every prompt gets a list of at most K completions,
// in order; that a prompt's completions depend on the prompt and its seeds alone; that it returns
// when it is cancelled; and the same over the wire.
//
// newSampler returns a new value each time; given are settings beyond the defaults. The generator
// that it may draw from writes texts made of prompt and seed.
func Sampler[S T[S]](t S, newSampler func() sdk.Sampler, given ...sdk.Settings) {
	s := subject[sdk.Sampler]{suite(t), newSampler, wire.SamplerService, given}
	m := s.manifest()
	generator := func(g sdk.Generator) sdk.Generator {
		if !m.Sampler.UsesGenerator {
			return nil
		}
		return g
	}
	s.everywhere(func(where string, fresh func(TB) sdk.Sampler) {
		s.run(where+"/completions", func(t TB) { checkCompletions(t, fresh(t), generator(writer{})) })
		s.run(where+"/cancelled", func(t TB) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if !m.Sampler.UsesGenerator {
				cancel()
			}
			_, _ = fresh(t).Sample(ctx, requests(), generator(canceller{cancel})) // it returns
		})
	})
	s.run("the same over the wire", func(t TB) {
		local, remote := s.configured(t, s.local(t)), s.configured(t, s.remote(t))
		here, there := sample(t, local, requests(), generator(writer{})), sample(t, remote, requests(), generator(writer{}))
		if !reflect.DeepEqual(here, there) {
			t.Errorf("over the wire: have\n%+v\nwant\n%+v", there, here)
		}
	})
}

// requests are three prompts with two completions each.
func requests() sdk.SampleRequest {
	req := sdk.SampleRequest{K: 2}
	for i := range 3 {
		req.Prompts = append(req.Prompts, sdk.Prompt{
			ID: fmt.Sprintf("sum-%d", i), Answer: "4", Metadata: map[string]any{"level": float64(i)},
			Messages: []sdk.Message{{Role: "user", Content: fmt.Sprintf("What is %d+%d?", i, i)}},
		})
		req.Seeds = append(req.Seeds, []uint64{uint64(i) + 1, 1<<63 + uint64(i)})
	}
	return req
}

// sample returns the completions, an empty list and none being the same.
func sample(t TB, s sdk.Sampler, req sdk.SampleRequest, g sdk.Generator) [][]sdk.Completion {
	t.Helper()
	out, err := s.Sample(context.Background(), req, g)
	if err != nil {
		t.Fatalf("sample: %v", err)
	}
	if err := req.CheckResponse(out); err != nil {
		t.Fatalf("%v", err)
	}
	for i, row := range out.Completions {
		if len(row) == 0 {
			out.Completions[i] = nil
		}
	}
	return out.Completions
}

func checkCompletions(t TB, s sdk.Sampler, g sdk.Generator) {
	t.Helper()
	req := requests()
	out := sample(t, s, req, g)
	for i, row := range out {
		alone := sdk.SampleRequest{K: req.K, Prompts: req.Prompts[i : i+1], Seeds: req.Seeds[i : i+1]}
		if again := sample(t, s, alone, g); !reflect.DeepEqual(again[0], row) {
			t.Errorf("prompt %d gets other completions when it is asked alone:\n%+v\ninstead of\n%+v", i, again[0], row)
		}
	}
}

// writer is a generator whose completions are made of prompt and seed.
type writer struct{}

func (writer) Generate(ctx context.Context, req sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	if req.Options.MaxTokens < 1 {
		return sdk.GenerateResponse{}, sdk.Errorf(sdk.CodeUsage, "max_tokens is %d: want at least 1", req.Options.MaxTokens)
	}
	out := make([][]sdk.Completion, len(req.Prompts))
	for i, messages := range req.Prompts {
		for _, seed := range req.Seeds[i] {
			p := -1 - float64(seed%7)
			out[i] = append(out[i], sdk.Completion{
				Text: fmt.Sprintf("%s drawn with %d", messages[len(messages)-1].Content, seed), Tokens: []int32{int32(seed % 100), 2},
				LogProb: &p, Finish: sdk.FinishStop, Seed: seed,
			})
		}
	}
	return sdk.GenerateResponse{Completions: out}, ctx.Err()
}

// canceller is a generator during which the caller gives up.
type canceller struct{ cancel func() }

func (c canceller) Generate(ctx context.Context, _ sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	c.cancel()
	<-ctx.Done()
	return sdk.GenerateResponse{}, ctx.Err()
}
