// Package dno is the regression loss of Direct Nash Optimization: cross-entropy against soft win-rate labels.
package dno

import (
	"github.com/dno-project/dno/plugins/internal/logistic"
	"github.com/dno-project/dno/plugins/internal/settings"
	"github.com/dno-project/dno/sdk"
)

// New returns the loss as a plugin. The sharpness c of its labels is no setting of its own: the
// host computes the labels.
func New() sdk.Loss {
	return sdk.Pairwise(sdk.Manifest{
		Name:    "dno",
		Version: "1",
		Help:    "cross-entropy against the soft label that the win rates give (DNO, Eq. 8)",
		Loss:    sdk.LossTraits{SoftTarget: true},
		Settings: []sdk.Setting{
			{Name: "beta", Type: sdk.TypeNumber, Default: 1.0, Min: sdk.AtLeast(0),
				Help: "strength of the pull to the reference, per nat; above 0"},
		},
	}, configure)
}

func configure(s sdk.Settings) (sdk.PairFunc, error) {
	beta, err := settings.Positive(s, "beta", 1)
	if err != nil {
		return nil, err
	}
	return Loss{Beta: beta}.Pair, nil
}

// Loss is the regression of log-ratios onto win rates
//
//	L = −p·log σ(z) − (1−p)·log σ(−z),  z = β·(log π(y₁|x)/π_t(y₁|x) − log π(y₂|x)/π_t(y₂|x))
//
// where p = σ(c·(r₁ − r₂)) in [0, 1] is the pair's target, r the expected win rates against the
// policy's own completions, and c the host's sharpness. It is least at β·h = c·(r₁ − r₂): unlike
// the sigmoid loss, which it is for p = 1, it does not push a pair apart for ever.
// Its least value is the target's entropy, not 0.
//
// Source: Rosset et al. 2024 (arXiv 2404.03715), Eq. 8.
//
// Differs: the paper's η is β here, and c is 1 there; scaling both leaves the optimum where it was.
type Loss struct {
	Beta float64 // β > 0, per nat
}

// Pair returns the loss of one pair and its derivatives by the log-probabilities of the chosen and
// of the rejected completion, which are ±β·(σ(z) − p).
func (l Loss) Pair(t sdk.PairTerm) (loss, dChosen, dRejected float64) {
	z, p := l.Beta*(t.Chosen-t.Rejected), t.Target
	// Each side by itself: where p = 1, nothing is lost of σ(−z) as it would be in σ(z) − 1.
	var dz float64
	if p != 0 { // 0·∞ is NaN
		loss -= p * logistic.Log(z)
		dz -= p * logistic.Sigmoid(-z)
	}
	if p != 1 {
		loss -= (1 - p) * logistic.Log(-z)
		dz += (1 - p) * logistic.Sigmoid(z)
	}
	return loss, l.Beta * dz, -l.Beta * dz
}
