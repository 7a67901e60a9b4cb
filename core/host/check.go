package host

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/dno-project/dno/sdk"
)

// checkManifest says whether the plugin is what the spec asks for, and whole.
func checkManifest(spec Spec, m sdk.Manifest) error {
	err := m.Check()
	switch {
	case m.Kind != spec.Kind:
		err = fmt.Errorf("it is of kind %q: use it as such", m.Kind)
	case err == nil && !isPath(spec.Name) && m.Name != spec.Name:
		err = fmt.Errorf("it calls itself %q: the executable's name and the manifest's must be the same", m.Name)
	}
	if err != nil {
		return sdk.Errorf(sdk.CodePlugin, "manifest of %s: %w", id(spec.Kind, spec.Name), err)
	}
	return nil
}

// blame says whose answer failed a check. A number that is not finite may be the fault of what
// the plugin was given, which training may survive; anything else breaks the contract.
func (c *client) blame(err error) error {
	switch {
	case err == nil:
		return nil
	case sdk.CodeOf(err) == sdk.CodeNumeric:
		return fmt.Errorf("%s: %w", c.id, err)
	}
	return sdk.Errorf(sdk.CodePlugin, "%s broke the contract: %w", c.id, err).WithHint(
		"this is a fault of the plugin: tell its author")
}

// A plugin that may see a key could return it. What it answers is recorded, so the key is taken out of all
// texts; in another form, or in a loss's state, it cannot be known.

func cleanKeys(clean func(string) string, m map[string]float64) map[string]float64 {
	for key, v := range m {
		if c := clean(key); c != key {
			delete(m, key)
			m[c] = v
		}
	}
	return m
}

// Oracles.

type oracle struct{ *client }

func (o *oracle) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	var out []sdk.Verdicts
	err := o.call(ctx, func(ctx context.Context, p sdk.Plugin, _ *clock) (err error) {
		out, err = p.(sdk.Oracle).Judge(ctx, batch)
		return err
	})
	if err == nil {
		err = o.blame(o.Manifest().Oracle.CheckVerdicts(batch, out))
	}
	if err != nil {
		return nil, err
	}
	clean := o.log.Secrets().Clean
	for i, v := range out {
		out[i].Model = clean(v.Model)
		for k := range v.Pairs {
			v.Pairs[k].Abstain, v.Pairs[k].Reason = clean(v.Pairs[k].Abstain), clean(v.Pairs[k].Reason)
		}
		for k := range v.Assessed {
			v.Assessed[k].Abstain, v.Assessed[k].Labels = clean(v.Assessed[k].Abstain), cleanKeys(clean, v.Assessed[k].Labels)
		}
	}
	return out, nil
}

// Losses.

type loss struct{ *client }

func (l *loss) Evaluate(ctx context.Context, batch sdk.LossBatch) (sdk.LossResult, error) {
	var out sdk.LossResult
	err := l.call(ctx, func(ctx context.Context, p sdk.Plugin, _ *clock) (err error) {
		out, err = p.(sdk.Loss).Evaluate(ctx, batch)
		return err
	})
	if err == nil {
		err = l.blame(l.Manifest().Loss.CheckResult(batch, out))
	}
	if err != nil {
		return sdk.LossResult{}, err
	}
	out.Metrics = cleanKeys(l.log.Secrets().Clean, out.Metrics)
	return out, nil
}

// Samplers.

type sampler struct{ *client }

func (s *sampler) Sample(ctx context.Context, req sdk.SampleRequest, g sdk.Generator) (sdk.SampleResponse, error) {
	var out sdk.SampleResponse
	err := s.call(ctx, func(ctx context.Context, p sdk.Plugin, clock *clock) (err error) {
		if g != nil {
			out, err = p.(sdk.Sampler).Sample(ctx, req, &timedGenerator{g, clock})
		} else {
			out, err = p.(sdk.Sampler).Sample(ctx, req, nil)
		}
		return err
	})
	if err == nil {
		err = s.blame(req.CheckResponse(out))
	}
	if err != nil {
		return sdk.SampleResponse{}, err
	}
	clean := s.log.Secrets().Clean
	for _, row := range out.Completions {
		for k := range row {
			row[k].Text = clean(row[k].Text)
		}
	}
	return out, nil
}

// mostDrawn is how many completions one call of the generator draws: 64 prompts with 64 each, and room
// for a sampler that chooses among many. All of them are in memory at once.
const mostDrawn = 1 << 16

// checkDraw says what is absurd in a sampler's request to the generator, before the engine sees it:
// the fault is the plugin's.
func checkDraw(req sdk.GenerateRequest) error {
	drawn := 0
	for _, seeds := range req.Seeds {
		drawn += len(seeds)
	}
	o := req.Options
	fraction := func(x float64) bool { return x >= 0 && x <= 1 }               // false for NaN
	positive := func(x float64) bool { return x >= 0 && x <= math.MaxFloat64 } // or 0
	var what string
	switch {
	case len(req.Seeds) != len(req.Prompts):
		what = fmt.Sprintf("it has seeds for %d prompts, and %d prompts", len(req.Seeds), len(req.Prompts))
	case drawn > mostDrawn:
		what = fmt.Sprintf("it asks for %d completions, at most %d are drawn at once", drawn, mostDrawn)
	case o.MaxTokens < 1:
		what = fmt.Sprintf("max_tokens is %d, want at least 1", o.MaxTokens)
	case !positive(o.Temperature):
		what = fmt.Sprintf("temperature is %v, want a number of at least 0", o.Temperature)
	case o.TopK < 0:
		what = fmt.Sprintf("top_k is %d, want at least 0", o.TopK)
	case !fraction(o.TopP):
		what = fmt.Sprintf("top_p is %v, want a number from 0 to 1", o.TopP)
	case !fraction(o.MinP):
		what = fmt.Sprintf("min_p is %v, want a number from 0 to 1", o.MinP)
	case !positive(o.RepetitionPenalty):
		what = fmt.Sprintf("repetition_penalty is %v, want a number of at least 0", o.RepetitionPenalty)
	case slices.Contains(o.Stop, ""):
		what = "a stop text is empty"
	default:
		return nil
	}
	return sdk.Errorf(sdk.CodePlugin, "its request to the generator: %s", what)
}

// timedGenerator stops the plugin's clock while the host works for the plugin.
type timedGenerator struct {
	sdk.Generator
	clock *clock
}

func (g *timedGenerator) Generate(ctx context.Context, req sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	if err := checkDraw(req); err != nil {
		return sdk.GenerateResponse{}, err
	}
	g.clock.hold()
	defer g.clock.release()
	return g.Generator.Generate(ctx, req)
}

var (
	_ sdk.Oracle  = (*oracle)(nil)
	_ sdk.Loss    = (*loss)(nil)
	_ sdk.Sampler = (*sampler)(nil)
)
