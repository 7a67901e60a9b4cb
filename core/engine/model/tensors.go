package model

import (
	"fmt"
	"slices"

	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/weights"
)

// compareShapes compares f with what c asks for, without reading a number.
func compareShapes(c Config, f *weights.File) error {
	for _, s := range specs(c) {
		t, ok := f.Tensor(s.Name)
		if !ok {
			return fmt.Errorf("read the model: the weights have no tensor %s, which config.json asks for", s.Name)
		}
		if !slices.Equal(t.Shape, s.Shape) {
			return fmt.Errorf("read the model: tensor %s has shape %v, config.json asks for %v", s.Name, t.Shape, s.Shape)
		}
	}
	return nil
}

// Fits returns an error naming the first tensor of the model that f lacks or has in another shape.
func (m *Model) Fits(f *weights.File) error { return compareShapes(m.Config, f) }

func (m *Model) read(f *weights.File) error {
	defer m.Changed()
	return readInto(m.params, f)
}

// readInto reads parameters whose names and shapes have been compared.
func readInto(ps *graph.Params, f *weights.File) error {
	for _, p := range ps.All {
		t, _ := f.Tensor(p.Name)
		if _, err := t.Float32s(p.W); err != nil {
			return fmt.Errorf("read the model: %w", err)
		}
	}
	return nil
}

// Tensors returns what is trained, the weights under their Hugging Face names or the adapter under PEFT's, to be stored
// as dtype (float32 or bfloat16). The data are the model's own memory.
func (m *Model) Tensors(dtype weights.DType) []weights.Out {
	var out []weights.Out
	for _, p := range m.Trainable().All {
		out = append(out, weights.Out{Name: p.Name, Shape: p.Shape, DType: dtype, Data: p.W})
	}
	return out
}
