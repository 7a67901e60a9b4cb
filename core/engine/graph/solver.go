package graph

import (
	"fmt"

	"github.com/dno-project/dno/core/engine/optim"
	"gorgonia.org/gorgonia"
)

// Solver is Gorgonia's Solver interface over AdamW: all parameters of a model are stepped at once,
// since they are clipped by one norm.
type Solver struct {
	AdamW *optim.AdamW // its settings and state

	params []gorgonia.ValueGrad
	lr     float64
	norm   float64
}

// NewSolver returns a solver with fresh state. decays says which parameters are decayed.
func NewSolver(ps *Params, decays func(*Param) bool) (*Solver, error) {
	ps.ensureGrads()
	s := &Solver{}
	var list []optim.Param
	for _, p := range ps.All {
		s.params = append(s.params, valueGrad{p})
		list = append(list, optim.Param{Name: p.Name, W: p.W, Grad: p.Grad, Decay: decays(p), Frozen: p.Frozen})
	}
	var err error
	s.AdamW, err = optim.NewAdamW(list)
	return s, err
}

// Update makes one step of the solver's parameters and clears their gradients; see [optim.AdamW.Step].
func (s *Solver) Update(lr float64) (gradNorm float64, err error) {
	s.lr = lr
	err = s.Step(s.params)
	return s.norm, err
}

// Step implements gorgonia.Solver for the parameters that the solver was made with.
func (s *Solver) Step(model []gorgonia.ValueGrad) (err error) {
	if len(model) != len(s.params) {
		return fmt.Errorf("take a solver's step: %d parameters, the solver was made with %d", len(model), len(s.params))
	}
	for i, p := range model {
		if p != s.params[i] {
			return fmt.Errorf("take a solver's step: parameter %d is not the one that the solver was made with", i)
		}
	}
	s.norm, err = s.AdamW.Step(s.lr)
	return err
}

// valueGrad is a Param as Gorgonia's solvers take it.
type valueGrad struct{ *Param }

// Grad returns the gradient.
func (p valueGrad) Grad() (gorgonia.Value, error) { return p.grad, nil }

var (
	_ gorgonia.Solver    = (*Solver)(nil)
	_ gorgonia.ValueGrad = valueGrad{}
)
