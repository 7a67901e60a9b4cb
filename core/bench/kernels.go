package bench

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/dno-project/dno/core/engine/kernel"
)

// Kernel is one kernel on one shape. Its roof is min(peak, intensity × bandwidth) of the machine, and its share is what
// it reaches of that.
type Kernel struct {
	Name  string  `json:"name"`
	Shape string  `json:"shape"`
	FLOP  float64 `json:"flop"`  // of a run
	Bytes float64 `json:"bytes"` // of a run, between memory and caches, each number once
	Timing
	Intensity   float64 `json:"intensity"` // flop a byte
	RoofGFLOPS  float64 `json:"roof_gflops"`
	Bound       string  `json:"bound"` // what the roof is made by: "peak", or the bandwidth "read" or "update"
	GFLOPS      float64 `json:"gflops"`
	GBs         float64 `json:"gbs"`
	Share       float64 `json:"share"`
	ShareMedian float64 `json:"share_median"`
}

// under sets what follows from the timing and the machine.
func (k *Kernel) under(m Machine, peak float64, readOnly bool) {
	k.Intensity = k.FLOP / k.Bytes
	k.RoofGFLOPS, k.Bound = k.Intensity*m.UpdateGBs, "update"
	if readOnly {
		k.RoofGFLOPS, k.Bound = k.Intensity*m.ReadGBs, "read"
	}
	if peak < k.RoofGFLOPS {
		k.RoofGFLOPS, k.Bound = peak, "peak"
	}
	k.GFLOPS, k.GBs = rate(k.FLOP, k.Seconds), rate(k.Bytes, k.Seconds)
	k.Share, k.ShareMedian = k.GFLOPS/k.RoofGFLOPS, rate(k.FLOP, k.SecondsMedian)/k.RoofGFLOPS
}

// kernelCase is a kernel on a shape that waits for its turn. prepare makes its input in the arena, which is full of
// random numbers, and returns what is timed.
type kernelCase struct {
	name, shape string
	flop, bytes float64
	readOnly    bool // what it writes stays in the cache
	precision   kernel.Precision
	prepare     func(a *arena) (run func())
}

// MeasureKernels times every kernel of the engine with all threads.
func MeasureKernels(ctx context.Context, m Machine, t Timer) ([]Kernel, error) {
	cases := kernelCases()
	t.Progress.Start("bench kernels", len(cases))
	defer t.Progress.Done()
	a := newArena()
	var out []Kernel
	for _, c := range cases {
		a.fill()
		run := c.prepare(a)
		timing, err := t.time(ctx, func() error { run(); return nil })
		if err != nil {
			return nil, err
		}
		k := Kernel{Name: c.name, Shape: c.shape, FLOP: c.flop, Bytes: c.bytes, Timing: timing}
		k.under(m, m.peak(c.precision), c.readOnly)
		out = append(out, k)
	}
	return out, nil
}

func kernelCases() []kernelCase {
	var all []kernelCase
	for _, p := range []kernel.Precision{kernel.Float32, kernel.BFloat16} {
		name := map[kernel.Precision]string{kernel.Float32: "gemm", kernel.BFloat16: "bf16 gemm"}[p]
		for _, s := range [][3]int{{1024, 1024, 1024}, {2048, 640, 640}, {512, 2048, 640}} {
			all = append(all, gemm(p, name+" NN", false, false, s), gemm(p, name+" NT", false, true, s), gemm(p, name+" TN", true, false, s))
		}
		all = append(all, packed(p, name+" packed", []int{32, 8, 1}, 2048, 640)...)
	}
	all = append(all, elementwise()...)
	return append(all, attention(8, 256, 8, 64)...)
}

// gemm is a product of matrices M×K and K×N. The names are those of BLAS: T is a factor that is stored transposed.
func gemm(p kernel.Precision, name string, tA, tB bool, shape [3]int) kernelCase {
	M, N, K := shape[0], shape[1], shape[2]
	return kernelCase{
		name: name, shape: fmt.Sprintf("%dx%dx%d", M, N, K), flop: 2 * float64(M) * float64(N) * float64(K),
		bytes: moved(M*K+K*N, M*N, 0), precision: p,
		prepare: func(a *arena) func() {
			x, y, z, lda, ldb := a.take(M*K), a.take(K*N), a.take(M*N), K, N
			if tA {
				lda = M
			}
			if tB {
				ldb = K
			}
			return func() { p.Gemm(tA, tB, M, N, K, x, lda, y, ldb, z, N, false) }
		},
	}
}

// weightBytes is what a packed weight takes.
func weightBytes(p kernel.Precision) float64 {
	if p == kernel.BFloat16 && p.Level() == "bf16" {
		return 2
	}
	return 4
}

// packed are products of a few rows with packed weights N×K, as in sampling. A run goes through as many matrices as
// fill half of the arena's size, so that the weights come from memory, as those of a large model do.
func packed(p kernel.Precision, name string, rows []int, N, K int) (cases []kernelCase) {
	n := arenaFloats / 2 / (N * K)
	weights := sync.OnceValue(func() []kernel.Packed { return make([]kernel.Packed, n) })
	for _, M := range rows {
		cases = append(cases, kernelCase{
			name: name, shape: fmt.Sprintf("%dx%dx%d", M, N, K), flop: 2 * float64(n*M) * float64(N*K),
			bytes: moved(n*N*K, 0, 0) * weightBytes(p) / 4, readOnly: true, precision: p,
			prepare: func(a *arena) func() {
				x, z, w := a.take(M*K), a.take(M*N), weights()
				for i := range w {
					p.Pack(&w[i], a.take(N*K), N, K, K)
				}
				return func() {
					for i := range w {
						kernel.GemmPacked(M, x, K, &w[i], z, N, false)
					}
				}
			},
		})
	}
	return cases
}

// The operations of exp and of the sigmoid made of it, for one number, as the assembly has them: a fused
// multiplication and addition counts as two, a maximum, a rounding or a scaling by a power of two as one.
const (
	expFLOP     = 23
	sigmoidFLOP = expFLOP + 3
)

// elementwise are the kernels whose work is a few operations for each number. The arrays of a case fill the arena.
func elementwise() []kernelCase {
	// case of rows of d numbers in some arrays; flop and bytes are for each number.
	each := func(name string, arrays, d int, flop, bytes float64, prepare func(x [][]float32, rows int) func()) kernelCase {
		rows := room(arrays) / d
		n := float64(rows * d)
		return kernelCase{
			name: name, shape: fmt.Sprintf("%dx%d", rows, d), flop: flop * n, bytes: bytes * n, readOnly: bytes == moved(1, 0, 0),
			prepare: func(a *arena) func() {
				x := make([][]float32, arrays)
				for i := range x {
					x[i] = a.take(rows * d)
				}
				return prepare(x, rows)
			},
		}
	}
	const adam = 10_000_000
	return []kernelCase{
		each("exp", 2, 2048, expFLOP+3, moved(1, 1, 0), func(x [][]float32, rows int) func() {
			return func() { eachRow(rows, 2048, func(i, j int) { kernel.Exp(x[0][i:j], x[1][i:j]) }) }
		}),
		each("softmax", 1, 2048, expFLOP+5, moved(0, 0, 1), func(x [][]float32, rows int) func() {
			return func() { eachRow(rows, 2048, func(i, j int) { kernel.Softmax(x[0][i:j]) }) }
		}),
		each("logsumexp", 1, 2048, expFLOP+3, moved(1, 0, 0), func(x [][]float32, rows int) func() {
			sums := make([]float32, rows)
			return func() { eachRow(rows, 2048, func(i, j int) { sums[i/2048] = kernel.LogSumExp(x[0][i:j]) }) }
		}),
		each("rmsnorm", 2, 640, 4, moved(1, 1, 0), func(x [][]float32, rows int) func() {
			w, rstd := ones(640), make([]float32, rows)
			return func() { kernel.RMSNorm(x[0], rstd, x[1], w, rows, 640, 1e-5) }
		}),
		each("rmsnorm backward", 3, 640, 11, moved(2, 0, 1), func(x [][]float32, rows int) func() {
			w, dw, rstd := ones(640), make([]float32, 640), ones(rows)
			return func() { kernel.RMSNormBackward(x[0], dw, x[1], x[2], w, rstd, rows, 640, true) }
		}),
		each("swiglu", 3, 2048, sigmoidFLOP+2, moved(2, 1, 0), func(x [][]float32, _ int) func() {
			return func() { kernel.SwiGLU(x[0], x[1], x[2]) }
		}),
		each("swiglu backward", 5, 2048, sigmoidFLOP+8, moved(3, 2, 0), func(x [][]float32, _ int) func() {
			return func() { kernel.SwiGLUBackward(x[0], x[1], x[2], x[3], x[4]) }
		}),
		each("geglu", 3, 2048, sigmoidFLOP+6, moved(2, 1, 0), func(x [][]float32, _ int) func() {
			return func() { kernel.GeGLU(x[0], x[1], x[2]) }
		}),
		each("geglu backward", 5, 2048, sigmoidFLOP+15, moved(3, 2, 0), func(x [][]float32, _ int) func() {
			return func() { kernel.GeGLUBackward(x[0], x[1], x[2], x[3], x[4]) }
		}),
		each("rope", 1, 640, 3, moved(0, 0, 1), func(x [][]float32, rows int) func() {
			const positions, half = 256, 32
			cos, sin, pos := make([]float32, positions*half), make([]float32, positions*half), make([]int32, rows)
			for i := range cos {
				s, c := math.Sincos(float64(i / half))
				cos[i], sin[i] = float32(c), float32(s)
			}
			for i := range pos {
				pos[i] = int32(i % positions)
			}
			return func() { kernel.Rope(x[0], pos, cos, sin, 640/(2*half), 2*half, false) }
		}),
		{
			name: "adamw", shape: fmt.Sprint(adam), flop: 15 * adam, bytes: moved(0, 0, 4) * adam,
			prepare: func(a *arena) func() {
				w, g, m, v := a.take(adam), a.take(adam), a.take(adam), a.take(adam)
				clear(m)
				clear(v)
				// With betas so near to 1 the moments stay what they are, however often this runs.
				return func() { kernel.AdamW(w, g, m, v, 1e-6, 1-1e-6, 1-1e-6, 1e-8, 0, 1, 1, 1) }
			},
		},
	}
}

// eachRow calls f for each row of d numbers from i to j, some thousand numbers a task.
func eachRow(rows, d int, f func(i, j int)) {
	per := max(1, (1<<13)/d)
	kernel.Parallel((rows+per-1)/per, func(task int) {
		for r := task * per; r < min((task+1)*per, rows); r++ {
			f(r*d, (r+1)*d)
		}
	})
}

func ones(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = 1
	}
	return x
}

// attention is S sequences of T rows with H heads of D. Its operations are those of the products over the causal half:
// two of them forward, and five backward, where the scores are computed again.
func attention(S, T, H, D int) []kernelCase {
	n, shape := S*T*H*D, fmt.Sprintf("%dx%d, %dx%d", S, T, H, D)
	product := float64(S*T*(T+1)) * float64(H*D)
	spans := make([]kernel.Span, S)
	for i := range spans {
		spans[i] = kernel.Span{From: i * T, To: (i + 1) * T}
	}
	scale := float32(1 / math.Sqrt(float64(D)))
	forward := func(a *arena) (q, k, v, out, probs []float32) {
		q, k, v, out, probs = a.take(n), a.take(n), a.take(n), a.take(n), a.take(kernel.AttentionScratch(S*T, H))
		kernel.Attention(out, probs, q, k, v, spans, H, H, D, scale, 0)
		return q, k, v, out, probs
	}
	return []kernelCase{
		{
			name: "attention", shape: shape, flop: 2 * product, bytes: moved(3*n, n, 0),
			prepare: func(a *arena) func() {
				q, k, v, out, probs := forward(a)
				return func() { kernel.Attention(out, probs, q, k, v, spans, H, H, D, scale, 0) }
			},
		},
		{
			name: "attention backward", shape: shape, flop: 5 * product, bytes: moved(4*n, 3*n, 0),
			prepare: func(a *arena) func() {
				q, k, v, out, probs := forward(a)
				dq, dk, dv := a.take(n), a.take(n), a.take(n)
				return func() { kernel.AttentionBackward(dq, dk, dv, out, probs, q, k, v, spans, H, H, D, scale, 0) }
			},
		},
	}
}
