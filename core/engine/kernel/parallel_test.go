package kernel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

func TestParallelRunsEachTaskOnce(t *testing.T) {
	for _, threads := range []int{1, 2, 7} {
		withThreads(threads, func() {
			for n := range 100 {
				counts := make([]atomic.Int32, n)
				Parallel(n, func(i int) { counts[i].Add(1) })
				for i := range counts {
					if c := counts[i].Load(); c != 1 {
						t.Fatalf("%d threads: task %d of %d ran %d times", threads, i, n, c)
					}
				}
			}
		})
	}
}

func TestParallelIsSerialWithOneThread(t *testing.T) {
	withThreads(1, func() {
		next := 0 // no lock: the race detector and the order both tell
		Parallel(50, func(i int) {
			if i != next {
				t.Errorf("task %d ran when %d was next", i, next)
			}
			next++
		})
	})
}

func TestParallelInsideATask(t *testing.T) {
	withThreads(4, func() {
		var sum atomic.Int64
		Parallel(8, func(i int) {
			Parallel(8, func(j int) { sum.Add(int64(8*i + j)) })
		})
		if got, want := sum.Load(), int64(64*63/2); got != want {
			t.Errorf("sum of 0 … 63 = %d, want %d", got, want)
		}
	})
}

func TestParallelFromManyGoroutines(t *testing.T) {
	withThreads(4, func() {
		var sum atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 200 {
					Parallel(10, func(i int) { sum.Add(int64(i)) })
				}
			})
		}
		all.Wait()
		if got, want := sum.Load(), int64(8*200*45); got != want {
			t.Errorf("sum = %d, want %d", got, want)
		}
	})
}

func TestParallelPassesPanicsOn(t *testing.T) {
	for _, threads := range []int{1, 4} {
		withThreads(threads, func() {
			for bad := range 20 {
				got := func() (v any) {
					defer func() { v = recover() }()
					Parallel(20, func(i int) {
						if i == bad {
							panic(i)
						}
					})
					return "no panic"
				}()
				if got != bad {
					t.Fatalf("%d threads: recovered %v, want %d", threads, got, bad)
				}
			}
			var sum atomic.Int64
			Parallel(10, func(i int) { sum.Add(int64(i)) })
			if sum.Load() != 45 {
				t.Fatal("after a panic the next call did not run all its tasks")
			}
		})
	}
}

func TestTasksDoNotAllocate(t *testing.T) {
	withThreads(4, func() { // AllocsPerRun would measure one thread
		var before, after runtime.MemStats
		task := func(int) {}
		Parallel(4, task) // the helpers start
		runtime.ReadMemStats(&before)
		for range 100 {
			Parallel(100, task)
		}
		runtime.ReadMemStats(&after)
		if n := after.Mallocs - before.Mallocs; n > 1000 { // of 10,000 tasks; a call may allocate
			t.Errorf("%d allocations in 100 calls of 100 tasks", n)
		}
	})
}

func TestParallelSurvivesGoexit(t *testing.T) {
	withThreads(4, func() {
		for range 20 {
			end := make(chan struct{})
			go func() {
				defer close(end)
				Parallel(20, func(i int) {
					if i%3 == 0 {
						runtime.Goexit() // as t.FailNow does
					}
				})
			}()
			<-end
			var sum atomic.Int64
			Parallel(10, func(i int) { sum.Add(int64(i)) })
			if sum.Load() != 45 {
				t.Fatal("after Goexit the next call did not run all its tasks")
			}
		}
	})
}
