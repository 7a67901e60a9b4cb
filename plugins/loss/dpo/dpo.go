// Package dpo is the sigmoid contrastive loss of Direct Preference Optimization, with label smoothing.
package dpo

import (
	"github.com/dno-project/dno/plugins/internal/logistic"
	"github.com/dno-project/dno/plugins/internal/settings"
	"github.com/dno-project/dno/sdk"
)

// New returns the loss as a plugin. Its settings bear TRL's names.
func New() sdk.Loss {
	return sdk.Pairwise(sdk.Manifest{
		Name:    "dpo",
		Version: "1",
		Help:    "sigmoid loss of the chosen over the rejected completion (DPO; cDPO with label smoothing)",
		Settings: []sdk.Setting{
			{Name: "beta", Type: sdk.TypeNumber, Default: 0.1, Min: sdk.AtLeast(0),
				Help: "strength of the pull to the reference, per nat; above 0"},
			{Name: "label_smoothing", Type: sdk.TypeNumber, Default: 0.0, Min: sdk.AtLeast(0),
				Help: "probability that a pair is labelled the wrong way round; below 0.5"},
		},
	}, configure)
}

func configure(s sdk.Settings) (sdk.PairFunc, error) {
	beta, err := settings.Positive(s, "beta", 0.1)
	if err != nil {
		return nil, err
	}
	smoothing := s.Number("label_smoothing", 0)
	if !(smoothing >= 0 && smoothing < 0.5) {
		return nil, sdk.Errorf(sdk.CodeUsage,
			"setting \"label_smoothing\": want at least 0 and below 0.5, have %v", smoothing)
	}
	return Loss{Beta: beta, LabelSmoothing: smoothing}.Pair, nil
}

// Loss is the sigmoid contrastive loss
//
//	L = −(1−ε)·log σ(β·h) − ε·log σ(−β·h),  h = log π(y⁺|x)/π_ref(y⁺|x) − log π(y⁻|x)/π_ref(y⁻|x)
//
// h is in nats, summed over the tokens of each completion. With ε = 0 this is DPO, and Eq. 13 of
// DNO when the reference is the policy at the iteration's start; with ε > 0 it is conservative DPO.
// No h overflows it: it grows linearly on the one side and vanishes as e^(−β·h) on the other.
//
// Source: Rafailov et al. 2023 (arXiv 2305.18290), Eq. 7; Rosset et al. 2024 (arXiv 2404.03715), Eq. 13.
//
// Differs: TRL 1.16 has no label smoothing in its sigmoid loss any more; this keeps it.
type Loss struct {
	Beta           float64 // β > 0, per nat
	LabelSmoothing float64 // ε in [0, ½)
}

// Pair returns the loss of one pair and its derivatives by the log-probabilities of the chosen and
// of the rejected completion, which are ±β·(ε·σ(β·h) − (1−ε)·σ(−β·h)).
func (l Loss) Pair(t sdk.PairTerm) (loss, dChosen, dRejected float64) {
	z := l.Beta * (t.Chosen - t.Rejected)
	e := l.LabelSmoothing
	loss = -(1 - e) * logistic.Log(z)
	dz := -(1 - e) * logistic.Sigmoid(-z)
	if e > 0 { // 0·∞ is NaN
		loss -= e * logistic.Log(-z)
		dz += e * logistic.Sigmoid(z)
	}
	return loss, l.Beta * dz, -l.Beta * dz
}
