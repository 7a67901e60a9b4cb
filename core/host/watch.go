package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dno-project/dno/sdk"
)

// defaultMemory is what a plugin may have where its spec does not say.
const defaultMemory = 2 << 30

// watchMemory kills the process when it has more than its limit, until done is closed. The call that
// it was in, or the next one, fails with [command.excess].
func (c *command) watchMemory(pid int, done <-chan struct{}) {
	tick := time.NewTicker(memoryInterval)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
		}
		if used := residentMemory(pid); used > c.memory {
			c.mu.Lock()
			c.used = used
			c.mu.Unlock()
			_ = c.Kill(context.Background()) // it has no error to return
			return
		}
	}
}

// memoryInterval is short enough that a plugin cannot take much between two looks, and long enough to cost
// nothing: a look takes some tens of microseconds.
const memoryInterval = 200 * time.Millisecond

// excess is the error of a plugin that was killed for its memory, or nil.
func (p *process) excess(id string) error {
	p.command.mu.Lock()
	defer p.command.mu.Unlock()
	if p.command.used == 0 {
		return nil
	}
	mib := func(bytes int64) int64 { return (bytes + 1<<20 - 1) >> 20 }
	return sdk.Errorf(sdk.CodePlugin, "%s used %d MiB of memory, more than its limit of %d MiB, and was stopped",
		id, mib(p.command.used), mib(p.command.memory)).WithHint("if it needs that much, give it more: memory = %d (MiB)", 2*mib(p.command.used))
}

var errStuck = errors.New("the plugin does not answer its health check")

// watchHealth asks the process for its health as long as a call runs, and ends the call where it
// gives no answer: a process that is stopped or locked up would else hold the run for the call's
// whole timeout. One that is only busy answers. The returned function ends the watch.
func (p *process) watchHealth(wait patience, end func(error)) (stop func()) {
	done := make(chan struct{})
	timer := time.AfterFunc(wait.ask, func() { // most calls end before that, and cost no goroutine
		for {
			answered := make(chan struct{})
			go func() {
				_ = p.protocol.Ping() // an error is an answer; a connection that is gone ends the call by itself
				close(answered)
			}()
			select {
			case <-done:
				return
			case <-answered:
			case <-time.After(wait.health):
				end(errStuck)
				return
			}
			select {
			case <-done:
				return
			case <-time.After(wait.ask):
			}
		}
	})
	return func() {
		timer.Stop()
		close(done)
	}
}

// stuck says what became of a process that gave no answer.
func stuck(wait patience) string {
	return fmt.Sprintf("it was stuck: no answer to a health check within %v", wait.health)
}
