package loop

import (
	"context"
	"errors"
	"fmt"
	"math"

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
	if err := l.reference(ctx, t, plan, traits, games, batches); err != nil {
		return err
	}
	if err := l.Policy.StartTraining(ctx, Optimizer{
		Beta1: plan.AdamBeta1, Beta2: plan.AdamBeta2, Epsilon: plan.AdamEpsilon,
		WeightDecay: plan.WeightDecay, Clip: plan.Clip,
	}); err != nil {
		return err
	}
	l.Progress.Start(fmt.Sprintf("iteration %d: train", t), len(batches))
	defer l.Progress.Done()

	var steps []rundir.StepRecord
	state, err := l.lossState(t, plan)
	if err != nil {
		return err
	}
	for step, b := range batches {
		b.State = state
		lr := learningRate(plan, step, len(batches))
		metrics := map[string]float64{}
		result, err := l.step(ctx, b, games, traits, lr, func() (sdk.LossResult, error) {
			if step == 0 && (plan.Reference == "previous" || t == 1) && len(b.Reference) > 0 {
				if err := sameAsReference(b.Policy, b.Reference); err != nil {
					return sdk.LossResult{}, err
				}
			}
			out, err := loss.Evaluate(ctx, b.LossBatch)
			if err != nil {
				return out, fmt.Errorf("evaluate loss %q: %w", plan.Loss.Name, err)
			}
			state = out.State
			describe(metrics, b.LossBatch, rec.Beta, out.Metrics)
			b.mean(&out)
			return out, nil
		})
		if err != nil {
			return trainingError(err, t, step)
		}
		steps = append(steps, rundir.StepRecord{
			Step: step, Epoch: b.epoch, LR: lr, Loss: result.Loss, GradNorm: result.GradNorm,
			Units: b.units, Tokens: result.Tokens, Metrics: metrics,
		})
		l.Progress.Add(1)
		rec.Loss += result.Loss / float64(len(batches))
	}
	rec.Steps, rec.LossState = len(steps), state
	return rundir.WriteLog(it.Path(rundir.StepsFile), steps)
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
	err = fmt.Errorf("train iteration %d, step %d: %w", t, step, err)
	var coded *sdk.Error
	if errors.As(err, &coded) && coded.Code == sdk.CodeNumeric {
		return sdk.Errorf(sdk.CodeNumeric, "%w", err).WithHint("the weights are as they were before the step; start a new run with a lower lr or beta")
	}
	return err
}

func (l *Loop) openLoss(ctx context.Context, plan *Plan) (sdk.Loss, sdk.Settings, error) {
	loss, err := l.Plugins.Loss(ctx, plan.Loss)
	if err != nil {
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
