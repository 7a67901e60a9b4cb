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
