package engine

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/engine/generate"
	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/engine/weights"
	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/sdk/sdktest"
)

var rank4 = model.LoRA{Rank: 4, Alpha: 8, Targets: []string{model.AllLinear}, Base: "tiny"}

// freshAdapter is fresh with an adapter that has made a step.
func freshAdapter(t testing.TB, hold string) *Engine {
	t.Helper()
	e := fresh(t, true)
	must(t, e.AddAdapter(rank4, 3))
	must(t, e.HoldBase(hold))
	must(t, e.StartOptimizer(adam))
	adapterStep(t, e)
	return e
}

func adapterStep(t testing.TB, e *Engine) {
	t.Helper()
	_, err := e.Step(ctx, draw(12), 1e-2, coupled)
	must(t, err)
}

func TestAdapterTrainsAsItSamples(t *testing.T) {
	for _, precision := range []kernel.Precision{kernel.Float32, kernel.BFloat16} {
		for _, hold := range []string{HeldFloat32, HeldBFloat16, HeldQ8} {
			t.Run(fmt.Sprint(precision, ", held in ", hold), func(t *testing.T) {
				e := freshAdapter(t, hold)
				e.SetPrecision(precision)
				var reqs []generate.Request
				for i := range 12 {
					reqs = append(reqs, generate.Request{Prompt: draw(8)[i%8].Prompt, Seed: uint64(i)})
				}
				results, err := e.Generate(ctx, reqs, generate.DefaultOptions(30), nil)
				must(t, err)
				var seqs []Sequence
				var sampled []float64
				for i, r := range results {
					seqs, sampled = append(seqs, Sequence{reqs[i].Prompt, r.Tokens}), append(sampled, r.LogProb)
				}
				scored, err := e.LogProbs(ctx, seqs)
				must(t, err)
				if !slices.Equal(scored, sampled) {
					t.Error("completions have other log-probabilities than when they were sampled")
				}
				for _, rows := range []int{1 << 20, 150} { // one pass, two phases
					e.trainRows = rows
					result, err := e.Step(ctx, seqs, 0, coupled)
					must(t, err)
					if !slices.Equal(result.LogProbs, scored) || !(result.GradNorm > 0) {
						t.Errorf("a step of %d rows sees other log-probabilities, or the gradient %v", rows, result.GradNorm)
					}
				}
			})
		}
	}
}

func TestAdapterTrainingDoesNotDependOnThreads(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, hold := range []string{HeldFloat32, HeldBFloat16, HeldQ8} {
		want := ""
		for _, n := range []int{1, 2, 5} {
			runtime.GOMAXPROCS(n)
			e := freshAdapter(t, hold)
			adapterStep(t, e)
			if got := e.Fingerprint(); want != "" && got != want {
				t.Errorf("held in %s: %d threads make another adapter", hold, n)
			} else {
				want = got
			}
		}
	}
}

func TestAdapterIsSavedAndRestored(t *testing.T) {
	e := freshAdapter(t, HeldFloat32)
	dir := filepath.Join(t.TempDir(), "checkpoint")
	must(t, e.Save(dir, SaveOptions{Optimizer: true, Files: map[string][]byte{"position.json": []byte("{}")}}))
	saved := e.Fingerprint()
	adapterStep(t, e)
	want := e.Fingerprint()
	if want == saved {
		t.Fatal("a step does not change the fingerprint")
	}

	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, n := range entries {
		names = append(names, n.Name())
	}
	if want := []string{"adapter_config.json", "adapter_model.safetensors", "base.json", "generation_config.json", "manifest.json", "optimizer.safetensors",
		"position.json", "state.json", "tokenizer.json", "tokenizer_config.json"}; !slices.Equal(names, want) {
		t.Errorf("the directory holds %v, want %v", names, want)
	}
	f, err := weights.Open(filepath.Join(dir, optimizerFile))
	must(t, err)
	defer f.Close()
	if got, want := len(f.Names()), 2*len(e.model.Trainable().All); got != want || !strings.Contains(f.Names()[0], "lora_A") {
		t.Errorf("the optimizer's state has %d tensors, from %s on; want %d, of the adapter", got, f.Names()[0], want)
	}

	other := fresh(t, true)
	must(t, other.AddAdapter(rank4, 99))
	must(t, other.Restore(dir))
	if other.Fingerprint() != saved {
		t.Fatal("the adapter restored is not the one saved")
	}
	adapterStep(t, other)
	if other.Fingerprint() != want {
		t.Error("training goes on differently after a restart")
	}
	must(t, e.Restore(dir)) // over a graph in use
	adapterStep(t, e)
	if e.Fingerprint() != want {
		t.Error("training goes on differently after going back")
	}

	loaded := fresh(t, true)
	must(t, loaded.LoadAdapter(os.DirFS(filepath.Dir(dir)), "checkpoint"))
	if loaded.Fingerprint() != saved || loaded.Model().Adapter().Base != "tiny" {
		t.Error("the directory does not load as the adapter that was saved")
	}
	name, ok, err := AdapterBase(os.DirFS(dir), ".")
	if name != "tiny" || !ok || err != nil {
		t.Errorf("it is an adapter of %q, %v, error %v", name, ok, err)
	}
	if _, ok, err := AdapterBase(os.DirFS("."), tinyDir); ok || err != nil {
		t.Errorf("a model is taken for an adapter, error %v", err)
	}
}

func TestAdapterCheckpointsAreRefused(t *testing.T) {
	good := freshAdapter(t, HeldFloat32)
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
	remove := func(file string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, file))) }
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string)
		says   string
	}{
		"the adapter is gone":      {remove(adapterFile), adapterFile},
		"its config is gone":       {remove(adapterConfigFile), adapterConfigFile},
		"its config is noise":      {replace(adapterConfigFile, "{", "["), adapterConfigFile},
		"its alpha is another":     {replace(adapterConfigFile, `"lora_alpha": 8`, `"lora_alpha": 9`), "another adapter"},
		"its base is another":      {replace(baseFile, `"fingerprint": "`, `"fingerprint": "0`), "another base model"},
		"its base is not said":     {remove(baseFile), baseFile},
		"a tensor is renamed":      {replace(adapterFile, "layers.1.mlp.up_proj.lora_A", "layers.1.mlp.up_proj.lora_C"), "layers.1.mlp.up_proj.lora_A"},
		"a moment is renamed":      {replace(optimizerFile, "v.base_model", "w.base_model"), "v.base_model"},
		"its config asks for more": {replace(adapterConfigFile, `"use_dora": false`, `"use_dora": true`), "use_dora"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "checkpoint")
			must(t, good.Save(dir, SaveOptions{Optimizer: true}))
			c.damage(t, dir)
			e := freshAdapter(t, HeldFloat32)
			if err := e.Restore(dir); !errors.Is(err, fsx.ErrDamaged) {
				t.Errorf("the manifest lets it pass: %v", err)
			}
			must(t, os.Remove(filepath.Join(dir, fsx.ManifestFile)))
			must(t, fsx.Seal(dir))
			adapterStep(t, e)
			before := e.Fingerprint()
			if err := e.Restore(dir); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error is %v, want one that says %q", err, c.says)
			}
			if e.Fingerprint() != before {
				t.Error("the adapter has changed")
			}
			adapterStep(t, e)
		})
	}
	whole := filepath.Join(t.TempDir(), "whole")
	must(t, fresh(t, true).Save(whole, SaveOptions{}))
	if err := good.Restore(whole); !errors.Is(err, ErrNoModel) {
		t.Errorf("a whole model restored into an adapter: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "adapter")
	must(t, good.Save(dir, SaveOptions{}))
	if err := fresh(t, true).Restore(dir); !errors.Is(err, ErrNoModel) || !strings.Contains(err.Error(), "adapter") {
		t.Errorf("an adapter restored into a whole model: %v", err)
	}
	other := fresh(t, true)
	other.model.Norm.W[2]++
	before := other.Fingerprint()
	if err := other.LoadAdapter(os.DirFS(dir), "."); !errors.Is(err, ErrOtherBase) {
		t.Errorf("an adapter was put on another base: %v", err)
	}
	if other.Fingerprint() != before || other.Model().Adapter() != nil {
		t.Error("the model has changed")
	}
}

func TestAnAdapterThatIsNotFiniteIsNotSaved(t *testing.T) {
	e := freshAdapter(t, HeldQ8)
	e.model.Trainable().All[1].W[0] = float32(math.NaN())
	if err := e.Save(filepath.Join(t.TempDir(), "m"), SaveOptions{}); !errors.Is(err, ErrNotFinite) || !strings.Contains(err.Error(), "lora_B") {
		t.Errorf("the error is %v", err)
	}
}

func TestGoldenAdapterIsLoadedAndSaved(t *testing.T) {
	for _, file := range sdktest.GoldenCases(t, "arch/*/lora/adapter_config.json", "testdata/golden") {
		dir := filepath.Dir(file)
		config, err := os.ReadFile(filepath.Join(filepath.Dir(dir), "config.json"))
		must(t, err)
		if _, err := model.ParseConfig(config); errors.Is(err, model.ErrFamily) {
			continue
		}
		e := bare(t, filepath.Dir(dir))
		must(t, e.LoadAdapter(os.DirFS(dir), "."))
		out := filepath.Join(t.TempDir(), "out")
		must(t, e.Save(out, SaveOptions{}))
		old, err := weights.Open(filepath.Join(dir, adapterFile))
		must(t, err)
		defer old.Close()
		saved, err := weights.Open(filepath.Join(out, adapterFile))
		must(t, err)
		defer saved.Close()
		if !slices.Equal(saved.Names(), old.Names()) {
			t.Fatalf("the tensors are %q, PEFT has %q", saved.Names(), old.Names())
		}
		for _, name := range old.Names() {
			if !slices.Equal(tensor(t, saved, name), tensor(t, old, name)) {
				t.Errorf("%s is not what PEFT has", name)
			}
		}
	}
}

func TestMergedIsTheSameModel(t *testing.T) {
	e := freshAdapter(t, HeldFloat32)
	seqs := draw(20)
	want, err := e.LogProbs(ctx, seqs)
	must(t, err)
	base, err := fresh(t, true).LogProbs(ctx, seqs)
	must(t, err)
	must(t, e.MergeAdapter())
	dir := filepath.Join(t.TempDir(), "merged")
	must(t, e.Save(dir, SaveOptions{}))
	loaded, err := Load(os.DirFS(dir), ".")
	must(t, err)
	got, err := loaded.LogProbs(ctx, seqs)
	must(t, err)
	for i := range got {
		if math.Abs(got[i]-want[i]) > 1e-4*(1+math.Abs(want[i])) || got[i] == base[i] {
			t.Errorf("sequence %d has %v, with the adapter %v, without %v", i, got[i], want[i], base[i])
		}
	}
	if e.MergeAdapter() == nil {
		t.Error("an adapter was merged twice")
	}
	must(t, e.StartOptimizer(adam)) // all weights can be trained now
	before := e.model.Norm.W[0]
	adapterStep(t, e)
	if e.model.Norm.W[0] == before {
		t.Error("a norm is still frozen after merging")
	}
}

func TestDropoutIsNotTrainedWith(t *testing.T) {
	e, c := fresh(t, true), rank4
	c.Dropout = 0.1
	must(t, e.AddAdapter(c, 1))
	if err := e.StartOptimizer(adam); !errors.Is(err, model.ErrAdapter) || !strings.Contains(err.Error(), "lora_dropout") {
		t.Errorf("the error is %v", err)
	}
}

func TestHoldBaseRefuses(t *testing.T) {
	if err := fresh(t, true).HoldBase(HeldBFloat16); err == nil {
		t.Error("weights that are trained are held rounded")
	}
	if err := freshAdapter(t, HeldFloat32).HoldBase("int3"); err == nil || !strings.Contains(err.Error(), "int3") {
		t.Errorf("the error is %v", err)
	}
	e := freshAdapter(t, HeldBFloat16)
	if e.SetPrecision(kernel.Float32); e.Model().Precision() != kernel.BFloat16 {
		t.Error("products with weights held in bfloat16 are float32")
	}
}

func TestMemoryIsOfWhatIsTrained(t *testing.T) {
	count := func(ps *graph.Params) (matrices, vectors int) {
		for _, p := range ps.All {
			if len(p.Shape) == 2 {
				matrices += p.Shape[0] * p.Shape[1]
			} else {
				vectors += p.Shape[0]
			}
		}
		return matrices, vectors
	}
	e := fresh(t, true)
	m, v := count(e.model.Params())
	if got := e.Memory(); got != 16*(m+v) {
		t.Errorf("%d bytes, want 16 for each of %d weights", got, m+v)
	}
	must(t, e.AddAdapter(rank4, 1))
	a, _ := count(e.model.Trainable())
	if got := e.Memory(); got != 16*a+4*(m+v) {
		t.Errorf("with an adapter %d bytes, want 16 for each of its %d weights and 4 for each of the model's %d", got, a, m+v)
	}
	must(t, e.HoldBase(HeldQ8))
	// A block of 32 weights has 34 bytes; rows and panels of 32 of them are filled up, here by less than half again.
	if got := e.Memory() - 16*a - 4*v; got < m*34/32 || got > 2*m {
		t.Errorf("held in q8_0 %d weights take %d bytes", m, got)
	}
}

// An engine that has trained all its weights gets an adapter: what was built for those is given up.
func TestAnAdapterOnWeightsThatWereTrained(t *testing.T) {
	e := fresh(t, true)
	must(t, e.StartOptimizer(adam))
	adapterStep(t, e)
	if e.model.Embed.Grad == nil {
		t.Fatal("training has no gradients")
	}
	must(t, e.AddAdapter(rank4, 3))
	if e.model.Params().Grad != nil || e.model.Embed.Grad != nil || !e.model.Embed.Frozen {
		t.Error("the frozen weights have memory for gradients, or are not frozen")
	}
	if _, err := e.Step(ctx, draw(3), 1e-2, coupled); err == nil || !strings.Contains(err.Error(), "not been started") {
		t.Errorf("the optimizer of all weights goes on: error %v", err)
	}
	base, before := slices.Clone(e.model.Params().W), e.Fingerprint()
	must(t, e.StartOptimizer(adam))
	adapterStep(t, e)
	if !slices.Equal(e.model.Params().W, base) || e.Fingerprint() == before {
		t.Error("a step moves the frozen weights, or does not move the adapter")
	}
}

func TestFingerprintIsOfTheBaseToo(t *testing.T) {
	a, b := fresh(t, true), fresh(t, true)
	b.model.Norm.W[0]++
	must(t, a.AddAdapter(rank4, 3))
	must(t, b.AddAdapter(rank4, 3))
	if a.Fingerprint() == b.Fingerprint() {
		t.Error("one adapter on two models has one fingerprint")
	}
	before := a.Fingerprint()
	must(t, a.HoldBase(HeldQ8))
	if a.Fingerprint() != before {
		t.Error("how the weights are held changes the fingerprint")
	}
}
