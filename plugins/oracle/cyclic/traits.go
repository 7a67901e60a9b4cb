package cyclic

import (
	"maps"
	"slices"
	"strings"
	"unicode"
)

// trait is something that can be measured of a text, at least 0.
type trait struct {
	name   string
	middle float64 // what counts as half strong unless a setting says otherwise
	of     func(measured) float64
}

// measured is what is counted of a text.
type measured struct{ characters, digits, marks, words, steps float64 }

// traits are all that there are, by name.
var traits = map[string]trait{
	"length":      {"length", 40, func(m measured) float64 { return m.characters }},        // characters
	"words":       {"words", 8, func(m measured) float64 { return m.words }},               // what white space separates
	"steps":       {"steps", 3, func(m measured) float64 { return m.steps }},               // what line ends and semicolons separate
	"digits":      {"digits", 0.25, func(m measured) float64 { return m.share(m.digits) }}, // share of all characters
	"punctuation": {"punctuation", 0.25, func(m measured) float64 { return m.share(m.marks) }},
}

func names() []string { return slices.Sorted(maps.Keys(traits)) }

// share is that of the characters; 0 of an empty text.
func (m measured) share(of float64) float64 {
	if m.characters == 0 {
		return 0
	}
	return of / m.characters
}

// measure counts. Digits are those of any script, marks are punctuation and symbols such as + and =.
func measure(text string) (m measured) {
	for _, c := range text {
		m.characters++
		switch {
		case unicode.IsDigit(c):
			m.digits++
		case unicode.IsPunct(c) || unicode.IsSymbol(c):
			m.marks++
		}
	}
	m.words = float64(len(strings.Fields(text)))
	for step := range strings.FieldsFuncSeq(text, func(c rune) bool { return c == '\n' || c == ';' }) {
		if strings.TrimSpace(step) != "" {
			m.steps++
		}
	}
	return m
}
