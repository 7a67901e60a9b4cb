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
	s.everywhere(func(where string, p Served[sdk.Sampler]) { checkSampler(s.runner, where+"/", p, m.Sampler) })
	s.run("the same over the wire", func(t TB) {
		local, remote := s.configured(t, s.local(t)), s.configured(t, s.remote(t))
		here, there := sample(t, local, requests(), generator(m.Sampler, writer{})), sample(t, remote, requests(), generator(m.Sampler, writer{}))
		if !reflect.DeepEqual(here, there) {
			t.Errorf("over the wire %s", differ(here, there))
		}
	})
}

// ServedSampler checks a sampler that runs in a process of its own: what [Sampler] checks, but for that
// which needs the plugin in this process.
func ServedSampler[S T[S]](t S, p Served[sdk.Sampler]) {
	r := suite(t)
	if m, ok := p.manifest(r); ok {
		checkSampler(r, "", p, m.Sampler)
	}
}

func checkSampler(r runner, where string, p Served[sdk.Sampler], traits sdk.SamplerTraits) {
	g := generator(traits, writer{})
	r.run(where+"completions", func(t TB) { checkCompletions(t, p.Any(t), g) })
	r.run(where+"again", func(t TB) {
		first := sample(t, p.Any(t), requests(), g)
		if again := sample(t, p.Fresh(t), requests(), g); !reflect.DeepEqual(first, again) {
			t.Errorf("not fixed by its seeds: in a new process, %s", differ(first, again))
		}
	})
	r.run(where+"cancelled", func(t TB) {
		s := p.Any(t)
		returns(t, func(ctx context.Context) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			_, _ = s.Sample(ctx, requests(), generator(traits, canceller{cancel}))
		})
		sample(t, p.next(t, s), requests(), g)
	})
}

// generator is what the sampler may draw from: nil unless it says that it does.
func generator(traits sdk.SamplerTraits, g sdk.Generator) sdk.Generator {
	if !traits.UsesGenerator {
		return nil
	}
	return g
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
	if again := sample(t, s, req, g); !reflect.DeepEqual(out, again) {
		t.Errorf("not fixed by its seeds: asked again, %s", differ(out, again))
		return
	}
	for i, row := range out {
		alone := sample(t, s, sdk.SampleRequest{K: req.K, Prompts: req.Prompts[i : i+1], Seeds: req.Seeds[i : i+1]}, g)
		if reflect.DeepEqual(alone[0], row) {
			continue
		}
		words := "it depends on the other prompts of the request"
		for j, other := range out {
			if reflect.DeepEqual(alone[0], other) {
				words = fmt.Sprintf("transposed: they are in completions[%d]", j)
			}
		}
		t.Errorf("prompt %d gets other completions when it is asked alone: %s: %s", i, words, differ([][]sdk.Completion{row}, alone))
	}
}

// differ names the first completion in which two answers differ.
func differ(want, have [][]sdk.Completion) string {
	for i := range want {
		if len(want[i]) != len(have[i]) {
			return fmt.Sprintf("completions[%d] has %d completions instead of %d", i, len(have[i]), len(want[i]))
		}
		for k := range want[i] {
			if !reflect.DeepEqual(want[i][k], have[i][k]) {
				return fmt.Sprintf("completions[%d][%d] is %+v instead of %+v", i, k, have[i][k], want[i][k])
			}
		}
	}
	return "nothing differs"
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
