package bench

import (
	"context"
	"math/rand/v2"
	"runtime"
	"time"

	"github.com/dno-project/dno/core/engine/kernel"
)

// Machine is what the machine can do at most: the best of the runs. There are two bandwidths, for many machines write
// while they read.
type Machine struct {
	PeakGFLOPS      float64 `json:"peak_gflops"` // multiplications and additions of float32 that wait for nothing
	PeakOneThread   float64 `json:"peak_gflops_one_thread"`
	PeakBF16GFLOPS  float64 `json:"peak_bfloat16_gflops"` // the same with factors of bfloat16, by the instructions in use
	ReadGBs         float64 `json:"read_gbs"`             // of reading an array that no cache holds
	ReadOneThread   float64 `json:"read_gbs_one_thread"`
	UpdateGBs       float64 `json:"update_gbs"` // of reading and writing each number of it; both count
	UpdateOneThread float64 `json:"update_gbs_one_thread"`
}

// arenaFloats is the length of the memory that the cases share: 512 MB, far more than caches hold.
const arenaFloats = 1 << 27

// arena is memory for one case at a time.
type arena struct{ all, rest []float32 }

func newArena() *arena {
	runtime.GC() // the arena of another part becomes this one's memory
	return &arena{all: make([]float32, arenaFloats)}
}

// fill gives all of it back, with normal random numbers in it.
func (a *arena) fill() {
	const block = 1 << 16
	numbers, r := make([]float32, block), rand.New(rand.NewPCG(1, 1))
	for i := range numbers {
		numbers[i] = float32(r.NormFloat64())
	}
	kernel.Parallel(len(a.all)/block, func(i int) { copy(a.all[i*block:], numbers) })
	a.rest = a.all
}

// gap is left between arrays: those that begin at the same place of a page would be in each other's way.
const gap = 17 * 16

// take hands out n numbers, beginning on a cache line.
func (a *arena) take(n int) []float32 {
	x := a.rest[:n:n]
	a.rest = a.rest[min(len(a.rest), (n+15)&^15+gap):]
	return x
}

// room is the length of each of so many arrays that fill the arena.
func room(arrays int) int { return arenaFloats/arrays - gap - 16 }

// moved is the bytes that pass between memory and caches for each number of a kernel: 4 for one that is read, 8 for
// one that is read and written. One that is only written counts 8 as well: its line is fetched first.
func moved(read, written, both int) float64 { return float64(4*read + 8*written + 8*both) }

// MeasureMachine measures the peak and the bandwidth, with one thread and with all.
func MeasureMachine(ctx context.Context, t Timer) (m Machine, err error) {
	t.Progress.Start("bench machine", 7)
	defer t.Progress.Done()
	threads := runtime.GOMAXPROCS(0)
	for _, c := range []struct {
		to        *float64
		precision kernel.Precision
		threads   int
	}{
		{&m.PeakOneThread, kernel.Float32, 1},
		{&m.PeakGFLOPS, kernel.Float32, threads},
		{&m.PeakBF16GFLOPS, kernel.BFloat16, threads},
	} {
		if *c.to, err = t.peak(ctx, c.precision, c.threads); err != nil {
			return m, err
		}
	}
	a := newArena()
	a.fill()
	x := a.all
	sums := make([]float64, len(x)/chunk) // kept, or a compiler could leave the work out
	for _, c := range []struct {
		to      *float64
		threads int
		bytes   float64
		f       func(i, j int)
	}{
		{&m.ReadOneThread, 1, moved(1, 0, 0), func(i, j int) { sums[i/chunk] = kernel.SumSquares(x[i:j]) }},
		{&m.ReadGBs, threads, moved(1, 0, 0), func(i, j int) { sums[i/chunk] = kernel.SumSquares(x[i:j]) }},
		{&m.UpdateOneThread, 1, moved(0, 0, 1), func(i, j int) { kernel.Scale(1, x[i:j]) }},
		{&m.UpdateGBs, threads, moved(0, 0, 1), func(i, j int) { kernel.Scale(1, x[i:j]) }},
	} {
		if *c.to, err = t.bandwidth(ctx, c.threads, len(x), c.bytes, c.f); err != nil {
			return m, err
		}
	}
	return m, nil
}

// peak is that of a precision.
func (m Machine) peak(p kernel.Precision) float64 {
	if p == kernel.BFloat16 {
		return m.PeakBF16GFLOPS
	}
	return m.PeakGFLOPS
}

// peak is the best of runs of half a millisecond: each is long enough to be timed, and one of many is not interrupted.
func (t Timer) peak(ctx context.Context, p kernel.Precision, threads int) (gflops float64, err error) {
	rounds := 1000
	for fastest := time.Duration(0); fastest < time.Millisecond/2; rounds *= 2 {
		fastest = time.Hour
		for range 3 { // one may be interrupted
			start := time.Now()
			kernel.Peak(p, 2*rounds)
			fastest = min(fastest, time.Since(start))
		}
	}
	timing, err := t.time(ctx, func() error {
		kernel.Parallel(threads, func(int) { kernel.Peak(p, rounds) })
		return nil
	})
	return rate(kernel.Peak(p, 1)*float64(rounds)*float64(threads), timing.Seconds), err
}

// chunk is how many numbers a task of [Timer.bandwidth] has.
const chunk = 1 << 16

// bandwidth runs f over an array of n numbers, from i to j, and returns the rate of the bytes that pass for each. A run
// goes over a part of the array and the next run over the next part: runs are short, and all of the array passes before
// a part comes again.
func (t Timer) bandwidth(ctx context.Context, threads, n int, bytes float64, f func(i, j int)) (gbs float64, err error) {
	const parts = 8
	tasks, run := n/parts/chunk, 0
	each := kernel.Parallel
	if threads == 1 {
		each = func(n int, f func(i int)) {
			for i := range n {
				f(i)
			}
		}
	}
	timing, err := t.time(ctx, func() error {
		first := run % parts * tasks
		run++
		each(tasks, func(i int) { f((first+i)*chunk, (first+i+1)*chunk) })
		return nil
	})
	return rate(bytes*float64(tasks*chunk), timing.Seconds), err
}
