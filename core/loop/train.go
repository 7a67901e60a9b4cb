package loop

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// unit is what an optimizer batch counts: a pair, a completion or a group of one judged game.
type unit struct {
	game        int   // index into the judged groups
	pair        *pair // nil for the other units
	completions []int // of the group; for a pair: chosen, rejected
}

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
	reference, err := l.reference(ctx, t, plan, traits, games, units)
	if err != nil {
		return err
	}
	if err := l.Policy.StartTraining(ctx, Optimizer{
		Beta1: plan.AdamBeta1, Beta2: plan.AdamBeta2, Epsilon: plan.AdamEpsilon,
		WeightDecay: plan.WeightDecay, Clip: plan.Clip,
	}); err != nil {
		return err
	}
	batchSize := min(plan.BatchSize, len(units))
	perEpoch := (len(units) + batchSize - 1) / batchSize
	total := perEpoch * plan.Epochs
	l.Progress.Start(fmt.Sprintf("iteration %d: train", t), total)
	defer l.Progress.Done()

	var steps []rundir.StepRecord
	state, err := l.lossState(t, plan)
	if err != nil {
		return err
	}
	for epoch := range plan.Epochs {
		order := rand.New(rand.NewPCG(l.Experiment.Seed, uint64(t)<<32|uint64(epoch))).Perm(len(units))
		for at := 0; at < len(order); at += batchSize {
			var batch []unit
			for _, i := range order[at:min(at+batchSize, len(order))] {
				batch = append(batch, units[i])
			}
			b := assemble(batch, games, reference, plan.Loss.C, traits)
			b.State = state
			step := len(steps)
			lr := learningRate(plan, step, total)
			metrics := map[string]float64{}
			result, err := l.Policy.Step(ctx, b.texts, lr, func(logps []float64) (float64, []float64, error) {
				b.Policy = logps
				if step == 0 && (plan.Reference == "previous" || t == 1) && len(b.Reference) > 0 {
					if err := sameAsReference(b.Policy, b.Reference); err != nil {
						return 0, nil, err
					}
				}
				out, err := loss.Evaluate(ctx, b.LossBatch)
				if err != nil {
					return 0, nil, fmt.Errorf("evaluate loss %q: %w", plan.Loss.Name, err)
				}
				state = out.State
				describe(metrics, b.LossBatch, rec.Beta, out.Metrics)
				weight := b.totalWeight()
				for i := range out.Gradient {
					out.Gradient[i] /= weight
				}
				return out.Loss / weight, out.Gradient, nil
			})
			if err != nil {
				return trainingError(err, t, step)
			}
			steps = append(steps, rundir.StepRecord{
				Step: step, Epoch: epoch, LR: lr, Loss: result.Loss, GradNorm: result.GradNorm,
				Units: len(batch), Tokens: result.Tokens, Metrics: metrics,
			})
			l.Progress.Add(1)
			rec.Loss += result.Loss / float64(total)
		}
	}
	rec.Steps, rec.LossState = len(steps), state
	return rundir.WriteLog(it.Path(rundir.StepsFile), steps)
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
	switch traits := loss.Manifest().Loss; {
	case traits.TokenLevel:
		return nil, nil, sdk.Errorf(sdk.CodeUsage, "loss %q works on tokens: losses of that kind are not built yet", plan.Loss.Name)
	case traits.Mismatched:
		return nil, nil, sdk.Errorf(sdk.CodeUsage, "loss %q needs mismatched pairs: losses of that kind are not built yet", plan.Loss.Name)
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

// makeUnits lists what an epoch passes over. Completion and group losses get every mixed
// completion of every judged group.
func makeUnits(u sdk.Unit, games []judged, pairs [][]pair) []unit {
	var out []unit
	for g := range games {
		switch u {
		case sdk.UnitCompletion:
			for _, c := range games[g].Mixed {
				out = append(out, unit{game: g, completions: []int{c}})
			}
		case sdk.UnitGroup:
			if len(games[g].Mixed) > 1 {
				out = append(out, unit{game: g, completions: games[g].Mixed})
			}
		default:
			for i := range pairs[g] {
				p := &pairs[g][i]
				out = append(out, unit{game: g, pair: p, completions: []int{p.Chosen, p.Rejected}})
			}
		}
	}
	return out
}

type place struct{ game, completion int }

// reference returns the reference policy's log-probability and the token count of every
// completion that a unit names, computed once, before the first step, by the policy's own kernels.
func (l *Loop) reference(ctx context.Context, t int, plan *Plan, traits sdk.LossTraits, games []judged, units []unit) (map[place]LogProb, error) {
	var texts []Text
	var places []place
	index := map[place]bool{}
	for _, u := range units {
		for _, c := range u.completions {
			if at := (place{u.game, c}); !index[at] {
				index[at] = true
				places = append(places, at)
				texts = append(texts, Text{games[u.game].Prompt.Messages, games[u.game].Completions[c]})
			}
		}
	}
	elsewhere := plan.Reference == "initial" && t > 1 && !traits.NoReference
	if elsewhere {
		if err := l.load(ctx, 0); err != nil {
			return nil, err
		}
	}
	logps, err := l.Policy.LogProbs(ctx, texts)
	if err != nil {
		return nil, fmt.Errorf("compute the reference log-probabilities: %w", err)
	}
	if elsewhere {
		if err := l.load(ctx, t-1); err != nil {
			return nil, err
		}
	}
	out := make(map[place]LogProb, len(places))
	for i, at := range places {
		out[at] = logps[i]
	}
	return out, nil
}

// batch is a loss batch with the texts that its completions stand for.
type batch struct {
	sdk.LossBatch
	texts []Text
}

func assemble(units []unit, games []judged, reference map[place]LogProb, c float64, traits sdk.LossTraits) batch {
	var b batch
	group := map[int]int32{}
	row := map[place]int32{}
	for _, u := range units {
		if _, seen := group[u.game]; !seen {
			group[u.game] = int32(len(group))
		}
		g := games[u.game]
		for _, k := range u.completions {
			at := place{u.game, k}
			if _, seen := row[at]; seen {
				continue
			}
			row[at] = int32(len(b.texts))
			b.texts = append(b.texts, Text{g.Prompt.Messages, g.Completions[k]})
			b.Group = append(b.Group, group[u.game])
			if !traits.NoReference {
				b.Reference = append(b.Reference, reference[at].LogProb)
			}
			b.Tokens = append(b.Tokens, int32(reference[at].Tokens))
			win := g.game.WinRate(k)
			b.WinRate = append(b.WinRate, win.Rate)
			b.WinRateSE = append(b.WinRateSE, win.SE)
			b.Teacher = append(b.Teacher, g.Completions[k].Source == sdk.FromTeacher)
		}
		if u.pair == nil {
			b.UnitWeight = append(b.UnitWeight, 1)
			continue
		}
		p := u.pair
		b.Chosen = append(b.Chosen, row[place{u.game, p.Chosen}])
		b.Rejected = append(b.Rejected, row[place{u.game, p.Rejected}])
		b.ChosenWinRate = append(b.ChosenWinRate, p.ChosenWinRate)
		b.RejectedWinRate = append(b.RejectedWinRate, p.RejectedWinRate)
		b.Target = append(b.Target, preference.SoftTarget(c, p.ChosenWinRate, p.RejectedWinRate))
		b.Preference = append(b.Preference, p.Preference)
		b.Weight = append(b.Weight, p.Weight)
	}
	return b
}

func (b *batch) totalWeight() float64 {
	sum := 0.0
	for _, w := range b.Weight {
		sum += w
	}
	for _, w := range b.UnitWeight {
		sum += w
	}
	return sum
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
