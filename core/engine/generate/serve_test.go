package generate

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sort"
	"testing"

	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
)

// heard is what a served request was told.
type heard struct {
	tokens   []int32
	logProbs []float64
	top      [][]Alternative
	result   Result
	err      error
	done     int
}

// hear makes a request that notes what it is told.
func hear(r Request, o Options) (*heard, Served) {
	h := &heard{}
	r.Options = &o
	return h, Served{Request: r,
		Token: func(t Token) bool {
			h.tokens, h.logProbs = append(h.tokens, t.ID), append(h.logProbs, t.LogProb)
			h.top = append(h.top, slices.Clone(t.Top))
			return true
		},
		Done: func(result Result, err error) {
			h.result, h.err = result, err
			h.done++
		}}
}

// arrive hands requests out bit by bit, as they would come.
func arrive(t *testing.T, all []Served, r *rand.Rand) func(int) []Served {
	return func(free int) []Served {
		if free < 1 {
			t.Errorf("asked for %d requests", free)
		}
		n := min(free, len(all), r.IntN(3))
		if len(all) > 0 && r.IntN(4) == 0 {
			n = min(free, len(all))
		}
		some := all[:n]
		all = all[n:]
		return some
	}
}

// serveAll serves all, however often nothing has come yet and the batch runs dry.
func serveAll(t *testing.T, g *Generator, all []Served, seed uint64) {
	t.Helper()
	left := len(all)
	next := arrive(t, all, rand.New(rand.NewPCG(seed, 1)))
	for left > 0 {
		if err := g.Serve(context.Background(), func(free int) []Served {
			some := next(free)
			left -= len(some)
			return some
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServedCompletionsAreTheSame(t *testing.T) {
	for name, precision := range map[string]kernel.Precision{"float32": kernel.Float32, "bfloat16": kernel.BFloat16} {
		t.Run(name, func(t *testing.T) {
			m := small(t, nil)
			m.SetPrecision(precision)
			eos := []int32{3, 17}
			filtered, greedy := DefaultOptions(30), DefaultOptions(12)
			filtered.RepetitionPenalty, filtered.Temperature, filtered.TopK, filtered.TopP, filtered.MinP = 1.1, 1.3, 30, 0.95, 0.01
			filtered.Stop = []string{"BC", "F"}
			greedy.Temperature = 0
			options := []Options{DefaultOptions(40), filtered, greedy}
			reqs := mixed(60, m.Config.Vocab)
			var want []Result
			for i, r := range reqs {
				want = append(want, draw(t, New(m, eos, letters), []Request{r}, options[i%3])[0])
			}
			each := func(own, prompt int) int {
				c := &m.Config
				return c.Layers * (kernel.CacheSize(own, c.KVHeads, c.HeadDim) + kernel.CacheSize(prompt, c.KVHeads, c.HeadDim))
			}
			for _, slots := range []int{1, 3, 32} {
				for seed := range uint64(4) {
					g := New(m, eos, letters)
					g.maxServed = slots
					if seed == 3 { // less memory than places
						g.maxCache = 2 * each(96, 96)
					}
					var all []Served
					var told []*heard
					for i, r := range reqs {
						h, s := hear(r, options[i%3])
						all, told = append(all, s), append(told, h)
					}
					serveAll(t, g, all, seed)
					for i, h := range told {
						if h.err != nil || h.done != 1 || !reflect.DeepEqual(h.result, want[i]) {
							t.Fatalf("%d slots: request %d was told %d times\n%+v, %v; want\n%+v", slots, i, h.done, h.result, h.err, want[i])
						}
						if !slices.Equal(h.tokens, want[i].Tokens) || !slices.Equal(h.logProbs, want[i].TokenLogProbs) {
							t.Fatalf("%d slots: request %d was told the tokens %v, want %v", slots, i, h.tokens, want[i].Tokens)
						}
					}
				}
			}
		})
	}
}

// Tokens that are given are scored as the graph scores them, and the rest is drawn as if they were of the prompt.
func TestGivenTokensAreScoredNotDrawn(t *testing.T) {
	m := small(t, nil)
	r := rand.New(rand.NewPCG(5, 6))
	reqs := mixed(20, m.Config.Vocab)
	o := DefaultOptions(9)
	o.Temperature, o.RepetitionPenalty = 1.2, 1.3
	var whole []Request // with what is given in their prompts
	var given []Result
	var all []Served
	var told []*heard
	for i := range reqs {
		ids := make([]int32, 1+r.IntN(20))
		for k := range ids {
			ids[k] = int32(r.IntN(m.Config.Vocab))
		}
		ids[0] = 3 // an end-of-sequence token that is given ends nothing
		h, s := hear(reqs[i], o)
		s.Given = ids
		all, told, given = append(all, s), append(told, h), append(given, Result{Tokens: ids})
		whole = append(whole, Request{Prompt: slices.Concat(reqs[i].Prompt, ids), Seed: reqs[i].Seed})
	}
	want := draw(t, New(m, []int32{3}, letters), whole, o)
	scores := scored(t, m, reqs, given).TokenLogProbs()
	serveAll(t, New(m, []int32{3}, letters), all, 1)
	for i, h := range told {
		n := len(given[i].Tokens)
		if h.err != nil || !reflect.DeepEqual(h.result, want[i]) {
			t.Errorf("request %d: drew\n%+v, %v; want\n%+v", i, h.result, h.err, want[i])
		}
		if !slices.Equal(h.tokens, slices.Concat(given[i].Tokens, want[i].Tokens)) || !slices.Equal(h.logProbs, slices.Concat(scores[:n], want[i].TokenLogProbs)) {
			t.Errorf("request %d: was told %v, %v", i, h.tokens, h.logProbs)
		}
		scores = scores[n:]
	}
}

func TestNothingIsDrawnAfterGivenTokensAlone(t *testing.T) {
	m := small(t, nil)
	for name, n := range map[string]int{"one": 1, "as many as the model has positions": m.Config.MaxPositions - 2} {
		t.Run(name, func(t *testing.T) {
			h, s := hear(Request{Prompt: []int32{1, 2}}, DefaultOptions(0))
			s.Given = slices.Repeat([]int32{7}, n)
			serveAll(t, New(m, nil, letters), []Served{s}, 1)
			if h.err != nil || h.done != 1 || h.result.Finish != Length || len(h.result.Tokens) != 0 || h.result.Text != "" || !slices.Equal(h.tokens, s.Given) {
				t.Errorf("told %d times: %+v, %v, tokens %v", h.done, h.result, h.err, h.tokens)
			}
		})
	}
	h, s := hear(Request{Prompt: []int32{1, 2}}, DefaultOptions(5))
	s.Given = slices.Repeat([]int32{7}, m.Config.MaxPositions-2) // there is no room for those that are asked for
	serveAll(t, New(m, nil, letters), []Served{s}, 1)
	if h.err != nil || h.done != 1 || len(h.result.Tokens) != 0 {
		t.Errorf("told %d times: %+v, %v", h.done, h.result, h.err)
	}
}

func TestTheMostProbableTokensAreTold(t *testing.T) {
	m := small(t, nil)
	o := DefaultOptions(20)
	o.Temperature = 3 // log-probabilities are the model's own all the same
	h, s := hear(Request{Prompt: []int32{4, 8}, Seed: 2}, o)
	s.Top = 7
	serveAll(t, New(m, nil, nil), []Served{s}, 1)
	prompt := []int32{4, 8}
	for i, id := range h.tokens {
		var reqs []Request
		var results []Result
		for other := range int32(m.Config.Vocab) {
			reqs, results = append(reqs, Request{Prompt: prompt}), append(results, Result{Tokens: []int32{other}})
		}
		scores := scored(t, m, reqs, results).TokenLogProbs()
		var want []Alternative
		for other, p := range scores {
			want = append(want, Alternative{int32(other), p})
		}
		sort.SliceStable(want, func(a, b int) bool { return want[a].LogProb > want[b].LogProb })
		if !slices.Equal(h.top[i], want[:7]) || h.logProbs[i] != scores[id] {
			t.Fatalf("token %d: %v, %v; want %v, %v", i, h.top[i], h.logProbs[i], want[:7], scores[id])
		}
		prompt = append(slices.Clone(prompt), id)
	}
}

func TestLargestAtTheEdges(t *testing.T) {
	inf := float32(math.Inf(-1))
	for _, c := range []struct {
		logits []float32
		n      int
		want   []int32
	}{
		{[]float32{1, 3, 2}, 0, []int32{}},
		{[]float32{1, 3, 2}, 3, []int32{1, 2, 0}},
		{[]float32{2, 1, 2, 2, 3}, 3, []int32{4, 0, 2}}, // the lower id first, and the last of equals left out
		{[]float32{inf, 5, inf}, 2, []int32{1, 0}},
	} {
		got := []int32{}
		for _, a := range largest(make([]Alternative, 5), c.logits, 1, c.n) {
			if a.LogProb != float64(c.logits[a.ID])-1 {
				t.Errorf("%v: id %d has %v", c.logits, a.ID, a.LogProb)
			}
			got = append(got, a.ID)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("the %d largest of %v: %v, want %v", c.n, c.logits, got, c.want)
		}
	}
}

func TestServedPromptsAreReadOnce(t *testing.T) {
	m := small(t, nil)
	var all []Served
	for i := range 30 { // three prompts, one after another
		_, s := hear(Request{Prompt: []int32{int32(i / 10), 1, 2}, Seed: uint64(i)}, DefaultOptions(8))
		all = append(all, s)
	}
	for _, at := range []int{1, 4, 30} { // that come at a time
		g := New(m, []int32{5}, letters)
		g.maxServed = 7
		g.packed.pack(m, SameWeights)
		left := all
		b := newBatch(serving(g, &all[0]))
		b.source = &source{next: func(free int) []Served {
			n := min(free, at, len(left))
			some := left[:n]
			left = left[n:]
			return slices.Clone(some)
		}}
		read := 0
		for {
			b.d.reset()
			must(t, b.admit(context.Background()))
			if len(b.active) == 0 {
				break
			}
			read += len(b.d.ids) // the tokens of prompts
			b.advance()
			_, err := b.extend()
			must(t, err)
		}
		if len(left) > 0 || read != 3*3 || len(b.freePrompts) != 7 {
			t.Errorf("%d at a time: %d tokens of prompts were read, want 9; %d are left, %d places for prompts are free", at, read, len(left), len(b.freePrompts))
		}
	}
}

// Who does not want more is let go, at once and alone.
func TestServedRequestsThatEndEarly(t *testing.T) {
	m := small(t, nil)
	reqs := mixed(20, m.Config.Vocab)
	o := DefaultOptions(20)
	want := draw(t, New(m, nil, letters), reqs, o)
	var all []Served
	var told []*heard
	for i, r := range reqs {
		h, s := hear(r, o)
		if i%3 == 0 {
			token := s.Token
			s.Token = func(t Token) bool { return token(t) && len(h.tokens) < 1+i }
		}
		all, told = append(all, s), append(told, h)
	}
	g := New(m, nil, letters)
	g.maxServed = 4
	serveAll(t, g, all, 1)
	for i, h := range told {
		if n := len(want[i].Tokens); i%3 == 0 && i+1 < n {
			if h.done != 0 || !slices.Equal(h.tokens, want[i].Tokens[:i+1]) {
				t.Errorf("request %d: done %d times, told %d tokens, want %d of %d", i, h.done, len(h.tokens), i+1, n)
			}
		} else if i%3 != 0 && !reflect.DeepEqual(h.result, want[i]) {
			t.Errorf("request %d: %+v, want %+v", i, h.result, want[i])
		}
	}
	if b := g.kept; b == nil || len(b.free) != b.room.slots || len(b.freePrompts) != b.room.prompts || len(b.freeSlots) != b.room.slots {
		t.Error("not all places are free at the end")
	}
}

// A request that needs more room waits for those before it, and those after it wait with it.
func TestServedRequestsComeInTheirOrder(t *testing.T) {
	m := small(t, func(c *model.Config) { c.MaxPositions = 1024 })
	c := &m.Config
	g := New(m, nil, letters)
	size := func(own, prompt int) int {
		return c.Layers * (kernel.CacheSize(own, c.KVHeads, c.HeadDim) + kernel.CacheSize(prompt, c.KVHeads, c.HeadDim))
	}
	g.maxCache = 3 * size(256, 256)
	var order []int
	var all []Served
	lengths := []int{10, 10, 400, 10, 10, 10, 300}
	for i, n := range lengths {
		o := DefaultOptions(n)
		h, s := hear(Request{Prompt: []int32{1}, Seed: uint64(i)}, o)
		token := s.Token
		s.Token = func(t Token) bool {
			if len(h.tokens) == 0 {
				order = append(order, i)
			}
			return token(t)
		}
		all = append(all, s)
	}
	left := all
	if err := g.Serve(context.Background(), func(int) []Served {
		some := left
		left = nil
		return some
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(order) || len(order) != len(lengths) {
		t.Errorf("they began in the order %v", order)
	}
	if r := g.kept.room; r.own != 512 || r.slots != 2 {
		t.Errorf("at the end there was room for %d of %d tokens", r.slots, r.own)
	}
}

func TestServedRequestsFailAlone(t *testing.T) {
	m := small(t, nil)
	ask := DefaultOptions(10)
	good, s := hear(Request{Prompt: []int32{1, 2}, Seed: 9}, ask)
	all := []Served{s}
	bad := map[string]*heard{}
	add := func(name string, r Request, o Options, change func(*Served)) {
		h, s := hear(r, o)
		if change != nil {
			change(&s)
		}
		bad[name], all = h, append(all, s)
	}
	add("no prompt", Request{}, ask, func(s *Served) { s.Given = []int32{1} })
	add("too long", Request{Prompt: make([]int32, 50)}, ask, func(s *Served) { s.Given = make([]int32, 47) })
	add("no such id", Request{Prompt: []int32{61}}, ask, nil)
	add("no such id given", Request{Prompt: []int32{1}}, ask, func(s *Served) { s.Given = []int32{1, -1} })
	add("an option", Request{Prompt: []int32{1}}, DefaultOptions(0), nil)
	add("too many", Request{Prompt: []int32{1}}, ask, func(s *Served) { s.Top = 62 })
	overflow := ask
	overflow.RepetitionPenalty = 1e-320
	add("not finite", Request{Prompt: []int32{1, 2}}, overflow, nil)
	serveAll(t, New(m, nil, letters), all, 1)
	for name, h := range bad {
		want := ErrInput
		if name == "not finite" {
			want = ErrNotFinite
		}
		if !errors.Is(h.err, want) || h.done != 1 || len(h.tokens) > 0 {
			t.Errorf("%s: told %d times, %v", name, h.done, h.err)
		}
	}
	if alone := draw(t, New(m, nil, letters), []Request{{Prompt: []int32{1, 2}, Seed: 9}}, ask)[0]; !reflect.DeepEqual(good.result, alone) {
		t.Errorf("the good one drew %+v, alone %+v", good.result, alone)
	}
}

func TestServingStopsBetweenTokens(t *testing.T) {
	m := small(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	h, s := hear(Request{Prompt: []int32{1}}, DefaultOptions(90))
	token := s.Token
	s.Token = func(t Token) bool {
		if len(h.tokens) == 4 {
			cancel()
		}
		return token(t)
	}
	g := New(m, nil, letters)
	all := []Served{s}
	err := g.Serve(ctx, func(int) []Served { some := all; all = nil; return some })
	if !errors.Is(err, context.Canceled) || len(h.tokens) != 5 || h.done != 0 || g.kept != nil {
		t.Errorf("%v after %d tokens, done %d times", err, len(h.tokens), h.done)
	}
}

// What was packed and kept is of the weights as they were.
func TestServingSeesNewWeights(t *testing.T) {
	m := small(t, nil)
	g := New(m, nil, letters)
	ask := func() Result {
		h, s := hear(Request{Prompt: []int32{1}, Seed: 1}, DefaultOptions(30))
		serveAll(t, g, []Served{s}, 1)
		return h.result
	}
	before, again := ask(), ask()
	for _, p := range m.Params().All {
		for i := range p.W {
			p.W[i] *= 0.9
		}
	}
	m.Changed()
	after := ask()
	if want := draw(t, New(m, nil, letters), []Request{{Prompt: []int32{1}, Seed: 1}}, DefaultOptions(30))[0]; !reflect.DeepEqual(after, want) {
		t.Error("the weights that changed are not those that draw")
	}
	if !reflect.DeepEqual(before, again) || reflect.DeepEqual(before, after) {
		t.Error("the same weights draw something else, or others the same")
	}
}
