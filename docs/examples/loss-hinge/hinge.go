package main

import "github.com/dno-project/dno/sdk"

// New returns the hinge on the log-ratio margin as a plugin
//
//	L = max(0, 1 − β·h),  h = log π(y⁺|x)/π_ref(y⁺|x) − log π(y⁻|x)/π_ref(y⁻|x)
//
// h is in nats, summed over the tokens of each completion. A pair that is 1/β nats apart is done:
// its loss and its derivatives are exactly 0, at the kink too. Until then they are ∓β.
//
// Source: Zhao et al. 2023, SLiC-HF (arXiv 2305.10425), whose margin is here 1/β; on log-ratios as
// in Liu et al. 2023, RSO (arXiv 2309.06657). Checked against TRL's loss_type "hinge".
//
// Differs: SLiC-HF has no reference in its margin, and adds a likelihood term that holds the policy.
func New() sdk.Loss {
	return sdk.Pairwise(sdk.Manifest{
		Name: "hinge", Version: "1", Help: "hinge on the log-ratio margin of chosen over rejected (SLiC, RSO)",
		Settings: []sdk.Setting{{Name: "beta", Type: sdk.TypeNumber, Default: 0.1, Min: sdk.AtLeast(1e-6),
			Help: "strength of the pull to the reference, per nat: the margin aimed at is 1/beta"}},
	}, func(s sdk.Settings) (sdk.PairFunc, error) {
		beta := s.Number("beta", 0.1)
		return func(t sdk.PairTerm) (loss, dChosen, dRejected float64) {
			z := beta * (t.Chosen - t.Rejected)
			if z >= 1 {
				return 0, 0, 0
			}
			return 1 - z, -beta, beta
		}, nil
	})
}
