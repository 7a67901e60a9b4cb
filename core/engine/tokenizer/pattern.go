package tokenizer

import (
	"unicode"
	"unicode/utf8"
)

// scanner returns the length in bytes of the piece that begins a text that is not empty.
type scanner func(text string) int

// The regular expressions of tokenizers that are published. Go's regexp has no (?!\S), so each is a
// scanner here; they match every character of every text.
const (
	patternGPT2   = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	patternLlama3 = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+` // also cl100k
	patternQwen2  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
)

// scannerFor returns the scanner of a pattern, or nil where there is none.
func scannerFor(pattern string) scanner {
	switch pattern {
	case patternGPT2:
		return scanGPT2
	case patternLlama3:
		return func(text string) int { return scanLlama(text, 3) }
	case patternQwen2:
		return func(text string) int { return scanLlama(text, 1) }
	}
	return nil
}

func isLetter(r rune) bool {
	if r < utf8.RuneSelf {
		return 'a' <= r|32 && r|32 <= 'z'
	}
	return unicode.IsLetter(r)
}

func isNumber(r rune) bool {
	if r < utf8.RuneSelf {
		return '0' <= r && r <= '9'
	}
	return unicode.IsNumber(r)
}

// isOther is [^\s\p{L}\p{N}].
func isOther(r rune) bool { return !unicode.IsSpace(r) && !isLetter(r) && !isNumber(r) }

func isNewline(r rune) bool { return r == '\r' || r == '\n' }

// skip returns where the run of at most limit characters of a class that begins at i ends.
func skip(text string, i, limit int, class func(rune) bool) int {
	for ; i < len(text) && limit > 0; limit-- {
		r, n := utf8.DecodeRuneInString(text[i:])
		if !class(r) {
			break
		}
		i += n
	}
	return i
}

const noLimit = int(^uint(0) >> 1)

func scanGPT2(text string) int {
	if n := contraction(text, false); n > 0 {
		return n
	}
	begin := 0
	if text[0] == ' ' {
		begin = 1
	}
	for _, class := range []func(rune) bool{isLetter, isNumber, isOther} {
		if end := skip(text, begin, noLimit, class); end > begin {
			return end
		}
	}
	return scanSpace(text)
}

func scanLlama(text string, digits int) int {
	if n := contraction(text, true); n > 0 {
		return n
	}
	first, width := utf8.DecodeRuneInString(text)
	begin := width // of the letters, if one other character stands before them
	if isLetter(first) || isNumber(first) || isNewline(first) {
		begin = 0
	}
	if end := skip(text, begin, noLimit, isLetter); end > begin {
		return end
	}
	if end := skip(text, 0, digits, isNumber); end > 0 {
		return end
	}
	begin = 0
	if first == ' ' {
		begin = 1
	}
	if end := skip(text, begin, noLimit, isOther); end > begin {
		return skip(text, end, noLimit, isNewline)
	}
	// \s*[\r\n]+ ends with the last newline of the white space.
	for end := skip(text, 0, noLimit, unicode.IsSpace); end > 0; end-- {
		if isNewline(rune(text[end-1])) {
			return end
		}
	}
	return scanSpace(text)
}

// scanSpace is \s+(?!\S)|\s+: white space up to the end of the text, or all of it but the last
// character, which belongs to the word that follows, or just one.
func scanSpace(text string) int {
	end := skip(text, 0, noLimit, unicode.IsSpace)
	if end == len(text) {
		return end
	}
	_, last := utf8.DecodeLastRuneInString(text[:end])
	if end > last {
		return end - last
	}
	return end
}

// contraction returns the length of the 's, 't, 're, 've, 'm, 'll or 'd that text begins with, or 0.
func contraction(text string, anyCase bool) int {
	if text[0] != '\'' {
		return 0
	}
	lower := func(i int) (rune, int) {
		if i >= len(text) {
			return 0, 0
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case anyCase && r == 'ſ': // the long s, whose upper case is S
			r = 's'
		case anyCase:
			r = unicode.ToLower(r)
		}
		return r, n
	}
	a, n := lower(1)
	switch a {
	case 's', 't', 'm', 'd':
		return 1 + n
	}
	b, m := lower(1 + n)
	switch string([]rune{a, b}) {
	case "re", "ve", "ll":
		return 1 + n + m
	}
	return 0
}
