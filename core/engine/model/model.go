// Package model is the transformer families as graphs: a configuration and its named weights,
// wired into coarse differentiable steps.
package model

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/weights"
)

// Model is a decoder-only transformer: its shape and its weights.
//
// The weights may change between two uses of it, never during one; [Model.Changed] is called
// after each change, so that whoever keeps a copy (packed for decoding) sees that it is stale.
type Model struct {
	Config Config
	Embed  *graph.Param // V×C
	Layers []Layer
	Norm   *graph.Param // C
	Head   *graph.Param // V×C; the same Param as Embed where the two are tied

	params  *graph.Params
	rope    ropeTable // of the layers that see everything
	local   ropeTable // of those that slide
	version uint64

	precision kernel.Precision

	lora     *LoRA         // nil: no adapter
	adapters *graph.Params // its tensors, A and B of each target in turn
	held     bool          // the matrices of params are held packed
}

// Layer is one decoder layer. A matrix is out×in, row-major: y = x·Wᵀ.
//
//	x += post(Attention(norm(RMSNorm(x, AttnNorm)·Qᵀ), norm(·Kᵀ), ·Vᵀ)·Oᵀ)
//	x += post((act(h·Gateᵀ) ⊙ h·Upᵀ)·Downᵀ),  h = RMSNorm(x, MLPNorm)
//
// norm is an RMSNorm of each head by QNorm and KNorm, and post one by AttnPost and MLPPost; these are nil, and nothing
// is normalised, in families without them (see [Family]). act is SiLU or GELU.
type Layer struct {
	AttnNorm     *graph.Param // C
	Q, K, V, O   *graph.Param // (H·D)×C, (G·D)×C, (G·D)×C, C×(H·D)
	QNorm, KNorm *graph.Param // D
	AttnPost     *graph.Param // C
	MLPNorm      *graph.Param // C
	Gate, Up     *graph.Param // F×C
	Down         *graph.Param // C×F
	MLPPost      *graph.Param // C
}

// specs lists the parameters under their Hugging Face names, in the order of the arena.
func specs(c Config) []graph.Spec {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	list := []graph.Spec{{Name: "model.embed_tokens.weight", Shape: []int{c.Vocab, c.Width}}}
	for l := range c.Layers {
		at := func(name string, shape ...int) {
			list = append(list, graph.Spec{Name: fmt.Sprintf("model.layers.%d.%s.weight", l, name), Shape: shape})
		}
		at("input_layernorm", c.Width)
		at("self_attn.q_proj", q, c.Width)
		at("self_attn.k_proj", kv, c.Width)
		at("self_attn.v_proj", kv, c.Width)
		at("self_attn.o_proj", c.Width, q)
		if c.Family.HeadNorms() {
			at("self_attn.q_norm", c.HeadDim)
			at("self_attn.k_norm", c.HeadDim)
		}
		at("post_attention_layernorm", c.Width) // without post-norms, it stands before the feed-forward half
		if c.Family.PostNorms() {
			at("pre_feedforward_layernorm", c.Width)
		}
		at("mlp.gate_proj", c.FFN, c.Width)
		at("mlp.up_proj", c.FFN, c.Width)
		at("mlp.down_proj", c.Width, c.FFN)
		if c.Family.PostNorms() {
			at("post_feedforward_layernorm", c.Width)
		}
	}
	list = append(list, graph.Spec{Name: "model.norm.weight", Shape: []int{c.Width}})
	if !c.Tied {
		list = append(list, graph.Spec{Name: "lm_head.weight", Shape: []int{c.Vocab, c.Width}})
	}
	return list
}

// allocate makes the model with all weights zero.
func allocate(c Config) (*Model, error) {
	ps, err := graph.NewParams(specs(c))
	if err != nil {
		return nil, fmt.Errorf("allocate the model: %w", err)
	}
	m := &Model{Config: c, params: ps, rope: ropeTable{freqs: c.Rope.Frequencies(c.HeadDim)}, version: 1}
	if c.Window > 0 {
		m.local.freqs = c.LocalRope.Frequencies(c.HeadDim)
	}
	rest := ps.All
	next := func() *graph.Param {
		p := rest[0]
		rest = rest[1:]
		return p
	}
	m.Embed = next()
	for range c.Layers {
		l := Layer{AttnNorm: next(), Q: next(), K: next(), V: next(), O: next()}
		if c.Family.HeadNorms() {
			l.QNorm, l.KNorm = next(), next()
		}
		if c.Family.PostNorms() {
			l.AttnPost = next()
		}
		l.MLPNorm, l.Gate, l.Up, l.Down = next(), next(), next(), next()
		if c.Family.PostNorms() {
			l.MLPPost = next()
		}
		m.Layers = append(m.Layers, l)
	}
	m.Norm = next()
	if m.Head = m.Embed; !c.Tied {
		m.Head = next()
	}
	return m, nil
}

// New returns a model with fresh weights: norms multiply by 1, matrices are drawn from a normal
// distribution with standard deviation Config.InitStd, as transformers does.
//
// The same seed gives the same weights.
func New(c Config, seed uint64) (*Model, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("make a model: %w", err)
	}
	m, err := allocate(c)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(seed, 0x6d6f64656c)) // the stream's name, "model"
	one := float32(1)
	if c.Family.PlusOne() {
		one = 0
	}
	for _, p := range m.params.All {
		for i := range p.W {
			if len(p.Shape) == 1 {
				p.W[i] = one
			} else {
				p.W[i] = float32(rng.NormFloat64() * c.InitStd)
			}
		}
	}
	return m, nil
}

// FromWeights returns the model whose weights stand in f under their Hugging Face names.
// Nothing is allocated before every shape has been compared with the configuration. A
// lm_head.weight beside a tied embedding, as some files have it, is ignored.
//
// Errors name the tensor that is missing or of another shape.
func FromWeights(c Config, f *weights.File) (*Model, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("read the model: %w", err)
	}
	if err := compareShapes(c, f); err != nil {
		return nil, err
	}
	m, err := allocate(c)
	if err != nil {
		return nil, err
	}
	return m, m.read(f)
}

// Read replaces the weights by those in f, which has the same shapes.
//
// Errors name the tensor that is missing or of another shape; where a shape is wrong, no weight
// has changed.
func (m *Model) Read(f *weights.File) error {
	if m.held {
		return errors.New("read the model: its weights are held rounded, and cannot be replaced")
	}
	if err := m.Fits(f); err != nil {
		return err
	}
	return m.read(f)
}

// Params returns every parameter with its arenas, in the order of Tensors; those of an adapter are not among them.
func (m *Model) Params() *graph.Params { return m.params }

// Reach returns what a layer's attention knows of positions. Its tables are cosines and sines of the rotary positions,
// position-major, D/2 a position, for at least as many as are asked for.
func (m *Model) Reach(layer int) graph.Reach {
	if m.Config.Slides(layer) {
		return graph.Reach{Rope: m.local.upTo, Window: m.Config.Window}
	}
	return graph.Reach{Rope: m.rope.upTo}
}

// Gain returns what a norm of this weight multiplies by, and nil for a weight that the family does not have. It may be the
// weight itself or be written to the memory of to.
func (m *Model) Gain(norm *graph.Param, to []float32) []float32 {
	if norm == nil {
		return nil
	}
	return norm.Gain(m.Config.Family.PlusOne(), &to)
}

// SetPrecision makes graphs that are built and weights that are packed from now on round factors as p says. A new model's
// is float32.
func (m *Model) SetPrecision(p kernel.Precision) {
	m.precision = p
	m.Changed()
}

// Precision is how the factors of products are rounded.
func (m *Model) Precision() kernel.Precision { return m.precision }

// Version counts the changes of the weights.
func (m *Model) Version() uint64 { return m.version }

// Changed records that the weights are not what they were.
func (m *Model) Changed() { m.version++ }
