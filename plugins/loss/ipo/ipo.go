// Package ipo is the squared contrastive loss of Identity Preference Optimization.
package ipo

import (
	"github.com/dno-project/dno/plugins/internal/settings"
	"github.com/dno-project/dno/sdk"
)

// New returns the loss as a plugin. The paper's τ is set by the name that TRL gave it, beta.
func New() sdk.Loss {
	return sdk.Pairwise(sdk.Manifest{
		Name:    "ipo",
		Version: "1",
		Help:    "squared distance of the log-ratio margin from 1/(2·beta) (IPO)",
		Settings: []sdk.Setting{
			{Name: "beta", Type: sdk.TypeNumber, Default: 0.1, Min: sdk.AtLeast(0),
				Help: "the paper's τ: the margin aimed at is 1/(2·beta), in nats (per token if averaged); above 0"},
			{Name: "average", Type: sdk.TypeBool, Default: true,
				Help: "divide each log-ratio by its completion's tokens, as TRL does; false sums, as OpenRLHF does"},
		},
	}, configure)
}

func configure(s sdk.Settings) (sdk.PairFunc, error) {
	tau, err := settings.Positive(s, "beta", 0.1)
	if err != nil {
		return nil, err
	}
	return Loss{Tau: tau, Average: s.Bool("average", true)}.Pair, nil
}

// Loss is the squared contrastive loss
//
//	L = (h − 1/(2τ))²,  h = (1/|y⁺|)·log π(y⁺|x)/π_ref(y⁺|x) − (1/|y⁻|)·log π(y⁻|x)/π_ref(y⁻|x)
//
// with both lengths 1 unless averaged. h is in nats per token, or in nats. Where the sigmoid loss
// keeps pushing a pair apart for ever, this one stops at the margin 1/(2τ).
//
// Source: Azar et al. 2023 (arXiv 2310.12036), Eq. 17.
//
// Differs: the paper's h has no division by the completion's length. TRL divides (and says that
// the authors confirmed it), OpenRLHF does not; Average chooses.
type Loss struct {
	Tau     float64 // τ > 0, the setting "beta"
	Average bool    // divide by |y⁺| and |y⁻|, in tokens
}

// Pair returns the loss of one pair and its derivatives by the log-probabilities of the chosen and
// of the rejected completion, which are 2·(h − 1/(2τ))/|y⁺| and −2·(h − 1/(2τ))/|y⁻|.
func (l Loss) Pair(t sdk.PairTerm) (loss, dChosen, dRejected float64) {
	chosenTokens, rejectedTokens := 1.0, 1.0
	if l.Average {
		chosenTokens, rejectedTokens = t.ChosenTokens, t.RejectedTokens
	}
	miss := t.Chosen/chosenTokens - t.Rejected/rejectedTokens - 1/(2*l.Tau)
	return miss * miss, 2 * miss / chosenTokens, -2 * miss / rejectedTokens
}
