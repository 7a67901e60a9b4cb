package pairs

import (
	"context"
	"errors"
	"testing"

	"github.com/dno-project/dno/sdk"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pair  sdk.Ordered
		fails bool
	}{
		"both candidates are there":      {sdk.Ordered{A: 1, B: 0}, false},
		"an index beyond the last fails": {sdk.Ordered{A: 0, B: 2}, true},
		"a negative index fails":         {sdk.Ordered{A: -1, B: 0}, true},
	} {
		t.Run(name, func(t *testing.T) {
			err := Check(sdk.Comparison{ID: "q", Candidates: []string{"x", "y"}, Pairs: []sdk.Ordered{c.pair}})
			if (err != nil) != c.fails {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	echo := func(c sdk.Comparison) sdk.Verdicts { return sdk.Verdicts{ID: c.ID} }
	sound := sdk.Comparison{ID: "a", Candidates: []string{"x"}}
	out, err := Judge(context.Background(), []sdk.Comparison{sound, {ID: "b"}}, echo)
	if err != nil || len(out) != 2 || out[0].ID != "a" || out[1].ID != "b" {
		t.Errorf("got %+v, %v, want the verdicts on a and b", out, err)
	}
	out, err = Judge(context.Background(), []sdk.Comparison{sound, {ID: "b", Pairs: []sdk.Ordered{{A: 0, B: 1}}}}, echo)
	if out != nil || sdk.CodeOf(err) != sdk.CodePlugin {
		t.Errorf("of a pair without candidates: got %+v, %v", out, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	out, err = Judge(ctx, []sdk.Comparison{sound, sound}, func(c sdk.Comparison) sdk.Verdicts { cancel(); return echo(c) })
	if out != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled at the first of two: got %+v, %v", out, err)
	}
}
