package graph

import (
	"fmt"

	"github.com/chewxy/hm"
	"github.com/dno-project/dno/core/engine/kernel"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// Batch is sequences packed one after another without padding: the N rows of every activation.
// It flows along the graph's edges as a value of constant nominal shape, so that a graph built
// once takes batches of any number and length of sequences.
//
// A row holds a token and predicts what follows it. The rows of a prompt, and of what its completions begin with alike, stand
// once however many completions there are, and of rows from which nothing is scored no logits are computed.
type Batch struct {
	Tokens    []int32       // [N] token ids
	Positions []int32       // [N] position of the token in its sequence, from 0
	Spans     []kernel.Span // the rows; where a prompt has several completions, they continue it

	Targets  []int32 // [S] the scored tokens, sequence after sequence
	ScoredCu []int   // [B+1] sequence s has the scored tokens ScoredCu[s] to ScoredCu[s+1]

	Scored []int32 // [R] the rows that predict them, ascending
	next   []int32 // [S] indices of scored tokens in the order of the rows that predict them
	nextCu []int   // [R+1] scored row i predicts next[nextCu[i]:nextCu[i+1]]

	longest int
	adding  group
}

// predicts returns which scored tokens the scored row i predicts: one for each completion that the row is of.
func (b *Batch) predicts(i int) []int32 { return b.next[b.nextCu[i]:b.nextCu[i+1]] }

// block is some whole sequences of a batch: the rows lo to hi. Where nothing is kept for a backward pass, attention works
// on a block at a time, and its queries, keys and values take no more memory than a block's.
type block struct {
	lo, hi int
	spans  []kernel.Span // from 0 to hi−lo
}

// scoreBlockRows is how many rows a block has at least, unless it is the last.
const scoreBlockRows = 4096

// blocks are those of one batch.
type blocks struct {
	list  []block
	spans []kernel.Span // of all of them, one after another
}

// divide finds the blocks of b. What continues stays with what it continues.
func (k *blocks) divide(b *Batch, rows int) {
	k.list, k.spans = k.list[:0], append(k.spans[:0], b.Spans...)
	for lo, first, s := 0, 0, 0; s < len(k.spans); s++ {
		hi := k.spans[s].To
		k.spans[s].From, k.spans[s].To = k.spans[s].From-lo, hi-lo
		if s == len(k.spans)-1 || hi-lo >= rows && k.spans[s+1].Behind == 0 {
			k.list = append(k.list, block{lo, hi, k.spans[first : s+1]})
			lo, first = hi, s+1
		}
	}
}

func (k block) rows() int { return k.hi - k.lo }

// of returns the block's rows of x, which is width wide.
func (k block) of(x []float32, width int) []float32 { return x[k.lo*width : k.hi*width] }

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.Tokens, b.Positions, b.Spans = b.Tokens[:0], b.Positions[:0], b.Spans[:0]
	b.Targets, b.ScoredCu = b.Targets[:0], append(b.ScoredCu[:0], 0)
	b.Scored, b.next, b.nextCu = b.Scored[:0], b.next[:0], append(b.nextCu[:0], 0)
	b.longest = 0
}

// Add appends a sequence for each of the completions of a prompt, and scores the completion's tokens. What completions
// begin with alike stands once, as the prompt does. The last token takes no row: nothing is predicted from it. The prompt
// must not be empty.
func (b *Batch) Add(prompt []int32, completions ...[]int32) {
	if len(b.ScoredCu) == 0 {
		b.Reset()
	}
	from := len(b.Tokens)
	for i, token := range prompt {
		b.row(token, i)
	}
	g := &b.adding
	g.prompt, g.completions, g.first, g.which = len(prompt), completions, g.first[:0], g.which[:0]
	for i, c := range completions {
		g.first, g.which = append(g.first, len(b.Targets)), append(g.which, i)
		if len(c) > 0 {
			b.next = append(b.next, int32(len(b.Targets)))
			b.Targets = append(b.Targets, c...)
		}
		b.ScoredCu = append(b.ScoredCu, len(b.Targets))
	}
	b.scoreLast()
	if len(completions) == 1 { // one span with its prompt
		b.completed(g.which, 0, len(completions[0])-1)
		g.which = g.which[:0]
	}
	b.Spans = append(b.Spans, kernel.Span{From: from, To: len(b.Tokens)})
	b.branch(g.which, 0, len(b.Spans)-1, 1)
	g.completions = nil
}

// group is the completions of a prompt that are being added.
type group struct {
	prompt      int       // its length
	completions [][]int32 // each
	first       []int     // and its first token among the targets
	which       []int
}

// leastShared is how many rows completions share at least: fewer are not worth a span of their own.
const leastShared = 8

// branch adds the rows of some completions from token a on, which continue the span behind; depth says how many spans that is
// in all. Those that go on alike are one span, behind which they branch. It puts which in the order of the spans.
func (b *Batch) branch(which []int, a, behind, depth int) {
	for len(which) > 0 {
		rows := b.adding.rows(which[0], a)
		if len(rows) == 0 {
			which = which[1:]
			continue
		}
		together, n := 1, len(rows)
		for i := 1; i < len(which) && depth < kernel.MostBehind; i++ {
			if shared := alike(rows, b.adding.rows(which[i], a)); shared > 0 {
				x := which[i]
				copy(which[together+1:i+1], which[together:i])
				which[together] = x
				together++
				n = min(n, shared)
			}
		}
		from := len(b.Tokens)
		b.completed(which[:together], a, a+n)
		b.Spans = append(b.Spans, kernel.Span{From: from, To: len(b.Tokens), Behind: len(b.Spans) - behind})
		if together > 1 {
			b.branch(which[:together], a+n, len(b.Spans)-1, depth+1)
		}
		which = which[together:]
	}
}

// alike is how many rows x and y begin with alike; 0 where these are fewer than are worth it, unless they are all of both.
func alike(x, y []int32) int {
	n := 0
	for n < min(len(x), len(y)) && x[n] == y[n] {
		n++
	}
	if n < leastShared && n < max(len(x), len(y)) {
		return 0
	}
	return n
}

// rows are the tokens of a completion from a on that take rows; a is not behind them.
func (g *group) rows(completion, a int) []int32 {
	c := g.completions[completion]
	return c[a:max(a, len(c)-1)]
}

// completed adds the rows of the tokens from … to of completions in which they are the same.
func (b *Batch) completed(which []int, from, to int) {
	g := &b.adding
	for i := from; i < to; i++ {
		b.row(g.completions[which[0]][i], g.prompt+i)
		for _, c := range which {
			b.next = append(b.next, int32(g.first[c]+i+1))
		}
		b.scoreLast()
	}
}

func (b *Batch) row(token int32, position int) {
	b.Tokens, b.Positions = append(b.Tokens, token), append(b.Positions, int32(position))
	b.longest = max(b.longest, position+1)
}

// scoreLast notes that the last row predicts what was added to next.
func (b *Batch) scoreLast() {
	if n := len(b.next); n > b.nextCu[len(b.nextCu)-1] {
		b.Scored, b.nextCu = append(b.Scored, int32(len(b.Tokens)-1)), append(b.nextCu, n)
	}
}

// Rows returns N, the number of packed tokens.
func (b *Batch) Rows() int { return len(b.Tokens) }

// Sequences returns B.
func (b *Batch) Sequences() int { return max(len(b.ScoredCu)-1, 0) }

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
