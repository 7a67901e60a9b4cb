package kernel

import "runtime"

// AttentionScratch is the length of probs in [Attention] for the sequences cu and H query heads: two floats (the
// row's largest score and one over its sum) for each row and head. The backward pass computes the rest again, which
// costs less than to write and read it.
func AttentionScratch(cu []int, H int) int { return 2 * cu[len(cu)-1] * H }

// Attention is causal attention with grouped key-value heads over packed sequences:
//
//	s_ij = q_i·k_j,  p_ij = softmax_{j≤i}(scale·s_ij),  out_i = Σ_{j≤i} p_ij·v_j
//
// for each query head h, with the key-value head h/(H/G). cu holds the S+1 offsets of the sequences' rows, from 0 to
// N; a sequence may be empty. q and out are N×(H·D), k and v are N×(G·D); H is a multiple of G and scale > 0. probs
// (length [AttentionScratch]) keeps what [AttentionBackward] needs.
//
// Row i depends on the rows up to i of its own sequence and on nothing else, to the bit. (Later rows are multiplied
// by probability zero, so a NaN or an infinity in them does spread.)
func Attention(out, probs, q, k, v []float32, cu []int, H, G, D int, scale float32) {
	S := len(cu) - 1
	if S < 1 || H == 0 || D == 0 {
		return
	}
	perTask := H / G // the heads that share keys, so that these are packed once
	if S*G < 4*runtime.GOMAXPROCS(0) {
		perTask = 1
	}
	tasks := H / perTask
	inParallel(S*tasks, attentionWork(cu, H, D), func(t int) {
		s, h := t/tasks, t%tasks*perTask
		a := newSequence(cu, s, H, G, D, scale)
		if a.T > 0 {
			a.forward(out, probs, q, k, v, h, h+perTask)
		}
		a.memory.giveBack()
	})
}

// attentionWork is the number of multiplications in units of what an element of the other kernels costs.
func attentionWork(cu []int, H, D int) (work int) {
	for s := range len(cu) - 1 {
		T := cu[s+1] - cu[s]
		work += T * T / 16
	}
	return work * H * D
}

// sequence is one sequence's attention: its rows are from … from+T−1 of the N rows.
type sequence struct {
	from, T, N int
	H, G, D    int
	scale      float32
	memory     *scratch
}

func newSequence(cu []int, s, H, G, D int, scale float32) sequence {
	return sequence{from: cu[s], T: cu[s+1] - cu[s], N: cu[len(cu)-1], H: H, G: G, D: D, scale: scale, memory: borrow()}
}

// head returns head h of x, which has n heads a row, from the sequence's first row on.
func (a *sequence) head(x []float32, n, h int) []float32 { return x[(a.from*n+h)*a.D:] }

// stats returns the sequence's part of probs for head h, two floats a row.
func (a *sequence) stats(probs []float32, h int) []float32 {
	return probs[2*(h*a.N+a.from):][:2*a.T]
}

// width is the length of a row of scores: whole panels, and never a power of two of bytes.
func (a *sequence) width() int { return (a.T+panel-1)/panel*panel + 16 }

// transpose packs a head of keys or values, T×D in rows of ld, for a product with its transpose.
func (a *sequence) transpose(index int, x []float32, ld int) []float32 {
	to := a.memory.part(index, (a.T+panel-1)/panel*panel*a.D)
	for j := 0; j < a.T; j += panel {
		packTransposed(to[j*a.D:(j+panel)*a.D], x[j*ld:], ld, min(panel, a.T-j), a.D)
	}
	return to
}

// timesPacked is c = x·Bᵀ for m rows of x and the first n rows of a B packed by transpose.
func (a *sequence) timesPacked(m, n int, x []float32, ldx int, b, c []float32, ldc int) {
	for j := 0; j < n; j += panel {
		tile(m, min(panel, n-j), a.D, x, ldx, 1, b[j*a.D:], panel, c[j:], ldc, false)
	}
}

// times is c (=|+=) A·b for m rows of A with K columns, and a b of K rows and D columns, read in place.
func (a *sequence) times(m, K int, x []float32, rs, ks int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	for j := 0; j < a.D; j += panel {
		tile(m, min(panel, a.D-j), K, x, rs, ks, b[j:], ldb, c[j:], ldc, acc)
	}
}

// forward computes the heads h0 … h1−1, which share keys and values.
func (a *sequence) forward(out, probs, q, k, v []float32, h0, h1 int) {
	g, ldq, ldk := h0/(a.H/a.G), a.H*a.D, a.G*a.D
	keys, values := a.transpose(0, a.head(k, a.G, g), ldk), a.head(v, a.G, g)
	ld := a.width()
	p := a.memory.part(1, tileRows()*ld)
	panels := (a.T + tileRows() - 1) / tileRows()
	for h := h0; h < h1; h++ {
		stats, qh, oh := a.stats(probs, h), a.head(q, a.H, h), a.head(out, a.H, h)
		for z := range panels {
			r0, r1 := z*a.T/panels, (z+1)*a.T/panels
			a.timesPacked(r1-r0, r1, qh[r0*ldq:], ldq, keys, p, ld)
			softmaxRows(p, ld, r1-r0, r0+1, 1, r1, a.scale, stats[2*r0:])
			a.times(r1-r0, r1, p, ld, 1, values, ldk, oh[r0*ldq:], ldq, false)
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
