package kernel

// Cache holds the keys and values of consecutive positions of one sequence, for [AttentionStep]: of 0, 1, …, or of those
// after another cache's. The zero value is of no use; [NewCaches] makes caches.
type Cache struct {
	keys   []float32 // [positions/32][G][D][32]: panels, as a product reads them; behind these [positions][G·D]
	values []float32 // [positions][G·D]
	n      int
	closed bool // the last panel is one, though it is not whole
	G, D   int
	prefix *Cache
}

// NewCaches returns n empty caches of up to positions positions, with G heads of D numbers each.
func NewCaches(n, positions, G, D int) []Cache {
	size, width := CacheSize(positions, G, D), G*D
	memory := grow(nil, n*size)
	caches := make([]Cache, n)
	for i := range caches {
		k := size - positions*width
		caches[i] = Cache{keys: memory[:k:k], values: memory[k:size:size], G: G, D: D}
		memory = memory[size:]
	}
	return caches
}

// CacheSize is how many numbers a cache of up to positions positions takes.
func CacheSize(positions, G, D int) int {
	room := (positions + panel - 1) / panel * panel
	return (room + positions) * G * D
}

// Clear forgets all positions: the next one is 0.
func (c *Cache) Clear() { c.n, c.closed, c.prefix = 0, false, nil }

// Continue forgets all positions: the next one is the first after those of prefix, a cache of the same shape that itself
// continues none. It is read, not copied, so that many sequences share it; it must not change while one of them uses it.
func (c *Cache) Continue(prefix *Cache) { c.n, c.closed, c.prefix = 0, false, prefix }

// CopyFrom makes c hold what another cache of the same shape holds, and continue what it continues.
func (c *Cache) CopyFrom(other *Cache) {
	width := c.G * c.D
	c.n, c.closed, c.prefix = other.n, other.closed, other.prefix
	copy(c.keys, other.keys[:(c.n+panel-1)/panel*panel*width])
	copy(c.values, other.values[:c.n*width])
}

// before is how many positions stand in the prefix.
func (c *Cache) before() int {
	if c.prefix == nil {
		return 0
	}
	return c.prefix.n
}

// Add appends n positions: their keys and values, both n×(G·D). Keys wait until they are a panel: one by one they would
// touch as many lines of the processor's cache as they have numbers.
func (c *Cache) Add(k, v []float32, n int) {
	width := c.G * c.D
	copy(c.values[c.n*width:(c.n+n)*width], v[:n*width])
	if c.closed {
		panic("kernel: a cache that was closed cannot grow")
	}
	for n > 0 {
		add := min(n, panel-c.n%panel)
		if add == panel {
			c.pack(c.keys[c.n*width:][:panel*width], k, 0, c.G, panel)
		} else {
			copy(c.keys[c.n*width:], k[:add*width])
		}
		k, n, c.n = k[add*width:], n-add, c.n+add
		if add < panel && c.n%panel == 0 {
			c.packLast()
		}
	}
}

// Close puts all keys in panels, for a cache that others will continue and that does not grow any more.
func (c *Cache) Close() {
	if !c.closed && c.n%panel > 0 {
		c.packLast()
		c.closed = true
	}
}

// packLast puts the keys that wait in their panel, in place.
func (c *Cache) packLast() {
	width := c.G * c.D
	from := (c.n - 1) / panel * panel
	s := borrow()
	defer s.giveBack()
	rows := s.part(0, (c.n-from)*width)
	copy(rows, c.keys[from*width:])
	c.pack(c.keys[from*width:][:panel*width], rows, 0, c.G, c.n-from)
}

// pack makes a panel of n keys in rows, of some heads from g on.
func (c *Cache) pack(to, rows []float32, g, heads, n int) {
	for h := range heads {
		packTransposed(to[h*c.D*panel:(h+1)*c.D*panel], rows[(g+h)*c.D:], c.G*c.D, n, c.D)
	}
}

// panel returns the keys of some heads from g on, of the positions from j on, where a panel begins; memory is for those that
// wait.
func (c *Cache) panel(j, g, heads int, memory *scratch) []float32 {
	width := c.G * c.D
	if c.closed || j+panel <= c.n {
		return c.keys[j*width+g*c.D*panel:]
	}
	to := memory.part(2, heads*c.D*panel)
	c.pack(to, c.keys[j*width:], g, heads, c.n-j)
	return to
}
