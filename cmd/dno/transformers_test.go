package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/dno-project/dno/core/engine"
	"github.com/dno-project/dno/sdk"
)

// python returns an interpreter that has torch and transformers: DNO_PYTHON, or python3.
func python(t *testing.T) string {
	t.Helper()
	name := os.Getenv("DNO_PYTHON")
	if name == "" {
		name = "python3"
	}
	if err := exec.Command(name, "-c", "import torch, transformers").Run(); err != nil {
		t.Skipf("NOT TESTED against transformers: %s has no torch and transformers (%v); name one that has them in DNO_PYTHON", name, err)
	}
	return name
}

// A checkpoint that dno wrote loads in transformers, encodes the same prompts, and gives each
// completion the log-probability that we say it has. The weights are moved first, so that the file
// is not the embedded one.
func TestTransformersReadsOurCheckpoints(t *testing.T) {
	interpreter := python(t)
	e, err := loadModel(embeddedModel, ".")
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, p := range e.Model().Params().All {
		for i := range p.W {
			p.W[i] += float32(rng.NormFloat64()) * 0.01
		}
	}
	e.Model().Changed()
	dir := t.TempDir()
	if err := e.Save(filepath.Join(dir, "checkpoint"), engine.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	for _, prompt := range []string{"A box is 12 by 7 by 4 cm. Find its surface.", "Rooms measure 19 by 5, 31 by 5 m. Find the total area.", "Grüße, 世界! 12+7"} {
		res, err := (&policy{engine: e}).Generate(t.Context(), sdk.GenerateRequest{
			Prompts: [][]sdk.Message{{{Role: "user", Content: prompt}}}, Seeds: [][]uint64{{1, 2, 3, 4}},
			Options: sdk.GenerateOptions{Temperature: 1, MaxTokens: 60},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range res.Completions[0] {
			if err := json.NewEncoder(&lines).Encode(map[string]any{"prompt": prompt, "tokens": c.Tokens, "text": c.Text, "logprob": c.LogProb}); err != nil {
				t.Fatal(err)
			}
		}
	}
	records := filepath.Join(dir, "completions.jsonl")
	if err := os.WriteFile(records, lines.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(interpreter, filepath.Join("testdata", "parity.py"), filepath.Join(dir, "checkpoint"), records)
	cmd.Env = append(os.Environ(), "HF_HUB_OFFLINE=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var got struct {
		Worst       float64
		Completions int
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// 60 tokens of float32 logits: each is good to 1e-5 nats.
	if got.Completions != 12 || got.Worst > 6e-4 {
		t.Errorf("%d completions, the largest difference is %v nats", got.Completions, got.Worst)
	}
	t.Logf("%d completions, the largest difference of a summed log-probability is %.1e nats", got.Completions, got.Worst)
}
