package model

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/engine/weights"
	"github.com/dno-project/dno/sdk/sdktest"
)

func TestAdapterConfigIsReadAsWritten(t *testing.T) {
	want := LoRA{Rank: 4, Alpha: 12.5, RankStabilized: true, Targets: []string{"k_proj", "q_proj"}, Base: "models/x"}
	data, err := want.JSON()
	must(t, err)
	got, err := ParseLoRA(data)
	must(t, err)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, written %+v", got, want)
	}
}

func TestGoldenAdapterConfig(t *testing.T) {
	for _, file := range sdktest.GoldenCases(t, "arch/*/lora/adapter_config.json", "../testdata/golden") {
		data, err := os.ReadFile(file)
		must(t, err)
		got, err := ParseLoRA(data)
		must(t, err)
		all := slices.Sorted(slices.Values(linearLayers))
		if want := (LoRA{Rank: 4, Alpha: 8, Targets: all, Base: ".."}); !reflect.DeepEqual(got, want) {
			t.Errorf("%s is read as %+v, want %+v", file, got, want)
		}
	}
}

func TestAdapterConfigIsRefused(t *testing.T) {
	const good = `"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]`
	for _, c := range []struct{ data, says string }{
		{``, "unexpected end"},
		{`{"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]`, "unexpected end"},
		{`{"r": 4, "target_modules": ["q_proj"]}`, "peft_type"},
		{`{"peft_type": "LOHA", "r": 4, "target_modules": ["q_proj"]}`, "LOHA"},
		{`{"peft_type": "LORA", "target_modules": ["q_proj"]}`, "no r"},
		{`{"peft_type": "LORA", "r": 0, "target_modules": ["q_proj"]}`, "r is 0"},
		{`{"peft_type": "LORA", "r": 8193, "target_modules": ["q_proj"]}`, "r is 8193"},
		{`{"peft_type": "LORA", "r": 1.5, "target_modules": ["q_proj"]}`, "1.5"},
		{`{"peft_type": "LORA", "r": 4}`, "target_modules"},
		{`{"peft_type": "LORA", "r": 4, "target_modules": []}`, "target_modules names no layer"},
		{`{"peft_type": "LORA", "r": 4, "target_modules": 3}`, "target_modules is 3"},
		{`{"peft_type": "LORA", "r": 4, "target_modules": ["lm_head"]}`, "lm_head"},
		{`{"peft_type": "LORA", "r": 4, "target_modules": ".*_proj"}`, ".*_proj"},
		{`{` + good + `, "lora_alpha": 0}`, "lora_alpha"},
		{`{` + good + `, "lora_alpha": -1}`, "lora_alpha"},
		{`{` + good + `, "lora_dropout": 1}`, "lora_dropout"},
		{`{` + good + `, "bias": "all"}`, "bias"},
		{`{` + good + `, "lora_bias": true}`, "lora_bias"},
		{`{` + good + `, "use_dora": true}`, "use_dora"},
		{`{` + good + `, "fan_in_fan_out": true}`, "fan_in_fan_out"},
		{`{` + good + `, "modules_to_save": ["lm_head"]}`, "modules_to_save"},
		{`{` + good + `, "rank_pattern": {"q_proj": 8}}`, "rank_pattern"},
		{`{` + good + `, "alpha_pattern": {"q_proj": 8}}`, "alpha_pattern"},
		{`{` + good + `, "layers_to_transform": [0]}`, "layers_to_transform"},
		{`{` + good + `, "layers_to_transform": 0}`, "layers_to_transform"},
		{`{` + good + `, "exclude_modules": ["q_proj"]}`, "exclude_modules"},
		{`{` + good + `, "init_lora_weights": "pissa"}`, "init_lora_weights"},
		{`{` + good + `, "invented_in_2031": 1}`, "invented_in_2031"},
		{`{` + good + `, "R": 8}`, "R is 8"},
		{strings.Repeat(" ", maxAdapterConfig+1), "bytes"},
	} {
		name := c.data[:min(len(c.data), 90)]
		t.Run(name, func(t *testing.T) {
			if _, err := ParseLoRA([]byte(c.data)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error is %v, want one that says %q", err, c.says)
			}
		})
	}
	for _, ok := range []string{`{` + good + `}`, `{` + good + `, "use_dora": false, "modules_to_save": null, "rank_pattern": {}, "lora_dropout": 0.1}`,
		`{"peft_type": "LORA", "r": 4, "target_modules": "all-linear"}`} {
		if _, err := ParseLoRA([]byte(ok)); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
}

// FuzzParseLoRA: any adapter_config.json is refused, or gives an adapter that is written and read again as the same.
func FuzzParseLoRA(f *testing.F) {
	data, err := (LoRA{Rank: 4, Alpha: 8, Targets: []string{"q_proj"}}).JSON()
	must(f, err)
	f.Add(data)
	f.Add([]byte(`{"peft_type":"LORA","r":1,"lora_alpha":1e9,"target_modules":"all-linear","use_dora":false}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseLoRA(data)
		if err != nil {
			return
		}
		if s := float64(c.Scale()); !(s > 0) || math.IsInf(s, 0) {
			t.Errorf("%q scales by %v", data, s)
		}
		again, err := c.JSON()
		must(t, err)
		if got, err := ParseLoRA(again); err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%q is read as %+v, and again as %+v, error %v", data, c, got, err)
		}
	})
}

func small(t testing.TB) *Model {
	t.Helper()
	m, err := New(Config{Vocab: 40, Width: 24, FFN: 56, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 6, MaxPositions: 64, NormEps: 1e-5,
		Rope: Rope{Theta: 10000, Type: "default"}, InitStd: 0.3, BOS: -1, Pad: -1}, 3)
	must(t, err)
	return m
}

func TestAFreshAdapterIsPEFTs(t *testing.T) {
	c := LoRA{Rank: 4, Alpha: 8, Targets: []string{"q_proj", "down_proj"}}
	m := small(t)
	must(t, m.AddAdapter(c, 7))
	ps := m.Trainable().All
	var names []string
	for _, p := range ps {
		names = append(names, p.Name)
	}
	want := []string{
		"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
		"base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight",
		"base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight",
		"base_model.model.model.layers.1.mlp.down_proj.lora_A.weight", "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight",
	}
	if !slices.Equal(names, want) {
		t.Fatalf("the tensors are %q, want %q", names, want)
	}
	for i, p := range ps {
		largest, sum := 0.0, 0.0
		for _, w := range p.W {
			largest = max(largest, math.Abs(float64(w)))
			sum += float64(w) * float64(w)
		}
		if i%2 == 1 {
			if largest != 0 {
				t.Errorf("%s is not 0", p.Name)
			}
			continue
		}
		// kaiming_uniform_(a=√5) of fan-in n: gain √(2/(1+5)), bound gain·√(3/n) = 1/√n; the variance of U(−b, b) is b²/3.
		bound := 1 / math.Sqrt(float64(p.Shape[1]))
		if largest > bound || largest < 0.9*bound || math.Abs(sum/float64(len(p.W))-bound*bound/3) > bound*bound/10 {
			t.Errorf("%s reaches to %v with the mean square %v, the bound is %v", p.Name, largest, sum/float64(len(p.W)), bound)
		}
	}
	again, other := small(t), small(t)
	must(t, again.AddAdapter(c, 7))
	must(t, other.AddAdapter(c, 8))
	if !slices.Equal(ps[0].W, again.Trainable().All[0].W) || slices.Equal(ps[0].W, other.Trainable().All[0].W) {
		t.Error("the seed does not decide what A is")
	}
	if err := m.AddAdapter(c, 7); err == nil {
		t.Error("a second adapter was added")
	}
}

func TestScale(t *testing.T) {
	if got := (LoRA{Rank: 16, Alpha: 8}).Scale(); got != 0.5 {
		t.Errorf("alpha 8, r 16 scale by %v", got)
	}
	if got := (LoRA{Rank: 16, Alpha: 8, RankStabilized: true}).Scale(); got != 2 {
		t.Errorf("alpha 8, r 16 scale by %v where stabilized", got)
	}
}

func TestAdapterFilesAreRefused(t *testing.T) {
	c := LoRA{Rank: 2, Alpha: 8, Targets: []string{"v_proj"}}
	m := small(t)
	must(t, m.AddAdapter(c, 7))
	good := m.Tensors(weights.F32)
	for name, test := range map[string]struct {
		change func([]weights.Out) []weights.Out
		says   string
	}{
		"a tensor is missing": {func(o []weights.Out) []weights.Out { return o[1:] }, "no tensor base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight"},
		"a shape is another":  {func(o []weights.Out) []weights.Out { o[0].Shape = []int{24, 2}; return o }, "shape [24 2]"},
		"a tensor is too many": {func(o []weights.Out) []weights.Out {
			return append(o, weights.Out{Name: "base_model.model.lm_head.weight", Shape: []int{1}, DType: weights.F32, Data: []float32{1}})
		}, "lm_head"},
		"a tensor has integers": {nil, "holds I32"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "adapter.safetensors")
			if test.change == nil {
				must(t, weights.Write(path, good, nil))
				data, err := os.ReadFile(path)
				must(t, err)
				must(t, os.WriteFile(path, []byte(strings.ReplaceAll(string(data), `"F32"`, `"I32"`)), 0o600))
			} else {
				must(t, weights.Write(path, test.change(slices.Clone(good)), nil))
			}
			f, err := weights.Open(path)
			must(t, err)
			defer f.Close()
			fresh := small(t)
			if err := fresh.ReadAdapter(c, f); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("the error is %v, want one that says %q", err, test.says)
			}
			if fresh.Adapter() != nil || fresh.Trainable() != fresh.Params() || fresh.Embed.Frozen {
				t.Error("the model has changed")
			}
			before := slices.Clone(m.Trainable().W)
			if err := m.ReplaceAdapter(f); err == nil || (test.change != nil && !slices.Equal(m.Trainable().W, before)) {
				t.Errorf("the adapter was replaced, or has changed, error %v", err)
			}
		})
	}
	if err := small(t).AddAdapter(LoRA{Rank: 2, Alpha: 8, Targets: []string{"qkv_proj"}}, 1); !errors.Is(err, ErrAdapter) {
		t.Errorf("a layer that there is none of: error %v", err)
	}
}

func TestOnlyAFrozenBaseIsHeld(t *testing.T) {
	m := small(t)
	if err := m.Hold(m.Precision().Pack); err == nil {
		t.Error("weights that are trained were given up")
	}
	must(t, m.AddAdapter(LoRA{Rank: 2, Alpha: 8, Targets: []string{AllLinear}}, 7))
	row, want := make([]float32, 24), slices.Clone(m.Embed.W[5*24:6*24])
	must(t, m.Hold(m.Precision().Pack))
	if m.Embed.Row(5, row); m.Params().W != nil || m.Layers[0].Q.W != nil || !slices.Equal(row, want) || m.Norm.W[0] != 1 {
		t.Error("the weights held are not what they were, or are there twice")
	}
	if m.Merge() == nil || m.Hold(m.Precision().Pack) == nil {
		t.Error("a base that is held was merged into, or held again")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
