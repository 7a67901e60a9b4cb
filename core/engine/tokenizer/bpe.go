package tokenizer

import (
	"fmt"
	"unicode/utf8"
)

// bpe is byte-pair encoding: a piece is cut into characters, and the pair of neighbours that was
// learnt first is merged until no pair is known.
//
// Source: Sennrich et al. 2016 (arXiv 1508.07909), Algorithm 1; the handling of what is unknown
// follows Hugging Face tokenizers.
type bpe struct {
	vocab        map[string]int32 // without special tokens: no text may become one
	low          [512]int32       // vocab of the first characters, which byte-level models use
	merges       map[uint64]merge // by both ids of the pair
	bytes        [256]int32       // <0x00> to <0xFF>, -1 where there is none
	unknown      int32            // -1 where there is none
	fuseUnknown  bool             // neighbours that are unknown become one token
	byteFallback bool             // an unknown character becomes its bytes
	wholeFirst   bool             // ignore_merges: a piece that is a token is that token
}

type merge struct{ rank, id int32 }

func newBPE(c bpeConfig, special map[int32]bool) (*bpe, error) {
	m := &bpe{
		vocab: c.Vocab, merges: make(map[uint64]merge, len(c.Merges)), unknown: -1,
		fuseUnknown: c.FuseUnk, byteFallback: c.ByteFallback, wholeFirst: c.IgnoreMerges,
	}
	if c.UnkToken != nil {
		id, ok := m.vocab[*c.UnkToken]
		if !ok {
			return nil, fmt.Errorf("unk_token %q is not in the vocabulary", *c.UnkToken)
		}
		m.unknown = id
	}
	for b := range m.bytes {
		m.bytes[b] = -1
		if id, ok := m.vocab[fmt.Sprintf("<0x%02X>", b)]; ok {
			m.bytes[b] = id
		}
	}
	for rank, pair := range c.Merges {
		var ids [2]int32
		for i, token := range pair {
			id, ok := m.vocab[token]
			if !ok {
				return nil, fmt.Errorf("merge %d: %q is not in the vocabulary", rank, token)
			}
			ids[i] = id
		}
		id, ok := m.vocab[pair[0]+pair[1]]
		if !ok {
			return nil, fmt.Errorf("merge %d: %q is not in the vocabulary", rank, pair[0]+pair[1])
		}
		if !special[id] {
			m.merges[pairKey(ids[0], ids[1])] = merge{int32(rank), id}
		}
	}
	for token, id := range m.vocab {
		if special[id] {
			delete(m.vocab, token)
		}
	}
	for r := range m.low {
		m.low[r] = -1
		if id, ok := m.vocab[string(rune(r))]; ok {
			m.low[r] = id
		}
	}
	return m, nil
}

func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

func (m *bpe) id(token string) (int32, bool) {
	id, ok := m.vocab[token]
	return id, ok
}

// symbol is a token of the piece so far, in a list linked both ways; -1 is no neighbour. A symbol that
// was merged into its left neighbour has id -1.
type symbol struct{ id, prev, next int32 }

func (m *bpe) encode(out []int32, piece string, s *scratch) []int32 {
	if m.wholeFirst {
		if id, ok := m.vocab[piece]; ok {
			return append(out, id)
		}
	}
	s.symbols = s.symbols[:0]
	add := func(id int32) {
		n := int32(len(s.symbols))
		s.symbols = append(s.symbols, symbol{id, n - 1, n + 1})
	}
	unknown := false // one is waiting for the next character, which may be unknown too
	for i := 0; i < len(piece); {
		r, n := utf8.DecodeRuneInString(piece[i:])
		char := piece[i : i+n]
		i += n
		if id := m.char(r, char); id >= 0 {
			if unknown {
				add(m.unknown)
				unknown = false
			}
			add(id)
			continue
		}
		if m.byteFallback && m.hasBytes(char) {
			for _, b := range []byte(char) {
				add(m.bytes[b])
			}
			continue
		}
		if unknown && !m.fuseUnknown {
			add(m.unknown)
		}
		unknown = m.unknown >= 0
	}
	if unknown {
		add(m.unknown)
	}
	if len(s.symbols) == 0 {
		return out
	}
	s.symbols[len(s.symbols)-1].next = -1
	m.merge(s)
	for _, y := range s.symbols {
		if y.id >= 0 {
			out = append(out, y.id)
		}
	}
	return out
}

// char returns the id of one character, or -1.
func (m *bpe) char(r rune, char string) int32 {
	if int(r) < len(m.low) {
		return m.low[r]
	}
	if id, ok := m.vocab[char]; ok {
		return id
	}
	return -1
}

func (m *bpe) hasBytes(char string) bool {
	for _, b := range []byte(char) {
		if m.bytes[b] < 0 {
			return false
		}
	}
	return true
}

// merge merges neighbours, the lowest rank first and of equal ones the leftmost. A piece can be a whole
// text, so the pairs wait in a heap: O(n log n).
func (m *bpe) merge(s *scratch) {
	y := s.symbols
	s.queue = s.queue[:0]
	offer := func(i int32) {
		if i < 0 || y[i].next < 0 {
			return
		}
		if found, ok := m.merges[pairKey(y[i].id, y[y[i].next].id)]; ok {
			s.queue.push(candidate{found.rank, i, found.id})
		}
	}
	for i := range y {
		offer(int32(i))
	}
	for len(s.queue) > 0 {
		c := s.queue.pop()
		left := &y[c.at]
		if left.id < 0 || left.next < 0 {
			continue
		}
		right := &y[left.next]
		// The pair may have changed since it was offered.
		if found, ok := m.merges[pairKey(left.id, right.id)]; !ok || found.id != c.id {
			continue
		}
		left.id, right.id = c.id, -1
		left.next = right.next
		if left.next >= 0 {
			y[left.next].prev = c.at
		}
		offer(left.prev)
		offer(c.at)
	}
}

// candidate is a pair that can be merged: the symbol at and its right neighbour, into id.
type candidate struct{ rank, at, id int32 }

func (a candidate) before(b candidate) bool {
	return a.rank < b.rank || a.rank == b.rank && a.at < b.at
}

// queue is a binary heap: container/heap would allocate for each candidate.
type queue []candidate

func (q *queue) push(c candidate) {
	h := append(*q, c)
	for i := len(h) - 1; i > 0; {
		parent := (i - 1) / 2
		if !h[i].before(h[parent]) {
			break
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
	*q = h
}

func (q *queue) pop() candidate {
	h := *q
	top, last := h[0], len(h)-1
	h[0] = h[last]
	h = h[:last]
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			break
		}
		if child+1 < last && h[child+1].before(h[child]) {
			child++
		}
		if !h[child].before(h[i]) {
			break
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
	*q = h
	return top
}
