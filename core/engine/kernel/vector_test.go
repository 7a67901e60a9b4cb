package kernel

import (
	"maps"
	"math"
	"slices"
	"testing"
)

// ulps is the distance of got from want in units of the last place of want, rounded to float32.
func ulps(got float32, want float64) float64 {
	w := math.Abs(float64(float32(want)))
	next := float64(math.Nextafter32(float32(w), math.MaxFloat32))
	return math.Abs(float64(got)-want) / (next - w)
}

func TestExpIsWithinTwoUlps(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		step := uint32(997) // a prime, so that all patterns of the last bits come up
		if Level() == "generic" {
			step = 49999
		}
		const n = 1000
		x, y := make([]float32, n), make([]float32, n)
		worst, at := 0.0, float32(0)
		for _, sign := range []uint32{0, 1 << 31} {
			for b := uint32(0); b < math.Float32bits(105); b += n * step {
				for i := range x {
					x[i] = math.Float32frombits(sign | (b + uint32(i)*step))
				}
				Exp(y, x)
				for i, v := range x {
					want := math.Exp(float64(v))
					if want > math.MaxFloat32 { // 2¹²⁸ − half an ulp, and what is above, rounds to +Inf
						if want > math.MaxFloat32*(1+1e-7) && !math.IsInf(float64(y[i]), 1) {
							t.Fatalf("exp(%v) = %v, want +Inf", v, y[i])
						}
						continue
					}
					if e := ulps(y[i], want); e > worst {
						worst, at = e, v
					}
				}
			}
		}
		t.Logf("largest error %.3f ulp, at %v", worst, at)
		if worst > 2 {
			t.Errorf("error %.3f ulp at %v, want at most 2", worst, at)
		}
	})
}

func TestExpOfSpecialValues(t *testing.T) {
	inf := float32(math.Inf(1))
	nan := float32(math.NaN())
	everyLevel(t, func(t *testing.T) {
		for shift := range 20 { // in every lane and in the tail
			x := make([]float32, 40)
			copy(x[shift:], []float32{inf, -inf, nan, 0, 1e30, -1e30, 89, -104, 1})
			Exp(x, x)
			got := x[shift : shift+9]
			if got[0] != inf || got[1] != 0 || got[2] == got[2] || got[3] != 1 || got[4] != inf || got[5] != 0 ||
				got[6] != inf || got[7] != 0 || math.Abs(float64(got[8])-math.E) > 3e-7 {
				t.Fatalf("exp(Inf -Inf NaN 0 1e30 -1e30 89 -104 1) = %v", got)
			}
			if shift > 0 && x[0] != 1 {
				t.Fatalf("exp(0) = %v", x[0])
			}
		}
	})
}

func TestSoftmaxAndLogSumExp(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(1)
		for n := 1; n < 3*SumBlock; n += 1 + n/10*(n/300+1)/4 {
			x, check := guarded(n)
			copy(x, normal(r, n))
			x[r.IntN(n)] += 20
			if n > 3 {
				x[1] = float32(math.Inf(-1)) // a masked entry
			}
			sum, top := 0.0, math.Inf(-1)
			for _, v := range x {
				top = max(top, float64(v))
			}
			for _, v := range x {
				sum += math.Exp(float64(v) - top)
			}
			want := make([]float64, n)
			for i, v := range x {
				want[i] = math.Exp(float64(v)-top) / sum
			}
			tolerance := 1e-6 + 1e-8*float64(n) // the Go loop adds one after another
			near(t, "log-sum-exp", []float32{LogSumExp(x)}, []float64{top + math.Log(sum)}, tolerance)
			Softmax(x)
			check(t)
			near(t, "softmax", x, want, tolerance)
		}
	})
}

func TestSoftmaxAndLogSumExpOfSpecialRows(t *testing.T) {
	inf := math.Inf(1)
	nan := math.NaN()
	tests := map[string]struct {
		row  []float64
		want float64 // log-sum-exp; the softmax is NaN unless this is finite
	}{
		"an empty row":                     {nil, -inf},
		"all entries masked":               {[]float64{-inf, -inf, -inf}, -inf},
		"one entry +Inf":                   {[]float64{1, inf, 2}, inf},
		"a NaN among numbers":              {[]float64{1, nan, 2}, nan},
		"a NaN first":                      {[]float64{nan, 1, 2, 3}, nan},
		"a NaN beside +Inf":                {[]float64{inf, nan}, nan},
		"large entries do not overflow":    {[]float64{1000, 1000}, 1000 + math.Ln2},
		"very small ones do not underflow": {[]float64{-1000, -1000}, -1000 + math.Ln2},
	}
	// The same where the entries are a block apart, and the blocks are otherwise masked.
	for name, c := range maps.Clone(tests) {
		row := slices.Repeat([]float64{-inf}, len(c.row)*SumBlock)
		for i, v := range c.row {
			row[i*SumBlock+7] = v
		}
		c.row = row
		tests[name+", in blocks"] = c
	}
	everyLevel(t, func(t *testing.T) {
		for name, c := range tests {
			t.Run(name, func(t *testing.T) {
				x := make([]float32, len(c.row))
				for i, v := range c.row {
					x[i] = float32(v)
				}
				got := float64(LogSumExp(x))
				if got != float64(float32(c.want)) && !(got != got && c.want != c.want) {
					t.Errorf("log-sum-exp = %v, want %v", got, c.want)
				}
				Softmax(x)
				finite := !math.IsInf(c.want, 0) && c.want == c.want
				for _, v := range x {
					if (v == v) != finite && v != 0 {
						t.Errorf("softmax = %v", x)
					}
				}
			})
		}
	})
}

func TestVectorKernels(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(2)
		for n := range 140 {
			x, y := normal(r, n), normal(r, n)
			dot, squares := 0.0, 0.0
			axpy, scaled, sum := make([]float64, n), make([]float64, n), make([]float64, n)
			for i := range x {
				a, b := float64(x[i]), float64(y[i])
				dot += a * b
				squares += a * a
				axpy[i], scaled[i], sum[i] = b-1.5*a, -1.5*a, a+b
			}
			near(t, "Dot", []float32{Dot(x, y)}, []float64{dot}, 1e-5)
			if got := SumSquares(x); math.Abs(got-squares) > 1e-12*squares {
				t.Fatalf("SumSquares of %d = %v, want %v", n, got, squares)
			}
			z, check := guarded(n)
			Add(z, x, y)
			near(t, "Add", z, sum, 1e-6)
			copy(z, y)
			Axpy(-1.5, x, z)
			near(t, "Axpy", z, axpy, 1e-6)
			copy(z, x)
			Scale(-1.5, z)
			near(t, "Scale", z, scaled, 1e-6)
			check(t)
		}
	})
}

func TestSumSquaresKeepsWhatFloat32Loses(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		x := make([]float32, 1+1<<16)
		for i := range x {
			x[i] = 1.0 / 4096 // x² = 2⁻²⁴: added to 1 in float32, each one would vanish
		}
		x[0] = 1
		if got, want := SumSquares(x), 1+1.0/256; got != want { // 1 + 2¹⁶·2⁻²⁴
			t.Errorf("SumSquares = %v, want %v", got, want)
		}
		if got, want := SumSquares([]float32{3e38, 0}), float64(float32(3e38))*float64(float32(3e38)); got != want {
			t.Errorf("SumSquares = %v, want %v", got, want)
		}
	})
}

// LogSumExpTo is LogSumExp, and what it keeps is Softmax but for the last product.
func TestLogSumExpToIsLogSumExp(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(12)
		inf, nan := float32(math.Inf(1)), float32(math.NaN())
		rows := [][]float32{nil, {inf}, {-inf, -inf}, {1, nan}, {nan, 1}, {-inf, nan}, {inf, 2, nan}, {-inf, 3}}
		for n := 1; n < 300; n++ {
			rows = append(rows, normal(r, n))
		}
		rows = append(rows, normal(r, 5000))
		for _, x := range rows {
			want := LogSumExp(x)
			dst, check := guarded(len(x))
			log, sum := LogSumExpTo(dst, x)
			check(t)
			if log != want && (log == log || want == want) {
				t.Fatalf("of %d numbers %v, LogSumExp %v", len(x), log, want)
			}
			if log-log == 0 {
				p := slices.Clone(x)
				Softmax(p)
				Scale(1/sum, dst)
				same(t, "p", dst, p)
			}
		}
	})
}

func TestLargestIsTheFirstOfTheLargest(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(13)
		inf := float32(math.Inf(-1))
		for _, n := range []int{1, 2, 17, 1023, 1024, 1025, 5000} {
			for range 20 {
				x := normal(r, n)
				for i := range x { // many are equal
					x[i] = float32(math.Round(float64(x[i])))
					if r.IntN(4) == 0 {
						x[i] = inf
					}
				}
				want := 0
				for i, v := range x {
					if v > x[want] {
						want = i
					}
				}
				if got := Largest(x); got != want {
					t.Fatalf("of %d numbers %d, want %d", n, got, want)
				}
			}
		}
		if got := Largest([]float32{inf, inf}); got != 0 {
			t.Errorf("of equals %d, want 0", got)
		}
	})
}
