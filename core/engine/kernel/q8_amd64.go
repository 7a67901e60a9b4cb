//go:build !purego

package kernel

// tileQ8Func is a tile of int8 by assembly; the scales of b are apart.
type tileQ8Func = func(k int, a *float32, rs, ks int, b, d *float32, bs int, c *float32, ldc, n, acc int)

// The tiles by width, one vector or two, and by height.
var (
	tilesQ8AVX2 = [2][3]tileQ8Func{
		{nil, tileQ81x8AVX2, tileQ82x8AVX2},
		{nil, tileQ81x16AVX2, tileQ82x16AVX2},
	}
	tilesQ8AVX512 = [2][7]tileQ8Func{
		{nil, tileQ81x16AVX512, tileQ82x16AVX512, tileQ83x16AVX512, tileQ84x16AVX512, tileQ85x16AVX512, tileQ86x16AVX512},
		{nil, tileQ81x32AVX512, tileQ82x32AVX512, tileQ83x32AVX512, tileQ84x32AVX512, tileQ85x32AVX512, tileQ86x32AVX512},
	}
	tilesQ8VNNI = [2][7]tileQ8Func{
		{nil, tileQ81x16VNNI, tileQ82x16VNNI, tileQ83x16VNNI, tileQ84x16VNNI, tileQ85x16VNNI, tileQ86x16VNNI},
		{nil, tileQ81x32VNNI, tileQ82x32VNNI, tileQ83x32VNNI, tileQ84x32VNNI, tileQ85x32VNNI, tileQ86x32VNNI},
	}
)

func tileRowsQ8() int {
	switch {
	case level >= avx512:
		return len(tilesQ8AVX512[0]) - 1
	case level >= avx2:
		return len(tilesQ8AVX2[0]) - 1
	}
	return 8
}

func tileQ8(m, n, steps int, a []float32, rs, ks int, b []float32, bs int, c []float32, ldc int, acc bool) {
	const scales = slotsQ8 * panel
	switch {
	case level.hasVNNI():
		tilesQ8VNNI[(n-1)/16][m](steps, &a[0], 4*rs, 4*ks, &b[0], &b[scales], 4*bs, &c[0], 4*ldc, n, flag(acc))
	case level >= avx512:
		tilesQ8AVX512[(n-1)/16][m](steps, &a[0], 4*rs, 4*ks, &b[0], &b[scales], 4*bs, &c[0], 4*ldc, n, flag(acc))
	case level >= avx2:
		for j := 0; j < n; j += 16 {
			w := min(n-j, 16)
			tilesQ8AVX2[(w-1)/8][m](steps, &a[0], 4*rs, 4*ks, &b[j], &b[scales+j/2], 4*bs, &c[j], 4*ldc, w, flag(acc))
		}
	default:
		tileQ8Generic(m, n, steps, a, rs, ks, b, bs, c, ldc, acc)
	}
}

func quantize(dst, x []float32) {
	switch {
	case level >= avx512:
		quantizeAVX512(&dst[0], &x[0], len(x))
	case level >= avx2:
		quantizeAVX2(&dst[0], &x[0], len(x))
	default:
		quantizeGeneric(dst, x)
	}
}
