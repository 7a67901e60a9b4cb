package main

import (
	"context"
	"math"

	"github.com/dno-project/dno/sdk"
)

// Loss is REINFORCE with a leave-one-out baseline; the reward of a completion is its win rate. Of
// a group of k completions
//
//	L = −(1/k)·Σ_i A_i·log π(y_i|x) + (β/2)·(1/k)·Σ_i h_i²
//	A_i = r_i − 1/(k−1)·Σ_{j≠i} r_j,  h_i = log π(y_i|x)/π_ref(y_i|x)
//
// A_i is a constant, h_i in nats. The derivative by log π(y_i|x) is (β·h_i − A_i)/k. So the
// completions of a group weigh 1/k each, and the host averages over groups.
//
// Left out are completions without an opponent (their win rate is NaN) and the teacher's, which
// REINFORCE may not learn from: the policy did not draw them. A group with fewer than two others
// has no baseline and counts as 0.
//
// Source: Ahmadian et al. 2024 (arXiv 2402.14740), RLOO.
//
// Differs: there, as in TRL's RLOO trainer, the reward is r_i − β·h_i with h_i held constant, so
// that the penalty has a baseline too. The square has the derivative of that penalty without a
// baseline, and is a loss whose slope can be checked. TRL's trainer also weighs by the ratio to the
// policy that drew the completions, and clips it. This does not, so an iteration's later steps are
// off the policy: keep to one epoch.
type Loss struct {
	Beta float64 // β ≥ 0, win rate per nat
}

// New returns the loss as a plugin.
func New() sdk.Loss { return &Loss{Beta: defaultBeta} }

const defaultBeta = 0.05

// Manifest declares a loss of groups.
func (*Loss) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Kind: sdk.KindLoss, Name: "rloo", Version: "1",
		Help: "policy gradient on win rates with a leave-one-out baseline (RLOO)",
		Settings: []sdk.Setting{{Name: "beta", Type: sdk.TypeNumber, Default: defaultBeta, Min: sdk.AtLeast(0),
			Help: "strength of the pull to the reference, in win rate per nat; 0 is none"}},
		Loss: sdk.LossTraits{Unit: sdk.UnitGroup},
	}
}

// Configure takes the setting "beta".
func (l *Loss) Configure(_ context.Context, s sdk.Settings) error {
	l.Beta = s.Number("beta", defaultBeta)
	return nil
}

// Evaluate returns the groups' losses, each times its weight.
func (l *Loss) Evaluate(_ context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	k, sum := make([]float64, len(b.UnitWeight)), make([]float64, len(b.UnitWeight))
	for i, g := range b.Group {
		if counts(b, i) {
			k[g]++
			sum[g] += b.WinRate[i]
		}
	}
	out := sdk.LossResult{Gradient: make([]float64, len(b.Policy))}
	for i, g := range b.Group {
		if !counts(b, i) || k[g] < 2 {
			continue
		}
		advantage := b.WinRate[i] - (sum[g]-b.WinRate[i])/(k[g]-1)
		h := b.Policy[i] - b.Reference[i]
		w := b.UnitWeight[g] / k[g]
		out.Loss += w * (l.Beta/2*h*h - advantage*b.Policy[i])
		out.Gradient[i] = w * (l.Beta*h - advantage)
	}
	return out, nil
}

func counts(b sdk.LossBatch, i int) bool { return !b.Teacher[i] && !math.IsNaN(b.WinRate[i]) }

var _ sdk.Loss = (*Loss)(nil)
