package kernel

import "math"

// Packed is a weight matrix laid out for [GemmPacked]: panels of 32 rows, transposed, [N/32][K][32], the last panel
// filled up with zeros. The zero value is empty and ready for [Pack], [PackBF16] and [PackQ8]. It may be read by many
// goroutines at a time.
type Packed struct {
	*format
	n, k int
	data []float32
}

// N is the number of rows of the packed matrix, which is the number of columns of the product.
func (p *Packed) N() int { return p.n }

// K is the number of columns of the packed matrix.
func (p *Packed) K() int { return p.k }

// Size is the memory of the packed matrix, in bytes.
func (p *Packed) Size() int { return 4 * len(p.data) }

// Row writes to dst, of length K, the numbers that the products take for row i: the row that was packed, rounded.
func (p *Packed) Row(i int, dst []float32) {
	dst = dst[:p.k]
	j, stepB := i%panel, p.stepB
	data := p.data[i/panel*p.steps(p.k)*stepB:]
	switch p.group {
	case 1:
		for k := range dst {
			dst[k] = data[k*stepB+j]
		}
	case 2:
		for k := range dst {
			dst[k] = math.Float32frombits(math.Float32bits(data[k/2*stepB+j]) >> (k % 2 * 16) << 16)
		}
	case blockQ8:
		for k := range dst {
			x, at := data[k/blockQ8*stepB:], k%blockQ8
			u := math.Float32bits(x[at/perSlot*panel+j]) ^ 0x80808080
			dst[k] = float32(int8(u>>(at%perSlot*8))) * scaleQ8(x, j)
		}
	}
}

// Rows is [Packed.Row] for the rows lo to hi, one after another in dst.
func (p *Packed) Rows(lo, hi int, dst []float32) {
	dst = dst[:(hi-lo)*p.k]
	inParallel(hi-lo, len(dst), func(i int) { p.Row(lo+i, dst[i*p.k:(i+1)*p.k]) })
}

// Part is the rows lo to hi of the matrix, which stay where they are. lo is a multiple of 32.
func (p *Packed) Part(lo, hi int) Packed {
	size := p.steps(p.k) * p.stepB
	return Packed{p.format, hi - lo, p.k, p.data[lo/panel*size : (hi+panel-1)/panel*size]}
}

// Pack fills p with b, stored N×K in rows of ldb (a weight matrix in y = x·Wᵀ). It reuses p's memory if that suffices.
func Pack(p *Packed, b []float32, N, K, ldb int) {
	packAll(&float32s, false, Packing{p, b, N, K, ldb})
}

// PackTransposed is [Pack] of the transpose of what is stored: b is K×N, so that [GemmPacked] is A·b (as in dx = dy·W).
func PackTransposed(p *Packed, b []float32, N, K, ldb int) {
	packAll(&float32s, true, Packing{p, b, N, K, ldb})
}

// Packing is a matrix N×K that is to be packed, as [Pack] and [PackTransposed] take it.
type Packing struct {
	To        *Packed
	B         []float32
	N, K, LDB int
}

// packings are matrices on their way, a panel a task.
type packings struct {
	list       [4]Packing
	ends       [4]int // the task after the last one of each
	count      int
	transposed bool
}

var packingShelf Shelf[packings]

// packAll packs some matrices, stored N×K, or K×N if transposed.
func packAll(f *format, transposed bool, of ...Packing) {
	s := packingShelf.Take()
	*s = packings{transposed: transposed}
	tasks, elements := 0, 0
	for _, x := range of {
		p, panels := x.To, (x.N+panel-1)/panel
		p.format, p.n, p.k = f, x.N, x.K
		p.data = grow(p.data, panels*f.steps(x.K)*f.stepB)
		if x.N == 0 || x.K == 0 {
			continue
		}
		if transposed {
			fits("B", x.B, x.K, x.N, x.LDB)
		} else {
			fits("B", x.B, x.N, x.K, x.LDB)
		}
		tasks, elements = tasks+panels, elements+x.N*x.K
		s.list[s.count], s.ends[s.count] = x, tasks
		s.count++
	}
	if elements < 2*grain {
		for t := range tasks {
			s.run(t)
		}
	} else {
		parallel(tasks, s)
	}
	*s = packings{} // holds no caller's memory
	packingShelf.Give(s)
}

func (s *packings) run(t int) {
	i, q := partOf(&s.ends, t)
	x := &s.list[i]
	p, n0 := x.To, q*panel
	one, across := p.packTransposed, x.LDB // from the first number of a panel to that of the next column
	if s.transposed {
		one, across = p.packRows, 1
	}
	size := p.steps(x.K) * p.stepB
	one(p.data[q*size:][:size], x.B[n0*across:], x.LDB, min(panel, x.N-n0), x.K)
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
