package generate

import (
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
)

// packed is a copy of the matrices in the layout that decoding reads, and what norms multiply by.
type packed struct {
	layers []packedLayer
	norm   []float32
	head   model.Matrix
	rank   int // the largest of an adapter
}

// packedLayer is a layer; a norm that the family does not have is nil.
type packedLayer struct {
	q, k, v, o, gate, up, down                         model.Matrix
	attnNorm, qNorm, kNorm, attnPost, mlpNorm, mlpPost []float32
}

func (p *packed) pack(m *model.Model, w Weights) {
	if p.layers == nil {
		p.layers = make([]packedLayer, len(m.Layers))
	}
	pack := w.pack(m.Precision())
	p.rank = 0
	for i, l := range m.Layers {
		to := &p.layers[i]
		to.q.Pack(l.Q, pack)
		to.k.Pack(l.K, pack)
		to.v.Pack(l.V, pack)
		to.o.Pack(l.O, pack)
		to.gate.Pack(l.Gate, pack)
		to.up.Pack(l.Up, pack)
		to.down.Pack(l.Down, pack)
		for _, w := range []*model.Matrix{&to.q, &to.k, &to.v, &to.o, &to.gate, &to.up, &to.down} {
			p.rank = max(p.rank, w.Rank())
		}
		to.attnNorm = m.Gain(l.AttnNorm, to.attnNorm)
		to.qNorm = m.Gain(l.QNorm, to.qNorm)
		to.kNorm = m.Gain(l.KNorm, to.kNorm)
		to.attnPost = m.Gain(l.AttnPost, to.attnPost)
		to.mlpNorm = m.Gain(l.MLPNorm, to.mlpNorm)
		to.mlpPost = m.Gain(l.MLPPost, to.mlpPost)
	}
	p.norm = m.Gain(m.Norm, p.norm)
	p.head.Pack(m.Head, pack)
}

// size is what a step reads of them, in bytes.
func (p *packed) size() int {
	n := p.head.Size()
	for i := range p.layers {
		l := &p.layers[i]
		for _, m := range []*model.Matrix{&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down} {
			n += m.Size()
		}
	}
	return n
}

// A decoder runs rows of tokens through the model. It keeps the keys and values of what went before: those of prompts,
// and in slots those of completions, each of which continues a prompt.
//
// A row goes through the same operations in the same order as in the graph that trains the model, so
// its logits are the same bytes, if the weights are packed as the model's precision says.
type decoder struct {
	model   *model.Model
	packed  *packed
	gated   func(y, gate, up []float32)
	scale   float32
	reach   []reach        // [L]
	caches  []kernel.Cache // [L, slots]
	prompts []kernel.Cache // [L, prompts]
	last    []float32      // [prompts, C] what the last token of each prompt became

	// The rows at work: some prompts, from position 0 on, or the next row of each of some slots.
	pos   []int32       // [N]
	ids   []int32       // [N]
	spans []kernel.Span // of the prompts
	which []int         // a prompt for each span, or a slot for each row

	x, h     []float32 // [N, C] residual stream; norm's output
	q, att   []float32 // [N, H·D]
	k, v     []float32 // [N, G·D]
	gate, up []float32 // [N, F]
	rstd     []float32 // [N·H]
	low      []float32 // [N, rank] of adapters
	probs    []float32
	at       []*kernel.Cache // [N] of the layer at work
}

// reach is what a layer's attention knows of positions: see graph.Reach.
type reach struct {
	cos, sin []float32
	window   int
}

// room is what a decoder has memory for.
type room struct {
	slots, own      int // completions at a time, and their tokens that are read
	prompts, prompt int // prompts at a time, and the tokens of the longest
	rows            int // at a time
}

func newDecoder(m *model.Model, p *packed, r room) *decoder {
	c, rows := m.Config, r.rows
	qd, kd := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	d := &decoder{model: m, packed: p, scale: c.Scale(), gated: kernel.SwiGLU,
		caches:  kernel.NewCaches(c.Layers*r.slots, r.own, c.KVHeads, c.HeadDim),
		prompts: kernel.NewCaches(c.Layers*r.prompts, r.prompt, c.KVHeads, c.HeadDim), last: make([]float32, r.prompts*c.Width),
		which: make([]int, 0, rows), pos: make([]int32, 0, rows), ids: make([]int32, 0, rows), spans: make([]kernel.Span, 0, rows),
		x: make([]float32, rows*c.Width), h: make([]float32, rows*c.Width),
		q: make([]float32, rows*qd), att: make([]float32, rows*qd), k: make([]float32, rows*kd), v: make([]float32, rows*kd),
		gate: make([]float32, rows*c.FFN), up: make([]float32, rows*c.FFN), rstd: make([]float32, rows*c.Heads), low: make([]float32, rows*p.rank),
		probs: make([]float32, kernel.AttentionScratch(rows, c.Heads)),
	}
	if c.Family.GELU() {
		d.gated = kernel.GeGLU
	}
	for l := range m.Layers {
		at := m.Reach(l)
		cos, sin := at.Rope(r.prompt + r.own)
		d.reach = append(d.reach, reach{cos, sin, at.Window})
	}
	return d
}

// ofLayer returns a layer's caches of all that has them, slots or prompts.
func (d *decoder) ofLayer(caches []kernel.Cache, layer int) []kernel.Cache {
	n := len(caches) / len(d.model.Layers)
	return caches[layer*n : (layer+1)*n]
}

func (d *decoder) reset() {
	d.which, d.pos, d.ids, d.spans = d.which[:0], d.pos[:0], d.ids[:0], d.spans[:0]
}

// read runs some prompts through the model. Together they have no more tokens than the decoder has rows.
func (d *decoder) read(which []int, prompt func(i int) []int32) {
	d.reset()
	for _, p := range which {
		from := len(d.ids)
		for position, id := range prompt(p) {
			d.pos, d.ids = append(d.pos, int32(position)), append(d.ids, id)
		}
		d.which, d.spans = append(d.which, p), append(d.spans, kernel.Span{From: from, To: len(d.ids)})
	}
	d.forward(d.attendPrompts)
	width := d.model.Config.Width
	for i, p := range which {
		copy(d.last[p*width:(p+1)*width], d.x[i*width:])
	}
}

// start makes a slot continue a prompt.
func (d *decoder) start(slot, prompt int) {
	for l := range d.model.Layers {
		d.ofLayer(d.caches, l)[slot].Continue(&d.ofLayer(d.prompts, l)[prompt])
	}
}

// fork makes a slot hold what another one holds.
func (d *decoder) fork(slot, other int) {
	for l := range d.model.Layers {
		caches := d.ofLayer(d.caches, l)
		caches[slot].CopyFrom(&caches[other])
	}
}

// add adds the next row of a slot.
func (d *decoder) add(slot, position int, id int32) {
	d.which, d.pos, d.ids = append(d.which, slot), append(d.pos, int32(position)), append(d.ids, id)
}

// recall makes row i of x what the last token of a prompt became.
func (d *decoder) recall(i, prompt int) {
	width := d.model.Config.Width
	copy(d.x[i*width:(i+1)*width], d.last[prompt*width:])
}

// step runs the rows that were added through the model.
func (d *decoder) step() { d.forward(d.attendStored) }

// forward computes x, the last hidden state of each row, from ids; attend is its attention. Of prompts it is that of each
// one's last row, for of the others nothing is asked but the keys and values of each layer.
func (d *decoder) forward(attend func(layer int)) {
	c, n := &d.model.Config, len(d.ids)
	if n == 0 {
		return
	}
	eps := float32(c.NormEps)
	for i, id := range d.ids {
		d.model.Embed.Row(int(id), d.x[i*c.Width:(i+1)*c.Width])
	}
	if scale := c.EmbedScale(); scale != 1 {
		kernel.Scale(scale, d.x[:n*c.Width])
	}
	for l := range d.model.Layers {
		p, r := &d.packed.layers[l], &d.reach[l]
		kernel.RMSNorm(d.h, d.rstd, d.x, p.attnNorm, n, c.Width, eps)
		model.MultiplyAll(n, d.h, d.low, model.Product{W: &p.q, Y: d.q}, model.Product{W: &p.k, Y: d.k}, model.Product{W: &p.v, Y: d.v})
		if p.qNorm != nil {
			kernel.RMSNorm(d.q, d.rstd, d.q, p.qNorm, n*c.Heads, c.HeadDim, eps)
			kernel.RMSNorm(d.k, d.rstd, d.k, p.kNorm, n*c.KVHeads, c.HeadDim, eps)
		}
		kernel.Rope(d.q, d.pos, r.cos, r.sin, c.Heads, c.HeadDim, false)
		kernel.Rope(d.k, d.pos, r.cos, r.sin, c.KVHeads, c.HeadDim, false)
		attend(l)
		if l == len(d.model.Layers)-1 && len(d.spans) > 0 {
			n = d.keepLast()
		}
		d.residual(n, d.att, &p.o, p.attnPost)

		kernel.RMSNorm(d.h, d.rstd, d.x, p.mlpNorm, n, c.Width, eps)
		model.MultiplyAll(n, d.h, d.low, model.Product{W: &p.gate, Y: d.gate}, model.Product{W: &p.up, Y: d.up})
		d.gated(d.gate[:n*c.FFN], d.gate, d.up)
		d.residual(n, d.gate, &p.down, p.mlpPost)
	}
}

// keepLast makes the last rows of the prompts all that there are, and returns how many.
func (d *decoder) keepLast() int {
	c := &d.model.Config
	for i, s := range d.spans {
		for _, x := range [...]struct {
			rows  []float32
			width int
		}{{d.x, c.Width}, {d.att, c.Heads * c.HeadDim}} {
			copy(x.rows[i*x.width:(i+1)*x.width], x.rows[(s.To-1)*x.width:])
		}
	}
	return len(d.spans)
}

// residual adds a matrix times n rows of y to x: through a norm if there is one.
func (d *decoder) residual(n int, y []float32, w *model.Matrix, norm []float32) {
	c := &d.model.Config
	if norm == nil {
		w.Multiply(n, y, d.x, d.low, true)
		return
	}
	w.Multiply(n, y, d.h, d.low, false)
	kernel.RMSNorm(d.h, d.rstd, d.h, norm, n, c.Width, float32(c.NormEps))
	x := d.x[:n*c.Width]
	kernel.Add(x, x, d.h)
}

// attendPrompts is attention within each of the prompts.
func (d *decoder) attendPrompts(layer int) {
	c := &d.model.Config
	kd := c.KVHeads * c.HeadDim
	for i, s := range d.spans {
		cache := &d.ofLayer(d.prompts, layer)[d.which[i]]
		cache.Clear()
		cache.Add(d.k[s.From*kd:], d.v[s.From*kd:], s.To-s.From)
		cache.Close()
	}
	kernel.Attention(d.att, d.probs, d.q, d.k, d.v, d.spans, c.Heads, c.KVHeads, c.HeadDim, d.scale, d.reach[layer].window)
}

// attendStored is attention of each row to its slot's cache.
func (d *decoder) attendStored(layer int) {
	d.at = d.at[:0]
	for _, slot := range d.which {
		d.at = append(d.at, &d.ofLayer(d.caches, layer)[slot])
	}
	kernel.AttentionStep(d.att, d.q, d.k, d.v, d.at, d.model.Config.Heads, d.scale, d.reach[layer].window)
}

// head computes the logits [n, V] of the rows of x from first on.
func (d *decoder) head(logits []float32, first, n int) {
	c := &d.model.Config
	kernel.RMSNorm(d.h, d.rstd, d.x[first*c.Width:], d.packed.norm, n, c.Width, float32(c.NormEps))
	d.packed.head.Multiply(n, d.h, logits, d.low, false)
}
