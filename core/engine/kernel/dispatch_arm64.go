//go:build !purego

package kernel

func detect() []instructions { return []instructions{generic, neon} }

type tileFunc = func(k int, a *float32, rs, ks int, b *float32, bs int, c *float32, ldc, n int, acc bool)

// The tiles by width, one column or up to two or four vectors, and by height.
var tilesNEON = [3][7]tileFunc{
	{nil, tile1x1NEON, tile2x1NEON, tile3x1NEON, tile4x1NEON, tile5x1NEON, tile6x1NEON},
	{nil, tile1x8NEON, tile2x8NEON, tile3x8NEON, tile4x8NEON, tile5x8NEON, tile6x8NEON},
	{nil, tile1x16NEON, tile2x16NEON, tile3x16NEON, tile4x16NEON, tile5x16NEON, tile6x16NEON},
}

// tileRows is the height of the highest tile.
func tileRows() int {
	if level == neon {
		return len(tilesNEON[0]) - 1
	}
	return 8
}

func tile(m, n, k int, a []float32, rs, ks int, b []float32, bs int, c []float32, ldc int, acc bool) {
	if level != neon {
		tileGeneric(m, n, k, a, rs, ks, b, bs, c, ldc, acc)
		return
	}
	for j, w := 0, 0; j < n; j += w {
		width := 2
		switch rest := n - j; {
		case rest < 4:
			w, width = 1, 0
		case rest <= 8:
			w, width = rest, 1
		case 16 < rest && rest < 20:
			w = 12 // what is left then fills a vector
		default:
			w = min(rest, 16)
		}
		tilesNEON[width][m](k, &a[0], 4*rs, 4*ks, &b[j], 4*bs, &c[j], 4*ldc, w, acc)
	}
}

func tileHeads(heads, n, k int, a []float32, ah int, b []float32, bh, bs int, c []float32, ch int, acc bool) {
	tileHeadsGeneric(heads, n, k, a, ah, b, bh, bs, c, ch, acc)
}

func packTransposed(dst, src []float32, ld, n, kc int) {
	if level == neon {
		packTransposedNEON(&dst[0], &src[0], 4*ld, n, kc)
		return
	}
	packTransposedGeneric(dst, src, ld, n, kc)
}

func expShift(dst, x []float32, sub, scale float32) float32 {
	if level == neon {
		return expShiftNEON(&dst[0], &x[0], len(x), sub, scale)
	}
	return expShiftGeneric(dst, x, sub, scale)
}

func sumExp(x []float32, sub float32) float32 {
	if level == neon {
		return sumExpNEON(&x[0], len(x), sub)
	}
	return sumExpGeneric(x, sub)
}

func maximum(x []float32) float32 {
	if level == neon {
		return maximumNEON(&x[0], len(x))
	}
	return maximumGeneric(x)
}

func dot(x, y []float32) float32 {
	if level == neon {
		return dotNEON(&x[0], &y[0], len(x))
	}
	return dotGeneric(x, y)
}

func axpy(a float32, x, y []float32) {
	if level == neon {
		axpyNEON(a, &x[0], &y[0], len(x))
		return
	}
	axpyGeneric(a, x, y)
}

func scale(x []float32, a float32) {
	if level == neon {
		scaleNEON(&x[0], len(x), a)
		return
	}
	scaleGeneric(x, a)
}

func add(dst, x, y []float32) {
	if level == neon {
		addNEON(&dst[0], &x[0], &y[0], len(x))
		return
	}
	addGeneric(dst, x, y)
}

func sumSquares(x []float32) float64 {
	if level == neon {
		return sumSquaresNEON(&x[0], len(x))
	}
	return sumSquaresGeneric(x)
}

func swiGLU(y, gate, up []float32) {
	if level == neon {
		swiGLUNEON(&y[0], &gate[0], &up[0], len(y))
		return
	}
	swiGLUGeneric(y, gate, up)
}

func swiGLUBackward(dgate, dup, dy, gate, up []float32) {
	if level == neon {
		swiGLUBackwardNEON(&dgate[0], &dup[0], &dy[0], &gate[0], &up[0], len(dy))
		return
	}
	swiGLUBackwardGeneric(dgate, dup, dy, gate, up)
}

func geGLU(y, gate, up []float32) {
	if level == neon {
		geGLUNEON(&y[0], &gate[0], &up[0], len(y))
		return
	}
	geGLUGeneric(y, gate, up)
}

func geGLUBackward(dgate, dup, dy, gate, up []float32) {
	if level == neon {
		geGLUBackwardNEON(&dgate[0], &dup[0], &dy[0], &gate[0], &up[0], len(dy))
		return
	}
	geGLUBackwardGeneric(dgate, dup, dy, gate, up)
}

// peak does n rounds and returns the operations of one: 48 vectors, multiplied and added.
func peak(_ Precision, n int) int {
	if level == neon {
		peakNEON(n)
		return 48 * 4 * 2
	}
	return peakGeneric(n)
}
