package instructions

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// existence: every one of "keywords" stands in the text, in any case of letters, within words too.
func existence(a *arguments) (func(string) bool, string) {
	keywords := folded(a.texts("keywords"))
	return func(text string) bool {
		text = fold(text)
		for _, k := range keywords {
			if !strings.Contains(text, k) {
				return false
			}
		}
		return true
	}, ""
}

// frequency: "keyword" stands in the text "at least", or "less than", "frequency" times, as in existence.
func frequency(a *arguments) (func(string) bool, string) {
	keyword, enough := fold(a.text("keyword")), a.relation("frequency", "relation")
	return func(text string) bool { return enough(strings.Count(fold(text), keyword)) }, ""
}

// forbidden: none of "forbidden_words" stands in the text as a word, in any case of letters.
func forbidden(a *arguments) (func(string) bool, string) {
	words := folded(a.texts("forbidden_words"))
	return func(text string) bool {
		text = fold(text)
		for _, w := range words {
			if hasWord(text, w) {
				return false
			}
		}
		return true
	}, ""
}

// hasWord says whether a word stands in a text with no letter or digit beside it.
func hasWord(text, word string) bool {
	for from := 0; ; {
		i := strings.Index(text[from:], word)
		if i < 0 {
			return false
		}
		i += from
		before, _ := utf8.DecodeLastRuneInString(text[:i])
		after, _ := utf8.DecodeRuneInString(text[i+len(word):])
		first, _ := utf8.DecodeRuneInString(word)
		last, _ := utf8.DecodeLastRuneInString(word)
		// A boundary is between a word's character and another, as \b is.
		if inWord(before) != inWord(first) && inWord(after) != inWord(last) {
			return true
		}
		_, size := utf8.DecodeRuneInString(text[i:])
		from = i + size
	}
}

// letterFrequency: the one character "letter" stands in the text as often as let_relation and
// let_frequency say, in any case.
func letterFrequency(a *arguments) (func(string) bool, string) {
	letter, enough := fold(a.text("letter")), a.relation("let_frequency", "let_relation")
	if a.err == nil && utf8.RuneCountInString(letter) != 1 {
		a.wrong("letter", "one character")
	}
	return func(text string) bool { return enough(strings.Count(fold(text), letter)) }, ""
}

// numberWords counts runs of letters, digits, marks and underscores: "don't" has two words.
func numberWords(a *arguments) (func(string) bool, string) {
	enough := a.relation("num_words", "relation")
	return func(text string) bool { return enough(len(words(text))) }, ""
}

func numberSentences(a *arguments) (func(string) bool, string) {
	enough := a.relation("num_sentences", "relation")
	return func(text string) bool { return enough(sentences(text)) }, ""
}

// capitalWords counts words that have a letter in capitals and none that is small, hyphens and
// apostrophes within: "NASA", "A", "STATE-OF-THE-ART".
func capitalWords(a *arguments) (func(string) bool, string) {
	enough := a.relation("capital_frequency", "capital_relation")
	return func(text string) bool {
		n := 0
		for _, w := range strings.FieldsFunc(text, func(r rune) bool { return !inWord(r) && r != '-' && r != '\'' && r != '’' }) {
			if isUpper(w) {
				n++
			}
		}
		return enough(n)
	}, ""
}

// englishCapital: no small letter, at least one capital, and Latin letters.
func englishCapital(*arguments) (func(string) bool, string) {
	return func(text string) bool { return isUpper(text) && mostlyLatin(text) }, ""
}

// englishLowercase: no capital, at least one small letter, and Latin letters.
func englishLowercase(*arguments) (func(string) bool, string) {
	return func(text string) bool {
		return strings.IndexFunc(text, unicode.IsLower) >= 0 && strings.IndexFunc(text, isCapital) < 0 && mostlyLatin(text)
	}, ""
}

func noComma(*arguments) (func(string) bool, string) {
	return func(text string) bool { return !strings.Contains(text, ",") }, ""
}

func isCapital(r rune) bool { return unicode.IsUpper(r) || unicode.IsTitle(r) }

func isUpper(text string) bool {
	return strings.IndexFunc(text, unicode.IsUpper) >= 0 && strings.IndexFunc(text, unicode.IsLower) < 0
}

func words(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return !inWord(r) })
}

func inWord(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r)
}

func fold(text string) string { return strings.ToLower(text) }

func folded(texts []string) []string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = fold(t)
	}
	return out
}

// abbreviations end in a full stop that ends no sentence.
var abbreviations = strings.Fields("mr mrs ms dr prof st sr jr vs e.g i.e cf fig vol approx inc ltd co u.s u.k ph.d m.d a.m p.m")

// maxAbbreviation is more bytes of a word than any abbreviation has: it is not read further.
const maxAbbreviation = 16

// sentences counts a text's sentences. One ends at a run of . ! ? … with the quotes and brackets behind
// it, where white space or the text's end follows, and at each of 。！？; not behind an abbreviation ("Dr.", "e.g.") or
// an initial ("J."), but at the text's end. What is left at the end counts if it has a letter or digit.
func sentences(text string) int {
	n := 0
	open := false // a letter or digit since the last end
	word := strings.Builder{}
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		i += size
		switch {
		case strings.ContainsRune("。！？", r):
			if open {
				n, open = n+1, false
			}
			word.Reset()
		case strings.ContainsRune(".!?…", r):
			abbreviated := r == '.' && (slices.Contains(abbreviations, fold(word.String())) || isInitial(word.String()))
			end := i + len(text[i:]) - len(strings.TrimLeft(text[i:], `.!?…"'”’)]*`))
			next, _ := utf8.DecodeRuneInString(text[end:])
			if end == len(text) || unicode.IsSpace(next) && !abbreviated {
				if open {
					n, open = n+1, false
				}
				i = end
				word.Reset()
			} else if word.Len() < maxAbbreviation {
				word.WriteRune(r)
			}
		case unicode.IsSpace(r):
			word.Reset()
		default:
			open = open || inWord(r)
			if word.Len() < maxAbbreviation && inWord(r) {
				word.WriteRune(r)
			}
		}
	}
	if open {
		n++
	}
	return n
}

// isInitial says whether a word is one capital letter, but "I", which may end a sentence.
func isInitial(word string) bool {
	r, size := utf8.DecodeRuneInString(word)
	return size == len(word) && unicode.IsUpper(r) && r != 'I'
}

// scripts have the letters of languages that can be told by them.
var scripts = map[string][]*unicode.RangeTable{
	"am": {unicode.Ethiopic}, "bn": {unicode.Bengali}, "el": {unicode.Greek}, "gu": {unicode.Gujarati}, "he": {unicode.Hebrew},
	"hy": {unicode.Armenian}, "ja": {unicode.Hiragana, unicode.Katakana, unicode.Han}, "ka": {unicode.Georgian}, "km": {unicode.Khmer},
	"kn": {unicode.Kannada}, "ko": {unicode.Hangul}, "lo": {unicode.Lao}, "ml": {unicode.Malayalam}, "my": {unicode.Myanmar},
	"or": {unicode.Oriya}, "pa": {unicode.Gurmukhi}, "si": {unicode.Sinhala}, "ta": {unicode.Tamil}, "te": {unicode.Telugu},
	"th": {unicode.Thai}, "zh": {unicode.Han},
}

// shared are languages whose script is that of others too.
var shared = regexp.MustCompile(`^(?:af|ar|az|be|bg|bs|ca|cs|cy|da|de|en|eo|es|et|eu|fa|fi|fr|ga|gl|hi|hr|hu|id|is|it|kk|ky|lt|lv|mk|mn|mr|ms|mt|ne|nl|no|pl|ps|pt|ro|ru|sk|sl|sq|sr|sv|sw|tl|tr|uk|ur|uz|vi)$`)

// language: more than half of the text's letters are of the script of "language", an ISO 639-1 code. For
// Japanese one of them has to be kana, for Chinese none may be. A language whose script others share is not
// checked.
func language(a *arguments) (func(string) bool, string) {
	code := a.text("language")
	tables := scripts[code]
	if tables == nil && shared.MatchString(code) {
		return nil, "the language \"" + code + "\" cannot be told by its script, which other languages share"
	}
	if tables == nil && a.err == nil {
		a.wrong("language", "the ISO 639-1 code of a language")
	}
	return func(text string) bool {
		kana := has(text, unicode.Hiragana, unicode.Katakana)
		return mostly(text, tables) && (code != "ja" || kana) && (code != "zh" || !kana)
	}, ""
}

func has(text string, tables ...*unicode.RangeTable) bool {
	return strings.IndexFunc(text, func(r rune) bool { return unicode.IsOneOf(tables, r) }) >= 0
}

func mostlyLatin(text string) bool { return mostly(text, []*unicode.RangeTable{unicode.Latin}) }

// mostly says whether more than half of a text's letters are in the tables.
func mostly(text string, tables []*unicode.RangeTable) bool {
	letters, in := 0, 0
	for _, r := range text {
		if unicode.IsLetter(r) {
			letters++
			if unicode.IsOneOf(tables, r) {
				in++
			}
		}
	}
	return 2*in > letters
}
