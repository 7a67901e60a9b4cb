package kernel

// Packed is a weight matrix laid out for [GemmPacked]: panels of 32 rows, transposed, [N/32][K][32], the last panel
// filled up with zeros. The zero value is empty and ready for [Pack] and [PackBF16]. It may be read by many goroutines
// at a time.
type Packed struct {
	*format
	n, k int
	data []float32
}

// N is the number of rows of the packed matrix, which is the number of columns of the product.
func (p *Packed) N() int { return p.n }

// K is the number of columns of the packed matrix.
func (p *Packed) K() int { return p.k }

// Pack fills p with b, stored N×K in rows of ldb (a weight matrix in y = x·Wᵀ). It reuses p's memory if that suffices.
func Pack(p *Packed, b []float32, N, K, ldb int) { p.pack(&float32s, b, N, K, ldb) }

func (p *Packed) pack(f *format, b []float32, N, K, ldb int) {
	if N > 0 && K > 0 {
		fits("B", b, N, K, ldb)
	}
	panels := (N + panel - 1) / panel
	size := f.steps(K) * panel
	p.format, p.n, p.k = f, N, K
	p.data = grow(p.data, panels*size)
	if K == 0 {
		return
	}
	one := func(q int) {
		n0 := q * panel
		f.packTransposed(p.data[q*size:][:size], b[n0*ldb:], ldb, min(panel, N-n0), K)
	}
	inParallel(panels, N*K, one)
}

// packTransposedGeneric is dst[k*32+i] = src[i*ld+k] for i < n, 0 for n ≤ i < 32.
func packTransposedGeneric(dst, src []float32, ld, n, kc int) {
	for k := range kc {
		d := dst[k*panel : (k+1)*panel]
		for i := range n {
			d[i] = src[i*ld+k]
		}
		clear(d[n:])
	}
}

// packRowsGeneric is dst[k*32+j] = src[k*ld+j] for j < n, 0 for n ≤ j < 32.
func packRowsGeneric(dst, src []float32, ld, n, kc int) {
	for k := range kc {
		d := dst[k*panel : (k+1)*panel]
		clear(d[copy(d, src[k*ld:k*ld+n]):])
	}
}
