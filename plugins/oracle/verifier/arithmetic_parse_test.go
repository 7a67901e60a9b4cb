package verifier

import (
	"fmt"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseStep(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fragment string
		text     string // "" where it is no step
		value    string // of the expression; "" where undefined
		claimed  string
		operands int
	}{
		"the plain form":                       {"17+45=62", "17+45", "62", "62", 2},
		"spaces are allowed anywhere":          {"  17 + 45 =  62 ", "17+45", "62", "62", 2},
		"a label may come before":              {"area: 3*4=12", "3*4", "12", "12", 2},
		"words and a unit":                     {"so the area is 3*4 = 12 cm2", "3*4", "12", "12", 2},
		"a numbered list":                      {"2. 17+45=62", "17+45", "62", "62", 2},
		"a numbered step":                      {"step 2) 17+45=62", "17+45", "62", "62", 2},
		"the dash of a list is no sign":        {"- 17+45=62", "17+45", "62", "62", 2},
		"a sign directly before is one":        {"-17+45=28", "-17+45", "28", "28", 2},
		"products bind more than sums":         {"2+3*4=14", "2+3*4", "14", "14", 3},
		"differences go from left to right":    {"9-3-2=4", "9-3-2", "4", "4", 3},
		"quotients go from left to right":      {"16/4/2=2", "16/4/2", "2", "2", 3},
		"brackets":                             {"2*(3+4)=14", "2*(3+4)", "14", "14", 3},
		"decimals are exact: 0.1+0.2 is 3/10":  {"0.1+0.2=0.3", "0.1+0.2", "3/10", "3/10", 2},
		"nothing is rounded":                   {"10/3=3.33", "10/3", "10/3", "333/100", 2},
		"a wrong value is still a step":        {"17+45=52", "17+45", "62", "52", 2},
		"a negative value":                     {"3-5=-2", "3-5", "-2", "-2", 2},
		"division by zero has no value":        {"3/(2-2)=0", "3/(2-2)", "", "0", 3},
		"thousands with commas":                {"1,200+34=1,234", "1,200+34", "1234", "1234", 2},
		"money and a full stop":                {"he pays 3*4=$12.", "3*4", "12", "12", 2},
		"typographic operators":                {"3×4−2=10", "3*4-2", "10", "10", 3},
		"a closing bracket around it":          {"(3*4=12)", "3*4", "12", "12", 2},
		"an equation without operator is none": {"1=1", "", "", "", 0},
		"a sign alone is no operator":          {"-1=-1", "", "", "", 0},
		"no value":                             {"62+8=", "", "", "", 0},
		"no equals sign":                       {"62+8", "", "", "", 0},
		"two equals signs":                     {"3*4=12=12", "", "", "", 0},
		"arithmetic after the equals sign":     {"12=3*4", "", "", "", 0},
		"an operator too many":                 {"17++45=62", "", "", "", 0},
		"an operator at the end":               {"17+45+=62", "", "", "", 0},
		"an open bracket":                      {"2*(3+4=14", "", "", "", 0},
		"a number of 41 digits":                {strings.Repeat("1", 41) + "+1=2", "", "", "", 0},
		"an expression of 129 bytes":           {strings.Repeat(" ", 126) + "1+1=2", "", "", "", 0},
		"an expression of 33 operands":         {strings.Repeat("1+", 32) + "1=33", "", "", "", 0},
		"brackets 17 deep":                     {strings.Repeat("(", 17) + "1+1" + strings.Repeat(")", 17) + "=2", "", "", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, ok := parseStep(plain(c.fragment))
			if ok != (c.text != "") {
				t.Fatalf("is a step: %v", ok)
			}
			if !ok {
				return
			}
			value := ""
			if s.value != nil {
				value = s.value.RatString()
			}
			if s.text != c.text || value != c.value || s.claimed.RatString() != c.claimed || len(s.operands) != c.operands {
				t.Errorf("got %q = %q, claimed %v, %d operands", s.text, value, s.claimed.RatString(), len(s.operands))
			}
		})
	}
}

func TestFinalAnswer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"the last step's value":                      {"17+45=62;62+8=70", "70"},
		"with its unit":                              {"3*4=12 cm2", "12"},
		"words after the last step change nothing":   {"62+8=70\nSo it took 2 steps.", "70"},
		"a last equation that was cut has no answer": {"17+45=62;62+8=", ""},
		"an assignment is one":                       {"x = 70", "70"},
		"without an equation the last number":        {"first 62, then 70.", "70"},
		"digits of a word are no number":             {"70 square cm2", "70"},
		"a negative number":                          {"it is -5", "-5"},
		"a dash between numbers is no sign":          {"between 3-5", "5"},
		"a version is one number":                    {"1.2.3", "6/5"},
		"no number at all":                           {"seventy", ""},
		"nothing":                                    {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if v := finalAnswer(c.text); v != nil {
				got = v.RatString()
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// An expression tree, printed with all its brackets, must be read back with the tree's own value.
func TestWhatIsPrintedIsReadBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text, want := drawTree(t, 3)
		if want == nil {
			return
		}
		s, ok := parseStep("so " + text + "=0")
		if !ok || s.value == nil || s.value.Cmp(want) != 0 {
			t.Fatalf("%s: got %v (%v), want %v", text, s.value, ok, want)
		}
	})
}

func drawTree(t *rapid.T, depth int) (string, *big.Rat) {
	if depth == 0 || depth < 3 && rapid.Bool().Draw(t, "leaf") {
		cents := rapid.Int64Range(0, 9999).Draw(t, "cents")
		return fmt.Sprintf("%d.%02d", cents/100, cents%100), big.NewRat(cents, 100)
	}
	left, a := drawTree(t, depth-1)
	right, b := drawTree(t, depth-1)
	op := rapid.SampledFrom([]string{"+", "-", "*", "/"}).Draw(t, "op")
	text := "(" + left + op + right + ")"
	switch {
	case a == nil || b == nil || op == "/" && b.Sign() == 0:
		return text, nil
	case op == "+":
		return text, new(big.Rat).Add(a, b)
	case op == "-":
		return text, new(big.Rat).Sub(a, b)
	case op == "*":
		return text, new(big.Rat).Mul(a, b)
	}
	return text, new(big.Rat).Quo(a, b)
}

// Whatever is read, nothing panics, and credit is bounded by what the prompt gives: each credited
// step puts two numbers of the stock together into one.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"17+45=62;62+8=70", "area: 3*4 = 12 cm2\n12/0=1", "1=1;1=1;;=;1+(2", "0+0=0;0+17=17;0*17=0;17+0=17",
		"−5×(1,234.50−.5)=$3", "17-17=0;0+45=45;45+8=53", strings.Repeat("(", 99), "17+45=62=", "\x00\xff17+45=62",
	} {
		f.Add("17 45 8", seed, "17+45", 2.0)
	}
	f.Fuzz(func(t *testing.T, prompt, text, reference string, steps float64) {
		p := ask(prompt, "70", nil)
		given := len(numbers(plain(prompt)))
		m := expect(p, big.NewRat(70, 1)).mark(text)
		if m.right < 0 || m.right > max(1, given-1) || given == 0 && m.right > 0 {
			t.Errorf("%d steps right from %d numbers", m.right, given)
		}
		if final := finalAnswer(plain(text)); m.correct && (final == nil || final.RatString() != "70") {
			t.Errorf("right with the final answer %v", final)
		}
		for _, metadata := range []any{steps, []any{reference, text}} {
			p.Metadata = map[string]any{"steps": metadata}
			e := expect(p, big.NewRat(70, 1))
			if m := e.mark(text); e.steps < 1 || e.stock.spare < 0 || m.right > e.steps {
				t.Errorf("steps %v: %+v of %+v", metadata, m, e)
			}
		}
	})
}
