// Package answers reads what a completion states as its final answer: a number with its unit, LaTeX in
// a box, the letter of a choice.
package answers

import (
	"regexp"
	"strings"
)

// Final is where a completion states its final answer. The first of these that the text has decides,
// also where it turns out that no answer stands there:
//
//  1. what follows the last "####" on its line;
//  2. what follows the last "answer is" or "answer:", in any case of letters, on its line, or where
//     nothing is left of that line, the next line that is not empty;
//  3. the content of the last \boxed{};
//
// ok is false where it has none of them. A box within what 1 or 2 found is opened.
func Final(text string) (stated string, ok bool) {
	if at := strings.LastIndex(text, "####"); at >= 0 {
		stated = firstLine(text[at+len("####"):])
	} else if at := afterPhrase(text); at >= 0 {
		stated = firstLine(text[at:])
	} else if box, ok := Boxed(text); ok {
		return box, true
	} else {
		return "", false
	}
	if box, ok := Boxed(stated); ok {
		return box, true
	}
	return stated, true
}

// afterPhrase is where the last phrase that announces an answer ends; -1 where there is none.
func afterPhrase(text string) int {
	small := lower(text)
	end := -1
	for _, phrase := range []string{"answer is", "answer:", "answer**:"} {
		if at := strings.LastIndex(small, phrase); at >= 0 {
			end = max(end, at+len(phrase))
		}
	}
	return end
}

// firstLine is the first line that has something in it, without the signs that announce it.
func firstLine(text string) string {
	text = strings.TrimLeft(text, " \t\r\n:*")
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimSpace(line)
}

// lower has small letters for ASCII's capitals, so that every byte keeps its place.
func lower(text string) string {
	b := []byte(text)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// Number reads a completion's final number: where it states one (see [Final]) the first number there, of
// an equation the first behind its last "="; else the text's last number. It returns false where there is
// none.
func Number(text string) (Quantity, bool) {
	if stated, ok := Final(text); ok {
		line := untex(stated)
		if at := strings.LastIndexByte(line, '='); at >= 0 {
			line = line[at+1:]
		}
		q, ok := (&scanner{line: line}).next()
		return q.Quantity, ok
	}
	for text != "" {
		at := strings.LastIndexByte(strings.TrimRight(text, "\n"), '\n') + 1
		s := scanner{line: untex(text[at:])}
		text = text[:at]
		last, any := s.next()
		for q, ok := last, any; ok; q, ok = s.next() {
			last = q
		}
		if any {
			return last.Quantity, true
		}
	}
	return Quantity{}, false
}

// Reference reads a reference answer: a number with nothing but a unit or words behind it ("12 apples"),
// or a worked solution that ends in "#### 12" or \boxed{12}. It returns false for anything else: words
// before the number, arithmetic after it.
func Reference(text string) (Quantity, bool) {
	if strings.Contains(text, "####") || strings.Contains(text, `\boxed`) {
		text, _ = Final(text)
	}
	line := strings.TrimLeft(strings.TrimSpace(untex(text)), "+")
	q, ok := (&scanner{line: line}).next()
	if !ok || strings.Trim(line[:q.begin], " ") != "" {
		return Quantity{}, false
	}
	rest := strings.TrimLeft(line[q.end:], " ")
	if rest != "" && strings.IndexByte("0123456789+-*/^(=,:<>", rest[0]) >= 0 || strings.HasPrefix(rest, "×") {
		return Quantity{}, false
	}
	return q.Quantity, true
}

var (
	mixedTeX     = regexp.MustCompile(`([0-9])\s*(\\[dtc]?frac)`)
	fractionTeX  = regexp.MustCompile(`\\[dtc]?frac\s*(?:\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}|([0-9])([0-9]))`)
	textTeX      = regexp.MustCompile(`\\(?:text|mathrm|textrm|mbox|textbf|mathbf)\s*\{([^{}]*)\}`)
	degreesTeX   = regexp.MustCompile(`\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ)`)
	commandTeX   = regexp.MustCompile(`\\(?:left|right|displaystyle|quad|qquad|,|!|;|:|\(|\)|\[|\])`)
	groupsTeX    = strings.NewReplacer(`{,}`, ",", `\ `, " ", `~`, " ", `\%`, "%", `\$`, "$", `\times`, "×", `\cdot`, "·", `**`, "")
	thousandsTeX = regexp.MustCompile(`([0-9])(?:\\,|\\!|\\ |\\;|,\\!)([0-9]{3})`)
)

// untex writes one line's LaTeX of numbers as plain text: \frac{3}{4} as 3/4.
func untex(line string) string {
	line = typography.Replace(line)
	if !strings.ContainsAny(line, `\{*`) {
		return line
	}
	for range 2 { // groups that share a digit need a second pass: "1\,2" is none, "1\,000\,000" is
		line = thousandsTeX.ReplaceAllString(line, "$1$2")
	}
	line = degreesTeX.ReplaceAllString(line, "°")
	line = groupsTeX.Replace(line)
	line = mixedTeX.ReplaceAllString(line, "$1 $2")
	line = fractionTeX.ReplaceAllString(line, "$1$3/$2$4")
	line = textTeX.ReplaceAllString(line, "$1")
	return commandTeX.ReplaceAllString(line, "")
}
