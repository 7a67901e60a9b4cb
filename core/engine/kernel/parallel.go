package kernel

import (
	"runtime"
	"sync/atomic"
)

// Parallel calls f(0) … f(n-1), each once, on up to GOMAXPROCS threads, and returns when all have returned.
//
// Of T threads the first begins with the first T-th of the tasks, the second with the second T-th, and who is ready
// takes from the end of what others have left: where task i has the rows that it had in the call before, they are
// in its core's cache.
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
var crew struct {
	busy    atomic.Bool
	job     atomic.Uint64 // counts the calls
	_       [56]byte      // keeps hot counters on different cache lines
	done    atomic.Int64
	_       [56]byte
	shares  [mostShares]share
	count   atomic.Int64 // of shares that the job has
	seats   atomic.Int64 // helpers that may take part in the job
	task    task         // written before the shares, read only by who holds a task of this job
	failure atomic.Pointer[any]
	helpers []*helper // grows, under busy
}

// share is the tasks that one thread begins with: the job's number in 16 bits, and from and to in 24 bits each. Taking
// a task is one compare-and-swap, which fails for a helper that wakes up late in a job that is gone. (Should it
// succeed after 65,536 jobs, the task is one of the job of now.)
type share struct {
	tasks atomic.Uint64
	_     [56]byte
}

const (
	mostShares = 64 // further threads have no share of their own
	mostTasks  = 1<<24 - 1
)

func tasks(number uint64, from, to int) uint64 {
	return number<<48 | uint64(from)<<24 | uint64(to)
}

type helper struct {
	seat   int64
	parked atomic.Bool
	wake   chan struct{}
}

// A helper looks for work so many times, some 1 to 2 ms, before it sleeps, and lets other goroutines run after each of
// some looks, 20 to 60 µs. That is longer than what an update of a model does alone between two calls: to wake
// up costs a virtual machine 100 to 500 µs, in which the other threads do the helper's work.
const (
	looks = 32
	spins = 1500
)

func parallel(n int, t task) {
	threads := min(runtime.GOMAXPROCS(0), n)
	if threads <= 1 || n > mostTasks || !crew.busy.CompareAndSwap(false, true) {
		for i := range n {
			t.run(i)
		}
		return
	}
	for len(crew.helpers) < threads-1 {
		h := &helper{seat: int64(len(crew.helpers)) + 1, wake: make(chan struct{}, 1)}
		crew.helpers = append(crew.helpers, h)
		go h.loop()
	}
	number := crew.job.Load() + 1
	count := min(threads, mostShares)
	crew.task = t
	crew.failure.Store(nil)
	crew.count.Store(int64(count))
	crew.seats.Store(int64(threads - 1))
	crew.done.Store(0)
	for i := range count {
		crew.shares[i].tasks.Store(tasks(number, i*n/count, (i+1)*n/count))
	}
	crew.job.Store(number)
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
	work(number, 0)
	return nil
}

// work takes tasks of a job until there are none, first those of the seat's own share.
func work(number uint64, seat int) {
	count := int(crew.count.Load())
	for i := range count {
		s := &crew.shares[(seat+i)%count]
		for {
			i, ok := s.take(number, i == 0)
			if !ok {
				break
			}
			attempt(i)
		}
	}
}

// take takes the first task, or the last one.
func (s *share) take(number uint64, first bool) (int, bool) {
	for {
		t := s.tasks.Load()
		from, to := int(t>>24&mostTasks), int(t&mostTasks)
		if t>>48 != number&(1<<16-1) || from >= to {
			return 0, false
		}
		i, left := from, tasks(number, from+1, to)
		if !first {
			i, left = to-1, tasks(number, from, to-1)
		}
		if s.tasks.CompareAndSwap(t, left) {
			return i, true
		}
	}
}

// attempt runs one task and counts it as done however it ends.
func attempt(i int) {
	defer func() {
		if v := recover(); v != nil {
			failure := v // a copy: v itself would be allocated for every task, panic or not
			crew.failure.Store(&failure)
			for s := range crew.count.Load() { // whoever takes what nobody shall do counts it
				t := crew.shares[s].tasks.Swap(0)
				crew.done.Add(int64(t&mostTasks) - int64(t>>24&mostTasks))
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
			if h.seat <= crew.seats.Load() {
				work(seen, int(h.seat))
			}
			continue
		}
		h.parked.Store(true)
		if crew.job.Load() != seen && h.parked.CompareAndSwap(true, false) {
			continue // work came between the last look and the note
		}
		<-h.wake
	}
}

// newer waits for another job than the one seen, and returns its number; seen, if none has come.
func newer(seen uint64) uint64 {
	for range looks {
		for range spins {
			if number := crew.job.Load(); number != seen {
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
