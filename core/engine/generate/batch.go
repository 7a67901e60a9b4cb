package generate

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/dno-project/dno/core/engine/kernel"
)

// maxPrefill is how many tokens of prompts are read at once; a longer prompt is read alone.
const maxPrefill = 512

// A batch is the state of one call: the requests that wait, those in slots, and the results.
type batch struct {
	g       *Generator
	d       *decoder
	reqs    []Request
	opt     *Options
	results []Result
	done    int

	waiting []job  // those of a group follow one another
	making  []slot // [slots]
	free    []int  // slots
	active  []int  // slots; first those that have tokens, then those admitted just now

	group  int // that a job was admitted of last; -1 before
	holder int // a slot whose cache begins with that group's prompt

	// The rows whose tokens are chosen at once.
	chosen []int          // their slots, a part of active
	picks  []pick         // [rows]
	logits []float32      // [most rows, V]
	shares []distribution // a share of the rows each
	choose func(i int)    // chooseShare, made once: a method value allocates
}

// A slot's completion in the making.
type slot struct {
	request  int
	limit    int // most tokens
	tokens   []int32
	logProbs []float64
	random   stream
}

// A pick is what one row of logits gave.
type pick struct {
	id      int32
	logProb float64
	finite  bool
}

func newBatch(g *Generator, reqs []Request, opt *Options) *batch {
	positions, longest := 1, 1
	for i := range reqs {
		n := len(reqs[i].Prompt)
		longest = max(longest, n)
		positions = max(positions, n+g.limit(n, opt)-1) // the last token is never read
	}
	c := &g.model.Config
	perSlot := 2 * c.Layers * positions * c.KVHeads * c.HeadDim
	slots := max(1, min(g.maxSlots, len(reqs), g.maxCache/perSlot))
	rows := max(1, min(slots, g.maxLogits/c.Vocab))
	b := &batch{
		g: g, d: newDecoder(g.model, &g.packed, slots, positions, max(slots, longest, min(slots*longest, maxPrefill))),
		reqs: reqs, opt: opt, results: make([]Result, len(reqs)),
		waiting: inGroups(reqs), making: make([]slot, slots), active: make([]int, 0, slots), group: -1,
		picks: make([]pick, 0, rows), logits: make([]float32, rows*c.Vocab),
		shares: make([]distribution, min(rows, 4*runtime.GOMAXPROCS(0))),
	}
	for i := range slots {
		b.free = append(b.free, i)
	}
	b.choose = b.chooseShare
	return b
}

// prompt returns the prompt of a slot's request.
func (b *batch) prompt(at int) []int32 { return b.reqs[b.making[at].request].Prompt }

// admit moves waiting requests to free slots and puts their prompts into the cache.
func (b *batch) admit(ctx context.Context) error {
	var unread []int // slots whose prompt is new
	var copies []int // slots whose prompt stands in a slot that is itself unread; then that slot
	for len(b.free) > 0 && len(b.waiting) > 0 {
		j, at := b.waiting[0], b.free[len(b.free)-1]
		b.waiting, b.free = b.waiting[1:], b.free[:len(b.free)-1]
		b.active = append(b.active, at)
		r, s := &b.reqs[j.request], &b.making[at]
		s.request, s.limit = j.request, b.g.limit(len(r.Prompt), b.opt)
		s.tokens, s.logProbs = s.tokens[:0], s.logProbs[:0]
		s.random.seed(r.Seed)
		switch {
		case j.group != b.group:
			b.group, b.holder = j.group, at
			unread = append(unread, at)
		case slices.Contains(unread, b.holder):
			copies = append(copies, at, b.holder)
		case at != b.holder: // now: the holder may itself be free, and the next group's
			b.d.copyPrompt(at, b.holder, len(r.Prompt))
		}
	}
	for len(unread) > 0 {
		n, tokens := 1, len(b.prompt(unread[0]))
		for n < len(unread) && tokens+len(b.prompt(unread[n])) <= maxPrefill {
			tokens += len(b.prompt(unread[n]))
			n++
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		b.d.read(unread[:n], b.prompt)
		unread = unread[n:]
	}
	for ; len(copies) > 0; copies = copies[2:] {
		b.d.copyPrompt(copies[0], copies[1], len(b.prompt(copies[0])))
	}
	return ctx.Err()
}

// advance runs the last token of every active slot through the model. Row i of x is then what the last
// token of active[i] became; of a slot without tokens yet, the last one of its prompt.
func (b *batch) advance() {
	b.d.reset()
	for _, at := range b.active {
		if s := &b.making[at]; len(s.tokens) > 0 {
			last := len(s.tokens) - 1
			b.d.add(at, len(b.prompt(at))+last, s.tokens[last])
		}
	}
	b.d.step()
	n := len(b.d.ids)
	for i, at := range b.active[n:] {
		b.d.recall(n+i, at)
	}
}

// extend gives every active slot its next token, and frees the slots whose completion has ended.
func (b *batch) extend() error {
	active := b.active
	b.active = active[:0] // those that go on, in their order: never ahead of what is read
	for first := 0; first < len(active); first += len(b.picks) {
		b.picks = b.picks[:min(cap(b.picks), len(active)-first)]
		b.chosen = active[first : first+len(b.picks)]
		b.d.head(b.logits, first, len(b.picks))
		kernel.Parallel(len(b.shares), b.choose)
		for i, p := range b.picks {
			at := b.chosen[i]
			s := &b.making[at]
			if !p.finite {
				return fmt.Errorf("token %d of request %d: %w", len(s.tokens), s.request, ErrNotFinite)
			}
			s.tokens, s.logProbs = append(s.tokens, p.id), append(s.logProbs, p.logProb)
			finish, ended := b.g.ended(s.tokens, s.limit, b.opt)
			if !ended {
				b.active = append(b.active, at)
				continue
			}
			b.results[s.request] = b.result(s, finish)
			b.free = append(b.free, at)
			b.done++
		}
	}
	return nil
}

// chooseShare picks the tokens of one share of the rows in logits.
func (b *batch) chooseShare(i int) {
	v, n := b.g.model.Config.Vocab, len(b.shares)
	d := &b.shares[i]
	for r := i * len(b.picks) / n; r < (i+1)*len(b.picks)/n; r++ {
		row, s := b.logits[r*v:(r+1)*v], &b.making[b.chosen[r]]
		p := &b.picks[r]
		if p.finite = fill(d, row, [2][]int32{b.prompt(b.chosen[r]), s.tokens}, b.opt); !p.finite {
			continue
		}
		u := 0.0
		if b.opt.Temperature > 0 {
			u = s.random.next()
		}
		p.id = d.pick(u)
		p.logProb = float64(row[p.id]) - float64(kernel.LogSumExp(row)) // as the graph's head computes it
	}
}

func (b *batch) result(s *slot, finish Finish) Result {
	r := Result{Tokens: slices.Clone(s.tokens), TokenLogProbs: slices.Clone(s.logProbs), Finish: finish}
	for _, p := range r.TokenLogProbs {
		r.LogProb += p
	}
	if b.g.decode != nil {
		r.Text = b.g.decode(r.Tokens)
		r.Text = r.Text[:cut(r.Text, b.opt.Stop)]
	}
	return r
}
