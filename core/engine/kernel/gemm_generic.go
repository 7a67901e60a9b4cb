package kernel

// tileGeneric is C (=|+=) A·B for a small m×n tile: A(i,p) = a[i*rs+p*ks], B(p,j) = b[p*bs+j].
// The conversion keeps the compiler from fusing multiplication and addition: all CPUs give the same bytes.
func tileGeneric(m, n, k int, a []float32, rs, ks int, b []float32, bs int, c []float32, ldc int, acc bool) {
	for i := range m {
		ci := c[i*ldc : i*ldc+n]
		if !acc {
			clear(ci)
		}
		for p := range k {
			x, bp := a[i*rs+p*ks], b[p*bs:p*bs+n]
			for j, y := range bp {
				ci[j] += float32(x * y)
			}
		}
	}
}

// mostHeads is how many heads tileHeads takes at most.
const mostHeads = 8

// tileHeadsGeneric is, for each of some heads, the row c[h] (=|+=) a[h]·B[h] with the sums of a tile: a row of k numbers, k
// rows of n, and the result's row. ah, bh and ch are the distances of the heads, bs that of the rows of a B.
func tileHeadsGeneric(heads, n, k int, a []float32, ah int, b []float32, bh, bs int, c []float32, ch int, acc bool) {
	for h := range heads {
		tile(1, n, k, a[h*ah:], ah, 1, b[h*bh:], bs, c[h*ch:], ch, acc)
	}
}
