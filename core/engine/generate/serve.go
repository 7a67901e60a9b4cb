package generate

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"

	"github.com/dno-project/dno/core/engine/kernel"
)

// Served is a request that comes while others are drawn, and who is told of its tokens. Its Options may not be nil;
// their MaxTokens, which are those that are drawn, may be 0 where there is anything given.
type Served struct {
	Request
	// Given is how the completion begins: tokens that are not drawn, and take nothing from the seed. Each is told, with
	// its log-probability, as if it had been; neither the options' filters nor its length's limit are of them.
	Given []int32
	// Top is how many of the most probable tokens are told with each.
	Top int
	// Token is told every token right when it is chosen, in order. Where it returns false nobody waits for
	// the completion any more: it ends there, and Done is not called.
	Token func(Token) bool
	// Done is told how the completion ended, of the tokens that were drawn; or [ErrInput], or [ErrNotFinite].
	Done func(Result, error)
}

// Token is a token of a completion in the making.
type Token struct {
	ID int32
	// LogProb is its log-probability given all before it, in nats: of the weights that draw, at temperature 1. Those are
	// the model only where [Result] has TokenLogProbs.
	LogProb float64
	// Top are the most probable tokens, the most probable first and the lower id first among equals. They are
	// good until Token returns.
	Top []Alternative
}

// Alternative is a token that could have been chosen.
type Alternative struct {
	ID      int32
	LogProb float64
}

// Serve draws completions of requests that come while it draws, until none is left. next is asked for requests when
// free completions could begin, between any two steps: it returns those that wait, at most free, and none where none
// wait. The slice that it returns is Serve's from then on. A completion is the bytes that [Generator.Generate] gives.
// Requests of equal prompts that come together, or one after another, read theirs once.
//
// All threads work on one batch. What is called is called by this goroutine, and holds up every completion.
//
// Memory is for as many completions as fit 512 MiB with what the first one may need, rounded up. A request that needs more,
// or much less where that leaves few places, waits until those before it have ended, and those after it wait
// with it.
//
// Errors: ctx's, which is looked at before every token. Who was not told Done by then is not told.
func (g *Generator) Serve(ctx context.Context, next func(free int) []Served) error {
	if v := g.model.Version(); v != g.version {
		g.packed.pack(g.model, g.weights)
		g.version, g.kept = v, nil
	}
	s := &source{next: next}
	for {
		first := s.pull(g, g.maxServed)
		if len(first) == 0 {
			return nil
		}
		b := g.kept
		g.kept = nil // unless all goes well
		if b == nil || !b.suits(&first[0]) {
			b = newBatch(serving(g, &first[0]))
		}
		b.source, s.late = s, first
		if b.work(ctx); b.err != nil {
			return fmt.Errorf("serve: %w", b.err)
		}
		g.kept = b
	}
}

// A source is where requests come from while others are drawn.
type source struct {
	next   func(free int) []Served
	late   []Served // came, and wait for room
	groups int      // of equal prompts so far
	now    []Served // beside the queue's requests
}

// pull returns requests that can be served: those that are late, or new ones. The others are told why not.
func (s *source) pull(g *Generator, free int) []Served {
	if len(s.late) > 0 {
		return s.late
	}
	for {
		came := s.next(free)
		if len(came) == 0 {
			return nil
		}
		if came = slices.DeleteFunc(came, func(r Served) bool {
			err := g.checkServed(&r)
			if err != nil {
				r.Done(Result{}, fmt.Errorf("generate: %w: %w", ErrInput, err))
			}
			return err != nil
		}); len(came) > 0 {
			return came
		}
	}
}

func (g *Generator) checkServed(r *Served) error {
	whole, o := Request{Prompt: r.Prompt}, *r.Options
	if last := len(r.Given) - 1; last >= 0 && len(r.Prompt) > 0 {
		whole.Prompt = slices.Concat(r.Prompt, r.Given[:last]) // from the last one nothing may follow
		if id, v := r.Given[last], g.model.Config.Vocab; id < 0 || int(id) >= v {
			return fmt.Errorf("a token that is given has the id %d, outside the model's vocabulary of %d", id, v)
		}
		if o.MaxTokens == 0 {
			o.MaxTokens = 1
		}
	}
	if err := g.check([]Request{whole}, &o); err != nil {
		return err
	}
	if r.Top < 0 || r.Top > g.model.Config.Vocab {
		return fmt.Errorf("%d most probable tokens are asked for, of %d", r.Top, g.model.Config.Vocab)
	}
	return nil
}

// needs is the room for one request: sizes that many share.
func (g *Generator) needs(r *Served) (own, prompt int) {
	most := g.model.Config.MaxPositions
	size := func(n int) int { return min(most, max(256, 1<<bits.Len(uint(n-1)))) }
	return size(len(r.Given) + g.limit(len(r.Prompt)+len(r.Given), r.Options)), size(len(r.Prompt))
}

// serving returns a queue with room for requests such as this one.
func serving(g *Generator, like *Served) *queue {
	q := &queue{g: g, batches: 1}
	r, c := &q.room, &g.model.Config
	r.own, r.prompt = g.needs(like)
	each := c.Layers * (kernel.CacheSize(r.own, c.KVHeads, c.HeadDim) + kernel.CacheSize(r.prompt, c.KVHeads, c.HeadDim))
	r.slots = max(1, min(g.maxServed, g.maxCache/each))
	r.prompts = r.slots
	r.rows = max(r.slots, r.prompt, min(r.slots*r.prompt, maxPrefill))
	return q
}

// suits reports whether a request is to be drawn in this batch's room: it fits, and where it fits loosely others of
// its size would not have had more places in a room of their own.
func (b *batch) suits(r *Served) bool {
	own, prompt := b.g.needs(r)
	if own > b.room.own || prompt > b.room.prompt {
		return false
	}
	return b.room.slots == b.g.maxServed || own == b.room.own && prompt == b.room.prompt
}

// more puts requests that have come into the queue. Those that were there have all begun.
func (b *batch) more(free int) {
	s := b.source
	came := s.pull(b.g, free)
	n := 0
	for n < len(came) && b.suits(&came[n]) {
		n++
	}
	if s.late = came[n:]; n == 0 {
		return
	}
	s.now, b.reqs = came[:n], b.reqs[:0]
	for _, r := range s.now {
		b.reqs = append(b.reqs, r.Request)
	}
	jobs := inGroups(b.reqs)
	for i := range jobs {
		if jobs[i].group += s.groups; b.group >= 0 && slices.Equal(b.reqs[jobs[i].request].Prompt, b.prompt(b.held)) {
			jobs[i].group = b.group
		}
	}
	slices.SortStableFunc(jobs, func(x, y job) int { return cmp.Compare(x.group, y.group) }) // first those of the prompt that is held
	b.queue.waiting = jobs
	s.groups += n
}

// tell hands out the newest token of a completion, and reports whether it was the last.
func (b *batch) tell(c *completion) bool {
	if !c.ok {
		c.served.Done(Result{}, fmt.Errorf("generate, token %d: %w", len(c.tokens), ErrNotFinite))
		return true
	}
	last := len(c.tokens) - 1
	if !c.served.Token(Token{c.tokens[last], c.logProbs[last], c.top}) {
		return true
	}
	finish, end := Length, c.limit == 0
	drawn := c.tokens[min(c.given, len(c.tokens)):]
	switch {
	case len(c.tokens) < c.given:
		return false
	case len(drawn) > 0:
		finish, end = b.g.ended(drawn, c.limit, c.opt)
	}
	if end {
		c.served.Done(b.result(c, finish), nil)
	}
	return end
}

// follow returns the next given token, and what [distribution.draw] returns. It reports false if the logits are not finite.
func (c *completion) follow(logits []float32) (id int32, log float32, ok bool) {
	log = kernel.LogSumExp(logits)
	return c.served.Given[len(c.tokens)], log, log-log == 0
}

// largest sets top to the n largest logits, as log-probabilities.
func largest(top []Alternative, logits []float32, log float32, n int) []Alternative {
	top = top[:0]
	if n == 0 {
		return top
	}
	for id, l := range logits {
		p := float64(l) - float64(log)
		if len(top) == n && !(p > top[n-1].LogProb) {
			continue
		}
		at := len(top)
		for at > 0 && p > top[at-1].LogProb {
			at--
		}
		if len(top) == n {
			top = top[:n-1]
		}
		top = slices.Insert(top, at, Alternative{int32(id), p})
	}
	return top
}
