package kernel

import (
	"runtime"
	"sync/atomic"
)

// Parallel calls f(0) … f(n-1), each once, on up to GOMAXPROCS threads, and returns when all have returned.
//
// The caller works too; the helpers are goroutines that stay, spin a while for the next call and then sleep, so
// that a call right after another costs less than a microsecond. A call from inside a task, or while another
// goroutine is in Parallel, runs its tasks one after another in the calling goroutine. If tasks panic, the tasks not
// yet begun are left out and Parallel panics with one of the values.
//
// Which task runs where is not fixed: a task must not write what another one reads.
func Parallel(n int, f func(i int)) { parallel(n, taskFunc(f)) }

// task is Parallel's f without a closure's allocation: kernels that are called often pass a pooled struct.
type task interface{ run(i int) }

type taskFunc func(i int)

func (f taskFunc) run(i int) { f(i) }

// crew is the one set of helpers. Only one call at a time uses it, so the job's fields are its own.
//
// ticket holds the job's number in the upper half and the next task in the lower one: taking a task is one
// compare-and-swap, which fails for a helper that wakes up late with the number of a job that is gone.
var crew struct {
	busy    atomic.Bool
	ticket  atomic.Uint64
	_       [56]byte // keeps the two hot counters on different cache lines
	done    atomic.Int64
	_       [56]byte
	n       atomic.Int64
	seats   atomic.Int64 // helpers that may take part in the job
	task    task         // written before the ticket, read only by who holds a task of this job
	failure atomic.Pointer[any]
	helpers []*helper // grows, under busy
}

type helper struct {
	seat   int64
	parked atomic.Bool
	wake   chan struct{}
}

// noTask is the largest number of a task: none is left.
const noTask = 1<<32 - 1

// A helper looks for work so many times, some 1 to 2 ms, before it sleeps, and lets other goroutines run after each of
// some looks, 20 to 60 µs. That is longer than what an update of a model does alone between two calls: to wake
// up costs a virtual machine 100 to 500 µs, in which the other threads do the helper's work.
const (
	looks = 32
	spins = 1500
)

func parallel(n int, t task) {
	threads := min(runtime.GOMAXPROCS(0), n)
	if threads <= 1 || !crew.busy.CompareAndSwap(false, true) {
		for i := range n {
			t.run(i)
		}
		return
	}
	for len(crew.helpers) < threads-1 {
		h := &helper{seat: int64(len(crew.helpers)), wake: make(chan struct{}, 1)}
		crew.helpers = append(crew.helpers, h)
		go h.loop()
	}
	number := crew.ticket.Load() >> 32
	crew.ticket.Store(number<<32 | noTask) // before n grows: a late helper must not take a task of the old job for one
	crew.task = t
	crew.failure.Store(nil)
	crew.n.Store(int64(n))
	crew.seats.Store(int64(threads - 1))
	crew.done.Store(0)
	number++
	crew.ticket.Store(number << 32)
	for _, h := range crew.helpers[:threads-1] {
		if h.parked.CompareAndSwap(true, false) {
			h.wake <- struct{}{}
		}
	}
	if failure := lead(number, int64(n)); failure != nil {
		panic(*failure)
	}
}

// lead works with the helpers, waits for the last task and gives the crew back, even if a task ends this goroutine.
func lead(number uint64, n int64) (failure *any) {
	defer func() {
		for i := 0; crew.done.Load() < n; i++ {
			if i < spins {
				pause()
			} else {
				runtime.Gosched()
			}
		}
		failure = crew.failure.Load()
		crew.task = nil
		crew.busy.Store(false)
	}()
	work(number)
	return nil
}

// work takes tasks of a job until there are none.
func work(number uint64) {
	for {
		t := crew.ticket.Load()
		i, n := int64(t&noTask), crew.n.Load()
		if t>>32 != number || i >= n {
			return
		}
		if crew.ticket.CompareAndSwap(t, t+1) {
			attempt(int(i), n)
		}
	}
}

// attempt runs one task and counts it as done however it ends.
func attempt(i int, n int64) {
	defer func() {
		if v := recover(); v != nil {
			failure := v // a copy: v itself would be allocated for every task, panic or not
			crew.failure.Store(&failure)
			// Whoever moves the ticket to the end counts the tasks that nobody will take.
			for {
				t := crew.ticket.Load()
				next := int64(t & noTask)
				if crew.ticket.CompareAndSwap(t, t-uint64(next)+uint64(n)) {
					crew.done.Add(n - min(next, n))
					break
				}
			}
		}
		crew.done.Add(1)
	}()
	crew.task.run(i)
}

func (h *helper) loop() {
	defer func() { go h.loop() }() // only runtime.Goexit in a task comes here
	seen := uint64(0)
	for {
		if number := newer(seen); number != seen {
			seen = number
			if h.seat < crew.seats.Load() {
				work(seen)
			}
			continue
		}
		h.parked.Store(true)
		if crew.ticket.Load()>>32 != seen && h.parked.CompareAndSwap(true, false) {
			continue // work came between the last look and the note
		}
		<-h.wake
	}
}

// newer waits for another job than the one seen, and returns its number; seen, if none has come.
func newer(seen uint64) uint64 {
	for range looks {
		for range spins {
			if number := crew.ticket.Load() >> 32; number != seen {
				return number
			}
			pause()
		}
		runtime.Gosched()
	}
	return seen
}

// grain is the number of elements that make a task worth handing to another thread: some microseconds of work.
const grain = 1 << 14

// inParallel is [Parallel] if there are elements enough, and a loop if not.
func inParallel(n, elements int, f func(i int)) {
	if elements < 2*grain {
		for i := range n {
			f(i)
		}
		return
	}
	Parallel(n, f)
}
