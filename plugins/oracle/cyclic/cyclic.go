// Package cyclic is the oracle whose preference is no score: of three traits of a text each beats the next, in a circle.
package cyclic

import (
	"context"
	"math"
	"slices"
	"strings"

	"github.com/dno-project/dno/plugins/internal/logistic"
	"github.com/dno-project/dno/plugins/internal/pairs"
	"github.com/dno-project/dno/plugins/internal/settings"
	"github.com/dno-project/dno/sdk"
)

// Oracle prefers by rock, paper, scissors: what is strong in the first trait beats what is strong in
// the second, that beats what is strong in the third, and that beats the first. With v_i the measure
// of a text's i-th trait and m_i the trait's middle,
//
//	z_i = v_i / (v_i + m_i)                                in [0, 1), ½ in the middle
//	x   = softmax(sharpness · z)                           the text's strengths, which sum to 1
//	P(a ≻ b) = σ(scale · x_aᵀ·A·x_b)
//	x_aᵀ·A·x_b = Σ_i (x_a[i]·x_b[i+1] − x_a[i+1]·x_b[i])   in [−1, 1], i+1 modulo 3
//
// A is antisymmetric: A[i][i+1] = 1, A[i+1][i] = −1, else 0. So P(a ≻ b) + P(b ≻ a) is exactly 1, and
// P is ½ for equal texts and for a text that is equally strong in all three, as the empty one is.
// scale is the log-odds of a text of one trait alone against one of the trait that it beats; the larger
// sharpness, the more a text is of its strongest trait alone.
//
// In logits a score (Bradley-Terry) adds up to 0 round any circle; these do not, so no score has
// these preferences, and the equilibrium among texts of all three kinds is a mixture.
//
// It knows nothing of right and wrong: it is for experiments where the answer is known. Each text's
// strengths are its labels, by the names of the traits.
//
// Source: the general form of a cyclic preference is the antisymmetric bilinear one of Zhang et al.
// 2024 (arXiv 2410.02197), here with a fixed embedding.
type Oracle struct {
	traits    [3]trait
	middles   [3]float64
	scale     float64
	sharpness float64
}

// New returns the oracle with its defaults.
func New() sdk.Oracle {
	o := &Oracle{scale: defaultScale, sharpness: defaultSharpness}
	for i, name := range defaultTraits {
		o.traits[i] = traits[name]
		o.middles[i] = o.traits[i].middle
	}
	return o
}

const (
	defaultScale     = 4.0
	defaultSharpness = 10.0
)

var defaultTraits = []string{"length", "digits", "punctuation"}

// Manifest declares a pairwise oracle for which the order does not matter.
func (*Oracle) Manifest() sdk.Manifest {
	list := make([]any, len(defaultTraits))
	for i, name := range defaultTraits {
		list[i] = name
	}
	return sdk.Manifest{
		Kind:    sdk.KindOracle,
		Name:    "cyclic",
		Version: "1",
		Help:    "rock, paper, scissors of three traits of a text: a preference that is no score",
		Settings: []sdk.Setting{
			{Name: "traits", Type: sdk.TypeList, Default: list,
				Help: "three of " + strings.Join(names(), ", ") + "; each beats the next, the last the first"},
			{Name: "middles", Type: sdk.TypeList, Default: []any{},
				Help: "a number above 0 for each trait, in its unit: what counts as half strong; none: each trait's own"},
			{Name: "scale", Type: sdk.TypeNumber, Default: defaultScale, Min: sdk.AtLeast(0),
				Help: "log-odds of a text of one trait alone against one of the trait that it beats, above 0"},
			{Name: "sharpness", Type: sdk.TypeNumber, Default: defaultSharpness, Min: sdk.AtLeast(0),
				Help: "how far a text is of its strongest trait alone, above 0"},
		},
		Oracle: sdk.OracleTraits{Form: sdk.FormPairwise, Concurrency: 4},
	}
}

// Configure takes the settings.
func (o *Oracle) Configure(_ context.Context, s sdk.Settings) error {
	scale, err := settings.Positive(s, "scale", defaultScale)
	if err != nil {
		return err
	}
	sharpness, err := settings.Positive(s, "sharpness", defaultSharpness)
	if err != nil {
		return err
	}
	chosen, err := settings.Texts(s, "traits")
	if err != nil {
		return err
	}
	if len(chosen) == 0 {
		chosen = defaultTraits
	}
	if len(chosen) != 3 || chosen[0] == chosen[1] || chosen[1] == chosen[2] || chosen[2] == chosen[0] {
		return sdk.Errorf(sdk.CodeUsage, "setting \"traits\": want three different ones, have %q", chosen)
	}
	fresh := Oracle{scale: scale, sharpness: sharpness}
	for i, name := range chosen {
		known, found := traits[name]
		if !found {
			return sdk.Errorf(sdk.CodeUsage, "setting \"traits\": there is no trait %q: want three of %s", name, strings.Join(names(), ", "))
		}
		fresh.traits[i], fresh.middles[i] = known, known.middle
	}
	if middles, _ := s["middles"].([]any); len(middles) > 0 {
		if len(middles) != 3 {
			return sdk.Errorf(sdk.CodeUsage, "setting \"middles\": want a number for each of the three traits, have %d", len(middles))
		}
		for i, m := range middles {
			number, isNumber := m.(float64)
			if !isNumber || !(number > 0) || math.IsInf(number, 1) {
				return sdk.Errorf(sdk.CodeUsage, "setting \"middles\": entry %d: want a number above 0, have %v", i+1, m)
			}
			fresh.middles[i] = number
		}
	}
	*o = fresh
	return nil
}

// Judge compares the asked pairs and labels each candidate with its strengths.
func (o *Oracle) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	return pairs.Judge(ctx, batch, o.judge)
}

func (o *Oracle) judge(c sdk.Comparison) sdk.Verdicts {
	strengths := make([][3]float64, len(c.Candidates))
	out := sdk.Verdicts{ID: c.ID, Pairs: make([]sdk.Verdict, len(c.Pairs))}
	for i, text := range c.Candidates {
		strengths[i] = o.strengths(text)
		labels := map[string]float64{}
		for k, t := range o.traits {
			labels[t.name] = strengths[i][k]
		}
		out.Assessed = append(out.Assessed, sdk.Assessment{Labels: labels})
	}
	for i, p := range c.Pairs {
		out.Pairs[i].P = probability(o.scale * form(strengths[p.A], strengths[p.B]))
	}
	return out
}

// strengths returns x, which is never 0/0: z is at most 1, and the largest is taken off first.
func (o *Oracle) strengths(text string) (x [3]float64) {
	m := measure(text)
	for i, t := range o.traits {
		v := t.of(m)
		x[i] = o.sharpness * (v / (v + o.middles[i]))
	}
	top, sum := slices.Max(x[:]), 0.0
	for i := range x {
		x[i] = math.Exp(x[i] - top)
		sum += x[i]
	}
	for i := range x {
		x[i] /= sum
	}
	return x
}

// form is x·A·y. The conversions keep the compiler from fusing a product with the difference, which would
// round one of the two products only: form(y, x) is exactly −form(x, y).
func form(x, y [3]float64) (sum float64) {
	for i := range 3 {
		next := (i + 1) % 3
		sum += float64(x[i]*y[next]) - float64(x[next]*y[i])
	}
	return sum
}

// probability is σ(logit), from ½ on; below it is what is left of 1, so that the two add up to 1 exactly.
func probability(logit float64) float64 {
	if logit < 0 {
		return 1 - logistic.Sigmoid(-logit)
	}
	return logistic.Sigmoid(logit)
}

var _ sdk.Oracle = (*Oracle)(nil)
