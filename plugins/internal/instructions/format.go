package instructions

import (
	"encoding/json"
	"regexp"
	"strings"
	"unicode"
)

var stars = regexp.MustCompile(`\s?\*\*\*\s?`)

// numberParagraphs: exactly "num_paragraphs" paragraphs, with lines of *** between them; none of them is
// empty, but what stands before the first and behind the last *** may be.
func numberParagraphs(a *arguments) (func(string) bool, string) {
	want := a.count("num_paragraphs")
	return func(text string) bool {
		parts := stars.Split(text, -1)
		n := len(parts)
		for i, p := range parts {
			if strings.TrimSpace(p) != "" {
				continue
			}
			if i > 0 && i < len(parts)-1 {
				return false
			}
			n--
		}
		return n == want
	}, ""
}

// firstWord: exactly "num_paragraphs" paragraphs with two newlines between them, of which the one numbered
// "nth_paragraph", from 1, begins with "first_word": in any case of letters, both up to their first sign,
// quotes before it left out.
func firstWord(a *arguments) (func(string) bool, string) {
	paragraphs, nth, word := a.count("num_paragraphs"), a.count("nth_paragraph"), untilSign(fold(a.text("first_word")))
	if a.err == nil && (nth < 1 || nth > paragraphs) {
		a.wrong("nth_paragraph", "a paragraph's number from 1 to num_paragraphs")
	}
	return func(text string) bool {
		var parts []string
		for _, p := range strings.Split(text, "\n\n") {
			if p = strings.TrimSpace(p); p != "" {
				parts = append(parts, p)
			}
		}
		if len(parts) != paragraphs || nth > len(parts) {
			return false
		}
		return untilSign(strings.TrimLeft(fold(strings.Fields(parts[nth-1])[0]), `"'“‘*_`)) == word
	}, ""
}

// untilSign is a word up to its first sign.
func untilSign(word string) string {
	if end := strings.IndexAny(word, `.,?!'"’”:;*_`); end >= 0 {
		return word[:end]
	}
	return word
}

// postscript: the text has "postscript_marker" and something behind it on the same line, in any case of
// letters; in "P.S." and "P.P.S" spaces may stand behind the points, and the last point may be missing.
func postscript(a *arguments) (func(string) bool, string) {
	marker := a.text("postscript_marker")
	var re *regexp.Regexp
	switch marker {
	case "P.S.":
		re = regexp.MustCompile(`(?im)(?:^|[^\pL.])p\.\s?s\b.*\S`)
	case "P.P.S", "P.P.S.":
		re = regexp.MustCompile(`(?im)(?:^|[^\pL.])p\.\s?p\.\s?s\b.*\S`)
	default:
		re = regexp.MustCompile(`(?im)` + regexp.QuoteMeta(marker) + `.*\S`)
	}
	return re.MatchString, ""
}

var bracketed = regexp.MustCompile(`\[[^\]\n]*\]`)

// placeholders: at least "num_placeholders" texts in square brackets.
func placeholders(a *arguments) (func(string) bool, string) {
	want := a.count("num_placeholders")
	return func(text string) bool { return len(bracketed.FindAllStringIndex(text, -1)) >= want }, ""
}

var bullet = regexp.MustCompile(`(?m)^[ \t]*(?:\*[^*\n].*|-.*)$`)

// bullets: exactly "num_bullets" lines that begin with one "*", or with "-".
func bullets(a *arguments) (func(string) bool, string) {
	want := a.count("num_bullets")
	return func(text string) bool { return len(bullet.FindAllStringIndex(text, -1)) == want }, ""
}

// constrained: the text has one of the three answers.
func constrained(*arguments) (func(string) bool, string) {
	return func(text string) bool {
		for _, answer := range []string{"My answer is yes.", "My answer is no.", "My answer is maybe."} {
			if strings.Contains(text, answer) {
				return true
			}
		}
		return false
	}, ""
}

var highlight = regexp.MustCompile(`\*\*([^*\n]+)\*\*|\*([^*\n]+)\*`)

// highlights: at least "num_highlights" texts that are *highlighted*, or **so**, each counted once and
// with something in it but white space.
func highlights(a *arguments) (func(string) bool, string) {
	want := a.count("num_highlights")
	return func(text string) bool {
		n := 0
		for _, m := range highlight.FindAllStringSubmatch(text, -1) {
			if strings.TrimSpace(m[1]+m[2]) != "" {
				n++
			}
		}
		return n >= want
	}, ""
}

// sections: at least "num_sections" times the word "section_spliter" with a number behind it ("Section 1").
func sections(a *arguments) (func(string) bool, string) {
	word, want := a.text("section_spliter"), a.count("num_sections")
	re := regexp.MustCompile(regexp.QuoteMeta(word) + `\s?[0-9]+`)
	return func(text string) bool { return len(re.FindAllStringIndex(text, -1)) >= want }, ""
}

// jsonFormat: the whole text is JSON, perhaps in a fence of ``` or ```json.
func jsonFormat(*arguments) (func(string) bool, string) {
	return func(text string) bool {
		text = strings.TrimSpace(text)
		if inner, ok := strings.CutPrefix(text, "```"); ok {
			if inner, ok = strings.CutSuffix(inner, "```"); ok {
				language := strings.IndexFunc(inner, func(r rune) bool { return !unicode.IsLetter(r) })
				if language >= 0 && strings.EqualFold(inner[:language], "json") {
					inner = inner[language:]
				}
				text = inner
			}
		}
		return json.Valid([]byte(text))
	}, ""
}

var titled = regexp.MustCompile(`<<([^<>\n]+)>>`)

// title: a text in double angular brackets, <<so>>, with something in it but white space.
func title(*arguments) (func(string) bool, string) {
	return func(text string) bool {
		for _, m := range titled.FindAllStringSubmatch(text, -1) {
			if strings.TrimSpace(m[1]) != "" {
				return true
			}
		}
		return false
	}, ""
}

// twoResponses: two responses that differ, with ****** between them; perhaps one more before the first
// and one behind the second.
func twoResponses(*arguments) (func(string) bool, string) {
	return func(text string) bool {
		parts := strings.Split(text, "******")
		var responses []string
		for i, p := range parts {
			p = strings.TrimSpace(p)
			if p == "" && i > 0 && i < len(parts)-1 {
				return false
			}
			if p != "" {
				responses = append(responses, p)
			}
		}
		return len(responses) == 2 && responses[0] != responses[1]
	}, ""
}

// repeatPrompt: the text begins with "prompt_to_repeat", in any case of letters.
func repeatPrompt(a *arguments) (func(string) bool, string) {
	prompt := fold(strings.TrimSpace(a.text("prompt_to_repeat")))
	return func(text string) bool { return strings.HasPrefix(fold(strings.TrimSpace(text)), prompt) }, ""
}

// endChecker: the text ends with "end_phrase", in any case of letters, perhaps in quotes.
func endChecker(a *arguments) (func(string) bool, string) {
	phrase := fold(strings.TrimSpace(a.text("end_phrase")))
	return func(text string) bool {
		text = strings.TrimSpace(strings.Trim(strings.TrimSpace(text), `"`))
		return strings.HasSuffix(fold(text), phrase)
	}, ""
}

// quotation: the text stands in double quotes, straight ones or “these”.
func quotation(*arguments) (func(string) bool, string) {
	return func(text string) bool {
		text = strings.TrimSpace(text)
		for _, q := range [][2]string{{`"`, `"`}, {"“", "”"}} {
			if len(text) > len(q[0])+len(q[1])-1 && strings.HasPrefix(text, q[0]) && strings.HasSuffix(text, q[1]) {
				return true
			}
		}
		return false
	}, ""
}
