package generate

import (
	"context"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"testing"

	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
)

func TestTheCacheIsBounded(t *testing.T) {
	m := small(t, nil)
	reqs := mixed(30, m.Config.Vocab)
	o := DefaultOptions(10)
	want := draw(t, New(m, nil, nil), reqs, o)
	c := &m.Config
	positions := func(slots, prompts int) int { // mixed prompts have up to 50 tokens; a completion reads 9
		return c.Layers * (slots*kernel.CacheSize(9, c.KVHeads, c.HeadDim) + prompts*kernel.CacheSize(50, c.KVHeads, c.HeadDim))
	}
	for _, bound := range []int{1 /* not enough for one completion */, positions(1, 1), positions(3, 3), positions(20, 7)} {
		g := New(m, nil, nil)
		g.maxCache = bound
		r := newQueue(g, reqs, &o, nil).room
		if size := positions(r.slots, r.prompts); r.slots < 1 || r.prompts < 1 || size > bound && r.slots > 1 {
			t.Errorf("%d slots and %d prompts take %d numbers, want at most %d", r.slots, r.prompts, size, bound)
		}
		if got := draw(t, g, reqs, o); !reflect.DeepEqual(got, want) {
			t.Errorf("results differ with a cache of %d numbers", bound)
		}
	}
}

// Completions take 2 each here and prompts 10.
func TestSharedPromptsCountOnce(t *testing.T) {
	jobs := func(sizes ...int) (out []job) {
		for group, n := range sizes {
			for range n {
				out = append(out, job{group: group})
			}
		}
		return out
	}
	tests := map[string]struct {
		jobs           []job
		most, memory   int
		slots, prompts int
	}{
		"all of one prompt": {jobs(9), 9, 28, 9, 1}, // 9·2 + 10
		"one less fits":     {jobs(9), 9, 27, 8, 1}, // 8·2 + 10
		"as many prompts as might be there at a time":   {jobs(4, 4, 4), 4, 1000, 4, 3},           // there are no more
		"no more prompts than completions":              {jobs(1, 1, 1, 1), 2, 1000, 2, 2},        //
		"neighbours are of two prompts":                 {jobs(4, 4, 4), 4, 28, 4, 2},             // 4·2 + 2·10
		"two, and one less":                             {jobs(4, 4, 4), 4, 27, 3, 2},             // 3·2 + 2·10
		"one of each":                                   {jobs(1, 1, 1, 1, 1), 5, 36, 3, 3},       // 3·12
		"the room that is left is for prompts":          {jobs(4, 4, 4, 4, 4), 4, 45, 4, 3},       // 4·2 + 3·10
		"one completion, whatever it takes":             {jobs(3, 3), 4, 1, 1, 1},                 //
		"the densest neighbours decide, wherever it is": {jobs(5, 1, 1, 1, 5), 3, 3*2 + 30, 3, 3}, //
		"no jobs": {nil, 1, 100, 1, 1},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			if slots, prompts := fit(c.jobs, c.most, 2, 10, c.memory); slots != c.slots || prompts != c.prompts {
				t.Errorf("%d completions and %d prompts, want %d and %d", slots, prompts, c.slots, c.prompts)
			}
		})
	}
}

// A prompt stands in memory once, from when the first of its completions begins until the last one ends.
func TestPromptsAreSharedAndFreed(t *testing.T) {
	m := small(t, nil)
	var reqs []Request
	for i := range 40 { // four prompts, ten completions each
		reqs = append(reqs, Request{Prompt: []int32{int32(i % 4), 1, 2}, Seed: uint64(i)})
	}
	o := DefaultOptions(30)
	g := New(m, []int32{5, 6, 7}, nil)
	g.packed.pack(m, SameWeights)
	q := newQueue(g, reqs, &o, nil)
	q.room.slots, q.room.prompts = 7, 2 // two prompts' room for completions of up to three: some must wait
	b := newBatch(q)
	for done := 0; done < len(reqs); {
		if err := b.admit(context.Background()); err != nil {
			t.Fatal(err)
		}
		uses := map[int]int{} // of prompts by completions
		for _, at := range b.active {
			s := &b.making[at]
			uses[s.prompt]++
			if !slices.Equal(b.prompt(s.prompt), reqs[s.request].Prompt) {
				t.Fatalf("request %d continues %v, want %v", s.request, b.prompt(s.prompt), reqs[s.request].Prompt)
			}
		}
		if b.group >= 0 {
			uses[b.held]++
		}
		for i := range b.prompts {
			if free := slices.Contains(b.freePrompts, i); free != (uses[i] == 0) || !free && b.prompts[i].uses != uses[i] {
				t.Fatalf("prompt %d: free %v, counted %d, used by %d", i, free, b.prompts[i].uses, uses[i])
			}
		}
		b.advance()
		ended, err := b.extend()
		if err != nil {
			t.Fatal(err)
		}
		done += ended
	}
	if err := b.admit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(b.freePrompts) != 2 || len(b.free) != 7 {
		t.Errorf("%d prompts and %d slots are free at the end, want 2 and 7", len(b.freePrompts), len(b.free))
	}
	if want := draw(t, New(m, []int32{5, 6, 7}, nil), reqs, o); !reflect.DeepEqual(q.results, want) {
		t.Error("results differ where prompts wait for room")
	}
}

// Completions of a prompt go through the model together for as long as their tokens are the same, and are what each is alone.
func TestCompletionsThatBeginAlikeShareARow(t *testing.T) {
	m := small(t, nil)
	greedy, cool := DefaultOptions(40), DefaultOptions(50) // these end apart
	greedy.Temperature, cool.Temperature = 0, 0.35
	var reqs []Request
	for i := range 48 { // four prompts
		r := Request{Prompt: []int32{int32(i % 4), 1, 2}, Seed: uint64(i)}
		if i%5 == 0 {
			r.Options = &greedy
		}
		reqs = append(reqs, r)
	}
	eos := []int32{5, 6}
	g := New(m, eos, nil)
	g.packed.pack(m, SameWeights)
	q := newQueue(g, reqs, &cool, nil)
	q.room.slots = 21
	b := newBatch(q)
	shared, parted := 0, 0
	for done := 0; done < len(reqs); {
		must(t, b.admit(context.Background()))
		slots := map[string]int{} // by the prompt and the tokens of a completion
		for _, at := range b.active {
			s := &b.making[at]
			key := fmt.Sprint(b.prompt(s.prompt), s.tokens)
			if slot, ok := slots[key]; ok && slot != s.slot {
				t.Fatalf("%s goes through the model twice", key)
			}
			slots[key] = s.slot
		}
		rows := map[int]bool{}
		for _, at := range b.active {
			rows[b.making[at].slot] = true
		}
		if len(rows)+len(b.freeSlots) != 21 {
			t.Fatalf("%d slots are in use and %d free, of 21", len(rows), len(b.freeSlots))
		}
		shared += len(b.active) - len(rows)
		b.advance()
		if len(b.rows)-1 != len(rows) {
			t.Fatalf("%d rows for %d slots", len(b.rows)-1, len(rows))
		}
		ended, err := b.extend()
		must(t, err)
		done += ended
		after := map[int]bool{}
		for _, at := range b.active {
			after[b.making[at].slot] = true
		}
		for slot := range after {
			if !rows[slot] {
				parted++
			}
		}
	}
	if shared < 100 || parted < 10 {
		t.Errorf("completions shared %d rows and parted %d times: too few to show anything", shared, parted)
	}
	for i, r := range reqs {
		o := cool
		if r.Options != nil {
			r.Options, o = nil, *r.Options
		}
		if want := draw(t, New(m, eos, nil), []Request{r}, o)[0]; !reflect.DeepEqual(q.results[i], want) {
			t.Errorf("request %d gave\n%+v, alone\n%+v", i, q.results[i], want)
		}
	}
}

func TestEqualPromptsAreReadOnce(t *testing.T) {
	m := small(t, nil)
	var reqs []Request
	for i := range 40 { // four prompts in turn
		reqs = append(reqs, Request{Prompt: []int32{int32(i % 4), 1, 2}, Seed: uint64(i)})
	}
	o := DefaultOptions(8)
	g := New(m, []int32{5}, nil)
	g.maxSlots = 7
	g.packed.pack(m, SameWeights)
	b := newBatch(newQueue(g, reqs, &o, nil))
	read := 0
	for done := 0; done < len(reqs); {
		b.d.reset()
		if err := b.admit(context.Background()); err != nil {
			t.Fatal(err)
		}
		read += len(b.d.ids) // the tokens of prompts
		b.advance()
		ended, err := b.extend()
		if err != nil {
			t.Fatal(err)
		}
		done += ended
	}
	if read != 4*3 {
		t.Errorf("%d tokens of prompts were read, want 12", read)
	}
}

func TestEqualPromptsAreTakenTogether(t *testing.T) {
	m := small(t, nil)
	var reqs []Request
	for _, id := range []int32{1, 2, 1, 2, 1, 3, 1} {
		reqs = append(reqs, Request{Prompt: []int32{id}})
	}
	o := DefaultOptions(8)
	q := newQueue(New(m, nil, nil), reqs, &o, nil)
	for _, want := range [][]int{{0, 2, 4}, {6}, {1, 3}, {5}, nil} {
		var got []int
		for _, j := range q.take(3) {
			got = append(got, j.request)
		}
		if !slices.Equal(got, want) {
			t.Errorf("took the requests %v, want %v", got, want)
		}
	}
}

// TestTokensAllocateNothing measures whole steps of a batch that neither gains nor loses a completion, in one
// thread.
func TestTokensAllocateNothing(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	m := small(t, nil)
	adapt(t, m)
	reqs, o := mixed(28, m.Config.Vocab), DefaultOptions(50)
	g := New(m, nil, nil)
	g.packed.pack(m, SameWeights)
	b := newBatch(newQueue(g, reqs, &o, nil))
	step := func() {
		if err := b.admit(context.Background()); err != nil {
			t.Fatal(err)
		}
		b.advance()
		if _, err := b.extend(); err != nil {
			t.Fatal(err)
		}
	}
	for range 33 { // buffers grow, those of the tokens at 32
		step()
	}
	n := testing.AllocsPerRun(10, step)
	if len(b.active) != len(reqs) {
		t.Fatalf("%d completions are in the making, want %d", len(b.active), len(reqs))
	}
	if n > 0 {
		t.Errorf("%v allocations a step of %d tokens", n, len(reqs))
	}
}

// Large weights are read by all threads for one batch, small ones by each thread for its own: the bytes are the same.
func TestLargeWeightsAreReadForOneBatch(t *testing.T) {
	m := small(t, func(c *model.Config) { c.Vocab = 3000 }) // so many that tokens are chosen in several threads
	for name, o := range map[string]Options{"the model's distribution": DefaultOptions(12), "a nucleus": {
		RepetitionPenalty: 1.2, Temperature: 0.9, TopP: 0.8, MaxTokens: 12}} {
		t.Run(name, func(t *testing.T) {
			reqs := mixed(70, m.Config.Vocab)
			var want []Result
			for _, threads := range []int{1, 2, 7} {
				func() {
					defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(threads))
					for _, large := range []bool{false, true} {
						g := New(m, []int32{3}, nil)
						g.packed.pack(m, SameWeights)
						batches, slots := min(threads, 70/minSlots), min(g.maxSlots, (70+threads-1)/threads)
						if g.maxShared = g.packed.size(); large {
							g.maxShared--
							batches, slots = 1, min(g.maxSlots*threads, 70)
						}
						if q := newQueue(g, reqs, &o, nil); q.batches != batches || q.room.slots != slots {
							t.Errorf("%d threads, large %v: %d batches of %d, want %d of %d", threads, large, q.batches, q.room.slots, batches, slots)
						}
						got := draw(t, g, reqs, o)
						if want == nil {
							want = got
						}
						if !reflect.DeepEqual(got, want) {
							t.Errorf("%d threads, large %v: results differ", threads, large)
						}
					}
				}()
			}
		})
	}
}
