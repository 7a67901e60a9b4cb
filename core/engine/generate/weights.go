package generate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dno-project/dno/core/engine/kernel"
)

// Weights says how a generator holds the matrices that tokens are drawn with. What it is faster with is another policy
// than the model: see [Result].
type Weights string

const (
	SameWeights     Weights = "same"     // as the model's precision says: the policy itself
	Float32Weights  Weights = "float32"  //
	BFloat16Weights Weights = "bfloat16" // half of float32's memory where the CPU has instructions for it
	Q8Weights       Weights = "q8_0"     // a little more than a quarter of it, as [kernel.PackQ8]; the embedding stays as it is
)

var allWeights = []Weights{SameWeights, Float32Weights, BFloat16Weights, Q8Weights}

// WeightNames are the names that [ParseWeights] knows.
func WeightNames() (names []string) {
	for _, w := range allWeights {
		names = append(names, string(w))
	}
	return names
}

// ParseWeights returns the weights of a name.
func ParseWeights(name string) (Weights, error) {
	if w := Weights(name); slices.Contains(allWeights, w) {
		return w, nil
	}
	return "", fmt.Errorf("the weights are %q: want one of %s", name, strings.Join(WeightNames(), ", "))
}

// precision is that of the products, if they are not of int8.
func (w Weights) precision(model kernel.Precision) kernel.Precision {
	switch w {
	case Float32Weights:
		return kernel.Float32
	case BFloat16Weights:
		return kernel.BFloat16
	}
	return model
}

// Own reports whether a model of a precision draws the same bytes by itself.
func (w Weights) Own(model kernel.Precision) bool {
	return w != Q8Weights && w.precision(model) == model
}

// pack is the function that packs a matrix of a model of that precision.
func (w Weights) pack(model kernel.Precision) func(to *kernel.Packed, b []float32, N, K, ldb int) {
	if w == Q8Weights {
		return kernel.PackQ8
	}
	return w.precision(model).Pack
}
