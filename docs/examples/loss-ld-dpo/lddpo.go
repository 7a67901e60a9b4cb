package main

import (
	"context"
	"math"

	"github.com/dno-project/dno/sdk"
)

// Loss is DPO with the length of the longer completion damped
//
//	L = −log σ(β·(s(y⁺) − s(y⁻))),  s(y) = Σ_{t≤n} d_t + α·Σ_{t>n} d_t,  d_t = log π(y_t|x,y_{<t})/π_ref(y_t|x,y_{<t})
//
// n is the length of the pair's shorter completion, in tokens, so the shorter one counts whole. d_t is
// in nats. With α = 1 this is DPO, to the bit where the sums over tokens are; with α = 0 the tokens
// beyond n count nothing. The same completion may be the longer one of one pair and the shorter one
// of another: each of its tokens gets the sum over pairs.
//
// The derivative by log π(y_t) is ∓β·σ(−β·(s(y⁺) − s(y⁻))), times α beyond n.
//
// Source: Liu et al. 2024 (arXiv 2409.06411), LD-DPO.
//
// Differs: versions of TRL (the setting ld_alpha) weigh the policy's tokens and not the
// reference's. Here both are weighed, so that the margin is 0 while the policy is its reference.
type Loss struct {
	Beta  float64 // β > 0, per nat
	Alpha float64 // α in [0, 1]
}

// New returns the loss as a plugin. The setting "ld_alpha" has TRL's name.
func New() sdk.Loss { return &Loss{Beta: defaultBeta, Alpha: defaultAlpha} }

const defaultBeta, defaultAlpha = 0.1, 0.5

// Manifest declares a loss that sees each token.
func (*Loss) Manifest() sdk.Manifest {
	zero, one := sdk.Between(0, 1)
	return sdk.Manifest{
		Kind: sdk.KindLoss, Name: "ld-dpo", Version: "1",
		Help: "sigmoid loss in which tokens beyond the pair's shared length count less (LD-DPO)",
		Settings: []sdk.Setting{
			{Name: "beta", Type: sdk.TypeNumber, Default: defaultBeta, Min: sdk.AtLeast(1e-6),
				Help: "strength of the pull to the reference, per nat"},
			{Name: "ld_alpha", Type: sdk.TypeNumber, Default: defaultAlpha, Min: zero, Max: one,
				Help: "what a token beyond the shared length counts; 1 is DPO"},
		},
		Loss: sdk.LossTraits{Unit: sdk.UnitPair, TokenLevel: true},
	}
}

// Configure takes the settings.
func (l *Loss) Configure(_ context.Context, s sdk.Settings) error {
	l.Beta, l.Alpha = s.Number("beta", defaultBeta), s.Number("ld_alpha", defaultAlpha)
	return nil
}

// Evaluate returns the pairs' losses, each times its weight, and a derivative for each token.
func (l *Loss) Evaluate(_ context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	out := sdk.LossResult{TokenGradients: make([][]float64, len(b.Tokens))}
	for i, n := range b.Tokens {
		out.TokenGradients[i] = make([]float64, n)
	}
	for k, w := range b.Weight {
		i, j := b.Chosen[k], b.Rejected[k]
		n := int(min(b.Tokens[i], b.Tokens[j]))
		ratio := func(i int32) float64 { return l.sum(b.PolicyTokens[i], n) - l.sum(b.ReferenceTokens[i], n) }
		z := l.Beta * (ratio(i) - ratio(j))
		slope := w * (l.Beta * -sigmoid(-z)) // in DPO's order, for its last bit
		out.Loss -= w * logSigmoid(z)
		l.add(out.TokenGradients[i], n, slope)
		l.add(out.TokenGradients[j], n, -slope)
	}
	return out, nil
}

// sum adds a row up, what stands beyond n times α.
func (l *Loss) sum(row []float64, n int) (sum float64) {
	for t, x := range row {
		sum += l.weight(t, n) * x
	}
	return sum
}

// add adds a completion's derivative to its tokens'.
func (l *Loss) add(row []float64, n int, slope float64) {
	for t := range row {
		row[t] += l.weight(t, n) * slope
	}
}

func (l *Loss) weight(t, n int) float64 {
	if t < n {
		return 1
	}
	return l.Alpha
}

// sigmoid is σ(x), with all its digits far below 0.
func sigmoid(x float64) float64 {
	if x < 0 {
		e := math.Exp(x)
		return e / (1 + e)
	}
	return 1 / (1 + math.Exp(-x))
}

// logSigmoid is log σ(x), which neither overflows nor vanishes early.
func logSigmoid(x float64) float64 { return math.Min(x, 0) - math.Log1p(math.Exp(-math.Abs(x))) }

var _ sdk.Loss = (*Loss)(nil)
