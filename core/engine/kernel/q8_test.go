package kernel

import (
	"math"
	"slices"
	"testing"
)

// roundQ8 is the definition of Q8_0 on a row, in float64 where that changes nothing; scale rounds a block's scale.
func roundQ8(scale func(d float32) float32) func(row []float32) {
	return func(row []float32) {
		for len(row) > 0 {
			block := row[:min(32, len(row))]
			row = row[len(block):]
			largest := float32(0)
			for _, x := range block {
				largest = max(largest, float32(math.Abs(float64(x))))
			}
			for i, x := range block {
				if largest > 0 {
					block[i] = float32(int(math.RoundToEven(float64(x*(127/largest))))) * scale(largest/127)
				}
			}
		}
	}
}

func TestFloat16(t *testing.T) {
	inf := float32(math.Inf(1))
	for h := range 1 << 16 {
		sign, exponent, fraction := h>>15, h>>10&31, h&1023
		want := math.Ldexp(float64(1024+fraction), exponent-25)
		if exponent == 0 {
			want = math.Ldexp(float64(fraction), -24)
		} else if exponent == 31 && fraction == 0 {
			want = math.Inf(1)
		} else if exponent == 31 {
			if x := fromFloat16(uint16(h)); x == x || float16(x)&0x7e00 != 0x7e00 {
				t.Fatalf("%#x is %v and back %#x, want NaN", h, x, float16(x))
			}
			continue
		}
		if sign == 1 {
			want = -want
		}
		x := fromFloat16(uint16(h))
		if float64(x) != want || float16(x) != uint16(h) {
			t.Fatalf("%#x is %v and back %#x, want %v", h, x, float16(x), want)
		}
		if exponent == 31 {
			continue
		}
		// Half way to the next, and a little less and more.
		next := fromFloat16(uint16(h + 1))
		if exponent == 30 && fraction == 1023 {
			next = x / 65504 * 65536
		}
		half := (x + next) / 2
		even := uint16(h + h&1)
		if got := float16(half); got != even {
			t.Fatalf("%v became %#x, want %#x", half, got, even)
		}
		if got := float16(math.Nextafter32(half, 0)); got != uint16(h) {
			t.Fatalf("less than %v became %#x, want %#x", half, got, h)
		}
		if got := float16(math.Nextafter32(half, next*2)); got != uint16(h+1) {
			t.Fatalf("more than %v became %#x, want %#x", half, got, h+1)
		}
	}
	if float16(-inf) != 0xfc00 || float16(math.MaxFloat32) != 0x7c00 || float16(1e-30) != 0 {
		t.Fatal("what does not fit is not infinite or 0")
	}
}

// Row gives back what the definition of each kind makes of a row.
func TestRow(t *testing.T) {
	everyKind(t, func(t *testing.T, kind kind) {
		r := generator(1)
		for _, s := range []struct{ N, K int }{{1, 1}, {33, 31}, {70, 32}, {5, 33}, {40, 200}} {
			b := normal(r, s.N*s.K)
			var p Packed
			kind.pack(&p, b, s.N, s.K, s.K)
			for i := range s.N {
				got, want := make([]float32, s.K), b[i*s.K:(i+1)*s.K]
				p.Row(i, got)
				kind.roundB(want)
				same(t, "row", got, want)
			}
		}
	})
}

// Blocks of every size of numbers become the same bytes at all levels.
func TestLevelsQuantizeAlike(t *testing.T) {
	r := generator(2)
	inf := float32(math.Inf(1))
	var x []float32
	for e := -149; e < 128; e++ {
		for range 4 {
			block := normal(r, 32)
			for i := range block {
				block[i] = float32(math.Ldexp(float64(block[i]), e))
			}
			x = append(x, block...)
		}
	}
	for i, v := range []float32{0, float32(math.Copysign(0, -1)), inf, -inf, float32(math.NaN()), smallestQ8,
		math.Nextafter32(smallestQ8, 0), math.MaxFloat32, -math.MaxFloat32} {
		block := make([]float32, 32)
		block[(7*i)%32] = v
		x = append(x, block...)
		for j := range block {
			block[j] = v * (1 - float32(j)/32)
		}
		x = append(x, block...)
	}
	x = append(x, 0.5, 127, -63.5, 1.5) // halves, and the last block is short
	size := (len(x) + 31) / 32 * rowQ8
	want := make([]float32, size)
	quantizeGeneric(want, x)
	everyLevel(t, func(t *testing.T) {
		got := normal(r, size)
		quantize(got, x)
		same(t, "blocks", got, want)
	})
}

// The largest sums of a block fit: no level saturates.
func TestQ8OfExtremes(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		for _, signs := range [][2]float32{{1, 1}, {1, -1}, {-1, 1}, {-1, -1}} {
			const K = 64
			a, b := make([]float32, K), make([]float32, 33*K)
			for i := range a {
				a[i] = signs[0] * 127
			}
			for i := range b {
				b[i] = signs[1] * 127
			}
			var p Packed
			PackQ8(&p, b, 33, K, K)
			c := make([]float32, 33)
			GemmPacked(1, a, K, &p, c, 33, false)
			for j, got := range c {
				if want := signs[0] * signs[1] * K * 127 * 127; got != want {
					t.Fatalf("C[%d] = %v, want %v", j, got, want)
				}
			}
		}
	})
}

func TestQ8LevelsAgree(t *testing.T) {
	results := map[string][]float32{}
	for _, level := range Levels() {
		restore := SetLevel(level)
		p := newProduct(generator(4), false, true, true, 77, 90, 301)
		p.run(kinds[2].packed)
		results[level] = p.c
		restore()
	}
	for _, level := range Levels() {
		near(t, level, results[level], wide(results["generic"]), 2e-7)
		if first := "avx2"; slices.Contains(Levels(), first) && level != "generic" {
			same(t, level+" and "+first, results[level], results[first])
		}
	}
}

// A row that is not finite is NaN, and others are as they were.
func TestQ8OfWhatIsNotFinite(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		p := newProduct(generator(1), false, true, false, 9, 40, 70)
		want := append([]float32(nil), p.c...)
		p.run(kinds[2].packed)
		copy(want, p.c)
		p.a[2*p.lda+69] = float32(math.NaN())
		p.a[4*p.lda] = float32(math.Inf(-1))
		p.b[7*p.ldb+33] = float32(math.Inf(1))
		p.run(kinds[2].packed)
		for i := range p.M {
			for j := range p.N {
				got, want := p.c[i*p.ldc+j], want[i*p.ldc+j]
				if bad := i == 2 || i == 4 || j == 7; bad != (got != got) || !bad && got != want {
					t.Fatalf("C[%d,%d] = %v, and %v when all was finite", i, j, got, want)
				}
			}
		}
	})
}

func FuzzPackQ8(f *testing.F) { fuzzProduct(f, kinds[2]) }
