package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/engine/weights"
)

func tiny(tied bool) Config {
	return Config{Vocab: 11, Width: 8, FFN: 12, Layers: 2, Heads: 2, KVHeads: 1, HeadDim: 4, MaxPositions: 32, NormEps: 1e-5,
		Rope: Rope{Theta: 10000, Type: "default"}, Tied: tied, InitStd: 0.02, BOS: -1, Pad: -1}
}

func TestNew(t *testing.T) {
	m, err := New(tiny(false), 7)
	if err != nil {
		t.Fatal(err)
	}
	// 11·8 twice, norms 5·8, and 2·(8·8 q + 4·8 k + 4·8 v + 8·8 o + 3·8·12) = 176 + 40 + 960
	n := 0
	for _, p := range m.Params().All {
		n += len(p.W)
	}
	if n != 1176 || tiny(false).Parameters() != 1176 {
		t.Errorf("the model has %d parameters and Parameters says %d, want 1176", n, tiny(false).Parameters())
	}
	if got := []float32{m.Norm.W[0], m.Layers[1].AttnNorm.W[7], m.Layers[0].MLPNorm.W[3]}; !slices.Equal(got, []float32{1, 1, 1}) {
		t.Errorf("fresh norms are %v, want 1", got)
	}
	sum := 0.0
	for _, w := range m.Layers[0].Gate.W {
		sum += float64(w) * float64(w)
	}
	// 96 values of standard deviation 0.02: their root mean square is off by 0.02/√192 = 0.0014, five times that at most.
	if rms := math.Sqrt(sum / 96); math.Abs(rms-0.02) > 0.007 {
		t.Errorf("the root mean square of a fresh matrix is %v, want 0.02", rms)
	}
	again, _ := New(tiny(false), 7)
	other, _ := New(tiny(false), 8)
	if !slices.Equal(m.Params().W, again.Params().W) || slices.Equal(m.Params().W, other.Params().W) {
		t.Error("weights do not follow from the seed alone")
	}
	if m.Head == m.Embed {
		t.Error("an untied head is the embedding")
	}
	tied, _ := New(tiny(true), 7)
	if tied.Head != tied.Embed || tiny(true).Parameters() != 1176-88 {
		t.Error("a tied head is not the embedding")
	}
}

// Families have parameters that Llama has not, and fresh norms that multiply by 1 all the same.
func TestNewOfEachFamily(t *testing.T) {
	for f, want := range map[Family]int{
		Mistral: 1176, Qwen3: 1176 + 2*(4+4), Gemma3: 1176 + 2*(4+4) + 2*(8+8), // of 2 layers: norms of 4 or 8
	} {
		c := tiny(false)
		c.Family, c.Window, c.Sliding, c.LocalRope = f, 3, []bool{true, false}, Rope{Theta: 100, Type: "default"}
		if f == Gemma3 {
			c.QueryScalar = 9
		}
		m, err := New(c, 7)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, p := range m.Params().All {
			n += len(p.W)
			if len(p.Shape) == 1 {
				gain := p.Gain(f.PlusOne(), new([]float32))
				if slices.ContainsFunc(gain, func(g float32) bool { return g != 1 }) {
					t.Errorf("%v: a fresh %s multiplies by %v, want 1", f, p.Name, gain)
				}
			}
		}
		if n != want || c.Parameters() != int64(want) {
			t.Errorf("%v has %d parameters and Parameters says %d, want %d", f, n, c.Parameters(), want)
		}
		local, global := m.Reach(0), m.Reach(1)
		_, a := local.Rope(2)
		_, b := global.Rope(2)
		// Position 1, pair 1 of D = 4: the angles are 100^(-1/2) and 10000^(-1/2).
		if math.Abs(float64(a[3])-math.Sin(0.1)) > 1e-7 || math.Abs(float64(b[3])-math.Sin(0.01)) > 1e-7 {
			t.Errorf("%v: sines %v where it slides and %v where it does not, want those of 0.1 and 0.01", f, a[3], b[3])
		}
		if local.Window != 3 || global.Window != 0 {
			t.Errorf("%v: windows are %d and %d, want 3 and none", f, local.Window, global.Window)
		}
	}
}

// TestNewIsTheSameInEveryVersion holds the first weights of a seed: a run's record names a seed only.
func TestNewIsTheSameInEveryVersion(t *testing.T) {
	m, err := New(tiny(true), 7)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, p := range m.Params().All {
		_ = binary.Write(&b, binary.LittleEndian, p.W)
	}
	sum := sha256.Sum256(b.Bytes())
	const want = "195b44e9295adacc"
	if got := hex.EncodeToString(sum[:8]); got != want {
		t.Errorf("the weights of seed 7 begin their sha256 with %s, recorded %s", got, want)
	}
}

func TestFromWeights(t *testing.T) {
	m, err := New(tiny(false), 7)
	if err != nil {
		t.Fatal(err)
	}
	without := func(name string) []weights.Out {
		return slices.DeleteFunc(m.Tensors(weights.F32), func(o weights.Out) bool { return o.Name == name })
	}
	reshaped := m.Tensors(weights.F32)
	reshaped[2].Shape = []int{4, 16}
	for name, c := range map[string]struct {
		config  Config
		tensors []weights.Out
		says    string
	}{
		"as it was written":            {tiny(false), m.Tensors(weights.F32), ""},
		"a spare head beside a tie":    {tiny(true), m.Tensors(weights.F32), ""},
		"a tensor is missing":          {tiny(false), without("model.layers.1.mlp.up_proj.weight"), "no tensor model.layers.1.mlp.up_proj.weight"},
		"the head is missing":          {tiny(false), without("lm_head.weight"), "no tensor lm_head.weight"},
		"a tensor has another shape":   {tiny(false), reshaped, "self_attn.q_proj.weight has shape [4 16], config.json asks for [8 8]"},
		"the configuration lies large": {func() Config { c := tiny(false); c.Vocab = 1 << 21; return c }(), m.Tensors(weights.F32), "model.embed_tokens.weight has shape [11 8]"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "model.safetensors")
			if err := weights.Write(path, c.tensors, nil); err != nil {
				t.Fatal(err)
			}
			f, err := weights.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, err := FromWeights(c.config, f)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("the error is %v, want one that says %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, p := range got.Params().All {
				if !slices.Equal(p.W, m.Params().All[i].W) {
					t.Errorf("%s is not what was written", p.Name)
				}
			}
			before := got.Version()
			if err := got.Read(f); err != nil || got.Version() == before {
				t.Errorf("read again: error %v, version %d and %d", err, before, got.Version())
			}
		})
	}
}

func TestFrequencies(t *testing.T) {
	// theta 10000, D 8: 10000^(-i/4) = 1, 0.1, 0.01, 0.001
	want := []float32{1, 0.1, 0.01, 0.001}
	for i, f := range (Rope{Theta: 10000, Type: "default"}).Frequencies(8) {
		if math.Abs(float64(f-want[i])) > 1e-7 {
			t.Errorf("frequency %d is %v, want %v", i, f, want[i])
		}
	}
	// linear, factor 8
	for i, f := range (Rope{Theta: 10000, Type: "linear", Factor: 8}).Frequencies(8) {
		if math.Abs(float64(f-want[i]/8)) > 1e-8 {
			t.Errorf("linear frequency %d is %v, want %v", i, f, want[i]/8)
		}
	}
	// llama3, factor 8, low 1, high 4, original 256: wavelengths 2π, 62.8, 628, 6283. Below 256/4 = 64 a frequency is
	// kept, above 256/1 it is divided by 8.
	r := Rope{Theta: 10000, Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositions: 256}
	want = []float32{1, 0.1, 0.01 / 8, 0.001 / 8}
	for i, f := range r.Frequencies(8) {
		if math.Abs(float64(f-want[i])) > 1e-7 {
			t.Errorf("llama3 frequency %d is %v, want %v", i, f, want[i])
		}
	}
	// Between: original 128 puts 62.8 between 32 and 128. s = (128/62.832 - 1)/3 = 0.345727; 0.1·((1-s)/8 + s) = 0.0427511
	r.OriginalMaxPositions = 128
	if f := r.Frequencies(8)[1]; math.Abs(float64(f)-0.0427511) > 1e-6 {
		t.Errorf("a blended frequency is %v, want 0.0427511", f)
	}
}

func TestRopeTablesGrowAndStayValid(t *testing.T) {
	m, err := New(tiny(true), 1)
	if err != nil {
		t.Fatal(err)
	}
	cos, sin := m.rope.upTo(5)
	old := slices.Clone(cos)
	grown, _ := m.rope.upTo(1000)
	if !slices.Equal(cos, old) || !slices.Equal(grown[:len(old)], old) {
		t.Error("growth changed what was handed out")
	}
	// Position 3, pair 1 of D = 4: the angle is 3·10000^(-1/2) = 0.03
	if c, s := float64(cos[3*2+1]), float64(sin[3*2+1]); math.Abs(c-math.Cos(0.03)) > 1e-7 || math.Abs(s-math.Sin(0.03)) > 1e-7 {
		t.Errorf("cosine and sine at position 3 are %v and %v, want those of 0.03", c, s)
	}
}
