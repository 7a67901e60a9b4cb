package loop

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/sdk"
)

// unit is what an optimizer batch counts: a pair, a completion or a group of one judged game.
type unit struct {
	game        int   // index into the judged groups
	pair        *pair // nil for the other units
	completions []int // of the group; for a pair: chosen, rejected
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

// place is a completion given a prompt: its own, or that of another game in a mismatched pair.
type place struct{ prompt, game, completion int }

// batch is a loss batch with the completions that it stands for.
type batch struct {
	sdk.LossBatch
	epoch, units int
	places       []place // of each completion
	mismatched   []place // of each completion's prompt with another one's completion; empty unless the loss asks
}

// batches lists the iteration's optimizer batches: each epoch passes over all units in an order of its own.
// What depends on the policies is filled in later.
func (l *Loop) batches(t int, plan *Plan, units []unit, games []judged, traits sdk.LossTraits) []*batch {
	var out []*batch
	for epoch := range plan.Epochs {
		rng := rand.New(rand.NewPCG(l.Experiment.Seed, uint64(t)<<32|uint64(epoch)))
		for _, part := range inBatches(rng, units, plan.BatchSize, plan.BatchBy == ByPrompt) {
			b := assemble(part, units, games, plan.Loss.C)
			b.epoch = epoch
			if traits.Mismatched {
				b.mismatched = mismatch(b.places)
			}
			out = append(out, b)
		}
	}
	return out
}

// inBatches deals out the units in random order, size to a batch: each by itself, or prompt after prompt, each with all
// its units.
func inBatches(rng *rand.Rand, units []unit, size int, byPrompt bool) [][]int {
	var dealt [][]int
	for i, u := range units {
		if byPrompt && i > 0 && u.game == units[i-1].game {
			dealt[len(dealt)-1] = append(dealt[len(dealt)-1], i)
		} else {
			dealt = append(dealt, []int{i})
		}
	}
	rng.Shuffle(len(dealt), func(i, j int) { dealt[i], dealt[j] = dealt[j], dealt[i] })
	return slices.Collect(slices.Chunk(slices.Concat(dealt...), size))
}

func assemble(part []int, units []unit, games []judged, c float64) *batch {
	b := &batch{units: len(part)}
	group := map[int]int32{}
	row := map[place]int32{}
	for _, i := range part {
		u := units[i]
		if _, seen := group[u.game]; !seen {
			group[u.game] = int32(len(group))
		}
		g := games[u.game]
		for _, k := range u.completions {
			at := place{u.game, u.game, k}
			if _, seen := row[at]; seen {
				continue
			}
			row[at] = int32(len(b.places))
			b.places = append(b.places, at)
			b.Group = append(b.Group, group[u.game])
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
		b.Chosen = append(b.Chosen, row[place{u.game, u.game, p.Chosen}])
		b.Rejected = append(b.Rejected, row[place{u.game, u.game, p.Rejected}])
		b.ChosenWinRate = append(b.ChosenWinRate, p.ChosenWinRate)
		b.RejectedWinRate = append(b.RejectedWinRate, p.RejectedWinRate)
		b.Target = append(b.Target, preference.SoftTarget(c, p.ChosenWinRate, p.RejectedWinRate))
		b.Preference = append(b.Preference, p.Preference)
		b.Weight = append(b.Weight, p.Weight)
	}
	return b
}

// mismatch gives each completion's prompt the next completion of the batch that answers another
// prompt, as KTO's authors and TRL do with batches of distinct prompts. A batch of one prompt has none.
func mismatch(places []place) []place {
	out := make([]place, len(places))
	for i, at := range places {
		j := i
		for places[j].game == at.game {
			if j = (j + 1) % len(places); j == i {
				return nil
			}
		}
		out[i] = place{at.prompt, places[j].game, places[j].completion}
	}
	return out
}

// reference fills in the completions' lengths and what the loss sees of the reference policy,
// computed once, before the first step, by the policy's own kernels.
func (l *Loop) reference(ctx context.Context, t int, plan *Plan, traits sdk.LossTraits, games []judged, batches []*batch) error {
	own, mismatched := newIndex(), newIndex()
	for _, b := range batches {
		own.add(b.places)
		if !traits.NoReference {
			mismatched.add(b.mismatched)
		}
	}
	elsewhere := plan.Reference == "initial" && t > 1 && !traits.NoReference
	if elsewhere {
		if err := l.loadIteration(ctx, 0); err != nil {
			return err
		}
	}
	logps, err := l.Policy.LogProbs(ctx, texts(games, own.places))
	var tokens [][]float64
	if err == nil && traits.TokenLevel && !traits.NoReference {
		tokens, err = l.Policy.TokenLogProbs(ctx, texts(games, own.places))
	}
	var others []LogProb
	if err == nil && len(mismatched.places) > 0 {
		others, err = l.Policy.LogProbs(ctx, texts(games, mismatched.places))
	}
	if err != nil {
		return fmt.Errorf("compute the reference log-probabilities: %w", err)
	}
	if elsewhere {
		if err := l.loadIteration(ctx, t-1); err != nil {
			return err
		}
	}
	for _, b := range batches {
		for _, at := range b.places {
			i := own.at[at]
			b.Tokens = append(b.Tokens, int32(logps[i].Tokens))
			if !traits.NoReference {
				b.Reference = append(b.Reference, logps[i].LogProb)
			}
			if tokens != nil {
				b.ReferenceTokens = append(b.ReferenceTokens, tokens[i])
			}
		}
		if others != nil {
			for _, at := range b.mismatched {
				b.MismatchedReference = append(b.MismatchedReference, others[mismatched.at[at]].LogProb)
			}
		}
	}
	return nil
}

// index lists places without repetition.
type index struct {
	places []place
	at     map[place]int
}

func newIndex() *index { return &index{at: map[place]int{}} }

func (x *index) add(places []place) {
	for _, p := range places {
		if _, seen := x.at[p]; !seen {
			x.at[p] = len(x.places)
			x.places = append(x.places, p)
		}
	}
}

func texts(games []judged, places []place) []Text {
	out := make([]Text, len(places))
	for i, at := range places {
		out[i] = Text{games[at.prompt].Prompt.Messages, games[at.game].Completions[at.completion]}
	}
	return out
}

func sums(logps []LogProb) []float64 {
	out := make([]float64, len(logps))
	for i, lp := range logps {
		out[i] = lp.LogProb
	}
	return out
}

func sum(x []float64) (total float64) {
	for _, v := range x {
		total += v
	}
	return total
}

// mean divides a result's sums by the batch's total weight.
func (b *batch) mean(out *sdk.LossResult) {
	weight := sum(b.Weight) + sum(b.UnitWeight)
	out.Loss /= weight
	for _, row := range append(out.TokenGradients, out.Gradient) {
		for i := range row {
			row[i] /= weight
		}
	}
}
