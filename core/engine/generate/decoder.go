package generate

import (
	"math"

	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
)

// packed is a copy of the matrices in the layout that GemmPacked reads.
type packed struct {
	layers []packedLayer
	head   kernel.Packed
}

type packedLayer struct{ q, k, v, o, gate, up, down kernel.Packed }

func (p *packed) pack(m *model.Model, w Weights) {
	if p.layers == nil {
		p.layers = make([]packedLayer, len(m.Layers))
	}
	c := m.Config
	width, ffn, qd, kd := c.Width, c.FFN, c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	pack := w.pack(m.Precision())
	for i, l := range m.Layers {
		to := &p.layers[i]
		pack(&to.q, l.Q.W, qd, width, width)
		pack(&to.k, l.K.W, kd, width, width)
		pack(&to.v, l.V.W, kd, width, width)
		pack(&to.o, l.O.W, width, qd, qd)
		pack(&to.gate, l.Gate.W, ffn, width, width)
		pack(&to.up, l.Up.W, ffn, width, width)
		pack(&to.down, l.Down.W, width, ffn, ffn)
	}
	pack(&p.head, m.Head.W, c.Vocab, width, width)
}

// size is what a step reads of them, in bytes.
func (p *packed) size() int {
	n := p.head.Size()
	for i := range p.layers {
		l := &p.layers[i]
		for _, m := range []*kernel.Packed{&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down} {
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
	model    *model.Model
	packed   *packed
	scale    float32
	cos, sin []float32
	caches   []kernel.Cache // [L, slots]
	prompts  []kernel.Cache // [L, prompts]
	last     []float32      // [prompts, C] what the last token of each prompt became

	// The rows at work: some prompts, from position 0 on, or the next row of each of some slots.
	pos   []int32       // [N]
	ids   []int32       // [N]
	spans []kernel.Span // of the prompts
	which []int         // a prompt for each span, or a slot for each row

	x, h     []float32 // [N, C] residual stream; norm's output
	q, att   []float32 // [N, H·D]
	k, v     []float32 // [N, G·D]
	gate, up []float32 // [N, F]
	rstd     []float32 // [N]
	probs    []float32
	at       []*kernel.Cache // [N] of the layer at work
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
	d := &decoder{model: m, packed: p, scale: float32(1 / math.Sqrt(float64(c.HeadDim))),
		caches:  kernel.NewCaches(c.Layers*r.slots, r.own, c.KVHeads, c.HeadDim),
		prompts: kernel.NewCaches(c.Layers*r.prompts, r.prompt, c.KVHeads, c.HeadDim), last: make([]float32, r.prompts*c.Width),
		which: make([]int, 0, rows), pos: make([]int32, 0, rows), ids: make([]int32, 0, rows), spans: make([]kernel.Span, 0, rows),
		x: make([]float32, rows*c.Width), h: make([]float32, rows*c.Width),
		q: make([]float32, rows*qd), att: make([]float32, rows*qd), k: make([]float32, rows*kd), v: make([]float32, rows*kd),
		gate: make([]float32, rows*c.FFN), up: make([]float32, rows*c.FFN), rstd: make([]float32, rows),
		probs: make([]float32, kernel.AttentionScratch(rows, c.Heads)),
	}
	d.cos, d.sin = m.Rope(r.prompt + r.own)
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
		copy(d.last[p*width:(p+1)*width], d.x[(d.spans[i].To-1)*width:])
	}
}

// start makes a slot continue a prompt.
func (d *decoder) start(slot, prompt int) {
	for l := range d.model.Layers {
		d.ofLayer(d.caches, l)[slot].Continue(&d.ofLayer(d.prompts, l)[prompt])
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

// forward computes x, the last hidden state of each row, from ids; attend is its attention.
func (d *decoder) forward(attend func(layer int)) {
	c, n := &d.model.Config, len(d.ids)
	if n == 0 {
		return
	}
	eps := float32(c.NormEps)
	qd := c.Heads * c.HeadDim
	for i, id := range d.ids {
		copy(d.x[i*c.Width:(i+1)*c.Width], d.model.Embed.W[int(id)*c.Width:])
	}
	for l := range d.model.Layers {
		w, p := &d.model.Layers[l], &d.packed.layers[l]
		kernel.RMSNorm(d.h, d.rstd, d.x, w.AttnNorm.W, n, c.Width, eps)
		kernel.GemmPackedAll(n, d.h, c.Width, kernel.Product{B: &p.q, C: d.q}, kernel.Product{B: &p.k, C: d.k}, kernel.Product{B: &p.v, C: d.v})
		kernel.Rope(d.q, d.pos, d.cos, d.sin, c.Heads, c.HeadDim, false)
		kernel.Rope(d.k, d.pos, d.cos, d.sin, c.KVHeads, c.HeadDim, false)
		attend(l)
		kernel.GemmPacked(n, d.att, qd, &p.o, d.x, c.Width, true)

		kernel.RMSNorm(d.h, d.rstd, d.x, w.MLPNorm.W, n, c.Width, eps)
		kernel.GemmPackedAll(n, d.h, c.Width, kernel.Product{B: &p.gate, C: d.gate}, kernel.Product{B: &p.up, C: d.up})
		kernel.SwiGLU(d.gate[:n*c.FFN], d.gate, d.up)
		kernel.GemmPacked(n, d.gate, c.FFN, &p.down, d.x, c.Width, true)
	}
}

// attendPrompts is attention within each of the prompts.
func (d *decoder) attendPrompts(layer int) {
	c := &d.model.Config
	kd := c.KVHeads * c.HeadDim
	for i, s := range d.spans {
		cache := &d.ofLayer(d.prompts, layer)[d.which[i]]
		cache.Clear()
		cache.Add(d.k[s.From*kd:], d.v[s.From*kd:], s.To-s.From)
	}
	kernel.Attention(d.att, d.probs, d.q, d.k, d.v, d.spans, c.Heads, c.KVHeads, c.HeadDim, d.scale)
}

// attendStored is attention of each row to its slot's cache.
func (d *decoder) attendStored(layer int) {
	d.at = d.at[:0]
	for _, slot := range d.which {
		d.at = append(d.at, &d.ofLayer(d.caches, layer)[slot])
	}
	kernel.AttentionStep(d.att, d.q, d.k, d.v, d.at, d.model.Config.Heads, d.scale)
}

// head computes the logits [n, V] of the rows of x from first on.
func (d *decoder) head(logits []float32, first, n int) {
	c := &d.model.Config
	kernel.RMSNorm(d.h, d.rstd, d.x[first*c.Width:], d.model.Norm.W, n, c.Width, float32(c.NormEps))
	kernel.GemmPacked(n, d.h, c.Width, &d.packed.head, logits, c.Vocab, false)
}
