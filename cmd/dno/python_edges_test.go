//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dno-project/dno/core/host"
	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
)

// sums are the checksums of plugins by their kind.
type sums map[string]string

func (p sums) Checksum(kind sdk.Kind, name string) (string, bool) {
	sum, ok := p[string(kind)]
	return sum, ok
}

// edges returns a host of the plugins in testdata/python, and what it has logged.
func edges(t *testing.T, interpreter, sources string) (h *host.Host, words func() string) {
	t.Helper()
	dir, lock := t.TempDir(), sums{}
	for _, kind := range []string{"oracle", "sampler"} {
		text := fmt.Sprintf("#!%s\nimport sys; sys.path.insert(0, %q); sys.dont_write_bytecode = True\n", interpreter, filepath.Join(sources, "sdk", "python"))
		body := append([]byte(text), read(t, filepath.Join("testdata", "python", kind+".py"))...)
		if err := os.WriteFile(filepath.Join(dir, "dno-"+kind+"-edges"), body, 0o755); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(body)
		lock[kind] = hex.EncodeToString(sum[:])
	}
	var mu sync.Mutex
	var logged bytes.Buffer
	log, err := telemetry.New(telemetry.Options{Writer: locked{&mu, &logged}, Level: "debug", JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	if h, err = host.New(host.Options{SearchDirs: []string{dir}, Lock: lock, Log: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h, func() string {
		mu.Lock()
		defer mu.Unlock()
		return logged.String()
	}
}

func pythonOracle(t *testing.T, interpreter, sources string) {
	h, words := edges(t, interpreter, sources)
	o, _, err := h.Oracle(context.Background(), host.Spec{Name: "edges", Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	judge := func(what string) ([]sdk.Verdicts, error) {
		return o.Judge(context.Background(), []sdk.Comparison{{ID: "c", Candidates: []string{what, "b"}, Pairs: []sdk.Ordered{{A: 0, B: 1}}}})
	}
	for what, want := range map[string]struct {
		code sdk.Code
		text string
		hint string
	}{
		"coded":    {sdk.CodeUsage, "no key", "set one"},
		"fault":    {sdk.CodePlugin, "ZeroDivisionError: division by zero", ""},
		"exit":     {sdk.CodePlugin, "SystemExit: enough", ""},
		"nonsense": {sdk.CodePlugin, "Verdicts.cost", ""},
	} {
		_, err := judge(what)
		var e *sdk.Error
		if !errors.As(err, &e) || e.Code != want.code || e.Hint != want.hint || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: have %v, want %+v", what, err, want)
		}
	}
	if !strings.Contains(words(), "return [1 / 0]") {
		t.Errorf("the fault's traceback is not in the log:\n%s", words())
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := judge("together"); err != nil {
				t.Errorf("two calls do not run at once: %v", err)
			}
		})
	}
	wg.Wait()
	const size = 20 << 20
	if out, err := judge(strings.Repeat("x", size)); err != nil || out[0].Pairs[0].Reason != fmt.Sprint(size) {
		t.Errorf("20 MiB do not pass: %v", err)
	}
	if _, err := judge("print"); err != nil {
		t.Error(err)
	}
	start := time.Now()
	h.Close()
	if took := time.Since(start); took > time.Second || strings.Contains(words(), "killed") {
		t.Errorf("it ended after %v; the log says\n%s", took, words())
	}
	for _, want := range []string{"said on standard output", "said at the end", "a fault at the end"} {
		if !strings.Contains(words(), want) {
			t.Errorf("the log lacks %q:\n%s", want, words())
		}
	}
}

// draws is a generator in this process.
type draws func(sdk.GenerateRequest) (sdk.GenerateResponse, error)

func (f draws) Generate(_ context.Context, r sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	return f(r)
}

func pythonSampler(t *testing.T, interpreter, sources string) {
	h, _ := edges(t, interpreter, sources)
	s, _, err := h.Sampler(context.Background(), host.Spec{Name: "edges", Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	messages := []sdk.Message{{Role: "system", Content: "四"}, {Role: "user", Content: "u"}}
	req := sdk.SampleRequest{K: 2, Seeds: [][]uint64{{0, math.MaxUint64}}, Prompts: []sdk.Prompt{{ID: "p", Messages: messages}}}
	logProb := -1.5
	want := [][]sdk.Completion{{{Text: "a", Tokens: []int32{5, 2}, LogProb: &logProb, Finish: sdk.FinishLength, Seed: math.MaxUint64}, {}}}
	for range 3 { // each call has a service of its own on the broker
		out, err := s.Sample(context.Background(), req, draws(func(r sdk.GenerateRequest) (sdk.GenerateResponse, error) {
			options := sdk.GenerateOptions{Temperature: 0.5, TopK: 3, TopP: 1, RepetitionPenalty: 1, MaxTokens: 7, Stop: []string{"\n"}}
			if !reflect.DeepEqual(r, sdk.GenerateRequest{Prompts: [][]sdk.Message{messages}, Seeds: req.Seeds, Options: options}) {
				t.Errorf("the generator is asked %+v", r)
			}
			return sdk.GenerateResponse{Completions: want}, nil
		}))
		if err != nil || !reflect.DeepEqual(out.Completions, want) {
			t.Errorf("have %+v, %v", out, err)
		}
	}
	_, err = s.Sample(context.Background(), req, draws(func(sdk.GenerateRequest) (sdk.GenerateResponse, error) {
		return sdk.GenerateResponse{}, sdk.Errorf(sdk.CodeBudget, "the money is spent").WithHint("raise it")
	}))
	var e *sdk.Error
	if !errors.As(err, &e) || e.Code != sdk.CodeBudget || e.Hint != "raise it" || !strings.Contains(err.Error(), "the money is spent") {
		t.Errorf("an error of the host's generator comes back as %v", err)
	}
}
