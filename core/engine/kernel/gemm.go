package kernel

import (
	"fmt"
	"runtime"
)

// Gemm is C = op(A)·op(B), or C += op(A)·op(B) if acc:
//
//	for i := range M {
//		for j := range N {
//			s := 0, or c[i*ldc+j] if acc
//			for k := range K {
//				s = fma(A(i,k), B(k,j), s)
//			}
//			c[i*ldc+j] = s
//		}
//	}
//
// op(A) is M×K and op(B) is K×N. A is stored M×K, or K×M if tA; B is stored K×N, or N×K if tB (a weight matrix in
// y = x·Wᵀ). lda, ldb and ldc are the lengths of the stored rows. C must not overlap A or B. With K = 0, C becomes 0,
// or stays if acc.
//
// The order of the sum is the one above whatever the shape, the blocking and the threads: row i is the same bytes in
// any batch, and the same from [Gemm], [GemmSerial] and [GemmPacked]. (The generic level rounds each product.)
func Gemm(tA, tB bool, M, N, K int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	if g := newGemm(&float32s, tA, M, N, K, a, lda, c, ldc, acc); g != nil {
		g.setB(tB, b, ldb)
		g.do(true)
	}
}

// GemmSerial is [Gemm] in the calling goroutine alone: the same bytes, for use inside a task of [Parallel].
func GemmSerial(tA, tB bool, M, N, K int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	if g := newGemm(&float32s, tA, M, N, K, a, lda, c, ldc, acc); g != nil {
		g.setB(tB, b, ldb)
		g.do(false)
	}
}

// GemmPacked is [Gemm] with a B packed before: C (=|+=) A·Bᵀ, where A is M×K and B is N×K. If [PackBF16] packed B, it
// is [GemmBF16]; if [PackQ8] did, see there.
func GemmPacked(M int, a []float32, lda int, b *Packed, c []float32, ldc int, acc bool) {
	if g := newGemm(b.format, false, M, b.n, b.k, a, lda, c, ldc, acc); g != nil {
		g.parts[0].packed = b.data
		g.do(true)
	}
}

// Product is a packed matrix, and where its product goes: M×N, in rows of N.
type Product struct {
	B *Packed
	C []float32
}

// GemmPackedAll is [GemmPacked] of the same A with each of some matrices, up to 4 and of equal K and kind, with the rows of
// C as long as they need to be: the same bytes, in one piece of work, so that threads meet once and A is rounded once.
func GemmPackedAll(M int, a []float32, lda int, products ...Product) {
	g := newGemm(products[0].B.format, false, M, products[0].B.n, products[0].B.k, a, lda, products[0].C, products[0].B.n, false)
	if g == nil {
		for _, p := range products[1:] {
			GemmPacked(M, a, lda, p.B, p.C, p.B.n, false)
		}
		return
	}
	for i, p := range products {
		if p.B.format != g.format || p.B.k != g.K {
			panic("kernel: matrices of unequal K or kind in one product")
		}
		if i > 0 {
			g.also(p.B.n, p.C, p.B.n)
		}
		g.parts[i].packed = p.B.data
	}
	g.do(true)
}

const (
	panel      = 32      // columns of a tile and of a packed panel, at every level
	blockK     = 512     // steps along k in one go: a panel of them is 64 KiB, and streams from the L2 cache
	blockRows  = 112     // rows of A in one go: 112·512 floats stay in the L2 cache while panels pass by
	mostShared = 1 << 24 // elements of a B that is packed as a whole, 64 MiB
	smallWork  = 1 << 18 // multiplications that make threads worth their start

	tasksPerThread = 4
)

// format is how the numbers of a product are held for the tiles, which go along k in steps of one number or more.
type format struct {
	group        int  // numbers along k in a step
	stepA, stepB int  // elements, the room of a float32, that a step takes in a row of A and in a panel of B
	inPlace      bool // numbers are held as the caller does: they need no copy
	tileRows     func() int
	tile         func(m, n, steps int, a []float32, rs, ks int, b []float32, bs int, c []float32, ldc int, acc bool)
	// What copies B to panels, for B stored N×K and K×N, and what copies A, stored M×K and K×M, to rows of ds elements.
	packTransposed, packRows func(dst, src []float32, ld, n, kc int)
	copyRows, copyColumns    func(dst []float32, ds int, src []float32, ld, rows, kc int)
}

var float32s = format{group: 1, stepA: 1, stepB: panel, inPlace: true, tileRows: tileRows, tile: tile,
	packTransposed: packTransposed, packRows: packRows, copyRows: copyRows, copyColumns: copyColumns}

// steps is the number of steps that k numbers take.
func (f *format) steps(k int) int { return (k + f.group - 1) / f.group }

func copyRows(dst []float32, ds int, src []float32, ld, rows, kc int) {
	for i := range rows {
		copy(dst[i*ds:i*ds+kc], src[i*ld:])
	}
}

func copyColumns(dst []float32, ds int, src []float32, ld, rows, kc int) {
	copyRows(dst, ds, src, ld, kc, rows)
}

// gemm is one product on its way. C is cut into a grid of tasks, rows × columns; K is never cut among tasks.
type gemm struct {
	*format
	M, N, K int
	a       []float32
	rs, ks  int // A(i,k) = a[i*rs+k*ks]
	b       []float32
	ldb     int
	tB      bool
	parts   [4]part // side by side; several if all are packed
	count   int
	acc     bool

	packing           []float32 // where to, while tasks pack all of B
	copied            []float32 // all of A as the format has it, in rows of copiedRow; nil: it is copied on the way
	across, copiedRow int

	rowPanels, rowsPerTask, colPanels, colsPerTask int // the grid, in panels
}

// part is columns of C that are one matrix, in whole panels.
type part struct {
	packed []float32 // its B in panels; nil: b is packed on the way
	c      []float32
	n, ldc int
	end    int // the panel after its last one
}

var gemms Shelf[gemm]

// newGemm checks A and C. It returns nil if there is nothing left to do.
func newGemm(f *format, tA bool, M, N, K int, a []float32, lda int, c []float32, ldc int, acc bool) *gemm {
	if M <= 0 || N <= 0 {
		return nil
	}
	if K <= 0 {
		fits("C", c, M, N, ldc)
		for i := 0; i < M && !acc; i++ {
			clear(c[i*ldc : i*ldc+N])
		}
		return nil
	}
	g := gemms.Take()
	*g = gemm{format: f, M: M, K: K, a: a, rs: lda, ks: 1, acc: acc}
	g.also(N, c, ldc)
	if tA {
		fits("A", a, K, M, lda)
		g.rs, g.ks = 1, lda
	} else {
		fits("A", a, M, K, lda)
	}
	return g
}

// also adds columns of C.
func (g *gemm) also(N int, c []float32, ldc int) {
	if N > 0 {
		fits("C", c, g.M, N, ldc)
	}
	g.N += N
	g.colPanels += (N + panel - 1) / panel
	g.parts[g.count] = part{c: c, n: N, ldc: ldc, end: g.colPanels}
	g.count++
}

func (g *gemm) setB(tB bool, b []float32, ldb int) {
	if tB {
		fits("B", b, g.N, g.K, ldb)
	} else {
		fits("B", b, g.K, g.N, ldb)
	}
	g.b, g.ldb, g.tB = b, ldb, tB
}

// fits panics if x does not hold rows×cols elements in rows of length ld.
func fits(name string, x []float32, rows, cols, ld int) {
	if ld < cols || len(x) < (rows-1)*ld+cols {
		panic(fmt.Sprintf("kernel: %s is %d×%d in rows of %d, and the slice has %d elements", name, rows, cols, ld, len(x)))
	}
}

// do cuts C into tasks, about four for each thread, and runs them. Where rows are many, so that several tasks need the
// same columns of B, these are packed beforehand; else a task packs its own. A task copies its rows of A where the format
// asks for that: what would double the smaller amount of work is cut first. Where B is packed, a few rows are copied
// beforehand, once for all tasks. Inside of a task of [Parallel] there are no threads to be had.
func (g *gemm) do(concurrent bool) {
	threads := runtime.GOMAXPROCS(0)
	concurrent = concurrent && threads > 1 && g.M*g.N*g.K >= smallWork && !crew.busy.Load()
	shared := g.plan()
	if shared != nil {
		g.packAll(shared.part(0, g.packedSize()), concurrent)
	}
	var copied *scratch
	if concurrent {
		once := g.parts[0].packed != nil && !g.inPlace && g.ks == 1 && g.M <= blockRows
		g.split(tasksPerThread*threads, once)
		if once && g.across > 1 {
			copied = borrow()
			g.copyAll(copied)
		}
		parallel(g.tasks(), g)
	} else {
		for t := range g.tasks() {
			g.run(t)
		}
	}
	for _, s := range [...]*scratch{shared, copied} {
		if s != nil {
			s.giveBack()
		}
	}
	g.giveBack()
}

func (g *gemm) giveBack() {
	*g = gemm{} // holds no caller's memory
	gemms.Give(g)
}

// plan makes the grid of tasks as large as they can be. It returns memory if B is to be packed beforehand.
func (g *gemm) plan() *scratch {
	g.rowPanels = (g.M + g.tileRows() - 1) / g.tileRows()
	g.rowsPerTask = min(g.rowPanels, blockRows/g.tileRows())
	g.colsPerTask = g.colPanels
	if g.parts[0].packed == nil && g.rowPanels > g.rowsPerTask && g.packedSize() <= mostShared {
		return borrow()
	}
	return nil
}

// packedSize is how many elements all of B takes.
func (g *gemm) packedSize() int { return g.colPanels * g.steps(g.K) * g.stepB }

// split cuts tasks until there are as many as wanted. once says that A is copied once for all tasks.
func (g *gemm) split(wanted int, once bool) {
	packed := g.parts[0].packed != nil
	for g.tasks() < wanted && (g.colsPerTask > 1 || g.rowsPerTask > 2) {
		copies, repacked := 0, 0
		if !g.inPlace && !once {
			copies = g.across * g.M
		}
		if !packed {
			repacked = g.tasks() / g.across * g.N
		}
		if g.rowsPerTask <= 2 || g.colsPerTask > 1 && copies <= repacked {
			g.colsPerTask = (g.colsPerTask + 1) / 2
		} else {
			g.rowsPerTask = (g.rowsPerTask + 1) / 2
		}
	}
}

// packAll packs all of B, one matrix, to.
func (g *gemm) packAll(to []float32, concurrent bool) {
	g.packing = to
	if concurrent {
		parallel(g.colPanels, g)
	} else {
		for q := range g.colPanels {
			g.run(q)
		}
	}
	g.packing, g.parts[0].packed = nil, to
}

// packPanel packs the columns from n0 on, kc numbers of each from k0 on.
func (g *gemm) packPanel(to []float32, n0, k0, kc int) {
	n := min(panel, g.N-n0)
	if g.tB {
		g.packTransposed(to, g.b[n0*g.ldb+k0:], g.ldb, n, kc)
	} else {
		g.packRows(to, g.b[k0*g.ldb+n0:], g.ldb, n, kc)
	}
}

// copyAll copies A, stored M×K.
func (g *gemm) copyAll(s *scratch) {
	g.copiedRow = g.copiedLength(g.steps(g.K))
	copied := s.part(1, g.M*g.copiedRow)
	g.copied = copied
	if g.M*g.K < 2*grain {
		g.copyRows(copied, g.copiedRow, g.a, g.rs, g.M, g.K)
	} else {
		parallel((g.M+rowsCopied-1)/rowsCopied, (*copies)(g))
	}
}

// copies is copyAll as tasks of some rows.
type copies gemm

const rowsCopied = 4

func (g *copies) run(t int) {
	i, n := t*rowsCopied, min(rowsCopied, g.M-t*rowsCopied)
	g.copyRows(g.copied[i*g.copiedRow:], g.copiedRow, g.a[i*g.rs:], g.rs, n, g.K)
}

func (g *gemm) tasks() int {
	g.across = (g.colPanels + g.colsPerTask - 1) / g.colsPerTask
	return g.across * ((g.rowPanels + g.rowsPerTask - 1) / g.rowsPerTask)
}

// row is where row panel p begins: panels have as equal heights as can be, so that none is slow.
func (g *gemm) row(p int) int { return p * g.M / g.rowPanels }

// run is one task: to pack a panel of columns, or to compute a part of C.
func (g *gemm) run(t int) {
	if g.packing != nil {
		size := g.steps(g.K) * g.stepB
		g.packPanel(g.packing[t*size:][:size], t*panel, 0, g.K)
		return
	}
	g.compute(t)
}

// compute computes a task's part of C: for a block of k, for a panel of columns, for a panel of rows. Partial sums rest in C. If B is
// packed and A small, blocks of k are the inner loop: B, which may come from memory, is then read from end to end.
func (g *gemm) compute(t int) {
	p0 := t / g.across * g.rowsPerTask
	p1 := min(p0+g.rowsPerTask, g.rowPanels)
	q0 := t % g.across * g.colsPerTask
	q1 := min(q0+g.colsPerTask, g.colPanels)
	r0, r1 := g.row(p0), g.row(p1)
	packed := g.parts[0].packed != nil
	inPlace := g.inPlace && !packed && !g.tB && p1-p0 <= 2 // too few rows to pay for a copy
	copyA := g.copied == nil && (!g.inPlace || q1-q0 >= 4 && (g.rs%256 == 0 || g.ks%256 == 0))
	var s *scratch
	if copyA || !packed && !inPlace {
		s = borrow()
		defer s.giveBack()
	}
	all, most, blocks := g.steps(g.K), blockK*panel/g.stepB, 1
	if all > most*5/4 {
		blocks = (all + most - 1) / most
	}
	columns := q1 - q0 // whose blocks of the same k follow one another
	if stays := (r1-r0)*all*g.stepA <= blockRows*blockK/2; packed && stays {
		columns = 1
	}
	b := block{p0: p0, p1: p1, r0: r0, all: all, inPlace: inPlace, memory: s}
	if g.copied != nil {
		b.whole, b.rs, b.ks = g.copied[r0*g.copiedRow:], g.copiedRow, g.stepA
	} else if copyA && columns == 1 {
		b.whole, b.rs, b.ks = g.copyA(s, g.a[r0*g.rs:], r1-r0, g.K)
		copyA = false
	}
	for ; q0 < q1; q0 += columns {
		for z := range blocks {
			b.s0, b.s1 = z*all/blocks, (z+1)*all/blocks
			k0 := b.s0 * g.group
			switch {
			case copyA:
				b.a, b.rs, b.ks = g.copyA(s, g.a[r0*g.rs+k0*g.ks:], r1-r0, b.numbers(g))
			case b.whole != nil:
				b.a = b.whole[b.s0*b.ks:]
			default:
				b.a, b.rs, b.ks = g.a[r0*g.rs+k0*g.ks:], g.rs, g.ks
			}
			for q := q0; q < q0+columns; q++ {
				g.cell(&b, q)
			}
		}
	}
}

// block is a block of k of a task's rows of A.
type block struct {
	p0, p1, r0  int // panels of rows; the first row
	s0, s1, all int // steps from, to; of K
	a, whole    []float32
	rs, ks      int // of a
	inPlace     bool
	memory      *scratch
}

// numbers is how many numbers along k the block has.
func (b *block) numbers(g *gemm) int { return min(b.s1*g.group, g.K) - b.s0*g.group }

// cell multiplies a block with a panel of B.
func (g *gemm) cell(z *block, q int) {
	i, first := 0, 0
	for q >= g.parts[i].end {
		first = g.parts[i].end
		i++
	}
	c := &g.parts[i]
	n0, k0, steps := (q-first)*panel, z.s0*g.group, z.s1-z.s0
	n := min(panel, c.n-n0)
	var b []float32
	bs := g.stepB
	switch {
	case c.packed != nil:
		b = c.packed[((q-first)*z.all+z.s0)*bs:]
	case z.inPlace:
		b, bs = g.b[k0*g.ldb+n0:], g.ldb
	default:
		b = z.memory.part(0, steps*bs)
		g.packPanel(b, n0, k0, z.numbers(g))
	}
	for p := z.p0; p < z.p1; p++ {
		i0, i1 := g.row(p), g.row(p+1)
		g.tile(i1-i0, n, steps, z.a[(i0-z.r0)*z.rs:], z.rs, z.ks, b, bs, c.c[i0*c.ldc+n0:], c.ldc, g.acc || z.s0 > 0)
	}
}

// copiedLength is the length of a row of so many steps of A that is copied: rows do not begin on the same lines of the
// cache, as rows of a power of two (in bytes) do.
func (g *gemm) copiedLength(steps int) int { return (steps*g.stepA+15)&^15 + 16 }

// copyA copies a block of A.
func (g *gemm) copyA(s *scratch, a []float32, rows, kc int) (to []float32, rs, ks int) {
	steps := g.steps(kc)
	if g.ks == 1 {
		rs, ks = g.copiedLength(steps), g.stepA
		to = s.part(1, rows*rs)
		g.copyRows(to, rs, a, g.rs, rows, kc)
		return to, rs, ks
	}
	ks = (rows+panel-1)&^(panel-1) + 16
	to = s.part(1, steps*ks)
	g.copyColumns(to, ks, a, g.ks, rows, kc)
	return to, 1, ks
}
