// Package optim is AdamW, clipping and learning-rate schedules.
package optim

import (
	"errors"
	"fmt"
	"math"

	"github.com/dno-project/dno/core/engine/kernel"
)

// ErrNotFinite is wrapped by [AdamW.Step] if the gradient has a NaN or an infinity: the trainer stops, or calls
// [AdamW.ZeroGrad] and leaves the batch out.
var ErrNotFinite = errors.New("the gradient is not finite")

// Param is one tensor of weights and its gradient, flat and of the same length.
type Param struct {
	Name   string
	W      []float32
	Grad   []float32 // may be nil if Frozen
	Decay  bool      // by convention true for matrices, false for norms and biases
	Frozen bool      // neither changed nor counted in the norm
}

// AdamW is the optimizer Adam with decoupled weight decay and clipping by the global norm. The exported fields may be
// changed between steps. It is not for use by several goroutines.
//
// Source: Loshchilov and Hutter 2017 (arXiv 1711.05101), Algorithm 2.
//
// Differs: the decay of a step is lr·WeightDecay, as in PyTorch; the paper has a schedule times the decay.
type AdamW struct {
	Beta1, Beta2, Eps float64
	WeightDecay       float64 // of parameters with Decay: each step takes lr·WeightDecay of the weight
	Clip              float64 // largest norm of the gradient; 0: do not clip

	params  []Param // without the frozen ones
	m, v    [][]float32
	squares []float64
	step    int
}

// NewAdamW returns the optimizer of params, with PyTorch's settings: betas 0.9 and 0.999, eps 1e-8, weight decay 0.01;
// and without clipping. It keeps the slices, and fails if names are not unique or lengths differ.
func NewAdamW(params []Param) (*AdamW, error) {
	o := &AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01}
	names := map[string]bool{}
	for _, p := range params {
		if names[p.Name] {
			return nil, fmt.Errorf("make an optimizer: two parameters are named %q", p.Name)
		}
		names[p.Name] = true
		if p.Frozen {
			continue
		}
		if len(p.W) != len(p.Grad) {
			return nil, fmt.Errorf("make an optimizer: parameter %q has %d weights and %d gradients", p.Name, len(p.W), len(p.Grad))
		}
		o.params = append(o.params, p)
		o.m = append(o.m, make([]float32, len(p.W)))
		o.v = append(o.v, make([]float32, len(p.W)))
	}
	o.squares = make([]float64, len(o.params))
	return o, nil
}

// Step updates the weights from the gradients, sets these to zero, and returns the gradient's norm before clipping:
//
//	norm = sqrt(Σ g²) over all parameters, in float64;  g *= min(1, Clip/(norm+1e-6))
//	m = β₁m + (1−β₁)g,  v = β₂v + (1−β₂)g²
//	w = w·(1 − lr·WeightDecay) − lr · (m/(1−β₁ᵗ)) / (sqrt(v/(1−β₂ᵗ)) + Eps),  t = 1, 2, …
//
// The sum is in the order of the parameters, whatever the number of threads. If the norm is not finite, the error
// wraps [ErrNotFinite] and nothing has changed, the gradients included. lr must be finite and not negative.
func (o *AdamW) Step(lr float64) (gradNorm float64, err error) {
	if !(lr >= 0) || math.IsInf(lr, 0) {
		return 0, fmt.Errorf("take optimizer step %d: the learning rate is %v; it must be 0 or more", o.step+1, lr)
	}
	kernel.Parallel(len(o.params), func(i int) { o.squares[i] = kernel.SumSquares(o.params[i].Grad) })
	for _, s := range o.squares {
		gradNorm += s
	}
	gradNorm = math.Sqrt(gradNorm)
	if math.IsNaN(gradNorm) || math.IsInf(gradNorm, 0) {
		return gradNorm, fmt.Errorf("take optimizer step %d: %w: its norm is %v, first in parameter %q; lower the learning rate or the clip",
			o.step+1, ErrNotFinite, gradNorm, o.firstNotFinite())
	}
	scale := 1.0
	if o.Clip > 0 {
		scale = min(1, o.Clip/(gradNorm+1e-6))
	}
	o.step++
	bias1, bias2 := 1-math.Pow(o.Beta1, float64(o.step)), 1-math.Pow(o.Beta2, float64(o.step))
	for i, p := range o.params {
		decay := 0.0
		if p.Decay {
			decay = o.WeightDecay
		}
		kernel.AdamW(p.W, p.Grad, o.m[i], o.v[i], lr, o.Beta1, o.Beta2, o.Eps, decay, scale, bias1, bias2)
	}
	return gradNorm, nil
}

func (o *AdamW) firstNotFinite() string {
	for i, s := range o.squares {
		if math.IsNaN(s) || math.IsInf(s, 0) {
			return o.params[i].Name
		}
	}
	return ""
}

// ZeroGrad sets all gradients to zero, as [AdamW.Step] does at its end.
func (o *AdamW) ZeroGrad() {
	for _, p := range o.params {
		clear(p.Grad)
	}
}

// State is what a checkpoint keeps of an optimizer beside the weights.
type State struct {
	Step    int // steps taken
	Moments []Moments
}

// Moments are the running means of one parameter's gradient and of its square.
type Moments struct {
	Name string
	M, V []float32
}

// State returns a copy of the optimizer's state, in the order of the parameters that are not frozen.
func (o *AdamW) State() State {
	s := State{Step: o.step}
	for i, p := range o.params {
		s.Moments = append(s.Moments, Moments{p.Name, append([]float32(nil), o.m[i]...), append([]float32(nil), o.v[i]...)})
	}
	return s
}

// SetState copies s into the optimizer, in any order of the parameters. It fails and changes nothing unless s has
// exactly the parameters that are not frozen, in their lengths.
func (o *AdamW) SetState(s State) error {
	if s.Step < 0 {
		return fmt.Errorf("restore the optimizer: the state says %d steps", s.Step)
	}
	found := map[string]Moments{}
	for _, m := range s.Moments {
		found[m.Name] = m
	}
	if len(s.Moments) != len(o.params) || len(found) != len(o.params) {
		return fmt.Errorf("restore the optimizer: the state is of %d parameters and the model has %d; load the checkpoint into the model that wrote it",
			len(s.Moments), len(o.params))
	}
	for _, p := range o.params {
		m, ok := found[p.Name]
		if !ok || len(m.M) != len(p.W) || len(m.V) != len(p.W) {
			return fmt.Errorf("restore the optimizer: parameter %q has %d weights, and the state has %d and %d moments for it; load the checkpoint into the model that wrote it",
				p.Name, len(p.W), len(m.M), len(m.V))
		}
	}
	for i, p := range o.params {
		copy(o.m[i], found[p.Name].M)
		copy(o.v[i], found[p.Name].V)
	}
	o.step = s.Step
	return nil
}
