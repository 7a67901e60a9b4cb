package pairs

import (
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
