package main

import (
	"context"
	"math"

	"github.com/dno-project/dno/sdk"
)

// Loss is the prospect-theoretic loss of each completion by itself. Of one pair
//
//	L = w_d·(1 − σ(β·(w − kl))) + w_u·(1 − σ(β·(kl − l))),  w, l = log π/π_ref of the chosen, of the rejected
//	kl = max(0, mean over the batch's completions i of log π(y'_i|x_i)/π_ref(y'_i|x_i))
//
// All are in nats. y'_i is a completion to another prompt of the batch: the mean estimates how far
// the policy is from its reference, the point from which gains and losses count. kl is a constant
// of the batch, the same for all pairs, and nothing is trained through it. A batch of one prompt has
// no mismatched completions: kl is 0.
//
// The derivatives are −w_d·β·σ(z)·σ(−z) with z = β·(w − kl), and w_u·β·σ(z)·σ(−z) with
// z = β·(kl − l): they vanish on both sides, so hopeless completions are let go.
//
// Source: Ethayarajh et al. 2024 (arXiv 2402.01306), KTO. Checked against TRL's KTOTrainer.
//
// Differs: KTO needs no pairs; here the chosen completion of each pair is desirable and the
// rejected one undesirable. TRL averages over completions, which is half of this mean over pairs.
type Loss struct {
	Beta                   float64 // β > 0, per nat
	Desirable, Undesirable float64 // w_d, w_u ≥ 0
}

// New returns the loss as a plugin. Its settings have TRL's names.
func New() sdk.Loss { return &Loss{defaultBeta, 1, 1} }

const defaultBeta = 0.1

// Manifest declares a loss that needs mismatched pairs.
func (*Loss) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Kind: sdk.KindLoss, Name: "kto", Version: "1",
		Help: "gains and losses of each completion, from the batch's distance to the reference (KTO)",
		Settings: []sdk.Setting{
			{Name: "beta", Type: sdk.TypeNumber, Default: defaultBeta, Min: sdk.AtLeast(1e-6),
				Help: "strength of the pull to the reference, per nat"},
			{Name: "desirable_weight", Type: sdk.TypeNumber, Default: 1.0, Min: sdk.AtLeast(0),
				Help: "what a chosen completion counts"},
			{Name: "undesirable_weight", Type: sdk.TypeNumber, Default: 1.0, Min: sdk.AtLeast(0),
				Help: "what a rejected completion counts"},
		},
		Loss: sdk.LossTraits{Unit: sdk.UnitPair, Mismatched: true},
	}
}

// Configure takes the settings.
func (l *Loss) Configure(_ context.Context, s sdk.Settings) error {
	l.Beta = s.Number("beta", defaultBeta)
	l.Desirable, l.Undesirable = s.Number("desirable_weight", 1), s.Number("undesirable_weight", 1)
	return nil
}

// Evaluate returns the pairs' losses, each times its weight.
func (l *Loss) Evaluate(_ context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	kl := 0.0
	for i, p := range b.MismatchedPolicy {
		kl += (p - b.MismatchedReference[i]) / float64(len(b.MismatchedPolicy))
	}
	kl = math.Max(0, kl)
	out := sdk.LossResult{Gradient: make([]float64, len(b.Policy)), Metrics: map[string]float64{"kl": kl}}
	for k, w := range b.Weight {
		i, j := b.Chosen[k], b.Rejected[k]
		chosen := l.Beta * (b.Policy[i] - b.Reference[i] - kl)
		rejected := l.Beta * (kl - (b.Policy[j] - b.Reference[j]))
		out.Loss += w * (l.Desirable*sigmoid(-chosen) + l.Undesirable*sigmoid(-rejected)) // 1 − σ(z) is σ(−z)
		out.Gradient[i] -= w * l.Desirable * l.Beta * sigmoid(chosen) * sigmoid(-chosen)
		out.Gradient[j] += w * l.Undesirable * l.Beta * sigmoid(rejected) * sigmoid(-rejected)
	}
	return out, nil
}

// sigmoid is σ(x), with all its digits far below 0.
func sigmoid(x float64) float64 {
	if x < 0 {
		e := math.Exp(x)
		return e / (1 + e)
	}
	return 1 / (1 + math.Exp(-x))
}

var _ sdk.Loss = (*Loss)(nil)
