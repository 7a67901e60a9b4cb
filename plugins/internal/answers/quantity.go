package answers

import (
	"math/big"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What is read at most: beyond these limits a number is none.
const (
	maxDigits   = 100  // of one number
	maxExponent = 400  // of ten, and of a power
	maxBits     = 4096 // of a power's value
)

// Quantity is a number as it is written, and the unit that stands beside it.
type Quantity struct {
	Number *big.Rat // exact: 3/4 of "3/4", 50 of "50%", 2000000 of "$2 million"
	Unit   Unit
}

// Tolerance is by how much two numbers may differ and be equal all the same: by the absolute one, in
// the reference's unit, or by the relative one, as a share of the reference. Nil stands for 0.
type Tolerance struct{ Abs, Rel *big.Rat }

// Equal says whether a completion's quantity is the reference's.
//
// Where both have a unit, the completion's number is converted to the reference's unit; units of
// another dimension are not equal. Where one of them has none, the numbers count as written, and a
// percentage also as hundredths: "50%" equals "50" and "0.5".
func (ref Quantity) Equal(have Quantity, tol Tolerance) bool {
	a, b := ref.Number, have.Number
	if ref.Unit.None() || have.Unit.None() {
		if tol.within(a, b) {
			return true
		}
		switch {
		case ref.Unit.percent():
			return tol.within(new(big.Rat).Mul(a, ref.Unit.factor), b)
		case have.Unit.percent():
			return tol.within(a, new(big.Rat).Mul(b, have.Unit.factor))
		}
		return false
	}
	f, ok := have.Unit.factorTo(ref.Unit)
	return ok && tol.within(a, f.Mul(f, b))
}

func (t Tolerance) within(ref, have *big.Rat) bool {
	if ref.Cmp(have) == 0 {
		return true
	}
	d := new(big.Rat).Sub(ref, have)
	d.Abs(d)
	if t.Abs != nil && d.Cmp(t.Abs) <= 0 {
		return true
	}
	if t.Rel == nil {
		return false
	}
	limit := new(big.Rat).Mul(t.Rel, ref)
	return d.Cmp(limit.Abs(limit)) <= 0
}

var typography = strings.NewReplacer(
	"−", "-", "﹣", "-", "－", "-", "⁄", "/", "∕", "/", "／", "/", "＄", "$", "％", "%", "．", ".",
	"\u00a0", " ", "\u2009", "\u202f", "\u2007", "\u202f", // spaces between groups of digits become one kind
	"０", "0", "１", "1", "２", "2", "３", "3", "４", "4", "５", "5", "６", "6", "７", "7", "８", "8", "９", "9")

// narrow is the space that may stand between groups of three digits.
const narrow = "\u202f"

var vulgar = map[rune]*big.Rat{
	'½': big.NewRat(1, 2), '⅓': big.NewRat(1, 3), '⅔': big.NewRat(2, 3), '¼': big.NewRat(1, 4), '¾': big.NewRat(3, 4),
	'⅕': big.NewRat(1, 5), '⅖': big.NewRat(2, 5), '⅗': big.NewRat(3, 5), '⅘': big.NewRat(4, 5), '⅙': big.NewRat(1, 6),
	'⅚': big.NewRat(5, 6), '⅐': big.NewRat(1, 7), '⅛': big.NewRat(1, 8), '⅜': big.NewRat(3, 8), '⅝': big.NewRat(5, 8),
	'⅞': big.NewRat(7, 8), '⅑': big.NewRat(1, 9), '⅒': big.NewRat(1, 10), '↉': new(big.Rat),
}

var superscript = map[rune]byte{'⁰': '0', '¹': '1', '²': '2', '³': '3', '⁴': '4', '⁵': '5', '⁶': '6', '⁷': '7', '⁸': '8', '⁹': '9', '⁻': '-'}

var scales = map[string]*big.Rat{
	"thousand": big.NewRat(1e3, 1), "million": big.NewRat(1e6, 1), "billion": big.NewRat(1e9, 1), "trillion": big.NewRat(1e12, 1),
}

// found is a quantity and where it stands in its line.
type found struct {
	Quantity
	begin, end int
}

// scanner goes through a line from number to number.
type scanner struct {
	line    string
	at      int
	dollars int  // dollar signs before at: behind an odd number one may end TeX's mathematics
	inWord  bool // the character before at belongs to a word or a number
}

// next finds the next quantity of the line; false where there is none. Digits inside a word ("cm2",
// "x1") are none, and neither is what has points, commas or colons in other places than a number has
// them ("1.2.3", "3,14", "2:30", "1/2/2024"): it is passed over as a whole.
func (s *scanner) next() (found, bool) {
	for s.at < len(s.line) {
		rest := s.line[s.at:]
		r, size := utf8.DecodeRuneInString(rest)
		begins := isDigit(rest[0]) || vulgar[r] != nil || rest[0] == '.' && len(rest) > 1 && isDigit(rest[1])
		if begins && !s.inWord {
			v, n := readNumber(rest)
			if v != nil {
				q := s.quantity(v, n)
				s.skip(q.end)
				return q, true
			}
			s.skip(s.at + n)
			continue
		}
		s.skip(s.at + size)
		s.inWord = unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_' || begins
	}
	return found{}, false
}

// skip goes on to a place behind a number.
func (s *scanner) skip(to int) {
	s.dollars += strings.Count(s.line[s.at:to], "$")
	s.at, s.inWord = to, true
}

// quantity puts the number of n bytes that stands here together with its sign and the units around it.
func (s *scanner) quantity(v *big.Rat, n int) found {
	line, at := s.line, s.at
	inTeX := s.dollars%2 == 1
	q := found{Quantity{Number: v}, at, at + n}
	before := line[:at]
	prefix, signed := Unit{}, false
	for range 2 { // "-$5" and "$-5"
		if r, size := utf8.DecodeLastRuneInString(strings.TrimRight(before, " ")); strings.ContainsRune("$€£¥₹", r) && size > 0 && prefix.None() {
			prefix = units[string(r)]
			before = strings.TrimRight(before, " ")
			before = strings.TrimSuffix(before[:len(before)-size], `\`)
			q.begin = len(before)
			continue
		}
		if strings.HasSuffix(before, "-") && !signed {
			signed = true
			r, _ := utf8.DecodeLastRuneInString(before[:len(before)-1])
			if !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != ')' {
				v.Neg(v)
				before = before[:len(before)-1]
				q.begin = len(before)
			}
		}
	}
	end := q.end
	if w, n := word(strings.TrimPrefix(line[end:], " ")); scales[strings.ToLower(w)] != nil {
		v.Mul(v, scales[strings.ToLower(w)])
		end += len(line[end:]) - len(strings.TrimPrefix(line[end:], " ")) + n
	}
	suffix, n := readUnit(line[end:])
	// A dollar sign behind may be the end of TeX's mathematics.
	if suffix.dim.named == "$" && strings.HasPrefix(line[end:], "$") && inTeX {
		suffix, n = Unit{}, 0
	}
	closes := strings.HasPrefix(strings.TrimLeft(line[end+n:], " "), "$")
	switch {
	case !suffix.None():
		q.Unit, end = suffix, end+n
	case prefix.dim.named == "$" && closes && inTeX:
	default:
		q.Unit = prefix
		if over, n := per(line[end:], prefix); n > 0 {
			q.Unit, end = over, end+n
		}
	}
	q.end = end
	q.addSmaller(line)
	return q
}

// per reads what a price is for: "/hour" or " per hour" behind "$5".
func per(text string, price Unit) (Unit, int) {
	if price.None() {
		return Unit{}, 0
	}
	for _, sign := range []string{"/", " per ", " an ", " a "} {
		if rest, ok := strings.CutPrefix(text, sign); ok {
			if v, n := readFactor(rest); !v.None() {
				if u, ok := price.over(v); ok {
					return u, len(sign) + n
				}
			}
		}
	}
	return Unit{}, 0
}

// addSmaller adds what follows in smaller units of the same kind: the 30 min of "2 h 30 min".
func (q *found) addSmaller(line string) {
	for q.Unit.dim == length || q.Unit.dim == mass || q.Unit.dim == clock {
		rest := line[q.end:]
		for _, sign := range []string{",", " and", " "} {
			rest = strings.TrimPrefix(rest, sign)
		}
		at := len(line) - len(rest)
		if rest == "" || !isDigit(rest[0]) || at == q.end {
			return
		}
		v, n := readNumber(rest)
		if v == nil {
			return
		}
		u, m := readUnit(rest[n:])
		if u.None() || u.dim != q.Unit.dim || u.factor.Cmp(q.Unit.factor) >= 0 {
			return
		}
		f, _ := u.factorTo(q.Unit)
		f.Mul(f, v)
		if q.Number.Sign() < 0 {
			f.Neg(f)
		}
		q.Number.Add(q.Number, f)
		q.end = at + n + m
	}
}

// readNumber reads a number without sign at the start of a text: a decimal with or without groups of
// digits, a fraction, a mixed number, a power, each perhaps times a power of ten. The value is nil
// where what stands there is no number; n is its length all the same.
func readNumber(text string) (v *big.Rat, n int) {
	v, n, whole := decimal(text)
	if v == nil {
		return nil, n
	}
	if f, m := fraction(text[n:]); whole && f != nil { // "1 1/2", "1½"
		v, n = new(big.Rat).Add(v, f), n+m
	} else if m := over(text[n:]); m > 0 && n > 0 {
		d, k, _ := decimal(text[n+m:])
		if d == nil || d.Sign() == 0 {
			return nil, n + m + k
		}
		v, n = new(big.Rat).Quo(v, d), n+m+k
	}
	if n < len(text) && strings.IndexByte("/:.,", text[n]) >= 0 && n+1 < len(text) && isDigit(text[n+1]) {
		return nil, n + run(text[n:])
	}
	if p, m, ok := power(text[n:]); m > 0 {
		if v = raise(v, p); !ok || v == nil {
			return nil, n + m
		}
		n += m
	}
	if p, m := timesTen(text[n:]); m > 0 {
		ten := raise(big.NewRat(10, 1), p)
		if ten == nil {
			return nil, n + m
		}
		v, n = ten.Mul(ten, v), n+m
	}
	return v, n
}

var separators = strings.NewReplacer(",", "", narrow, "", "'", "", "’", "")

// decimal reads digits, or one of Unicode's fractions. whole says that there is neither.
func decimal(text string) (v *big.Rat, n int, whole bool) {
	if r, size := utf8.DecodeRuneInString(text); vulgar[r] != nil {
		return new(big.Rat).Set(vulgar[r]), size, false
	}
	n = digits(text)
	n = groups(text, n)
	whole = n > 0
	if n < len(text) && text[n] == '.' {
		if m := digits(text[n+1:]); m > 0 {
			n, whole = n+1+m, false
		}
	}
	if n == 0 {
		return nil, 0, false
	}
	plain := separators.Replace(text[:n])
	if len(plain) > maxDigits+1 {
		return nil, n, false
	}
	if n < len(text) && (text[n] == ',' || text[n] == '.') && n+1 < len(text) && isDigit(text[n+1]) {
		return nil, n + run(text[n:]), false
	}
	v, ok := new(big.Rat).SetString(plain)
	if !ok {
		return nil, n, false
	}
	return v, n, whole
}

// grouped is a number with separators: groups of three, each behind the same one, or of two as in
// "1,00,000" with the last of three.
var grouped = regexp.MustCompile("^[0-9]{1,3}(?:(?:,[0-9]{3})+|(?:,[0-9]{2})+,[0-9]{3}|(?:" + narrow + "[0-9]{3})+|(?:['’][0-9]{3})+)")

// groups goes on from n digits through groups of them; it returns n where there are none.
func groups(text string, n int) int {
	if n == 0 || n > 3 {
		return n
	}
	m := len(grouped.FindString(clip(text)))
	if m > n && (m == len(text) || !isDigit(text[m])) {
		return m
	}
	return n
}

// clip bounds what an expression is matched against.
func clip(text string) string { return text[:min(len(text), 4*maxDigits)] }

// fraction reads the part of a mixed number that is below 1: " 1/2", "½" or " ½".
func fraction(text string) (*big.Rat, int) {
	rest := strings.TrimPrefix(text, " ")
	skip := len(text) - len(rest)
	if r, size := utf8.DecodeRuneInString(rest); vulgar[r] != nil {
		return vulgar[r], skip + size
	}
	a := digits(rest)
	if skip == 0 || a == 0 || a > 4 || a >= len(rest) || rest[a] != '/' {
		return nil, 0
	}
	b := digits(rest[a+1:])
	if b == 0 || b > 4 {
		return nil, 0
	}
	v, ok := new(big.Rat).SetString(rest[:a+1+b])
	if !ok || v.Cmp(big.NewRat(1, 1)) >= 0 {
		return nil, 0
	}
	return v, skip + a + 1 + b
}

// over is the length of a fraction's stroke, if a number follows it.
func over(text string) int {
	for _, stroke := range []string{"/", " / ", "/ ", " /"} {
		if rest, ok := strings.CutPrefix(text, stroke); ok && rest != "" && isDigit(rest[0]) {
			return len(stroke)
		}
	}
	return 0
}

var caret = regexp.MustCompile(`^\^(?:(-?[0-9]+)|\{(-?[0-9]+)\}|\((-?[0-9]+)\))`)

// power reads "^2", "^{-2}", "^(2)" or "²" and returns the exponent; ok is false where it is out of range.
func power(text string) (p, n int, ok bool) {
	if m := caret.FindStringSubmatch(clip(text)); m != nil {
		p, ok = atoi(m[1] + m[2] + m[3])
		return p, len(m[0]), ok
	}
	var small []byte
	for r, size := utf8.DecodeRuneInString(text); superscript[r] != 0; r, size = utf8.DecodeRuneInString(text[n:]) {
		small = append(small, superscript[r])
		n += size
	}
	p, ok = atoi(string(small))
	return p, n, ok
}

// timesTen reads "e5", "E-5", "×10^5" or "* 10⁵" and returns the exponent.
func timesTen(text string) (p, n int) {
	if text == "" {
		return 0, 0
	}
	if text[0] == 'e' || text[0] == 'E' {
		rest := text[1:]
		sign := 0
		if rest != "" && (rest[0] == '+' || rest[0] == '-') {
			sign = 1
		}
		m := digits(rest[sign:])
		if r, _ := utf8.DecodeRuneInString(rest[sign+m:]); m == 0 || unicode.IsLetter(r) {
			return 0, 0
		}
		p, ok := atoi(strings.TrimPrefix(rest[:sign+m], "+"))
		if !ok {
			p = maxExponent + 1
		}
		return p, 1 + sign + m
	}
	rest := strings.TrimPrefix(text, " ")
	for _, sign := range []string{"×", "*", "·", "x"} {
		after, ok := strings.CutPrefix(rest, sign)
		if !ok {
			continue
		}
		if after, ok = strings.CutPrefix(strings.TrimPrefix(after, " "), "10"); !ok {
			continue
		}
		p, m, ok := power(after)
		if m == 0 {
			return 0, 0
		}
		if !ok {
			p = maxExponent + 1
		}
		return p, len(text) - len(after) + m
	}
	return 0, 0
}

// raise is v to the p; nil where it is too large, or 0 to a negative power.
func raise(v *big.Rat, p int) *big.Rat {
	n := max(p, -p)
	if n > maxExponent || n*max(v.Num().BitLen(), v.Denom().BitLen()) > maxBits || v.Sign() == 0 && p < 0 {
		return nil
	}
	e := big.NewInt(int64(n))
	out := new(big.Rat).SetFrac(new(big.Int).Exp(v.Num(), e, nil), new(big.Int).Exp(v.Denom(), e, nil))
	if p < 0 {
		out.Inv(out)
	}
	return out
}

// atoi reads an exponent; false where it is none or out of range.
func atoi(text string) (int, bool) {
	unsigned := strings.TrimPrefix(text, "-")
	if unsigned == "" || len(unsigned) > 4 || digits(unsigned) != len(unsigned) {
		return 0, false
	}
	p := 0
	for _, c := range []byte(unsigned) {
		p = 10*p + int(c-'0')
	}
	if len(unsigned) < len(text) {
		p = -p
	}
	return p, p >= -maxExponent && p <= maxExponent
}

// run is the length of what looks like parts of a number.
func run(text string) int {
	n := 0
	for n < len(text) && (isDigit(text[n]) || strings.IndexByte(".,:/", text[n]) >= 0 && n+1 < len(text) && isDigit(text[n+1])) {
		n++
	}
	return n
}

func digits(text string) int {
	n := 0
	for n < len(text) && isDigit(text[n]) {
		n++
	}
	return n
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
