//go:build !purego

package kernel

// pairs is bfloat16 for the instruction VDPBF16PS: an element's 32 bits hold two numbers, neighbours along k, the first
// in the lower half. After an odd number of them there is a zero.
var pairs = format{group: 2, stepA: 1, stepB: panel, tileRows: func() int { return len(tilesBF16[0]) - 1 },
	tile: func(m, n, steps int, a []float32, rs, ks int, b []float32, bs int, c []float32, ldc int, acc bool) {
		tilesBF16[(n-1)/16][m](steps, &a[0], 4*rs, 4*ks, &b[0], 4*bs, &c[0], 4*ldc, n, flag(acc))
	},
	packTransposed: func(dst, src []float32, ld, n, kc int) {
		packTransposedBF16(&dst[0], &src[0], 4*ld, n, kc)
		packTransposedBF16(&dst[16], rowOr0(src, 16, ld, n), 4*ld, n-16, kc)
	},
	packRows: func(dst, src []float32, ld, n, kc int) {
		pairRowsBF16(&dst[0], 4*panel, &src[0], 4*ld, n, kc)
	},
	copyRows: func(dst []float32, ds int, src []float32, ld, rows, kc int) {
		for i := range rows {
			pairRowBF16(&dst[i*ds], &src[i*ld], kc)
		}
	},
	copyColumns: func(dst []float32, ds int, src []float32, ld, rows, kc int) {
		for i := 0; i < rows; i += panel {
			pairRowsBF16(&dst[i], 4*ds, &src[i], 4*ld, min(panel, rows-i), kc)
		}
	},
}

func formatBF16() *format {
	if level >= bf16 {
		return &pairs
	}
	return &rounded
}

func round(dst, src []float32) {
	switch {
	case level >= avx512:
		roundAVX512(&dst[0], &src[0], len(src))
	case level >= avx2:
		roundAVX2(&dst[0], &src[0], len(src))
	default:
		roundGeneric(dst, src)
	}
}

var tilesBF16 = [2][15]tileFunc{
	{nil, tile1x16BF16, tile2x16BF16, tile3x16BF16, tile4x16BF16, tile5x16BF16, tile6x16BF16, tile7x16BF16, tile8x16BF16,
		tile9x16BF16, tile10x16BF16, tile11x16BF16, tile12x16BF16, tile13x16BF16, tile14x16BF16},
	{nil, tile1x32BF16, tile2x32BF16, tile3x32BF16, tile4x32BF16, tile5x32BF16, tile6x32BF16, tile7x32BF16, tile8x32BF16,
		tile9x32BF16, tile10x32BF16, tile11x32BF16, tile12x32BF16, tile13x32BF16, tile14x32BF16},
}
