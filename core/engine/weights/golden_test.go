package weights

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk/sdktest"
)

// fewCases are the golden cases that come with the engine.
const fewCases = "../testdata/golden"

func readJSON(t *testing.T, path string, v any) bool {
	t.Helper()
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return false
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(path, ": ", err)
	}
	return true
}

// TestGoldenModels reads every model that PyTorch wrote and holds its tensors against its
// configuration, and against the sums that PyTorch took where they are given.
func TestGoldenModels(t *testing.T) {
	for _, file := range sdktest.GoldenCases(t, "arch/*/config.json", fewCases) {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) { goldenModel(t, dir) })
	}
}

// TestGoldenRunModels does the same with what the golden training runs began with.
func TestGoldenRunModels(t *testing.T) {
	for _, file := range sdktest.GoldenCases(t, "traj/*/*/config.json", fewCases) {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(filepath.Dir(dir))+"/"+filepath.Base(dir), func(t *testing.T) { goldenModel(t, dir) })
	}
}

func goldenModel(t *testing.T, dir string) {
	f := open(t, dir)
	var config struct {
		VocabSize        int   `json:"vocab_size"`
		HiddenSize       int   `json:"hidden_size"`
		NumHiddenLayers  int   `json:"num_hidden_layers"`
		IntermediateSize int   `json:"intermediate_size"`
		Tied             *bool `json:"tie_word_embeddings"`
	}
	readJSON(t, filepath.Join(dir, "config.json"), &config)
	shapes := map[string][]int{
		"model.embed_tokens.weight":           {config.VocabSize, config.HiddenSize},
		"model.norm.weight":                   {config.HiddenSize},
		"model.layers.0.mlp.down_proj.weight": {config.HiddenSize, config.IntermediateSize},
	}
	if config.Tied != nil && !*config.Tied {
		shapes["lm_head.weight"] = []int{config.VocabSize, config.HiddenSize}
	}
	for name, want := range shapes {
		if got, ok := f.Tensor(name); !ok || !slices.Equal(got.Shape, want) {
			t.Errorf("%s: shape %v, want %v", name, got.Shape, want)
		}
	}
	perLayer := map[string]int{}
	total := 0
	for _, name := range f.Names() {
		x, _ := f.Tensor(name)
		total += len(floats(t, f, name))
		if x.DType != F32 {
			t.Errorf("%s is %s", name, x.DType)
		}
		if layer, _, ok := cutLayer(name); ok {
			perLayer[layer]++
		}
	}
	if len(perLayer) != config.NumHiddenLayers {
		t.Errorf("%d layers, want %d", len(perLayer), config.NumHiddenLayers)
	}
	for layer, n := range perLayer {
		if n != perLayer["0"] {
			t.Errorf("layer %s has %d tensors, layer 0 %d", layer, n, perLayer["0"])
		}
	}
	var reference struct {
		NParams       int                   `json:"n_params"`
		ParamChecksum map[string][2]float64 `json:"param_checksum"`
		GradNorm      map[string]float64    `json:"grad_norm"`
	}
	if !readJSON(t, filepath.Join(dir, "reference.json"), &reference) {
		return
	}
	if total != reference.NParams {
		t.Errorf("%d parameters, want %d", total, reference.NParams)
	}
	checkSums(t, f, reference.ParamChecksum)

	gradients := open(t, filepath.Join(dir, "gradients.safetensors"))
	if !slices.Equal(gradients.Names(), f.Names()) {
		t.Errorf("gradients of %q, parameters %q", gradients.Names(), f.Names())
	}
	for name, want := range reference.GradNorm {
		squares := 0.0
		for _, x := range floats(t, gradients, name) {
			squares += float64(x) * float64(x)
		}
		if got := math.Sqrt(squares); math.Abs(got-want) > 1e-6*want {
			t.Errorf("gradient of %s: norm %v, want %v", name, got, want)
		}
	}
	values := open(t, filepath.Join(dir, "reference.safetensors"))
	ids, _ := values.Tensor("input_ids")
	mask, _ := values.Tensor("attention_mask")
	logits, _ := values.Tensor("logits")
	i, errIDs := ids.Int64s(nil)
	m, errMask := mask.Int64s(nil)
	if errIDs != nil || errMask != nil || len(i) != len(m) || !slices.Equal(logits.Shape, []int{ids.Shape[0], ids.Shape[1], config.VocabSize}) {
		t.Errorf("ids %v (%v), mask %v (%v), logits %v", ids.Shape, errIDs, mask.Shape, errMask, logits.Shape)
	}
	for k := range i {
		if i[k] < 0 || i[k] >= int64(config.VocabSize) || m[k] < 0 || m[k] > 1 {
			t.Fatalf("token %d is %d, its mask %d", k, i[k], m[k])
		}
	}
}

// TestGoldenFinals reads what the golden training runs ended with.
func TestGoldenFinals(t *testing.T) {
	for _, file := range sdktest.GoldenCases(t, "traj/*/trajectory.json", fewCases) {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var trajectory struct {
				Final map[string]struct {
					Sum    float64 `json:"sum"`
					AbsSum float64 `json:"abs_sum"`
				} `json:"final_checksum"`
			}
			readJSON(t, file, &trajectory)
			sums := map[string][2]float64{}
			for name, s := range trajectory.Final {
				sums[name] = [2]float64{s.Sum, s.AbsSum}
			}
			checkSums(t, open(t, filepath.Join(dir, "final.safetensors")), sums)
		})
	}
}

// checkSums compares each tensor's sum and sum of magnitudes, taken in float64.
func checkSums(t *testing.T, f *File, want map[string][2]float64) {
	t.Helper()
	if len(want) == 0 {
		t.Error("no sums to compare with")
	}
	for name, w := range want {
		sum, abs := 0.0, 0.0
		for _, x := range floats(t, f, name) {
			sum += float64(x)
			abs += math.Abs(float64(x))
		}
		if math.Abs(sum-w[0]) > 1e-9*w[1] || math.Abs(abs-w[1]) > 1e-9*w[1] {
			t.Errorf("%s: sums %v and %v, want %v", name, sum, abs, w)
		}
	}
}

// cutLayer parts "model.layers.3.mlp.up_proj.weight" into "3" and the rest.
func cutLayer(name string) (layer, rest string, ok bool) {
	name, ok = strings.CutPrefix(name, "model.layers.")
	layer, rest, _ = strings.Cut(name, ".")
	return layer, rest, ok
}
