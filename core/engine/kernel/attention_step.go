package kernel

// AttentionStep is [Attention] for the next row of each of some sequences: it adds key and value i to caches[i] and
// attends query i to all that this holds and continues, or to the last positions of it in a window. q and out are n×(H·D),
// k and v n×(G·D), for n = len(caches), all of one shape; no cache comes twice. Row i of out is, to the bit, the last row
// that Attention computes from the sequence as a whole: a score is one sum over D wherever its key stands, and the sum over
// positions rests in out, in float32, between the prefix and the rest.
//
// Neighbours that continue the same cache attend to it together, so that it is read once for all their rows.
func AttentionStep(out, q, k, v []float32, caches []*Cache, H int, scale float32, window int) {
	if len(caches) == 0 || H == 0 {
		return
	}
	s := steps.Take()
	s.out, s.q, s.caches, s.H, s.scale, s.window = out, q, caches, H, scale, window
	c := caches[0]
	s.G, s.D, s.group = c.G, c.D, H/c.G
	s.heads = 1
	if s.group == 1 {
		s.heads = min(s.G, mostHeads)
	}
	s.parts = (s.G + s.heads - 1) / s.heads
	kd, work := c.G*c.D, 0
	for i, c := range caches {
		c.Add(k[i*kd:], v[i*kd:], 1)
		work += H * c.D * (c.before() + c.n) / 8 // in units of what an element of the other kernels costs
	}
	s.cut()
	tasks := len(s.pieces) * s.parts
	if work < 2*grain {
		for t := range tasks {
			s.run(t)
		}
	} else {
		parallel(tasks, s)
	}
	s.giveBack()
}

// attentionStep is one call on its way. A task is a piece, neighbours that continue the same cache, and a key-value head; or
// several where each has one query head, for then these are one product.
type attentionStep struct {
	out, q       []float32
	caches       []*Cache
	H, G, D      int
	group        int // query heads of a key-value head
	scale        float32
	window       int
	pieces       [][2]int // rows from, to
	heads, parts int      // key-value heads of a task; tasks of a piece
}

// pieceRows is how many rows, of sequences times the heads that share keys, a piece has at most: two of the highest tiles.
const pieceRows = 28

// cut finds the pieces. A sequence that is longer than the window is one by itself: it sees its own part of a prefix.
func (s *attentionStep) cut() {
	most := max(1, pieceRows/s.group)
	s.pieces = s.pieces[:0]
	for from, to := 0, 0; from < len(s.caches); from = to {
		first := s.caches[from]
		for to = from + 1; to < len(s.caches) && to-from < most && s.caches[to].prefix == first.prefix &&
			s.unseen(first) == 0 && s.unseen(s.caches[to]) == 0; to++ {
		}
		s.pieces = append(s.pieces, [2]int{from, to})
	}
}

// unseen is how many positions a window leaves out.
func (s *attentionStep) unseen(c *Cache) int {
	if s.window == 0 {
		return 0
	}
	return max(0, c.before()+c.n-s.window)
}

// rows are rows of queries, scores and results at regular distances: outer groups of inner rows.
type rows struct {
	outer, x, p   int // groups, and their distance in the queries and results, and in the scores
	inner, rx, rp int // rows of a group, and theirs
}

// shared are the rows of n sequences for one key-value head, of each sequence's scores in rows of ld. Long groups fill the
// tiles.
func (s *attentionStep) shared(n, of, ld int) rows {
	qd := s.H * s.D
	switch {
	case s.G == 1: // all heads share keys: their rows are evenly spaced across sequences
		return rows{outer: 1, inner: n * s.group, rx: s.D, rp: ld}
	case n > s.group:
		return rows{outer: s.group, x: s.D, p: ld, inner: n, rx: qd, rp: of * ld}
	}
	return rows{outer: n, x: qd, p: of * ld, inner: s.group, rx: s.D, rp: ld}
}

// scores is p = q·Kᵀ for key-value head g of a cache's positions from … on, whole panels.
func (s *attentionStep) scores(r rows, c *Cache, g, from int, q, p []float32, memory *scratch) {
	for j := from; j < c.n; j += panel {
		keys := c.panel(j, g, 1, memory)
		for o := range r.outer {
			for i, h := 0, 0; i < r.inner; i += h {
				h = height(r.inner - i)
				tile(h, min(panel, c.n-j), c.D, q[o*r.x+i*r.rx:], r.rx, 1, keys, panel, p[o*r.p+i*r.rp+j-from:], r.rp, false)
			}
		}
	}
}

// weigh is out (=|+=) p·V for key-value head g of a cache's positions from … on.
func (s *attentionStep) weigh(r rows, c *Cache, g, from int, p, out []float32, acc bool) {
	width := c.G * c.D
	for e := 0; e < c.D; e += panel {
		values := c.values[from*width+g*c.D+e:]
		for o := range r.outer {
			for i, h := 0, 0; i < r.inner; i += h {
				h = height(r.inner - i)
				tile(h, min(panel, c.D-e), c.n-from, p[o*r.p+i*r.rp:], r.rp, 1, values, width, out[o*r.x+i*r.rx+e:], r.rx, acc)
			}
		}
	}
}

// scoresOfHeads is scores for one query of each of some heads.
func (s *attentionStep) scoresOfHeads(heads int, c *Cache, g, from int, q, p []float32, ld int, memory *scratch) {
	for j := from; j < c.n; j += panel {
		tileHeads(heads, min(panel, c.n-j), c.D, q, c.D, c.panel(j, g, heads, memory), c.D*panel, panel, p[j-from:], ld, false)
	}
}

// weighOfHeads is weigh for one row of probabilities of each of some heads.
func (s *attentionStep) weighOfHeads(heads int, c *Cache, g, from int, p []float32, ld int, out []float32, acc bool) {
	width := c.G * c.D
	for e := 0; e < c.D; e += panel {
		tileHeads(heads, min(panel, c.D-e), c.n-from, p, ld, c.values[from*width+g*c.D+e:], c.D, width, out[e:], c.D, acc)
	}
}

// height is that of the next tile where n rows are left: two of equal heights rather than a high and a low one.
func height(n int) int {
	most := tileRows()
	tiles := (n + most - 1) / most
	return (n + tiles - 1) / tiles
}

func (s *attentionStep) run(t int) {
	memory := borrow()
	defer memory.giveBack()
	piece, g0 := s.pieces[t/s.parts], t%s.parts*s.heads
	heads := min(s.heads, s.G-g0)
	caches := s.caches[piece[0]:piece[1]]
	n, qd, D := len(caches), s.H*s.D, s.D
	at := piece[0]*qd + g0*s.group*D
	q, out := s.q[at:], s.out[at:]

	// Where a window begins: in the prefix, or behind it. Scores begin with a whole panel.
	prefix, P, unseen := caches[0].prefix, caches[0].before(), s.unseen(caches[0])
	from, ownFrom := unseen, max(0, unseen-P)
	zero := from / panel * panel
	if from >= P {
		zero = P + ownFrom/panel*panel
	}
	ownZero := max(0, zero-P)
	longest := 0
	for _, c := range caches {
		longest = max(longest, P+c.n-zero)
	}
	ld := (longest+panel-1)/panel*panel + 16 // never a power of two of bytes
	of := heads * s.group                    // rows of a sequence
	p, stats := memory.part(0, n*of*ld), memory.part(1, 2*n*of)
	shared, own := s.shared(n, of, ld), rows{outer: 1, inner: s.group, rx: D, rp: ld}

	together := n > 1 || s.group > 1 // one by one the heads are a product of their own
	if from < P {
		if together {
			for g := range heads {
				s.scores(shared, prefix, g0+g, zero, q[g*D:], p[g*ld:], memory)
			}
		} else {
			s.scoresOfHeads(heads, prefix, g0, zero, q, p, ld, memory)
		}
	}
	for i, c := range caches {
		pi := p[i*of*ld+max(0, P-zero):]
		if s.group > 1 {
			s.scores(own, c, g0, ownZero, q[i*qd:], pi, memory)
		} else {
			s.scoresOfHeads(heads, c, g0, ownZero, q[i*qd:], pi, ld, memory)
		}
		seen := P + c.n - from
		softmaxRows(p[i*of*ld+from-zero:], ld, of, seen, 0, seen, s.scale, stats[2*i*of:])
	}
	if from < P {
		if together {
			for g := range heads {
				s.weigh(shared, prefix, g0+g, from, p[g*ld+from-zero:], out[g*D:], false)
			}
		} else {
			s.weighOfHeads(heads, prefix, g0, from, p[from-zero:], ld, out, false)
		}
	}
	for i, c := range caches {
		pi := p[i*of*ld+max(from, P)-zero:]
		if s.group > 1 {
			s.weigh(own, c, g0, ownFrom, pi, out[i*qd:], from < P)
		} else {
			s.weighOfHeads(heads, c, g0, ownFrom, pi, ld, out[i*qd:], from < P)
		}
		scaleRows(out[i*qd:], D, of, D, stats[2*i*of:])
	}
}

var steps Shelf[attentionStep]

// giveBack keeps s for another call, without the caller's memory.
func (s *attentionStep) giveBack() {
	*s = attentionStep{pieces: s.pieces}
	steps.Give(s)
}
