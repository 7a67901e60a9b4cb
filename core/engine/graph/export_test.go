package graph

// Hidden returns what the golden tests compare beside log-probabilities: the output of the
// embedding and of each layer [N, C], and the scored rows after the last norm [S, C].
func (b *Builder) Hidden() (layers [][]float32, final []float32) {
	for _, n := range b.graph.AllNodes() {
		switch o := n.Op().(type) {
		case *embedOp:
			layers = append(layers, o.out.data)
		case *mlpOp:
			layers = append(layers, o.out.data)
		}
	}
	return layers, b.head.h
}

// Logits returns those of the scored rows lo to hi of the last run.
func (b *Builder) Logits(lo, hi int) []float32 {
	o, v := b.head, b.head.head.Shape[0]
	out := make([]float32, (hi-lo)*v)
	for i := range o.slices() {
		first, last := o.slice(i)
		z := make([]float32, (hi-lo)*(last-first))
		o.multiply(z, o.forward(i), lo, hi)
		for r := range hi - lo {
			copy(out[r*v+first:r*v+last], z[r*(last-first):])
		}
	}
	return out
}

// BuilderOf returns what a graph was built with.
func BuilderOf(t *Train) *Builder { return t.head.b }

// Nodes returns the number of nodes of a graph.
func (b *Builder) Nodes() int { return len(b.graph.AllNodes()) }

// KeepLogits makes graphs keep at most so many logits, and returns what undoes that.
func KeepLogits(most int) (undo func()) {
	before := mostLogits
	mostLogits = most
	return func() { mostLogits = before }
}
