package length

import (
	"context"
	"testing"

	"github.com/dno-project/dno/sdk"
)

func TestPreferences(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prefer, a, b string
		p            float64
	}{
		"the longer text wins":                {"longer", "four", "two", 1},
		"the shorter text loses":              {"longer", "two", "four", 0},
		"equal lengths tie":                   {"longer", "four", "five", 0.5},
		"shorter turns it round":              {"shorter", "two", "four", 1},
		"shorter leaves a tie":                {"shorter", "four", "five", 0.5},
		"nothing is shorter than anything":    {"longer", "", "a", 0},
		"characters are counted, not bytes":   {"longer", "äöü", "abcd", 0},
		"broken bytes count as one each: 2<3": {"longer", "\xff\xfe", "abc", 0},
	} {
		t.Run(name, func(t *testing.T) {
			o := New()
			if err := o.Configure(context.Background(), sdk.Settings{"prefer": c.prefer}); err != nil {
				t.Fatal(err)
			}
			out, err := o.Judge(context.Background(), []sdk.Comparison{{ID: "q", Candidates: []string{c.a, c.b},
				Pairs: []sdk.Ordered{{A: 0, B: 1}, {A: 1, B: 0}}}})
			if err != nil {
				t.Fatal(err)
			}
			if out[0].ID != "q" || out[0].Pairs[0].P != c.p || out[0].Pairs[1].P != 1-c.p {
				t.Errorf("got %+v, want P = %v and %v", out[0], c.p, 1-c.p)
			}
		})
	}
}

func TestLabels(t *testing.T) {
	t.Parallel()
	out, err := New().Judge(context.Background(), []sdk.Comparison{{Candidates: []string{"äöü", "four"}}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []float64{3, 4} {
		labels := out[0].Assessed[i].Labels
		if _, there := labels[sdk.LabelCorrect]; there || len(labels) != 1 || labels[LabelCharacters] != want {
			t.Errorf("candidate %d: got %v, want %v characters and nothing else", i, labels, want)
		}
	}
}
