//go:build !purego

package kernel

var tilesVNNI = [2][7]tileFunc{
	{nil, tile1x16VNNI, tile2x16VNNI, tile3x16VNNI, tile4x16VNNI, tile5x16VNNI, tile6x16VNNI},
	{nil, tile1x32VNNI, tile2x32VNNI, tile3x32VNNI, tile4x32VNNI, tile5x32VNNI, tile6x32VNNI},
}

func tileRowsQ8() int { return len(tilesVNNI[0]) - 1 }

func tileQ8(m, n, steps int, a []float32, rs, ks int, b []float32, bs int, c []float32, ldc int, acc bool) {
	if level >= vnni {
		tilesVNNI[(n-1)/16][m](steps, &a[0], 4*rs, 4*ks, &b[0], 4*bs, &c[0], 4*ldc, n, flag(acc))
		return
	}
	tileQ8Generic(m, n, steps, a, rs, ks, b, bs, c, ldc, acc)
}

func quantize(dst, x []float32) {
	if level >= vnni {
		quantizeVNNI(&dst[0], &x[0], len(x))
		return
	}
	quantizeGeneric(dst, x)
}
