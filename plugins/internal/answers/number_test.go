package answers

import (
	"math/big"
	"strings"
	"testing"
	"time"
)

func rat(t *testing.T, text string) *big.Rat {
	t.Helper()
	if text == "" {
		return nil
	}
	v, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Fatalf("%q is no rational", text)
	}
	return v
}

// The number that a completion states, as a rational; "" where it states none.
func TestNumber(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		// Where it stands.
		"behind ####":                             {"5 and 6 make\n#### 11\nBye 7.", "11"},
		"the last ####":                           {"#### 3\n#### 4", "4"},
		"#### comes before a phrase":              {"The answer is 3.\n#### 4", "4"},
		"nothing behind ####":                     {"The answer is 3.\n####", ""},
		"words behind ####":                       {"3\n#### none", ""},
		"a phrase":                                {"The answer is 42. There were 7 steps.", "42"},
		"a phrase in capitals":                    {"THE ANSWER IS 42 (of 50)", "42"},
		"the last phrase":                         {"The answer is 1. No: the answer is 2.", "2"},
		"a phrase with a colon":                   {"Answer: 42", "42"},
		"a phrase in bold":                        {"**Answer:** **42**", "42"},
		"a phrase in bold without the colon":      {"**Answer**: 42", "42"},
		"a phrase and then a line":                {"The final answer is:\n\n42\n", "42"},
		"a phrase comes before a box":             {`\boxed{3}, so the answer is 4`, "4"},
		"a box within a phrase":                   {`The answer is $\boxed{42}$.`, "42"},
		"a box":                                   {`So 3 and \boxed{42} follow from 5.`, "42"},
		"the last box":                            {`\boxed{1} \boxed{2}`, "2"},
		"a box that is not closed is none":        {`It is 7 \boxed{42`, "42"},
		"an equation in the answer":               {"The answer is 3 + 4 = 7.", "7"},
		"two equations in the answer":             {"The answer is x = 3 + 4 = 7 cm", "7"},
		"an equation after the answer":            {"The answer is 7, for 3+4 = 7.", "7"},
		"the last number":                         {"first 62, then 70 apples.", "70"},
		"the last number, lines of words behind":  {"70 apples\nare\nleft\n", "70"},
		"no number":                               {"seventy", ""},
		"nothing":                                 {"", ""},
		"white space":                             {" \n\t\n", ""},
		"digits of a word are none":               {"70 in H2O, x1 and cm2", "70"},
		"an ordinal":                              {"the 3rd", "3"},
		"a word of underscores":                   {"9 a_1", "9"},
		"a phrase without a number":               {"The answer is unknown. 5", "5"},
		"a phrase whose line has none":            {"The answer is unknown.\n5", ""},
		"a range's second number is not negative": {"3-5", "5"},
		"a dash behind a word is no sign":         {"GPT-4", "4"},
		// Signs.
		"negative":                   {"it is -5", "-5"},
		"Unicode's minus":            {"it is −5", "-5"},
		"a full-width minus":         {"－５", "-5"},
		"a plus":                     {"it is +5", "5"},
		"one sign only":              {"--5", "-5"},
		"minus before the currency":  {"it is -$5", "-5"},
		"minus behind the currency":  {"it is $-5", "-5"},
		"a bullet's dash is no sign": {"- 5", "5"},
		"a difference":               {"(3)-5", "5"},
		// Decimals and groups.
		"a decimal":                          {"3.14", "157/50"},
		"a point first":                      {"it is .5", "1/2"},
		"a negative one, point first":        {"it is -.5", "-1/2"},
		"a full stop behind":                 {"it is 5.", "5"},
		"trailing zeros":                     {"5.00", "5"},
		"leading zeros":                      {"007", "7"},
		"commas":                             {"1,234,567.5", "2469135/2"},
		"commas in India":                    {"12,34,567", "1234567"},
		"mixed groups":                       {"7 or 1,23,4567", "7"},
		"narrow spaces":                      {"1\u202f234\u202f567", "1234567"},
		"thin spaces":                        {"1\u2009234", "1234"},
		"apostrophes":                        {"1'234'567", "1234567"},
		"a space separates":                  {"1 234", "234"},
		"a group of two is passed over":      {"7 or 1,23", "7"},
		"a group of four is passed over":     {"7 or 1,2345", "7"},
		"a list":                             {"1, 2, 3", "3"},
		"a version is passed over":           {"7 in 1.2.3", "7"},
		"a time of day is passed over":       {"7 at 2:30", "7"},
		"a date is passed over":              {"7 on 1/2/2024", "7"},
		"a comma for the point is no number": {"7 or 3,14", "7"},
		"full-width digits":                  {"１２３", "123"},
		"100 digits":                         {strings.Repeat("9", 100), strings.Repeat("9", 100)},
		"102 digits are passed over":         {"7 " + strings.Repeat("9", 102), "7"},
		// Fractions.
		"a fraction":                             {"3/4", "3/4"},
		"a negative fraction":                    {"-3/4", "-3/4"},
		"spaces in a fraction":                   {"3 / 4", "3/4"},
		"the fraction slash":                     {"3⁄4", "3/4"},
		"a mixed number":                         {"1 1/2", "3/2"},
		"a negative mixed number":                {"-1 1/2", "-3/2"},
		"not mixed: the fraction is not below 1": {"1 3/2", "3/2"},
		"Unicode's fraction":                     {"½", "1/2"},
		"Unicode's mixed number":                 {"2½", "5/2"},
		"with a space":                           {"2 ⅔", "8/3"},
		"a decimal is not mixed":                 {"1.5 1/2", "1/2"},
		"by zero":                                {"7 or 3/0", "7"},
		"by decimals":                            {"1.5/0.5", "3"},
		"LaTeX":                                  {`\frac{3}{4}`, "3/4"},
		"LaTeX, mixed":                           {`1\frac{1}{2}`, "3/2"},
		"LaTeX, short":                           {`\dfrac34`, "3/4"},
		"LaTeX, negative":                        {`-\frac{3}{4}`, "-3/4"},
		// Powers.
		"scientific":                        {"6.02e23", "602000000000000000000000"},
		"a negative exponent":               {"5E-3", "1/200"},
		"a positive exponent":               {"5e+2", "500"},
		"times a power of ten":              {"3 × 10^5", "300000"},
		"x for times":                       {"3 x 10^5", "300000"},
		"superscripts":                      {"3·10⁻²", "3/100"},
		"LaTeX, times":                      {`3 \times 10^{5}`, "300000"},
		"a power":                           {"2^10", "1024"},
		"a square":                          {"5²", "25"},
		"an exponent of 401 is passed over": {"7 or 1e401", "7"},
		"an exponent of 10 digits":          {"7 or 1e9999999999", "7"},
		"too large a power":                 {"7 or 99999999^400", "7"},
		"zero to a negative power":          {"7 or 0^-1", "7"},
		"an e of a word":                    {"5eggs", "5"},
		// What stands around it.
		"percent keeps its number":        {"50%", "50"},
		"a scale":                         {"$2.5 million", "2500000"},
		"in TeX":                          {"$5$", "5"},
		"thousands in TeX":                {`1{,}000`, "1000"},
		"thin thousands in TeX":           {`1\,000\,000`, "1000000"},
		"compound units":                  {"2 h 30 min", "5/2"},
		"compound units with and":         {"5 feet and 6 inches", "11/2"},
		"compound units, negative":        {"-2 h 30 min", "-5/2"},
		"other units are another number":  {"2 h 30 kg", "30"},
		"larger units are another number": {"30 min 2 h", "2"},
		// Hostile.
		"bytes that are no text": {"\xff\xfe5\x00", "5"},
		"only signs":             {"-$.%/^", ""},
	} {
		t.Run(name, func(t *testing.T) {
			q, ok := Number(c.text)
			if !ok {
				if c.want != "" {
					t.Fatalf("no number, want %s", c.want)
				}
				return
			}
			if c.want == "" || q.Number.Cmp(rat(t, c.want)) != 0 {
				t.Errorf("got %s, want %s", q.Number.RatString(), c.want)
			}
		})
	}
}

// A completion against a reference answer.
func TestQuantitiesAreEqual(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ref, have string
		equal     bool
	}{
		"the same":                          {"12", "It is 12.", true},
		"another":                           {"12", "13", false},
		"written otherwise":                 {"1,200", "1200.0", true},
		"a fraction and a decimal":          {"3/4", "0.75", true},
		"a rounded third is none":           {"1/3", "0.333333", false},
		"no unit asked for":                 {"12", "12 apples", true},
		"no unit stated":                    {"12 cm", "12", true},
		"words are no unit":                 {"12 apples", "12 oranges", true},
		"the same unit":                     {"12 cm", "12 centimetres", true},
		"converted":                         {"1.2 m", "120 cm", true},
		"converted wrongly":                 {"1.2 m", "1200 cm", false},
		"inches":                            {"1 ft", "12 inches", true},
		"inches at the end":                 {"12 in", "12 in.", true},
		"in is no inch within a sentence":   {"12 cm", "The answer is 12 in total", true},
		"a mile":                            {"1 mile", "1.609344 km", true},
		"a pound":                           {"1 lb", "453.59237 g", true},
		"ounces":                            {"1 lb", "16 oz", true},
		"a tonne":                           {"1 t", "1000 kg", true},
		"a metric ton":                      {"1 metric ton", "1000 kg", true},
		"a ton of no kind has no kilograms": {"1 ton", "1000 kg", false},
		"hours":                             {"1.5 hours", "90 minutes", true},
		"hours and minutes":                 {"90 min", "1 hour 30 minutes", true},
		"a week":                            {"1 week", "168 h", true},
		"a year has months":                 {"2 years", "24 months", true},
		"and no exact days":                 {"1 year", "365 days", false},
		"a litre":                           {"1 L", "1000 cm^3", true},
		"millilitres":                       {"1 L", "1000 mL", true},
		"a gallon":                          {"1 gallon", "231 cubic inches", true},
		"cups":                              {"1 gallon", "16 cups", true},
		"fluid ounces":                      {"1 cup", "8 fl oz", true},
		"fluid ounces in points":            {"1 cup", "8 fl. oz.", true},
		"a fluid ounce is no ounce":         {"8 oz", "8 fl oz", false},
		"square metres":                     {"1 m^2", "10,000 square centimeters", true},
		"Unicode's square":                  {"1 m²", "10000 cm²", true},
		"a digit for the square":            {"3 m2", "3 m²", true},
		"sq. ft":                            {"1 square yard", "9 sq. ft", true},
		"a hectare":                         {"1 ha", "10000 m^2", true},
		"an acre":                           {"1 acre", "43560 square feet", true},
		"cubes":                             {"1 m^3", "1000 liters", true},
		"LaTeX's cubes":                     {`5 \text{ cm}^3`, `5 cm^{3}`, true},
		"an area is no length":              {"3 m", "3 m^2", false},
		"a mass is no length":               {"3 m", "3 kg", false},
		"speeds":                            {"36 km/h", "10 m/s", true},
		"miles an hour":                     {"60 mph", "60 miles per hour", true},
		"kilometres an hour":                {"60 km/h", "60 kilometers an hour", true},
		"a speed is no length":              {"60 km/h", "60 km", false},
		"hyphenated":                        {"5 miles", "a 5-mile walk", true},
		"dollars":                           {"$18", "18 dollars", true},
		"dollars in LaTeX":                  {`\$18`, "$18", true},
		"euros are no dollars":              {"$18", "€18", false},
		"a currency behind":                 {"€18", "18 €", true},
		"cents":                             {"$1.50", "150 cents", true},
		"pounds are money":                  {"£5", "5 pounds", true},
		"pounds are a mass":                 {"5 lbs", "5 pounds", true},
		"pence":                             {"£5", "500 pence", true},
		"dollars in TeX's dollars":          {"5 cm", "The answer is $5$ cm", true},
		"TeX's dollars are none":            {"5 cm", "The answer is $5$.", true},
		"TeX's dollars around a unit":       {"5 cm", `$5\text{ mm}$`, false},
		"an amount of dollars and another":  {"€5", "from $9 to $5", false},
		"a price an hour":                   {"$20 per hour", "$20/hour", true},
		"a price a minute":                  {"$60 per hour", "$1 per minute", true},
		"millions":                          {"$2 million", "$2,000,000", true},
		"percent":                           {"50%", "50 percent", true},
		"per cent":                          {"50%", "50 per cent", true},
		"percent as hundredths":             {"50%", "0.5", true},
		"percent of no sign":                {"50", "50%", true},
		"hundredths of percent":             {"0.5", "50%", true},
		"another percentage":                {"50%", "5%", false},
		"LaTeX's percent":                   {"50%", `\boxed{50\%}`, true},
		"per mille":                         {"5%", "50‰", true},
		"degrees":                           {"90°", `90^\circ`, true},
		"degrees of words":                  {"90 degrees", "90", true},
		"degrees Celsius":                   {"20 °C", "20 degrees Celsius", true},
		"Fahrenheit is not converted":       {"0 °C", "32 °F", false},
		"an angle is no temperature":        {"20°", "20 °C", false},
		"micrometres, both signs":           {"5 µm", "5 μm", true},
		"capitals of a long spelling":       {"5 KM", "5 Kilometers", true},
		"a capital is another letter":       {"5 m", "5 M", true}, // M is no unit
		"a worked reference":                {"3*4=12\n#### 12", "12", true},
		"a boxed reference":                 {`so $\boxed{\frac{1}{2}}$.`, "0.5", true},
	} {
		t.Run(name, func(t *testing.T) {
			ref, ok := Reference(c.ref)
			if !ok {
				t.Fatal("the reference is not read")
			}
			have, ok := Number(c.have)
			if !ok {
				t.Fatal("the completion has no number")
			}
			if ref.Equal(have, Tolerance{}) != c.equal {
				t.Errorf("equal: %v; %s %+v, %s %+v", !c.equal, ref.Number.RatString(), ref.Unit, have.Number.RatString(), have.Unit)
			}
		})
	}
}

func TestReferencesThatAreNoNumber(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing":           "",
		"words":             "a dozen",
		"words first":       "about 12",
		"arithmetic":        "3*4",
		"a sum":             "3+4",
		"an equation":       "3=3",
		"a ratio":           "3:4",
		"a pair":            "3, 4",
		"two numbers":       "3 4",
		"a marker alone":    "12\n####",
		"divided by zero":   "1/0",
		"a power of itself": "10^10^10",
	} {
		t.Run(name, func(t *testing.T) {
			if q, ok := Reference(text); ok {
				t.Errorf("read as %s", q.Number.RatString())
			}
		})
	}
}

// |have - ref| against the tolerance, which is a bound that still holds.
func TestTolerance(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ref, have, abs, rel string
		equal               bool
	}{
		"none":                          {"10", "10.0001", "", "", false},
		"the absolute bound holds":      {"10", "10.1", "1/10", "", true},
		"and not beyond":                {"10", "10.1001", "1/10", "", false},
		"below too":                     {"10", "9.9", "1/10", "", true},
		"the relative bound holds":      {"-200", "-202", "", "1/100", true},
		"and not beyond it":             {"-200", "-202.01", "", "1/100", false},
		"either is enough":              {"10", "10.5", "1/10", "1/20", true},
		"relative to zero is nothing":   {"0", "0.001", "", "1/2", false},
		"in the reference's unit":       {"1 m", "110 cm", "1/10", "", true},
		"in the reference's unit only":  {"100 cm", "1.1 m", "1/10", "", false},
		"of a percentage as hundredths": {"50%", "0.51", "1/100", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			ref, _ := Reference(c.ref)
			have, _ := Number(c.have)
			if ref.Equal(have, Tolerance{rat(t, c.abs), rat(t, c.rel)}) != c.equal {
				t.Errorf("equal: %v", !c.equal)
			}
		})
	}
}

// Every spelling means one unit, and the factors agree with each other.
func TestUnitsTable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, row := range table {
		for spelling := range strings.FieldsSeq(row.spellings) {
			if seen[spelling] {
				t.Errorf("%q stands twice", spelling)
			}
			seen[spelling] = true
			if u, ok := lookup(spelling); !ok || u.dim != row.dim || u.factor.Sign() <= 0 {
				t.Errorf("%q is read as %+v", spelling, u)
			}
		}
	}
	for _, c := range [][3]string{ // by definition
		{"yd", "3", "ft"}, {"ft", "12", "in"}, {"mi", "1760", "yd"}, {"lb", "16", "oz"}, {"stone", "14", "lb"}, {"gal", "4", "qt"},
		{"qt", "2", "pt"}, {"pt", "2", "cup"}, {"cup", "16", "tbsp"}, {"tbsp", "3", "tsp"}, {"week", "7", "day"}, {"day", "24", "h"}, {"ha", "10000", ""},
	} {
		v := units[c[2]]
		if c[2] == "" {
			v, _ = units["m"].power(2)
		}
		f, ok := units[c[0]].factorTo(v)
		if !ok || f.Cmp(rat(t, c[1])) != 0 {
			t.Errorf("1 %s is %v %s, want %s", c[0], f, c[2], c[1])
		}
	}
}

// Work that grows with the square of the length would take minutes.
func TestLongTextsAreReadInTime(t *testing.T) {
	t.Parallel()
	const size = 1 << 18
	for _, piece := range []string{
		"1,", "1,234", "$5$ ", "- ", "(", `\boxed{`, `\frac12`, `\text{`, "1 1/2 ", "½", "10^", "1\n", "a\n", "answer is ", "(A) or ", "2 h 30 min ", "\xff",
	} {
		text := strings.Repeat(piece, size/len(piece))
		start := time.Now()
		Number(text)
		Reference(text)
		Choice(text)
		ReferenceChoice(text)
		if box, ok := Boxed(text); ok {
			ReadLaTeX(box)
		}
		ReadLaTeX(text)
		if took := time.Since(start); took > time.Minute {
			t.Errorf("%d times %q take %v", size/len(piece), piece, took)
		}
	}
}

// Nothing panics, the same text is read the same way, and a number equals itself.
func FuzzNumber(f *testing.F) {
	for _, seed := range []string{"#### -1,234.5 cm", "The answer is $3\\frac{1}{2}$ km/h", `\boxed{50\%}`, "2 h 30 min", "1e-400/3", "½⅓", "10^{-3}", "$-5 per hour", "1'234 fl. oz"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, text, other string) {
		a, ok := Number(text)
		b, again := Number(text)
		if ok != again || ok && (a.Number.Cmp(b.Number) != 0 || !a.Equal(b, Tolerance{})) {
			t.Fatalf("%+v and %+v", a, b)
		}
		if c, is := Reference(other); ok && is {
			// Without tolerance and units, equality has no order.
			if c.Unit.None() && a.Unit.None() && c.Equal(a, Tolerance{}) != a.Equal(c, Tolerance{}) {
				t.Errorf("%+v, %+v", a, c)
			}
			if c.Equal(a, Tolerance{}) && !c.Equal(a, Tolerance{big.NewRat(1, 10), big.NewRat(1, 10)}) {
				t.Errorf("a tolerance makes %+v and %+v differ", a, c)
			}
		}
	})
}
