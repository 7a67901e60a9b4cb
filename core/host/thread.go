package host

import "runtime"

// thread is one operating-system thread that starts every plugin and lives as long as the host.
// On Linux a plugin asks to be killed when the thread that started it ends; Go ends threads when
// it likes, so this one is held.
type thread struct {
	jobs chan func()
	quit chan struct{}
}

func newThread() *thread {
	t := &thread{jobs: make(chan func()), quit: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for {
			select {
			case job := <-t.jobs:
				job()
			case <-t.quit:
				return
			}
		}
	}()
	return t
}

// do runs f on the thread and returns its error; after stop it runs nothing.
func (t *thread) do(f func() error) error {
	done := make(chan error, 1)
	select {
	case t.jobs <- func() { done <- f() }:
		return <-done
	case <-t.quit:
		return errClosed
	}
}

func (t *thread) stop() {
	select {
	case <-t.quit:
	default:
		close(t.quit)
	}
}
