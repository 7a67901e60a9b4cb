package kernel

import "sync"

// AttentionStep is [Attention] for the next row of each of some sequences: it adds key and value i to caches[i] and
// attends query i to all that this holds and continues. q and out are n×(H·D), k and v n×(G·D), for n = len(caches), all
// of one shape; no cache comes twice. Row i of out is, to the bit, the last row that Attention computes from the sequence
// as a whole: a score is one sum over D wherever its key stands, and the sum over positions rests in out, in float32,
// between the prefix and the rest.
//
// Neighbours that continue the same cache attend to it together, so that it is read once for all their rows.
func AttentionStep(out, q, k, v []float32, caches []*Cache, H int, scale float32) {
	if len(caches) == 0 || H == 0 {
		return
	}
	s := takeStep()
	s.out, s.q, s.caches, s.H, s.scale = out, q, caches, H, scale
	c := caches[0]
	s.G, s.D = c.G, c.D
	kd, work := c.G*c.D, 0
	for i, c := range caches {
		c.Add(k[i*kd:], v[i*kd:], 1)
		work += H * c.D * (c.before() + c.n) / 8 // in units of what an element of the other kernels costs
	}
	s.cut()
	tasks := len(s.pieces) * s.G
	if work < 2*grain {
		for t := range tasks {
			s.run(t)
		}
	} else {
		parallel(tasks, s)
	}
	s.giveBack()
}

// attentionStep is one call on its way. A task is a piece, neighbours that continue the same cache, and a key-value head.
type attentionStep struct {
	out, q  []float32
	caches  []*Cache
	H, G, D int
	scale   float32
	pieces  [][2]int // rows from, to
}

// pieceRows is how many rows, of sequences times the heads that share keys, a piece has at most: two of the highest tiles.
const pieceRows = 28

func (s *attentionStep) cut() {
	most := max(1, pieceRows/(s.H/s.G))
	s.pieces = s.pieces[:0]
	for from, to := 0, 0; from < len(s.caches); from = to {
		for to = from + 1; to < len(s.caches) && to-from < most && s.caches[to].prefix == s.caches[from].prefix; to++ {
		}
		s.pieces = append(s.pieces, [2]int{from, to})
	}
}

// rows are rows of queries, scores and results at regular distances: outer groups of inner rows.
type rows struct {
	outer, x, p   int // groups, and their distance in the queries and results, and in the scores
	inner, rx, rp int // rows of a group, and theirs
}

// shared are the rows of n sequences, whose scores stand in rows of ld: [n][H/G]. Long groups fill the tiles.
func (s *attentionStep) shared(n, ld int) rows {
	group, qd := s.H/s.G, s.H*s.D
	switch {
	case s.G == 1: // all heads share keys: their rows are evenly spaced across sequences
		return rows{outer: 1, inner: n * group, rx: s.D, rp: ld}
	case n > group:
		return rows{outer: group, x: s.D, p: ld, inner: n, rx: qd, rp: group * ld}
	}
	return rows{outer: n, x: qd, p: group * ld, inner: group, rx: s.D, rp: ld}
}

// scores is p = q·Kᵀ for key-value head g of a cache.
func (s *attentionStep) scores(r rows, c *Cache, g int, q, p []float32) {
	width := c.G * c.D
	for j := 0; j < c.n; j += panel {
		keys := c.keys[j*width+g*c.D*panel:]
		for o := range r.outer {
			for i, h := 0, 0; i < r.inner; i += h {
				h = height(r.inner - i)
				tile(h, min(panel, c.n-j), c.D, q[o*r.x+i*r.rx:], r.rx, 1, keys, panel, p[o*r.p+i*r.rp+j:], r.rp, false)
			}
		}
	}
}

// weigh is out (=|+=) p·V for key-value head g of a cache.
func (s *attentionStep) weigh(r rows, c *Cache, g int, p, out []float32, acc bool) {
	width := c.G * c.D
	for e := 0; e < c.D; e += panel {
		values := c.values[g*c.D+e:]
		for o := range r.outer {
			for i, h := 0, 0; i < r.inner; i += h {
				h = height(r.inner - i)
				tile(h, min(panel, c.D-e), c.n, p[o*r.p+i*r.rp:], r.rp, 1, values, width, out[o*r.x+i*r.rx+e:], r.rx, acc)
			}
		}
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
	piece, g := s.pieces[t/s.G], t%s.G
	caches := s.caches[piece[0]:piece[1]]
	group, qd, D := s.H/s.G, s.H*s.D, s.D
	at := piece[0]*qd + g*group*D
	q, out := s.q[at:], s.out[at:]
	prefix, P, longest := caches[0].prefix, caches[0].before(), 0
	for _, c := range caches {
		longest = max(longest, P+c.n)
	}
	ld := (longest+panel-1)/panel*panel + 16 // never a power of two of bytes
	p, stats := memory.part(0, len(caches)*group*ld), memory.part(1, 2*len(caches)*group)
	shared, own := s.shared(len(caches), ld), rows{outer: 1, inner: group, rx: D, rp: ld}
	if P > 0 {
		s.scores(shared, prefix, g, q, p)
	}
	for i, c := range caches {
		s.scores(own, c, g, q[i*qd:], p[i*group*ld+P:])
		softmaxRows(p[i*group*ld:], ld, group, P+c.n, 0, P+c.n, s.scale, stats[2*i*group:])
	}
	if P > 0 {
		s.weigh(shared, prefix, g, p, out, false)
	}
	for i, c := range caches {
		s.weigh(own, c, g, p[i*group*ld+P:], out[i*qd:], P > 0)
		scaleRows(out[i*qd:], D, group, D, stats[2*i*group:])
	}
}

var steps struct {
	sync.Mutex
	free []*attentionStep
}

func takeStep() *attentionStep {
	steps.Lock()
	defer steps.Unlock()
	if n := len(steps.free); n > 0 {
		s := steps.free[n-1]
		steps.free = steps.free[:n-1]
		return s
	}
	return new(attentionStep)
}

// giveBack keeps s for another call, without the caller's memory.
func (s *attentionStep) giveBack() {
	*s = attentionStep{pieces: s.pieces}
	steps.Lock()
	steps.free = append(steps.free, s)
	steps.Unlock()
}
