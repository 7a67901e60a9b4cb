// Package length is the oracle that prefers the longer (or the shorter) text: deliberately simple, to try a run with.
package length

import (
	"context"
	"unicode/utf8"

	"github.com/dno-project/dno/plugins/internal/pairs"
	"github.com/dno-project/dno/sdk"
)

// LabelCharacters is the label that every assessment carries: the text's length in Unicode characters.
const LabelCharacters = "characters"

// Oracle compares texts by their length in Unicode characters: P is 1 for the longer one, 0 for
// the shorter one, ½ where they are equally long; with prefer = "shorter" the other way round.
// It knows nothing of right and wrong and gives no label "correct".
type Oracle struct{ shorter bool }

// New returns the oracle, which prefers the longer text until it is configured otherwise.
func New() sdk.Oracle { return &Oracle{} }

// Manifest declares a pairwise oracle for which the order does not matter.
func (*Oracle) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Kind:    sdk.KindOracle,
		Name:    "length",
		Version: "1",
		Help:    "prefers the longer text, or the shorter one",
		Settings: []sdk.Setting{
			{Name: "prefer", Type: sdk.TypeString, Default: "longer", OneOf: []string{"longer", "shorter"},
				Help: "which text wins, counted in characters"},
		},
		Oracle: sdk.OracleTraits{Form: sdk.FormPairwise, Concurrency: 4},
	}
}

// Configure takes the setting "prefer".
func (o *Oracle) Configure(_ context.Context, s sdk.Settings) error {
	o.shorter = s.String("prefer", "longer") == "shorter"
	return nil
}

// Judge compares the asked pairs and labels each candidate with its length.
func (o *Oracle) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	return pairs.Judge(ctx, batch, o.judge)
}

func (o *Oracle) judge(c sdk.Comparison) sdk.Verdicts {
	characters := make([]int, len(c.Candidates))
	out := sdk.Verdicts{ID: c.ID, Pairs: make([]sdk.Verdict, len(c.Pairs))}
	for i, text := range c.Candidates {
		characters[i] = utf8.RuneCountInString(text)
		out.Assessed = append(out.Assessed, sdk.Assessment{Labels: map[string]float64{LabelCharacters: float64(characters[i])}})
	}
	for i, p := range c.Pairs {
		out.Pairs[i].P = o.preference(characters[p.A], characters[p.B])
	}
	return out
}

func (o *Oracle) preference(a, b int) float64 {
	if o.shorter {
		a, b = b, a
	}
	switch {
	case a > b:
		return 1
	case a < b:
		return 0
	}
	return 0.5
}

var _ sdk.Oracle = (*Oracle)(nil)
