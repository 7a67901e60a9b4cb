//go:build purego || !(amd64 || arm64)

package kernel

// Where there is no assembly, every kernel is its Go loop: those here, and those in noavx.go.

func detect() []instructions { return []instructions{generic} }

func tileRows() int { return 8 }

func tile(m, n, k int, a []float32, rs, ks int, b []float32, bs int, c []float32, ldc int, acc bool) {
	tileGeneric(m, n, k, a, rs, ks, b, bs, c, ldc, acc)
}

func tileHeads(heads, n, k int, a []float32, ah int, b []float32, bh, bs int, c []float32, ch int, acc bool) {
	tileHeadsGeneric(heads, n, k, a, ah, b, bh, bs, c, ch, acc)
}

func packTransposed(dst, src []float32, ld, n, kc int) { packTransposedGeneric(dst, src, ld, n, kc) }

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

func swiGLU(y, gate, up []float32) { swiGLUGeneric(y, gate, up) }

func swiGLUBackward(dgate, dup, dy, gate, up []float32) {
	swiGLUBackwardGeneric(dgate, dup, dy, gate, up)
}

func geGLU(y, gate, up []float32) { geGLUGeneric(y, gate, up) }

func geGLUBackward(dgate, dup, dy, gate, up []float32) {
	geGLUBackwardGeneric(dgate, dup, dy, gate, up)
}

func peak(_ Precision, n int) int { return peakGeneric(n) }
