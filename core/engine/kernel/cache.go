package kernel

// Cache holds the keys and values of consecutive positions of one sequence, for [AttentionStep]: of 0, 1, …, or of those
// after another cache's. The zero value is of no use; [NewCaches] makes caches.
type Cache struct {
	keys   []float32 // [positions/32][G][D][32]: panels, as a product reads them
	values []float32 // [positions][G·D]
	n      int
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
func (c *Cache) Clear() { c.n, c.prefix = 0, nil }

// Continue forgets all positions: the next one is the first after those of prefix, a cache of the same shape that itself
// continues none. It is read, not copied, so that many sequences share it; it must not change while one of them uses it.
func (c *Cache) Continue(prefix *Cache) { c.n, c.prefix = 0, prefix }

// before is how many positions stand in the prefix.
func (c *Cache) before() int {
	if c.prefix == nil {
		return 0
	}
	return c.prefix.n
}

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
