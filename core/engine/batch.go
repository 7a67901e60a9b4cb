package engine

import (
	"fmt"
	"math"

	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/model"
)

// Sequence is a prompt and one completion of it, as token ids. Only the completion's tokens are
// scored; it includes the end-of-sequence token where the completion ended by itself.
type Sequence struct {
	Prompt, Completion []int32
}

// rows returns how many rows a sequence takes in a batch: nothing is predicted from its last token.
func (s Sequence) rows() int { return len(s.Prompt) + len(s.Completion) - 1 }

// check returns an [ErrInput] naming the first sequence that the model cannot take.
func check(c model.Config, seqs []Sequence) error {
	if err := misfit(c, seqs); err != nil {
		return fmt.Errorf("%w: %w", ErrInput, err)
	}
	return nil
}

func misfit(c model.Config, seqs []Sequence) error {
	for i, s := range seqs {
		switch n := len(s.Prompt) + len(s.Completion); {
		case len(s.Prompt) == 0:
			return fmt.Errorf("sequence %d has an empty prompt: the first token of a completion needs one before it (a begin-of-sequence token will do)", i)
		case len(s.Completion) == 0:
			return fmt.Errorf("sequence %d has an empty completion", i)
		case n > c.MaxPositions:
			return fmt.Errorf("sequence %d has %d tokens, the model takes %d (max_position_embeddings): shorten the prompt or max_tokens", i, n, c.MaxPositions)
		}
		for _, part := range [][]int32{s.Prompt, s.Completion} {
			for _, id := range part {
				if id < 0 || int(id) >= c.Vocab {
					return fmt.Errorf("sequence %d has token id %d, the model's vocabulary is 0 to %d: is this its tokenizer?", i, id, c.Vocab-1)
				}
			}
		}
	}
	return nil
}

// split cuts seqs into the fewest runs of about equal size with at most limit rows each, in their order; a
// sequence that is longer than the limit stands alone. Each [2]int is a half-open range.
func split(seqs []Sequence, limit int) [][2]int {
	total := 0
	for _, s := range seqs {
		total += s.rows()
	}
	share := min(limit, total/(total/limit+1)+1) // close to total/parts, so that no run is a small rest
	var runs [][2]int
	first, rows := 0, 0
	for i, s := range seqs {
		if i > first && (rows+s.rows() > limit || rows >= share) {
			runs = append(runs, [2]int{first, i})
			first, rows = i, 0
		}
		rows += s.rows()
	}
	return append(runs, [2]int{first, len(seqs)})
}

// pack fills b with seqs.
func pack(b *graph.Batch, seqs []Sequence) {
	b.Reset()
	for _, s := range seqs {
		b.Add(s.Prompt, s.Completion)
	}
}

// rowBytes is the memory that a row of a training batch takes: what every layer keeps for the
// backward pass, and the head.
func rowBytes(c model.Config) int {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	kept := 2*c.Width + 2*q + 2*kv + 2*c.Heads + 2*c.FFN + 2
	head := 4 * c.Width
	return 4 * (c.Layers*kept + head)
}

// notFinite returns the index of the first value that is NaN or infinite, or −1.
func notFinite(x []float64) int {
	for i, v := range x {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return i
		}
	}
	return -1
}
