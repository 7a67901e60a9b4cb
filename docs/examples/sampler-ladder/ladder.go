package main

import (
	"context"
	"math"

	"github.com/dno-project/dno/sdk"
)

// Sampler draws from the policy in training at a ladder of temperatures: completion k of the K of a
// prompt at
//
//	T_k = low + (high − low)·k/(K − 1),  k = 0 … K−1
//
// and at low where K is 1. The careful completions and the bold ones of a prompt are so compared
// with one another. Each is fixed by its seed and its place; with high below low the ladder falls.
//
// Differs: DNO's win rates are against the policy itself, which only T = 1 draws from. With a ladder
// they are against the mixture of its rungs.
type Sampler struct {
	low, high float64
	maxTokens int
}

// New returns the sampler.
func New() sdk.Sampler { return &Sampler{} }

const defaultLow, defaultHigh, defaultMaxTokens = 0.5, 1.5, 64.0

// Manifest declares a sampler that needs the generator.
func (*Sampler) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Kind: sdk.KindSampler, Name: "ladder", Version: "1",
		Help: "draws a prompt's completions at rising temperatures",
		Settings: []sdk.Setting{
			{Name: "low", Type: sdk.TypeNumber, Default: defaultLow, Min: sdk.AtLeast(0), Help: "temperature of the first completion; 0 is greedy"},
			{Name: "high", Type: sdk.TypeNumber, Default: defaultHigh, Min: sdk.AtLeast(0), Help: "temperature of the last completion"},
			{Name: "max_tokens", Type: sdk.TypeNumber, Default: defaultMaxTokens, Min: sdk.AtLeast(1),
				Help: "length at which a completion is cut, in tokens"},
		},
		Sampler: sdk.SamplerTraits{UsesGenerator: true},
	}
}

// Configure takes the settings. The error says that max_tokens is no whole number.
func (s *Sampler) Configure(_ context.Context, given sdk.Settings) error {
	n := given.Number("max_tokens", defaultMaxTokens)
	if n != math.Trunc(n) || n > math.MaxInt32 {
		return sdk.Errorf(sdk.CodeUsage, "setting \"max_tokens\": want a whole number, have %v", n)
	}
	*s = Sampler{low: given.Number("low", defaultLow), high: given.Number("high", defaultHigh), maxTokens: int(n)}
	return nil
}

// Sample draws rung by rung, all prompts of a rung in one call, so that the host can batch them.
func (s *Sampler) Sample(ctx context.Context, req sdk.SampleRequest, generator sdk.Generator) (sdk.SampleResponse, error) {
	if generator == nil {
		return sdk.SampleResponse{}, sdk.Errorf(sdk.CodePlugin, "sampler \"ladder\" draws from the policy in training and was given no generator")
	}
	prompts := make([][]sdk.Message, len(req.Prompts))
	for i, p := range req.Prompts {
		prompts[i] = p.Messages
	}
	out := make([][]sdk.Completion, len(prompts))
	for k := range req.K {
		seeds := make([][]uint64, len(prompts))
		for i := range prompts {
			seeds[i] = req.Seeds[i][k : k+1]
		}
		rung, err := generator.Generate(ctx, sdk.GenerateRequest{Prompts: prompts, Seeds: seeds,
			Options: sdk.GenerateOptions{Temperature: s.temperature(k, req.K), MaxTokens: s.maxTokens}})
		if err != nil {
			return sdk.SampleResponse{}, err
		}
		for i := range out {
			out[i] = append(out[i], rung.Completions[i]...)
		}
	}
	return sdk.SampleResponse{Completions: out}, nil
}

func (s *Sampler) temperature(k, of int) float64 {
	if of < 2 {
		return s.low
	}
	return s.low + (s.high-s.low)*float64(k)/float64(of-1)
}

var _ sdk.Sampler = (*Sampler)(nil)
