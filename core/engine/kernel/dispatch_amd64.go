//go:build !purego

package kernel

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

func detect() []instructions {
	have := []instructions{generic}
	x := &cpu.X86
	if x.HasAVX2 && x.HasFMA && x.HasBMI2 { // and F16C, which package cpu does not know: all CPUs with AVX2 have it
		have = append(have, avx2)
		if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL {
			have = append(have, avx512)
			if x.HasAVX512VNNI {
				have = append(have, avx512vnni)
			}
			if x.HasAVX512BF16 {
				have = append(have, bf16)
				if x.HasAVX512VNNI {
					have = append(have, vnni)
				}
			}
		}
	}
	return have
}

// fastBF16 reports whether products of bfloat16 take less time than those of float32. VDPBF16PS does twice the multiplications
// of a VFMADD231PS; AMD's cores start one of either a cycle, Intel's one of the former in two cycles and four
// of the latter (Emerald Rapids, by [Peak]).
func fastBF16() bool {
	b, d, c := vendorAsm()
	return level >= bf16 && [3]uint32{b, d, c} == [3]uint32{0x68747541, 0x69746e65, 0x444d4163} // AuthenticAMD
}

// pause rests for a moment inside a spinning loop.
func pause() { pauseAsm(1) }

type tileFunc = func(k int, a *float32, rs, ks int, b *float32, bs int, c *float32, ldc, n, acc int)

// The tiles by width, one vector or two, and by height.
var (
	tilesAVX2 = [2][7]tileFunc{
		{nil, tile1x8AVX2, tile2x8AVX2, tile3x8AVX2, tile4x8AVX2, tile5x8AVX2, tile6x8AVX2},
		{nil, tile1x16AVX2, tile2x16AVX2, tile3x16AVX2, tile4x16AVX2, tile5x16AVX2, tile6x16AVX2},
	}
	tilesAVX512 = [2][15]tileFunc{
		{nil, tile1x16AVX512, tile2x16AVX512, tile3x16AVX512, tile4x16AVX512, tile5x16AVX512, tile6x16AVX512,
			tile7x16AVX512, tile8x16AVX512, tile9x16AVX512, tile10x16AVX512, tile11x16AVX512, tile12x16AVX512,
			tile13x16AVX512, tile14x16AVX512},
		{nil, tile1x32AVX512, tile2x32AVX512, tile3x32AVX512, tile4x32AVX512, tile5x32AVX512, tile6x32AVX512,
			tile7x32AVX512, tile8x32AVX512, tile9x32AVX512, tile10x32AVX512, tile11x32AVX512, tile12x32AVX512,
			tile13x32AVX512, tile14x32AVX512},
	}
)

// tileRows is the height of the highest tile.
func tileRows() int {
	switch {
	case level >= avx512:
		return len(tilesAVX512[0]) - 1
	case level >= avx2:
		return len(tilesAVX2[0]) - 1
	}
	return 8
}

func tile(m, n, k int, a []float32, rs, ks int, b []float32, bs int, c []float32, ldc int, acc bool) {
	switch {
	case level >= avx512:
		tilesAVX512[(n-1)/16][m](k, &a[0], 4*rs, 4*ks, &b[0], 4*bs, &c[0], 4*ldc, n, flag(acc))
	case level >= avx2:
		for j := 0; j < n; j += 16 {
			w := min(n-j, 16)
			tilesAVX2[(w-1)/8][m](k, &a[0], 4*rs, 4*ks, &b[j], 4*bs, &c[j], 4*ldc, w, flag(acc))
		}
	default:
		tileGeneric(m, n, k, a, rs, ks, b, bs, c, ldc, acc)
	}
}

var headsAVX512 = [...]func(k int, a *float32, ah int, b *float32, bh, bs int, c *float32, ch, n, acc int){
	nil, heads1x32AVX512, heads2x32AVX512, heads3x32AVX512, heads4x32AVX512, heads5x32AVX512, heads6x32AVX512, heads7x32AVX512, heads8x32AVX512,
}

func tileHeads(heads, n, k int, a []float32, ah int, b []float32, bh, bs int, c []float32, ch int, acc bool) {
	if level >= avx512 {
		headsAVX512[heads](k, &a[0], 4*ah, &b[0], 4*bh, 4*bs, &c[0], 4*ch, n, flag(acc))
		return
	}
	tileHeadsGeneric(heads, n, k, a, ah, b, bh, bs, c, ch, acc)
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// packTransposed fills a panel a vector's width of rows at a time.
func packTransposed(dst, src []float32, ld, n, kc int) {
	switch {
	case level >= avx512:
		packTransposedAVX512(&dst[0], &src[0], 4*ld, n, kc)
		packTransposedAVX512(&dst[16], rowOr0(src, 16, ld, n), 4*ld, n-16, kc)
	case level >= avx2:
		for i := 0; i < panel; i += 8 {
			packTransposedAVX2(&dst[i], rowOr0(src, i, ld, n), 4*ld, n-i, kc)
		}
	default:
		packTransposedGeneric(dst, src, ld, n, kc)
	}
}

// rowOr0 points to row i of n; if there is no such row, to row 0, which will not be read.
func rowOr0(x []float32, i, ld, n int) *float32 {
	if i < n {
		return &x[i*ld]
	}
	return &x[0]
}

func packRows(dst, src []float32, ld, n, kc int) {
	switch {
	case level >= avx512:
		packRowsAVX512(&dst[0], &src[0], 4*ld, n, kc)
	case level >= avx2:
		packRowsAVX2(&dst[0], &src[0], 4*ld, n, kc)
	default:
		packRowsGeneric(dst, src, ld, n, kc)
	}
}

func expShift(dst, x []float32, sub, scale float32) float32 {
	switch {
	case level >= avx512:
		return expShiftAVX512(&dst[0], &x[0], len(x), sub, scale)
	case level >= avx2:
		return expShiftAVX2(&dst[0], &x[0], len(x), sub, scale)
	}
	return expShiftGeneric(dst, x, sub, scale)
}

func sumExp(x []float32, sub float32) float32 {
	switch {
	case level >= avx512:
		return sumExpAVX512(&x[0], len(x), sub)
	case level >= avx2:
		return sumExpAVX2(&x[0], len(x), sub)
	}
	return sumExpGeneric(x, sub)
}

func maximum(x []float32) float32 {
	switch {
	case level >= avx512:
		return maximumAVX512(&x[0], len(x))
	case level >= avx2:
		return maximumAVX2(&x[0], len(x))
	}
	return maximumGeneric(x)
}

func dot(x, y []float32) float32 {
	switch {
	case level >= avx512:
		return dotAVX512(&x[0], &y[0], len(x))
	case level >= avx2:
		return dotAVX2(&x[0], &y[0], len(x))
	}
	return dotGeneric(x, y)
}

func axpy(a float32, x, y []float32) {
	switch {
	case level >= avx512:
		axpyAVX512(a, &x[0], &y[0], len(x))
	case level >= avx2:
		axpyAVX2(a, &x[0], &y[0], len(x))
	default:
		axpyGeneric(a, x, y)
	}
}

func scale(x []float32, a float32) {
	switch {
	case level >= avx512:
		scaleAVX512(&x[0], len(x), a)
	case level >= avx2:
		scaleAVX2(&x[0], len(x), a)
	default:
		scaleGeneric(x, a)
	}
}

func add(dst, x, y []float32) {
	switch {
	case level >= avx512:
		addAVX512(&dst[0], &x[0], &y[0], len(x))
	case level >= avx2:
		addAVX2(&dst[0], &x[0], &y[0], len(x))
	default:
		addGeneric(dst, x, y)
	}
}

func sumSquares(x []float32) float64 {
	switch {
	case level >= avx512:
		return sumSquaresAVX512(&x[0], len(x))
	case level >= avx2:
		return sumSquaresAVX2(&x[0], len(x))
	}
	return sumSquaresGeneric(x)
}

func rmsNorm(y, rstd, x, w []float32, rows, d int, eps float32) {
	switch {
	case level >= avx512:
		rmsNormAVX512(&y[0], &rstd[0], &x[0], &w[0], rows, d, eps)
	case level >= avx2:
		rmsNormAVX2(&y[0], &rstd[0], &x[0], &w[0], rows, d, eps)
	default:
		rmsNormGeneric(y, rstd, x, w, rows, d, eps)
	}
}

func rmsNormBackward(dx, dw, dy, x, w, rstd []float32, rows, d int, addDX bool) {
	switch {
	case level >= avx512:
		rmsNormBackwardAVX512(&dx[0], unsafe.SliceData(dw), &dy[0], &x[0], &w[0], &rstd[0], rows, d, addDX)
	case level >= avx2:
		rmsNormBackwardAVX2(&dx[0], unsafe.SliceData(dw), &dy[0], &x[0], &w[0], &rstd[0], rows, d, addDX)
	default:
		rmsNormBackwardGeneric(dx, dw, dy, x, w, rstd, rows, d, addDX)
	}
}

func swiGLU(y, gate, up []float32) {
	switch {
	case level >= avx512:
		swiGLUAVX512(&y[0], &gate[0], &up[0], len(y))
	case level >= avx2:
		swiGLUAVX2(&y[0], &gate[0], &up[0], len(y))
	default:
		swiGLUGeneric(y, gate, up)
	}
}

func swiGLUBackward(dgate, dup, dy, gate, up []float32) {
	switch {
	case level >= avx512:
		swiGLUBackwardAVX512(&dgate[0], &dup[0], &dy[0], &gate[0], &up[0], len(dy))
	case level >= avx2:
		swiGLUBackwardAVX2(&dgate[0], &dup[0], &dy[0], &gate[0], &up[0], len(dy))
	default:
		swiGLUBackwardGeneric(dgate, dup, dy, gate, up)
	}
}

func geGLU(y, gate, up []float32) {
	switch {
	case level >= avx512:
		geGLUAVX512(&y[0], &gate[0], &up[0], len(y))
	case level >= avx2:
		geGLUAVX2(&y[0], &gate[0], &up[0], len(y))
	default:
		geGLUGeneric(y, gate, up)
	}
}

func geGLUBackward(dgate, dup, dy, gate, up []float32) {
	switch {
	case level >= avx512:
		geGLUBackwardAVX512(&dgate[0], &dup[0], &dy[0], &gate[0], &up[0], len(dy))
	case level >= avx2:
		geGLUBackwardAVX2(&dgate[0], &dup[0], &dy[0], &gate[0], &up[0], len(dy))
	default:
		geGLUBackwardGeneric(dgate, dup, dy, gate, up)
	}
}

func rotate(x, cos, sin []float32, inverse bool) {
	switch {
	case level >= avx512:
		rotateAVX512(&x[0], &cos[0], &sin[0], len(x)/(2*len(cos)), len(cos), sign(inverse))
	case level >= avx2:
		rotateAVX2(&x[0], &cos[0], &sin[0], len(x)/(2*len(cos)), len(cos), sign(inverse))
	default:
		rotateGeneric(x, cos, sin, inverse)
	}
}

func sign(negative bool) float32 {
	if negative {
		return -1
	}
	return 1
}

func adamW(w, g, m, v []float32, c *adamConstants) {
	switch {
	case level >= avx512:
		adamWAVX512(&w[0], &g[0], &m[0], &v[0], len(w), &c.gradScale)
	case level >= avx2:
		adamWAVX2(&w[0], &g[0], &m[0], &v[0], len(w), &c.gradScale)
	default:
		adamWGeneric(w, g, m, v, c)
	}
}

func softmaxRows(p []float32, ld, rows, n0, step, width int, scale float32, stats []float32) {
	switch {
	case level >= avx512:
		softmaxRowsAVX512(&p[0], ld, rows, n0, step, width, scale, &stats[0])
	case level >= avx2:
		softmaxRowsAVX2(&p[0], ld, rows, n0, step, width, scale, &stats[0])
	default:
		softmaxRowsGeneric(p, ld, rows, n0, step, width, scale, stats)
	}
}

func softmaxBackwardRows(p, dp []float32, ld, rows, n0, step, width int, scale float32, stats []float32) {
	switch {
	case level >= avx512:
		softmaxBackwardRowsAVX512(&p[0], &dp[0], ld, rows, n0, step, width, scale, &stats[0])
	case level >= avx2:
		softmaxBackwardRowsAVX2(&p[0], &dp[0], ld, rows, n0, step, width, scale, &stats[0])
	default:
		softmaxBackwardRowsGeneric(p, dp, ld, rows, n0, step, width, scale, stats)
	}
}

func scaleRows(x []float32, ld, rows, n int, stats []float32) {
	switch {
	case level >= avx512:
		scaleRowsAVX512(&x[0], ld, rows, n, &stats[0])
	case level >= avx2:
		scaleRowsAVX2(&x[0], ld, rows, n, &stats[0])
	default:
		scaleRowsGeneric(x, ld, rows, n, stats)
	}
}

// peak does n rounds and returns the operations of one: 48 vectors, multiplied and added.
func peak(p Precision, n int) int {
	switch {
	case level >= bf16 && p == BFloat16:
		peakBF16(n)
		return 48 * 16 * 4
	case level >= avx512:
		peakAVX512(n)
		return 48 * 16 * 2
	case level == avx2:
		peakAVX2(n)
		return 48 * 8 * 2
	}
	return peakGeneric(n)
}
