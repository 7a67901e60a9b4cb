package serve

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
)

// A job is the completions of one request.
type job struct {
	ctx     context.Context // when it ends nobody waits for the job
	choices []*choice
	changed chan struct{} // holds one if something that is waited for was told since it was emptied
	stream  bool          // each token is waited for, and not only a choice's end

	mu sync.Mutex // guards what choices were told
}

// A choice is one completion in the making.
type choice struct {
	job           *job
	index, prompt int
	draw          Draw

	tokens []Token // all that were told, those that were given too
	result Result
	err    error
	done   bool
}

// tell notes what happened to a choice.
func (c *choice) tell(note func()) {
	c.job.mu.Lock()
	note()
	wake := c.done || c.job.stream
	c.job.mu.Unlock()
	if !wake {
		return
	}
	select {
	case c.job.changed <- struct{}{}:
	default:
	}
}

func (c *choice) end(r Result, err error) {
	c.tell(func() { c.result, c.err, c.done = r, err, true })
}

// newJob returns the job of a request, whose choices that need nothing drawn are done.
func newJob(ctx context.Context, r *request) *job {
	j := &job{ctx: ctx, changed: make(chan struct{}, 1), stream: r.stream}
	for p := range r.prompts {
		ids, given := r.prompts[p].ids, []int32(nil)
		if r.echo && r.logProbs { // its log-probabilities are those of tokens that follow its first one
			ids, given = ids[:1], ids[1:]
		}
		for i := range r.n {
			c := &choice{job: j, index: len(j.choices), prompt: p}
			c.draw = Draw{Prompt: ids, Given: given, Seed: seedOf(r.seed, i), Options: r.options, Top: r.top}
			if r.options.MaxTokens == 0 && len(given) == 0 {
				c.result, c.done = Result{Finish: sdk.FinishLength}, true
			}
			j.choices = append(j.choices, c)
		}
	}
	return j
}

// queue is the jobs that wait for the one goroutine that draws. They take turns, so that a large one holds up none.
type queue struct {
	wake chan struct{} // holds one if a job came since it was emptied

	mu      sync.Mutex
	waiting [][]*choice // of jobs: those that were not taken yet
	turn    int         // whose it is
	active  map[*choice]bool
}

func newQueue() *queue {
	return &queue{wake: make(chan struct{}, 1), active: map[*choice]bool{}}
}

// add puts a job's choices into the queue.
func (q *queue) add(j *job) {
	todo := slices.DeleteFunc(slices.Clone(j.choices), func(c *choice) bool { return c.done })
	if len(todo) == 0 {
		return
	}
	q.mu.Lock()
	q.waiting = append(q.waiting, todo)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns the draws that are next, at most free. Jobs that nobody waits for are dropped.
func (q *queue) take(free int) (out []Draw) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = slices.DeleteFunc(q.waiting, func(todo []*choice) bool { return todo[0].job.ctx.Err() != nil })
	for len(out) < free && len(q.waiting) > 0 {
		q.turn %= len(q.waiting)
		c := q.waiting[q.turn][0]
		q.active[c] = true
		out = append(out, q.drawOf(c))
		if q.waiting[q.turn] = q.waiting[q.turn][1:]; len(q.waiting[q.turn]) == 0 {
			q.waiting = slices.Delete(q.waiting, q.turn, q.turn+1)
		} else {
			q.turn++
		}
	}
	return out
}

// drawOf is a choice's draw, which tells the choice.
func (q *queue) drawOf(c *choice) Draw {
	d := c.draw
	d.Token = func(t Token) bool {
		if c.job.ctx.Err() != nil {
			q.leave(c)
			return false
		}
		t.Top = slices.Clone(t.Top)
		c.tell(func() { c.tokens = append(c.tokens, t) })
		return true
	}
	d.Done = func(r Result, err error) {
		q.leave(c)
		c.end(r, err)
	}
	return d
}

func (q *queue) leave(c *choice) {
	q.mu.Lock()
	delete(q.active, c)
	q.mu.Unlock()
}

var (
	errStopped = errors.New("the server stops")
	errFault   = errors.New("a fault of dno; its log says more")
)

// work draws until ctx ends.
func (q *queue) work(ctx context.Context, m Model, log telemetry.Logger) {
	for {
		select {
		case <-ctx.Done():
			q.fail(errStopped)
			return
		case <-q.wake:
		}
		if err := q.draw(ctx, m, log); err != nil && ctx.Err() == nil {
			log.Error("completions failed", telemetry.Cause.Of(err))
			q.fail(err)
		}
	}
}

// draw draws what waits. A panic is an error: the server goes on.
func (q *queue) draw(ctx context.Context, m Model, log telemetry.Logger) (err error) {
	defer func() {
		if v := recover(); v != nil {
			log.Error("drawing failed by a fault of dno", telemetry.Cause.Of(fmt.Sprintf("%v\n%s", v, debug.Stack())))
			err = errFault
		}
	}()
	return m.Serve(ctx, q.take)
}

// fail ends all that is drawn or waits.
func (q *queue) fail(err error) {
	q.mu.Lock()
	var all []*choice
	for c := range q.active {
		all = append(all, c)
	}
	all = slices.Concat(append(q.waiting, all)...)
	q.waiting = nil
	clear(q.active)
	q.mu.Unlock()
	for _, c := range all {
		c.end(Result{}, err)
	}
}
