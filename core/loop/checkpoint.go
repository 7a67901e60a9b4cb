package loop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// position is where in a run a checkpoint was made; it lies in the checkpoint.
type position struct {
	Iteration int    `json:"iteration"`
	Step      int    `json:"step"`  // steps of the iteration that are in the weights
	Steps     int    `json:"steps"` // of so many: equal where the iteration's training is done
	LossState []byte `json:"loss_state,omitempty"`
}

func (l *Loop) save(ctx context.Context, dir string, at position) error {
	data, err := json.Marshal(at)
	if err != nil {
		return err
	}
	return l.Policy.Save(ctx, dir, data, at.Step < at.Steps)
}

// load gives the policy a checkpoint's weights, and says where it was made.
func (l *Loop) load(ctx context.Context, dir string) (at position, err error) {
	data, err := l.Policy.Load(ctx, dir)
	if err != nil {
		return at, err
	}
	if err := json.Unmarshal(data, &at); err != nil {
		return at, sdk.Errorf(sdk.CodeCorrupt, "read the position of the checkpoint at %s: %w", dir, err)
	}
	return at, nil
}

// loadIteration gives the policy the weights at the end of iteration t (0 is π_1).
func (l *Loop) loadIteration(ctx context.Context, t int) error {
	it, err := l.Run.Iteration(t)
	if err != nil {
		return err
	}
	at, err := l.load(ctx, it.Checkpoint())
	if err == nil && (at.Iteration != t || at.Step != at.Steps) {
		err = sdk.Errorf(sdk.CodeCorrupt, "the checkpoint at %s is of step %d of %d of iteration %d", it.Checkpoint(), at.Step, at.Steps, at.Iteration)
	}
	if err != nil {
		return fmt.Errorf("load the policy of iteration %d: %w", t, err)
	}
	return nil
}

// goOn gives the policy the weights of the last finished iteration. Where its checkpoint is damaged the newest
// one before it that is whole is used, and what follows is made again from the records; the iterations
// that are left are returned.
func (l *Loop) goOn(ctx context.Context, done []rundir.IterationRecord) ([]rundir.IterationRecord, error) {
	if err := l.keepInitial(ctx, done[0]); err != nil {
		return nil, err
	}
	for t := len(done) - 1; ; t-- {
		err := l.loadIteration(ctx, t)
		if err == nil && l.Policy.Fingerprint() != done[t].Fingerprint {
			err = sdk.Errorf(sdk.CodeCorrupt, "the checkpoint of iteration %d has other weights than its record says", t)
		}
		if err == nil {
			if t < len(done)-1 {
				l.Log("going back to iteration %d, whose checkpoint is whole: what follows is made again from the records", t)
				return done[:t+1], l.Run.Undo(t)
			}
			return done, nil
		}
		if sdk.CodeOf(err) != sdk.CodeCorrupt || t == 0 {
			return nil, err
		}
		l.Log("%v", err)
		l.redone = append(l.redone, done[t])
	}
}

// keepInitial makes the checkpoint of π_1 again where it is damaged: the policy is π_1 when a run begins and when it goes on.
func (l *Loop) keepInitial(ctx context.Context, rec rundir.IterationRecord) error {
	initial := l.Policy.Fingerprint()
	damage := l.loadIteration(ctx, 0)
	if sdk.CodeOf(damage) != sdk.CodeCorrupt || initial != rec.Fingerprint || l.Policy.Fingerprint() != initial {
		return damage
	}
	l.Log("%v", damage)
	l.Log("the checkpoint of iteration 0 is made again from the model")
	it, err := l.Run.Iteration(0)
	if err != nil {
		return err
	}
	return l.save(ctx, it.Checkpoint(), position{})
}

// same refuses an iteration that was made again and came out otherwise: what follows it on disk would not be
// of this run.
func (l *Loop) same(rec rundir.IterationRecord) error {
	for _, was := range l.redone {
		if was.Iteration == rec.Iteration && was.Fingerprint != rec.Fingerprint {
			return sdk.Errorf(sdk.CodeCorrupt, "make iteration %d again: its weights are others than before, though its records are the same", rec.Iteration).
				WithHint("make all from there on again: dno rollback %s --to %d", l.Run.Dir(), rec.Iteration-1)
		}
	}
	return nil
}

// Step checkpoints: made inside of an iteration's training, the newest two are kept, and all go when the
// iteration is done.

const keptStepCheckpoints = 2

// stepped makes a step checkpoint, with the record of the steps up to it.
func (l *Loop) stepped(ctx context.Context, it rundir.Iteration, steps []rundir.StepRecord, at position) error {
	if err := rundir.WriteLog(it.Path(rundir.StepsFile), steps); err != nil {
		return err
	}
	if err := l.save(ctx, it.StepCheckpoint(at.Step), at); err != nil {
		return err
	}
	made, err := it.StepCheckpoints()
	if err != nil {
		return err
	}
	for _, old := range made[:max(0, len(made)-keptStepCheckpoints)] {
		if err := it.RemoveStepCheckpoint(old); err != nil {
			return err
		}
	}
	return nil
}

// resumeTraining goes on at the first of the iteration's checkpoints that is whole. It returns the steps that
// are in the policy's weights; none where there is no such checkpoint, and the weights are then those of
// the iteration before.
func (l *Loop) resumeTraining(ctx context.Context, t int, it rundir.Iteration, total int, dirs ...string) ([]rundir.StepRecord, position, error) {
	touched := false
	for _, dir := range dirs {
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			continue
		}
		at, err := l.load(ctx, dir)
		if err == nil {
			touched = true
		}
		var steps []rundir.StepRecord
		if err == nil {
			steps, err = rundir.ReadLog[rundir.StepRecord](it.Path(rundir.StepsFile))
		}
		switch {
		case err == nil && (at.Iteration != t || at.Steps != total || len(steps) < at.Step):
			err = sdk.Errorf(sdk.CodeCorrupt, "it is of step %d of %d of iteration %d, and %d steps are recorded; want iteration %d, with %d steps", at.Step, at.Steps, at.Iteration, len(steps), t, total)
			fallthrough
		case err != nil:
			if sdk.CodeOf(err) != sdk.CodeCorrupt {
				return nil, position{}, err
			}
			l.Log("the checkpoint %s of iteration %d cannot be used, and the one before it is: %v", filepath.Base(dir), t, err)
			continue
		}
		if at.Step < total {
			l.Log("training of iteration %d goes on at step %d of %d", t, at.Step, total)
		}
		return steps[:at.Step], at, nil
	}
	if touched { // by a checkpoint that was of no use
		if err := l.loadIteration(ctx, t-1); err != nil {
			return nil, position{}, err
		}
	}
	return nil, position{Iteration: t, Steps: total}, nil
}

// lenient returns a context that outlives an interruption for a while: a step is finished, and an answer that
// is paid for is kept.
func lenient(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(lenience)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel(context.Cause(ctx))
		case <-out.Done():
		}
	})
	return out, func() {
		stop()
		cancel(nil)
	}
}

// A command that was interrupted has to be gone within 10 s, its plugins too.
const lenience = 6 * time.Second
