package cyclic

import (
	"context"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/sdk"
)

func oracle(t testing.TB, given sdk.Settings) *Oracle {
	t.Helper()
	o := New().(*Oracle)
	resolved, err := o.Manifest().Resolve(given)
	if err == nil {
		err = o.Configure(context.Background(), resolved)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// table asks all ordered pairs of the texts, each one's own too, and returns n×n probabilities.
func table(t testing.TB, o *Oracle, texts ...string) []float64 {
	t.Helper()
	c := sdk.Comparison{ID: "x", Candidates: texts}
	for a := range texts {
		for b := range texts {
			c.Pairs = append(c.Pairs, sdk.Ordered{A: a, B: b})
		}
	}
	out, err := o.Judge(context.Background(), []sdk.Comparison{c})
	if err != nil {
		t.Fatal(err)
	}
	var p []float64
	for _, v := range out[0].Pairs {
		p = append(p, v.P)
	}
	return p
}

// One text of each trait: 200 letters, digits, marks.
var (
	long   = strings.Repeat("so ", 50) + strings.Repeat("o", 50)
	digits = "31415926"
	marks  = "?!;-+=!?"
)

// By the formula as the documentation has it, computed in another way: with the matrix, and with the
// softmax as it is written.
func TestTheFormula(t *testing.T) {
	t.Parallel()
	o := oracle(t, sdk.Settings{"scale": 3, "sharpness": 2, "middles": []any{10.0, 0.5, 0.2}})
	// 10 characters, 4 of them digits, 1 mark; 30 characters, 3 digits, 12 marks.
	a, b := "1234 words", "123"+strings.Repeat(".", 12)+strings.Repeat("x", 15)
	measures := map[string][3]float64{a: {10, 0.4, 0}, b: {30, 0.1, 0.4}}
	x := map[string][3]float64{}
	for text, v := range measures {
		var e [3]float64
		sum := 0.0
		for i, m := range []float64{10, 0.5, 0.2} {
			e[i] = math.Exp(2 * v[i] / (v[i] + m))
			sum += e[i]
		}
		x[text] = [3]float64{e[0] / sum, e[1] / sum, e[2] / sum}
	}
	matrix := [3][3]float64{{0, 1, -1}, {-1, 0, 1}, {1, -1, 0}}
	value := 0.0
	for i := range 3 {
		for k := range 3 {
			value += x[a][i] * matrix[i][k] * x[b][k]
		}
	}
	want := 1 / (1 + math.Exp(-3*value))
	p := table(t, o, a, b)
	if math.Abs(p[1]-want) > 1e-14 || math.Abs(p[2]-(1-want)) > 1e-14 || math.Abs(want-0.5) < 0.01 {
		t.Errorf("P is %v, want %v and its mirror", p, want)
	}
}

func TestATraitBeatsTheNextOne(t *testing.T) {
	t.Parallel()
	p := table(t, oracle(t, nil), long, digits, marks)
	// σ(4) = 0.982 where each text is of one trait alone; these nearly are.
	for name, got := range map[string]float64{"length over digits": p[1], "digits over punctuation": p[5], "punctuation over length": p[6]} {
		if !(got > 0.97 && got < 0.9821) {
			t.Errorf("%s: P = %v", name, got)
		}
	}
	out, err := oracle(t, nil).Judge(context.Background(), []sdk.Comparison{{ID: "x", Candidates: []string{long, digits, marks, ""}}})
	if err != nil {
		t.Fatal(err)
	}
	for i, trait := range defaultTraits {
		if got := out[0].Assessed[i].Labels[trait]; !(got > 0.98) {
			t.Errorf("the text of much %s has the labels %v", trait, out[0].Assessed[i].Labels)
		}
	}
	for trait, got := range out[0].Assessed[3].Labels {
		if math.Abs(got-1.0/3) > 1e-15 {
			t.Errorf("the empty text has %v of %s", got, trait)
		}
	}
}

// A score s predicts σ(s_a − s_b). Round a circle the differences add up to 0, so one of them is at most 0: of
// three preferences above ½ one is predicted at most ½.
func TestF13NoScoreHasThesePreferences(t *testing.T) {
	t.Parallel()
	p := table(t, oracle(t, nil), long, digits, marks)
	round := [3]float64{p[1], p[5], p[6]}
	least := min(round[0], round[1], round[2])
	worst := func(s [3]float64) (off float64) {
		for i, have := range round {
			off = max(off, math.Abs(have-1/(1+math.Exp(s[(i+1)%3]-s[i]))))
		}
		return off
	}
	// The best score by likelihood: gradient ascent on the preferences of all three pairs.
	var best [3]float64
	for range 10000 {
		for i, have := range round {
			k := (i + 1) % 3
			slope := have - 1/(1+math.Exp(best[k]-best[i]))
			best[i] += 0.1 * slope
			best[k] -= 0.1 * slope
		}
	}
	if off := worst(best); off < least-0.5 || off < 0.4 {
		t.Errorf("the score %v is off by %v only, of preferences %v", best, off, round)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10000 {
		s := [3]float64{10 * rng.NormFloat64(), 10 * rng.NormFloat64(), 10 * rng.NormFloat64()}
		if off := worst(s); off < least-0.5 {
			t.Fatalf("the score %v is off by %v only, of preferences %v", s, off, round)
		}
	}
	// In logits: what a score would make 0 is three times the scale, nearly.
	sum := 0.0
	for _, have := range round {
		sum += math.Log(have / (1 - have))
	}
	if !(sum > 11 && sum < 12) {
		t.Errorf("the logits add up to %v", sum)
	}
}

func TestF13TheEquilibriumIsMixed(t *testing.T) {
	t.Parallel()
	p := table(t, oracle(t, nil), long, digits, marks)
	game, err := preference.NewTable(p, 3)
	if err != nil {
		t.Fatal(err)
	}
	nash := game.Nash()
	for i, share := range nash {
		if share < 0.3 || share > 0.37 {
			t.Errorf("text %d has %v of the equilibrium %v", i, share, nash)
		}
		pure := make([]float64, 3)
		pure[i] = 1
		if e, err := game.Exploitability(pure); err != nil || e < 0.47 {
			t.Errorf("text %d alone can be beaten by %v only, %v", i, e, err)
		}
	}
	if e, err := game.Exploitability(nash); err != nil || e > 1e-11 {
		t.Errorf("the equilibrium %v can be beaten by %v, %v", nash, e, err)
	}
	group, err := preference.NewGame([]sdk.Completion{{Text: long}, {Text: digits}, {Text: marks}}, p, preference.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c := group.Cycles(); !c.Cyclic || c.ThreeCycles != 1 || c.Condorcet != -1 || c.Share() != 1 {
		t.Errorf("cycles %+v", c)
	}
}

// Whatever the texts, P(a, b) and P(b, a) add up to 1 exactly, equal texts tie exactly, and a third
// text changes nothing.
func FuzzAntisymmetry(f *testing.F) {
	f.Add("17+45=62", "70", 4.0, 10.0, uint8(0))
	f.Add(long, digits, 1e300, 1e300, uint8(1))
	f.Add("", "\xff\u0000", 1e-300, 1e-300, uint8(2))
	f.Add("a;\n;b", "Vier: 四 \u202e", 40.0, 0.5, uint8(7))
	all := names()
	f.Fuzz(func(t *testing.T, a, b string, scale, sharpness float64, choice uint8) {
		if !(scale > 0 && sharpness > 0) || math.IsInf(scale, 0) || math.IsInf(sharpness, 0) {
			t.Skip("refused as settings")
		}
		n := int(choice)
		o := oracle(t, sdk.Settings{"scale": scale, "sharpness": sharpness,
			"traits": []any{all[n%5], all[(n+1+n/5%2)%5], all[(n+3+n/10%2)%5]}})
		p := table(t, o, a, b)
		if !(p[1] >= 0 && p[1] <= 1) || p[1]+p[2] != 1 || p[0] != 0.5 || p[3] != 0.5 || a == b && p[1] != 0.5 {
			t.Errorf("P of %q and %q: %v", a, b, p)
		}
		if q := table(t, o, long, a, b); q[5] != p[1] || q[7] != p[2] {
			t.Errorf("beside a third text P of %q and %q becomes %v, %v: was %v, %v", a, b, q[5], q[7], p[1], p[2])
		}
	})
}

func TestMeasures(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]measured{
		"":                      {},
		"17+45=62;62+8=70":      {characters: 16, digits: 11, marks: 5, words: 1, steps: 2},
		"Two  words.":           {characters: 11, marks: 1, words: 2, steps: 1},
		"a\n\n b ;; ;c\n":       {characters: 12, marks: 3, words: 4, steps: 3},
		"四 \u0664 £ \U0001F600": {characters: 7, digits: 1, marks: 2, words: 4, steps: 1},
		"\xff":                  {characters: 1, marks: 1, words: 1, steps: 1}, // U+FFFD is a symbol
	} {
		if got := measure(text); got != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	m := measure("1234 words;\nand more")
	for name, want := range map[string]float64{"length": 20, "words": 4, "steps": 2, "digits": 0.2, "punctuation": 0.05} {
		if got := traits[name].of(m); traits[name].name != name || got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := traits["digits"].of(measure("")); got != 0 {
		t.Errorf("the share of digits in no text is %v", got)
	}
}

func TestRefusedSettings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		given sdk.Settings
		want  string
	}{
		"two traits":                     {sdk.Settings{"traits": []any{"length", "digits"}}, "want three different ones"},
		"four traits":                    {sdk.Settings{"traits": []any{"length", "digits", "words", "steps"}}, "want three different ones"},
		"a trait twice":                  {sdk.Settings{"traits": []any{"length", "digits", "length"}}, "want three different ones"},
		"a trait that there is not":      {sdk.Settings{"traits": []any{"length", "digits", "wit"}}, `no trait "wit": want three of digits, length,`},
		"a trait that is a number":       {sdk.Settings{"traits": []any{"length", "digits", 1.0}}, "want text"},
		"a scale of 0":                   {sdk.Settings{"scale": 0}, "above 0"},
		"a sharpness of 0":               {sdk.Settings{"sharpness": 0}, "above 0"},
		"too few middles":                {sdk.Settings{"middles": []any{1.0}}, "for each of the three traits, have 1"},
		"a middle of 0":                  {sdk.Settings{"middles": []any{1.0, 0.0, 1.0}}, "entry 2: want a number above 0"},
		"a middle that is not a number":  {sdk.Settings{"middles": []any{1.0, 1.0, "1"}}, "entry 3: want a number above 0"},
		"a middle beyond all numbers":    {sdk.Settings{"middles": []any{math.Inf(1), 1.0, 1.0}}, "entry 1: want a number above 0"},
		"a setting of the oracle length": {sdk.Settings{"prefer": "longer"}, `no setting "prefer"`},
	} {
		o := New().(*Oracle)
		before := table(t, o, long, digits, marks)
		resolved, err := o.Manifest().Resolve(c.given)
		if err == nil {
			err = o.Configure(context.Background(), resolved)
		}
		if sdk.CodeOf(err) != sdk.CodeUsage || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
		for i, p := range table(t, o, long, digits, marks) {
			if p != before[i] {
				t.Errorf("%s: refused, and taken all the same", name)
			}
		}
	}
}
