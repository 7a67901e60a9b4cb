package tokenizer

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// normalizer is a step from text to text.
type normalizer func(string) string

// lowercase maps each character for itself, without regard to its place in a word.
func lowercase(s string) string {
	s = strings.ReplaceAll(s, "İ", "i̇") // the one character whose lower case is two
	return strings.Map(unicode.ToLower, s)
}

// compose is Unicode's NFC or NFKC. Where many marks are piled on one letter, x/text breaks the pile
// with U+034F (the stream-safe format of UAX 15); the reference does not, so that is done by hand.
func compose(composed, decomposed norm.Form) normalizer {
	return func(s string) string {
		if hasPile(s) {
			return composePiles(s, composed, decomposed)
		}
		return composed.String(s)
	}
}

// hasPile reports whether s has a run of characters with marks that might be too long for x/text,
// which takes 30 marks; no character has more than 3.
func hasPile(s string) bool {
	run := 0
	for i, r := range s {
		if r < 0x300 { // below the first combining mark
			run = 0
			continue
		}
		if p := norm.NFKD.PropertiesString(s[i:]); p.CCC() == 0 && p.TrailCCC() == 0 {
			run = 0
		} else if run++; run == 10 {
			return true
		}
	}
	return false
}

// composePiles is canonical composition with nothing added.
//
// Source: Unicode Standard 3.11, D108 to D117.
func composePiles(s string, composed, decomposed norm.Form) string {
	var runes []rune
	for _, r := range s {
		runes = append(runes, []rune(decomposed.String(string(r)))...)
	}
	class := func(r rune) uint8 { return decomposed.PropertiesString(string(r)).CCC() }
	for i := 0; i < len(runes); {
		j := i
		for j < len(runes) && class(runes[j]) != 0 {
			j++
		}
		slices.SortStableFunc(runes[i:j], func(a, b rune) int { return int(class(a)) - int(class(b)) })
		i = j + 1
	}
	out := runes[:0] // never longer than what was read
	starter, last := -1, uint8(0)
	for _, r := range runes {
		c := class(r)
		if starter >= 0 && (last < c || last == 0) {
			if pair := []rune(composed.String(string([]rune{out[starter], r}))); len(pair) == 1 {
				out[starter] = pair[0]
				continue
			}
		}
		if last = c; c == 0 {
			starter = len(out)
		}
		out = append(out, r)
	}
	return string(out)
}
