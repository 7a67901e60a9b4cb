package graph

import (
	"fmt"
	"slices"

	"github.com/chewxy/hm"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Batch is sequences packed one after another without padding: the N rows of every activation.
// It flows along the graph's edges as a value of constant nominal shape, so that a graph built
// once takes batches of any number and length of sequences.
//
// A row holds a token and predicts the next one. Only some rows are scored (the completion's):
// of the others no logits are computed.
type Batch struct {
	Tokens    []int32 // [N] token ids
	Positions []int32 // [N] position of the token in its sequence, from 0
	Cu        []int   // [B+1] sequence s has rows Cu[s] to Cu[s+1]

	Scored   []int32 // [S] rows whose next token is scored, ascending
	Targets  []int32 // [S] those next tokens
	ScoredCu []int   // [B+1] sequence s has the scored rows ScoredCu[s] to ScoredCu[s+1]

	longest int
}

// block is some whole sequences of a batch: the rows lo to hi. An Op works on a block at a time,
// so that its intermediate values stay in the cache, and take no more memory than a block's. No
// row's bytes depend on that: an Op treats sequences independently of each other.
type block struct {
	lo, hi int
	cu     []int // offsets of its sequences, from 0 to hi−lo
}

// blockRows is how many rows a block has at least, unless it is the last.
const blockRows = 512

// blocks are those of one batch.
type blocks struct {
	list    []block
	offsets []int // of all of them, one after another
}

// divide finds the blocks of b.
func (k *blocks) divide(b *Batch) {
	k.list, k.offsets = k.list[:0], slices.Grow(k.offsets[:0], 2*len(b.Cu))
	for first, s := 0, 1; s < len(b.Cu); s++ {
		if lo, hi := b.Cu[first], b.Cu[s]; hi-lo >= blockRows || s == len(b.Cu)-1 {
			at := len(k.offsets)
			for _, row := range b.Cu[first : s+1] {
				k.offsets = append(k.offsets, row-lo)
			}
			k.list = append(k.list, block{lo, hi, k.offsets[at:]})
			first = s
		}
	}
}

func (k block) rows() int { return k.hi - k.lo }

// of returns the block's rows of x, which is width wide.
func (k block) of(x []float32, width int) []float32 { return x[k.lo*width : k.hi*width] }

// alone is the block in memory of its own.
func (k block) alone() block { return block{0, k.hi - k.lo, k.cu} }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.Tokens, b.Positions, b.Scored, b.Targets = b.Tokens[:0], b.Positions[:0], b.Scored[:0], b.Targets[:0]
	b.Cu, b.ScoredCu = append(b.Cu[:0], 0), append(b.ScoredCu[:0], 0)
	b.longest = 0
}

// Add appends prompt followed by completion and scores the completion's tokens. The last token
// takes no row: nothing is predicted from it. The prompt must not be empty.
func (b *Batch) Add(prompt, completion []int32) {
	if len(b.Cu) == 0 {
		b.Reset()
	}
	length := max(len(prompt)+len(completion)-1, 0)
	for i := range length {
		token := int32(0)
		if i < len(prompt) {
			token = prompt[i]
		} else {
			token = completion[i-len(prompt)]
		}
		if i >= len(prompt)-1 {
			b.Scored = append(b.Scored, int32(len(b.Tokens)))
			b.Targets = append(b.Targets, completion[i-len(prompt)+1])
		}
		b.Tokens = append(b.Tokens, token)
		b.Positions = append(b.Positions, int32(i))
	}
	b.Cu = append(b.Cu, len(b.Tokens))
	b.ScoredCu = append(b.ScoredCu, len(b.Scored))
	b.longest = max(b.longest, length)
}

// Rows returns N, the number of packed tokens.
func (b *Batch) Rows() int { return len(b.Tokens) }

// Sequences returns B.
func (b *Batch) Sequences() int { return max(len(b.Cu)-1, 0) }

// The rest makes *Batch a gorgonia.Value. Its shape is nominal: the Ops read the real sizes.

var batchType = gorgonia.TensorType{Dims: 1, Of: tensor.Int32}

func (b *Batch) Shape() tensor.Shape { return tensor.Shape{1} }
func (b *Batch) Size() int           { return 1 }
func (b *Batch) Data() any           { return b.Tokens }
func (b *Batch) Dtype() tensor.Dtype { return tensor.Int32 }
func (b *Batch) Uintptr() uintptr    { return 0 }
func (b *Batch) MemSize() uintptr    { return 0 }
func (b *Batch) Type() hm.Type       { return batchType }
func (b *Batch) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "batch of %d tokens in %d sequences", b.Rows(), b.Sequences())
}

var _ gorgonia.Value = (*Batch)(nil)
