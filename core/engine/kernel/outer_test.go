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

func TestMatricesPackedTogetherAreAsEachAlone(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(5)
		for _, p := range []Precision{Float32, BFloat16} {
			for _, transposed := range []bool{false, true} {
				for _, unit := range []int{1, 60} { // in one thread, in several
					var together, alone [4]Packed
					var of []Packing
					for i, s := range [4][2]int{{3 * unit, 5 * unit}, {7, 0}, {unit, 2 * unit}, {4 * unit, 33}} {
						x := Packing{To: &together[i], N: s[0], K: s[1], LDB: s[1] + 2}
						pack, rows := p.Pack, x.N
						if transposed {
							pack, rows, x.LDB = p.PackTransposed, x.K, x.N+2
						}
						x.B = normal(r, rows*x.LDB)
						pack(&alone[i], x.B, x.N, x.K, x.LDB)
						of = append(of, x)
					}
					p.PackAll(transposed, of...)
					for i, x := range of {
						name := fmt.Sprintf("%v, transposed %v, matrix %d, %d×%d", p, transposed, i, x.N, x.K)
						if together[i].N() != x.N || together[i].K() != x.K {
							t.Errorf("%s: packed as %d×%d", name, together[i].N(), together[i].K())
						}
						same(t, name, together[i].data, alone[i].data)
					}
				}
			}
		}
	})
}
