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
	if err := e.known(ctx, seqs, func(i int, tokens []float64) { out[i] = slices.Clone(tokens) }); err != nil {
		return nil, err
	}
	return out, nil
}

func (e *Engine) logProbs(ctx context.Context, seqs []Sequence) ([]float64, error) {
	out := make([]float64, len(seqs))
	if err := e.known(ctx, seqs, func(i int, tokens []float64) {
		for _, t := range tokens {
			out[i] += t
		}
	}); err != nil {
		return nil, err
	}
	if i := notFinite(out); i >= 0 {
		return nil, fmt.Errorf("score: the log-probability of sequence %d is %v: %w", i, out[i], ErrNotFinite)
	}
	return out, nil
}

// known calls collect once for each sequence with the log-probabilities of its tokens, which it must not keep: those of
// a completion that was drawn with these weights as they were then, of the others from the score graph.
func (e *Engine) known(ctx context.Context, seqs []Sequence, collect func(i int, tokens []float64)) error {
	if err := check(e.model.Config, seqs); err != nil {
		return fmt.Errorf("score: %w", err)
	}
	var rest []Sequence
	var at []int // of the rest in seqs
	for i, s := range seqs {
		if tokens := e.memo.find(e.model.Version(), s); tokens != nil {
			collect(i, tokens)
		} else {
			rest, at = append(rest, s), append(at, i)
		}
	}
	return e.eachScored(ctx, rest, arrange(rest), func(run []int) {
		all := e.score.TokenLogProbs()
		for s, i := range run {
			collect(at[i], all[e.batch.ScoredCu[s]:e.batch.ScoredCu[s+1]])
		}
	})
}

// eachScored runs the score graph over seqs in an order, a part at a time, and calls collect after each part with the indices of
// its sequences. The sequences have been checked.
func (e *Engine) eachScored(ctx context.Context, seqs []Sequence, order []int, collect func(run []int)) error {
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
