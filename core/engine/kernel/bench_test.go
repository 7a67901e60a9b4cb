package kernel

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// The benchmarks report GFLOP/s and the share of the peak, which is measured in the same run: absolute figures of a
// shared machine mean little.

// peakFlops measures the peak of all threads in flop/s for a kind of numbers, the best of some short runs; 0 if there
// is no instruction for it.
func peakFlops(kind string, threads int) float64 {
	loop := peakInt8
	switch kind {
	case "float32":
		loop = func(n int) float64 { return Peak(Float32, n) }
	case "bfloat16":
		loop = func(n int) float64 { return Peak(BFloat16, n) }
	}
	const rounds = 20000
	best := 0.0
	for range 20 {
		flops, start := make([]float64, threads), time.Now()
		Parallel(threads, func(i int) { flops[i] = loop(rounds) })
		best = max(best, flops[0]*float64(threads)/time.Since(start).Seconds())
	}
	return best
}

func benchFlops(b *testing.B, flop float64, f func()) {
	b.Helper()
	benchFlopsOf(b, "float32", flop, f)
}

func benchFlopsOf(b *testing.B, kind string, flop float64, f func()) {
	b.Helper()
	f()
	top := peakFlops(kind, runtime.GOMAXPROCS(0))
	for b.Loop() {
		f()
	}
	rate := flop * float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(rate/1e9, "GFLOP/s")
	b.ReportMetric(100*rate/top, "%peak")
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N), "µs/op")
}

func BenchmarkGemm(b *testing.B) {
	r := generator(1)
	for _, c := range []struct {
		name    string
		tA, tB  bool
		M, N, K int
	}{
		{"y=xWt", false, true, 5120, 192, 192},
		{"dx=dyW", false, false, 5120, 192, 640},
		{"dW=dytX", true, false, 640, 192, 5120},
		{"dW=dytX", true, false, 192, 192, 5120},
		{"y=xWt", false, true, 64, 640, 192},
		{"head", false, false, 80, 80, 32},
		{"square", false, true, 1024, 1024, 1024},
	} {
		x := newPaddedProduct(r, 1, c.tA, c.tB, false, c.M, c.N, c.K)
		b.Run(fmt.Sprintf("%s/%dx%dx%d", c.name, c.M, c.N, c.K), func(b *testing.B) {
			benchFlops(b, 2*float64(c.M)*float64(c.N)*float64(c.K), func() { x.run(Gemm) })
		})
	}
}

func BenchmarkGemmPacked(b *testing.B) {
	r := generator(2)
	for _, s := range []struct{ M, N, K int }{
		{5120, 192, 192}, {5120, 640, 192}, {5120, 192, 640}, {512, 192, 192}, {64, 192, 192}, {64, 640, 192}, {64, 192, 640}, {64, 96, 96},
		{8, 640, 192}, {1, 640, 192}, {64, 260, 192}, {512, 2048, 640}, {32, 2048, 640}, {8, 2048, 640}, {1, 2048, 640},
	} {
		x := newPaddedProduct(r, 1, false, true, false, s.M, s.N, s.K)
		var p Packed
		Pack(&p, x.b, s.N, s.K, x.ldb)
		b.Run(fmt.Sprintf("%dx%dx%d", s.M, s.N, s.K), func(b *testing.B) {
			benchFlops(b, 2*float64(s.M)*float64(s.N)*float64(s.K), func() { GemmPacked(s.M, x.a, x.lda, &p, x.c, x.ldc, false) })
		})
	}
}

// BenchmarkKinds compares the kinds of numbers at shapes of weight matrices, with the weights packed on the way (NT, the
// transposed products of training NN and TN) and before.
func BenchmarkKinds(b *testing.B) {
	r := generator(2)
	for _, s := range []struct{ M, N, K int }{
		{1024, 1024, 1024}, {2048, 640, 640}, {512, 2048, 640}, {32, 2048, 640}, {8, 2048, 640}, {1, 2048, 640},
	} {
		flop := 2 * float64(s.M) * float64(s.N) * float64(s.K)
		for _, kind := range kinds {
			for _, mode := range []struct {
				name   string
				tA, tB bool
			}{{"NT", false, true}, {"NN", false, false}, {"TN", true, false}} {
				if kind.gemm == nil {
					continue
				}
				x := newPaddedProduct(r, 1, mode.tA, mode.tB, false, s.M, s.N, s.K)
				b.Run(fmt.Sprintf("%dx%dx%d/%s/%s", s.M, s.N, s.K, kind.name, mode.name), func(b *testing.B) {
					benchFlopsOf(b, kind.name, flop, func() { x.run(kind.gemm) })
				})
			}
			x := newPaddedProduct(r, 1, false, true, false, s.M, s.N, s.K)
			var p Packed
			kind.pack(&p, x.b, s.N, s.K, x.ldb)
			b.Run(fmt.Sprintf("%dx%dx%d/%s/packed", s.M, s.N, s.K, kind.name), func(b *testing.B) {
				benchFlopsOf(b, kind.name, flop, func() { GemmPacked(s.M, x.a, x.lda, &p, x.c, x.ldc, false) })
			})
		}
	}
}

// attentionBatch is 64 sequences of 80 rows, 6 heads of 32: the causal half of the products is 2·T(T+1)/2·D flop each.
func attentionBatch() (c attentionCase, product float64) {
	lengths := make([]int, 64)
	for i := range lengths {
		lengths[i] = 80
	}
	return newAttentionCase(generator(3), 6, 2, 32, lengths...), 64 * 6 * 80 * 81 * 32
}

func BenchmarkAttention(b *testing.B) {
	c, product := attentionBatch()
	out, probs := c.forward()
	b.Run("forward", func(b *testing.B) {
		benchFlops(b, 2*product, func() {
			Attention(out, probs, c.q, c.k, c.v, c.spans, c.H, c.G, c.D, float32(c.scale), c.window)
		})
	})
	dq, dk, dv := make([]float32, len(c.q)), make([]float32, len(c.k)), make([]float32, len(c.v))
	b.Run("backward", func(b *testing.B) {
		benchFlops(b, 5*product, func() {
			AttentionBackward(dq, dk, dv, out, probs, c.q, c.k, c.v, c.spans, c.H, c.G, c.D, float32(c.scale), c.window)
		})
	})
	b.Run("step", func(b *testing.B) {
		caches, at := NewCaches(64, 80, c.G, c.D), make([]*Cache, 64)
		for s := range at {
			at[s] = &caches[s]
			at[s].Add(c.k[s*80*c.G*c.D:], c.v[s*80*c.G*c.D:], 79)
		}
		benchFlops(b, 64*2*2*80*32*6, func() {
			for _, cache := range at {
				cache.n = 79
			}
			AttentionStep(out, c.q, c.k, c.v, at, c.H, float32(c.scale), c.window)
		})
	})
}

func benchElements(b *testing.B, name string, n int, f func()) {
	b.Run(name, func(b *testing.B) {
		f()
		for b.Loop() {
			f()
		}
		b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/float64(n), "ns/element")
		b.ReportMetric(0, "ns/op")
	})
}

func BenchmarkVector(b *testing.B) {
	const rows, d = 512, 192
	const n = rows * d
	r := generator(4)
	x, y, z, u, v := normal(r, n), normal(r, n), normal(r, n), normal(r, n), normal(r, n)
	w, dw, rstd := normal(r, d), normal(r, d), normal(r, rows)
	pos := make([]int32, rows)
	benchElements(b, "exp", n, func() { Exp(x, y) })
	benchElements(b, "softmax", n, func() {
		for i := range rows {
			Softmax(x[i*d : (i+1)*d])
		}
	})
	benchElements(b, "logsumexp", n, func() {
		for i := range rows {
			LogSumExp(y[i*d : (i+1)*d])
		}
	})
	benchElements(b, "rmsnorm", n, func() { RMSNorm(x, rstd, y, w, rows, d, 1e-6) })
	benchElements(b, "rmsnormBackward", n, func() { RMSNormBackward(x, dw, y, z, w, rstd, rows, d, false) })
	benchElements(b, "swiglu", n, func() { SwiGLU(x, y, z) })
	benchElements(b, "swigluBackward", n, func() { SwiGLUBackward(x, u, v, y, z) })
	benchElements(b, "rope", n, func() { Rope(x, pos, w, w, 6, 32, false) })
	benchElements(b, "adamw", n, func() { AdamW(x, y, z, v, 1e-9, 0.9, 0.99, 1, 0, 1, 1, 1) })
	benchElements(b, "sumSquares", n, func() { SumSquares(x) })
	benchElements(b, "dot", n, func() { Dot(x, y) })
}

func BenchmarkParallel(b *testing.B) {
	for b.Loop() {
		Parallel(2, func(int) {})
	}
}

// BenchmarkWeightsFromMemory multiplies a few rows with weights that no cache holds, as the head of a large model is.
func BenchmarkWeightsFromMemory(b *testing.B) {
	r := generator(2)
	const N, K = 1 << 17, 640
	w := normal(r, N*K)
	for _, kind := range kinds {
		var p Packed
		kind.pack(&p, w, N, K, K)
		for _, M := range []int{1, 4, 8, 28} {
			a, c := normal(r, M*K), make([]float32, M*N)
			b.Run(fmt.Sprintf("%s/rows=%d", kind.name, M), func(b *testing.B) {
				for b.Loop() {
					GemmPacked(M, a, K, &p, c, N, false)
				}
				b.ReportMetric(float64(4*len(p.data)*b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
			})
		}
	}
}
