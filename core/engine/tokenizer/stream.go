package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Stream decodes ids as they come, for text that is shown while it is drawn. It is for one goroutine at a time.
//
// What it returns, joined, is [Tokenizer.Decode] of all ids without the special tokens. Each return is whole
// characters, and none is taken back: text that may still change with the ids that follow comes with these.
type Stream struct {
	t      *Tokenizer
	stages []stage
	begun  bool
}

// Stream returns a stream that has decoded nothing yet.
func (t *Tokenizer) Stream() *Stream {
	s := &Stream{t: t}
	for _, begin := range t.stages {
		s.stages = append(s.stages, begin())
	}
	return s
}

// Next returns the text that is certain with one id more; "" where it is held back.
func (s *Stream) Next(id int32) string {
	if id < 0 || int(id) >= len(s.t.tokens) || s.t.added[id].Special {
		return ""
	}
	token := s.t.tokens[id]
	if len(s.stages) == 0 && s.begun {
		token = " " + token
	}
	s.begun = true
	return s.push([]string{token}, false)
}

// End returns the text that was held back. The stream is over.
func (s *Stream) End() string { return s.push(nil, true) }

func (s *Stream) push(tokens []string, end bool) string {
	for _, stage := range s.stages {
		tokens = stage(tokens, end)
	}
	return strings.Join(tokens, "")
}

// Bytes returns what a token stands for amid others, which may be a part of a character; of a special token it is its
// name. An id that no token has gives nil. Joined they are the text, but for white space that a decoder strips from its
// beginning, or puts between words.
func (t *Tokenizer) Bytes(id int32) []byte {
	if id < 0 || int(id) >= len(t.tokens) {
		return nil
	}
	token := t.tokens[id]
	if !t.added[id].Special {
		for _, f := range t.amid {
			token = f(token)
		}
	}
	return []byte(token)
}

// A stage is a decoder at work on tokens that come bit by bit; with end come no more.
type stage func(tokens []string, end bool) []string

// decodeTokens adds a decoder with the beginning of its stage, which is for tokens that are not joined yet.
func (l *loader) decodeTokens(d decoder, amid func(string) string, begin func() stage) {
	if l.fused {
		begin = whole(d)
	}
	l.decodeWith(d, amid, begin)
}

// decodeWith adds a decoder, with what it makes of a token amid others, nil if it leaves it, and how its stage begins.
func (l *loader) decodeWith(d decoder, amid func(string) string, begin func() stage) {
	l.t.decode = append(l.t.decode, d)
	l.t.stages = append(l.t.stages, begin)
	if amid != nil {
		l.t.amid = append(l.t.amid, amid)
	}
}

// whole is the stage of a decoder of the whole text.
func whole(d decoder) func() stage {
	return func() stage {
		var held strings.Builder
		return func(tokens []string, end bool) []string {
			for _, token := range tokens {
				held.WriteString(token)
			}
			if !end {
				return nil
			}
			return d([]string{held.String()})
		}
	}
}

// stateless is the stage of a decoder that looks at each token by itself.
func stateless(d decoder) func() stage {
	return func() stage { return func(tokens []string, _ bool) []string { return d(tokens) } }
}

// stageOf is the stage of a decoder for the first tokens, and of another one for those after them.
func stageOf(first, then decoder) func() stage {
	return func() stage {
		d := first
		return func(tokens []string, _ bool) []string {
			if len(tokens) == 0 {
				return nil
			}
			tokens = append(d(tokens[:1]), then(tokens[1:])...)
			d = then
			return tokens
		}
	}
}

// stageByteLevel holds back the beginning of a character.
func stageByteLevel() stage {
	var held []byte
	return func(tokens []string, end bool) []string {
		for _, token := range tokens {
			held = appendSpelled(held, token)
		}
		n := len(held)
		if !end {
			n -= cutOff(held)
		}
		text := validUTF8(held[:n])
		held = append(held[:0], held[n:]...)
		return []string{text}
	}
}

// cutOff returns how many bytes at the end of b begin a character that may go on.
func cutOff(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if last := b[len(b)-n:]; utf8.RuneStart(last[0]) {
			if utf8.FullRune(last) {
				return 0
			}
			return n
		}
	}
	return 0
}

// stageByteFallback holds back neighbours that are bytes: the last of them decides what they are.
func stageByteFallback() stage {
	var held []string
	return func(tokens []string, end bool) []string {
		held = append(held, tokens...)
		n := len(held)
		for !end && n > 0 {
			if _, ok := fallbackByte(held[n-1]); !ok {
				break
			}
			n--
		}
		out := decodeByteFallback(held[:n])
		held = append([]string(nil), held[n:]...)
		return out
	}
}

// stageStripStart cuts up to n times c from the beginning of the text.
func stageStripStart(c string, n int) func() stage {
	return func() stage {
		left := n
		return func(tokens []string, _ bool) []string {
			for i, token := range tokens {
				for left > 0 && strings.HasPrefix(token, c) {
					token = token[len(c):]
					left--
				}
				if token != "" {
					left = 0
				}
				tokens[i] = token
			}
			return tokens
		}
	}
}
