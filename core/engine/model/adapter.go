package model

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/weights"
)

// LoRA is the shape of a low-rank adapter, in PEFT's terms (its keys stand behind each field). The matrices that it
// targets act as
//
//	W + s·B·A,  s = Alpha/Rank, or Alpha/√Rank if RankStabilized
//
// with A Rank×in and B out×Rank.
//
// Source: Hu et al. 2021 (arXiv 2106.09685), Section 4.1; Kalajdzievski 2023 (arXiv 2312.03732) for √Rank. Checked
// against: peft 0.21.
type LoRA struct {
	Rank           int      // r, from 1
	Alpha          float64  // lora_alpha, 1e-9 to 1e9
	RankStabilized bool     // use_rslora
	Targets        []string // target_modules, sorted: names of [LinearLayers]
	Dropout        float64  // lora_dropout that others trained it with; dno trains none but 0
	Base           string   // base_model_name_or_path
}

// linearLayers are the decoder's linear layers by the names that Hugging Face gives them; each may be a target.
var linearLayers = []string{"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}

// LinearLayers returns the names that may be targets.
func LinearLayers() []string { return slices.Clone(linearLayers) }

// AllLinear as the only target means every linear layer of the decoder, as in PEFT: not the head, nor the embedding.
const AllLinear = "all-linear"

// maxRank bounds what an adapter_config.json may ask for.
const maxRank = 1 << 13

// ErrAdapter says that an adapter is none that this engine builds, or that it does not fit the model.
var ErrAdapter = errors.New("adapter not supported")

// Scale is s.
func (c LoRA) Scale() float32 {
	if c.RankStabilized {
		return float32(c.Alpha / math.Sqrt(float64(c.Rank)))
	}
	return float32(c.Alpha / float64(c.Rank))
}

// Same reports whether two adapters have the same tensors and the same mathematics, whatever they are said to belong to.
func (c LoRA) Same(other LoRA) bool {
	return c.Rank == other.Rank && c.Alpha == other.Alpha && c.RankStabilized == other.RankStabilized && slices.Equal(c.Targets, other.Targets)
}

// normal returns c with its targets written out, sorted, each once.
//
// Errors: [ErrAdapter], naming the key that is out of range.
func (c LoRA) normal() (LoRA, error) {
	switch {
	case c.Rank < 1 || c.Rank > maxRank:
		return c, fmt.Errorf("%w: r is %d, want 1 to %d", ErrAdapter, c.Rank, maxRank)
	case !(c.Alpha >= 1e-9 && c.Alpha <= 1e9):
		return c, fmt.Errorf("%w: lora_alpha is %v, want 1e-9 to 1e9", ErrAdapter, c.Alpha)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return c, fmt.Errorf("%w: lora_dropout is %v, want from 0 and below 1", ErrAdapter, c.Dropout)
	case len(c.Targets) == 0:
		return c, fmt.Errorf("%w: target_modules names no layer", ErrAdapter)
	}
	if slices.Equal(c.Targets, []string{AllLinear}) {
		c.Targets = linearLayers
	}
	c.Targets = slices.Clone(c.Targets)
	slices.Sort(c.Targets)
	c.Targets = slices.Compact(c.Targets)
	for _, name := range c.Targets {
		if !slices.Contains(linearLayers, name) {
			return c, fmt.Errorf("%w: target_modules names %q, want %q or any of %s", ErrAdapter, name, AllLinear, strings.Join(linearLayers, ", "))
		}
	}
	return c, nil
}

// adapterPrefix stands before the name of a module in PEFT's files.
const adapterPrefix = "base_model.model."

// target is a matrix that has an adapter, and what the adapter's tensors are.
type target struct {
	w    *graph.Param
	a, b graph.Spec
}

// targets returns the matrices that c means, in the model's order.
//
// Errors: [ErrAdapter] for a target that the model does not have.
func (m *Model) targets(c LoRA) ([]target, error) {
	var out []target
	for _, name := range c.Targets {
		if !slices.ContainsFunc(m.params.All, func(p *graph.Param) bool { return isLayer(p, name) }) {
			return nil, fmt.Errorf("%w: target_modules names %s, which the model does not have", ErrAdapter, name)
		}
	}
	for _, p := range m.params.All {
		if !slices.ContainsFunc(c.Targets, func(name string) bool { return isLayer(p, name) }) {
			continue
		}
		outs, in := p.Shape[0], p.Shape[1]
		module := adapterPrefix + strings.TrimSuffix(p.Name, ".weight")
		out = append(out, target{p, graph.Spec{Name: module + ".lora_A.weight", Shape: []int{c.Rank, in}},
			graph.Spec{Name: module + ".lora_B.weight", Shape: []int{outs, c.Rank}}})
	}
	return out, nil
}

// isLayer reports whether p is the matrix of a decoder's linear layer of that name.
func isLayer(p *graph.Param, name string) bool {
	return len(p.Shape) == 2 && strings.HasPrefix(p.Name, "model.layers.") && strings.HasSuffix(p.Name, "."+name+".weight")
}

// AddAdapter freezes the weights and adds a fresh adapter to them, which changes nothing yet: A is drawn from seed,
// uniform in ±1/√in, which is PEFT's kaiming_uniform_(a=√5), and B is 0.
//
// Errors: [ErrAdapter]. The model is then as it was.
func (m *Model) AddAdapter(c LoRA, seed uint64) error {
	if err := m.attach(c); err != nil {
		return fmt.Errorf("add an adapter: %w", err)
	}
	rng := rand.New(rand.NewPCG(seed, 0x6c6f7261)) // the stream's name, "lora"
	for i, p := range m.adapters.All {
		if i%2 > 0 {
			continue // B
		}
		bound := 1 / math.Sqrt(float64(p.Shape[1]))
		for j := range p.W {
			p.W[j] = float32((2*rng.Float64() - 1) * bound)
		}
	}
	return nil
}

// ReadAdapter freezes the weights and adds to them the adapter whose tensors stand in f under PEFT's names.
//
// Errors: [ErrAdapter]; one naming a tensor that is missing, of another shape, or that an adapter of this kind does not
// have. The model is then as it was.
func (m *Model) ReadAdapter(c LoRA, f *weights.File) error {
	c, err := c.normal()
	if err != nil {
		return fmt.Errorf("read the adapter: %w", err)
	}
	targets, err := m.targets(c)
	if err != nil {
		return fmt.Errorf("read the adapter: %w", err)
	}
	if err := fitsAdapter(targets, f); err != nil {
		return err
	}
	if err := m.attach(c); err != nil {
		return fmt.Errorf("read the adapter: %w", err)
	}
	if err := m.readAdapter(f); err != nil {
		m.detach()
		return err
	}
	return nil
}

// attach makes an adapter of zeros.
func (m *Model) attach(c LoRA) error {
	if m.adapters != nil {
		return errors.New("the model has an adapter already")
	}
	c, err := c.normal()
	if err != nil {
		return err
	}
	targets, err := m.targets(c)
	if err != nil {
		return err
	}
	var specs []graph.Spec
	for _, t := range targets {
		specs = append(specs, t.a, t.b)
	}
	if m.adapters, err = graph.NewParams(specs); err != nil {
		return err
	}
	m.params.Freeze()
	for i, t := range targets {
		t.w.Adapter = &graph.Adapter{A: m.adapters.All[2*i], B: m.adapters.All[2*i+1], Scale: c.Scale()}
	}
	m.lora = &c
	m.Changed()
	return nil
}

// detach takes the adapter away; the weights can be trained again.
func (m *Model) detach() {
	for _, p := range m.params.All {
		p.Adapter = nil
	}
	m.adapters, m.lora = nil, nil
	m.params.Thaw()
	m.Changed()
}

// fitsAdapter returns an error naming the first tensor that f lacks, has in another shape, or has too many.
func fitsAdapter(targets []target, f *weights.File) error {
	known := map[string]bool{}
	for _, t := range targets {
		for _, s := range []graph.Spec{t.a, t.b} {
			known[s.Name] = true
			got, ok := f.Tensor(s.Name)
			if !ok {
				return fmt.Errorf("read the adapter: there is no tensor %s, which adapter_config.json asks for", s.Name)
			}
			if !slices.Equal(got.Shape, s.Shape) {
				return fmt.Errorf("read the adapter: tensor %s has shape %v, adapter_config.json asks for %v", s.Name, got.Shape, s.Shape)
			}
		}
	}
	for _, name := range f.Names() {
		if !known[name] {
			return fmt.Errorf("read the adapter: %w: tensor %q belongs to no layer that adapter_config.json names", ErrAdapter, name)
		}
	}
	return nil
}

// FitsAdapter returns an error naming the first tensor of the model's adapter that f lacks or has in another shape.
func (m *Model) FitsAdapter(f *weights.File) error {
	targets, err := m.targets(*m.lora)
	if err != nil {
		return err
	}
	return fitsAdapter(targets, f)
}

// ReplaceAdapter replaces the values of the adapter by those in f; where [Model.FitsAdapter] fails, none has changed.
func (m *Model) ReplaceAdapter(f *weights.File) error {
	if err := m.FitsAdapter(f); err != nil {
		return err
	}
	return m.readAdapter(f)
}

func (m *Model) readAdapter(f *weights.File) error {
	defer m.Changed()
	return readInto(m.adapters, f)
}

// Adapter returns what adapter the model has; nil: none, and its own weights are trained.
func (m *Model) Adapter() *LoRA { return m.lora }

// Trainable returns the parameters that are trained: those of the adapter where there is one, else all.
func (m *Model) Trainable() *graph.Params {
	if m.adapters != nil {
		return m.adapters
	}
	return m.params
}

// Merge adds the adapter to the weights, W += s·B·A in float32, and takes it away. What the model computes stays the
// same up to rounding.
//
// Errors: the weights are held packed.
func (m *Model) Merge() error {
	if m.held {
		return errors.New("merge the adapter: the weights are held rounded; read the model anew, without that")
	}
	for _, p := range m.params.All {
		if a := p.Adapter; a != nil {
			r := a.B.Shape[1]
			b := slices.Clone(a.B.W)
			kernel.Scale(a.Scale, b)
			kernel.Gemm(false, false, p.Shape[0], p.Shape[1], r, b, r, a.A.W, p.Shape[1], p.W, p.Shape[1], true)
		}
	}
	m.detach()
	return nil
}

// Hold gives up the float32 values of every frozen matrix, the embedding's and the head's too, for what pack makes of
// them: training and sampling then share that one copy. Norms stay float32.
//
// Errors: there is no adapter, so that the weights are still to be trained.
func (m *Model) Hold(pack func(to *kernel.Packed, b []float32, N, K, ldb int)) error {
	switch {
	case m.lora == nil:
		return errors.New("hold the weights rounded: they are trained; add an adapter first")
	case m.held:
		return errors.New("hold the weights rounded: they are already")
	}
	m.params.Hold(pack)
	m.held = true
	m.Changed()
	return nil
}
