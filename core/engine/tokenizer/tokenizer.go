// Package tokenizer is text to ids and back, as a tokenizer.json says, and the chat template that
// makes messages into a prompt.
//
// A tokenizer.json is a pipeline. In the order of use:
//
//	added.go      tokens that are looked for in the text itself: <bos>, <|im_end|>, ...
//	normalize.go  text to text, between those
//	split.go      text to pieces; pattern.go has the regular expressions, by hand
//	bpe.go        a piece to ids (also wordlevel.go)
//	load.go       reads all of it; a part that is not known is an error that names it
//	decode.go     ids to text; stream.go as they come
package tokenizer

import "strings"

// Tokenizer turns text into token ids and back. It does not change after [Load] and is safe for
// concurrent use.
type Tokenizer struct {
	added      map[int32]addedToken
	addedIDs   map[string]int32
	raw        matcher // added tokens looked for in the text as it comes
	normalized matcher // added tokens looked for in the normalized text
	normalize  []normalizer
	split      []splitter
	model      model
	prefix     []int32 // what the post-processor puts in front and behind
	suffix     []int32
	decode     []decoder // none: tokens are joined by spaces
	stages     []func() stage
	amid       []func(token string) string
	tokens     []string // by id; "" where there is none
	size       int
}

// model turns pieces into ids.
type model interface {
	// encode appends the ids of a piece to out.
	encode(out []int32, piece string, s *scratch) []int32
	id(token string) (int32, bool)
}

// Options are how a text is encoded. The zero value is for text from outside: nothing in it is
// taken for a special token, and nothing is put around it.
type Options struct {
	// ParseSpecial makes "<|im_end|>" in the text the special token of that name. Off, such a text
	// is encoded like any other, so that data cannot end a turn or begin one.
	ParseSpecial bool
	// AddSpecial puts the tokens of the post-processor around the text, such as <bos>.
	AddSpecial bool
}

// Encode returns the ids of text. An unknown character becomes the unknown token, or nothing where
// the tokenizer has none. Without ParseSpecial no id is that of a special token, but for the
// unknown one and those of bytes. Text that is not UTF-8 keeps its bytes where the model works on bytes.
//
// Checked against: Hugging Face tokenizers 0.23 (TestGoldenTokenizers). Its Unicode tables may be
// newer than Go's, which tells for letters assigned in the last year or two.
func (t *Tokenizer) Encode(text string, o Options) []int32 {
	out := []int32{}
	if o.AddSpecial {
		out = append(out, t.prefix...)
	}
	out = t.encode(out, text, o.ParseSpecial, true)
	if o.AddSpecial {
		out = append(out, t.suffix...)
	}
	return out
}

// encode appends the ids of text. first says that nothing stands before it.
func (t *Tokenizer) encode(out []int32, text string, parseSpecial, first bool) []int32 {
	var s scratch
	for part := range t.raw.find(text, parseSpecial) {
		if part.id >= 0 {
			out = append(out, part.id)
			continue
		}
		plain := text[part.begin:part.end]
		for _, n := range t.normalize {
			plain = n(plain)
		}
		for part2 := range t.normalized.find(plain, parseSpecial) {
			if part2.id >= 0 {
				out = append(out, part2.id)
				continue
			}
			s.pieces = append(s.pieces[:0], piece{plain[part2.begin:part2.end], first && part.begin == 0 && part2.begin == 0})
			for _, split := range t.split {
				s.next = s.next[:0]
				for _, p := range s.pieces {
					s.next = split(s.next, p)
				}
				s.pieces, s.next = s.next, s.pieces
			}
			for _, p := range s.pieces {
				out = t.model.encode(out, p.text, &s)
			}
		}
	}
	return out
}

// scratch is memory that one call of Encode uses again and again.
type scratch struct {
	pieces, next []piece
	symbols      []symbol
	queue        queue
}

// Decode returns the text of ids, without the special tokens if skipSpecial. Ids that no token has
// are left out. Bytes that are not UTF-8 become U+FFFD.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		if id < 0 || int(id) >= len(t.tokens) || skipSpecial && t.added[id].Special {
			continue
		}
		tokens = append(tokens, t.tokens[id])
	}
	if len(t.decode) == 0 {
		return strings.Join(tokens, " ")
	}
	for _, d := range t.decode {
		tokens = d(tokens)
	}
	return strings.Join(tokens, "")
}

// ID returns the id of a token as tokenizer.json spells it, special or not; false where there is none.
func (t *Tokenizer) ID(token string) (int32, bool) {
	if id, ok := t.addedIDs[token]; ok {
		return id, true
	}
	return t.model.id(token)
}

// VocabSize returns how many tokens there are, added ones included. A model's embedding may have
// more rows.
func (t *Tokenizer) VocabSize() int { return t.size }
