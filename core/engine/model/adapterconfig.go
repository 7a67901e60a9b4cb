package model

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxAdapterConfig is how long an adapter_config.json may be, in bytes.
const maxAdapterConfig = 1 << 20

// rawLoRA holds the keys that are understood. The others are looked at by [harmless].
type rawLoRA struct {
	Type    *string         `json:"peft_type"`
	Rank    *int            `json:"r"`
	Alpha   *float64        `json:"lora_alpha"`
	Dropout *float64        `json:"lora_dropout"`
	Stable  *bool           `json:"use_rslora"`
	Bias    *string         `json:"bias"`
	Init    json.RawMessage `json:"init_lora_weights"`
	Targets json.RawMessage `json:"target_modules"`
	Base    *string         `json:"base_model_name_or_path"`
}

// understood are the keys of rawLoRA, and those that say nothing of the mathematics, whatever their value.
var understood = []string{
	"peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "bias", "init_lora_weights", "target_modules", "base_model_name_or_path",

	"auto_mapping", "ensure_weight_tying", "inference_mode", "megatron_core", "peft_version", "qalora_group_size", "revision",
	"runtime_config", "task_type",
}

// initial are values of init_lora_weights that leave the base weights as they are. The others (pissa, olora, loftq, …) train
// against a changed base, which the adapter's file does not hold.
var initial = []string{"true", "false", `"gaussian"`, `"orthogonal"`, `"eva"`}

// ParseLoRA reads an adapter_config.json as PEFT writes it.
//
// A key that is not understood is let through only where it says nothing: null, false, an empty list, object or text. So
// use_dora, modules_to_save, rank_pattern and whatever future versions invent cannot change the mathematics unseen.
//
// Errors: [ErrAdapter], naming the key whose value is missing, out of range or not supported.
func ParseLoRA(data []byte) (LoRA, error) {
	c, err := parseLoRA(data)
	if err != nil {
		return LoRA{}, fmt.Errorf("read adapter_config.json: %w", err)
	}
	return c, nil
}

func parseLoRA(data []byte) (LoRA, error) {
	if len(data) > maxAdapterConfig {
		return LoRA{}, fmt.Errorf("%d bytes are more than the %d that it may have", len(data), maxAdapterConfig)
	}
	var keys map[string]json.RawMessage
	var r rawLoRA
	if err := json.Unmarshal(data, &keys); err != nil {
		return LoRA{}, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return LoRA{}, err
	}
	switch {
	case or(r.Type, "") != "LORA":
		return LoRA{}, fmt.Errorf("%w: peft_type is %q, and only LORA is built", ErrAdapter, or(r.Type, ""))
	case or(r.Bias, "none") != "none":
		return LoRA{}, fmt.Errorf("%w: bias %q, only none", ErrAdapter, *r.Bias)
	case r.Init != nil && !slices.Contains(initial, string(r.Init)):
		return LoRA{}, fmt.Errorf("%w: init_lora_weights %s, only %s", ErrAdapter, r.Init, strings.Join(initial, ", "))
	case r.Rank == nil:
		return LoRA{}, fmt.Errorf("%w: it has no r", ErrAdapter)
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if !harmless(key, keys[key]) {
			return LoRA{}, fmt.Errorf("%w: %s is %.40s", ErrAdapter, key, keys[key])
		}
	}
	targets, err := parseTargets(r.Targets)
	if err != nil {
		return LoRA{}, err
	}
	return LoRA{Rank: *r.Rank, Alpha: or(r.Alpha, 8), Dropout: or(r.Dropout, 0), RankStabilized: or(r.Stable, false),
		Targets: targets, Base: or(r.Base, "")}.normal()
}

// harmless reports whether a key is understood, or its value is as if it were not there. encoding/json takes "R" for "r":
// such a key is refused here, as PEFT does not know it.
func harmless(key string, value json.RawMessage) bool {
	if slices.Contains(understood, key) {
		return true
	}
	if slices.ContainsFunc(understood, func(known string) bool { return strings.EqualFold(known, key) }) {
		return false
	}
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		return false
	}
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// parseTargets reads a list of names, or "all-linear". PEFT takes any other text for a regular expression.
func parseTargets(data json.RawMessage) ([]string, error) {
	var list []string
	if err := json.Unmarshal(data, &list); err == nil {
		return list, nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return nil, fmt.Errorf("%w: target_modules is %.40s, want a list of names or %q", ErrAdapter, data, AllLinear)
	}
	return []string{text}, nil
}

// JSON returns an adapter_config.json that PEFT reads.
func (c LoRA) JSON() ([]byte, error) {
	return json.MarshalIndent(map[string]any{
		"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": c.Base, "revision": nil,
		"r": c.Rank, "lora_alpha": c.Alpha, "use_rslora": c.RankStabilized, "lora_dropout": c.Dropout, "target_modules": c.Targets,
		"bias": "none", "fan_in_fan_out": false, "init_lora_weights": true, "inference_mode": true, "use_dora": false,
		"modules_to_save": nil, "exclude_modules": nil, "layers_to_transform": nil, "layers_pattern": nil,
		"rank_pattern": map[string]int{}, "alpha_pattern": map[string]int{},
	}, "", "  ")
}
