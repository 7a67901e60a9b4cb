package kernel

import (
	"fmt"
	"testing"
)

// What AddOuter computes in one piece of work is what each product by itself computes, with any number of threads.
func TestOuterProductsTogetherAreTheSameBytes(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		for _, p := range []Precision{Float32, BFloat16} {
			for _, K := range []int{0, 1, 77, 700} {
				r := generator(uint64(K))
				var products []Outer
				var want [][]float32
				for _, s := range [][2]int{{96, 96}, {33, 1}, {320, 96}, {256, 130}} {
					x := Outer{A: normal(r, K*s[0]), B: normal(r, K*s[1]), C: normal(r, s[0]*s[1]), M: s[0], N: s[1]}
					c := append([]float32(nil), x.C...)
					p.Gemm(true, false, x.M, x.N, K, x.A, x.M, x.B, x.N, c, x.N, true)
					products, want = append(products, x), append(want, c)
				}
				for _, threads := range []int{1, 2, 5} {
					for count := range len(products) + 1 {
						some := make([]Outer, count)
						for i := range some {
							some[i] = products[i]
							some[i].C = append([]float32(nil), products[i].C...)
						}
						withThreads(threads, func() { p.AddOuter(K, some...) })
						for i := range some {
							same(t, fmt.Sprintf("%v, K = %d, %d threads, product %d of %d", p, K, threads, i, count), some[i].C, want[i])
						}
					}
				}
			}
		}
	})
}

// Blocks of rows in one call are the blocks in a call each.
func TestNormsOfBlocksTogetherAreTheSameBytes(t *testing.T) {
	const rows, d = 1000, 96
	r := generator(3)
	dy, x, w, rstd, dx, dw := normal(r, rows*d), normal(r, rows*d), normal(r, d), normal(r, rows), normal(r, rows*d), normal(r, d)
	wantX, wantW := append([]float32(nil), dx...), append([]float32(nil), dw...)
	ends, first := []int{1, 65, 200, 200, 777, rows}, 0
	for _, end := range ends {
		RMSNormBackward(wantX[first*d:], wantW, dy[first*d:], x[first*d:], w, rstd[first:], end-first, d, true)
		first = end
	}
	for _, threads := range []int{1, 2, 5} {
		gotX, gotW := append([]float32(nil), dx...), append([]float32(nil), dw...)
		withThreads(threads, func() { RMSNormBackward(gotX, gotW, dy, x, w, rstd, rows, d, true, ends...) })
		same(t, "dx", gotX, wantX)
		same(t, "dw", gotW, wantW)
	}
}
