package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// ErrFamily says that a config.json describes a family of models that this engine does not build.
var ErrFamily = errors.New("model family not supported")

// Config is the shape of a transformer, as a Hugging Face config.json gives it.
type Config struct {
	Family       Family
	Vocab        int // V, rows of the embedding
	Width        int // C, model width
	FFN          int // F, feed-forward width
	Layers       int // L
	Heads        int // H, query heads
	KVHeads      int // G, key-value heads; H is a multiple of it
	HeadDim      int // D, width of a head, even
	MaxPositions int // longest sequence, tokens
	NormEps      float64
	Rope         Rope
	QueryScalar  float64 // attention's scores are divided by its root; 0: HeadDim
	Window       int     // positions that a row of a sliding layer sees, itself included; 0 where no layer slides
	Sliding      []bool  // [L] the layers that slide; nil where none does
	LocalRope    Rope    // of these layers
	Tied         bool    // the head is the embedding
	InitStd      float64 // standard deviation of fresh matrices
	BOS, Pad     int     // token ids; -1 where there is none
	EOS          []int32 // any of them ends a completion
}

// Rope are the settings of the rotary position embedding.
type Rope struct {
	Theta float64
	Type  string // "default", "linear" or "llama3"

	Factor float64 // of types linear and llama3

	// Of type llama3 only.
	LowFreqFactor, HighFreqFactor float64
	OriginalMaxPositions          int
}

// Slides reports whether a layer sees the last Window positions only.
func (c Config) Slides(layer int) bool { return c.Sliding != nil && c.Sliding[layer] }

// Scale is what attention's scores are multiplied by.
func (c Config) Scale() float32 {
	scalar := c.QueryScalar
	if scalar == 0 {
		scalar = float64(c.HeadDim)
	}
	return float32(1 / math.Sqrt(scalar))
}

// EmbedScale is what the embedding is multiplied by, rounded to float32 as transformers does.
func (c Config) EmbedScale() float32 {
	if c.Family != Gemma3 {
		return 1
	}
	return float32(math.Sqrt(float64(c.Width)))
}

// Limits on what a config.json may ask for, so that a hostile one cannot make the engine
// allocate wildly before the tensors have been compared with it.
const (
	maxVocab, maxWidth, maxFFN      = 1 << 21, 1 << 16, 1 << 19
	maxLayers, maxHeads, maxHeadDim = 1024, 4096, 1024
	maxPositions, maxParameters     = 1 << 21, int64(1) << 34
)

// Validate returns an error naming the first setting that is out of range.
func (c Config) Validate() error {
	for _, f := range []struct {
		key      string
		v, limit int
	}{
		{"vocab_size", c.Vocab, maxVocab}, {"hidden_size", c.Width, maxWidth}, {"intermediate_size", c.FFN, maxFFN},
		{"num_hidden_layers", c.Layers, maxLayers}, {"num_attention_heads", c.Heads, maxHeads},
		{"num_key_value_heads", c.KVHeads, maxHeads}, {"head_dim", c.HeadDim, maxHeadDim},
		{"max_position_embeddings", c.MaxPositions, maxPositions},
	} {
		if f.v < 1 || f.v > f.limit {
			return fmt.Errorf("%s is %d, want 1 to %d", f.key, f.v, f.limit)
		}
	}
	switch {
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("num_attention_heads %d is not a multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	case c.HeadDim%2 != 0:
		return fmt.Errorf("head_dim %d is odd: rotary positions need pairs", c.HeadDim)
	case !(c.NormEps > 0 && c.NormEps < 1):
		return fmt.Errorf("rms_norm_eps is %v, want between 0 and 1", c.NormEps)
	case !(c.InitStd >= 0 && c.InitStd < 10):
		return fmt.Errorf("initializer_range is %v, want 0 to 10", c.InitStd)
	case int(c.Family) >= len(families):
		return fmt.Errorf("there is no family %d", c.Family)
	case !(c.QueryScalar >= 0 && c.QueryScalar < 1e9) || c.Family == Gemma3 && c.QueryScalar == 0:
		return fmt.Errorf("query_pre_attn_scalar is %v, want more than 0", c.QueryScalar)
	case c.Sliding != nil && (c.Window < 1 || c.Window > maxPositions):
		return fmt.Errorf("sliding_window is %d, want 1 to %d", c.Window, maxPositions)
	case c.Sliding != nil && len(c.Sliding) != c.Layers || c.Sliding == nil && c.Window != 0:
		return fmt.Errorf("%d layers are said to slide or not, in a window of %d, of num_hidden_layers %d", len(c.Sliding), c.Window, c.Layers)
	case c.BOS >= c.Vocab || c.Pad >= c.Vocab:
		return fmt.Errorf("bos_token_id %d or pad_token_id %d is not below vocab_size %d", c.BOS, c.Pad, c.Vocab)
	}
	for _, id := range c.EOS {
		if id < 0 || int(id) >= c.Vocab {
			return fmt.Errorf("eos_token_id %d is not between 0 and vocab_size %d", id, c.Vocab)
		}
	}
	if n := c.Parameters(); n > maxParameters {
		return fmt.Errorf("the model would have %d parameters, more than %d", n, maxParameters)
	}
	if err := c.Rope.validate(); err != nil {
		return err
	}
	if c.Sliding != nil {
		return c.LocalRope.validate()
	}
	return nil
}

func (r Rope) validate() error {
	if !(r.Theta > 1 && r.Theta < 1e15) {
		return fmt.Errorf("rope_theta is %v, want more than 1", r.Theta)
	}
	switch r.Type {
	case "default":
		return nil
	case "linear":
		if !(r.Factor >= 1 && r.Factor <= 1e6) {
			return fmt.Errorf("rope of type linear: want factor >= 1, got %v", r.Factor)
		}
		return nil
	case "llama3":
		ok := r.Factor >= 1 && r.Factor <= 1e6 && r.LowFreqFactor > 0 && r.HighFreqFactor > r.LowFreqFactor &&
			!math.IsInf(r.HighFreqFactor, 0) && r.OriginalMaxPositions > 0
		if !ok {
			return fmt.Errorf("rope of type llama3: want factor >= 1, 0 < low_freq_factor < high_freq_factor and original_max_position_embeddings > 0, got %v, %v, %v and %d",
				r.Factor, r.LowFreqFactor, r.HighFreqFactor, r.OriginalMaxPositions)
		}
		return nil
	}
	return fmt.Errorf("rope_type %q is not supported, only default, linear and llama3", r.Type)
}

// Parameters returns the number of trained values; a tied head is counted once.
func (c Config) Parameters() int64 {
	v, w, f, l := int64(c.Vocab), int64(c.Width), int64(c.FFN), int64(c.Layers)
	q, kv := int64(c.Heads)*int64(c.HeadDim), int64(c.KVHeads)*int64(c.HeadDim)
	n := v*w + w + l*(2*w+2*q*w+2*kv*w+3*f*w)
	if c.Family.HeadNorms() {
		n += 2 * l * int64(c.HeadDim)
	}
	if c.Family.PostNorms() {
		n += 2 * l * w
	}
	if !c.Tied {
		n += v * w
	}
	return n
}

// JSON returns a config.json that transformers 4 and 5 both load: the rope settings and the
// stored number type, dtype (float32 or bfloat16), stand in it in either spelling.
func (c Config) JSON(dtype string) ([]byte, error) {
	rope, scaling := c.Rope.json()
	id := func(n int) any {
		if n < 0 {
			return nil
		}
		return n
	}
	var eos any
	if len(c.EOS) == 1 {
		eos = c.EOS[0]
	} else if len(c.EOS) > 1 {
		eos = c.EOS
	}
	keys := map[string]any{
		"architectures": []string{families[c.Family].class}, "model_type": c.Family.String(),
		"vocab_size": c.Vocab, "hidden_size": c.Width, "intermediate_size": c.FFN, "num_hidden_layers": c.Layers,
		"num_attention_heads": c.Heads, "num_key_value_heads": c.KVHeads, "head_dim": c.HeadDim,
		"max_position_embeddings": c.MaxPositions, "rms_norm_eps": c.NormEps, "initializer_range": c.InitStd,
		"hidden_act": "silu", "attention_bias": false, "attention_dropout": 0.0,
		"tie_word_embeddings": c.Tied, "use_cache": true,
		"rope_theta": c.Rope.Theta, "rope_scaling": scaling, "rope_parameters": rope,
		"torch_dtype": dtype, "dtype": dtype,
		"bos_token_id": id(c.BOS), "pad_token_id": id(c.Pad), "eos_token_id": eos,
	}
	var window any
	if c.Window > 0 {
		window = c.Window
	}
	switch c.Family {
	case Llama:
		keys["mlp_bias"], keys["pretraining_tp"] = false, 1
	case Mistral:
		keys["sliding_window"] = window
	case Qwen3:
		keys["sliding_window"], keys["use_sliding_window"], keys["layer_types"] = window, c.Window > 0, c.layerTypes()
		keys["max_window_layers"] = c.Layers
		if i := slices.Index(c.Sliding, true); i >= 0 {
			keys["max_window_layers"] = i
		}
	case Gemma3:
		delete(keys, "hidden_act")
		keys["hidden_activation"], keys["query_pre_attn_scalar"] = "gelu_pytorch_tanh", c.QueryScalar
		keys["attn_logit_softcapping"], keys["final_logit_softcapping"], keys["use_bidirectional_attention"] = nil, nil, false
		keys["sliding_window"], keys["layer_types"] = window, c.layerTypes()
		local := Rope{Theta: 10000, Type: "default"}
		if c.Sliding != nil {
			local = c.LocalRope
		}
		keys["rope_local_base_freq"] = local.Theta
		sliding, _ := local.json()
		keys["rope_parameters"] = map[string]any{"full_attention": rope, "sliding_attention": sliding}
		if every := slices.Index(c.Sliding, false) + 1; every > 0 { // as those read it who do not know layer_types
			keys["sliding_window_pattern"] = every
		}
	}
	return json.MarshalIndent(keys, "", "  ")
}

// layerTypes names the kind of each layer.
func (c Config) layerTypes() []string {
	kinds := make([]string, c.Layers)
	for i := range kinds {
		if kinds[i] = "full_attention"; c.Slides(i) {
			kinds[i] = "sliding_attention"
		}
	}
	return kinds
}

// json returns the settings in the spelling of transformers 5, and what transformers 4 has beside the theta: null where
// the rope is the default one.
func (r Rope) json() (parameters map[string]any, scaling any) {
	parameters = map[string]any{"rope_type": r.Type, "rope_theta": r.Theta}
	if r.Type == "default" {
		return parameters, nil
	}
	s := map[string]any{"rope_type": r.Type, "factor": r.Factor}
	if r.Type == "llama3" {
		s["low_freq_factor"], s["high_freq_factor"] = r.LowFreqFactor, r.HighFreqFactor
		s["original_max_position_embeddings"] = r.OriginalMaxPositions
	}
	for k, v := range s {
		parameters[k] = v
	}
	return parameters, s
}
