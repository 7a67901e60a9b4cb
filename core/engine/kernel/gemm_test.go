package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// kind is one of the ways to compute products: all hold to the same promises.
type kind struct {
	name           string
	gemm           gemmFunc // nil if there are only packed ones
	pack           func(p *Packed, b []float32, N, K, ldb int)
	packed         gemmFunc
	roundA, roundB func(row []float32) // what becomes of the numbers along k
}

var kinds = []kind{
	{"float32", Gemm, Pack, packedBy(Pack), func([]float32) {}, func([]float32) {}},
	{"bfloat16", GemmBF16, PackBF16, packedBy(PackBF16), roundRow, roundRow},
	{"int8", nil, PackQ8, packedBy(PackQ8), roundQ8(func(d float32) float32 { return d }),
		roundQ8(func(d float32) float32 { return fromFloat16(float16(d)) })},
}

func roundRow(row []float32) { roundGeneric(row, row) }

func packedBy(pack func(p *Packed, b []float32, N, K, ldb int)) gemmFunc {
	return func(tA, tB bool, M, N, K int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool) {
		var p Packed
		pack(&p, b, N, K, ldb)
		GemmPacked(M, a, lda, &p, c, ldc, acc)
	}
}

// everyKind runs a test for each kind of product at each level.
func everyKind(t *testing.T, f func(t *testing.T, kind kind)) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			everyLevel(t, func(t *testing.T) { f(t, kind) })
		})
	}
}

// product is a random matrix product with rows longer than they need to be and canaries around C.
type product struct {
	tA, tB, acc   bool
	M, N, K       int
	a, b, c       []float32
	lda, ldb, ldc int
	check         func(*testing.T)
}

func newProduct(r *rand.Rand, tA, tB, acc bool, M, N, K int) *product {
	return newPaddedProduct(r, 4, tA, tB, acc, M, N, K)
}

// newPaddedProduct makes rows longer than they need to be by less than padding.
func newPaddedProduct(r *rand.Rand, padding int, tA, tB, acc bool, M, N, K int) *product {
	p := &product{tA: tA, tB: tB, acc: acc, M: M, N: N, K: K}
	shape := func(rows, cols int) (n, ld int) {
		ld = cols + r.IntN(padding)
		return (rows-1)*ld + cols, ld // the last row is not padded
	}
	var n int
	if tA {
		n, p.lda = shape(K, M)
	} else {
		n, p.lda = shape(M, K)
	}
	p.a = normal(r, n)
	if tB {
		n, p.ldb = shape(N, K)
	} else {
		n, p.ldb = shape(K, N)
	}
	p.b = normal(r, n)
	n, p.ldc = shape(M, N)
	p.c, p.check = guarded(n)
	copy(p.c, normal(r, n))
	return p
}

func (p *product) String() string {
	return fmt.Sprintf("tA=%v tB=%v acc=%v M=%d N=%d K=%d", p.tA, p.tB, p.acc, p.M, p.N, p.K)
}

// factors are the rows of op(A) and the columns of op(B), rounded.
func (p *product) factors(kind kind) (a, b [][]float32) {
	rows := func(n int, round func(row []float32), at func(i, k int) float32) [][]float32 {
		x := make([][]float32, n)
		for i := range x {
			x[i] = make([]float32, p.K)
			for k := range x[i] {
				x[i][k] = at(i, k)
			}
			round(x[i])
		}
		return x
	}
	return rows(p.M, kind.roundA, func(i, k int) float32 {
			if p.tA {
				return p.a[k*p.lda+i]
			}
			return p.a[i*p.lda+k]
		}), rows(p.N, kind.roundB, func(j, k int) float32 {
			if p.tB {
				return p.b[j*p.ldb+k]
			}
			return p.b[k*p.ldb+j]
		})
}

type gemmFunc = func(tA, tB bool, M, N, K int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool)

func (p *product) run(f gemmFunc) {
	f(p.tA, p.tB, p.M, p.N, p.K, p.a, p.lda, p.b, p.ldb, p.c, p.ldc, p.acc)
}

// verify runs f and compares with float64 sums; K float32 roundings of normal numbers are within 1e-6·K^0.5·|values|.
func (p *product) verify(t *testing.T, kind kind, f gemmFunc) {
	t.Helper()
	before := append([]float32(nil), p.c...)
	p.run(f)
	p.check(t)
	tol := 4e-6 * math.Sqrt(float64(p.K))
	a, b := p.factors(kind)
	for i := range p.M {
		for j := range p.N {
			sum := 0.0
			if p.acc {
				sum = float64(before[i*p.ldc+j])
			}
			for k, x := range a[i] {
				sum += float64(x) * float64(b[j][k])
			}
			if got := p.c[i*p.ldc+j]; !(math.Abs(float64(got)-sum) <= tol*(1+math.Abs(sum))) {
				t.Fatalf("%v: C[%d,%d] = %v, want %v", p, i, j, got, sum)
			}
		}
		for j := i*p.ldc + p.N; j < min((i+1)*p.ldc, len(p.c)); j++ {
			if p.c[j] != before[j] {
				t.Fatalf("%v: wrote between the rows", p)
			}
		}
	}
}

func TestGemmAgainstFloat64(t *testing.T) {
	everyKind(t, func(t *testing.T, kind kind) {
		r := generator(1)
		rounds := 12
		if Level() == "generic" {
			rounds = 3
		}
		for round := range rounds {
			for mode := range 8 {
				M, N, K := 1+r.IntN(100), 1+r.IntN(100), 1+r.IntN(100)
				switch round {
				case 0:
					K = 700 + r.IntN(400) // several blocks of K
				case 1:
					M, N = 350+r.IntN(20), 1+r.IntN(40) // several blocks of rows
				case 2:
					K, N, M = 256, 256, 15+r.IntN(30) // rows of A on the same cache lines
				}
				tA, tB, acc := mode&1 > 0, mode&2 > 0, mode&4 > 0
				if kind.gemm != nil {
					newProduct(r, tA, tB, acc, M, N, K).verify(t, kind, kind.gemm)
				}
				if kind.name == "float32" {
					newProduct(r, tA, tB, acc, M, N, K).verify(t, kind, GemmSerial)
				}
				if !tA && tB {
					newProduct(r, tA, tB, acc, M, N, K).verify(t, kind, kind.packed)
				}
			}
		}
	})
}

func TestGemmOfEverySmallShape(t *testing.T) {
	everyKind(t, func(t *testing.T, kind kind) {
		r := generator(2)
		for M := 1; M <= 15; M++ {
			for _, N := range []int{1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 19, 20, 24, 31, 32, 33} {
				for _, K := range []int{1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33} {
					if kind.gemm != nil {
						newProduct(r, r.IntN(2) > 0, r.IntN(2) > 0, r.IntN(2) > 0, M, N, K).verify(t, kind, kind.gemm)
					}
					newProduct(r, false, true, r.IntN(2) > 0, M, N, K).verify(t, kind, kind.packed)
				}
			}
		}
	})
}

func TestGemmWithoutElements(t *testing.T) {
	everyKind(t, func(t *testing.T, kind kind) {
		c := []float32{1, 2, 3, 4}
		if kind.gemm != nil {
			kind.gemm(false, false, 2, 2, 0, nil, 0, nil, 2, c, 2, true)
			same(t, "C += A·B with K = 0", c, []float32{1, 2, 3, 4})
			kind.gemm(false, true, 2, 1, 0, nil, 0, nil, 0, c, 2, false)
			same(t, "C = A·B with K = 0", c, []float32{0, 2, 0, 4})
			kind.gemm(false, false, 0, 2, 2, nil, 2, []float32{1, 1, 1, 1}, 2, nil, 2, false)
		}
		var p Packed
		GemmPacked(2, make([]float32, 6), 3, &p, nil, 0, false)
		kind.pack(&p, nil, 0, 3, 3)
		GemmPacked(2, make([]float32, 6), 3, &p, nil, 0, false)
		kind.pack(&p, nil, 2, 0, 0)
		GemmPacked(1, nil, 0, &p, c, 2, false)
		same(t, "C = A·Bᵀ with K = 0", c[:2], []float32{0, 0})
	})
}

func TestGemmRefusesShortSlices(t *testing.T) {
	x := make([]float32, 6)
	for name, f := range map[string]func(){
		"C too short":       func() { Gemm(false, false, 2, 2, 3, x, 3, x, 2, make([]float32, 3), 2, false) },
		"A too short":       func() { Gemm(false, false, 2, 2, 4, x, 4, make([]float32, 8), 2, make([]float32, 4), 2, false) },
		"B too short":       func() { Gemm(false, true, 2, 3, 3, x, 3, x, 3, make([]float32, 6), 3, false) },
		"rows that overlap": func() { Gemm(false, false, 2, 2, 3, x, 2, x, 2, make([]float32, 4), 2, false) },
		"bfloat16 A":        func() { GemmBF16(true, false, 2, 2, 4, x, 2, make([]float32, 8), 2, make([]float32, 4), 2, false) },
		"bfloat16 weights":  func() { PackBF16(new(Packed), x, 2, 4, 4) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Fatal("did not panic")
				}
			}()
			f()
		})
	}
}

// A row is the same bytes alone and among others, from every entry point, and under any number of threads.
func TestGemmRowsDoNotDependOnTheBatch(t *testing.T) {
	everyKind(t, func(t *testing.T, kind kind) {
		r := generator(3)
		for _, s := range []struct{ M, N, K int }{{97, 70, 96}, {41, 200, 640}, {29, 33, 1101}, {400, 40, 64}} {
			p := newProduct(r, false, true, false, s.M, s.N, s.K)
			withThreads(1, func() { p.run(kind.packed) })
			want := make([]float32, s.M*s.N)
			for i := range s.M {
				copy(want[i*s.N:(i+1)*s.N], p.c[i*p.ldc:])
			}
			aT, bT := transposed(p.a, s.M, s.K, p.lda), transposed(p.b, s.N, s.K, p.ldb)
			var packed Packed
			kind.pack(&packed, p.b, s.N, s.K, p.ldb)
			for _, threads := range []int{1, 2, 7} {
				withThreads(threads, func() {
					for _, m := range []int{1, 2, 3, 5, 13, 14, 15, 28, s.M} {
						m = min(m, s.M)
						i := r.IntN(s.M - m + 1)
						a, w := p.a[i*p.lda:], want[i*s.N:(i+m)*s.N]
						what := fmt.Sprintf("%v: rows %d…%d, %d threads, ", p, i, i+m, threads)
						c := make([]float32, m*s.N)
						GemmPacked(m, a, p.lda, &packed, c, s.N, false)
						same(t, what+"GemmPacked", c, w)
						if kind.gemm == nil {
							continue
						}
						kind.gemm(false, true, m, s.N, s.K, a, p.lda, p.b, p.ldb, c, s.N, false)
						same(t, what+"Gemm", c, w)
						clear(c)
						kind.gemm(false, true, m, s.N, s.K, a, p.lda, p.b, p.ldb, c, s.N, true)
						same(t, what+"Gemm added to 0", c, w)
						kind.gemm(false, false, m, s.N, s.K, a, p.lda, bT, s.N, c, s.N, false)
						same(t, what+"Gemm with B stored K×N", c, w)
						kind.gemm(true, false, m, s.N, s.K, aT[i:], s.M, bT, s.N, c, s.N, false)
						same(t, what+"Gemm with both stored K×", c, w)
						if kind.name == "float32" {
							GemmSerial(false, true, m, s.N, s.K, a, p.lda, p.b, p.ldb, c, s.N, false)
							same(t, what+"GemmSerial", c, w)
						}
						// Two parts of K, one after the other; the first one's length is even.
						h := s.K / 2 &^ 1
						kind.gemm(false, true, m, s.N, h, a, p.lda, p.b, p.ldb, c, s.N, false)
						kind.gemm(false, true, m, s.N, s.K-h, a[h:], p.lda, p.b[h:], p.ldb, c, s.N, true)
						same(t, what+"Gemm in two parts of K", c, w)
					}
				})
			}
		}
	})
}

// Several products of the same rows in one call are the bytes of a call each, and do not write beside their rows.
// A matrix packed from its transpose is the same numbers in the same places.
func TestPackTransposedIsPack(t *testing.T) {
	r := generator(11)
	for _, p := range []Precision{Float32, BFloat16} {
		t.Run(p.String(), func(t *testing.T) {
			everyLevel(t, func(t *testing.T) {
				for _, s := range []struct{ N, K int }{{1, 1}, {31, 5}, {32, 16}, {33, 17}, {70, 1}, {96, 320}} {
					b, ld := normal(r, s.N*s.K), s.N+r.IntN(4)
					stored := make([]float32, s.K*ld)
					for i := range s.N {
						for k := range s.K {
							stored[k*ld+i] = b[i*s.K+k]
						}
					}
					var want, got Packed
					p.Pack(&want, b, s.N, s.K, s.K)
					p.PackTransposed(&got, stored[:(s.K-1)*ld+s.N], s.N, s.K, ld)
					if got.N() != s.N || got.K() != s.K || !slices.EqualFunc(got.data, want.data, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) }) {
						t.Errorf("%d×%d: the packed numbers differ", s.N, s.K)
					}
				}
			})
		})
	}
}

func TestGemmPackedAllIsGemmPacked(t *testing.T) {
	everyKind(t, func(t *testing.T, kind kind) {
		r := generator(7)
		for _, K := range []int{1, 40, 300, 1101} {
			ns := []int{70, 1, 32, 205}
			b, packed := make([][]float32, len(ns)), make([]Packed, len(ns))
			for i, n := range ns {
				b[i] = normal(r, n*K)
				kind.pack(&packed[i], b[i], n, K, K)
			}
			for _, M := range []int{1, 2, 15, 29} {
				lda := K + 3
				a := normal(r, M*lda)
				for count := 1; count <= len(ns); count++ {
					var want [][]float32
					for i, n := range ns[:count] {
						want = append(want, make([]float32, M*n))
						GemmPacked(M, a, lda, &packed[i], want[i], n, false)
					}
					for _, threads := range []int{1, 3} {
						withThreads(threads, func() {
							var products []Product
							var checks []func(*testing.T)
							for i, n := range ns[:count] {
								c, check := guarded(M * n)
								products, checks = append(products, Product{&packed[i], c}), append(checks, check)
							}
							GemmPackedAll(M, a, lda, products...)
							for i := range products {
								checks[i](t)
								same(t, fmt.Sprintf("M=%d K=%d, %d threads: product %d of %d", M, K, threads, i, count), products[i].C, want[i])
							}
						})
					}
				}
			}
		}
	})
}

func TestGemmPackedAllRefusesUnequalMatrices(t *testing.T) {
	x := make([]float32, 64*64)
	var p, short, other Packed
	Pack(&p, x, 8, 64, 64)
	Pack(&short, x, 8, 63, 64)
	PackQ8(&other, x, 8, 64, 64)
	for name, second := range map[string]*Packed{"another K": &short, "another kind": &other} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("did not panic")
				}
			}()
			GemmPackedAll(2, x, 64, Product{&p, make([]float32, 16)}, Product{second, make([]float32, 16)})
		})
	}
}

// transposed is the rows×cols matrix x, stored cols×rows.
func transposed(x []float32, rows, cols, ld int) []float32 {
	y := make([]float32, rows*cols)
	for i := range rows {
		for j := range cols {
			y[j*rows+i] = x[i*ld+j]
		}
	}
	return y
}

// The sums are fused and in the order of k at both vector levels, so these agree to the bit.
func TestGemmLevelsAgree(t *testing.T) {
	want := map[string][]float32{}
	for _, level := range Levels() {
		restore := SetLevel(level)
		p := newProduct(generator(4), true, false, true, 77, 90, 300)
		p.run(Gemm)
		want[level] = p.c
		restore()
	}
	for _, level := range Levels()[1:] {
		near(t, level, want[level], wide(want["generic"]), 1e-4)
		same(t, level, want[level], want[Levels()[1]])
	}
}

func TestPackReusesMemory(t *testing.T) {
	everyKind(t, func(t *testing.T, kind kind) {
		r := generator(5)
		b := normal(r, 64*64)
		var p Packed
		Pack(&p, b, 64, 64, 64)
		if n := testing.AllocsPerRun(10, func() { withoutThreads(func() { kind.pack(&p, b, 40, 50, 64) }) }); n > 2 {
			t.Errorf("packing again allocates %v times", n)
		}
		if p.N() != 40 || p.K() != 50 {
			t.Errorf("N, K = %d, %d, want 40, 50", p.N(), p.K())
		}
		a := normal(r, 50)
		c, want := make([]float32, 40), make([]float32, 40)
		GemmPacked(1, a, 50, &p, c, 40, false)
		kind.packed(false, true, 1, 40, 50, a, 50, b, 64, want, 40, false)
		same(t, "C", c, want)
	})
}

func withoutThreads(f func()) { withThreads(1, f) }

func TestGemmDoesNotAllocate(t *testing.T) {
	everyKind(t, func(t *testing.T, kind kind) {
		r := generator(6)
		a, b, c := normal(r, 128*192), normal(r, 192*192), make([]float32, 128*192)
		var p Packed
		kind.pack(&p, b, 192, 192, 192)
		calls := map[string]func(){
			"GemmSerial": func() { GemmSerial(false, true, 128, 192, 192, a, 192, b, 192, c, 192, false) },
			"GemmPacked": func() { GemmPacked(128, a, 192, &p, c, 192, false) },
			"GemmPackedAll": func() {
				GemmPackedAll(64, a, 192, Product{&p, c[:64*192]}, Product{&p, c[64*192:]})
			},
		}
		if kind.gemm != nil {
			calls["Gemm"] = func() { kind.gemm(false, true, 128, 192, 192, a, 192, b, 192, c, 192, false) }
			calls["Gemm, TN"] = func() { kind.gemm(true, false, 128, 192, 192, a, 128, b, 192, c, 192, false) }
		}
		for name, f := range calls {
			f()
			if n := testing.AllocsPerRun(5, f); n >= 1 {
				t.Errorf("%s allocates %v times a call", name, n)
			}
		}
	})
}

func FuzzGemm(f *testing.F) { fuzzProduct(f, kinds[0]) }

func fuzzProduct(f *testing.F, kind kind) {
	f.Add(uint64(1), uint8(3), uint8(40), uint16(50), uint8(0))
	f.Add(uint64(2), uint8(15), uint8(33), uint16(900), uint8(7))
	f.Add(uint64(1), uint8(111), uint8(80), uint16(75), uint8(3)) // more rows than a task has, and no more than are copied at once
	f.Fuzz(func(t *testing.T, seed uint64, M, N uint8, K uint16, mode uint8) {
		r := generator(seed)
		m, n, k := 1+int(M)%120, 1+int(N)%120, 1+int(K)%1200
		tA, tB, acc := mode&1 > 0, mode&2 > 0, mode&4 > 0
		for _, name := range Levels() {
			restore := SetLevel(name)
			if kind.gemm != nil {
				newProduct(r, tA, tB, acc, m, n, k).verify(t, kind, kind.gemm)
			}
			newProduct(r, false, true, acc, m, n, k).verify(t, kind, kind.packed)
			restore()
		}
	})
}
