package loop

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// Recorded returns plugins that answer from a run's records, so that it can be made again without what it asked: no oracle
// is called, and no sampler but those that draw from the policy. Losses, and those samplers, are live.
//
// An oracle that is asked for what the journal does not hold is an error with [sdk.CodeCorrupt].
func Recorded(run *rundir.Run, live Plugins, seed uint64) (Plugins, error) {
	r := recorded{Plugins: live, known: map[string]rundir.OpenedRecord{}, drawn: map[uint64][]sdk.Completion{}}
	opened, err := run.AllOpened()
	if err != nil {
		return nil, err
	}
	for _, rec := range opened {
		r.known[rec.ID()] = rec
	}
	done, err := run.Iterations()
	if err != nil {
		return nil, err
	}
	l := &Loop{Experiment: Experiment{Seed: seed}}
	for t := 1; t < len(done); t++ {
		it, err := run.Iteration(t)
		if err != nil {
			return nil, err
		}
		groups, err := rundir.ReadLog[rundir.GroupRecord](it.Path(rundir.CompletionsFile))
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			for _, c := range g.Completions {
				key := l.seed(t, string(c.Source), g.Prompt, 0)
				r.drawn[key] = append(r.drawn[key], c)
			}
		}
	}
	return r, nil
}

type recorded struct {
	Plugins
	known map[string]rundir.OpenedRecord
	drawn map[uint64][]sdk.Completion // by the first seed of the request
}

func (r recorded) find(kind sdk.Kind, p Plugin) (rundir.OpenedRecord, error) {
	wanted, err := json.Marshal(p)
	if err != nil {
		return rundir.OpenedRecord{}, err
	}
	rec, ok := r.known[rundir.OpenedRecord{Wanted: string(wanted), Plugin: rundir.PluginRecord{Kind: kind}}.ID()]
	if !ok {
		return rec, sdk.Errorf(sdk.CodeCorrupt, "replay: the run has never opened %s %q with these settings", kind, p.Name)
	}
	return rec, nil
}

func (r recorded) Oracle(_ context.Context, p Plugin) (sdk.Oracle, rundir.PluginRecord, error) {
	rec, err := r.find(sdk.KindOracle, p)
	return recordedOracle{plugin{rec.Manifest}}, rec.Plugin, err
}

func (r recorded) Sampler(ctx context.Context, p Plugin) (sdk.Sampler, rundir.PluginRecord, error) {
	rec, err := r.find(sdk.KindSampler, p)
	switch {
	case err != nil:
		return nil, rec.Plugin, err
	case rec.Manifest.Sampler.UsesGenerator:
		return r.Plugins.Sampler(ctx, p)
	}
	return recordedSampler{plugin{rec.Manifest}, r.drawn}, rec.Plugin, nil
}

// plugin is what every recorded plugin has.
type plugin struct{ manifest sdk.Manifest }

func (p plugin) Manifest() sdk.Manifest                        { return p.manifest }
func (p plugin) Configure(context.Context, sdk.Settings) error { return nil }

type recordedOracle struct{ plugin }

func (o recordedOracle) Judge(_ context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	return nil, sdk.Errorf(sdk.CodeCorrupt, "replay: the journal does not hold what oracle %q said of prompt %q: the completions are others than the run's, or judgments are missing", o.manifest.Name, batch[0].Prompt.ID)
}

type recordedSampler struct {
	plugin
	drawn map[uint64][]sdk.Completion
}

func (s recordedSampler) Sample(_ context.Context, req sdk.SampleRequest, _ sdk.Generator) (sdk.SampleResponse, error) {
	var out sdk.SampleResponse
	for i := range req.Prompts {
		out.Completions = append(out.Completions, slices.Clone(s.drawn[req.Seeds[i][0]]))
	}
	return out, nil
}
