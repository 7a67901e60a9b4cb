package graph

import (
	"slices"
	"testing"

	"github.com/dno-project/dno/core/engine/kernel"
)

// Every token of every completion is predicted once, by a row that sees the prompt and the completion up to there and
// nothing else.
func FuzzBatch(f *testing.F) {
	f.Add([]byte{3, 0, 20, 20, 9, 1, 2}, uint8(2))
	f.Add([]byte{5, 40, 41, 0, 40, 60, 12, 40, 9, 9, 9}, uint8(1))
	f.Add([]byte{1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, uint8(200))
	f.Fuzz(func(t *testing.T, text []byte, alphabet uint8) {
		next := func() int {
			if len(text) == 0 {
				return 0
			}
			x := int(text[0])
			text = text[1:]
			return x
		}
		var b Batch
		b.Reset()
		var prompts, completions [][]int32 // of each sequence
		for range 1 + next()%3 {
			var group [][]int32
			prompt := make([]int32, 1+next()%5)
			for range next() % 12 {
				var c []int32
				if n := len(group); n > 0 { // it begins as another one does
					c = slices.Clone(group[next()%n])
					c = c[:next()%(len(c)+1)]
				}
				for range next() % 30 {
					c = append(c, int32(next()%(1+int(alphabet))))
				}
				group, prompts, completions = append(group, c), append(prompts, prompt), append(completions, c)
			}
			if len(group) > 0 {
				b.Add(prompt, group...)
			}
		}
		if b.Sequences() != len(completions) {
			t.Fatalf("%d sequences, want %d", b.Sequences(), len(completions))
		}
		saw := seenBy(t, &b)
		times := make([]int, len(b.Targets))
		for i, row := range b.Scored {
			for _, target := range b.predicts(i) {
				times[target]++
				s, _ := slices.BinarySearchFunc(b.ScoredCu[1:], int(target)+1, func(end, want int) int { return end - want })
				at := int(target) - b.ScoredCu[s]
				want := slices.Concat(prompts[s], completions[s][:at])
				if !slices.Equal(saw[row], want) || int(b.Positions[row]) != len(want)-1 || b.Targets[target] != completions[s][at] {
					t.Errorf("token %d of sequence %d is predicted after %v, want %v", at, s, saw[row], want)
				}
			}
		}
		for target, n := range times {
			if n != 1 {
				t.Errorf("target %d is predicted %d times", target, n)
			}
		}
	})
}

// seenBy returns the tokens that each row sees, and checks that spans are the rows in their order, trees in one piece.
func seenBy(t *testing.T, b *Batch) (saw [][]int32) {
	t.Helper()
	root := 0
	for i, s := range b.Spans {
		if s.From != len(saw) || s.To < s.From {
			t.Fatalf("span %d is %v after %d rows", i, s, len(saw))
		}
		var before []int32
		if s.Behind == 0 {
			root = i
		}
		for at, depth := i, 0; b.Spans[at].Behind > 0; depth++ {
			at -= b.Spans[at].Behind
			if at < root || depth == kernel.MostBehind {
				t.Fatalf("span %d continues span %d, before its tree or too far", i, at)
			}
			before = slices.Concat(b.Tokens[b.Spans[at].From:b.Spans[at].To], before)
		}
		for row := s.From; row < s.To; row++ {
			saw = append(saw, slices.Concat(before, b.Tokens[s.From:row+1]))
		}
	}
	if len(saw) != b.Rows() {
		t.Fatalf("the spans have %d rows of %d", len(saw), b.Rows())
	}
	return saw
}
