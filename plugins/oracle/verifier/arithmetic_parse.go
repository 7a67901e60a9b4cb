package verifier

import (
	"math/big"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What is read at most: a text beyond these limits has no step and no number there.
const (
	maxText     = 64 << 10 // bytes of a completion or a prompt
	maxDigits   = 40       // of one number
	maxEquation = 128      // bytes of one expression, spaces included
	maxOperands = 32       // of one expression
	maxDepth    = 16       // of brackets and signs
	maxSteps    = 1000     // of a reference
)

// expression is what stands to the left of a step's "=".
type expression struct {
	value     *big.Rat // exact; nil where it divides by zero
	operands  []*big.Rat
	operators int // + - * / between two operands
}

// step is one "expression = value" of a completion.
type step struct {
	expression
	claimed *big.Rat // the value as written
	text    string   // the expression without spaces and label
}

// holds says whether the step's own arithmetic is exactly right.
func (s step) holds() bool { return s.value != nil && s.value.Cmp(s.claimed) == 0 }

// plain writes the typographic operators as ASCII.
func plain(text string) string {
	return strings.NewReplacer("×", "*", "·", "*", "÷", "/", "−", "-").Replace(text)
}

// lines are the fragments of a text in which steps stand: split at ';' and at newlines.
func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '\n' })
}

// parseStep reads one fragment: words or a label, an expression with at least one operator, one
// "=", a value with or without a unit. It returns false for anything else.
func parseStep(fragment string) (step, bool) {
	left, right, _ := strings.Cut(fragment, "=")
	claimed, ok := parseValue(right) // a second "=" is no part of a value
	if !ok {
		return step{}, false
	}
	text, e, ok := parseEquation(left)
	return step{expression: e, claimed: claimed, text: strings.ReplaceAll(text, " ", "")}, ok
}

// parseEquation reads the expression at the end of a text, after any words. Where the words end
// in numbers ("step 2. 17+45"), it is the longest one that begins after a space or a bracket.
func parseEquation(text string) (string, expression, bool) {
	text = strings.ReplaceAll(text, "\t", " ")
	at := len(text)
	for at > 0 && strings.IndexByte("0123456789.,+-*/() ", text[at-1]) >= 0 {
		at--
	}
	text = text[at:]
	if len(text) > maxEquation {
		return "", expression{}, false
	}
	for {
		text = strings.TrimLeft(text, " ")
		p := parser{rest: text}
		if v, ok := p.sum(); ok && p.next() == 0 && p.operators > 0 {
			p.value = v
			return text, p.expression, true
		}
		begin := strings.IndexByte(text, ' ')
		if strings.HasPrefix(text, "(") { // as in "(17+45=62)"
			begin = 0
		}
		if begin < 0 {
			return "", expression{}, false
		}
		text = text[begin+1:]
	}
}

// parser is a recursive descent over one expression:
//
//	sum = product {("+"|"-") product},  product = factor {("*"|"/") factor},
//	factor = number | "-" factor | "(" sum ")"
//
// A sign stands directly before what it negates, so that the dash of a list is none. The methods
// return false where the text is no expression, and a nil value after a division by zero.
type parser struct {
	rest  string
	depth int
	expression
}

// next skips spaces and returns the byte that follows; 0 at the end.
func (p *parser) next() byte {
	p.rest = strings.TrimLeft(p.rest, " ")
	if p.rest == "" {
		return 0
	}
	return p.rest[0]
}

func (p *parser) sum() (*big.Rat, bool) {
	return p.chain('+', '-', p.product)
}

func (p *parser) product() (*big.Rat, bool) {
	return p.chain('*', '/', p.factor)
}

// chain reads operands with either of two operators between them, from left to right.
func (p *parser) chain(op1, op2 byte, operand func() (*big.Rat, bool)) (*big.Rat, bool) {
	total, ok := operand()
	for ok {
		op := p.next()
		if op != op1 && op != op2 {
			break
		}
		p.rest = p.rest[1:]
		p.operators++
		var v *big.Rat
		if v, ok = operand(); ok {
			total = apply(op, total, v)
		}
	}
	return total, ok
}

func apply(op byte, a, b *big.Rat) *big.Rat {
	switch {
	case a == nil || b == nil || op == '/' && b.Sign() == 0:
		return nil
	case op == '+':
		return new(big.Rat).Add(a, b)
	case op == '-':
		return new(big.Rat).Sub(a, b)
	case op == '*':
		return new(big.Rat).Mul(a, b)
	default:
		return new(big.Rat).Quo(a, b)
	}
}

func (p *parser) factor() (*big.Rat, bool) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxDepth || len(p.operands) >= maxOperands {
		return nil, false
	}
	switch c := p.next(); {
	case c == '(':
		p.rest = p.rest[1:]
		v, ok := p.sum()
		if !ok || p.next() != ')' {
			return nil, false
		}
		p.rest = p.rest[1:]
		return v, true
	case c == '-' && !strings.HasPrefix(p.rest, "- "):
		p.rest = p.rest[1:]
		v, ok := p.factor()
		if ok && v != nil {
			v = new(big.Rat).Neg(v)
		}
		return v, ok
	default:
		v, n := parseNumber(p.rest)
		if v == nil {
			return nil, false
		}
		p.rest = p.rest[n:]
		p.operands = append(p.operands, v)
		return v, true
	}
}

// parseValue reads a number with an optional currency sign before it and a unit or words after
// it. It returns false where there is none, or where arithmetic goes on after it.
func parseValue(text string) (*big.Rat, bool) {
	text = strings.TrimSpace(text)
	unsigned := strings.TrimPrefix(text, "-")
	for _, currency := range []string{"$", "€", "£", "¥"} {
		unsigned = strings.TrimPrefix(unsigned, currency)
	}
	v, n := parseNumber(unsigned)
	if v == nil {
		return nil, false
	}
	rest := strings.TrimSpace(unsigned[n:])
	if rest != "" && strings.IndexByte("0123456789+-*/^(=", rest[0]) >= 0 {
		return nil, false
	}
	if len(rest) > 1 && (rest[0] == '.' || rest[0] == ',') && isDigit(rest[1]) {
		return nil, false
	}
	if strings.HasPrefix(text, "-") {
		v.Neg(v)
	}
	return v, true
}

// parseNumber reads a decimal at the start of a text, with or without commas between groups of
// three digits, and its length in bytes. The value is nil where there is no number or it has too
// many digits.
func parseNumber(text string) (*big.Rat, int) {
	digits := func(from int) int {
		i := from
		for i < len(text) && isDigit(text[i]) {
			i++
		}
		return i
	}
	n := digits(0)
	if n == 0 {
		return nil, 0
	}
	if n <= 3 {
		for n < len(text) && text[n] == ',' && digits(n+1) == n+4 {
			n += 4
		}
	}
	if n < len(text) && text[n] == '.' {
		if end := digits(n + 1); end > n+1 {
			n = end
		}
	}
	decimal := strings.ReplaceAll(text[:n], ",", "")
	if len(strings.Replace(decimal, ".", "", 1)) > maxDigits {
		return nil, n
	}
	v, _ := new(big.Rat).SetString(decimal)
	return v, n
}

// numbers are all the numbers of a text, in order. Digits inside a word ("cm2") are none, and
// neither is a fraction without a digit before the point.
func numbers(text string) []*big.Rat {
	var found []*big.Rat
	inWord, sign := false, false
	for i := 0; i < len(text); {
		if isDigit(text[i]) && !inWord {
			v, n := parseNumber(text[i:])
			if v != nil {
				if sign {
					v.Neg(v)
				}
				found = append(found, v)
			}
			i += n
			inWord, sign = true, false // "1.2.3" and "3m2" are one number each
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		before := inWord
		// A point goes on with what it follows, so that the 3 of "1.2.3" is no number.
		inWord = unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' || r == '.' && i+1 < len(text) && isDigit(text[i+1])
		sign = r == '-' && !before
		i += size
	}
	return found
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// finalAnswer is the value after a text's last "="; in a text without one, its last number. It is
// nil where there is none: an equation that was cut off gives no answer.
func finalAnswer(text string) *big.Rat {
	if at := strings.LastIndexByte(text, '='); at >= 0 {
		last, _, _ := strings.Cut(text[at+1:], ";")
		last, _, _ = strings.Cut(last, "\n")
		v, _ := parseValue(last)
		return v
	}
	if all := numbers(text); len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}
