package answers

import (
	"math/big"
	"strings"
)

// LaTeX is an answer in LaTeX, read for comparison.
type LaTeX struct {
	kind  string  // "" one value, "," a list, "∪" a union, else the brackets around the parts: "[)", "()", "{}"
	parts []LaTeX // of all kinds but ""
	value surd    // of one value; nil where it is no number
	unit  string  // what stands behind the number: "cm", "°", "%"
	text  string  // all of it, normalised
}

// ReadLaTeX reads an answer, the content of a box or a reference answer as it is; where a reference is a
// whole solution with a \boxed{}, its last box is meant.
//
// Not read as more than text: what is over 4 KiB, brackets 32 deep.
func ReadLaTeX(text string) LaTeX {
	if box, ok := Boxed(text); ok {
		text = box
	}
	if len(text) > maxLaTeX {
		return LaTeX{text: text}
	}
	return form(lex(text), 0)
}

// Empty says that nothing is left of the answer.
func (a LaTeX) Empty() bool { return a.text == "" }

// Equal compares two answers. Numbers are equal as exact numbers: rationals, and sums of rationals
// times roots and powers of π; a unit, degree or percent sign that only one of them has is not looked at. Lists
// without brackets, sets and unions are equal in any order; tuples and intervals in theirs, with the same
// brackets. What is no number has to be the same text.
func (a LaTeX) Equal(b LaTeX) bool {
	if a.text == b.text {
		return true
	}
	if a.kind != b.kind || len(a.parts) != len(b.parts) {
		return false
	}
	switch a.kind {
	case "":
		return a.value != nil && b.value != nil && a.sameValue(b)
	case ",", "∪", "{}":
		return sameInAnyOrder(a.parts, b.parts)
	}
	for i := range a.parts {
		if !a.parts[i].Equal(b.parts[i]) {
			return false
		}
	}
	return true
}

func (a LaTeX) sameValue(b LaTeX) bool {
	if a.unit == "" || b.unit == "" || a.unit == b.unit {
		return a.value.equals(b.value)
	}
	x, y := a.quantity(), b.quantity()
	return x.Number != nil && y.Number != nil && !x.Unit.None() && !y.Unit.None() && x.Equal(y, Tolerance{})
}

// quantity is a rational value with its unit, where the table knows it.
func (a LaTeX) quantity() Quantity {
	u, n := readUnit(a.unit)
	if n < len(a.unit) {
		u = Unit{}
	}
	return Quantity{a.value.rational(), u}
}

// sameInAnyOrder pairs each part off with an equal one. Lists of answers are short: see maxLaTeX.
func sameInAnyOrder(a, b []LaTeX) bool {
	used := make([]bool, len(b))
	for _, x := range a {
		found := false
		for i, y := range b {
			if !used[i] && x.Equal(y) {
				used[i], found = true, true
				break
			}
		}
		if !found {
			return false
		}
	}
	return true
}

func form(tokens []token, depth int) LaTeX {
	tokens = bare(tokens)
	out := LaTeX{text: plainText(tokens)}
	if depth >= maxDepth || len(tokens) == 0 {
		return out
	}
	if n := thousands(out.text); n != "" {
		out.value, out.text = digitsOf(n), n
		return out
	}
	if parts := split(tokens, `\cup`); len(parts) > 1 {
		return out.of("∪", parts, depth)
	}
	if parts := split(tokens, ","); len(parts) > 1 {
		return out.of(",", parts, depth)
	}
	if inner, brackets := enclosed(tokens); brackets != "" {
		parts := split(inner, ",")
		if brackets == "()" && len(parts) == 1 {
			return form(inner, depth+1)
		}
		return out.of(brackets, parts, depth)
	}
	number, unit := cutUnit(tokens)
	e := evaluator{rest: number}
	if v := e.sum(); v != nil && len(e.rest) == 0 && len(number) > 0 {
		out.value, out.unit = v, unit
	}
	return out
}

func (a LaTeX) of(kind string, parts [][]token, depth int) LaTeX {
	a.kind = kind
	for _, p := range parts {
		a.parts = append(a.parts, form(p, depth+1))
	}
	return a
}

// bare takes off what says nothing: a full stop at the end, braces around all, "x=" and "x\in" before.
func bare(tokens []token) []token {
	for len(tokens) > 0 {
		n := len(tokens)
		switch {
		case tokens[n-1].is("."):
			tokens = tokens[:n-1]
		case n > 1 && tokens[0].is("{") && match(tokens, "{", "}") == n-1:
			tokens = tokens[1 : n-1]
		case n > 2 && isLetter(tokens[0]) && (tokens[1].is("=") || tokens[1].is(`\in`)) && len(split(tokens[2:], "=")) == 1:
			tokens = tokens[2:]
		default:
			return tokens
		}
	}
	return tokens
}

func isLetter(t token) bool {
	return !t.words && len(t.text) == 1 && t.text[0]|0x20 >= 'a' && t.text[0]|0x20 <= 'z'
}

// thousands is a text like "-1,234,567.8" without its commas; "" where it is none.
func thousands(text string) string {
	unsigned := strings.TrimPrefix(text, "-")
	n := digits(unsigned)
	m := groups(unsigned, n)
	if m == n {
		return ""
	}
	if m < len(unsigned) && (unsigned[m] != '.' || digits(unsigned[m+1:]) != len(unsigned)-m-1) {
		return ""
	}
	return strings.ReplaceAll(text, ",", "")
}

func digitsOf(text string) surd {
	v, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil
	}
	return rational(v)
}

var opens, closes = set(`( { [ \{`), set(`) } ] \}`)

// split cuts tokens at a separator that stands in no brackets; one of a bracket's kinds closes any other,
// since intervals mix them.
func split(tokens []token, separator string) [][]token {
	var out [][]token
	depth, from := 0, 0
	for i, t := range tokens {
		switch {
		case t.words:
		case opens[t.text]:
			depth++
		case closes[t.text]:
			depth--
		case t.text == separator && depth == 0:
			out = append(out, tokens[from:i])
			from = i + 1
		}
	}
	return append(out, tokens[from:])
}

// enclosed returns what stands between the brackets around all of the tokens, and which they are; ""
// where none are around all.
func enclosed(tokens []token) ([]token, string) {
	n := len(tokens)
	if n < 2 {
		return nil, ""
	}
	open, closed := tokens[0], tokens[n-1]
	kind := strings.TrimPrefix(open.text, `\`) + strings.TrimPrefix(closed.text, `\`)
	switch kind {
	case "()", "[]", "(]", "[)", "{}":
	default:
		return nil, ""
	}
	depth := 0
	for i, t := range tokens {
		switch {
		case t.words:
		case opens[t.text]:
			depth++
		case closes[t.text]:
			if depth--; depth == 0 && i < n-1 {
				return nil, ""
			}
		}
	}
	if depth != 0 {
		return nil, ""
	}
	return tokens[1 : n-1], kind
}

// cutUnit cuts the words, degree or percent sign behind a number off.
func cutUnit(tokens []token) (number []token, unit string) {
	for i, t := range tokens {
		if t.words || t.is("°") || t.is("%") {
			return tokens[:i], plainText(tokens[i:])
		}
	}
	return tokens, ""
}

// evaluator reads an exact number:
//
//	sum = ["-"] product {("+"|"-") product},  product = power {["*"|"/"] power},
//	power = base ["^" exponent],  base = digits | \pi | \frac{sum}{sum} | \sqrt[n]{sum} | "(" sum ")"
//
// A whole number directly before a fraction of whole numbers is a mixed number. All methods return nil where
// there is no such number.
type evaluator struct {
	rest  []token
	depth int
}

func (e *evaluator) accept(text string) bool {
	if len(e.rest) > 0 && e.rest[0].is(text) {
		e.rest = e.rest[1:]
		return true
	}
	return false
}

func (e *evaluator) sum() surd {
	e.depth++
	defer func() { e.depth-- }()
	if e.depth > maxDepth {
		return nil
	}
	negative := e.accept("-")
	if !negative {
		e.accept("+")
	}
	total := e.product()
	if negative && total != nil {
		total = total.negated()
	}
	for total != nil && len(e.rest) > 0 {
		negative := e.accept("-")
		if !negative && !e.accept("+") {
			break
		}
		v := e.product()
		if v == nil {
			return nil
		}
		if negative {
			v = v.negated()
		}
		total = total.plus(v)
	}
	return total
}

func (e *evaluator) product() surd {
	total := e.power()
	for total != nil && len(e.rest) > 0 {
		var v surd
		switch {
		case e.accept("*"):
			v = e.power()
		case e.accept("/"):
			if v = e.power(); v != nil {
				v = v.inverse()
			}
		case e.rest[0].digit() || e.rest[0].is("+") || e.rest[0].is("-") || e.rest[0].is(")") || e.rest[0].is("}"):
			return total // two numbers side by side are no product
		default:
			v = e.power()
		}
		if v == nil {
			return nil
		}
		total = total.times(v)
	}
	return total
}

func (e *evaluator) power() surd {
	v := e.base()
	if v == nil || !e.accept("^") {
		return v
	}
	exponent, rest := argument(e.rest)
	e.rest = rest
	p, ok := atoi(plainText(exponent))
	if !ok {
		return nil
	}
	return v.power(p)
}

func (e *evaluator) base() surd {
	switch {
	case len(e.rest) == 0:
		return nil
	case e.rest[0].digit() || e.rest[0].is("."):
		return e.number()
	case e.accept(`\pi`):
		return surd{part{root: 1, pi: 1}: big.NewRat(1, 1)}
	case e.accept(`\frac`):
		over, under := e.inside(), e.inside()
		if over == nil || under == nil {
			return nil
		}
		if under = under.inverse(); under == nil {
			return nil
		}
		return over.times(under)
	case e.accept(`\sqrt`):
		n := 2
		if len(e.rest) > 2 && e.rest[0].is("[") && e.rest[1].digit() && e.rest[2].is("]") {
			n = int(e.rest[1].text[0] - '0')
			e.rest = e.rest[3:]
		}
		v := e.inside()
		if v == nil {
			return nil
		}
		return v.root(n)
	case e.rest[0].is("{"):
		return e.inside()
	case e.accept("("):
		v := e.sum()
		if v == nil || !e.accept(")") {
			return nil
		}
		return v
	}
	return nil
}

// inside evaluates an argument in braces, or of one token.
func (e *evaluator) inside() surd {
	inner, rest := argument(e.rest)
	e.rest = rest
	f := evaluator{rest: inner, depth: e.depth}
	if v := f.sum(); len(f.rest) == 0 {
		return v
	}
	return nil
}

func (e *evaluator) number() surd {
	var b strings.Builder
	for len(e.rest) > 0 && (e.rest[0].digit() || e.rest[0].is(".")) {
		b.WriteString(e.rest[0].text)
		e.rest = e.rest[1:]
	}
	if b.Len() > maxDigits {
		return nil
	}
	v := digitsOf(b.String())
	if v == nil || strings.Contains(b.String(), ".") || len(e.rest) == 0 || !e.rest[0].is(`\frac`) {
		return v
	}
	// A mixed number: both sides of the fraction are digits.
	over, rest := argument(e.rest[1:])
	under, _ := argument(rest)
	for _, t := range append(append([]token{}, over...), under...) {
		if !t.digit() {
			return v
		}
	}
	if f := e.base(); f != nil {
		return v.plus(f)
	}
	return nil
}
