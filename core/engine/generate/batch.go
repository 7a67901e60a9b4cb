package generate

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/dno-project/dno/core/engine/kernel"
)

// A queue is the state of one call, which its batches share: the requests that wait, and the results.
type queue struct {
	g        *Generator
	reqs     []Request
	opt      *Options // of requests without their own
	results  []Result // each written by the batch that has the request
	progress func(done int)
	source   *source // of requests that come later; nil: there are none

	batches int
	room    room // of each

	mu      sync.Mutex // guards what follows
	waiting []job      // those of a group follow one another
	done    int
	err     error // of the first batch that failed; the others stop
}

// minSlots is how many completions make it worth to read the weights in one more thread.
const minSlots = 8

func newQueue(g *Generator, reqs []Request, opt *Options, progress func(done int)) *queue {
	q := &queue{g: g, reqs: reqs, opt: opt, results: make([]Result, len(reqs)), progress: progress, waiting: inGroups(reqs)}
	r := &q.room
	r.own, r.prompt = 1, 1
	for i := range reqs {
		n := len(reqs[i].Prompt)
		r.prompt = max(r.prompt, n)
		r.own = max(r.own, g.limit(n, q.options(i))-1) // the last token is never read
	}
	threads := runtime.GOMAXPROCS(0)
	q.batches = max(1, min(len(reqs)/minSlots, threads))
	most := g.maxSlots
	if g.packed.size() > g.maxShared {
		q.batches, most = 1, g.maxSlots*threads
	}
	share := max(1, min((len(reqs)+q.batches-1)/q.batches, most))
	c := &g.model.Config
	own := c.Layers * kernel.CacheSize(r.own, c.KVHeads, c.HeadDim)
	prompt := c.Layers * kernel.CacheSize(r.prompt, c.KVHeads, c.HeadDim)
	r.slots, r.prompts = fit(q.waiting, share, own, prompt, g.maxCache/q.batches)
	r.rows = max(r.slots, r.prompt, min(r.slots*r.prompt, maxPrefill))
	return q
}

// options are those of a request.
func (q *queue) options(request int) *Options {
	if o := q.reqs[request].Options; o != nil {
		return o
	}
	return q.opt
}

// fit returns how many completions, at most most, and how many prompts fit into memory at a time, each once however many
// completions share it: one at least. Where all that the completions might need does not fit, it is what
// neighbours among the jobs need, and room that is left is for prompts: a completion that lasts keeps its prompt.
func fit(jobs []job, most, own, prompt, memory int) (slots, prompts int) {
	groups := 0
	if n := len(jobs); n > 0 {
		groups = jobs[n-1].group + 1
	}
	for slots = most; slots > 1 && slots*own+inNeighbours(jobs, slots)*prompt > memory; slots-- {
	}
	least := max(1, inNeighbours(jobs, slots))
	return slots, min(max(least, (memory-slots*own)/prompt), max(1, min(slots, groups)))
}

// inNeighbours returns the most groups that n jobs which follow one another have.
func inNeighbours(jobs []job, n int) (most int) {
	for i := range jobs {
		most = max(most, jobs[i].group-jobs[max(0, i-n+1)].group+1)
	}
	return most
}

// take hands out up to n waiting requests of equal prompts.
func (q *queue) take(n int) []job {
	q.mu.Lock()
	defer q.mu.Unlock()
	jobs := q.waiting[:min(n, len(q.waiting))]
	for i := range jobs {
		if jobs[i].group != jobs[0].group {
			jobs = jobs[:i]
			break
		}
	}
	q.waiting = q.waiting[len(jobs):]
	return jobs
}

// count notes that n completions more have ended, or that a batch failed. It reports whether to go on.
func (q *queue) count(n int, err error) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.done += n
	if q.err == nil {
		q.err = err
	}
	if n > 0 && q.err == nil && q.progress != nil {
		q.progress(q.done)
	}
	return q.err == nil
}

// work draws completions until none waits.
func (b *batch) work(ctx context.Context) {
	for {
		err := b.admit(ctx)
		if err == nil && len(b.active) == 0 {
			return
		}
		ended := 0
		if err == nil {
			b.advance()
			ended, err = b.extend()
		}
		if !b.count(ended, err) {
			return
		}
	}
}

// maxPrefill is how many tokens of prompts are read at once; a longer prompt is read alone.
const maxPrefill = 512

// A batch is completions that are drawn together. Where the weights fit the processor's cache, each thread has a batch of
// its own, so that none waits for another, and so few completions at a time that their keys and values stay in the cache.
// Where each thread would read the weights from memory by itself, all threads work on one batch.
type batch struct {
	*queue
	d *decoder

	waiting   []job        // taken from the queue
	making    []completion // [slots]
	free      []int        // of making
	active    []int        // of making, those of a prompt together; first those that have tokens, then those admitted just now
	rows      []int        // where in active the completions of each row begin, and where the last ones end
	parting   []int        // those of a row
	freeSlots []int        // of the decoder

	prompts     []prompt // [prompts]
	freePrompts []int
	unread      []int // prompts
	group       int   // that a job was admitted of last; -1: its prompt is not held
	held        int   // that prompt

	logits    []float32 // [rows whose tokens are chosen at once, V]
	first     int       // of those rows
	choosing  []int     // what was active
	chooseOne func(i int)
	scratch   kernel.Shelf[distribution] // for rows that are chosen side by side
}

// A completion in the making. Completions of a prompt whose tokens are the same so far have one slot, and one row.
type completion struct {
	request  int
	served   *Served // nil where it is for the results
	prompt   int
	slot     int // of the decoder
	opt      *Options
	given    int // of tokens: not drawn
	limit    int // most tokens that are drawn
	tokens   []int32
	logProbs []float64
	top      []Alternative // to the last of tokens
	random   stream
	ok       bool // the last choice was possible
}

// A prompt is held by each completion that continues it, and by the batch as long as others of its group may come.
type prompt struct {
	ids  []int32
	uses int
}

func newBatch(q *queue) *batch {
	g, c := q.g, &q.g.model.Config
	slots, prompts := q.room.slots, q.room.prompts
	b := &batch{
		queue: q, d: newDecoder(g.model, &g.packed, q.room),
		making: make([]completion, slots), active: make([]int, 0, slots), group: -1,
		rows: make([]int, 0, slots+1), parting: make([]int, 0, slots),
		prompts: make([]prompt, prompts), unread: make([]int, 0, prompts),
		logits: make([]float32, max(1, min(slots, g.maxLogits/c.Vocab))*c.Vocab),
	}
	b.chooseOne = b.chooseRow
	for i := range slots {
		b.free, b.freeSlots = append(b.free, i), append(b.freeSlots, i)
	}
	for i := range prompts {
		b.freePrompts = append(b.freePrompts, i)
	}
	return b
}

// prompt returns a prompt's tokens.
func (b *batch) prompt(i int) []int32 { return b.prompts[i].ids }

// release gives back a prompt; who gives it back last frees it.
func (b *batch) release(i int) {
	if b.prompts[i].uses--; b.prompts[i].uses == 0 {
		b.freePrompts = append(b.freePrompts, i)
	}
}

// hold makes a group's prompt the one that slots are started with. It reports false if there is no room for it, which
// there is as soon as completions of another one have ended.
func (b *batch) hold(j job) bool {
	if j.group == b.group {
		return true
	}
	b.letGo()
	if len(b.freePrompts) == 0 {
		return false
	}
	b.group, b.held = j.group, pop(&b.freePrompts)
	b.prompts[b.held] = prompt{b.reqs[j.request].Prompt, 1}
	b.unread = append(b.unread, b.held)
	return true
}

// letGo gives back the prompt that is held for others of its group.
func (b *batch) letGo() {
	if b.group >= 0 {
		b.release(b.held)
		b.group = -1
	}
}

// admit begins to make what waits, as many as can be made at once, and puts their prompts into the cache.
func (b *batch) admit(ctx context.Context) error {
	b.unread = b.unread[:0]
	for len(b.free) > 0 {
		if len(b.waiting) == 0 {
			if b.source != nil && len(b.queue.waiting) == 0 {
				b.more(len(b.free))
			}
			if b.waiting = b.take(len(b.making)); len(b.waiting) == 0 {
				if b.source == nil || len(b.active) == 0 { // else others of its group may come
					b.letGo()
				}
				break
			}
		}
		j := b.waiting[0]
		if !b.hold(j) {
			break
		}
		at := pop(&b.free)
		b.waiting = b.waiting[1:]
		r, s := &b.reqs[j.request], &b.making[at]
		s.request, s.opt = j.request, b.options(j.request)
		s.served, s.given = nil, 0
		if b.source != nil {
			s.served = &b.source.now[j.request]
			s.given = len(s.served.Given)
		}
		s.limit = b.g.limit(len(r.Prompt)+s.given, s.opt)
		s.tokens, s.logProbs, s.top = s.tokens[:0], s.logProbs[:0], s.top[:0]
		s.random.seed(r.Seed)
		s.prompt = b.held
		b.prompts[b.held].uses++
		if last := len(b.active) - 1; last >= 0 && b.with(b.active[last], s) {
			s.slot = b.making[b.active[last]].slot
		} else {
			s.slot = pop(&b.freeSlots)
			b.d.start(s.slot, b.held)
		}
		b.active = append(b.active, at)
	}
	if len(b.active) == 0 {
		return nil
	}
	for unread := b.unread; len(unread) > 0; {
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
	return ctx.Err()
}

// with reports whether a completion goes with one that is active: both are at their prompt's end.
func (b *batch) with(active int, c *completion) bool {
	other := &b.making[active]
	return len(other.tokens) == 0 && other.prompt == c.prompt
}

// pop takes the last of some that are free.
func pop(free *[]int) int {
	n := len(*free) - 1
	x := (*free)[n]
	*free = (*free)[:n]
	return x
}

// advance runs the last token of every row through the model. Row i of x is then what the last
// token of its completions became; where they have none yet, the last one of their prompt.
func (b *batch) advance() {
	b.d.reset()
	b.rows = b.rows[:0]
	slot := -1
	for i, at := range b.active {
		s := &b.making[at]
		if s.slot == slot {
			continue
		}
		slot = s.slot
		b.rows = append(b.rows, i)
		if len(s.tokens) > 0 {
			last := len(s.tokens) - 1
			b.d.add(slot, len(b.prompt(s.prompt))+last, s.tokens[last])
		}
	}
	b.d.step()
	for i := len(b.d.ids); i < len(b.rows); i++ {
		b.d.recall(i, b.making[b.active[b.rows[i]]].prompt)
	}
	b.rows = append(b.rows, len(b.active))
}

// choiceWork is how many logits make it worth to choose tokens in several threads.
const choiceWork = 1 << 15

// extend gives every active completion its next token, and lets those go that have ended. It returns how many.
func (b *batch) extend() (ended int, err error) {
	active, v := b.active, b.g.model.Config.Vocab
	b.active, b.choosing = active[:0], active // those that go on: never ahead of what is read
	last, most := len(b.rows)-1, len(b.logits)/v
	for first := 0; first < last; first += most {
		n := min(most, last-first)
		b.d.head(b.logits, first, n)
		b.first = first
		if n*v < choiceWork {
			for i := range n {
				b.chooseRow(i)
			}
		} else {
			kernel.Parallel(n, b.chooseOne)
		}
		for r := first; r < first+n; r++ {
			gone, err := b.part(active[b.rows[r]:b.rows[r+1]])
			if ended += gone; err != nil {
				return ended, err
			}
		}
	}
	return ended, nil
}

// part ends those of a row's completions that have come to their end, and returns how many. Each token that others have
// chosen goes on in a slot of its own, the first one in the row's.
func (b *batch) part(row []int) (ended int, err error) {
	slot := b.making[row[0]].slot
	left := b.parting[:0]
	for _, at := range row {
		s := &b.making[at]
		end, err := b.over(s)
		if err != nil {
			return ended, err
		}
		if end {
			b.free = append(b.free, at)
			b.release(s.prompt)
			ended++
		} else {
			left = append(left, at)
		}
	}
	if len(left) == 0 {
		b.freeSlots = append(b.freeSlots, slot)
	}
	for to := slot; len(left) > 0; {
		token, others := b.making[left[0]].newest(), left[:0]
		for _, at := range left {
			if s := &b.making[at]; s.newest() == token {
				s.slot = to
				b.active = append(b.active, at)
			} else {
				others = append(others, at)
			}
		}
		if left = others; len(left) > 0 {
			to = pop(&b.freeSlots)
			b.d.fork(to, slot)
		}
	}
	return ended, nil
}

// over hands out a completion that has come to its end, and reports whether it has.
func (b *batch) over(c *completion) (bool, error) {
	if c.served != nil {
		return b.tell(c), nil
	}
	if !c.ok {
		return false, fmt.Errorf("token %d of request %d: %w", len(c.tokens), c.request, ErrNotFinite)
	}
	finish, end := b.g.ended(c.tokens, c.limit, c.opt)
	if end {
		b.results[c.request] = b.result(c, finish)
	}
	return end, nil
}

func (c *completion) newest() int32 { return c.tokens[len(c.tokens)-1] }

// chooseRow gives the completions of a row of logits their next tokens. Rows may be chosen side by side.
func (b *batch) chooseRow(i int) {
	v := b.g.model.Config.Vocab
	d := b.scratch.Take()
	defer b.scratch.Give(d)
	for _, at := range b.choosing[b.rows[b.first+i]:b.rows[b.first+i+1]] {
		s := &b.making[at]
		s.ok = b.choose(d, s, b.logits[i*v:(i+1)*v])
	}
}

// choose appends the next token, drawn from its logits, and its log-probability. It reports false if the logits are
// not finite.
func (b *batch) choose(d *distribution, s *completion, logits []float32) bool {
	var id int32
	var log float32
	var ok bool
	if len(s.tokens) < s.given {
		id, log, ok = s.follow(logits)
	} else {
		u := 0.0
		if s.opt.Temperature > 0 {
			u = s.random.next()
		}
		id, log, ok = d.draw(logits, [2][]int32{b.prompt(s.prompt), s.tokens}, s.opt, u)
	}
	if ok {
		s.tokens = append(s.tokens, id)
		s.logProbs = append(s.logProbs, float64(logits[id])-float64(log)) // as the graph's head computes it
		if s.served != nil {
			s.top = largest(s.top, logits, log, s.served.Top)
		}
	}
	return ok
}

func (b *batch) result(s *completion, finish Finish) Result {
	r := Result{Tokens: slices.Clone(s.tokens[s.given:]), Finish: finish}
	logProbs := slices.Clone(s.logProbs[s.given:])
	if b.g.weights.Own(b.g.model.Precision()) {
		r.TokenLogProbs = logProbs
		for _, p := range r.TokenLogProbs {
			r.LogProb += p
		}
	} else {
		r.DrawnLogProbs, r.LogProb = logProbs, math.NaN()
	}
	if b.g.decode != nil {
		r.Text = b.g.decode(r.Tokens)
		r.Text = r.Text[:cut(r.Text, s.opt.Stop)]
	}
	return r
}
