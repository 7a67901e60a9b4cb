package host

import (
	"context"
	"errors"
	"sync"
	"time"
)

// clock ends a call that takes longer than its limit. It stands still while it is held.
type clock struct {
	limit  time.Duration
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	holds int
}

var errTooLate = errors.New("the plugin did not answer in time")

func newClock(ctx context.Context, limit time.Duration) (context.Context, *clock) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &clock{limit: limit, cancel: cancel}
	c.timer = time.AfterFunc(limit, func() { cancel(errTooLate) })
	return ctx, c
}

// hold stops the clock until release; holds may overlap. Then the whole limit runs anew.
func (c *clock) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holds++
	c.timer.Stop()
}

func (c *clock) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds--; c.holds == 0 {
		c.timer.Reset(c.limit)
	}
}

func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.timer.Stop()
	c.cancel(context.Canceled)
}
