package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/engine/optim"
)

// LossFunc computes a loss from the summed log-probability of each sequence [B], in nats, and its
// derivative by each of them [B]. It must not keep or change logps, nor call the engine.
type LossFunc func(logps []float64) (loss float64, gradient []float64, err error)

// TokenLossFunc is a [LossFunc] of the log-probability of each token of each completion, a row a
// sequence; the derivatives have the same shape.
type TokenLossFunc func(logps [][]float64) (loss float64, gradient [][]float64, err error)

// StepResult is what one update reports.
type StepResult struct {
	Loss     float64
	GradNorm float64   // of all gradients together, before clipping
	LogProbs []float64 // of each sequence before the update, nats
	Tokens   int       // of all sequences, prompts included
	Phases   int       // 1, or 2; see [Engine.Step]
}

// OptimizerConfig holds AdamW's settings.
type OptimizerConfig struct {
	Beta1              float64 `json:"beta1"`
	Beta2              float64 `json:"beta2"`
	Eps                float64 `json:"eps"`
	WeightDecay        float64 `json:"weight_decay"`
	Clip               float64 `json:"clip"` // largest norm of the gradient; 0: none
	DecayExcludesNorms bool    `json:"decay_excludes_norms"`
}

func (c OptimizerConfig) validate() error {
	for _, f := range []struct {
		name string
		ok   bool
		v    float64
		want string
	}{
		{"beta1", c.Beta1 >= 0 && c.Beta1 < 1, c.Beta1, "0 or more and below 1"},
		{"beta2", c.Beta2 >= 0 && c.Beta2 < 1, c.Beta2, "0 or more and below 1"},
		{"eps", c.Eps > 0 && c.Eps < 1, c.Eps, "between 0 and 1"},
		{"weight decay", c.WeightDecay >= 0 && c.WeightDecay < 1e6, c.WeightDecay, "0 or more"},
		{"clip", c.Clip >= 0, c.Clip, "0 (none) or more"},
	} {
		if !f.ok {
			return fmt.Errorf("%s is %v, want %s", f.name, f.v, f.want)
		}
	}
	return nil
}

// StartOptimizer forgets the optimizer's state and takes new settings.
func (e *Engine) StartOptimizer(c OptimizerConfig) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, err := e.newSolver(c)
	if err != nil {
		return fmt.Errorf("start the optimizer: %w", err)
	}
	e.solver, e.optimizer = s, c
	return nil
}

func (e *Engine) newSolver(c OptimizerConfig) (*graph.Solver, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if a := e.model.Adapter(); a != nil && a.Dropout != 0 {
		return nil, fmt.Errorf("%w: lora_dropout is %v, and training has no dropout", model.ErrAdapter, a.Dropout)
	}
	s, err := graph.NewSolver(e.model.Trainable(), func(p *graph.Param) bool {
		return !c.DecayExcludesNorms || len(p.Shape) > 1 // the norms are the only vectors
	})
	if err != nil {
		return nil, err
	}
	s.AdamW.Beta1, s.AdamW.Beta2, s.AdamW.Eps, s.AdamW.WeightDecay, s.AdamW.Clip = c.Beta1, c.Beta2, c.Eps, c.WeightDecay, c.Clip
	return s, nil
}

// Step makes one AdamW update of every parameter that is not frozen: it computes the log-probability
// of each sequence, calls loss exactly once with all of them, and follows d loss/d weights.
//
// Where all sequences fit the memory for activations, the step is one pass, forward and backward.
// Where they do not, it has two phases, at 4/3 of the time: all are scored, the loss is called, and
// then each part of the batch goes forward and backward with the derivatives that the loss gave.
// Both phases see the same log-probabilities, to the bit.
//
// Errors: [ErrNotFinite] for a log-probability, loss or gradient that is not finite; the loss's own
// error (wrapped); those of [Engine.LogProbs]. After any error the weights and the optimizer's state
// are as they were.
func (e *Engine) Step(ctx context.Context, seqs []Sequence, lr float64, loss LossFunc) (StepResult, error) {
	return e.stepOf(ctx, seqs, lr, anyLoss{sequences: loss})
}

// StepTokens is [Engine.Step] for a loss of each token's log-probability.
func (e *Engine) StepTokens(ctx context.Context, seqs []Sequence, lr float64, loss TokenLossFunc) (StepResult, error) {
	return e.stepOf(ctx, seqs, lr, anyLoss{tokens: loss})
}

func (e *Engine) stepOf(ctx context.Context, seqs []Sequence, lr float64, loss anyLoss) (StepResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	result, err := e.step(ctx, seqs, lr, loss)
	if err != nil {
		e.model.Trainable().ZeroGrad()
		return StepResult{}, fmt.Errorf("train a step: %w", err)
	}
	return result, nil
}

func (e *Engine) step(ctx context.Context, seqs []Sequence, lr float64, loss anyLoss) (StepResult, error) {
	if e.solver == nil {
		return StepResult{}, errors.New("the optimizer has not been started")
	}
	if !(lr >= 0) || math.IsInf(lr, 0) {
		return StepResult{}, fmt.Errorf("the learning rate is %v, want a finite number that is not negative", lr)
	}
	if len(seqs) == 0 {
		return StepResult{}, errors.New("there are no sequences")
	}
	if err := check(e.model.Config, seqs); err != nil {
		return StepResult{}, err
	}
	if e.train == nil {
		g, err := e.model.Train()
		if err != nil {
			return StepResult{}, err
		}
		e.train = g
	}
	var result StepResult
	for _, s := range seqs {
		result.Tokens += len(s.Prompt) + len(s.Completion)
	}
	var err error
	order := arrange(seqs)
	if parts := split(seqs, order, e.trainRows); len(parts) == 1 {
		result.Phases = 1
		err = e.onePass(ctx, seqs, order, loss, &result)
	} else {
		result.Phases = 2
		err = e.twoPhases(ctx, seqs, order, parts, loss, &result)
	}
	if err != nil {
		return StepResult{}, err
	}
	if result.GradNorm, err = e.solver.Update(lr); errors.Is(err, optim.ErrNotFinite) {
		return StepResult{}, fmt.Errorf("%w: %w", ErrNotFinite, err)
	} else if err != nil {
		return StepResult{}, err
	}
	e.model.Changed()
	return result, nil
}

// onePass goes forward, calls the loss in the middle of the graph, and goes backward.
func (e *Engine) onePass(ctx context.Context, seqs []Sequence, order []int, loss anyLoss, r *StepResult) error {
	pack(&e.batch, seqs, order)
	_, err := e.train.RunTokens(ctx, &e.batch, func(tokens []float64) (float64, []float64, error) {
		grad, err := e.evaluate(loss, seqs, order, tokens, r)
		return r.Loss, grad, err
	})
	return err
}

// twoPhases scores everything before it calls the loss, and injects the derivatives afterwards.
func (e *Engine) twoPhases(ctx context.Context, seqs []Sequence, order []int, parts [][]int, loss anyLoss, r *StepResult) error {
	var tokens []float64
	if err := e.eachScored(ctx, seqs, order, func([]int) { tokens = append(tokens, e.score.TokenLogProbs()...) }); err != nil {
		return err
	}
	grad, err := e.evaluate(loss, seqs, order, tokens, r)
	if err != nil {
		return err
	}
	for _, run := range parts {
		pack(&e.batch, seqs, run)
		part := grad[:len(e.batch.Targets)]
		grad = grad[len(part):]
		_, err := e.train.RunTokens(ctx, &e.batch, func([]float64) (float64, []float64, error) { return r.Loss, part, nil })
		if err != nil {
			return err
		}
	}
	return nil
}

// anyLoss is a loss of one of the two kinds.
type anyLoss struct {
	sequences LossFunc
	tokens    TokenLossFunc
}

// evaluate calls the loss with the log-probabilities of the tokens or of their sums, a row a sequence, and returns the
// derivatives of the tokens one after another; tokens and derivatives are in the batch's order. It refuses numbers that
// would destroy the weights. The derivatives are good until the next call.
func (e *Engine) evaluate(loss anyLoss, seqs []Sequence, order []int, tokens []float64, r *StepResult) ([]float64, error) {
	rows := make([][]float64, len(seqs))
	r.LogProbs = make([]float64, len(seqs))
	for _, s := range order {
		n := len(seqs[s].Completion)
		rows[s], tokens = tokens[:n:n], tokens[n:]
		for _, x := range rows[s] { // in the graph's own order
			r.LogProbs[s] += x
		}
	}
	if i := notFinite(r.LogProbs); i >= 0 {
		return nil, fmt.Errorf("the log-probability of sequence %d is %v: %w", i, r.LogProbs[i], ErrNotFinite)
	}
	e.derivatives = e.derivatives[:0]
	if loss.tokens != nil {
		return e.evaluateTokens(loss.tokens, order, rows, r)
	}
	value, grad, err := loss.sequences(slices.Clone(r.LogProbs))
	if err != nil {
		return nil, err
	}
	if len(grad) != len(rows) {
		return nil, fmt.Errorf("the loss returned %d derivatives for %d sequences", len(grad), len(rows))
	}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return nil, fmt.Errorf("the loss is %v: %w", value, ErrNotFinite)
	}
	if i := notFinite(grad); i >= 0 {
		return nil, fmt.Errorf("the derivative of the loss by sequence %d is %v: %w", i, grad[i], ErrNotFinite)
	}
	for _, s := range order {
		for range rows[s] {
			e.derivatives = append(e.derivatives, grad[s])
		}
	}
	r.Loss = value
	return e.derivatives, nil
}

func (e *Engine) evaluateTokens(loss TokenLossFunc, order []int, rows [][]float64, r *StepResult) ([]float64, error) {
	value, grads, err := loss(rows)
	if err != nil {
		return nil, err
	}
	if len(grads) != len(rows) {
		return nil, fmt.Errorf("the loss returned derivatives for %d sequences of %d", len(grads), len(rows))
	}
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return nil, fmt.Errorf("the loss is %v: %w", value, ErrNotFinite)
	}
	for s, grad := range grads {
		if len(grad) != len(rows[s]) {
			return nil, fmt.Errorf("the loss returned %d derivatives for the %d tokens of sequence %d", len(grad), len(rows[s]), s)
		}
		if i := notFinite(grad); i >= 0 {
			return nil, fmt.Errorf("the derivative of the loss by sequence %d is %v: %w", s, grad[i], ErrNotFinite)
		}
	}
	for _, s := range order {
		e.derivatives = append(e.derivatives, grads[s]...)
	}
	r.Loss = value
	return e.derivatives, nil
}

// SFTLoss returns the supervised loss of sequences whose completions have the given numbers of
// tokens,
//
//	L = −Σ_s logp[s] / Σ_s tokens[s]
//
// in nats per completion token.
func SFTLoss(tokens []int) LossFunc {
	total := 0
	for _, n := range tokens {
		total += n
	}
	return func(logps []float64) (float64, []float64, error) {
		if len(logps) != len(tokens) || total == 0 {
			return 0, nil, fmt.Errorf("supervised loss: %d sequences, but the lengths of %d with %d tokens in all", len(logps), len(tokens), total)
		}
		loss, grad := 0.0, make([]float64, len(logps))
		for s, lp := range logps {
			loss -= lp
			grad[s] = -1 / float64(total)
		}
		return loss / float64(total), grad, nil
	}
}
