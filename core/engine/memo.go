package engine

import (
	"encoding/binary"

	"github.com/dno-project/dno/core/engine/generate"
)

// memo holds the log-probabilities of completions that the generator drew with the weights as they are: they are the
// bytes that the score graph would compute, which is what makes scoring them again a waste.
type memo struct {
	version uint64 // of the weights
	tokens  int
	drawn   map[string][]float64 // by prompt and completion, of each token
	key     []byte
}

// memoTokens is how many tokens are remembered, prompts included: some 30 MB. More are scored when asked for.
const memoTokens = 1 << 21

// keyOf is the prompt's length and all ids. It is good until the next call.
func (m *memo) keyOf(prompt, completion []int32) []byte {
	m.key = binary.LittleEndian.AppendUint32(m.key[:0], uint32(len(prompt)))
	for _, ids := range [][]int32{prompt, completion} {
		for _, id := range ids {
			m.key = binary.LittleEndian.AppendUint32(m.key, uint32(id))
		}
	}
	return m.key
}

// at forgets what other weights drew.
func (m *memo) at(version uint64) {
	if m.version != version || m.drawn == nil {
		m.version, m.tokens, m.drawn = version, 0, make(map[string][]float64)
	}
}

func (m *memo) add(version uint64, reqs []generate.Request, results []generate.Result) {
	m.at(version)
	for i, r := range results {
		if r.TokenLogProbs == nil { // other weights drew it
			continue
		}
		n := len(reqs[i].Prompt) + len(r.Tokens)
		if m.tokens+n > memoTokens {
			return
		}
		m.tokens += n
		m.drawn[string(m.keyOf(reqs[i].Prompt, r.Tokens))] = r.TokenLogProbs
	}
}

// find returns the log-probability of each token of a completion; nil if it is not known.
func (m *memo) find(version uint64, s Sequence) []float64 {
	if m.version != version {
		return nil
	}
	return m.drawn[string(m.keyOf(s.Prompt, s.Completion))]
}
