package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dno-project/dno/core/engine"
	"github.com/dno-project/dno/core/engine/generate"
	"github.com/dno-project/dno/core/serve"
	"github.com/dno-project/dno/sdk"
)

// startServer serves the embedded model until the test ends, and returns the API's URL.
func startServer(t *testing.T, o serve.Options) string {
	t.Helper()
	e, err := loadModel(embeddedModel, ".")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Name = embeddedModel
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- serve.New(servedModel{e, generate.SameWeights}, o).Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String() + "/v1"
}

// asked is an answer of the server, as far as these tests look at it.
type asked struct {
	Seed    uint64
	Choices []struct {
		Index    int
		Text     string
		Message  struct{ Content string }
		Delta    struct{ Content string }
		Finish   *sdk.Finish `json:"finish_reason"`
		IDs      []int32     `json:"token_ids"`
		LogProbs struct {
			Content []struct{ LogProb float64 }
			Tokens  []*float64 `json:"token_logprobs"`
		}
	}
	PromptIDs []int32 `json:"prompt_token_ids"`
}

func askServer(t *testing.T, url string, body map[string]any) (out asked) {
	t.Helper()
	body["model"] = embeddedModel
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Post(url, "application/json", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v, status %d, %s", data, err, res.StatusCode, answer)
	}
	if body["stream"] != true {
		if err := json.Unmarshal(answer, &out); err != nil {
			t.Fatalf("%v in %s", err, answer)
		}
		return out
	}
	for event := range strings.SplitSeq(strings.TrimSuffix(string(answer), "\n\n"), "\n\n") {
		if event == "data: [DONE]" {
			return out
		}
		var e asked
		if err := json.Unmarshal([]byte(strings.TrimPrefix(event, "data: ")), &e); err != nil {
			t.Fatalf("%v in %s", err, event)
		}
		out.PromptIDs = append(out.PromptIDs, e.PromptIDs...)
		for _, c := range e.Choices {
			if out.Seed = e.Seed; c.Index == len(out.Choices) {
				out.Choices = append(out.Choices, c)
				out.Choices[c.Index].Message.Content = c.Delta.Content
				continue
			}
			have := &out.Choices[c.Index]
			have.Message.Content += c.Delta.Content
			have.IDs, have.Finish = append(have.IDs, c.IDs...), c.Finish
			have.LogProbs.Content = append(have.LogProbs.Content, c.LogProbs.Content...)
		}
	}
	t.Fatalf("the stream does not end: %s", answer)
	return out
}

// What the server draws for many clients at once is what the engine draws for each alone, and its log-probabilities are
// those of the graph that trains the model, to the last bit.
func TestServedCompletionsAreTheEngines(t *testing.T) {
	url := startServer(t, serve.Options{})
	e, err := loadModel(embeddedModel, ".") // knows nothing of what the server drew
	if err != nil {
		t.Fatal(err)
	}
	const clients = 48
	got := make([]asked, clients)
	body := func(i int) map[string]any {
		b := map[string]any{
			"messages": []map[string]any{{"role": "user", "content": fmt.Sprintf("A box is %d by 4 by 3 cm. Find its surface.", 2+i%7)}},
			"seed":     i, "max_tokens": 5 + i*2, "logprobs": true, "top_logprobs": i % 3, "return_token_ids": true, "stream": i%2 == 0,
		}
		switch i % 4 {
		case 1:
			b["temperature"], b["top_p"], b["repetition_penalty"] = 1.3, 0.95, 1.1
		case 2:
			b["temperature"] = 0
		case 3:
			b["stop"], b["top_k"] = []string{";then 1", "6"}, 20
		}
		return b
	}
	var all sync.WaitGroup
	for i := range got {
		all.Go(func() { got[i] = askServer(t, url+"/chat/completions", body(i)) })
	}
	all.Wait()
	if t.Failed() {
		return
	}
	var seqs []engine.Sequence
	for i, a := range got {
		b := body(i)
		o := sdk.GenerateOptions{Temperature: 1, MaxTokens: 5 + i*2}
		switch i % 4 {
		case 1:
			o.Temperature, o.TopP, o.RepetitionPenalty = 1.3, 0.95, 1.1
		case 2:
			o.Temperature = 0
		case 3:
			o.Stop, o.TopK = []string{";then 1", "6"}, 20
		}
		content := b["messages"].([]map[string]any)[0]["content"].(string)
		want, err := (&policy{engine: e}).Generate(t.Context(), sdk.GenerateRequest{
			Prompts: [][]sdk.Message{{{Role: "user", Content: content}}}, Seeds: [][]uint64{{uint64(i)}}, Options: o,
		})
		if err != nil {
			t.Fatal(err)
		}
		c, w := a.Choices[0], want.Completions[0][0]
		if c.Message.Content != w.Text || !slices.Equal(c.IDs, w.Tokens) || *c.Finish != w.Finish || a.Seed != uint64(i) {
			t.Errorf("client %d got %q %v, want %q %v", i, c.Message.Content, c.IDs, w.Text, w.Tokens)
		}
		seqs = append(seqs, engine.Sequence{Prompt: a.PromptIDs, Completion: c.IDs})
	}
	fresh, err := loadModel(embeddedModel, ".") // has drawn nothing, and scores by the graph
	if err != nil {
		t.Fatal(err)
	}
	scores, err := fresh.TokenLogProbs(t.Context(), seqs)
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range got {
		var told []float64
		for _, token := range a.Choices[0].LogProbs.Content {
			told = append(told, token.LogProb)
		}
		if !slices.Equal(told, scores[i]) {
			t.Errorf("client %d was told %v, the graph says %v", i, told, scores[i])
		}
	}
}

// A text's own log-probabilities are the graph's too, and what is drawn after it does not depend on them.
func TestEchoedLogProbsAreTheGraphs(t *testing.T) {
	url := startServer(t, serve.Options{})
	e, err := loadModel(embeddedModel, ".")
	if err != nil {
		t.Fatal(err)
	}
	ids := e.EncodePrompt(messages([]sdk.Message{{Role: "user", Content: "A box is 12 by 4 by 3 cm. Find its surface."}}))
	ids = append(ids, e.EncodeCompletion("12*4=48;")...)
	ids = ids[:len(ids)-1] // without the end
	all := askServer(t, url+"/completions", map[string]any{"prompt": ids, "echo": true, "logprobs": 5, "max_tokens": 9, "seed": 3, "return_token_ids": true})
	plain := askServer(t, url+"/completions", map[string]any{"prompt": ids, "max_tokens": 9, "seed": 3, "return_token_ids": true})
	alone := askServer(t, url+"/completions", map[string]any{"prompt": ids, "echo": true, "logprobs": 0, "max_tokens": 0})
	drawn := plain.Choices[0]
	if c := all.Choices[0]; !slices.Equal(c.IDs, drawn.IDs) || c.Text != e.Decode(ids)+drawn.Text || alone.Choices[0].Text != e.Decode(ids) {
		t.Errorf("with echo %q %v, without %q %v, alone %q", c.Text, c.IDs, drawn.Text, drawn.IDs, alone.Choices[0].Text)
	}
	scores, err := e.TokenLogProbs(t.Context(), []engine.Sequence{{Prompt: ids[:1], Completion: slices.Concat(ids[1:], drawn.IDs)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, told := range map[string][]*float64{"with a completion": all.Choices[0].LogProbs.Tokens, "alone": alone.Choices[0].LogProbs.Tokens} {
		if len(told) < len(ids) || told[0] != nil {
			t.Fatalf("%s: told %v", name, told)
		}
		for i, p := range told[1:] {
			if *p != scores[0][i] {
				t.Errorf("%s: token %d has %v, the graph says %v", name, i+1, *p, scores[0][i])
			}
		}
	}
}

// serving is `dno serve` in a process of its own, which is stopped with a signal.
func serving(t *testing.T, env []string, args ...string) (url string, stop func() (stderr string, code int)) {
	t.Helper()
	cmd := exec.Command("dno", append([]string{"serve", "--json", "--addr", "127.0.0.1:0"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceValues(func() (string, int) {
		_ = cmd.Process.Signal(os.Interrupt)
		err := cmd.Wait()
		return stderr.String(), exitCode(err)
	})
	t.Cleanup(func() { stop() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	var ready struct{ Address, Model string }
	if err != nil || json.Unmarshal([]byte(line), &ready) != nil || ready.Model == "" {
		_, _ = stop()
		t.Fatalf("%v: it printed %q, and %s", err, line, stderr.String())
	}
	return ready.Address, stop
}

func TestServeFromTheCommandLine(t *testing.T) {
	skipOnWindows(t)
	const key = "canary-0123456789abcdef"
	url, stop := serving(t, []string{"DNO_TEST_KEY=" + key}, embeddedModel, "--key", "env:DNO_TEST_KEY", "-v", "--weights", "q8_0")
	get := func(header string) (int, string) {
		req, err := http.NewRequest("POST", url+"/completions", strings.NewReader(`{"model": "`+embeddedModel+`", "prompt": "A box", "logprobs": 1}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", header)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		data, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(data)
	}
	if status, data := get("Bearer another-key"); status != http.StatusUnauthorized {
		t.Errorf("with another key: %d %s", status, data)
	}
	if status, data := get("Bearer " + key); status != http.StatusBadRequest || !strings.Contains(data, "--weights same") {
		t.Errorf("log-probabilities of other weights: %d %s", status, data)
	}
	stderr, code := stop()
	if code != 130 || strings.Contains(stderr, key) || !strings.Contains(stderr, `"status":401`) {
		t.Errorf("it ended with %d: %s", code, stderr)
	}
}

// The official clients, where they are installed.

func TestThePythonClient(t *testing.T) {
	name := os.Getenv("DNO_PYTHON")
	if name == "" {
		name = "python3"
	}
	if out, err := exec.Command(name, "-c", "import openai").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: OpenAI's Python client, for %s has no openai (%v: %s); name one that has it in DNO_PYTHON", name, err, out)
	}
	runClient(t, name, filepath.Join("testdata", "openai_client.py"))
}

func TestTheNodeClient(t *testing.T) {
	if out, err := exec.Command("node", "-e", "require('openai')").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: OpenAI's Node client, for node has no openai (%v: %.200s); name the folder that has it in NODE_PATH", err, out)
	}
	runClient(t, "node", filepath.Join("testdata", "openai_client.cjs"))
}

// runClient runs a program that asks the server and checks what comes; it prints what it has checked.
func runClient(t *testing.T, program, script string) {
	t.Helper()
	const key = "0123456789abcdef0123"
	url := startServer(t, serve.Options{Key: key, Local: true})
	cmd := exec.Command(program, script, url, key, embeddedModel)
	cmd.Env = append(os.Environ(), "NO_PROXY=127.0.0.1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ok: ") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
