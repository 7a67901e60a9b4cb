package model

import "github.com/dno-project/dno/core/engine/graph"

// Score builds the graph that computes log-probabilities without gradients.
func (m *Model) Score() (*graph.Score, error) { return m.wire().Score() }

// Train builds the graph that computes log-probabilities, a loss and every gradient.
func (m *Model) Train() (*graph.Train, error) { return m.wire().Train() }

// wire puts the Ops in the order of the forward pass.
func (m *Model) wire() *graph.Builder {
	c := m.Config
	b := graph.NewBuilder(m.Trainable(), graph.Dims{Width: c.Width, FFN: c.FFN, Heads: c.Heads, KVHeads: c.KVHeads,
		HeadDim: c.HeadDim, Eps: float32(c.NormEps), Scale: c.Scale(), PlusOne: c.Family.PlusOne(), GELU: c.Family.GELU(),
		Precision: m.precision})
	x := b.Embed(m.Embed, c.EmbedScale())
	for i, l := range m.Layers {
		x = b.Attention(x, graph.AttentionParams{Norm: l.AttnNorm, Q: l.Q, K: l.K, V: l.V, QNorm: l.QNorm, KNorm: l.KNorm,
			O: l.O, Post: l.AttnPost}, m.Reach(i))
		if i == len(m.Layers)-1 {
			x = b.Scored(x)
		}
		x = b.MLP(x, graph.MLPParams{Norm: l.MLPNorm, Gate: l.Gate, Up: l.Up, Down: l.Down, Post: l.MLPPost})
	}
	b.HeadLogProbs(x, m.Norm, m.Head)
	return b
}
