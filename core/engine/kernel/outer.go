package kernel

import "runtime"

// Outer is a sum of outer products, such as a weight's gradient: C (M×N) += Aᵀ·B of rows of A (K×M) and of B (K×N).
type Outer struct {
	A, B, C []float32
	M, N    int
}

// AddOuter is C += Aᵀ·B for each of some products, up to 4, over K rows: the same bytes as [Precision.Gemm] makes of each, in
// one piece of work, so that threads meet once for all of them.
func (p Precision) AddOuter(K int, products ...Outer) {
	f := p.format()
	o, work := outerShelf.Take(), 0
	defer o.giveBack()
	for _, x := range products {
		if g := newGemm(f, true, x.M, x.N, K, x.A, x.M, x.C, x.N, true); g != nil {
			g.setB(false, x.B, x.N)
			o.gemms[o.count] = g
			o.count++
			work += x.M * x.N * K
		}
	}
	if runtime.GOMAXPROCS(0) == 1 || work < smallWork || crew.busy.Load() {
		for _, g := range o.gemms[:o.count] {
			g.do(false)
		}
		return
	}
	o.do()
}

// outers is products on their way, as tasks of one piece of work.
type outers struct {
	gemms [4]*gemm
	ends  [4]int // the task after the last one of each
	count int
}

var outerShelf Shelf[outers]

func (o *outers) giveBack() {
	*o = outers{}
	outerShelf.Give(o)
}

func (o *outers) do() {
	var packed [4]*scratch
	tasks := 0
	for i, g := range o.gemms[:o.count] {
		if packed[i] = g.plan(); packed[i] != nil {
			g.packing = packed[i].part(0, g.packedSize())
			tasks += g.colPanels
		}
		o.ends[i] = tasks
	}
	if tasks > 0 {
		parallel(tasks, o)
	}
	tasks = 0
	for i, g := range o.gemms[:o.count] {
		if packed[i] != nil {
			g.parts[0].packed, g.packing = g.packing, nil
		}
		g.split(tasksPerThread*runtime.GOMAXPROCS(0)/o.count+1, false)
		tasks += g.tasks()
		o.ends[i] = tasks
	}
	parallel(tasks, o)
	for i, g := range o.gemms[:o.count] {
		if packed[i] != nil {
			packed[i].giveBack()
		}
		g.giveBack()
	}
}

func (o *outers) run(t int) {
	i, own := partOf(&o.ends, t)
	o.gemms[i].run(own)
}

// partOf returns of which part task t is, and its number there, where ends[i] is the task after the last one of part i.
func partOf(ends *[4]int, t int) (i, own int) {
	first := 0
	for t >= ends[i] {
		first = ends[i]
		i++
	}
	return i, t - first
}
