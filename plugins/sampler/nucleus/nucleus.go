// Package nucleus is the sampler that draws from the policy in training by temperature, top-k, top-p and min-p.
package nucleus

import (
	"context"

	"github.com/dno-project/dno/plugins/internal/settings"
	"github.com/dno-project/dno/sdk"
)

// Sampler draws each completion by itself through the host's generator: all the prompts of a
// request in one call, so that the host can batch them.
type Sampler struct{ options sdk.GenerateOptions }

// New returns the sampler.
func New() sdk.Sampler { return &Sampler{} }

// Manifest declares a sampler that needs the generator.
func (*Sampler) Manifest() sdk.Manifest {
	number := settings.Number
	zero, one := sdk.Between(0, 1)
	return sdk.Manifest{
		Kind:    sdk.KindSampler,
		Name:    "nucleus",
		Version: "1",
		Help:    "draws from the policy in training: temperature, top-k, top-p, min-p",
		Settings: []sdk.Setting{
			number("temperature", 1, zero, nil, "divides the logits; 0 is greedy, 1 is the policy's own distribution"),
			number("top_p", 1, zero, one, "keep the most probable tokens that hold this mass, above 0; 1 is off"),
			number("top_k", 0, zero, nil, "keep this many of the most probable tokens; 0 is off"),
			number("min_p", 0, zero, one, "keep tokens at least this fraction as probable as the most probable; 0 is off"),
			number("repetition_penalty", 1, zero, nil, "above 1, tokens seen before become less probable; above 0, 1 is off"),
			number("max_tokens", 64, one, nil, "length at which a completion is cut, in tokens"),
			{Name: "stop", Type: sdk.TypeList, Default: []any{}, Help: "texts before the first of which a completion ends"},
		},
		Sampler: sdk.SamplerTraits{UsesGenerator: true},
	}
}

// Configure takes the settings. It refuses what the generator would read as "off" although the
// number says otherwise: a top_p or repetition_penalty of 0.
func (s *Sampler) Configure(_ context.Context, given sdk.Settings) error {
	topP, err := settings.Positive(given, "top_p", 1)
	if err != nil {
		return err
	}
	penalty, err := settings.Positive(given, "repetition_penalty", 1)
	if err != nil {
		return err
	}
	topK, err := settings.Whole(given, "top_k", 0)
	if err != nil {
		return err
	}
	maxTokens, err := settings.Whole(given, "max_tokens", 64)
	if err != nil {
		return err
	}
	stop, err := settings.Texts(given, "stop")
	if err != nil {
		return err
	}
	for i, text := range stop {
		if text == "" {
			return sdk.Errorf(sdk.CodeUsage, "setting \"stop\": entry %d is empty: every completion would end at once", i+1)
		}
	}
	s.options = sdk.GenerateOptions{
		Temperature: given.Number("temperature", 1), TopK: topK, TopP: topP, MinP: given.Number("min_p", 0),
		RepetitionPenalty: penalty, MaxTokens: maxTokens, Stop: stop,
	}
	return nil
}

// Sample draws the completions that the seeds ask for.
func (s *Sampler) Sample(ctx context.Context, req sdk.SampleRequest, generator sdk.Generator) (sdk.SampleResponse, error) {
	if generator == nil {
		return sdk.SampleResponse{}, sdk.Errorf(sdk.CodePlugin, "sampler \"nucleus\" draws from the policy in training and was given no generator")
	}
	if len(req.Seeds) != len(req.Prompts) {
		return sdk.SampleResponse{}, sdk.Errorf(sdk.CodePlugin, "%d prompts came with seeds for %d", len(req.Prompts), len(req.Seeds))
	}
	ask := sdk.GenerateRequest{Seeds: req.Seeds, Options: s.options}
	for i, p := range req.Prompts {
		if len(req.Seeds[i]) != req.K {
			return sdk.SampleResponse{}, sdk.Errorf(sdk.CodePlugin, "prompt %q came with %d seeds for %d completions", p.ID, len(req.Seeds[i]), req.K)
		}
		ask.Prompts = append(ask.Prompts, p.Messages)
	}
	out, err := generator.Generate(ctx, ask)
	if err != nil {
		return sdk.SampleResponse{}, err
	}
	return sdk.SampleResponse(out), nil
}

var _ sdk.Sampler = (*Sampler)(nil)
