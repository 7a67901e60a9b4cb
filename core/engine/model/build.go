package model

import "github.com/dno-project/dno/core/engine/graph"

// Score builds the graph that computes log-probabilities without gradients.
func (m *Model) Score() (*graph.Score, error) { return m.wire().Score() }

// Train builds the graph that computes log-probabilities, a loss and every gradient.
func (m *Model) Train() (*graph.Train, error) { return m.wire().Train() }

// wire puts the Ops in the order of the family's forward pass.
func (m *Model) wire() *graph.Builder {
	c := m.Config
	b := graph.NewBuilder(m.Trainable(), graph.Dims{Width: c.Width, FFN: c.FFN, Heads: c.Heads, KVHeads: c.KVHeads,
		HeadDim: c.HeadDim, Eps: float32(c.NormEps), Rope: m.Rope, Precision: m.precision})
	x := b.Embed(m.Embed)
	for _, l := range m.Layers {
		x = b.Attention(x, graph.AttentionParams{Norm: l.AttnNorm, Q: l.Q, K: l.K, V: l.V, O: l.O})
		x = b.MLP(x, graph.MLPParams{Norm: l.MLPNorm, Gate: l.Gate, Up: l.Up, Down: l.Down})
	}
	b.HeadLogProbs(x, m.Norm, m.Head)
	return b
}
