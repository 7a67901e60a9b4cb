package bench

import (
	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/model"
)

// work is what the matrix products of a model's forward passes are made of.
type work struct {
	rows     float64 // tokens that go through the layers
	spared   float64 // those that are not multiplied by the last layer's matrices of the feed-forward half
	unmixed  float64 // and those not by its attention's last one
	attended float64 // pairs of a query and a key that it sees
	scored   float64 // rows that the head makes logits of
}

// flop is the operations of the products: two for each weight and row, four for each pair and number of a head (q·k and
// p·v). A causal pass over T tokens has T²/2 pairs, in layers that slide too: their windows are taken to be no shorter than
// what is measured. What is not a product counts as nothing, and so does the embedding.
func (w work) flop(c model.Config) float64 {
	q, kv := float64(c.Heads*c.HeadDim), float64(c.KVHeads*c.HeadDim)
	width, layers := float64(c.Width), float64(c.Layers)
	mlp := 3 * width * float64(c.FFN)
	layer := width*(q+2*kv) + q*width + mlp
	return 2*(layers*layer*w.rows-mlp*w.spared-q*width*w.unmixed) + 4*layers*q*w.attended + 2*width*float64(c.Vocab)*w.scored
}

// FLOP is the operations of a run's matrix products.
type FLOP struct {
	Executed   float64 `json:"flop"`            // that the result needs
	Recomputed float64 `json:"flop_recomputed"` // done again in place of being kept in memory
	Skipped    float64 `json:"flop_skipped"`    // of the plain algorithm, but never done
}

// stepFLOP is an update on sequences of a prompt and a completion, which share prompts among them, in one phase or in two.
// A backward pass has two products for each of the forward pass.
//
// Plainly, every token of every sequence goes through the layers. Nothing is predicted from a sequence's last one, so that
// it is skipped, a prompt of several sequences goes through once, and all but its last token leave before the last
// feed-forward half. The backward pass computes the attention's scores again, and the logits that are not kept; a
// second phase is a forward pass more.
func stepFLOP(c model.Config, b Batch, phases int) FLOP {
	s, p, P, C := float64(b.Sequences()), float64(b.Prompts), float64(b.PromptTokens), float64(b.CompletionTokens)
	plain := work{rows: s * (P + C), attended: s * (P + C) * (P + C) / 2, scored: s * C}
	done := work{rows: p*P + s*(C-1), spared: p * (P - 1), attended: p*P*P/2 + s*(C-1)*(P+(C-1)/2), scored: p + s*(C-1)}
	lost := 1 - float64(graph.KeptLogits(int(done.scored), c.Vocab))/float64(c.Vocab)
	again := work{attended: done.attended / 2, scored: lost * done.scored}.flop(c)
	return FLOP{
		Executed: 3 * done.flop(c), Recomputed: again + float64(phases-1)*done.flop(c),
		Skipped: 3 * (plain.flop(c) - done.flop(c)),
	}
}

// sampleFLOP is drawing one completion for each of some sequences that share prompts among them.
//
// Plainly, every sequence reads its own prompt and all that it draws. A prompt of several sequences is read once, of all but
// its last token no more than keys and values in the last layer, and a completion's last token never.
func sampleFLOP(c model.Config, b Batch) FLOP {
	sequences, prompt, completion := b.Sequences(), b.PromptTokens, b.CompletionTokens
	read := func(prompts, sequences, first, last int) work {
		w := work{rows: float64(prompts * prompt), attended: float64(prompts) * float64(prompt*prompt) / 2,
			scored: float64(sequences * completion)}
		for keys := first; keys <= last; keys++ {
			w.rows += float64(sequences)
			w.attended += float64(sequences) * float64(keys)
		}
		return w
	}
	// The plain count is of as many tokens, each with the keys before it, as the peers' formula has it; a token that is
	// drawn sees itself as well.
	plain := read(sequences, sequences, prompt, prompt+completion-1)
	done := read(b.Prompts, sequences, prompt+1, prompt+completion-1)
	done.spared = float64(b.Prompts * (prompt - 1))
	done.unmixed = done.spared
	return FLOP{Executed: done.flop(c), Skipped: plain.flop(c) - done.flop(c)}
}
