package kernel

import (
	"sync"
	"unsafe"
)

// scratch is memory that a task borrows. It only grows: after the largest shape has been seen once, kernels allocate
// no more.
type scratch struct {
	parts [5][]float32
}

var scratches Shelf[scratch]

// borrow takes a scratch from the shelf, or a new one: there are as many as tasks have run at the same time.
func borrow() *scratch { return scratches.Take() }

func (s *scratch) giveBack() { scratches.Give(s) }

// Shelf holds what calls and tasks use in turn. The zero value is empty. (A sync.Pool would give it up at every second garbage collection.)
type Shelf[T any] struct {
	mu   sync.Mutex
	free []*T
}

// Take returns one that was given back, as it was left, or a new one.
func (s *Shelf[T]) Take() *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		x := s.free[n-1]
		s.free = s.free[:n-1]
		return x
	}
	return new(T)
}

// Give gives one back for another call.
func (s *Shelf[T]) Give(x *T) {
	s.mu.Lock()
	s.free = append(s.free, x)
	s.mu.Unlock()
}

// part returns n floats with whatever they hold; parts of different index do not overlap.
func (s *scratch) part(index, n int) []float32 {
	s.parts[index] = grow(s.parts[index], n)
	return s.parts[index]
}

// grow returns x with length n, or a new slice if x is too small. The new one begins on a cache line.
func grow(x []float32, n int) []float32 {
	if cap(x) >= n {
		return x[:n]
	}
	const line = 64 / 4
	x = make([]float32, n+line-1)
	skip := 0
	if off := int(uintptr(unsafe.Pointer(unsafe.SliceData(x)))%64) / 4; off > 0 {
		skip = line - off
	}
	return x[skip : skip+n : skip+n]
}
