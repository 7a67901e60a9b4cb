package preference

import "math"

// Cycles says how far a game's preferences are from an order. It is about the strict majority
// relation a ≻ b: P̃(a,b) > ½, among distinct texts; a tie or a missing comparison is no arrow.
type Cycles struct {
	Cyclic       bool // some a ≻ b ≻ … ≻ a
	Triples      int  // triples of texts with all three comparisons
	ThreeCycles  int  // of those, a ≻ b ≻ c ≻ a
	Intransitive int  // of those, a ≻ b ≻ c but not a ≻ c; every three-cycle is one
	Condorcet    int  // the completion preferred to every other text (its lowest index); -1: none
}

// Share returns the intransitive triples' share of all; 0 where there are no triples.
func (c Cycles) Share() float64 {
	if c.Triples == 0 {
		return 0
	}
	return float64(c.Intransitive) / float64(c.Triples)
}

// Cycles looks for cycles among all distinct texts, whether they may be paired or not.
//
// Cost: O(m³) for m distinct texts.
func (g *Game) Cycles() Cycles {
	var nodes []int
	for i, f := range g.first {
		if f == i {
			nodes = append(nodes, i)
		}
	}
	c := Cycles{Condorcet: -1, Cyclic: g.cyclic(nodes)}
	for _, a := range nodes {
		wins := 0
		for _, b := range nodes {
			if g.beats(a, b) {
				wins++
			}
		}
		if wins == len(nodes)-1 && wins > 0 {
			c.Condorcet = a
		}
	}
	for x, a := range nodes {
		for y, b := range nodes[:x] {
			for _, d := range nodes[:y] {
				if math.IsNaN(g.p[a][b] + g.p[b][d] + g.p[d][a]) {
					continue
				}
				c.Triples++
				if g.chain(a, b, d) || g.chain(a, d, b) {
					c.Intransitive++
				}
				if g.beats(a, b) && g.beats(b, d) && g.beats(d, a) || g.beats(b, a) && g.beats(d, b) && g.beats(a, d) {
					c.ThreeCycles++
				}
			}
		}
	}
	return c
}

func (g *Game) beats(a, b int) bool { return g.p[a][b] > 0.5 }

// chain reports x ≻ y ≻ z without x ≻ z for some turn (x, y, z) of the ring a, b, c.
func (g *Game) chain(a, b, c int) bool {
	broken := func(x, y, z int) bool { return g.beats(x, y) && g.beats(y, z) && !g.beats(x, z) }
	return broken(a, b, c) || broken(b, c, a) || broken(c, a, b)
}

// cyclic takes away, again and again, completions that nobody left beats; a cycle is what remains.
func (g *Game) cyclic(nodes []int) bool {
	left := append([]int(nil), nodes...)
	for {
		var beaten []int
		for _, a := range left {
			for _, b := range left {
				if g.beats(b, a) {
					beaten = append(beaten, a)
					break
				}
			}
		}
		if len(beaten) == len(left) {
			return len(left) > 0
		}
		left = beaten
	}
}
