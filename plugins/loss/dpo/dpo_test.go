package dpo

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
		loss             Loss
		chosen, rejected float64
		want, wantChosen float64
	}{
		// h = 0: −log σ(0) = ln 2; −β·σ(0) = −0.1/2.
		"equal log-ratios cost ln 2": {Loss{Beta: 0.1}, -3, -3, math.Ln2, -0.05},
		// β·h = 0.5·(2 ln 3) = ln 3: σ = 3/4, so −log(3/4) and −0.5·(1/4).
		"a margin of ln 3 costs log 4/3": {Loss{Beta: 0.5}, ln3, -ln3, math.Log(4.0 / 3), -0.125},
		// ε = 0.1 at β·h = ln 3: 0.9·log(4/3) + 0.1·log 4; 0.1·(3/4) − 0.9·(1/4) = −0.15, times β = 0.5.
		"smoothing mixes in the other label": {Loss{0.5, 0.1}, ln3, -ln3,
			0.9*math.Log(4.0/3) + 0.1*math.Log(4), -0.075},
		"a hopeless pair costs its margin":          {Loss{Beta: 1}, -1e4, 1e4, 2e4, -1},
		"a settled pair costs nothing and is still": {Loss{Beta: 1}, 1e4, -1e4, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			loss, dChosen, dRejected := c.loss.Pair(sdk.PairTerm{Chosen: c.chosen, Rejected: c.rejected})
			if math.Abs(loss-c.want) > 1e-14*c.want || math.Abs(dChosen-c.wantChosen) > 1e-15 || dRejected != -dChosen {
				t.Errorf("got %v, %v, %v; want %v, ±%v", loss, dChosen, dRejected, c.want, c.wantChosen)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		given sdk.Settings
		legal bool
	}{
		"the defaults are legal":               {sdk.Settings{}, true},
		"smoothing of 0.49 is legal":           {sdk.Settings{"label_smoothing": 0.49}, true},
		"smoothing of a half is refused":       {sdk.Settings{"label_smoothing": 0.5}, false},
		"negative smoothing is refused":        {sdk.Settings{"label_smoothing": -0.1}, false},
		"beta of 0 is refused":                 {sdk.Settings{"beta": 0}, false},
		"a setting of another loss is refused": {sdk.Settings{"gamma": 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := New()
			resolved, err := l.Manifest().Resolve(c.given)
			if err == nil {
				err = l.Configure(context.Background(), resolved)
			}
			if (err == nil) != c.legal {
				t.Errorf("got %v", err)
			}
			if err != nil && sdk.CodeOf(err) != sdk.CodeUsage {
				t.Errorf("code %d is not the user's", sdk.CodeOf(err))
			}
		})
	}
}
