package tokenizer

import "fmt"

// wordLevel makes each piece one token.
type wordLevel struct {
	vocab   map[string]int32 // without special tokens: no text may become one
	unknown int32
}

func newWordLevel(c wordLevelConfig, special map[int32]bool) (*wordLevel, error) {
	unknown, ok := c.Vocab[c.UnkToken]
	if !ok {
		return nil, fmt.Errorf("unk_token %q is not in the vocabulary", c.UnkToken)
	}
	for token, id := range c.Vocab {
		if special[id] {
			delete(c.Vocab, token)
		}
	}
	return &wordLevel{c.Vocab, unknown}, nil
}

func (m *wordLevel) id(token string) (int32, bool) {
	id, ok := m.vocab[token]
	return id, ok
}

func (m *wordLevel) encode(out []int32, piece string, _ *scratch) []int32 {
	if id, ok := m.vocab[piece]; ok {
		return append(out, id)
	}
	return append(out, m.unknown)
}
