package kernel

import "math"

// RoundBF16 rounds to bfloat16, a float32 of 8 significant bits: to the nearest, and to the even one of two that are
// as near. What is too large becomes ±Inf; a NaN stays one. Denormal numbers become 0 with their sign: the CPU's
// instruction does so.
func RoundBF16(x float32) float32 {
	const exponent, sign, quiet = 0x7f800000, 0x80000000, 0x00400000
	u := math.Float32bits(x)
	switch {
	case u&exponent == 0:
		u &= sign
	case x != x:
		u |= quiet
	default:
		u += 0x7fff + u>>16&1
	}
	return math.Float32frombits(u &^ 0xffff)
}

// GemmBF16 is [Gemm] of the elements of A and B rounded to bfloat16 by [RoundBF16]. Products are exact, and their sums
// float32:
//
//	s = fma(RoundBF16(A(i,k)), RoundBF16(B(k,j)), s)
//
// It promises what Gemm does: row i is the same bytes in any batch, under any number of threads, and from [GemmPacked]
// after [PackBF16]. At level "bf16" the instruction VDPBF16PS adds the products in pairs, k and k+1, and takes denormal
// sums for 0; at the others Gemm's tiles work on rounded copies. So levels differ in the last bits.
func GemmBF16(tA, tB bool, M, N, K int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	if g := newGemm(formatBF16(), tA, M, N, K, a, lda, c, ldc, acc); g != nil {
		g.setB(tB, b, ldb)
		g.do(true)
	}
}

// PackBF16 is [Pack] for elements rounded to bfloat16: [GemmPacked] on p rounds A, too, as [GemmBF16] does. At level
// "bf16" it takes half of Pack's memory.
func PackBF16(p *Packed, b []float32, N, K, ldb int) {
	packAll(formatBF16(), false, Packing{p, b, N, K, ldb})
}

// PackBF16Transposed is [PackTransposed] for elements rounded to bfloat16.
func PackBF16Transposed(p *Packed, b []float32, N, K, ldb int) {
	packAll(formatBF16(), true, Packing{p, b, N, K, ldb})
}

// rounded is bfloat16 held as float32, for the levels without instructions for it.
var rounded = format{group: 1, stepA: 1, stepB: panel, tileRows: tileRows, tile: tile,
	packTransposed: func(dst, src []float32, ld, n, kc int) {
		packTransposed(dst, src, ld, n, kc)
		round(dst[:kc*panel], dst[:kc*panel])
	},
	packRows: func(dst, src []float32, ld, n, kc int) {
		packRows(dst, src, ld, n, kc)
		round(dst[:kc*panel], dst[:kc*panel])
	},
	copyRows: roundRows,
	copyColumns: func(dst []float32, ds int, src []float32, ld, rows, kc int) {
		roundRows(dst, ds, src, ld, kc, rows)
	},
}

func roundRows(dst []float32, ds int, src []float32, ld, rows, kc int) {
	for i := range rows {
		round(dst[i*ds:i*ds+kc], src[i*ld:i*ld+kc])
	}
}

func roundGeneric(dst, src []float32) {
	for i, x := range src {
		dst[i] = RoundBF16(x)
	}
}
