package kernel

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fenced copies x to the very end (or the very beginning) of memory that has unmapped pages around it: to read or
// write one element too many ends the test.
func fenced(t *testing.T, x []float32, atEnd bool) []float32 {
	t.Helper()
	page := unix.Getpagesize()
	room := (4*len(x) + page - 1) / page * page
	memory, err := unix.Mmap(-1, 0, room+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(memory); err != nil {
			t.Error(err)
		}
	})
	for _, guard := range [][]byte{memory[:page], memory[page+room:]} {
		if err := unix.Mprotect(guard, unix.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	start := page
	if atEnd {
		start += room - 4*len(x)
	}
	y := unsafe.Slice((*float32)(unsafe.Pointer(&memory[start])), len(x))
	copy(y, x)
	return y
}

func TestNothingIsReadOutsideTheSlices(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(1)
		for round := range 24 {
			atEnd := round%2 == 0
			M, N, K := 1+r.IntN(40), 1+r.IntN(70), 1+r.IntN(40)
			for mode := range 8 {
				p := newProduct(r, mode&1 > 0, mode&2 > 0, mode&4 > 0, M, N, K)
				p.a, p.b, p.c = fenced(t, p.a, atEnd), fenced(t, p.b, atEnd), fenced(t, p.c, atEnd)
				p.check = func(*testing.T) {}
				for _, kind := range kinds {
					if kind.gemm != nil {
						p.verify(t, kind, kind.gemm)
					}
					if !p.tA && p.tB {
						p.verify(t, kind, kind.packed)
					}
				}
			}
			fresh := func(n int) []float32 { return fenced(t, normal(r, n), atEnd) }
			n := 1 + r.IntN(70)
			x, y, z, u, v := fresh(n), fresh(n), fresh(n), fresh(n), fresh(n)
			Exp(x, y)
			Softmax(x)
			LogSumExp(x)
			Dot(x, y)
			Axpy(2, x, y)
			Scale(2, x)
			Add(x, y, z)
			SumSquares(x)
			SwiGLU(x, y, z)
			SwiGLUBackward(u, v, x, y, z)
			GeGLU(x, y, z)
			GeGLUBackward(u, v, x, y, z)
			AdamW(x, y, u, z, 1, 0.9, 0.9, 1, 0, 1, 1, 1)

			rows, rstd := fresh(3*n), fresh(3)
			RMSNorm(rows, rstd, fresh(3*n), x, 3, n, 1)
			RMSNormBackward(fresh(3*n), y, rows, fresh(3*n), x, rstd, 3, n, true)
			Rope(fresh(4*n), []int32{1, 0}, fresh(2*n), fresh(2*n), 1, 2*n, false)

			c := newAttentionCase(r, 4, 2, 1+r.IntN(40), 1+r.IntN(50), 1+r.IntN(50), -1-r.IntN(50))
			c.q, c.k, c.v = fenced(t, c.q, atEnd), fenced(t, c.k, atEnd), fenced(t, c.v, atEnd)
			T, D, window := c.spans[2].To, c.D, r.IntN(2)*(1+r.IntN(60))
			out, probs := fresh(T*4*D), fresh(AttentionScratch(T, 4))
			Attention(out, probs, c.q, c.k, c.v, c.spans, 4, 2, D, 1, window)
			AttentionBackward(fresh(T*4*D), fresh(T*2*D), fresh(T*2*D), out, probs, c.q, c.k, c.v, c.spans, 4, 2, D, 1, window)
			caches := NewCaches(1, T+1, 2, D)
			caches[0].Add(c.k, c.v, T)
			AttentionStep(fresh(4*D), fresh(4*D), fresh(2*D), fresh(2*D), []*Cache{&caches[0]}, 4, 1, window)
		}
	})
}
