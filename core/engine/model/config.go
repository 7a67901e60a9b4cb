package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// ErrFamily says that a config.json describes a family of models that this engine does not build.
var ErrFamily = errors.New("model family not supported")

// Config is the shape of a Llama-family transformer, as a Hugging Face config.json gives it.
type Config struct {
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
	Tied         bool    // the head is the embedding
	InitStd      float64 // standard deviation of fresh matrices
	BOS, Pad     int     // token ids; -1 where there is none
	EOS          []int32 // any of them ends a completion
}

// Rope are the settings of the rotary position embedding.
type Rope struct {
	Theta float64
	Type  string // "default" or "llama3"

	// Of type llama3 only.
	Factor, LowFreqFactor, HighFreqFactor float64
	OriginalMaxPositions                  int
}

// Limits on what a config.json may ask for, so that a hostile one cannot make the engine
// allocate wildly before the tensors have been compared with it.
const (
	maxVocab, maxWidth, maxFFN      = 1 << 21, 1 << 16, 1 << 19
	maxLayers, maxHeads, maxHeadDim = 1024, 4096, 1024
	maxPositions, maxParameters     = 1 << 21, int64(1) << 34
)

// rawConfig holds the keys that change the mathematics, in both spellings.
type rawConfig struct {
	ModelType    *string         `json:"model_type"`
	Vocab        *int            `json:"vocab_size"`
	Width        *int            `json:"hidden_size"`
	FFN          *int            `json:"intermediate_size"`
	Layers       *int            `json:"num_hidden_layers"`
	Heads        *int            `json:"num_attention_heads"`
	KVHeads      *int            `json:"num_key_value_heads"`
	HeadDim      *int            `json:"head_dim"`
	MaxPositions *int            `json:"max_position_embeddings"`
	NormEps      *float64        `json:"rms_norm_eps"`
	Act          *string         `json:"hidden_act"`
	AttnBias     bool            `json:"attention_bias"`
	MLPBias      bool            `json:"mlp_bias"`
	PretrainTP   *int            `json:"pretraining_tp"`
	Tied         bool            `json:"tie_word_embeddings"`
	InitStd      *float64        `json:"initializer_range"`
	Theta        *float64        `json:"rope_theta"`      // transformers 4
	Scaling      *rawRope        `json:"rope_scaling"`    // transformers 4
	Parameters   *rawRope        `json:"rope_parameters"` // transformers 5
	Partial      *float64        `json:"partial_rotary_factor"`
	Window       *int            `json:"sliding_window"`
	UseWindow    *bool           `json:"use_sliding_window"`
	Quantization json.RawMessage `json:"quantization_config"`
	BOS          *int            `json:"bos_token_id"`
	Pad          *int            `json:"pad_token_id"`
	EOS          TokenIDs        `json:"eos_token_id"`
}

type rawRope struct {
	Theta    *float64 `json:"rope_theta"`
	Type     *string  `json:"rope_type"`
	OldType  *string  `json:"type"`
	Factor   *float64 `json:"factor"`
	Low      *float64 `json:"low_freq_factor"`
	High     *float64 `json:"high_freq_factor"`
	Original *int     `json:"original_max_position_embeddings"`
	Partial  *float64 `json:"partial_rotary_factor"`
}

// ParseConfig reads a config.json in the spelling of transformers 4 (rope_theta,
// rope_scaling) or 5 (rope_parameters). Keys that do not change the mathematics are ignored.
//
// Errors: [ErrFamily] (wrapped) where model_type is not llama; else an error naming the key
// whose value is missing, out of range or not supported.
func ParseConfig(data []byte) (Config, error) {
	var r rawConfig
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&r); err != nil {
		return Config{}, fmt.Errorf("read config.json: %w", err)
	}
	if r.ModelType == nil {
		return Config{}, fmt.Errorf("read config.json: there is no model_type; is this a Hugging Face model directory?")
	}
	if *r.ModelType != "llama" {
		return Config{}, fmt.Errorf("read config.json: %w: model_type is %q, and only llama is built", ErrFamily, *r.ModelType)
	}
	if err := r.refuse(); err != nil {
		return Config{}, fmt.Errorf("read config.json: %w", err)
	}
	c := Config{
		Vocab: or(r.Vocab, 0), Width: or(r.Width, 0), FFN: or(r.FFN, 0), Layers: or(r.Layers, 0), Heads: or(r.Heads, 0),
		MaxPositions: or(r.MaxPositions, 2048), NormEps: or(r.NormEps, 1e-6), Tied: r.Tied,
		InitStd: or(r.InitStd, 0.02), BOS: or(r.BOS, -1), Pad: or(r.Pad, -1), EOS: r.EOS,
	}
	c.KVHeads = or(r.KVHeads, c.Heads)
	if c.HeadDim = or(r.HeadDim, 0); r.HeadDim == nil && c.Heads > 0 {
		c.HeadDim = c.Width / c.Heads
		if c.HeadDim*c.Heads != c.Width {
			return Config{}, fmt.Errorf("read config.json: hidden_size %d is not a multiple of num_attention_heads %d, and head_dim is not given", c.Width, c.Heads)
		}
	}
	var err error
	if c.Rope, err = r.rope(); err != nil {
		return Config{}, fmt.Errorf("read config.json: %w", err)
	}
	if err := c.Validate(); err != nil {
		return Config{}, fmt.Errorf("read config.json: %w", err)
	}
	return c, nil
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// refuse names the first setting that would change the mathematics in a way that is not built.
func (r *rawConfig) refuse() error {
	switch {
	case or(r.Act, "silu") != "silu":
		return fmt.Errorf("hidden_act %q is not supported, only silu", *r.Act)
	case r.AttnBias:
		return errors.New("attention_bias true is not supported")
	case r.MLPBias:
		return errors.New("mlp_bias true is not supported")
	case or(r.PretrainTP, 1) > 1:
		return fmt.Errorf("pretraining_tp %d is not supported, only 1", *r.PretrainTP)
	case or(r.Partial, 1) != 1:
		return fmt.Errorf("partial_rotary_factor %v is not supported, only 1", *r.Partial)
	case r.Window != nil && or(r.UseWindow, true):
		return fmt.Errorf("sliding_window %d is not supported", *r.Window)
	case len(r.Quantization) > 0 && string(r.Quantization) != "null":
		return errors.New("quantization_config is not supported: save the model unquantized first")
	}
	return nil
}

// rope merges the two spellings; the newer one wins where both are there.
func (r *rawConfig) rope() (Rope, error) {
	raw, key := r.Parameters, "rope_parameters"
	if raw == nil {
		raw, key = r.Scaling, "rope_scaling"
	}
	if raw == nil {
		raw = &rawRope{}
	}
	rope := Rope{Theta: or(raw.Theta, or(r.Theta, 10000)), Type: or(raw.Type, or(raw.OldType, "default"))}
	if or(raw.Partial, 1) != 1 {
		return Rope{}, fmt.Errorf("%s.partial_rotary_factor %v is not supported, only 1", key, *raw.Partial)
	}
	switch rope.Type {
	case "default":
		return rope, nil
	case "llama3":
		if raw.Factor == nil || raw.Low == nil || raw.High == nil || raw.Original == nil {
			return Rope{}, fmt.Errorf("%s of type llama3 needs factor, low_freq_factor, high_freq_factor and original_max_position_embeddings", key)
		}
		rope.Factor, rope.LowFreqFactor, rope.HighFreqFactor, rope.OriginalMaxPositions = *raw.Factor, *raw.Low, *raw.High, *raw.Original
		return rope, nil
	}
	return Rope{}, fmt.Errorf("%s.rope_type %q is not supported, only default and llama3", key, rope.Type)
}

// TokenIDs are token ids, written in JSON as one id, a list of them, or null.
type TokenIDs []int32

// UnmarshalJSON implements [json.Unmarshaler].
func (ids *TokenIDs) UnmarshalJSON(data []byte) error {
	var one *int32
	if err := json.Unmarshal(data, &one); err == nil {
		if *ids = nil; one != nil {
			*ids = TokenIDs{*one}
		}
		return nil
	}
	var many []int32
	if err := json.Unmarshal(data, &many); err != nil {
		return fmt.Errorf("want a token id or a list of them, got %s", data)
	}
	if *ids = many; len(many) == 0 {
		*ids = nil // an empty list is written as null
	}
	return nil
}

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
	case !(c.Rope.Theta > 1 && c.Rope.Theta < 1e15):
		return fmt.Errorf("rope_theta is %v, want more than 1", c.Rope.Theta)
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
	return c.Rope.validate()
}

func (r Rope) validate() error {
	switch r.Type {
	case "default":
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
	return fmt.Errorf("rope_type %q is not supported, only default and llama3", r.Type)
}

// Parameters returns the number of trained values; a tied head is counted once.
func (c Config) Parameters() int64 {
	v, w, f, l := int64(c.Vocab), int64(c.Width), int64(c.FFN), int64(c.Layers)
	q, kv := int64(c.Heads)*int64(c.HeadDim), int64(c.KVHeads)*int64(c.HeadDim)
	n := v*w + w + l*(2*w+2*q*w+2*kv*w+3*f*w)
	if !c.Tied {
		n += v * w
	}
	return n
}

// JSON returns a config.json that transformers 4 and 5 both load: the rope settings and the
// stored number type, dtype (float32 or bfloat16), stand in it in either spelling.
func (c Config) JSON(dtype string) ([]byte, error) {
	rope := map[string]any{"rope_type": c.Rope.Type, "rope_theta": c.Rope.Theta}
	var scaling any // transformers 4 has none where the rope is the default one
	if c.Rope.Type == "llama3" {
		s := map[string]any{"rope_type": "llama3", "factor": c.Rope.Factor, "low_freq_factor": c.Rope.LowFreqFactor,
			"high_freq_factor": c.Rope.HighFreqFactor, "original_max_position_embeddings": c.Rope.OriginalMaxPositions}
		for k, v := range s {
			rope[k] = v
		}
		scaling = s
	}
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
	return json.MarshalIndent(map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama",
		"vocab_size": c.Vocab, "hidden_size": c.Width, "intermediate_size": c.FFN, "num_hidden_layers": c.Layers,
		"num_attention_heads": c.Heads, "num_key_value_heads": c.KVHeads, "head_dim": c.HeadDim,
		"max_position_embeddings": c.MaxPositions, "rms_norm_eps": c.NormEps, "initializer_range": c.InitStd,
		"hidden_act": "silu", "attention_bias": false, "mlp_bias": false, "attention_dropout": 0.0, "pretraining_tp": 1,
		"tie_word_embeddings": c.Tied, "use_cache": true,
		"rope_theta": c.Rope.Theta, "rope_scaling": scaling, "rope_parameters": rope,
		"torch_dtype": dtype, "dtype": dtype,
		"bos_token_id": id(c.BOS), "pad_token_id": id(c.Pad), "eos_token_id": eos,
	}, "", "  ")
}
