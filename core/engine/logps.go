package engine

import (
	"context"
	"fmt"
	"slices"
)

// scoreRows is how many rows are scored at a time. Only the residual stream is held for all of them.
const scoreRows = 1 << 14

// LogProbs returns the log-probability of each completion given its prompt,
//
//	logp[s] = Σ_i log π(completion[i] | prompt, completion[<i])
//
// in nats, at temperature 1. A sequence's value is the same bytes whatever else is in seqs, and
// the same as [Engine.Step] passes to its loss while the weights stand still. Any number of
// sequences may be given, also none.
//
// Errors: [ErrInput] for an empty or too long sequence or a token id outside of the vocabulary,
// [ErrNotFinite], ctx's.
func (e *Engine) LogProbs(ctx context.Context, seqs []Sequence) ([]float64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.logProbs(ctx, seqs)
}

// TokenLogProbs returns the log-probability of each token of each completion, in nats; they add
// up to [Engine.LogProbs].
func (e *Engine) TokenLogProbs(ctx context.Context, seqs []Sequence) ([][]float64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([][]float64, len(seqs))
	err := e.eachScored(ctx, seqs, arrange(seqs), func(run []int) {
		all := e.score.TokenLogProbs()
		for s, i := range run {
			out[i] = slices.Clone(all[e.batch.ScoredCu[s]:e.batch.ScoredCu[s+1]])
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (e *Engine) logProbs(ctx context.Context, seqs []Sequence) ([]float64, error) {
	out := make([]float64, len(seqs))
	if err := e.eachScored(ctx, seqs, arrange(seqs), func(run []int) {
		for s, i := range run {
			out[i] = e.score.LogProbs()[s]
		}
	}); err != nil {
		return nil, err
	}
	if i := notFinite(out); i >= 0 {
		return nil, fmt.Errorf("score: the log-probability of sequence %d is %v: %w", i, out[i], ErrNotFinite)
	}
	return out, nil
}

// eachScored runs the score graph over seqs in an order, a part at a time, and calls collect after each part with the indices of
// its sequences.
func (e *Engine) eachScored(ctx context.Context, seqs []Sequence, order []int, collect func(run []int)) error {
	if err := check(e.model.Config, seqs); err != nil {
		return fmt.Errorf("score: %w", err)
	}
	if len(seqs) == 0 {
		return nil
	}
	if e.score == nil {
		g, err := e.model.Score()
		if err != nil {
			return fmt.Errorf("score: %w", err)
		}
		e.score = g
	}
	for _, run := range split(seqs, order, scoreRows) {
		pack(&e.batch, seqs, run)
		if err := e.score.Run(ctx, &e.batch); err != nil {
			return fmt.Errorf("score: %w", err)
		}
		collect(run)
	}
	return nil
}
