package loop

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// train makes the iteration's updates: batches of units, shuffled anew each epoch by the run's
// seed, each completion forwarded once however many pairs it stands in.
func (l *Loop) train(ctx context.Context, t int, it rundir.Iteration, plan *Plan, games []judged, pairs [][]pair, rec *rundir.IterationRecord) error {
	loss, settings, err := l.openLoss(ctx, plan)
	if err != nil {
		return err
	}
	rec.Beta = settings.Number("beta", 0)
	traits := loss.Manifest().Loss
	if traits.SoftTarget && plan.Loss.C > 0 {
		rec.Eta = rec.Beta / plan.Loss.C
	}
	units := makeUnits(traits.Unit, games, pairs)
	if len(units) == 0 && traits.Unit != sdk.UnitPair && traits.Unit != "" {
		return sdk.Errorf(sdk.CodeOracle, "train iteration %d: loss %q works on each %s, and mix left none in %d prompts", t, plan.Loss.Name, traits.Unit, len(games)).
			WithHint("let mix return completions: own .. teacher")
	}
	if len(units) == 0 {
		return sdk.Errorf(sdk.CodeOracle, "train iteration %d: it has no pairs: of %d prompts none has two paired completions whose win rates are min_margin = %v apart", t, len(games), plan.MinMargin).
			WithHint("lower min_margin, raise samples or the temperature, or look at the verdicts in %s", it.Path(rundir.VerdictsFile))
	}
	batches := l.batches(t, plan, units, games, traits)
	at, err := l.trainSteps(ctx, t, it, plan, loss, games, batches, rec)
	if err != nil {
		return err
	}
	steps, err := rundir.ReadLog[rundir.StepRecord](it.Path(rundir.StepsFile))
	if err != nil {
		return err
	}
	applied := 0
	for _, s := range steps {
		if s.Skipped == "" {
			applied++
		}
	}
	for _, s := range steps {
		rec.Loss += s.Loss / float64(max(1, applied))
	}
	rec.Steps, rec.Skipped, rec.LossState = applied, len(steps)-applied, at.LossState
	return nil
}

// trainSteps makes the iteration's updates, or those that an interrupted run has left, and the iteration's checkpoint. The
// record of the steps is then on disk.
func (l *Loop) trainSteps(ctx context.Context, t int, it rundir.Iteration, plan *Plan, loss sdk.Loss, games []judged, batches []*batch, rec *rundir.IterationRecord) (position, error) {
	traits, total := loss.Manifest().Loss, len(batches)
	if _, at, err := l.resumeTraining(ctx, t, it, total, it.Checkpoint()); err != nil || at.Step == total {
		return at, err
	}
	if err := l.reference(ctx, t, plan, traits, games, batches); err != nil {
		return position{}, err
	}
	if err := l.Policy.StartTraining(ctx, Optimizer{
		Beta1: plan.AdamBeta1, Beta2: plan.AdamBeta2, Epsilon: plan.AdamEpsilon,
		WeightDecay: plan.WeightDecay, Clip: plan.Clip,
	}); err != nil {
		return position{}, err
	}
	made, err := it.StepCheckpoints()
	if err != nil {
		return position{}, err
	}
	var dirs []string
	for _, step := range slices.Backward(made) {
		dirs = append(dirs, it.StepCheckpoint(step))
	}
	steps, at, err := l.resumeTraining(ctx, t, it, total, dirs...)
	if err != nil {
		return at, err
	}
	if at.Step == 0 {
		if at.LossState, err = l.lossState(t, plan); err != nil {
			return at, err
		}
	}
	l.Progress.Start(fmt.Sprintf("iteration %d: train", t), total)
	defer l.Progress.Done()
	l.Progress.Already(at.Step)
	for at.Step < total {
		done, err := l.trainStep(ctx, t, plan, loss, games, batches[at.Step], &at, rec.Beta)
		if err != nil {
			if err = l.badBatch(it, games, batches[at.Step], at.Step, steps, err); err != nil {
				return at, trainingError(err, t, at.Step)
			}
			done.Skipped = "the loss or its derivatives were not finite"
		}
		steps = append(steps, done)
		at.Step++
		l.Progress.Add(1)
		if at.Step == total {
			break // its checkpoint is the iteration's
		}
		interrupted := ctx.Err() != nil
		if interrupted || l.Experiment.CheckpointEvery > 0 && at.Step%l.Experiment.CheckpointEvery == 0 {
			if err := l.stepped(context.WithoutCancel(ctx), it, steps, at); err != nil {
				return at, err
			}
		}
		if interrupted {
			return at, context.Cause(ctx)
		}
	}
	if err := rundir.WriteLog(it.Path(rundir.StepsFile), steps); err != nil {
		return at, err
	}
	return at, l.save(context.WithoutCancel(ctx), it.Checkpoint(), at)
}

// trainStep makes one update. An interruption lets it come to its end, for a while.
func (l *Loop) trainStep(ctx context.Context, t int, plan *Plan, loss sdk.Loss, games []judged, b *batch, at *position, beta float64) (rundir.StepRecord, error) {
	ctx, cancel := lenient(ctx)
	defer cancel()
	b.State = at.LossState
	rec := rundir.StepRecord{Step: at.Step, Epoch: b.epoch, LR: learningRate(plan, at.Step, at.Steps), Units: b.units, Metrics: map[string]float64{}}
	state := at.LossState
	result, err := l.step(ctx, b, games, loss.Manifest().Loss, rec.LR, func() (sdk.LossResult, error) {
		if at.Step == 0 && (plan.Reference == "previous" || t == 1) && len(b.Reference) > 0 {
			if err := sameAsReference(b.Policy, b.Reference); err != nil {
				return sdk.LossResult{}, err
			}
		}
		out, err := loss.Evaluate(ctx, b.LossBatch)
		if err != nil {
			return out, fmt.Errorf("evaluate loss %q: %w", plan.Loss.Name, err)
		}
		state = out.State
		describe(rec.Metrics, b.LossBatch, beta, out.Metrics)
		b.mean(&out)
		return out, nil
	})
	if err != nil {
		rec.Metrics = nil
		return rec, err
	}
	at.LossState, rec.Loss, rec.GradNorm, rec.Tokens = state, result.Loss, result.GradNorm, result.Tokens
	return rec, nil
}

// step fills in what the loss sees of the policy, and makes one update with what evaluate returns.
func (l *Loop) step(ctx context.Context, b *batch, games []judged, traits sdk.LossTraits, lr float64, evaluate func() (sdk.LossResult, error)) (StepResult, error) {
	if len(b.mismatched) > 0 {
		logps, err := l.Policy.LogProbs(ctx, texts(games, b.mismatched))
		if err != nil {
			return StepResult{}, fmt.Errorf("compute the log-probabilities of mismatched pairs: %w", err)
		}
		b.MismatchedPolicy = sums(logps)
	}
	if traits.TokenLevel {
		return l.Policy.StepTokens(ctx, texts(games, b.places), lr, func(logps [][]float64) (float64, [][]float64, error) {
			b.PolicyTokens, b.Policy = logps, make([]float64, len(logps))
			for i, row := range logps {
				b.Policy[i] = sum(row)
			}
			out, err := evaluate()
			return out.Loss, out.TokenGradients, err
		})
	}
	return l.Policy.Step(ctx, texts(games, b.places), lr, func(logps []float64) (float64, []float64, error) {
		b.Policy = logps
		out, err := evaluate()
		return out.Loss, out.Gradient, err
	})
}

func trainingError(err error, t, step int) error {
	if sdk.CodeOf(err) == sdk.CodeNumeric {
		return sdk.Errorf(sdk.CodeNumeric, "train iteration %d, step %d: %w", t, step, err).
			WithHint("the weights are as they were before those steps; start a new run with a lower lr or beta")
	}
	return fmt.Errorf("train iteration %d, step %d: %w", t, step, err)
}

func (l *Loop) openLoss(ctx context.Context, plan *Plan) (sdk.Loss, sdk.Settings, error) {
	loss, rec, err := l.Plugins.Loss(ctx, plan.Loss)
	if err != nil {
		return nil, nil, err
	}
	if err := l.note(plan.Loss, rec, loss.Manifest()); err != nil {
		return nil, nil, err
	}
	settings, err := configure(ctx, loss, plan.Loss.Settings)
	return loss, settings, err
}

// lossState is the state that the iteration's loss begins with: what it returned last, if the
// iteration before used the same one.
func (l *Loop) lossState(t int, plan *Plan) ([]byte, error) {
	done, err := l.Run.Iterations()
	if err != nil || len(done) < t || done[t-1].LossName != plan.Loss.Name {
		return nil, err
	}
	return done[t-1].LossState, nil
}

// sameAsReference refuses to train where the reference is the current weights and a margin at the
// first step is not exactly 0: reference and policy would not be computed alike.
func sameAsReference(policy, reference []float64) error {
	for i := range policy {
		if policy[i] != reference[i] {
			return sdk.Errorf(sdk.CodeInternal, "before the first update completion %d has log-probability %v under the policy and %v under the reference, which are the same weights: they must be equal", i, policy[i], reference[i])
		}
	}
	return nil
}

// describe adds TRL's metrics of a batch of pairs; rewards are β·log(π/π_ref).
func describe(metrics map[string]float64, b sdk.LossBatch, beta float64, own map[string]float64) {
	n := float64(len(b.Chosen))
	for k := range b.Chosen {
		w, r := b.Chosen[k], b.Rejected[k]
		metrics["logps/chosen"] += b.Policy[w] / n
		metrics["logps/rejected"] += b.Policy[r] / n
		if len(b.Reference) == 0 {
			continue
		}
		cw, cr := beta*(b.Policy[w]-b.Reference[w]), beta*(b.Policy[r]-b.Reference[r])
		metrics["rewards/chosen"] += cw / n
		metrics["rewards/rejected"] += cr / n
		metrics["rewards/margins"] += (cw - cr) / n
		if cw > cr {
			metrics["rewards/accuracies"] += 1 / n
		}
	}
	for name, v := range own {
		metrics[name] = v
	}
}

// learningRate is the rate at a step (from 0): a linear warm-up from 0, then the plan's schedule.
func learningRate(plan *Plan, step, total int) float64 {
	if step < plan.Warmup {
		return plan.LR * float64(step) / float64(plan.Warmup)
	}
	done := float64(step-plan.Warmup) / float64(max(1, total-plan.Warmup))
	switch plan.LRSchedule {
	case "linear":
		return plan.LR * (1 - done)
	case "cosine":
		return plan.LR * 0.5 * (1 + math.Cos(math.Pi*done))
	}
	return plan.LR
}
