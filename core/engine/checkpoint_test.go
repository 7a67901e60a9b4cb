package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/fsx"
)

func TestAFreshModelSavesWhereCompletionsEnd(t *testing.T) {
	c := tiny(true)
	c.EOS = nil
	e, err := New(c, tinyFiles(t), 1)
	must(t, err)
	dir := filepath.Join(t.TempDir(), "m")
	must(t, e.Save(dir, SaveOptions{}))
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	must(t, err)
	if saved, err := model.ParseConfig(data); err != nil || !slices.Equal(saved.EOS, []int32{1}) {
		t.Errorf("config.json ends completions at %v (error %v), want 1", saved.EOS, err)
	}
	must(t, e.Restore(dir))
}

func TestSaveAndRestore(t *testing.T) {
	e := fresh(t, false)
	must(t, e.StartOptimizer(adam))
	step := func(e *Engine) {
		_, err := e.Step(ctx, draw(12), 1e-3, coupled)
		must(t, err)
	}
	step(e)
	step(e)
	dir := filepath.Join(t.TempDir(), "checkpoint")
	must(t, e.Save(dir, SaveOptions{Optimizer: true}))
	saved := e.Fingerprint()
	step(e)
	want := e.Fingerprint()

	other := fresh(t, false)
	must(t, other.Restore(dir))
	if other.Fingerprint() != saved {
		t.Fatal("the weights restored are not those saved")
	}
	step(other)
	if other.Fingerprint() != want {
		t.Error("training goes on differently after a restart")
	}
	step(e) // and a second restore, over a graph in use
	must(t, e.Restore(dir))
	step(e)
	if e.Fingerprint() != want {
		t.Error("training goes on differently after going back")
	}

	loaded, err := Load(os.DirFS(filepath.Dir(dir)), "checkpoint")
	must(t, err)
	if loaded.Fingerprint() != saved || !slices.Equal(loaded.EOS(), e.EOS()) {
		t.Error("the directory does not load as the model that was saved")
	}
	must(t, loaded.Save(dir, SaveOptions{}))
	must(t, loaded.Restore(dir))
	if _, err := loaded.Step(ctx, draw(3), 1e-3, coupled); err == nil {
		t.Error("an optimizer was restored from a checkpoint without one")
	}
	names := []string{}
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, n := range entries {
		names = append(names, n.Name())
	}
	if want := []string{"config.json", "generation_config.json", "manifest.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}; !slices.Equal(names, want) {
		t.Errorf("the directory holds %v, want %v", names, want)
	}
}

func TestSaveIsTheSameBytes(t *testing.T) {
	dirs := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	for _, dir := range dirs {
		e := fresh(t, true)
		must(t, e.StartOptimizer(adam))
		_, err := e.Step(ctx, draw(5), 1e-3, coupled)
		must(t, err)
		must(t, e.Save(dir, SaveOptions{Optimizer: true}))
	}
	entries, err := os.ReadDir(dirs[0])
	must(t, err)
	for _, entry := range entries {
		a, err := os.ReadFile(filepath.Join(dirs[0], entry.Name()))
		must(t, err)
		b, err := os.ReadFile(filepath.Join(dirs[1], entry.Name()))
		must(t, err)
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs between two runs of one seed", entry.Name())
		}
	}
}

func TestSaveRounded(t *testing.T) {
	e := fresh(t, true)
	dir := filepath.Join(t.TempDir(), "rounded")
	must(t, e.Save(dir, SaveOptions{BF16: true}))
	loaded, err := Load(os.DirFS(dir), ".")
	must(t, err)
	for i, w := range e.model.Params().W {
		// bfloat16 has 8 bits of significand: off by 2⁻⁸ of the value at most.
		if got := loaded.model.Params().W[i]; math.Abs(float64(got-w)) > math.Abs(float64(w))/256 {
			t.Fatalf("weight %d is %v, was %v", i, got, w)
		}
	}
	again := filepath.Join(t.TempDir(), "again")
	must(t, loaded.Save(again, SaveOptions{BF16: true}))
	a, err := os.ReadFile(filepath.Join(dir, weightsFile))
	must(t, err)
	b, err := os.ReadFile(filepath.Join(again, weightsFile))
	must(t, err)
	if !bytes.Equal(a, b) {
		t.Error("rounding twice is not rounding once")
	}
	must(t, e.StartOptimizer(adam))
	if err := e.Save(again, SaveOptions{BF16: true, Optimizer: true}); err == nil {
		t.Error("rounded weights were saved with an optimizer's state")
	}
}

func TestRestoreFails(t *testing.T) {
	good := fresh(t, false)
	must(t, good.StartOptimizer(adam))
	_, err := good.Step(ctx, draw(4), 1e-3, coupled)
	must(t, err)
	replace := func(file, old, new string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			data, err := os.ReadFile(filepath.Join(dir, file))
			must(t, err)
			changed := strings.Replace(string(data), old, new, 1)
			if changed == string(data) {
				t.Fatalf("%s does not hold %q", file, old)
			}
			must(t, os.WriteFile(filepath.Join(dir, file), []byte(changed), 0o644))
		}
	}
	cut := func(file string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, file), 3000)) }
	}
	remove := func(file string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, file))) }
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string)
		says   string
	}{
		"nothing is there":           {func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) }, "no model"},
		"the weights are cut":        {cut(weightsFile), weightsFile},
		"the weights are gone":       {remove(weightsFile), weightsFile},
		"a tensor is renamed":        {replace(weightsFile, "model.layers.1.mlp.up_proj.weight", "model.layers.9.mlp.up_proj.weight"), "no tensor model.layers.1.mlp.up_proj.weight"},
		"the layers are fewer":       {replace("config.json", `"num_hidden_layers": 2`, `"num_hidden_layers": 1`), "another model"},
		"the epsilon is another":     {replace("config.json", `"rms_norm_eps": 0.00001`, `"rms_norm_eps": 0.001`), "another model"},
		"the moments are cut":        {cut(optimizerFile), optimizerFile},
		"the moments are gone":       {remove(optimizerFile), optimizerFile},
		"a moment is renamed":        {replace(optimizerFile, "v.model.norm.weight", "w.model.norm.weight"), "v.model.norm.weight"},
		"the state is noise":         {replace(stateFile, "{", "["), stateFile},
		"the state says minus steps": {replace(stateFile, `"step": 1`, `"step": -1`), "-1 steps"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "checkpoint")
			must(t, good.Save(dir, SaveOptions{Optimizer: true}))
			c.damage(t, dir)
			e := fresh(t, false)
			must(t, e.StartOptimizer(adam))
			if err := e.Restore(dir); err == nil || errors.Is(err, fsx.ErrDamaged) == (name == "nothing is there") {
				t.Errorf("the manifest lets it pass: %v", err)
			}
			if _, err := os.Stat(dir); err == nil { // with a manifest of what it is now
				must(t, os.Remove(filepath.Join(dir, fsx.ManifestFile)))
				must(t, fsx.Seal(dir))
			}
			before := e.Fingerprint()
			if err := e.Restore(dir); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error is %v, want one that says %q", err, c.says)
			}
			if e.Fingerprint() != before {
				t.Error("the weights have changed")
			}
			_, err := e.Step(ctx, draw(4), 1e-3, coupled)
			must(t, err)
		})
	}
	dir := filepath.Join(t.TempDir(), "tied")
	must(t, fresh(t, true).Save(dir, SaveOptions{}))
	if err := fresh(t, false).Restore(dir); err == nil || !strings.Contains(err.Error(), "lm_head.weight") {
		t.Errorf("a tied model restored into an untied one: %v", err)
	}
}

func TestConfigSavedKeepsEveryKeyThatMatters(t *testing.T) {
	e, err := Load(os.DirFS("."), tinyDir)
	must(t, err)
	dir := filepath.Join(t.TempDir(), "m")
	must(t, e.Save(dir, SaveOptions{}))
	var old, saved map[string]any
	for path, into := range map[string]*map[string]any{filepath.Join(filepath.FromSlash(tinyDir), "config.json"): &old, filepath.Join(dir, "config.json"): &saved} {
		data, err := os.ReadFile(path)
		must(t, err)
		must(t, json.Unmarshal(data, into))
	}
	for key, want := range old {
		got, ok := saved[key]
		a, _ := json.Marshal(want)
		b, _ := json.Marshal(got)
		if key != "transformers_version" && (!ok || !bytes.Equal(a, b)) {
			t.Errorf("%s is %s, was %s", key, b, a)
		}
	}
}

func TestAModelWithoutAnEndRestoresItsCheckpoint(t *testing.T) {
	c, err := model.ParseConfig([]byte(`{"model_type": "llama", "vocab_size": 320, "hidden_size": 24, "intermediate_size": 40,
		"num_hidden_layers": 1, "num_attention_heads": 4, "eos_token_id": []}`))
	must(t, err)
	m, err := model.New(c, 1)
	must(t, err)
	e := newEngine(m)
	must(t, e.readSideFiles(tinyFiles(t)))
	dir := filepath.Join(t.TempDir(), "m")
	must(t, e.Save(dir, SaveOptions{}))
	must(t, e.Restore(dir))
}

func TestWeightsThatAreNotFiniteAreNotSaved(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		e := fresh(t, true)
		p := e.Model().Params().All[3]
		p.W[len(p.W)-1] = float32(bad)
		dir := filepath.Join(t.TempDir(), "m")
		err := e.Save(dir, SaveOptions{})
		if !errors.Is(err, ErrNotFinite) || !strings.Contains(err.Error(), p.Name) {
			t.Errorf("weights with %v: error %v, want one that names %s", bad, err, p.Name)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("weights with %v were saved", bad)
		}
	}
}

// FuzzState: any state.json is refused, or gives settings that pass and an optimizer that makes a step.
func FuzzState(f *testing.F) {
	good := fresh(f, false)
	must(f, good.StartOptimizer(adam))
	dir := filepath.Join(f.TempDir(), "checkpoint")
	must(f, good.Save(dir, SaveOptions{Optimizer: true}))
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	must(f, err)
	f.Add(data)
	for _, s := range []string{``, `null`, `{"step":1e99}`, `{"step":9223372036854775807,"optimizer":{"beta1":0.9}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		must(t, os.WriteFile(filepath.Join(dir, stateFile), data, 0o600))
		solver, settings, err := good.readOptimizer(dir)
		if err != nil {
			return
		}
		must(t, settings.validate())
		if solver == nil || solver.AdamW.State().Step < 0 {
			t.Errorf("the state %q gives the optimizer %+v", data, solver)
		}
	})
}
