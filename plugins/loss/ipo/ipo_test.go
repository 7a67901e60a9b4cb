package ipo

import (
	"context"
	"testing"

	"github.com/dno-project/dno/sdk"
)

func TestPair(t *testing.T) {
	t.Parallel()
	term := sdk.PairTerm{Chosen: 6, Rejected: -2, ChosenTokens: 4, RejectedTokens: 8}
	for name, c := range map[string]struct {
		loss                           Loss
		want, wantChosen, wantRejected float64
	}{
		// 6/4 + 2/8 − 1/(2·0.5) = 0.75: squared 0.5625; 2·0.75/4, −2·0.75/8.
		"averaged, each completion by its length": {Loss{0.5, true}, 0.5625, 0.375, -0.1875},
		// 6 + 2 − 1/(2·0.5) = 7: squared 49; ±14.
		"summed, lengths do not matter": {Loss{0.5, false}, 49, 14, -14},
		// 6 + 2 = 1/(2·0.0625) = 8: at the aim.
		"a margin at its aim is at rest": {Loss{0.0625, false}, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			loss, dChosen, dRejected := c.loss.Pair(term)
			if loss != c.want || dChosen != c.wantChosen || dRejected != c.wantRejected {
				t.Errorf("got %v, %v, %v; want %v, %v, %v", loss, dChosen, dRejected, c.want, c.wantChosen, c.wantRejected)
			}
		})
	}
}

func TestBetaOfZeroIsRefused(t *testing.T) {
	t.Parallel()
	err := New().Configure(context.Background(), sdk.Settings{"beta": 0.0})
	if sdk.CodeOf(err) != sdk.CodeUsage {
		t.Errorf("got %v", err)
	}
}
