package openai

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// limits are what all requests of a client share: how many may run at once, how they are spaced, and
// until when the server wants to be left alone.
type limits struct {
	slots  chan struct{}
	random func() float64

	mu       sync.Mutex
	requests pacer
	tokens   pacer
	paused   time.Time // until when nothing is sent

	broken atomic.Pointer[Error] // why no request can succeed any more; nil: none has failed so
}

// pacer spaces units evenly: after n of them the next may come n times the space later. A bucket that
// can be emptied at once would let twice the limit through within a minute.
type pacer struct {
	space float64 // seconds; 0: no limit
	next  time.Time
}

func newPacer(perMinute float64) pacer {
	if perMinute <= 0 {
		return pacer{}
	}
	return pacer{space: 60 / perMinute}
}

func (p *pacer) take(now time.Time, n float64) {
	if p.space > 0 {
		p.next = now.Add(time.Duration(n * p.space * float64(time.Second)))
	}
}

func newLimits(concurrency int, requests, tokens float64, random func() float64) *limits {
	return &limits{slots: make(chan struct{}, concurrency), random: random, requests: newPacer(requests), tokens: newPacer(tokens)}
}

// enter waits for a slot and for the moment at which a request of so many tokens may be sent. Unless it
// fails, leave has to follow.
func (l *limits) enter(ctx context.Context, tokens int) error {
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		wait := l.start(tokens)
		if wait <= 0 {
			return nil
		}
		if err := sleep(ctx, wait); err != nil {
			l.leave()
			return err
		}
	}
}

func (l *limits) leave() { <-l.slots }

// spread is the time over which requests that waited for the same pause are let go.
const spread = time.Second

// start takes what a request needs and returns 0, or returns how long to wait before asking again.
func (l *limits) start(tokens int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if pause := l.paused.Sub(now); pause > 0 {
		return pause + time.Duration(l.random()*float64(spread))
	}
	if wait := max(l.requests.next.Sub(now), l.tokens.next.Sub(now)); wait > 0 {
		return wait
	}
	l.requests.take(now, 1)
	l.tokens.take(now, float64(tokens))
	return 0
}

// pause lets nobody send for a time.
func (l *limits) pause(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := time.Now().Add(d); until.After(l.paused) {
		l.paused = until
	}
}

// correct says by how many tokens a request's guess was too small.
func (l *limits) correct(tokens int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tokens.space > 0 {
		l.tokens.next = l.tokens.next.Add(time.Duration(float64(tokens) * l.tokens.space * float64(time.Second)))
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
