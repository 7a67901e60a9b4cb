package dno

import (
	"context"
	"math"
	"testing"

	"github.com/dno-project/dno/sdk"
)

func TestPair(t *testing.T) {
	t.Parallel()
	ln3 := math.Log(3)
	for name, c := range map[string]struct {
		beta, h, target  float64
		want, wantChosen float64
	}{
		// p = σ(z): the loss is the entropy of (3/4, 1/4) and the derivative is 0.
		"a margin that fits its target is at rest": {1, ln3, 0.75, 0.75*math.Log(4.0/3) + 0.25*math.Log(4), 0},
		// z = 0: ln 2 whatever the target; β·(1/2 − 3/4).
		"no margin yet costs ln 2": {2, 0, 0.75, math.Ln2, -0.5},
		// p = 1 is DPO at β·h = 0.5·2·ln 3 = ln 3: log(4/3), −0.5·(1/4).
		"a certain target is the sigmoid loss": {0.5, 2 * ln3, 1, math.Log(4.0 / 3), -0.125},
		// p = 0 at z = ln 3: −log σ(−ln 3) = log 4; 1·(3/4).
		"a reversed target pushes back":                {1, ln3, 0, math.Log(4), 0.75},
		"a certain target, met by far, costs nothing":  {1, 1e4, 1, 0, 0},
		"a certain target, missed by far, is linear":   {1, -1e4, 1, 1e4, -1},
		"a settled pair keeps the derivative's digits": {1, 40, 1, math.Exp(-40), -math.Exp(-40)},
	} {
		t.Run(name, func(t *testing.T) {
			loss, dChosen, dRejected := Loss{c.beta}.Pair(sdk.PairTerm{Chosen: c.h - 7, Rejected: -7, Target: c.target})
			// h is carried as a difference of numbers near 7 and so is known to 1e−15 only.
			if math.Abs(loss-c.want) > 1e-14*c.want || math.Abs(dChosen-c.wantChosen) > 1e-15+1e-14*math.Abs(c.wantChosen) || dRejected != -dChosen {
				t.Errorf("got %v, %v, %v; want %v, ±%v", loss, dChosen, dRejected, c.want, c.wantChosen)
			}
		})
	}
}

func TestAMissingTargetIsNotALossOfZero(t *testing.T) {
	t.Parallel()
	loss, dChosen, dRejected := Loss{Beta: 1}.Pair(sdk.PairTerm{Target: math.NaN()})
	if !math.IsNaN(loss) || !math.IsNaN(dChosen) || !math.IsNaN(dRejected) {
		t.Errorf("got %v, %v, %v; want NaN, which the host refuses", loss, dChosen, dRejected)
	}
}

func TestBetaOfZeroIsRefused(t *testing.T) {
	t.Parallel()
	err := New().Configure(context.Background(), sdk.Settings{"beta": 0.0})
	if sdk.CodeOf(err) != sdk.CodeUsage {
		t.Errorf("got %v", err)
	}
}
