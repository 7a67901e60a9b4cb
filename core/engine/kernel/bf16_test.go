package kernel

import (
	"math"
	"slices"
	"testing"
)

func TestRoundBF16(t *testing.T) {
	const ulp = 1.0 / 128 // of numbers from 1 to 2
	inf := float32(math.Inf(1))
	tests := map[string]struct{ x, want float32 }{
		"what fits stays":                         {1 + ulp, 1 + ulp},
		"below the half it goes down":             {1 + ulp*0.499, 1},
		"above the half it goes up":               {1 + ulp*0.501, 1 + ulp},
		"the half goes to the even one, below":    {1 + ulp/2, 1},
		"the half goes to the even one, above":    {1 + ulp*3/2, 1 + 2*ulp},
		"the sign stays":                          {-1 - ulp*0.6, -1 - ulp},
		"it may reach the next power of 2":        {2 - ulp/4, 2},
		"the largest number":                      {0x1.fep127, 0x1.fep127},
		"what is too large is infinite":           {math.MaxFloat32, inf},
		"infinite stays so":                       {-inf, -inf},
		"the smallest normal number":              {0x1p-126, 0x1p-126},
		"a denormal number is 0":                  {0x1.8p-127, 0},
		"a negative denormal number is a minus 0": {-0x1.8p-127, float32(math.Copysign(0, -1))},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) { same(t, "x", []float32{RoundBF16(c.x)}, []float32{c.want}) })
	}
	for _, u := range []uint32{0x7f800001, 0x7fffffff, 0xff80ffff} { // a NaN's upper half alone may be infinite
		if x := RoundBF16(math.Float32frombits(u)); x == x {
			t.Errorf("a NaN, %#x, became %v", u, x)
		}
	}
}

// Every upper half with the lower halves that matter: all levels round alike.
func TestLevelsRoundAlike(t *testing.T) {
	var x []float32
	for upper := range 1 << 16 {
		for _, lower := range []int{0, 1, 0x7fff, 0x8000, 0x8001, 0xffff} {
			x = append(x, math.Float32frombits(uint32(upper<<16|lower)))
		}
	}
	want := make([]float32, len(x))
	roundGeneric(want, x)
	everyLevel(t, func(t *testing.T) {
		f := formatBF16()
		got := make([]float32, f.steps(len(x)))
		f.copyRows(got, len(got), x, len(x), 1, len(x))
		if f.group == 2 {
			var numbers []float32
			for _, pair := range got {
				u := math.Float32bits(pair)
				numbers = append(numbers, math.Float32frombits(u<<16), math.Float32frombits(u&0xffff0000))
			}
			got = numbers
		}
		same(t, "x", got, want)
	})
}

// What is not finite stays in its row and its column, also in the last of an odd number of k.
func TestGemmBF16OfWhatIsNotFinite(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	everyLevel(t, func(t *testing.T) {
		for _, K := range []int{1, 2, 31, 33} {
			for mode := range 4 {
				tA, tB := mode&1 > 0, mode&2 > 0
				r := generator(1)
				p := newProduct(r, tA, tB, false, 20, 40, K)
				for i := range p.a {
					p.a[i] = 1
				}
				for i := range p.b {
					p.b[i] = 2
				}
				last := func(i int, x float32) {
					if tA {
						p.a[(K-1)*p.lda+i] = x
					} else {
						p.a[i*p.lda+K-1] = x
					}
				}
				last(3, nan)
				last(5, -inf)
				last(7, math.MaxFloat32) // rounds to Inf
				p.run(GemmBF16)
				for i := range 20 {
					for j := range 40 {
						want := map[int]float32{3: nan, 5: -inf, 7: inf}[i]
						if want == 0 {
							want = 2 * float32(K)
						}
						if got := p.c[i*p.ldc+j]; got != want && (got == got || want == want) {
							t.Fatalf("%v: C[%d,%d] = %v, want %v", p, i, j, got, want)
						}
					}
				}
			}
		}
	})
}

// The levels take the same rounded numbers and differ in the last bits of sums.
func TestGemmBF16LevelsAgree(t *testing.T) {
	results := map[string][]float32{}
	for _, level := range Levels() {
		restore := SetLevel(level)
		p := newProduct(generator(4), true, false, true, 77, 90, 301)
		p.run(GemmBF16)
		results[level] = p.c
		restore()
	}
	for _, level := range Levels() {
		near(t, level, results[level], wide(results["generic"]), 1e-4)
	}
}

func FuzzGemmBF16(f *testing.F) { fuzzProduct(f, kinds[1]) }

// A precision's level is the first one of the same bytes: instructions for other products do not matter.
func TestLevelOfAPrecision(t *testing.T) {
	for name, want := range map[string][2]string{ // of float32, of bfloat16
		"generic": {"generic", "generic"}, "neon": {"neon", "neon"}, "avx2": {"avx2", "avx2"}, "avx512": {"avx512", "avx512"},
		"avx512vnni": {"avx512", "avx512"}, "bf16": {"avx512", "bf16"}, "vnni": {"avx512", "bf16"},
	} {
		t.Run(name, func(t *testing.T) {
			if !slices.Contains(Levels(), name) {
				t.Skip("this build on this CPU has no level " + name)
			}
			defer SetLevel(name)()
			if got := [2]string{Float32.Level(), BFloat16.Level()}; got != want {
				t.Errorf("levels %q, want %q", got, want)
			}
		})
	}
}

// The rows of a packed matrix are the numbers that products take, at every level and of every format.
func TestRowsOfPackedMatrices(t *testing.T) {
	const n, k = 70, 45 // neither fills its last panel, nor its last pair or block
	r := generator(3)
	b := make([]float32, n*k)
	for i := range b {
		b[i] = r.Float32() - 0.5
	}
	everyLevel(t, func(t *testing.T) {
		var p Packed
		got, want := make([]float32, n*k), slices.Clone(b)
		Pack(&p, b, n, k, k)
		p.Rows(0, n, got)
		same(t, "float32", got, want)
		round(want, b)
		PackBF16(&p, b, n, k, k)
		p.Rows(0, 33, got)
		p.Rows(33, n, got[33*k:])
		same(t, "bfloat16", got, want)
		PackQ8(&p, b, n, k, k)
		p.Rows(0, n, got)
		for i := range n {
			p.Row(i, want[i*k:(i+1)*k])
		}
		same(t, "q8_0", got, want)
	})
}
