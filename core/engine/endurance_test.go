package engine

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// resident returns the memory of the process in bytes; 0 where the system does not say.
func resident(t *testing.T) int {
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.Atoi(strings.Fields(string(data))[1])
	must(t, err)
	return pages * os.Getpagesize()
}

// Ten thousand steps leave no goroutine behind, take no more memory than a thousand, and allocate little each, of which
// nothing stays.
func TestTenThousandSteps(t *testing.T) {
	e := fresh(t, true)
	must(t, e.StartOptimizer(adam))
	seqs := draw(4)
	steps := func(n int) {
		t.Helper()
		for range n {
			_, err := e.Step(ctx, seqs, 1e-5, coupled)
			must(t, err)
		}
	}
	var before, after runtime.MemStats
	steps(1000)
	debug.FreeOSMemory()
	goroutines, memory := runtime.NumGoroutine(), resident(t)
	runtime.ReadMemStats(&before)
	steps(9000)
	runtime.ReadMemStats(&after)
	debug.FreeOSMemory()
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines after a thousand steps, %d after ten thousand", goroutines, n)
	}
	if n := resident(t); n > memory+1<<20 {
		t.Errorf("%d bytes are resident after a thousand steps, %d after ten thousand", memory, n)
	}
	perStep := (after.TotalAlloc - before.TotalAlloc) / 9000
	t.Logf("%d bytes allocated a step; %d MB resident", perStep, resident(t)>>20)
	if perStep > 32<<10 {
		t.Errorf("a step allocates %d bytes", perStep)
	}
}
