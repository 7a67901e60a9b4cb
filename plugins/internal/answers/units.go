package answers

import (
	"math/big"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Unit is a unit that the table knows; the zero Unit is none.
//
// Units of one dimension are converted by an exact factor. What has no exact factor to anything
// else (degrees Celsius, dollars, a ton of no stated kind) is a dimension of its own.
type Unit struct {
	dim    dimension
	factor *big.Rat // of the unit in metres, grams, seconds, and powers of these; nil: no unit
	other  string   // the dimension that the same word may mean too, as the pound does
}

// dimension is powers of length, mass and time, and anything else by name.
type dimension struct {
	length, mass, time int
	named              string
}

// None says that there is no unit.
func (u Unit) None() bool { return u.factor == nil }

func (u Unit) percent() bool { return u.dim.named == "%" }

// factorTo returns by what a number in u is multiplied to be in v; false where it cannot be.
func (u Unit) factorTo(v Unit) (*big.Rat, bool) {
	same := u.dim == v.dim
	if u.other != "" && v.dim == (dimension{named: u.other}) || v.other != "" && u.dim == (dimension{named: v.other}) {
		return big.NewRat(1, 1), true
	}
	if !same {
		return nil, false
	}
	return new(big.Rat).Quo(u.factor, v.factor), true
}

// over is the unit u/v; false where v is no plain unit (per dollar) or either is a percentage.
func (u Unit) over(v Unit) (Unit, bool) {
	if v.dim.named != "" || u.percent() {
		return Unit{}, false
	}
	d := u.dim
	d.length, d.mass, d.time = d.length-v.dim.length, d.mass-v.dim.mass, d.time-v.dim.time
	return Unit{dim: d, factor: new(big.Rat).Quo(u.factor, v.factor)}, true
}

// power is a length's square or cube; false for anything else.
func (u Unit) power(n int) (Unit, bool) {
	if u.dim != (dimension{length: 1}) || n < 1 || n > 3 {
		return Unit{}, false
	}
	f := big.NewRat(1, 1)
	for range n {
		f.Mul(f, u.factor)
	}
	return Unit{dim: dimension{length: n}, factor: f}, true
}

// table lists the units: the exact factor, the spellings that stand for it. Lower case stands for any
// case, but of a spelling of one letter.
//
// Sources: SI brochure (9th edition); the international yard and pound agreement of 1959 (1 yd =
// 0.9144 m, 1 lb = 453.59237 g); NIST Handbook 44, Appendix C (US gallon of 231 cubic inches).
var table = []struct {
	dim       dimension
	factor    string
	spellings string
}{
	{length, "1", "m meter metre meters metres"},
	{length, "1000", "km kilometer kilometre kilometers kilometres kms"},
	{length, "1/10", "dm decimeter decimetre decimeters decimetres"},
	{length, "1/100", "cm centimeter centimetre centimeters centimetres cms"},
	{length, "1/1000", "mm millimeter millimetre millimeters millimetres"},
	{length, "1/1000000", "µm μm micrometer micrometre micrometers micrometres micron microns"},
	{length, "1/1000000000", "nm nanometer nanometre nanometers nanometres"},
	{length, "0.0254", "in inch inches"},
	{length, "0.3048", "ft foot feet"},
	{length, "0.9144", "yd yds yard yards"},
	{length, "1609.344", "mi mile miles"},
	{mass, "1", "g gram grams gramme grammes"},
	{mass, "1000", "kg kgs kilo kilos kilogram kilograms"},
	{mass, "1/1000", "mg milligram milligrams"},
	{mass, "1/1000000", "µg μg microgram micrograms"},
	{mass, "1000000", "t tonne tonnes"},
	{mass, "453.59237", "lb lbs"},
	{mass, "28.349523125", "oz ounce ounces"},
	{mass, "6350.29318", "stone stones"},
	{clock, "1", "s sec secs second seconds"},
	{clock, "1/1000", "ms millisecond milliseconds"},
	{clock, "1/1000000", "µs μs microsecond microseconds"},
	{clock, "1/1000000000", "ns nanosecond nanoseconds"},
	{clock, "60", "min mins minute minutes"},
	{clock, "3600", "h hr hrs hour hours"},
	{clock, "86400", "day days"},
	{clock, "604800", "week weeks wk wks"},
	{volume, "1/1000", "l L liter litre liters litres"},
	{volume, "1/1000000", "ml milliliter millilitre milliliters millilitres cc"},
	{volume, "1/100000", "cl centiliter centilitre centiliters centilitres"},
	{volume, "1/10000", "dl deciliter decilitre deciliters decilitres"},
	{volume, "0.003785411784", "gal gallon gallons"},
	{volume, "0.000946352946", "qt quart quarts"},
	{volume, "0.000473176473", "pt pint pints"},
	{volume, "0.0002365882365", "cup cups"},
	{volume, "0.00001478676478125", "tbsp tablespoon tablespoons"},
	{volume, "0.00000492892159375", "tsp teaspoon teaspoons"},
	{area, "10000", "ha hectare hectares"},
	{area, "4046.8564224", "acre acres"},
	{dimension{named: "month"}, "1", "month months"},
	{dimension{named: "month"}, "12", "year years yr yrs"},
	{dimension{named: "ton"}, "1", "ton tons"},
	{dimension{named: "$"}, "1", "$ dollar dollars usd"},
	{dimension{named: "$"}, "1/100", "¢ cent cents"},
	{dimension{named: "€"}, "1", "€ euro euros eur"},
	{dimension{named: "£"}, "1", "£ gbp"},
	{dimension{named: "£"}, "1/100", "pence"},
	{dimension{named: "¥"}, "1", "¥ yen jpy"},
	{dimension{named: "₹"}, "1", "₹ rupee rupees inr"},
	{dimension{named: "%"}, "1/100", "% percent"},
	{dimension{named: "%"}, "1/1000", "‰"},
	{dimension{named: "°"}, "1", "° degree degrees deg"},
	{dimension{named: "°C"}, "1", "℃ celsius"},
	{dimension{named: "°F"}, "1", "℉ fahrenheit"},
}

var (
	length = dimension{length: 1}
	area   = dimension{length: 2}
	volume = dimension{length: 3}
	mass   = dimension{mass: 1}
	clock  = dimension{time: 1}
)

// units has the table by spelling.
var units = func() map[string]Unit {
	out := map[string]Unit{}
	for _, row := range table {
		f, _ := new(big.Rat).SetString(row.factor)
		for spelling := range strings.FieldsSeq(row.spellings) {
			out[spelling] = Unit{dim: row.dim, factor: f}
		}
	}
	for _, pound := range []string{"pound", "pounds"} {
		out[pound] = Unit{dim: mass, factor: out["lb"].factor, other: "£"}
	}
	for name, parts := range map[string][2]string{"mph": {"mi", "h"}, "kph": {"km", "h"}, "kmh": {"km", "h"}} {
		out[name], _ = out[parts[0]].over(out[parts[1]])
	}
	return out
}()

// lookup finds a spelling; letters in capitals are another unit only where there is one letter.
func lookup(word string) (Unit, bool) {
	if u, ok := units[word]; ok {
		return u, true
	}
	if utf8.RuneCountInString(word) < 2 {
		return Unit{}, false
	}
	u, ok := units[strings.ToLower(word)]
	return u, ok
}

// maxWord is the longest word, in bytes, that is looked up.
const maxWord = 24

// word reads the letters at the start of a text, and its length; a sign of currency or of degrees is a
// word by itself.
func word(text string) (string, int) {
	r, size := utf8.DecodeRuneInString(text)
	if strings.ContainsRune("$€£¥₹¢%‰°℃℉", r) && size > 0 {
		return text[:size], size
	}
	n := 0
	for n < len(text) && n <= maxWord {
		r, size := utf8.DecodeRuneInString(text[n:])
		if !unicode.IsLetter(r) {
			break
		}
		n += size
	}
	if n > maxWord {
		return "", 0
	}
	return text[:n], n
}

// readUnit reads a unit at the start of a text, behind at most one space or hyphen: "cm", "square
// feet", "sq. ft", "m^2", "m²", "km/h", "dollars per hour". n is its length in bytes.
func readUnit(text string) (u Unit, n int) {
	u, n = readFactor(text)
	if u.None() {
		return Unit{}, 0
	}
	rest := text[n:]
	skip := 0
	switch {
	case strings.HasPrefix(rest, "/"):
		skip = 1
	case strings.HasPrefix(rest, " / "):
		skip = 3
	case strings.HasPrefix(rest, " per "):
		skip = 5
	case strings.HasPrefix(rest, " an "), strings.HasPrefix(rest, " a "):
		skip = strings.IndexByte(rest[1:], ' ') + 2
	default:
		return u, n
	}
	if v, m := readFactor(rest[skip:]); !v.None() {
		if ratio, ok := u.over(v); ok {
			return ratio, n + skip + m
		}
	}
	return u, n
}

func readFactor(text string) (Unit, int) {
	at := 0
	if strings.HasPrefix(text, " ") || strings.HasPrefix(text, "-") {
		at = 1
	}
	w, n := word(text[at:])
	at += n
	raised := 0
	switch strings.ToLower(w) {
	case "":
		return Unit{}, 0
	case "square", "sq":
		raised = 2
	case "cubic", "cu":
		raised = 3
	case "fluid", "fl":
		return fluidOunce(text, at)
	case "metric":
		if w, n := word(strings.TrimPrefix(text[at:], " ")); strings.EqualFold(w, "ton") || strings.EqualFold(w, "tons") {
			return units["t"], at + 1 + n
		}
		return Unit{}, 0
	case "per":
		if w, n := word(strings.TrimPrefix(text[at:], " ")); strings.EqualFold(w, "cent") {
			return units["%"], at + 1 + n
		}
		return Unit{}, 0
	}
	if raised > 0 {
		at += len(text[at:]) - len(strings.TrimPrefix(text[at:], "."))
		at += len(text[at:]) - len(strings.TrimPrefix(text[at:], " "))
		w, n = word(text[at:])
		at += n
	}
	u, ok := lookup(w)
	if !ok {
		return Unit{}, 0
	}
	if raised > 0 {
		u, ok = u.power(raised)
		if !ok {
			return Unit{}, 0
		}
		return u, at
	}
	if p, n := exponent(text[at:]); n > 0 {
		if v, ok := u.power(p); ok {
			return v, at + n
		}
	}
	if w == "in" && !ends(text[at:]) { // "5 in total" has no inches
		return Unit{}, 0
	}
	if u.dim.named == "°" {
		w, n := word(strings.TrimPrefix(text[at:], " "))
		skip := len(text[at:]) - len(strings.TrimPrefix(text[at:], " "))
		if w == "C" || strings.EqualFold(w, "celsius") {
			return units["℃"], at + skip + n
		}
		if w == "F" || strings.EqualFold(w, "fahrenheit") {
			return units["℉"], at + skip + n
		}
	}
	return u, at
}

func fluidOunce(text string, at int) (Unit, int) {
	rest := strings.TrimPrefix(strings.TrimPrefix(text[at:], "."), " ")
	w, n := word(rest)
	if u, ok := lookup(w); !ok || u.dim != mass || u.factor.Cmp(units["oz"].factor) != 0 {
		return Unit{}, 0
	}
	// 1 US fluid ounce is 1/128 gallon.
	f := new(big.Rat).Quo(units["gal"].factor, big.NewRat(128, 1))
	return Unit{dim: volume, factor: f}, len(text) - len(rest) + n
}

// exponent reads "^2", "^{2}", "²" or "2" directly behind a unit.
func exponent(text string) (p, n int) {
	for _, form := range []struct {
		text string
		p    int
	}{{"^{2}", 2}, {"^{3}", 3}, {"^2", 2}, {"^3", 3}, {"²", 2}, {"³", 3}, {"2", 2}, {"3", 3}} {
		if strings.HasPrefix(text, form.text) {
			return form.p, len(form.text)
		}
	}
	return 0, 0
}

// ends says whether a sentence or a line ends here.
func ends(text string) bool {
	text = strings.TrimLeft(text, " ")
	return text == "" || strings.IndexByte(".,;:)]}!?$*\n", text[0]) >= 0
}
