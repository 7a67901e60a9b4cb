package loop

import (
	"context"
	"fmt"

	"github.com/dno-project/dno/core/dataset"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// plan returns iteration t's plan: the recorded one where an interrupted run had decided it
// already, else the script's. A nil plan ends the run, for the reason.
func (l *Loop) plan(ctx context.Context, t int, history []rundir.IterationRecord) (*Plan, string, error) {
	if t > l.Experiment.Iterations {
		return nil, fmt.Sprintf("all %d iterations are done", l.Experiment.Iterations), nil
	}
	it, err := l.Run.Iteration(t)
	if err != nil {
		return nil, "", err
	}
	plan := &Plan{}
	if ok, err := it.ReadRecord(rundir.PlanFile, plan); ok || err != nil {
		return plan, "", err
	}
	if plan, err = l.Script.Plan(ctx, t, history); err != nil {
		return nil, "", err
	}
	if plan == nil {
		return nil, fmt.Sprintf("the schedule ended the run before iteration %d", t), nil
	}
	return plan, "", it.WriteRecord(rundir.PlanFile, plan)
}

// selected returns the training prompts that the selection names.
func (l *Loop) selected(s Selection) ([]sdk.Prompt, error) {
	prompts := l.Train
	if s.Of > 0 {
		var err error
		if prompts, err = dataset.Split(prompts, s.Split, s.Of, l.Experiment.Seed); err != nil {
			return nil, err
		}
	}
	if s.Count > 0 && s.Count < len(prompts) {
		prompts = prompts[:s.Count]
	}
	if len(prompts) == 0 {
		return nil, sdk.Errorf(sdk.CodeUsage, "select training prompts: split %d of %d of %d prompts is empty", s.Split, s.Of, len(l.Train)).
			WithHint("use fewer iterations or more prompts")
	}
	return prompts, nil
}

// Check opens and configures every plugin that the plans and the evaluation name, and selects
// their prompts, so that what can be wrong with them is found before anything is sampled.
func (l *Loop) Check(ctx context.Context, plans []Plan) error {
	if _, err := l.openJudge(ctx, 0, l.Experiment.Evaluate.Oracle); err != nil {
		return err
	}
	for _, plan := range plans {
		if _, err := l.selected(plan.Prompts); err != nil {
			return err
		}
		if _, err := l.openSamplers(ctx, &plan); err != nil {
			return err
		}
		if _, err := l.openJudge(ctx, 0, plan.Oracle); err != nil {
			return err
		}
		if _, _, err := l.openLoss(ctx, &plan); err != nil {
			return err
		}
	}
	return nil
}

// Size returns how many training prompts a plan selects, and in how many orders its oracle is asked
// about each pair.
func (l *Loop) Size(ctx context.Context, plan Plan) (prompts, orders int, err error) {
	selected, err := l.selected(plan.Prompts)
	if err != nil {
		return 0, 0, err
	}
	judge, err := l.openJudge(ctx, 0, plan.Oracle)
	if err != nil {
		return 0, 0, err
	}
	if judge.traits.OrderMatters {
		return len(selected), 2, nil
	}
	return len(selected), 1, nil
}
