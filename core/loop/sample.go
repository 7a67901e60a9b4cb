package loop

import (
	"context"
	"fmt"

	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// judged is a group with the oracle's answers.
type judged struct {
	rundir.GroupRecord
	verdicts rundir.VerdictsRecord
	game     *preference.Game // made by the pair stage
}

// sampleAndCompare runs both stages as a stream: while a batch of prompts is judged, the next one
// is sampled. What the records already hold is not done again.
func (l *Loop) sampleAndCompare(ctx context.Context, t int, it rundir.Iteration, plan *Plan, rec *rundir.IterationRecord) ([]judged, error) {
	prompts, err := l.selected(plan.Prompts)
	if err != nil {
		return nil, err
	}
	groupLog, groups, err := rundir.OpenLog[rundir.GroupRecord](it.Path(rundir.CompletionsFile))
	if err != nil {
		return nil, err
	}
	defer groupLog.Close()
	l.torn(rundir.CompletionsFile, groupLog.Torn())
	verdictLog, verdicts, err := rundir.OpenLog[rundir.VerdictsRecord](it.Path(rundir.VerdictsFile))
	if err != nil {
		return nil, err
	}
	defer verdictLog.Close()
	l.torn(rundir.VerdictsFile, verdictLog.Torn())
	if len(verdicts) > len(groups) || len(groups) > len(prompts) {
		return nil, sdk.Errorf(sdk.CodeCorrupt, "iteration %d has %d verdicts, %d groups and %d prompts: records are missing", t, len(verdicts), len(groups), len(prompts))
	}

	sampler, err := l.openSamplers(ctx, plan)
	if err != nil {
		return nil, err
	}
	judge, err := l.openJudge(ctx, t, plan.Oracle)
	if err != nil {
		return nil, err
	}

	l.Progress.Start(fmt.Sprintf("iteration %d: sample and judge", t), len(prompts))
	defer l.Progress.Done()
	l.Progress.Already(len(verdicts))

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan []rundir.GroupRecord, 1)
	sampled := make(chan error, 1)
	go func() {
		defer close(batches)
		sampled <- func() error {
			if len(groups) > len(verdicts) {
				batches <- groups[len(verdicts):]
			}
			for at := len(groups); at < len(prompts); at += sampleBatch {
				batch, err := sampler.sample(ctx, l, t, plan, prompts[at:min(at+sampleBatch, len(prompts))])
				if err != nil {
					return err
				}
				if err := groupLog.Append(batch...); err != nil {
					return err
				}
				select {
				case batches <- batch:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		}()
	}()

	out := make([]judged, 0, len(prompts))
	for i, v := range verdicts {
		out = append(out, judged{GroupRecord: groups[i], verdicts: v})
	}
	var failed error
	for batch := range batches {
		if failed != nil {
			continue // let the sampling end before its log is closed
		}
		answers, err := judge.groups(ctx, batch, plan.Opponents)
		if err == nil {
			err = verdictLog.Append(answers...)
		}
		if err != nil {
			failed = err
			cancel()
			continue
		}
		for i, v := range answers {
			out = append(out, judged{GroupRecord: batch[i], verdicts: v})
		}
		l.Progress.Add(len(batch))
	}
	if err := <-sampled; err != nil && failed == nil {
		failed = err
	}
	if failed != nil {
		return nil, failed
	}
	return out, l.tally(out, plan, rec)
}

// samplers are the two roles of an iteration.
type samplers struct {
	policy, teacher sdk.Sampler // teacher is nil where there is none
}

func (l *Loop) openSamplers(ctx context.Context, plan *Plan) (s samplers, err error) {
	if s.policy, err = l.openSampler(ctx, plan.Sampler); err != nil || plan.Teacher == nil {
		return s, err
	}
	s.teacher, err = l.openSampler(ctx, *plan.Teacher)
	return s, err
}

func (l *Loop) openSampler(ctx context.Context, p Plugin) (sdk.Sampler, error) {
	sampler, rec, err := l.Plugins.Sampler(ctx, p)
	if err != nil {
		return nil, err
	}
	if err := l.note(p, rec, sampler.Manifest()); err != nil {
		return nil, err
	}
	_, err = configure(ctx, sampler, p.Settings)
	return sampler, err
}

// sample draws K completions of the policy and one of the teacher for each prompt, and asks the
// script which of them may be paired.
func (s samplers) sample(ctx context.Context, l *Loop, t int, plan *Plan, prompts []sdk.Prompt) ([]rundir.GroupRecord, error) {
	own, err := l.draw(ctx, s.policy, t, sdk.FromPolicy, prompts, plan.Samples)
	if err != nil {
		return nil, fmt.Errorf("sample with %q: %w", plan.Sampler.Name, err)
	}
	teacher := make([][]sdk.Completion, len(prompts))
	if s.teacher != nil {
		if teacher, err = l.draw(ctx, s.teacher, t, sdk.FromTeacher, prompts, 1); err != nil {
			return nil, fmt.Errorf("sample the teacher %q: %w", plan.Teacher.Name, err)
		}
	}
	out := make([]rundir.GroupRecord, len(prompts))
	for i, p := range prompts {
		if len(own[i]) == 0 {
			return nil, sdk.Errorf(sdk.CodePlugin, "sampler %q gave no completion for prompt %q", plan.Sampler.Name, p.ID)
		}
		mixed, err := l.Script.Mix(ctx, t, p, own[i], teacher[i])
		if err != nil {
			return nil, err
		}
		out[i].Group = sdk.Group{Prompt: p, Completions: append(own[i], teacher[i]...)}
		out[i].Mixed = mixed
	}
	return out, nil
}

func (l *Loop) draw(ctx context.Context, s sdk.Sampler, t int, role sdk.Source, prompts []sdk.Prompt, k int) ([][]sdk.Completion, error) {
	req := sdk.SampleRequest{Prompts: prompts, K: k, Seeds: make([][]uint64, len(prompts))}
	for i, p := range prompts {
		for j := range k {
			req.Seeds[i] = append(req.Seeds[i], l.seed(t, string(role), p, j))
		}
	}
	var g sdk.Generator
	if s.Manifest().Sampler.UsesGenerator {
		if g = l.Policy; l.Draws != nil {
			g = l.Draws
		}
	}
	res, err := s.Sample(ctx, req, g)
	if err != nil {
		return nil, err
	}
	if len(res.Completions) != len(prompts) {
		return nil, sdk.Errorf(sdk.CodePlugin, "it answered %d prompts of %d", len(res.Completions), len(prompts))
	}
	for i := range res.Completions {
		if len(res.Completions[i]) > k {
			return nil, sdk.Errorf(sdk.CodePlugin, "it gave %d completions for prompt %q, at most %d were asked", len(res.Completions[i]), prompts[i].ID, k)
		}
		for j := range res.Completions[i] {
			res.Completions[i][j].Source = role
		}
	}
	return res.Completions, nil
}
