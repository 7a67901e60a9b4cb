package engine

import (
	"slices"
	"testing"

	"github.com/dno-project/dno/core/engine/generate"
)

// What is drawn has, to the bit, the log-probabilities that the score graph computes, known and unknown ones asked for
// together; and new weights have others.
func TestDrawnLogProbsAreThoseScored(t *testing.T) {
	e := fresh(t, true)
	must(t, e.StartOptimizer(adam))
	reqs := []generate.Request{{Prompt: []int32{2, 30, 40}, Seed: 1}, {Prompt: []int32{2, 30, 40}, Seed: 2}, {Prompt: []int32{7}, Seed: 3}}
	scored := func() []float64 {
		out, err := e.Generate(ctx, reqs, generate.DefaultOptions(8), nil)
		must(t, err)
		seqs := draw(2)
		for i, r := range out {
			seqs = append(seqs, Sequence{reqs[i].Prompt, r.Tokens})
		}
		if n := len(e.memo.drawn); n != len(reqs) {
			t.Fatalf("%d completions are remembered, want %d", n, len(reqs))
		}
		recalled, err := e.LogProbs(ctx, seqs)
		must(t, err)
		tokens, err := e.TokenLogProbs(ctx, seqs)
		must(t, err)
		e.model.Changed() // forgets
		again, err := e.LogProbs(ctx, seqs)
		must(t, err)
		tokensAgain, err := e.TokenLogProbs(ctx, seqs)
		must(t, err)
		if !slices.Equal(recalled, again) || !slices.EqualFunc(tokens, tokensAgain, slices.Equal) {
			t.Errorf("drawn completions have the log-probabilities %v, and scored they have %v", recalled, again)
		}
		if out[2].LogProb != again[4] {
			t.Errorf("a completion was drawn with log-probability %v and is scored %v", out[2].LogProb, again[4])
		}
		return again
	}
	before := scored()
	for range 3 {
		_, err := e.Step(ctx, draw(8), 1e-2, coupled)
		must(t, err)
	}
	if after := scored(); slices.Equal(after, before) {
		t.Error("three steps changed nothing")
	}
}

// Completions that are not remembered any more are scored.
func TestMemoIsBounded(t *testing.T) {
	var m memo
	long := make([]int32, memoTokens/4)
	for i := range 6 {
		m.add(1, []generate.Request{{Prompt: []int32{int32(i)}}}, []generate.Result{{Tokens: long, TokenLogProbs: []float64{1}}})
	}
	if len(m.drawn) != 3 || m.tokens > memoTokens {
		t.Errorf("%d completions of %d tokens are remembered", len(m.drawn), m.tokens)
	}
	if m.find(1, Sequence{[]int32{0}, long}) == nil || m.find(1, Sequence{[]int32{5}, long}) != nil || m.find(2, Sequence{[]int32{0}, long}) != nil {
		t.Error("the first are to be found, with the same weights only")
	}
}
