package tokenizer

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// piece is a stretch of text that the model encodes by itself. first says that nothing stands before it.
type piece struct {
	text  string
	first bool
}

// splitter appends the pieces of p to out. It leaves out what is empty.
type splitter func(out []piece, p piece) []piece

// run is a stretch of text that does or does not match what a splitter looks for.
type run struct {
	begin, end int
	match      bool
}

// behavior is what becomes of the matches.
type behavior string

const (
	removed    behavior = "Removed"
	isolated   behavior = "Isolated"
	withPrev   behavior = "MergedWithPrevious"
	withNext   behavior = "MergedWithNext"
	contiguous behavior = "Contiguous"
)

func (b behavior) known() bool {
	return slices.Contains([]behavior{removed, isolated, withPrev, withNext, contiguous}, b)
}

// splitRuns cuts at runs, which cover the text.
func splitRuns(find func(string) []run, b behavior) splitter {
	return func(out []piece, p piece) []piece {
		runs := find(p.text)
		for i := 0; i < len(runs); i++ {
			r := runs[i]
			switch {
			case b == removed && r.match:
				continue
			case b == withPrev && !r.match && i+1 < len(runs) && runs[i+1].match,
				b == withNext && r.match && i+1 < len(runs) && !runs[i+1].match:
				i++
				r.end = runs[i].end
			case b == contiguous:
				for i+1 < len(runs) && runs[i+1].match == r.match {
					i++
					r.end = runs[i].end
				}
			}
			if r.begin < r.end {
				out = append(out, piece{p.text[r.begin:r.end], p.first && r.begin == 0})
			}
		}
		return out
	}
}

// findString finds a string that is not empty.
func findString(s string) func(string) []run {
	return func(text string) []run {
		var runs []run
		for done := 0; done < len(text); {
			i := strings.Index(text[done:], s)
			if i < 0 {
				return append(runs, run{done, len(text), false})
			}
			if i > 0 {
				runs = append(runs, run{done, done + i, false})
			}
			done += i + len(s)
			runs = append(runs, run{done - len(s), done, true})
		}
		return runs
	}
}

// findClass finds single characters.
func findClass(class func(rune) bool) func(string) []run {
	return func(text string) []run {
		var runs []run
		for i := 0; i < len(text); {
			r, n := utf8.DecodeRuneInString(text[i:])
			match := class(r)
			if last := len(runs) - 1; last >= 0 && !match && !runs[last].match {
				runs[last].end += n
			} else {
				runs = append(runs, run{i, i + n, match})
			}
			i += n
		}
		return runs
	}
}

// findPattern finds what a scanner does; there is nothing between.
func findPattern(scan scanner) func(string) []run {
	return func(text string) []run {
		var runs []run
		for i := 0; i < len(text); {
			n := scan(text[i:])
			runs = append(runs, run{i, i + n, true})
			i += n
		}
		return runs
	}
}

// invert swaps what matches and what does not.
func invert(find func(string) []run) func(string) []run {
	return func(text string) []run {
		runs := find(text)
		for i := range runs {
			runs[i].match = !runs[i].match
		}
		return runs
	}
}

// splitWords is \w+|[^\w\s]+: words and what stands between them, without white space.
func splitWords(out []piece, p piece) []piece {
	for i := 0; i < len(p.text); {
		end := skip(p.text, i, noLimit, isWord)
		if end == i {
			end = skip(p.text, i, noLimit, func(r rune) bool { return !isWord(r) && !unicode.IsSpace(r) })
		}
		if end == i {
			i = skip(p.text, i, noLimit, unicode.IsSpace)
			continue
		}
		out = append(out, piece{p.text[i:end], p.first && i == 0})
		i = end
	}
	return out
}

// byteLevel spells each byte as a visible character, after the split that GPT-2 makes if scan says so.
func byteLevel(prefixSpace bool, scan scanner) splitter {
	return func(out []piece, p piece) []piece {
		text := p.text
		if prefixSpace && !strings.HasPrefix(text, " ") {
			text = " " + text
		}
		for i := 0; i < len(text); {
			n := len(text) - i
			if scan != nil {
				n = scan(text[i:])
			}
			out = append(out, piece{spell(text[i : i+n]), p.first && i == 0})
			i += n
		}
		return out
	}
}

// GPT-2's alphabet: a byte that is a visible character of Latin-1 is spelled as itself, the other 68
// as the characters from U+0100 on.
var byteRunes, runeBytes = func() (runes [256]rune, bytes map[rune]byte) {
	bytes = map[rune]byte{}
	next := rune(0x100)
	for b := range runes {
		switch {
		case '!' <= b && b <= '~', '¡' <= b && b <= '¬', '®' <= b && b <= 'ÿ':
			runes[b] = rune(b)
		default:
			runes[b] = next
			next++
		}
		bytes[runes[b]] = byte(b)
	}
	return runes, bytes
}()

func spell(text string) string {
	out := make([]byte, 0, 2*len(text))
	for _, b := range []byte(text) {
		out = utf8.AppendRune(out, byteRunes[b])
	}
	return string(out)
}

// metaspace makes spaces visible, puts one before the text, and splits before each.
type metaspace struct {
	mark    string // "▁"
	prepend string // "always", "first" or "never"
	split   bool
}

func (m metaspace) splitter() splitter {
	before := splitRuns(findString(m.mark), withNext)
	return func(out []piece, p piece) []piece {
		text := strings.ReplaceAll(p.text, " ", m.mark)
		if (m.prepend == "always" || m.prepend == "first" && p.first) && !strings.HasPrefix(text, m.mark) {
			text = m.mark + text
		}
		if !m.split {
			return append(out, piece{text, p.first})
		}
		return before(out, piece{text, p.first})
	}
}
