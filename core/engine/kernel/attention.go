package kernel

import "runtime"

// Span is consecutive rows of which each sees those before it in the span, and itself. Where Behind is above 0, they see
// what the last row of the span so many before it sees, too: they continue that span, as the completions of a prompt do, and
// what is only in some of these behind what is in all. A span and all that continue it stand one after another.
type Span struct{ From, To, Behind int }

// MostBehind is how many spans a span may have before it, each of which continues the one before.
const MostBehind = 8

// AttentionScratch is the length of probs in [Attention] for so many rows and H query heads: two floats (the row's
// largest score and one over its sum) for each row and head. The backward pass computes the rest again, which costs
// less than to write and read it.
func AttentionScratch(rows, H int) int { return 2 * rows * H }

// Attention is causal attention with grouped key-value heads over packed sequences:
//
//	s_ij = q_i·k_j,  p_ij = softmax_{j seen by i}(scale·s_ij),  out_i = Σ_j p_ij·v_j
//
// for each query head h, with the key-value head h/(H/G). The spans cover the rows 0 to N in their order; one may be
// empty. q and out are N×(H·D), k and v are N×(G·D); H is a multiple of G and scale > 0. probs (length
// [AttentionScratch]) keeps what [AttentionBackward] needs.
//
// With a window above 0, a row sees the last so many rows of those that it would see else, itself included. The others
// take no time, and a window that reaches over all of them changes no byte.
//
// A row depends on the rows that it sees and on nothing else, to the bit: a completion's rows are the same after a
// prompt that is shared and in a span that holds prompt and completion. (Later rows are multiplied by probability zero,
// so a NaN or an infinity in them does spread.)
func Attention(out, probs, q, k, v []float32, spans []Span, H, G, D int, scale float32, window int) {
	S := len(spans)
	if S < 1 || H == 0 || D == 0 {
		return
	}
	perTask := headsPerTask(S, H, G)
	tasks := H / perTask
	inParallel(S*tasks, attentionWork(spans, H, D, window), func(t int) {
		h := t % tasks * perTask
		a := newSequence(spans, t/tasks, H, G, D, scale, window)
		if a.T > 0 {
			a.forward(out, probs, q, k, v, h, h+perTask)
		}
		a.memory.giveBack()
	})
}

// headsPerTask is how many heads a task does: those that share keys, so that these are packed once, or one where there
// would be too few tasks.
func headsPerTask(S, H, G int) int {
	if S*G < 4*runtime.GOMAXPROCS(0) {
		return 1
	}
	return H / G
}

// attentionWork is the number of multiplications in units of what an element of the other kernels costs.
func attentionWork(spans []Span, H, D, window int) (work int) {
	for s := range spans {
		_, _, before := lineage(spans, s)
		T := spans[s].To - spans[s].From
		sees := T + 2*before // twice as many as a row does on average
		if window > 0 {
			sees = min(sees, 2*window)
		}
		work += T * sees / 16
	}
	return work * H * D
}

// piece is n rows from … on.
type piece struct{ from, n int }

// lineage returns what span s continues: pieces from eldest on, the first rows first, and how many rows they have.
func lineage(spans []Span, s int) (pieces [MostBehind]piece, eldest, rows int) {
	eldest = MostBehind
	for spans[s].Behind > 0 {
		s -= spans[s].Behind
		eldest--
		n := spans[s].To - spans[s].From
		pieces[eldest] = piece{spans[s].From, n}
		rows += n
	}
	return pieces, eldest, rows
}

// sequence is the attention of one span's rows, from … from+T−1 of the N rows, which come after the P rows of the pieces
// from eldest on. All together are numbered from 0 as keys: row i is key P+i. It sees the last W keys up to itself, or as
// many as there are.
type sequence struct {
	pieces     [MostBehind]piece
	eldest, P  int
	from, T, N int
	W          int
	H, G, D    int
	scale      float32
	memory     *scratch
}

func newSequence(spans []Span, s, H, G, D int, scale float32, window int) sequence {
	a := sequence{from: spans[s].From, T: spans[s].To - spans[s].From, N: spans[len(spans)-1].To,
		H: H, G: G, D: D, scale: scale, memory: borrow()}
	a.pieces, a.eldest, a.P = lineage(spans, s)
	a.W = a.P + a.T
	if 0 < window && window < a.W {
		a.W = window
		unseen := max(0, a.P-(window-1)) // by the first row, and so by all
		a.P -= unseen
		for i := a.eldest; unseen > 0; i++ {
			p := &a.pieces[i]
			cut := min(unseen, p.n)
			p.from, p.n, unseen = p.from+cut, p.n-cut, unseen-cut
		}
	}
	return a
}

// head returns head h of x, which has n heads a row, from the span's first row on.
func (a *sequence) head(x []float32, n, h int) []float32 { return x[(a.from*n+h)*a.D:] }

// stats returns the span's part of probs for head h, two floats a row.
func (a *sequence) stats(probs []float32, h int) []float32 {
	return probs[2*(h*a.N+a.from):][:2*a.T]
}

// first returns the first key that row i sees.
func (a *sequence) first(i int) int { return max(0, a.P+i+1-a.W) }

// firstPanel returns where the panel of that key begins: column 0 of the scores of rows from i on.
func (a *sequence) firstPanel(i int) int { return a.first(i) / panel * panel }

// width is the length of a row of scores of so many rows: whole panels, and never a power of two of bytes.
func (a *sequence) width(rows int) int {
	return (min(a.P+a.T, a.W+rows+panel)+panel-1)/panel*panel + 16
}

// whole returns key-value head g of x in consecutive rows, those of the pieces first, and the distance of the rows: in place
// where there are no pieces, in the memory's part index else.
func (a *sequence) whole(index int, x []float32, g int) (rows []float32, ld int) {
	ld = a.G * a.D
	if a.P == 0 {
		return a.head(x, a.G, g), ld
	}
	rows = a.memory.part(index, (a.P+a.T)*a.D)
	to := rows
	gather := func(p piece) {
		from := x[(p.from*a.G+g)*a.D:]
		for j := range p.n {
			copy(to[j*a.D:(j+1)*a.D], from[j*ld:])
		}
		to = to[p.n*a.D:]
	}
	for _, p := range a.pieces[a.eldest:] {
		gather(p)
	}
	gather(piece{a.from, a.T})
	return rows, a.D
}

// transpose packs the rows of a head of keys or values, in rows of ld, for a product with its transpose.
func (a *sequence) transpose(index int, x []float32, ld int) []float32 {
	n := a.P + a.T
	to := a.memory.part(index, (n+panel-1)/panel*panel*a.D)
	for j := 0; j < n; j += panel {
		packTransposed(to[j*a.D:(j+panel)*a.D], x[j*ld:], ld, min(panel, n-j), a.D)
	}
	return to
}

// timesPacked is c = x·Bᵀ for m rows of x and n rows of a B packed by transpose, from row j0 on, where a panel begins.
func (a *sequence) timesPacked(m, j0, n int, x []float32, ldx int, b, c []float32, ldc int) {
	for j := 0; j < n; j += panel {
		tile(m, min(panel, n-j), a.D, x, ldx, 1, b[(j0+j)*a.D:], panel, c[j:], ldc, false)
	}
}

// times is c (=|+=) A·b for m rows of A with K columns, and a b of K rows and D columns, read in place.
func (a *sequence) times(m, K int, x []float32, rs, ks int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	for j := 0; j < a.D; j += panel {
		tile(m, min(panel, a.D-j), K, x, rs, ks, b[j:], ldb, c[j:], ldc, acc)
	}
}

// rows calls f for the rows r0 … r1−1 in two parts. The first rows see all keys up to themselves: row r0 sees n, and each
// one more than the row before (step 1). The others see W keys each (step 0), from one key further on in each row.
//
// at is where the scores begin that the part's first row sees, if those of row r0 stand at 0 and column 0 is key zero;
// those of the next row begin ld later.
//
// Which keys a row sees depends on nothing but its number, and so does where its sums begin: its bytes are the same in
// any block of rows.
func (a *sequence) rows(r0, r1, ld, zero int, f func(r0, rows, at, ld, n, step int)) {
	growing := max(r0, min(r1, a.W-a.P)) // from this row on they see W keys
	if growing > r0 {
		f(r0, growing-r0, 0, ld, a.P+r0+1, 1)
	}
	if growing < r1 {
		f(growing, r1-growing, (growing-r0)*ld+a.first(growing)-zero, ld+1, a.W, 0)
	}
}

// hide zeroes the scores of the rows r0 … r1−1, at p, for keys that stand before the first that a row sees: as far as
// the panel of the first row's reaches, or a tile of keys.
func (a *sequence) hide(p []float32, ld, r0, r1, zero int) {
	for i := r0; i < r1; i++ {
		n := a.first(i) - zero
		clear(p[(i-r0)*ld+max(0, n-panel-tileRows()) : (i-r0)*ld+n])
	}
}

// forward computes the heads h0 … h1−1, which share keys and values.
func (a *sequence) forward(out, probs, q, k, v []float32, h0, h1 int) {
	g, ldq := h0/(a.H/a.G), a.H*a.D
	kg, ldk := a.whole(2, k, g)
	keys := a.transpose(0, kg, ldk)
	values, ldv := a.whole(2, v, g)
	ld := a.width(tileRows())
	p := a.memory.part(1, tileRows()*ld)
	panels := (a.T + tileRows() - 1) / tileRows()
	for h := h0; h < h1; h++ {
		stats, qh, oh := a.stats(probs, h), a.head(q, a.H, h), a.head(out, a.H, h)
		for z := range panels {
			r0, r1 := z*a.T/panels, (z+1)*a.T/panels
			zero := a.firstPanel(r0)
			n := a.P + r1 - zero // columns: the last is what the last of these rows sees
			a.timesPacked(r1-r0, zero, n, qh[r0*ldq:], ldq, keys, p, ld)
			a.hide(p, ld, r0, r1, zero)
			a.rows(r0, r1, ld, zero, func(r, rows, at, ld, seen, step int) {
				softmaxRows(p[at:], ld, rows, seen, step, seen+r1-r-1, a.scale, stats[2*r:])
			})
			a.times(r1-r0, n, p, ld, 1, values[zero*ldv:], ldv, oh[r0*ldq:], ldq, false)
			scaleRows(oh[r0*ldq:], ldq, r1-r0, a.D, stats[2*r0:])
		}
	}
}

// softmaxRowsGeneric turns rows of scores into e = exp(scale·(s − max s)) and leaves max s and 1/Σe in stats. Row i
// has n0+i·step entries; from there to width it becomes zero.
func softmaxRowsGeneric(p []float32, ld, rows, n0, step, width int, scale float32, stats []float32) {
	for i := range rows {
		n := n0 + i*step
		row := p[i*ld : i*ld+n]
		m := maximum(row)
		stats[2*i], stats[2*i+1] = m, 1/expShift(row, row, m, scale)
		clear(p[i*ld+n : i*ld+max(n, width)])
	}
}

// scaleRowsGeneric multiplies the first n entries of each row by the second of its stats.
func scaleRowsGeneric(x []float32, ld, rows, n int, stats []float32) {
	for i := range rows {
		scale(x[i*ld:i*ld+n], stats[2*i+1])
	}
}
