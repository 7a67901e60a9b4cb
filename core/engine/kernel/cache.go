package kernel

// Cache holds the keys and values of the positions 0, 1, … of one sequence, for [AttentionStep]. The zero value is
// of no use; [NewCaches] makes caches.
type Cache struct {
	keys   []float32 // [positions/32][G][D][32]: panels, as a product reads them
	values []float32 // [positions][G·D]
	n      int
	G, D   int
}

// NewCaches returns n empty caches of up to positions positions, with G heads of D numbers each.
func NewCaches(n, positions, G, D int) []Cache {
	room, width := (positions+panel-1)/panel*panel, G*D
	memory := grow(nil, n*(room+positions)*width)
	caches := make([]Cache, n)
	for i := range caches {
		k, v := room*width, (room+positions)*width
		caches[i] = Cache{keys: memory[:k:k], values: memory[k:v:v], G: G, D: D}
		memory = memory[v:]
	}
	return caches
}

// Clear forgets all positions.
func (c *Cache) Clear() { c.n = 0 }

// Add appends n positions: their keys and values, both n×(G·D).
func (c *Cache) Add(k, v []float32, n int) {
	width := c.G * c.D
	copy(c.values[c.n*width:(c.n+n)*width], v[:n*width])
	for n > 0 {
		column := c.n % panel
		add := min(n, panel-column)
		to := c.keys[(c.n-column)*width:][:panel*width]
		if column == 0 {
			for g := range c.G {
				packTransposed(to[g*c.D*panel:], k[g*c.D:], width, add, c.D)
			}
		} else {
			for j := range add {
				for i, x := range k[j*width : (j+1)*width] {
					to[i*panel+column+j] = x
				}
			}
		}
		k, n, c.n = k[add*width:], n-add, c.n+add
	}
}

// Copy makes c hold the first n positions of from, a cache of the same shape, and no others.
func (c *Cache) Copy(from *Cache, n int) {
	width := c.G * c.D
	copy(c.keys, from.keys[:(n+panel-1)/panel*panel*width])
	copy(c.values, from.values[:n*width])
	c.n = n
}

// AttentionStep is [Attention] for the next row of each of some sequences: it adds key and value i to caches[i] and
// attends query i to what this holds, or to the last positions of it in a window. q and out are n×(H·D), k and v n×(G·D), for n = len(caches); no cache comes
// twice. Row i of out is, to the bit, the last row that Attention computes from the sequence as a whole. It runs in
// the calling goroutine: threads have sequences of their own.
func AttentionStep(out, q, k, v []float32, caches []*Cache, H int, scale float32, window int) {
	memory := borrow()
	defer memory.giveBack()
	for i, c := range caches {
		kd, qd := c.G*c.D, H*c.D
		c.Add(k[i*kd:], v[i*kd:], 1)
		c.attend(out[i*qd:(i+1)*qd], q[i*qd:(i+1)*qd], memory, H, scale, window)
	}
}

// attend computes one row of attention to all positions, or to the last ones in a window.
func (c *Cache) attend(out, q []float32, memory *scratch, H int, scale float32, window int) {
	group, width, D := H/c.G, c.G*c.D, c.D
	first := 0
	if window > 0 {
		first = max(0, c.n-window)
	}
	zero, seen := first/panel*panel, c.n-first // the position of column 0 of the scores
	ld := (c.n-zero+panel-1)/panel*panel + 16  // never a power of two of bytes
	p, stats := memory.part(0, H*ld), memory.part(1, 2*H)
	for g := range c.G {
		for h0, h1 := g*group, 0; h0 < (g+1)*group; h0 = h1 {
			h1 = min(h0+tileRows(), (g+1)*group)
			for j := zero; j < c.n; j += panel {
				tile(h1-h0, min(panel, c.n-j), D, q[h0*D:], D, 1, c.keys[j*width+g*D*panel:], panel, p[h0*ld+j-zero:], ld, false)
			}
		}
	}
	softmaxRows(p[first-zero:], ld, H, seen, 0, seen, scale, stats)
	for g := range c.G {
		for h0, h1 := g*group, 0; h0 < (g+1)*group; h0 = h1 {
			h1 = min(h0+tileRows(), (g+1)*group)
			for e := 0; e < D; e += panel {
				tile(h1-h0, min(panel, D-e), seen, p[h0*ld+first-zero:], ld, 1, c.values[first*width+g*D+e:], width, out[h0*D+e:], D, false)
			}
		}
	}
	scaleRows(out, D, H, D, stats)
}
