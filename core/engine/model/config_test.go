package model

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

const plain = `{"model_type": "llama", "vocab_size": 300, "hidden_size": 64, "intermediate_size": 160,
	"num_hidden_layers": 2, "num_attention_heads": 4, "rms_norm_eps": 1e-5, "max_position_embeddings": 512`

func TestParseConfig(t *testing.T) {
	want := Config{Vocab: 300, Width: 64, FFN: 160, Layers: 2, Heads: 4, KVHeads: 4, HeadDim: 16, MaxPositions: 512, NormEps: 1e-5,
		Rope: Rope{Theta: 10000, Type: "default"}, InitStd: 0.02, BOS: -1, Pad: -1}
	llama3 := want
	llama3.Rope = Rope{Theta: 5e5, Type: "llama3", Factor: 8, LowFreqFactor: 1, HighFreqFactor: 4, OriginalMaxPositions: 8192}
	stretched := `{"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, `
	for name, c := range map[string]struct {
		extra  string
		change func(*Config)
		base   Config
	}{
		"the fewest keys":                    {``, nil, want},
		"theta as transformers 4 spells it":  {`, "rope_theta": 250000.0, "rope_scaling": null`, func(c *Config) { c.Rope.Theta = 250000 }, want},
		"theta as transformers 5 spells it":  {`, "rope_parameters": {"rope_theta": 250000.0, "rope_type": "default"}`, func(c *Config) { c.Rope.Theta = 250000 }, want},
		"llama3 as transformers 4 spells it": {`, "rope_theta": 500000.0, "rope_scaling": ` + stretched + `"rope_type": "llama3"}`, nil, llama3},
		"llama3 with the oldest key, type":   {`, "rope_theta": 500000.0, "rope_scaling": ` + stretched + `"type": "llama3"}`, nil, llama3},
		"linear":                             {`, "rope_scaling": {"rope_type": "linear", "factor": 8.0}`, func(c *Config) { c.Rope.Type, c.Rope.Factor = "linear", 8 }, want},
		"llama3 as transformers 5 spells it": {`, "rope_parameters": ` + stretched + `"rope_type": "llama3", "rope_theta": 500000.0}`, nil, llama3},
		"several ends of sequence":           {`, "eos_token_id": [1, 7], "bos_token_id": 2, "pad_token_id": 0`, func(c *Config) { c.EOS, c.BOS, c.Pad = []int32{1, 7}, 2, 0 }, want},
		"ids that are null":                  {`, "eos_token_id": null, "bos_token_id": null`, nil, want},
		"grouped heads of their own width":   {`, "num_key_value_heads": 2, "head_dim": 24, "tie_word_embeddings": true`, func(c *Config) { c.KVHeads, c.HeadDim, c.Tied = 2, 24, true }, want},
		"keys that do not matter":            {`, "use_cache": true, "torch_dtype": "bfloat16", "attention_dropout": 0.0, "something_new": [{}]`, nil, want},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseConfig([]byte(plain + c.extra + "}"))
			if err != nil {
				t.Fatal(err)
			}
			want := c.base
			if c.change != nil {
				c.change(&want)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func TestParseConfigRefuses(t *testing.T) {
	for name, c := range map[string]struct{ extra, says string }{
		"a bias in attention":           {`"attention_bias": true`, "attention_bias"},
		"a bias in the MLP":             {`"mlp_bias": true`, "mlp_bias"},
		"another activation":            {`"hidden_act": "gelu"`, `hidden_act "gelu"`},
		"split matrices":                {`"pretraining_tp": 2`, "pretraining_tp"},
		"yarn":                          {`"rope_scaling": {"rope_type": "yarn", "factor": 4.0}`, `"yarn"`},
		"dynamic, by the oldest key":    {`"rope_scaling": {"type": "dynamic", "factor": 4.0}`, `"dynamic"`},
		"linear without its factor":     {`"rope_scaling": {"type": "linear"}`, "factor"},
		"linear that shrinks":           {`"rope_scaling": {"type": "linear", "factor": 0.5}`, "factor >= 1"},
		"ropes by the kind of layer":    {`"rope_parameters": {"full_attention": {"rope_type": "default"}}`, "rope_parameters of llama"},
		"llama3 without its settings":   {`"rope_scaling": {"rope_type": "llama3", "factor": 8.0}`, "low_freq_factor"},
		"llama3 with equal factors":     {`"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4, "high_freq_factor": 4, "original_max_position_embeddings": 8}`, "low_freq_factor < high_freq_factor"},
		"rotation of a part":            {`"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}`, "partial_rotary_factor"},
		"a sliding window":              {`"sliding_window": 128`, "sliding_window"},
		"quantized weights":             {`"quantization_config": {"bits": 4}`, "quantization_config"},
		"heads that do not share":       {`"num_key_value_heads": 3`, "multiple"},
		"an odd head":                   {`"head_dim": 15`, "odd"},
		"no heads":                      {`"num_attention_heads": 0`, "num_attention_heads"},
		"a width that is no multiple":   {`"num_attention_heads": 5`, "hidden_size 64"},
		"a negative vocabulary":         {`"vocab_size": -1`, "vocab_size"},
		"a vocabulary beyond reason":    {`"vocab_size": 2000000000`, "vocab_size"},
		"more parameters than allowed":  {`"hidden_size": 65536, "head_dim": 128, "intermediate_size": 500000, "num_hidden_layers": 1000`, "parameters"},
		"no layers":                     {`"num_hidden_layers": 0`, "num_hidden_layers"},
		"an epsilon of zero":            {`"rms_norm_eps": 0`, "rms_norm_eps"},
		"an end outside the vocabulary": {`"eos_token_id": 300`, "eos_token_id 300"},
		"an end that is a word":         {`"eos_token_id": "</s>"`, "want a token id"},
		"a number that is a word":       {`"hidden_size": "64"`, "hidden_size"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig([]byte(plain + ", " + c.extra + "}"))
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error is %v, want one that says %q", err, c.says)
			}
			if errors.Is(err, ErrFamily) {
				t.Errorf("%v is ErrFamily", err)
			}
		})
	}
	for name, data := range map[string]string{"another family": `{"model_type": "mamba"}`, "a family of a like name": `{"model_type": "llama4"}`} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseConfig([]byte(data)); !errors.Is(err, ErrFamily) {
				t.Errorf("the error is %v, want ErrFamily", err)
			}
		})
	}
	for name, data := range map[string]string{"no family": `{}`, "nothing": ``, "a list": `[]`, "half a file": plain} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseConfig([]byte(data)); err == nil || errors.Is(err, ErrFamily) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// of is the plain configuration of another family.
func of(modelType string) string { return strings.Replace(plain, "llama", modelType, 1) }

func TestFamilies(t *testing.T) {
	base := Config{Vocab: 300, Width: 64, FFN: 160, Layers: 2, Heads: 4, MaxPositions: 512, NormEps: 1e-5,
		Rope: Rope{Theta: 10000, Type: "default"}, InitStd: 0.02, BOS: -1, Pad: -1}
	mistral, qwen, gemma := base, base, base
	mistral.Family, mistral.KVHeads, mistral.HeadDim = Mistral, 2, 16
	qwen.Family, qwen.KVHeads, qwen.HeadDim = Qwen3, 2, 128
	gemma.Family, gemma.KVHeads, gemma.HeadDim, gemma.QueryScalar, gemma.Rope.Theta, gemma.Tied = Gemma3, 4, 256, 256, 1e6, true
	slides := func(c Config, window int, local Rope, layers ...bool) Config {
		c.Window, c.Sliding, c.LocalRope = window, layers, local
		return c
	}
	plainRope := Rope{Theta: 10000, Type: "default"}
	stretched := gemma
	stretched.Rope.Type, stretched.Rope.Factor = "linear", 8
	for name, c := range map[string]struct {
		family, extra string
		want          Config
	}{
		"mistral":                          {"mistral", `"num_key_value_heads": 2, "sliding_window": 8`, slides(mistral, 8, plainRope, true, true)},
		"mistral whose window is left out": {"mistral", `"num_key_value_heads": 2`, slides(mistral, 4096, plainRope, true, true)},
		"mistral without a window":         {"mistral", `"num_key_value_heads": 2, "sliding_window": null`, mistral},
		"qwen3":                            {"qwen3", `"num_key_value_heads": 2, "use_sliding_window": false, "sliding_window": 8, "max_window_layers": 0`, qwen},
		"qwen3, its last layer slides":     {"qwen3", `"num_key_value_heads": 2, "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1`, slides(qwen, 8, plainRope, false, true)},
		"qwen3 by the kinds of layers":     {"qwen3", `"num_key_value_heads": 2, "use_sliding_window": true, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]`, slides(qwen, 8, plainRope, true, false)},
		"gemma3, the fewest keys":          {"gemma3_text", ``, slides(gemma, 4096, plainRope, true, true)},
		"gemma3, every second is global":   {"gemma3_text", `"sliding_window": 512, "sliding_window_pattern": 2`, slides(gemma, 512, plainRope, true, false)},
		"gemma3 by the kinds of layers":    {"gemma3_text", `"sliding_window": 512, "sliding_window_pattern": 2, "layer_types": ["full_attention", "sliding_attention"]`, slides(gemma, 512, plainRope, false, true)},
		"gemma3, nothing slides":           {"gemma3_text", `"layer_types": ["full_attention", "full_attention"]`, gemma},
		"gemma3, thetas of transformers 4": {"gemma3_text", `"rope_theta": 1e6, "rope_local_base_freq": 5000, "rope_scaling": {"rope_type": "linear", "factor": 8}`,
			slides(stretched, 4096, Rope{Theta: 5000, Type: "default"}, true, true)},
		"gemma3, thetas of transformers 5": {"gemma3_text", `"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8}, "sliding_attention": {"rope_theta": 5000, "rope_type": "default"}}`,
			slides(stretched, 4096, Rope{Theta: 5000, Type: "default"}, true, true)},
		"gemma3, heads of its own scale": {"gemma3_text", `"query_pre_attn_scalar": 24, "head_dim": 32, "tie_word_embeddings": false, "layer_types": ["full_attention", "full_attention"]`,
			func() Config { c := gemma; c.QueryScalar, c.HeadDim, c.Tied = 24, 32, false; return c }()},
	} {
		t.Run(name, func(t *testing.T) {
			text := of(c.family)
			if c.extra != "" {
				text += ", " + c.extra
			}
			got, err := ParseConfig([]byte(text + "}"))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
	for name, c := range map[string]struct{ family, extra, says string }{
		"caps of scores":                 {"gemma3_text", `"attn_logit_softcapping": 50.0`, "attn_logit_softcapping"},
		"caps of logits":                 {"gemma3_text", `"final_logit_softcapping": 30.0`, "final_logit_softcapping"},
		"rows that see what follows":     {"gemma3_text", `"use_bidirectional_attention": true`, "use_bidirectional_attention"},
		"another activation":             {"gemma3_text", `"hidden_activation": "gelu"`, `hidden_activation "gelu"`},
		"one rope for all layers":        {"gemma3_text", `"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}`, "by the kind of layer"},
		"a local rope of a strange kind": {"gemma3_text", `"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}`, `sliding_attention.rope_type "yarn"`},
		"a scale of nothing":             {"gemma3_text", `"query_pre_attn_scalar": 0`, "query_pre_attn_scalar"},
		"a pattern of nothing":           {"gemma3_text", `"sliding_window_pattern": 0`, "sliding_window_pattern"},
		"a window of nothing":            {"gemma3_text", `"sliding_window": 0`, "sliding_window is 0"},
		"no window to slide in":          {"gemma3_text", `"sliding_window": null`, "sliding_window is null"},
		"too few kinds of layers":        {"gemma3_text", `"layer_types": ["full_attention"]`, "layer_types has 1"},
		"a strange kind of layer":        {"qwen3", `"num_key_value_heads": 2, "layer_types": ["full_attention", "chunked_attention"]`, "chunked_attention"},
		"a layer slides that must not":   {"qwen3", `"num_key_value_heads": 2, "layer_types": ["full_attention", "sliding_attention"]`, "use_sliding_window"},
		"a bias":                         {"qwen3", `"num_key_value_heads": 2, "attention_bias": true`, "attention_bias"},
		"heads that are left out":        {"qwen3", `"head_dim": 16`, "num_key_value_heads 32"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseConfig([]byte(of(c.family) + ", " + c.extra + "}"))
			if err == nil || !strings.Contains(err.Error(), c.says) || errors.Is(err, ErrFamily) {
				t.Errorf("the error is %v, want one that says %q", err, c.says)
			}
		})
	}
}

func TestConfigIsReadAsItWasWritten(t *testing.T) {
	for name, text := range map[string]string{
		"the default rope":            plain + `, "rope_theta": 250000.0, "eos_token_id": 1, "bos_token_id": 2`,
		"linear":                      plain + `, "rope_scaling": {"rope_type": "linear", "factor": 8.0}`,
		"llama3":                      plain + `, "eos_token_id": [1, 2], "tie_word_embeddings": true, "rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8}`,
		"mistral":                     of("mistral") + `, "num_key_value_heads": 2, "sliding_window": 8`,
		"mistral that does not slide": of("mistral") + `, "num_key_value_heads": 2, "sliding_window": null`,
		"qwen3":                       of("qwen3") + `, "num_key_value_heads": 2`,
		"qwen3 that slides":           of("qwen3") + `, "num_key_value_heads": 2, "use_sliding_window": true, "max_window_layers": 1, "sliding_window": 8`,
		"gemma3":                      of("gemma3_text") + `, "sliding_window_pattern": 2, "rope_theta": 2e6, "rope_local_base_freq": 5000, "rope_scaling": {"rope_type": "linear", "factor": 8}, "query_pre_attn_scalar": 24.5`,
		"gemma3 that does not slide":  of("gemma3_text") + `, "layer_types": ["full_attention", "full_attention"], "tie_word_embeddings": false`,
	} {
		t.Run(name, func(t *testing.T) {
			c, err := ParseConfig([]byte(text + "}"))
			if err != nil {
				t.Fatal(err)
			}
			data, err := c.JSON("float32")
			if err != nil {
				t.Fatal(err)
			}
			// Each reader of the file knows one spelling only.
			drops := [][]string{{"rope_parameters", "dtype"}, {"rope_theta", "rope_scaling", "torch_dtype"}}
			if c.Family == Gemma3 {
				drops[1] = append(drops[1], "rope_local_base_freq")
				if c.Sliding != nil {
					drops[0], drops[1] = append(drops[0], "layer_types"), append(drops[1], "sliding_window_pattern")
				}
			} else if c.Family == Qwen3 {
				drops[0], drops[1] = append(drops[0], "layer_types"), append(drops[1], "max_window_layers")
			}
			for _, drop := range drops {
				var keys map[string]any
				if err := json.Unmarshal(data, &keys); err != nil {
					t.Fatal(err)
				}
				for _, k := range drop {
					if _, ok := keys[k]; !ok {
						t.Errorf("config.json has no %s", k)
					}
					delete(keys, k)
				}
				half, err := json.Marshal(keys)
				if err != nil {
					t.Fatal(err)
				}
				again, err := ParseConfig(half)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(again, c) {
					t.Errorf("without %v: read %+v, wrote %+v", drop, again, c)
				}
			}
		})
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(plain + "}"))
	f.Add([]byte(plain + `, "eos_token_id": [1, 7], "rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8}}`))
	f.Add([]byte(`{"model_type": "gemma2"}`))
	f.Add([]byte(of("mistral") + `, "num_key_value_heads": 2, "sliding_window": 8}`))
	f.Add([]byte(of("qwen3") + `, "num_key_value_heads": 2, "use_sliding_window": true, "max_window_layers": 1, "sliding_window": 8}`))
	f.Add([]byte(of("qwen3") + `, "num_key_value_heads": 2, "use_sliding_window": true, "layer_types": ["sliding_attention", "full_attention"]}`))
	f.Add([]byte(of("gemma3_text") + `, "sliding_window_pattern": 2, "rope_local_base_freq": 5000, "rope_scaling": {"type": "linear", "factor": 8}}`))
	f.Add([]byte(of("gemma3_text") + `, "rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseConfig(data)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("a configuration was accepted that is not valid: %v", err)
		}
		out, err := c.JSON("bfloat16")
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig(out)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.EOS) == 0 {
			c.EOS = nil // an empty list and none are the same
		}
		if !reflect.DeepEqual(again, c) {
			t.Fatalf("read %+v, wrote %+v", again, c)
		}
	})
}
