//go:build !amd64 || purego

package kernel

import "runtime"

// The kernels that have assembly on amd64 alone. Elsewhere each is its Go loop, whose parts may be assembly.

// pause lets others run for a moment inside a spinning loop.
func pause() { runtime.Gosched() }

func fastBF16() bool { return false }

func packRows(dst, src []float32, ld, n, kc int) { packRowsGeneric(dst, src, ld, n, kc) }

func rmsNorm(y, rstd, x, w []float32, rows, d int, eps float32) {
	rmsNormGeneric(y, rstd, x, w, rows, d, eps)
}

func rmsNormBackward(dx, dw, dy, x, w, rstd []float32, rows, d int, addDX bool) {
	rmsNormBackwardGeneric(dx, dw, dy, x, w, rstd, rows, d, addDX)
}

func rotate(x, cos, sin []float32, inverse bool) { rotateGeneric(x, cos, sin, inverse) }

func adamW(w, g, m, v []float32, c *adamConstants) { adamWGeneric(w, g, m, v, c) }

func softmaxRows(p []float32, ld, rows, n0, step, width int, scale float32, stats []float32) {
	softmaxRowsGeneric(p, ld, rows, n0, step, width, scale, stats)
}

func softmaxBackwardRows(p, dp []float32, ld, rows, n0, step, width int, scale float32, stats []float32) {
	softmaxBackwardRowsGeneric(p, dp, ld, rows, n0, step, width, scale, stats)
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

func quantize(dst, x []float32) { quantizeGeneric(dst, x) }
