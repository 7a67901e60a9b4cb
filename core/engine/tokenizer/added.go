package tokenizer

import (
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that is found in the text itself, before any model sees it.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only where no word character touches it
	LStrip     bool   `json:"lstrip"`      // takes the white space before it along
	RStrip     bool   `json:"rstrip"`      // and that after it
	Normalized bool   `json:"normalized"`  // is looked for in the normalized text
	Special    bool   `json:"special"`
}

// maxAdded bounds a token's length in bytes, and so the time to look for tokens that almost match.
const maxAdded = 1024

// matcher finds added tokens, the leftmost first and of those the longest.
type matcher struct {
	root  [256]int32 // node by first byte; 0 is none
	nodes []node     // the first is unused
}

type node struct {
	next  map[byte]int32
	token *addedToken
}

func (m *matcher) add(content string, token addedToken) {
	if m.nodes == nil {
		m.nodes = make([]node, 1)
	}
	grow := func() int32 {
		m.nodes = append(m.nodes, node{next: map[byte]int32{}})
		return int32(len(m.nodes) - 1)
	}
	at := m.root[content[0]]
	if at == 0 {
		at = grow()
		m.root[content[0]] = at
	}
	for _, b := range []byte(content[1:]) {
		next, ok := m.nodes[at].next[b]
		if !ok {
			next = grow()
			m.nodes[at].next[b] = next
		}
		at = next
	}
	m.nodes[at].token = &token
}

// longest returns the longest token that text begins with, and its length in bytes.
func (m *matcher) longest(text string) (*addedToken, int) {
	var token *addedToken
	length := 0
	at := m.root[text[0]]
	for i := 1; at != 0; i++ {
		if found := m.nodes[at].token; found != nil {
			token, length = found, i
		}
		if i == len(text) {
			break
		}
		at = m.nodes[at].next[text[i]]
	}
	return token, length
}

// part is a stretch of text that is an added token, or, with id -1, holds none.
type part struct {
	begin, end int
	id         int32
}

// find parts text at the added tokens. Special ones are passed over, together with what else may be
// hidden in them, unless parseSpecial.
func (m *matcher) find(text string, parseSpecial bool) iter.Seq[part] {
	return func(yield func(part) bool) {
		done := 0
		for i := 0; i < len(text); {
			token, n := m.longest(text[i:])
			if token == nil {
				i++
				continue
			}
			begin, end := i, i+n
			i = end
			if token.Special && !parseSpecial {
				continue
			}
			if token.SingleWord && (endsWithWord(text[:begin]) || startsWithWord(text[end:])) {
				continue
			}
			if token.LStrip {
				begin = max(done, len(strings.TrimRightFunc(text[:begin], unicode.IsSpace)))
			}
			if token.RStrip { // a token in that white space counts all the same, as in the reference
				end = len(text) - len(strings.TrimLeftFunc(text[end:], unicode.IsSpace))
			}
			if done < begin && !yield(part{done, begin, -1}) {
				return
			}
			if !yield(part{begin, end, token.ID}) {
				return
			}
			done = end
		}
		if done < len(text) {
			yield(part{done, len(text), -1})
		}
	}
}

func endsWithWord(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isWord(r)
}

func startsWithWord(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isWord(r)
}

// isWord is \w of Unicode's regular expressions (UTS 18, annex C).
func isWord(r rune) bool {
	return unicode.In(r, unicode.L, unicode.Nl, unicode.Other_Alphabetic, unicode.M, unicode.Nd, unicode.Pc, unicode.Join_Control)
}
