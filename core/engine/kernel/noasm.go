//go:build !amd64 || purego

package kernel

import "runtime"

// Where there is no assembly, every kernel is its Go loop.

func detect() []instructions { return []instructions{generic} }

func tileRows() int { return 8 }

// pause lets others run for a moment inside a spinning loop.
func pause() { runtime.Gosched() }

func tile(m, n, k int, a []float32, rs, ks int, b []float32, bs int, c []float32, ldc int, acc bool) {
	tileGeneric(m, n, k, a, rs, ks, b, bs, c, ldc, acc)
}

func packTransposed(dst, src []float32, ld, n, kc int) { packTransposedGeneric(dst, src, ld, n, kc) }

func packRows(dst, src []float32, ld, n, kc int) { packRowsGeneric(dst, src, ld, n, kc) }

func expShift(dst, x []float32, sub, scale float32) float32 {
	return expShiftGeneric(dst, x, sub, scale)
}

func sumExp(x []float32, sub float32) float32 { return sumExpGeneric(x, sub) }

func maximum(x []float32) float32 { return maximumGeneric(x) }

func dot(x, y []float32) float32 { return dotGeneric(x, y) }

func axpy(a float32, x, y []float32) { axpyGeneric(a, x, y) }

func scale(x []float32, a float32) { scaleGeneric(x, a) }

func add(dst, x, y []float32) { addGeneric(dst, x, y) }

func sumSquares(x []float32) float64 { return sumSquaresGeneric(x) }

func rmsNorm(y, rstd, x, w []float32, rows, d int, eps float32) {
	rmsNormGeneric(y, rstd, x, w, rows, d, eps)
}

func rmsNormBackward(dx, dw, dy, x, w, rstd []float32, rows, d int, addDX bool) {
	rmsNormBackwardGeneric(dx, dw, dy, x, w, rstd, rows, d, addDX)
}

func swiGLU(y, gate, up []float32) { swiGLUGeneric(y, gate, up) }

func swiGLUBackward(dgate, dup, dy, gate, up []float32) {
	swiGLUBackwardGeneric(dgate, dup, dy, gate, up)
}

func rotate(x, cos, sin []float32, inverse bool) { rotateGeneric(x, cos, sin, inverse) }

func adamW(w, g, m, v []float32, c *adamConstants) { adamWGeneric(w, g, m, v, c) }

func softmaxRows(p []float32, ld, rows, n0, step, width int, scale float32, stats []float32) {
	softmaxRowsGeneric(p, ld, rows, n0, step, width, scale, stats)
}

func softmaxBackwardRows(p, dp []float32, ld, rows, n0, width int, scale float32, stats []float32) {
	softmaxBackwardRowsGeneric(p, dp, ld, rows, n0, width, scale, stats)
}

func scaleRows(x []float32, ld, rows, n int, stats []float32) {
	scaleRowsGeneric(x, ld, rows, n, stats)
}

func formatBF16() *format { return &rounded }

func round(dst, src []float32) { roundGeneric(dst, src) }

func tileRowsQ8() int { return 8 }

func tileQ8(m, n, steps int, a []float32, rs, ks int, b []float32, bs int, c []float32, ldc int, acc bool) {
	tileQ8Generic(m, n, steps, a, rs, ks, b, bs, c, ldc, acc)
}

func quantize(dst, x []float32)   { quantizeGeneric(dst, x) }
func peak(_ Precision, n int) int { return peakGeneric(n) }
