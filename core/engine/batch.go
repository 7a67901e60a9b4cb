package engine

import (
	"fmt"
	"math"
	"slices"

	"github.com/dno-project/dno/core/engine/generate"
	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/model"
)

// Sequence is a prompt and one completion of it, as token ids. Only the completion's tokens are
// scored; it includes the end-of-sequence token where the completion ended by itself.
type Sequence struct {
	Prompt, Completion []int32
}

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

// arrange returns the indices of seqs such that those of equal prompts follow one another, in the order in which the
// prompts come first.
func arrange(seqs []Sequence) []int {
	order, _ := generate.InGroups(len(seqs), func(i int) []int32 { return seqs[i].Prompt })
	return order
}

// rowsAdded returns how many rows seqs[order[i]] adds at most to a batch that ends with the sequence before it in order, or that is
// new: a prompt that is there already is shared, and nothing is predicted from the last token.
func rowsAdded(seqs []Sequence, order []int, i int, fresh bool) int {
	s := seqs[order[i]]
	if !fresh && slices.Equal(seqs[order[i-1]].Prompt, s.Prompt) {
		return len(s.Completion) - 1
	}
	return len(s.Prompt) + len(s.Completion) - 1
}

// split cuts an order of seqs into the fewest runs of about equal size with at most limit rows each; a sequence that
// is longer than the limit stands alone.
func split(seqs []Sequence, order []int, limit int) [][]int {
	total := 0
	for i := range order {
		total += rowsAdded(seqs, order, i, i == 0)
	}
	share := min(limit, total/(total/limit+1)+1) // close to total/parts, so that no run is a small rest
	var runs [][]int
	first, sum := 0, 0
	for i := range order {
		n := rowsAdded(seqs, order, i, i == first)
		if i > first && (sum+n > limit || sum >= share) {
			runs = append(runs, order[first:i])
			first, sum, n = i, 0, rowsAdded(seqs, order, i, true)
		}
		sum += n
	}
	return append(runs, order[first:])
}

// pack fills b with seqs in an order.
func pack(b *graph.Batch, seqs []Sequence, order []int) {
	b.Reset()
	var completions [][]int32
	for i, at := range order {
		completions = append(completions, seqs[at].Completion)
		if i == len(order)-1 || !slices.Equal(seqs[at].Prompt, seqs[order[i+1]].Prompt) {
			b.Add(seqs[at].Prompt, completions...)
			completions = completions[:0]
		}
	}
}

// rowBytes is the memory that a row of a training batch takes: what every layer keeps for the
// backward pass, the gradients of one layer, and the head.
func rowBytes(c model.Config) int {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	kept := 2*c.Width + 2*q + 2*kv + 2*c.Heads + 2*c.FFN + 2
	if c.Family.HeadNorms() {
		kept += c.Heads + c.KVHeads
	}
	if c.Family.PostNorms() {
		kept += 2*c.Width + 2
	}
	gradients := 3*c.Width + 2*q + 2*kv + 3*c.FFN
	head := 4 * c.Width
	return 4 * (c.Layers*kept + gradients + head)
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
