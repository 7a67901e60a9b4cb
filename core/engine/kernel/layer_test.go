package kernel

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// slope is the derivative of f at x[i], in float64 by central differences.
func slope(f func() float64, x []float64, i int) float64 {
	const h = 1e-5
	old := x[i]
	x[i] = old + h
	up := f()
	x[i] = old - h
	down := f()
	x[i] = old
	return (up - down) / (2 * h)
}

// inner is Σ x·y: the loss whose gradient by x is y.
func inner(x, y []float64) (sum float64) {
	for i, v := range x {
		sum += v * y[i]
	}
	return sum
}

func rmsNorm64(x, w []float64, rows, d int, eps float64) (y, rstd []float64) {
	y = make([]float64, rows*d)
	for r := range rows {
		row := x[r*d : (r+1)*d]
		s := 1 / math.Sqrt(inner(row, row)/float64(d)+eps)
		rstd = append(rstd, s)
		for j, v := range row {
			y[r*d+j] = v * s * w[j]
		}
	}
	return y, rstd
}

func TestRMSNorm(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(1)
		for _, s := range []struct{ rows, d int }{{1, 1}, {3, 15}, {2, 16}, {5, 33}, {4, 96}, {3, 200}, {300, 192}} {
			x, w := normal(r, s.rows*s.d), normal(r, s.d)
			y, check := guarded(len(x))
			rstd := make([]float32, s.rows)
			RMSNorm(y, rstd, x, w, s.rows, s.d, 1e-5)
			check(t)
			wantY, wantR := rmsNorm64(wide(x), wide(w), s.rows, s.d, 1e-5)
			near(t, "y", y, wantY, 2e-6)
			near(t, "rstd", rstd, wantR, 2e-6)

			one, s1 := make([]float32, s.d), make([]float32, 1)
			i := r.IntN(s.rows)
			RMSNorm(one, s1, x[i*s.d:], w, 1, s.d, 1e-5)
			same(t, "a row alone", one, y[i*s.d:(i+1)*s.d])
			RMSNorm(x, rstd, x, w, s.rows, s.d, 1e-5)
			same(t, "in place", x, y)
		}
	})
}

func TestRMSNormBackward(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(2)
		for _, s := range []struct{ rows, d int }{{1, 1}, {3, 15}, {2, 16}, {5, 33}, {70, 24}} {
			x, w, dy := normal(r, s.rows*s.d), normal(r, s.d), normal(r, s.rows*s.d)
			y, rstd := make([]float32, len(x)), make([]float32, s.rows)
			RMSNorm(y, rstd, x, w, s.rows, s.d, 1e-5)
			x64, w64, dy64 := wide(x), wide(w), wide(dy)
			loss := func() float64 {
				y, _ := rmsNorm64(x64, w64, s.rows, s.d, 1e-5)
				return inner(y, dy64)
			}
			wantX, wantW := make([]float64, len(x)), make([]float64, len(w))
			for i := range x64 {
				wantX[i] = slope(loss, x64, i)
			}
			for j := range w64 {
				wantW[j] = 1 + slope(loss, w64, j) // dw begins at 1
			}
			dx, check := guarded(len(x))
			dw, checkW := guarded(s.d)
			for j := range dw {
				dw[j] = 1
			}
			RMSNormBackward(dx, dw, dy, x, w, rstd, s.rows, s.d, false)
			check(t)
			checkW(t)
			near(t, "dx", dx, wantX, 3e-5)
			near(t, "dw", dw, wantW, 3e-5)

			frozen := make([]float32, len(x))
			RMSNormBackward(frozen, nil, dy, x, w, rstd, s.rows, s.d, true)
			same(t, "dx added to zero, with a frozen weight", frozen, dx)
			RMSNormBackward(dy, nil, dy, x, w, rstd, s.rows, s.d, false)
			same(t, "dx in the place of dy", dy, dx)
		}
	})
}

// units are the gated units with their definitions.
var units = []struct {
	name     string
	forward  func(y, gate, up []float32)
	backward func(dgate, dup, dy, gate, up []float32)
	act      func(z float64) float64
}{
	{"SwiGLU", SwiGLU, SwiGLUBackward, func(z float64) float64 { return z / (1 + math.Exp(-z)) }},
	{"GeGLU", GeGLU, GeGLUBackward, func(z float64) float64 {
		return 0.5 * z * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(z+0.044715*z*z*z)))
	}},
}

func TestGatedUnits(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		for _, u := range units {
			r := generator(3)
			for _, n := range []int{0, 1, 15, 16, 33, 100, 2*grain + 5} {
				gate, up, dy := normal(r, n), normal(r, n), normal(r, n)
				for i := range gate {
					gate[i] *= 4
				}
				y, check := guarded(n)
				u.forward(y, gate, up)
				check(t)
				g64, u64, dy64 := wide(gate), wide(up), wide(dy)
				want := make([]float64, n)
				for i, z := range g64 {
					want[i] = u.act(z) * u64[i]
				}
				near(t, u.name, y, want, 1e-6)

				dgate, check1 := guarded(n)
				dup, check2 := guarded(n)
				u.backward(dgate, dup, dy, gate, up)
				check1(t)
				check2(t)
				for i := 0; i < n; i += 1 + n/100 {
					loss := func() float64 { return u.act(g64[i]) * u64[i] * dy64[i] }
					near(t, u.name+" dgate", dgate[i:i+1], []float64{slope(loss, g64, i)}, 2e-6)
					near(t, u.name+" dup", dup[i:i+1], []float64{slope(loss, u64, i)}, 2e-6)
				}
				for i := range 5 { // in the place of an argument
					in := [3][]float32{slices.Clone(gate), slices.Clone(up), slices.Clone(dy)}
					switch i {
					case 0, 1:
						u.forward(in[i], in[0], in[1])
						same(t, u.name+" in place", in[i], y)
					default:
						a, b := in[i-2], in[(i-1)%3]
						u.backward(a, b, in[2], in[0], in[1])
						same(t, u.name+" dgate in place", a, dgate)
						same(t, u.name+" dup in place", b, dup)
					}
				}
			}
		}
	})
}

func TestGatedUnitsFarFromZero(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		for _, u := range units {
			gate, one := []float32{-1e5, -200, -95, 95, 200, 1e5}, []float32{1, 1, 1, 1, 1, 1}
			y, dgate, dup := make([]float32, 6), make([]float32, 6), make([]float32, 6)
			u.forward(y, gate, one)
			u.backward(dgate, dup, one, gate, one)
			near(t, u.name, y, []float64{0, 0, 0, 95, 200, 1e5}, 1e-6)
			near(t, u.name+" dup", dup, []float64{0, 0, 0, 95, 200, 1e5}, 1e-6)
			near(t, u.name+" dgate", dgate, []float64{0, 0, 0, 1, 1, 1}, 1e-6)
		}
	})
}

func TestRope(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(4)
		for _, s := range []struct{ T, heads, headDim int }{{1, 1, 2}, {5, 3, 32}, {7, 2, 24}, {3, 1, 66}, {90, 6, 96}} {
			half := s.headDim / 2
			cos, sin := normal(r, 100*half), normal(r, 100*half)
			for i := range cos {
				a := r.Float64() * 7
				cos[i], sin[i] = float32(math.Cos(a)), float32(math.Sin(a))
			}
			pos := make([]int32, s.T)
			for i := range pos {
				pos[i] = int32(r.IntN(100))
			}
			before := normal(r, s.T*s.heads*s.headDim)
			x, check := guarded(len(before))
			copy(x, before)
			Rope(x, pos, cos, sin, s.heads, s.headDim, false)
			check(t)
			want := make([]float64, len(x))
			for i := range s.T {
				for h := range s.heads {
					for j := range half {
						p := (i*s.heads+h)*s.headDim + j
						a, b := float64(before[p]), float64(before[p+half])
						c, d := float64(cos[int(pos[i])*half+j]), float64(sin[int(pos[i])*half+j])
						want[p], want[p+half] = a*c-b*d, b*c+a*d
					}
				}
			}
			near(t, "x", x, want, 1e-6)
			Rope(x, pos, cos, sin, s.heads, s.headDim, true)
			check(t)
			near(t, "x turned back", x, wide(before), 1e-6)
		}
	})
}

func TestAdamW(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(5)
		for _, n := range []int{1, 17, 100, 2*grain + 3} {
			w, check := guarded(n)
			m, v := normal(r, n), normal(r, n)
			copy(w, normal(r, n))
			for i := range v {
				v[i] *= v[i]
			}
			W, M, V := wide(w), wide(m), wide(v)
			for step := 1; step <= 3; step++ {
				g := normal(r, n)
				const lr, b1, b2, eps, decay, by = 1e-2, 0.9, 0.999, 1e-8, 0.1, 0.5
				c1, c2 := 1-math.Pow(b1, float64(step)), 1-math.Pow(b2, float64(step))
				for i := range W {
					d := by * float64(g[i])
					M[i] = b1*M[i] + (1-b1)*d
					V[i] = b2*V[i] + (1-b2)*d*d
					W[i] = W[i]*(1-lr*decay) - lr*(M[i]/c1)/(math.Sqrt(V[i]/c2)+eps)
				}
				AdamW(w, g, m, v, lr, b1, b2, eps, decay, by, c1, c2)
				check(t)
				near(t, "m", m, M, 1e-6)
				near(t, "v", v, V, 1e-6)
				near(t, "w", w, W, 1e-6)
				same(t, "g", g, make([]float32, n))
			}
		}
	})
}

// Whatever runs in parallel gives the same bytes under any number of threads.
func TestThreadsDoNotChangeBytes(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(6)
		const rows, d, n = 333, 160, 333 * 160
		x, y, z, w := normal(r, n), normal(r, n), normal(r, n), normal(r, d)
		pos := make([]int32, rows)
		angle := normal(r, 16)
		// 8 sequences of different lengths, 5 heads of 32 in one group
		var spans []Span
		for i, from := range []int{0, 1, 80, 81, 150, 150, 240, 320} {
			spans = append(spans, Span{from, []int{1, 80, 81, 150, 150, 240, 320, rows}[i], []int{0, 0, 0, 1, 0, 0, 1, 1}[i]})
		}
		k, v := normal(r, rows*32), normal(r, rows*32)
		run := func() map[string][]float32 {
			out := map[string][]float32{}
			fresh := func(name string, n int) []float32 { out[name] = make([]float32, n); return out[name] }
			norm, rstd := fresh("norm", n), fresh("rstd", rows)
			RMSNorm(norm, rstd, x, w, rows, d, 1e-6)
			RMSNormBackward(fresh("dx", n), fresh("dw", d), y, x, w, rstd, rows, d, false)
			SwiGLU(fresh("swiglu", n), x, y)
			SwiGLUBackward(fresh("dgate", n), fresh("dup", n), z, x, y)
			GeGLU(fresh("geglu", n), x, y)
			GeGLUBackward(fresh("geglu dgate", n), fresh("geglu dup", n), z, x, y)
			q := fresh("rope", n)
			copy(q, x)
			Rope(q, pos, angle, angle, 5, 32, false)
			p := fresh("w", n)
			copy(p, x)
			g := append([]float32(nil), y...)
			AdamW(p, g, fresh("m", n), fresh("v", n), 0.1, 0.9, 0.99, 1e-8, 0.1, 1, 0.1, 0.01)
			probs := fresh("probs", AttentionScratch(rows, 5))
			Attention(fresh("attention", n), probs, q, k, v, spans, 5, 1, 32, 0.2, 0)
			AttentionBackward(fresh("dq", n), fresh("dk", len(k)), fresh("dv", len(v)), y, probs, q, k, v, spans, 5, 1, 32, 0.2, 0)
			Gemm(true, false, d, 32, rows, x, d, k, 32, fresh("gemm", d*32), 32, true)
			return out
		}
		var want map[string][]float32
		withThreads(1, func() { want = run() })
		for _, threads := range []int{1, 2, 7} {
			withThreads(threads, func() {
				for name, got := range run() {
					same(t, fmt.Sprintf("%s under %d threads", name, threads), got, want[name])
				}
			})
		}
	})
}

// An element's bytes do not depend on where it stands: in a whole vector or in a tail.
func TestElementsDoNotDependOnTheirPlace(t *testing.T) {
	everyLevel(t, func(t *testing.T) {
		r := generator(7)
		const n = 77
		x, y, z := normal(r, n), normal(r, n), normal(r, n)
		kernels := func(x, y, z []float32) (all [][]float32) {
			out := func() []float32 { all = append(all, make([]float32, len(x))); return all[len(all)-1] }
			Exp(out(), x)
			SwiGLU(out(), x, y)
			SwiGLUBackward(out(), out(), x, y, z)
			GeGLU(out(), x, y)
			GeGLUBackward(out(), out(), x, y, z)
			AdamW(append(out()[:0], x...), append(out()[:0], y...), out(), out(), 0.1, 0.9, 0.9, 1, 0.1, 1, 0.1, 0.1)
			return all
		}
		whole := kernels(x, y, z)
		for i := range n {
			for k, part := range kernels(x[i:], y[i:], z[i:]) {
				same(t, fmt.Sprintf("result %d from element %d on", k, i), part, whole[k][i:])
			}
		}
	})
}

func TestSmallCallsDoNotAllocate(t *testing.T) {
	r := generator(8)
	const rows, d = 64, 192
	x, y, w, rstd := normal(r, rows*d), normal(r, rows*d), normal(r, d), normal(r, rows)
	pos := make([]int32, rows)
	caches := NewCaches(1, 30, 2, 32)
	one := []*Cache{&caches[0]}
	for name, f := range map[string]func(){
		"RMSNorm":       func() { RMSNorm(y, rstd, x, w, rows, d, 1e-5) },
		"SwiGLU":        func() { SwiGLU(y, x, x) },
		"GeGLU":         func() { GeGLU(y, x, x) },
		"Rope":          func() { Rope(y, pos, w, w, 6, 32, false) },
		"Softmax":       func() { Softmax(y) },
		"LogSumExp":     func() { LogSumExp(y) },
		"AttentionStep": func() { AttentionStep(y, x, x, x, one, 6, 0.1, 0) },
	} {
		f()
		if n := testing.AllocsPerRun(20, f); n >= 1 {
			t.Errorf("%s allocates %v times a call", name, n)
		}
	}
}
