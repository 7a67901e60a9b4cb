package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// rawConfig holds the keys that change the mathematics, in both spellings.
type rawConfig struct {
	ModelType     *string         `json:"model_type"`
	Vocab         *int            `json:"vocab_size"`
	Width         *int            `json:"hidden_size"`
	FFN           *int            `json:"intermediate_size"`
	Layers        *int            `json:"num_hidden_layers"`
	Heads         *int            `json:"num_attention_heads"`
	KVHeads       *int            `json:"num_key_value_heads"`
	HeadDim       *int            `json:"head_dim"`
	MaxPositions  *int            `json:"max_position_embeddings"`
	NormEps       *float64        `json:"rms_norm_eps"`
	Act           *string         `json:"hidden_act"`
	Activation    *string         `json:"hidden_activation"` // Gemma's
	AttnBias      bool            `json:"attention_bias"`
	MLPBias       bool            `json:"mlp_bias"`
	PretrainTP    *int            `json:"pretraining_tp"`
	Tied          bool            `json:"tie_word_embeddings"`
	InitStd       *float64        `json:"initializer_range"`
	Theta         *float64        `json:"rope_theta"`           // transformers 4
	Scaling       *rawRope        `json:"rope_scaling"`         // transformers 4
	LocalTheta    *float64        `json:"rope_local_base_freq"` // transformers 4
	Parameters    *rawRope        `json:"rope_parameters"`      // transformers 5
	Partial       *float64        `json:"partial_rotary_factor"`
	Window        *int            `json:"sliding_window"`
	UseWindow     *bool           `json:"use_sliding_window"`
	FullLayers    *int            `json:"max_window_layers"` // that come before those which slide
	LayerTypes    []string        `json:"layer_types"`
	Pattern       *int            `json:"sliding_window_pattern"`
	QueryScalar   *float64        `json:"query_pre_attn_scalar"`
	AttnCap       *float64        `json:"attn_logit_softcapping"`
	LogitCap      *float64        `json:"final_logit_softcapping"`
	Bidirectional *bool           `json:"use_bidirectional_attention"`
	Quantization  json.RawMessage `json:"quantization_config"`
	BOS           *int            `json:"bos_token_id"`
	Pad           *int            `json:"pad_token_id"`
	EOS           TokenIDs        `json:"eos_token_id"`
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

	// Gemma's, one for each kind of layer in place of the keys above.
	Full    *rawRope `json:"full_attention"`
	Sliding *rawRope `json:"sliding_attention"`
}

// ParseConfig reads a config.json in the spelling of transformers 4 (rope_theta,
// rope_scaling) or 5 (rope_parameters). Keys that do not change the mathematics are ignored.
//
// Errors: [ErrFamily] (wrapped) where model_type is not one of the families; else an error naming the key
// whose value is missing, out of range or not supported.
func ParseConfig(data []byte) (Config, error) {
	c, err := parse(data)
	if err != nil {
		return Config{}, fmt.Errorf("read config.json: %w", err)
	}
	return c, nil
}

func parse(data []byte) (Config, error) {
	var head struct {
		ModelType *string `json:"model_type"`
	}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&head); err != nil {
		return Config{}, err
	}
	if head.ModelType == nil {
		return Config{}, errors.New("there is no model_type; is this a Hugging Face model directory?")
	}
	var names []string
	for f := range families {
		names = append(names, Family(f).String())
	}
	at := slices.Index(names, *head.ModelType)
	if at < 0 {
		return Config{}, fmt.Errorf("%w: model_type is %q, and only %s are built", ErrFamily, *head.ModelType, strings.Join(names, ", "))
	}
	f := Family(at)
	r := f.defaults()
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&r); err != nil {
		return Config{}, err
	}
	if err := r.refuse(f); err != nil {
		return Config{}, err
	}
	c := Config{
		Family: f, Vocab: or(r.Vocab, 0), Width: or(r.Width, 0), FFN: or(r.FFN, 0), Layers: or(r.Layers, 0), Heads: or(r.Heads, 0),
		MaxPositions: or(r.MaxPositions, 2048), NormEps: or(r.NormEps, 1e-6), Tied: r.Tied,
		InitStd: or(r.InitStd, 0.02), BOS: or(r.BOS, -1), Pad: or(r.Pad, -1), EOS: r.EOS,
	}
	if f == Gemma3 {
		c.QueryScalar = or(r.QueryScalar, 0)
	}
	c.KVHeads = or(r.KVHeads, c.Heads)
	if c.HeadDim = or(r.HeadDim, 0); r.HeadDim == nil && c.Heads > 0 {
		c.HeadDim = c.Width / c.Heads
		if c.HeadDim*c.Heads != c.Width {
			return Config{}, fmt.Errorf("hidden_size %d is not a multiple of num_attention_heads %d, and head_dim is not given", c.Width, c.Heads)
		}
	}
	var err error
	if c.Rope, c.LocalRope, err = r.ropes(f); err != nil {
		return Config{}, err
	}
	if c.Sliding, err = r.sliding(f, c.Layers); err != nil {
		return Config{}, err
	}
	if c.Sliding == nil {
		c.LocalRope = Rope{}
	} else if r.Window == nil {
		return Config{}, errors.New("layers slide, but sliding_window is null")
	} else {
		c.Window = *r.Window
	}
	return c, c.Validate()
}

// defaults are the values of keys that a config.json may leave out, as transformers has them. (A key that is null is
// not left out.)
func (f Family) defaults() rawConfig {
	set := func(positions, kvHeads, window int) rawConfig {
		return rawConfig{MaxPositions: &positions, KVHeads: &kvHeads, Window: &window}
	}
	switch f {
	case Mistral:
		return set(131072, 8, 4096)
	case Qwen3:
		r := set(32768, 32, 4096)
		headDim, use, full := 128, false, 28
		r.HeadDim, r.UseWindow, r.FullLayers = &headDim, &use, &full
		return r
	case Gemma3:
		r := set(131072, 4, 4096)
		headDim, scalar, pattern := 256, 256.0, 6
		r.HeadDim, r.QueryScalar, r.Pattern, r.Tied = &headDim, &scalar, &pattern, true
		return r
	}
	return rawConfig{}
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// refuse names the first setting that would change the mathematics in a way that is not built.
func (r *rawConfig) refuse(f Family) error {
	act, key, want := r.Act, "hidden_act", "silu"
	if f.GELU() {
		act, key, want = r.Activation, "hidden_activation", "gelu_pytorch_tanh"
	}
	switch {
	case or(act, want) != want:
		return fmt.Errorf("%s %q is not supported, only %s", key, *act, want)
	case r.AttnBias:
		return errors.New("attention_bias true is not supported")
	case r.MLPBias:
		return errors.New("mlp_bias true is not supported")
	case or(r.PretrainTP, 1) > 1:
		return fmt.Errorf("pretraining_tp %d is not supported, only 1", *r.PretrainTP)
	case or(r.Partial, 1) != 1:
		return fmt.Errorf("partial_rotary_factor %v is not supported, only 1", *r.Partial)
	case f == Llama && r.Window != nil && or(r.UseWindow, true):
		return fmt.Errorf("sliding_window %d is not supported for llama", *r.Window)
	case r.AttnCap != nil:
		return fmt.Errorf("attn_logit_softcapping %v is not supported", *r.AttnCap)
	case r.LogitCap != nil:
		return fmt.Errorf("final_logit_softcapping %v is not supported", *r.LogitCap)
	case or(r.Bidirectional, false):
		return errors.New("use_bidirectional_attention true is not supported")
	case len(r.Quantization) > 0 && string(r.Quantization) != "null":
		return errors.New("quantization_config is not supported: save the model unquantized first")
	}
	return nil
}

// sliding says which layers slide; nil where none does.
func (r *rawConfig) sliding(f Family, layers int) ([]bool, error) {
	if f == Llama || f == Mistral && r.Window == nil || layers < 1 || layers > maxLayers {
		return nil, nil
	}
	if r.LayerTypes != nil && f != Mistral && len(r.LayerTypes) != layers {
		return nil, fmt.Errorf("layer_types has %d entries for num_hidden_layers %d", len(r.LayerTypes), layers)
	}
	slides := make([]bool, layers)
	for i := range slides {
		switch {
		case f == Mistral:
			slides[i] = true
		case r.LayerTypes != nil:
			switch kind := r.LayerTypes[i]; kind {
			case "sliding_attention":
				slides[i] = true
			case "full_attention":
			default:
				return nil, fmt.Errorf("layer_types has %q, only full_attention and sliding_attention are supported", kind)
			}
		case f == Qwen3:
			slides[i] = or(r.UseWindow, false) && r.Window != nil && i >= or(r.FullLayers, 0)
		default:
			every := or(r.Pattern, 1)
			if every < 1 {
				return nil, fmt.Errorf("sliding_window_pattern is %d, want at least 1", every)
			}
			slides[i] = (i+1)%every != 0
		}
	}
	switch {
	case !slices.Contains(slides, true):
		return nil, nil
	case f == Qwen3 && !or(r.UseWindow, false):
		return nil, errors.New("layer_types has sliding_attention, but use_sliding_window is false")
	}
	return slides, nil
}

// ropes merges the two spellings; the newer one wins where both are there. local is that of the layers that slide.
func (r *rawConfig) ropes(f Family) (rope, local Rope, err error) {
	p := r.Parameters
	if f != Gemma3 {
		raw, key := p, "rope_parameters"
		if raw == nil {
			raw, key = r.Scaling, "rope_scaling"
		} else if raw.Full != nil || raw.Sliding != nil {
			return rope, local, fmt.Errorf("rope_parameters of %v are not supported by the kind of layer", f)
		}
		rope, err = raw.rope(key, or(r.Theta, 10000))
		return rope, rope, err
	}
	raw, key := r.Scaling, "rope_scaling"
	var sliding *rawRope
	if p != nil {
		if p.Theta != nil || p.Type != nil || p.OldType != nil {
			return rope, local, fmt.Errorf("rope_parameters of %v are supported by the kind of layer only", f)
		}
		raw, sliding, key = p.Full, p.Sliding, "rope_parameters.full_attention"
	}
	if rope, err = raw.rope(key, or(r.Theta, 1e6)); err != nil {
		return rope, local, err
	}
	local, err = sliding.rope("rope_parameters.sliding_attention", or(r.LocalTheta, 10000))
	return rope, local, err
}

// rope reads the settings under a key; nil are the default ones.
func (r *rawRope) rope(key string, theta float64) (Rope, error) {
	if r == nil {
		r = &rawRope{}
	}
	rope := Rope{Theta: or(r.Theta, theta), Type: or(r.Type, or(r.OldType, "default"))}
	if or(r.Partial, 1) != 1 {
		return Rope{}, fmt.Errorf("%s.partial_rotary_factor %v is not supported, only 1", key, *r.Partial)
	}
	switch rope.Type {
	case "default":
		return rope, nil
	case "linear":
		if r.Factor == nil {
			return Rope{}, fmt.Errorf("%s of type linear needs factor", key)
		}
		rope.Factor = *r.Factor
		return rope, nil
	case "llama3":
		if r.Factor == nil || r.Low == nil || r.High == nil || r.Original == nil {
			return Rope{}, fmt.Errorf("%s of type llama3 needs factor, low_freq_factor, high_freq_factor and original_max_position_embeddings", key)
		}
		rope.Factor, rope.LowFreqFactor, rope.HighFreqFactor, rope.OriginalMaxPositions = *r.Factor, *r.Low, *r.High, *r.Original
		return rope, nil
	}
	return Rope{}, fmt.Errorf("%s.rope_type %q is not supported, only default, linear and llama3", key, rope.Type)
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
