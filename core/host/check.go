package host

import (
	"context"
	"math"
	"slices"

	"github.com/dno-project/dno/sdk"
)

// checkManifest says whether the plugin is what the spec asks for, and whole.
func checkManifest(spec Spec, m sdk.Manifest) error {
	name := id(spec.Kind, spec.Name)
	bad := func(format string, args ...any) error {
		return sdk.Errorf(sdk.CodePlugin, "manifest of "+name+": "+format, args...)
	}
	forms := []sdk.OracleForm{sdk.FormPairwise, sdk.FormListwise, sdk.FormPointwise}
	units := []sdk.Unit{"", sdk.UnitPair, sdk.UnitCompletion, sdk.UnitGroup}
	switch {
	case m.Kind != spec.Kind:
		return bad("it is of kind %q: use it as such", m.Kind)
	case !plainName.MatchString(m.Name):
		return bad("name %q: want lower-case letters, digits, '-' and '_'", m.Name)
	case !isPath(spec.Name) && m.Name != spec.Name:
		return bad("it calls itself %q: the executable's name and the manifest's must be the same", m.Name)
	case m.Version == "":
		return bad("it has no version, which is part of what its answers are kept under")
	case m.Kind == sdk.KindOracle && !slices.Contains(forms, m.Oracle.Form):
		return bad("form %q: want pairwise, listwise or pointwise", m.Oracle.Form)
	case m.Kind == sdk.KindLoss && !slices.Contains(units, m.Loss.Unit):
		return bad("unit %q: want pair, completion or group", m.Loss.Unit)
	}
	return nil
}

// contract reports breaches of the contract by one plugin.
type contract struct{ id string }

func (c contract) breach(format string, args ...any) error {
	return sdk.Errorf(sdk.CodePlugin, c.id+" broke the contract: "+format, args...).WithHint(
		"this is a fault of the plugin: tell its author; dno plugin check shows more")
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// Oracles.

type oracle struct{ *client }

func (o *oracle) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	var out []sdk.Verdicts
	err := o.call(ctx, func(ctx context.Context, p sdk.Plugin, _ *clock) (err error) {
		out, err = p.(sdk.Oracle).Judge(ctx, batch)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := (contract{o.id}).verdicts(o.Manifest().Oracle.Form, batch, out); err != nil {
		return nil, err
	}
	return out, nil
}

// verdicts checks a whole batch: one wrong number spoils it all, for nobody knows what else is wrong.
func (c contract) verdicts(form sdk.OracleForm, batch []sdk.Comparison, out []sdk.Verdicts) error {
	if len(out) != len(batch) {
		return c.breach("%d verdicts for %d comparisons", len(out), len(batch))
	}
	pointwise := form == sdk.FormPointwise
	for i, v := range out {
		q := batch[i]
		switch {
		case v.ID != q.ID:
			return c.breach("verdicts[%d].id is %q, comparison %d is %q: they must be in order", i, v.ID, i, q.ID)
		case pointwise && len(v.Pairs) != 0:
			return c.breach("verdicts[%d].pairs has %d answers: a pointwise oracle gives none", i, len(v.Pairs))
		case !pointwise && len(v.Pairs) != len(q.Pairs):
			return c.breach("verdicts[%d].pairs has %d answers for %d pairs", i, len(v.Pairs), len(q.Pairs))
		case len(v.Assessed) != len(q.Candidates) && (pointwise || len(v.Assessed) != 0):
			return c.breach("verdicts[%d].assessed has %d entries for %d candidates", i, len(v.Assessed), len(q.Candidates))
		case !finite(v.Cost) || v.Cost < 0:
			return c.breach("verdicts[%d].cost is %v: want a number from 0", i, v.Cost)
		}
		for k, p := range v.Pairs {
			if p.Abstain == "" && !(p.P >= 0 && p.P <= 1) {
				return c.breach("verdicts[%d].pairs[%d].p is %v: want a probability in [0, 1], or a reason to abstain", i, k, p.P)
			}
		}
		for k, a := range v.Assessed {
			if pointwise && a.Score == nil && a.Abstain == "" {
				return c.breach("verdicts[%d].assessed[%d] has neither a score nor a reason to abstain", i, k)
			}
			if a.Score != nil && !finite(*a.Score) {
				return c.breach("verdicts[%d].assessed[%d].score is %v", i, k, *a.Score)
			}
			for label, x := range a.Labels {
				if !finite(x) {
					return c.breach("verdicts[%d].assessed[%d].labels[%q] is %v", i, k, label, x)
				}
			}
		}
	}
	return nil
}

// Losses.

type loss struct{ *client }

func (l *loss) Evaluate(ctx context.Context, batch sdk.LossBatch) (sdk.LossResult, error) {
	var out sdk.LossResult
	err := l.call(ctx, func(ctx context.Context, p sdk.Plugin, _ *clock) (err error) {
		out, err = p.(sdk.Loss).Evaluate(ctx, batch)
		return err
	})
	if err != nil {
		return sdk.LossResult{}, err
	}
	if err := (contract{l.id}).result(l.Manifest().Loss, batch, out); err != nil {
		return sdk.LossResult{}, err
	}
	return out, nil
}

func (c contract) result(traits sdk.LossTraits, batch sdk.LossBatch, out sdk.LossResult) error {
	if !finite(out.Loss) {
		return c.notFinite("loss", out.Loss)
	}
	want, wantRows := len(batch.Policy), 0
	if traits.TokenLevel {
		want, wantRows = 0, len(batch.Policy)
	}
	if len(out.Gradient) != want {
		return c.breach("gradient has %d values for %d completions, want %d", len(out.Gradient), len(batch.Policy), want)
	}
	for i, g := range out.Gradient {
		if !finite(g) {
			return c.notFinite("gradient[%d]", g, i)
		}
	}
	if len(out.TokenGradients) != wantRows {
		return c.breach("token_gradients has %d rows for %d completions, want %d", len(out.TokenGradients), len(batch.Policy), wantRows)
	}
	for i, row := range out.TokenGradients {
		if len(row) != int(batch.Tokens[i]) {
			return c.breach("token_gradients[%d] has %d values for %d tokens", i, len(row), batch.Tokens[i])
		}
		for t, g := range row {
			if !finite(g) {
				return c.notFinite("token_gradients[%d][%d]", g, i, t)
			}
		}
	}
	for name, x := range out.Metrics {
		if !finite(x) {
			return c.notFinite("metrics[%q]", x, name)
		}
	}
	return nil
}

// notFinite is a numeric error, which training may survive: its inputs may have been too large.
func (c contract) notFinite(field string, x float64, at ...any) error {
	return sdk.Errorf(sdk.CodeNumeric, c.id+" returned "+field+" = %v", append(at, x)...)
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
	if err != nil {
		return sdk.SampleResponse{}, err
	}
	if err := (contract{s.id}).completions(req, out); err != nil {
		return sdk.SampleResponse{}, err
	}
	return out, nil
}

// timedGenerator stops the plugin's clock while the host works for the plugin.
type timedGenerator struct {
	sdk.Generator
	clock *clock
}

func (g *timedGenerator) Generate(ctx context.Context, req sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	g.clock.hold()
	defer g.clock.release()
	return g.Generator.Generate(ctx, req)
}

// A log-probability is at most 0; a sum of rounded ones may be a little more.
const logProbRounding = 1e-3

func (c contract) completions(req sdk.SampleRequest, out sdk.SampleResponse) error {
	if len(out.Completions) != len(req.Prompts) {
		return c.breach("completions has %d rows for %d prompts", len(out.Completions), len(req.Prompts))
	}
	for i, row := range out.Completions {
		if len(row) > req.K {
			return c.breach("completions[%d] has %d completions, at most %d were asked for", i, len(row), req.K)
		}
		for k, x := range row {
			if p := x.LogProb; p != nil && (!finite(*p) || *p > logProbRounding) {
				return c.breach("completions[%d][%d].log_prob is %v: want nats, at most 0", i, k, *p)
			}
			if x.Finish != "" && x.Finish != sdk.FinishStop && x.Finish != sdk.FinishLength {
				return c.breach("completions[%d][%d].finish is %q: want stop, length or nothing", i, k, x.Finish)
			}
			for t, id := range x.Tokens {
				if id < 0 {
					return c.breach("completions[%d][%d].tokens[%d] is %d", i, k, t, id)
				}
			}
		}
	}
	return nil
}

var (
	_ sdk.Oracle  = (*oracle)(nil)
	_ sdk.Loss    = (*loss)(nil)
	_ sdk.Sampler = (*sampler)(nil)
)
