package answers

import (
	"regexp"
	"strings"
)

var (
	// A letter with brackets or a sign behind it: "(B)", "B)", "B.", "B:", "**B**".
	marked = regexp.MustCompile(`\(([A-Ja-j])\)|\[([A-Ja-j])\]|\*\*\(?([A-Ja-j])\)?[.:)]?\*\*|(?:^|[\s:])([A-Ja-j])\)|(?:^|[:*]\s*)([A-J])[.:](?:\s|$)`)
	// What an answer begins with behind a phrase: words that only announce the letter, then the letter.
	announced = regexp.MustCompile(`(?i)^(?:\s|\*|"|'|` + "`" + `|\$|\\text\{|\\mathrm\{|\\textbf\{|\\boxed\{|the\b|correct\b|option\b|choice\b|letter\b|answer\b)*`)
	named     = regexp.MustCompile(`\b(?:[Oo]ption|[Cc]hoice|OPTION|CHOICE)\s+\(?([A-J])\b`)
	leading   = regexp.MustCompile(`^[\[(]?([A-Ja-j])(?:[\])}.,:;!*"'$` + "`" + `\s]|$)`)
	another   = regexp.MustCompile(`(?:^|[^A-Za-z])(?:or|and|/|,|&)\s*\(?([A-J])(?:[^A-Za-z']|$)`)
	pronoun   = regexp.MustCompile(`^I\s+[a-z]`)
	reason    = regexp.MustCompile(`^I\s+(?:because|since|as|for|or|and)\b`)
)

// Choice reads the letter A to J that a completion chooses; 0 where it names none, or several.
//
// The line that counts is the last one that announces an answer ("####", "answer is", "answer:",
// \boxed{}), else the last line that is not empty. Behind the announcement the letter comes first, perhaps
// in brackets or behind "option"; a small letter counts in brackets, before a sign, or at the end. Another
// letter behind it ("A or B", "A, C") makes several.
//
// A line that announces nothing is a choice if it is a letter alone, if it begins with a letter and a
// bracket, full stop or colon ("B. Paris"), or if all its letters in brackets, and all behind "option" or
// "choice", are one. "A" and "I" alone within a sentence are words.
func Choice(text string) byte {
	stated, ok := announcedLine(text)
	if ok {
		return behind(stated)
	}
	line := strings.TrimSpace(text)
	line = strings.TrimSpace(line[strings.LastIndexByte(line, '\n')+1:])
	if bare := strings.Trim(line, "()[]{}.*:\"'$` "); len(bare) == 1 {
		return letter(bare[0])
	}
	var chosen byte
	for _, re := range []*regexp.Regexp{marked, named} {
		for _, m := range re.FindAllStringSubmatch(line, -1) {
			c := letter(strings.Join(m[1:], "")[0])
			if chosen != 0 && c != chosen {
				return 0
			}
			chosen = c
		}
	}
	return chosen
}

// announcedLine is what follows the text's last announcement, on its line.
func announcedLine(text string) (string, bool) {
	at := max(afterPhrase(text), -1)
	if i := strings.LastIndex(text, "####"); i >= 0 {
		at = max(at, i+len("####"))
	}
	box := strings.LastIndex(text, `\boxed{`)
	if box > at {
		content, ok := Boxed(text[box:])
		return content, ok
	}
	if at < 0 {
		return "", false
	}
	return firstLine(text[at:]), true
}

// behind reads the letter behind an announcement.
func behind(stated string) byte {
	rest := stated[len(announced.FindString(stated)):]
	m := leading.FindStringSubmatch(rest)
	if m == nil || pronoun.MatchString(rest) && !reason.MatchString(rest) {
		return 0
	}
	c := m[1][0]
	after := rest[len(m[0]):]
	if c >= 'a' && rest[0] == c && strings.HasSuffix(m[0], " ") && strings.TrimSpace(after) != "" {
		return 0 // "the answer is a dog"
	}
	// The sign that ended the match may itself be what joins another letter.
	if joined := another.FindStringSubmatch(rest[len(m[0])-min(1, len(m[0])-strings.IndexByte(m[0], c)-1):]); joined != nil && joined[1][0] != letter(c) {
		return 0
	}
	return letter(c)
}

// letter is a choice's letter as a capital; 0 for any other byte.
func letter(c byte) byte {
	if 'a' <= c && c <= 'j' {
		c -= 'a' - 'A'
	}
	if c < 'A' || c > 'J' {
		return 0
	}
	return c
}

var referenceChoice = regexp.MustCompile(`^\(?([A-Ja-j])(?:\)|\.|:|\)\.)?(?:\s|$)`)

// ReferenceChoice reads a reference answer: "B", "(b)", "B. Paris"; 0 where it is no choice. A letter
// with words behind it needs a sign: "A dog" is none.
func ReferenceChoice(text string) byte {
	text = strings.TrimSpace(text)
	m := referenceChoice.FindStringSubmatch(text)
	if m == nil || len(m[0]) < len(text) && len(strings.TrimSpace(m[0])) == 1 {
		return 0
	}
	return letter(m[1][0])
}
