package generate

import (
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
)

// packed is a copy of the matrices in the layout that GemmPacked reads, and what norms multiply by.
type packed struct {
	layers []packedLayer
	norm   []float32
	head   kernel.Packed
}

// packedLayer is a layer; a norm that the family does not have is nil.
type packedLayer struct {
	q, k, v, o, gate, up, down                         kernel.Packed
	attnNorm, qNorm, kNorm, attnPost, mlpNorm, mlpPost []float32
}

func (p *packed) pack(m *model.Model) {
	if p.layers == nil {
		p.layers = make([]packedLayer, len(m.Layers))
	}
	c := m.Config
	width, ffn, qd, kd := c.Width, c.FFN, c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	pack := m.Precision().Pack
	for i, l := range m.Layers {
		to := &p.layers[i]
		pack(&to.q, l.Q.W, qd, width, width)
		pack(&to.k, l.K.W, kd, width, width)
		pack(&to.v, l.V.W, kd, width, width)
		pack(&to.o, l.O.W, width, qd, qd)
		pack(&to.gate, l.Gate.W, ffn, width, width)
		pack(&to.up, l.Up.W, ffn, width, width)
		pack(&to.down, l.Down.W, width, ffn, ffn)
		to.attnNorm = m.Gain(l.AttnNorm, to.attnNorm)
		to.qNorm = m.Gain(l.QNorm, to.qNorm)
		to.kNorm = m.Gain(l.KNorm, to.kNorm)
		to.attnPost = m.Gain(l.AttnPost, to.attnPost)
		to.mlpNorm = m.Gain(l.MLPNorm, to.mlpNorm)
		to.mlpPost = m.Gain(l.MLPPost, to.mlpPost)
	}
	p.norm = m.Gain(m.Norm, p.norm)
	pack(&p.head, m.Head.W, c.Vocab, width, width)
}

// A decoder runs rows of tokens through the model. It keeps the keys and values of what went before
// in slots, a sequence each.
//
// A row goes through the same operations in the same order as in the graph that trains the model, so
// its logits are the same bytes.
type decoder struct {
	model  *model.Model
	packed *packed
	gated  func(y, gate, up []float32)
	scale  float32
	reach  []reach        // [L]
	caches []kernel.Cache // [L, slots]
	last   []float32      // [slots, C] what the last token of each slot's prompt became

	// The rows at work. A prompt's stand together; of several rows of a slot the first is at position 0.
	slots []int         // [N]
	pos   []int32       // [N]
	ids   []int32       // [N]
	spans []kernel.Span // of the prompts among the rows; not read where every slot has one row

	x, h     []float32 // [N, C] residual stream; norm's output
	q, att   []float32 // [N, H·D]
	k, v     []float32 // [N, G·D]
	gate, up []float32 // [N, F]
	rstd     []float32 // [N·H]
	probs    []float32
	at       []*kernel.Cache // [N] of the layer at work
}

// reach is what a layer's attention knows of positions: see graph.Reach.
type reach struct {
	cos, sin []float32
	window   int
}

// newDecoder returns a decoder of up to rows rows at a time over slots of so many positions.
func newDecoder(m *model.Model, p *packed, slots, positions, rows int) *decoder {
	c := m.Config
	qd, kd := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	d := &decoder{model: m, packed: p, scale: c.Scale(), gated: kernel.SwiGLU,
		caches: kernel.NewCaches(c.Layers*slots, positions, c.KVHeads, c.HeadDim), last: make([]float32, slots*c.Width),
		slots: make([]int, 0, rows), pos: make([]int32, 0, rows), ids: make([]int32, 0, rows), spans: make([]kernel.Span, 0, rows),
		x: make([]float32, rows*c.Width), h: make([]float32, rows*c.Width),
		q: make([]float32, rows*qd), att: make([]float32, rows*qd), k: make([]float32, rows*kd), v: make([]float32, rows*kd),
		gate: make([]float32, rows*c.FFN), up: make([]float32, rows*c.FFN), rstd: make([]float32, rows*c.Heads),
		probs: make([]float32, kernel.AttentionScratch(rows, c.Heads)),
	}
	if c.Family.GELU() {
		d.gated = kernel.GeGLU
	}
	for l := range m.Layers {
		r := m.Reach(l)
		cos, sin := r.Rope(positions)
		d.reach = append(d.reach, reach{cos, sin, r.Window})
	}
	return d
}

// cache returns a layer's keys and values of a slot.
func (d *decoder) cache(layer, slot int) *kernel.Cache {
	return &d.caches[layer*len(d.caches)/len(d.model.Layers)+slot]
}

func (d *decoder) reset() {
	d.slots, d.pos, d.ids, d.spans = d.slots[:0], d.pos[:0], d.ids[:0], d.spans[:0]
}

func (d *decoder) add(slot, position int, id int32) {
	d.slots, d.pos, d.ids = append(d.slots, slot), append(d.pos, int32(position)), append(d.ids, id)
}

// read runs a prompt for each of some slots through the model, from position 0. Together they have no more
// tokens than the decoder has rows.
func (d *decoder) read(slots []int, prompt func(slot int) []int32) {
	d.reset()
	for _, s := range slots {
		from := len(d.ids)
		for position, id := range prompt(s) {
			d.add(s, position, id)
		}
		d.spans = append(d.spans, kernel.Span{From: from, To: len(d.ids)})
	}
	d.forward(d.attendPrompts)
	width := d.model.Config.Width
	for i, s := range slots {
		copy(d.last[s*width:(s+1)*width], d.x[(d.spans[i].To-1)*width:])
	}
}

// copyPrompt gives a slot the first n positions of another one.
func (d *decoder) copyPrompt(to, from, n int) {
	for l := range d.model.Layers {
		d.cache(l, to).Copy(d.cache(l, from), n)
	}
	width := d.model.Config.Width
	copy(d.last[to*width:(to+1)*width], d.last[from*width:])
}

// recall makes row i of x what the last token of the slot's prompt became.
func (d *decoder) recall(i, slot int) {
	width := d.model.Config.Width
	copy(d.x[i*width:(i+1)*width], d.last[slot*width:])
}

// step runs the rows that were added, each the next one of its slot, through the model.
func (d *decoder) step() { d.forward(d.attendStored) }

// forward computes x, the last hidden state of each row, from ids; attend is its attention.
func (d *decoder) forward(attend func(layer int)) {
	c, n := &d.model.Config, len(d.ids)
	if n == 0 {
		return
	}
	eps := float32(c.NormEps)
	qd, kd := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	for i, id := range d.ids {
		copy(d.x[i*c.Width:(i+1)*c.Width], d.model.Embed.W[int(id)*c.Width:])
	}
	if scale := c.EmbedScale(); scale != 1 {
		kernel.Scale(scale, d.x[:n*c.Width])
	}
	for l := range d.model.Layers {
		p, r := &d.packed.layers[l], &d.reach[l]
		kernel.RMSNorm(d.h, d.rstd, d.x, p.attnNorm, n, c.Width, eps)
		kernel.GemmPacked(n, d.h, c.Width, &p.q, d.q, qd, false)
		kernel.GemmPacked(n, d.h, c.Width, &p.k, d.k, kd, false)
		kernel.GemmPacked(n, d.h, c.Width, &p.v, d.v, kd, false)
		if p.qNorm != nil {
			kernel.RMSNorm(d.q, d.rstd, d.q, p.qNorm, n*c.Heads, c.HeadDim, eps)
			kernel.RMSNorm(d.k, d.rstd, d.k, p.kNorm, n*c.KVHeads, c.HeadDim, eps)
		}
		kernel.Rope(d.q, d.pos, r.cos, r.sin, c.Heads, c.HeadDim, false)
		kernel.Rope(d.k, d.pos, r.cos, r.sin, c.KVHeads, c.HeadDim, false)
		attend(l)
		d.residual(d.att, qd, &p.o, p.attnPost)

		kernel.RMSNorm(d.h, d.rstd, d.x, p.mlpNorm, n, c.Width, eps)
		kernel.GemmPacked(n, d.h, c.Width, &p.gate, d.gate, c.FFN, false)
		kernel.GemmPacked(n, d.h, c.Width, &p.up, d.up, c.FFN, false)
		d.gated(d.gate[:n*c.FFN], d.gate, d.up)
		d.residual(d.gate, c.FFN, &p.down, p.mlpPost)
	}
}

// residual adds a matrix times the rows of y, which is width wide, to x: through a norm if there is one.
func (d *decoder) residual(y []float32, width int, w *kernel.Packed, norm []float32) {
	c, n := &d.model.Config, len(d.ids)
	if norm == nil {
		kernel.GemmPacked(n, y, width, w, d.x, c.Width, true)
		return
	}
	kernel.GemmPacked(n, y, width, w, d.h, c.Width, false)
	kernel.RMSNorm(d.h, d.rstd, d.h, norm, n, c.Width, float32(c.NormEps))
	x := d.x[:n*c.Width]
	kernel.Add(x, x, d.h)
}

// attendPrompts is attention within each prompt among the rows.
func (d *decoder) attendPrompts(layer int) {
	c := &d.model.Config
	kd := c.KVHeads * c.HeadDim
	for _, s := range d.spans {
		cache := d.cache(layer, d.slots[s.From])
		cache.Clear()
		cache.Add(d.k[s.From*kd:], d.v[s.From*kd:], s.To-s.From)
	}
	kernel.Attention(d.att, d.probs, d.q, d.k, d.v, d.spans, c.Heads, c.KVHeads, c.HeadDim, d.scale, d.reach[layer].window)
}

// attendStored is attention of each row to its slot's cache.
func (d *decoder) attendStored(layer int) {
	d.at = d.at[:0]
	for _, slot := range d.slots {
		d.at = append(d.at, d.cache(layer, slot))
	}
	kernel.AttentionStep(d.att, d.q, d.k, d.v, d.at, d.model.Config.Heads, d.scale, d.reach[layer].window)
}

// head computes the logits [n, V] of the rows of x from first on.
func (d *decoder) head(logits []float32, first, n int) {
	c := &d.model.Config
	kernel.RMSNorm(d.h, d.rstd, d.x[first*c.Width:], d.packed.norm, n, c.Width, float32(c.NormEps))
	kernel.GemmPacked(n, d.h, c.Width, &d.packed.head, logits, c.Vocab, false)
}
