package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dno-project/dno/core/telemetry"
)

func bodyOf(t testing.TB, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// failure is an error as clients read it: every member is there.
func failure(t testing.TB, data string) (message, kind, param, code string) {
	t.Helper()
	var e struct{ Error map[string]*string }
	decode(t, []byte(data), &e)
	for _, key := range []string{"message", "type", "param", "code"} {
		if _, ok := e.Error[key]; !ok || len(e.Error) != 4 {
			t.Fatalf("no error in OpenAI's shape: %s", data)
		}
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	return text(e.Error["message"]), text(e.Error["type"]), text(e.Error["param"]), text(e.Error["code"])
}

func TestWrongRequestsAreRefusedByName(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.positions = 100
	r := start(t, f, Options{})
	chat := func(more string) string {
		return `{"model": "m", "messages": [{"role": "user", "content": "x"}], ` + more + `}`
	}
	messages := func(m string) string { return `{"model": "m", "messages": ` + m + `}` }
	text := func(more string) string { return `{"model": "m", "prompt": "x", ` + more + `}` }
	prompt := func(p string) string { return `{"model": "m", "prompt": ` + p + `}` }
	many := strings.Repeat(`"x", `, 1024) + `"x"`
	for _, c := range []struct {
		path, body  string
		status      int
		param, code string
		want        string
	}{
		{chatPath, ``, 400, "", "invalid_json", "EOF"},
		{chatPath, `[]`, 400, "", "invalid_json", "not a JSON object"},
		{chatPath, `{"model": `, 400, "", "invalid_json", "no request"},
		{chatPath, `{"model": "m"`, 400, "", "invalid_json", "no request"},
		{chatPath, `{"model": "m"} {}`, 400, "", "invalid_json", "follows"},
		{chatPath, `{"model": "m", "model": "m"}`, 400, "", "invalid_json", `"model" twice`},
		{chatPath, "\ufeff{}", 400, "", "invalid_json", "no request"},
		{chatPath, "{\"\xff\": 1}", 400, "", "invalid_json", "UTF-8"},
		{chatPath, `{"model": "m", "x": ` + strings.Repeat("[", 17) + strings.Repeat("]", 17) + `}`, 400, "", "invalid_json", "16 deep"},
		{chatPath, `{"model": "m", "x": NaN}`, 400, "", "invalid_json", "no request"},
		{chatPath, `{}`, 400, "model", "", `this server has "m"`},
		{chatPath, `{"model": 1}`, 400, "model", "", "a text"},
		{chatPath, `{"model": "gpt\u001b"}`, 404, "", "model_not_found", `"gpt\x1b"`},
		{chatPath, `{"model": "m"}`, 400, "messages", "", "one message at least"},
		{chatPath, messages(`[]`), 400, "messages", "", "one message at least"},
		{chatPath, messages(`"x"`), 400, "messages", "", "a list"},
		{chatPath, messages(`[{"role": "tool", "content": "x"}]`), 400, "messages[0].role", "", `"tool"`},
		{chatPath, messages(`[{"content": "x"}]`), 400, "messages[0].role", "", "messages[0]"},
		{chatPath, messages(`[{"role": "user"}]`), 400, "messages[0].content", "", "a text or a list"},
		{chatPath, messages(`[{"role": "user", "content": 1}]`), 400, "messages[0].content", "", "a text or a list"},
		{chatPath, messages(`[{"role": "user", "content": "x"}, {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]`), 400, "messages[1].content", "", `"image_url"`},
		{chatPath, messages(`[{"role": "user", "content": [{"type": "text", "text": "x", "cache_control": {}}]}]`), 400, "messages[0].content", "", `only {"type": "text"`},
		{chatPath, messages(`[{"role": "user", "content": "x", "name": "n"}]`), 400, "messages[0].name", "", "name is not supported"},
		{chatPath, messages(`[{"role": "assistant", "content": "x", "tool_calls": [{}]}]`), 400, "messages[0].tool_calls", "", "not supported"},
		{chatPath, messages(`[{"role": "user", "content": "x", "extra": 1}]`), 400, "messages[0].extra", "", "not known"},
		{chatPath, chat(`"frobnicate": 1`), 400, "frobnicate", "", `"frobnicate" is not known`},
		{chatPath, chat(`"tools": [{"type": "function"}]`), 400, "tools", "", "tools is not supported"},
		{chatPath, chat(`"tool_choice": "required"`), 400, "tool_choice", "", "not supported"},
		{chatPath, chat(`"response_format": {"type": "json_object"}`), 400, "response_format", "", "not supported"},
		{chatPath, chat(`"guided_grammar": "x"`), 400, "guided_grammar", "", "not supported"},
		{chatPath, chat(`"presence_penalty": 0.1`), 400, "presence_penalty", "", "not supported"},
		{chatPath, chat(`"logit_bias": {"1": 5}`), 400, "logit_bias", "", "not supported"},
		{chatPath, chat(`"stop_token_ids": [1]`), 400, "stop_token_ids", "", "not supported"},
		{chatPath, chat(`"n": 0`), 400, "n", "", "from 1 to 128"},
		{chatPath, chat(`"n": 129`), 400, "n", "", "from 1 to 128"},
		{chatPath, chat(`"n": 1.5`), 400, "n", "", "whole number"},
		{chatPath, chat(`"n": "1"`), 400, "n", "", "whole number"},
		{chatPath, chat(`"seed": 1.5`), 400, "seed", "", "whole number"},
		{chatPath, chat(`"seed": 18446744073709551616`), 400, "seed", "", "64 bits"},
		{chatPath, chat(`"temperature": -0.1`), 400, "temperature", "", "from 0"},
		{chatPath, chat(`"temperature": 1e999`), 400, "temperature", "", "a number"},
		{chatPath, chat(`"top_p": 0`), 400, "top_p", "", "above 0"},
		{chatPath, chat(`"top_p": 1.1`), 400, "top_p", "", "at most 1"},
		{chatPath, chat(`"top_k": -2`), 400, "top_k", "", "from -1"},
		{chatPath, chat(`"min_p": 2`), 400, "min_p", "", "from 0 to 1"},
		{chatPath, chat(`"repetition_penalty": 0`), 400, "repetition_penalty", "", "above 0"},
		{chatPath, chat(`"max_tokens": 0`), 400, "max_tokens", "", "from 1"},
		{chatPath, chat(`"max_tokens": 5, "max_completion_tokens": 6`), 400, "max_tokens", "", "one of them"},
		{chatPath, chat(`"stop": ""`), 400, "stop", "", "1 to 1024"},
		{chatPath, chat(`"stop": ["x", ""]`), 400, "stop", "", "1 to 1024"},
		{chatPath, chat(`"stop": ["x", null]`), 400, "stop", "", "list of texts"},
		{chatPath, chat(`"stop": 5`), 400, "stop", "", "list of texts"},
		{chatPath, chat(`"stop": [` + strings.Repeat(`"x", `, 16) + `"x"]`), 400, "stop", "", "at most 16"},
		{chatPath, chat(`"stop": "` + strings.Repeat("x", 1025) + `"`), 400, "stop", "", "1 to 1024"},
		{chatPath, chat(`"logprobs": 5`), 400, "logprobs", "", "true or false"},
		{chatPath, chat(`"top_logprobs": 5`), 400, "top_logprobs", "", "logprobs is not true"},
		{chatPath, chat(`"logprobs": true, "top_logprobs": 21`), 400, "top_logprobs", "", "from 0 to 20"},
		{chatPath, chat(`"stream": "yes"`), 400, "stream", "", "true or false"},
		{chatPath, chat(`"stream_options": {"include_usage": true}`), 400, "stream_options", "", "set stream"},
		{chatPath, chat(`"stream": true, "stream_options": {"x": 1}`), 400, "stream_options", "", "not known"},
		{chatPath, chat(`"stream": true, "stream_options": 1`), 400, "stream_options", "", "an object"},
		{chatPath, chat(`"user": 1`), 400, "user", "", "a text"},
		{chatPath, chat(`"return_token_ids": 1`), 400, "return_token_ids", "", "true or false"},
		{chatPath, messages(`[{"role": "user", "content": "` + strings.Repeat("x", 100) + `"}]`), 400, "messages", "context_length_exceeded", "106 tokens"},
		{textPath, `{"model": "m"}`, 400, "prompt", "", "prompt must be"},
		{textPath, prompt(`[]`), 400, "prompt", "", "prompt must be"},
		{textPath, prompt(`{}`), 400, "prompt", "", "prompt must be"},
		{textPath, prompt(`["x", 1]`), 400, "prompt", "", "prompt must be"},
		{textPath, prompt(`["x", null]`), 400, "prompt", "", "prompt must be"},
		{textPath, prompt(`[1, "x"]`), 400, "prompt", "", "prompt must be"},
		{textPath, prompt(`[[1], 1]`), 400, "prompt", "", "prompt must be"},
		{textPath, prompt(`[[1, null]]`), 400, "prompt", "", "prompt must be"},
		{textPath, prompt(`[257]`), 400, "prompt", "", "from 0 to 256"},
		{textPath, prompt(`[-1]`), 400, "prompt", "", "from 0 to 256"},
		{textPath, prompt(`[1.5]`), 400, "prompt", "", "prompt must be"},
		{textPath, prompt(`""`), 400, "prompt", "", "no tokens"},
		{textPath, prompt(`[[1], []]`), 400, "prompt", "", "prompt 1 has no tokens"},
		{textPath, prompt(`"` + strings.Repeat("x", 100) + `"`), 400, "prompt", "context_length_exceeded", "100 tokens"},
		{textPath, prompt(`[` + many + `]`), 400, "n", "", "1025 completions"},
		{textPath, text(`"suffix": "y"`), 400, "suffix", "", "suffix is not supported"},
		{textPath, text(`"best_of": 2`), 400, "best_of", "", "not supported"},
		{textPath, text(`"messages": []`), 400, "messages", "", "not known"},
		{textPath, text(`"logprobs": 21`), 400, "logprobs", "", "from 0 to 20"},
		{textPath, text(`"logprobs": true`), 400, "logprobs", "", "whole number"},
		{textPath, text(`"max_tokens": 0`), 400, "max_tokens", "", "from 1"},
	} {
		status, _, data := r.post(c.path, c.body)
		message, kind, param, code := failure(t, string(data))
		if status != c.status || param != c.param || code != c.code || kind != invalid || !strings.Contains(message, c.want) {
			t.Errorf("%s %.200s: status %d, param %q, code %q: %s", c.path, c.body, status, param, code, message)
		}
	}
	if len(f.asked) > 0 {
		t.Errorf("%d completions were drawn", len(f.asked))
	}
	// As long as the context allows.
	r.ask(textPath, prompt(`"`+strings.Repeat("x", 99)+`"`))
	r.ask(textPath, `{"model": "m", "echo": true, "max_tokens": 0, "logprobs": 1, "prompt": "`+strings.Repeat("x", 100)+`"}`)
}

// The page of the reference names every field that is refused, and every code.
func TestTheReferenceIsComplete(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/reference/serve.md")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range []map[string][]string{chatDefaults, completionDefaults, messageDefaults} {
		names = slices.AppendSeq(names, maps.Keys(m))
	}
	for _, file := range []string{"guard.go", "decode.go", "fields.go", "handle.go"} {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?:refusal\([^"]*|coded\()"([a-z_]+)"`).FindAllSubmatch(code, -1) {
			names = append(names, string(m[1]))
		}
	}
	if len(names) < 60 {
		t.Fatalf("only %d names", len(names))
	}
	for _, name := range names {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/reference/serve.md does not name %s", name)
		}
	}
}

func TestWithoutLogProbs(t *testing.T) {
	t.Parallel()
	r := start(t, newFake(), Options{NoLogProbs: "the weights are others"})
	status, _, data := r.post(textPath, `{"model": "m", "prompt": "x", "logprobs": 0}`)
	if message, _, param, _ := failure(t, string(data)); status != 400 || param != "logprobs" || !strings.Contains(message, "the weights are others") {
		t.Errorf("status %d: %s", status, message)
	}
	r.ask(textPath, `{"model": "m", "prompt": "x"}`)
}

// call sends a request as it is given, with a Host and headers.
func (r *running) call(method, path, host string, header map[string]string, body io.Reader) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.url+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, bodyOf(r.t, res)
}

func TestF41TheServerIsForThisMachineAlone(t *testing.T) {
	t.Parallel()
	local, open := start(t, newFake(), Options{Local: true}), start(t, newFake(), Options{})
	for _, c := range []struct {
		host, origin string
		local, open  int
	}{
		{"", "", 200, 200},
		{"localhost", "", 200, 200},
		{"LOCALHOST:8080", "", 200, 200},
		{"127.9.9.9:1", "", 200, 200},
		{"[::1]:8080", "", 200, 200},
		{"[::1]", "", 200, 200},
		{"evil.example", "", 403, 200}, // its name was bound to 127.0.0.1
		{"evil.example:8080", "", 403, 200},
		{"localhost.evil.example", "", 403, 200},
		{"127.0.0.1.evil.example", "", 403, 200},
		{"10.0.0.1:8080", "", 403, 200},
		{"localhost:8080", "http://localhost:8080", 200, 200},
		{"localhost:8080", "http://evil.example", 403, 403},
		{"localhost:8080", "http://localhost:3000", 403, 403}, // another program's page
		{"localhost:8080", "null", 403, 403},
		{"evil.example", "http://evil.example", 403, 200},
	} {
		for r, want := range map[*running]int{local: c.local, open: c.open} {
			header := map[string]string{}
			if c.origin != "" {
				header["Origin"] = c.origin
			}
			res, data := r.call("GET", "/v1/models", c.host, header, nil)
			if res.StatusCode != want {
				t.Errorf("host %q, origin %q: status %d, want %d", c.host, c.origin, res.StatusCode, want)
			}
			if want == 403 {
				failure(t, data)
			}
			if res.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("other origins are let in")
			}
		}
	}
}

func TestF33TheKeyIsShownAndNotTold(t *testing.T) {
	t.Parallel()
	const key = "canary-0123456789abcdef"
	var mu sync.Mutex
	var logged bytes.Buffer
	log, err := telemetry.New(telemetry.Options{Writer: lockedWriter{&mu, &logged}, Level: "debug"})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, newFake(), Options{Key: key, Log: log})
	all := ""
	for _, c := range []struct {
		path, header string
		want         int
	}{
		{"/v1/models", "Bearer " + key, 200},
		{"/v1/models", "bearer  " + key, 200},
		{"/v1/models", "", 401},
		{"/v1/models", key, 401},
		{"/v1/models", "Basic " + key, 401},
		{"/v1/models", "Bearer " + key[1:], 401},
		{"/v1/models", "Bearer " + key + "x", 401},
		{"/v1/models", "Bearer", 401},
		{"/v1/none", "", 401},
		{"/health", "", 200},
	} {
		header := map[string]string{}
		if c.header != "" {
			header["Authorization"] = c.header
		}
		res, data := r.call("GET", c.path, "", header, nil)
		if res.StatusCode != c.want {
			t.Errorf("%s with %q: status %d, want %d", c.path, c.header, res.StatusCode, c.want)
		}
		if c.want == 401 {
			if _, _, _, code := failure(t, data); code != "invalid_api_key" || res.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("the error's code is %q", code)
			}
		}
		all += data + fmt.Sprint(res.Header)
	}
	if err := r.stop(); !errors.Is(err, errEnough) {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(all+logged.String(), key[1:]) || !strings.Contains(logged.String(), "GET /v1/models") {
		t.Errorf("the answers and the log are\n%s\n%s", all, &logged)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func TestPathsMethodsAndBodies(t *testing.T) {
	t.Parallel()
	r := start(t, newFake(), Options{})
	asJSON := map[string]string{"Content-Type": "application/json; charset=utf-8"}
	for _, c := range []struct {
		method, path string
		header       map[string]string
		body         string
		status       int
		code, allow  string
	}{
		{"GET", "/", nil, "", 404, "not_found", ""},
		{"GET", "/v1/<script>", nil, "", 404, "not_found", ""},
		{"GET", chatPath, nil, "", 405, "method_not_allowed", "POST"},
		{"DELETE", "/v1/models", nil, "", 405, "method_not_allowed", "GET"},
		{"OPTIONS", textPath, nil, "", 405, "method_not_allowed", "POST"},
		{"GET", "/v1/models/other", nil, "", 404, "model_not_found", ""},
		{"POST", chatPath, nil, "{}", 415, "unsupported_media_type", ""},
		{"POST", chatPath, map[string]string{"Content-Type": "text/plain"}, "{}", 415, "unsupported_media_type", ""},
		{"POST", chatPath, asJSON, `{"model": "` + strings.Repeat("x", maxBody) + `"}`, 413, "request_too_large", ""},
	} {
		res, data := r.call(c.method, c.path, "", c.header, strings.NewReader(c.body))
		_, _, _, code := failure(t, data)
		if res.StatusCode != c.status || code != c.code || res.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %d, %s, allow %q", c.method, c.path, res.StatusCode, data, res.Header.Get("Allow"))
		}
		if res.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
			t.Errorf("%s %s: header %v", c.method, c.path, res.Header)
		}
	}
}

// Model text is told as JSON, which no browser takes for a page.
func TestF34MarkupInATextIsOnlyText(t *testing.T) {
	t.Parallel()
	const evil = "<script>alert(1)</script>\x1b[2J\u202e"
	r := start(t, says(evil), Options{})
	for _, more := range []string{``, `, "stream": true`} {
		_, header, data := r.post(chatPath, `{"model": "m", "messages": [{"role": "user", "content": "x"}]`+more+`}`)
		if bytes.ContainsAny(data, "<\x1b") || header.Get("X-Content-Type-Options") != "nosniff" || strings.Contains(header.Get("Content-Type"), "html") {
			t.Errorf("%v\n%s", header, data)
		}
	}
	if got := r.ask(chatPath, `{"model": "m", "messages": [{"role": "user", "content": "x"}]}`); got.Choices[0].Message.Content != evil {
		t.Errorf("the text is %q", got.Choices[0].Message.Content)
	}
}

func TestAFaultEndsItsRequestAlone(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.say = func(d Draw) string {
		if text := f.Decode(d.Prompt); text == "panic" || text == "fail" {
			return text
		}
		return "fine"
	}
	var mu sync.Mutex
	var logged bytes.Buffer
	log, err := telemetry.New(telemetry.Options{Writer: lockedWriter{&mu, &logged}})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, f, Options{Log: log})
	for _, c := range []struct{ path, body, want string }{
		{chatPath, `"messages": [{"role": "user", "content": "panic"}]`, "a fault of dno"}, // in the handler
		{textPath, `"prompt": "panic"`, "a fault of dno"},                                  // while it is drawn
		{textPath, `"prompt": "panic", "stream": true`, "a fault of dno"},
		{textPath, `"prompt": "fail"`, "the fake's own error"},
	} {
		status, _, data := r.post(c.path, `{"model": "m", `+c.body+`}`)
		if message, kind, _, code := failure(t, string(data)); status != 500 || kind != fault || code != "internal_error" || !strings.Contains(message, c.want) || strings.Contains(message, "goroutine") {
			t.Errorf("%s: %d %s", c.body, status, data)
		}
		if got := r.ask(textPath, `{"model": "m", "prompt": "x"}`); *got.Choices[0].Text != "fine" {
			t.Errorf("after that the server says %q", *got.Choices[0].Text)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(logged.String(), "goroutine"); n < 3 {
		t.Errorf("%d stacks are logged:\n%s", n, &logged)
	}
}

// gated is a fake that draws a step for each that is let through.
func gated() (*fake, chan struct{}) {
	gate := make(chan struct{})
	f := says(strings.Repeat("a", 100))
	f.step = func() { <-gate }
	return f, gate
}

func TestAClientThatLeavesIsDropped(t *testing.T) {
	t.Parallel()
	for _, stream := range []bool{true, false} {
		f, gate := gated()
		f.slots = 2 // of its three completions one waits
		log, ended := ends(t)
		r := start(t, f, Options{Log: log})
		ctx, cancel := context.WithCancel(context.Background())
		req, err := http.NewRequestWithContext(ctx, "POST", r.url+textPath, strings.NewReader(fmt.Sprintf(`{"model": "m", "prompt": "x", "n": 3, "max_tokens": 100, "stream": %v}`, stream)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		left := make(chan error)
		go func() {
			res, err := http.DefaultClient.Do(req)
			if err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			left <- err
		}()
		gate <- struct{}{} // it is drawn
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		<-ended
		close(gate)
		r.ask(textPath, `{"model": "m", "prompt": "y", "max_tokens": 1}`) // drawn after all of that is over
		f.mu.Lock()
		if f.gone != 2 || len(f.asked) != 3 {
			t.Errorf("stream %v: %d completions were dropped of %d that were begun", stream, f.gone, len(f.asked))
		}
		f.mu.Unlock()
	}
}

func TestATimeoutIsTold(t *testing.T) {
	t.Parallel()
	f, gate := gated()
	defer close(gate)
	r, longer := start(t, f, Options{Timeout: 50 * time.Millisecond}), start(t, f, Options{Timeout: time.Second})
	status, _, data := r.post(textPath, `{"model": "m", "prompt": "x"}`)
	if message, _, _, code := failure(t, string(data)); status != 504 || code != "timeout" || !strings.Contains(message, "50ms") {
		t.Errorf("%d %s", status, data)
	}
	// A stream that has begun ends with the error, and not as one that is whole.
	status, _, data = longer.post(textPath, `{"model": "m", "prompt": "x", "echo": true, "stream": true}`)
	all := events(t, data)
	if _, _, _, code := failure(t, all[len(all)-1]); status != 200 || code != "timeout" || len(all) != 2 {
		t.Errorf("%d %s", status, data)
	}
}

func TestTooManyRequestsAreToldToComeBack(t *testing.T) {
	t.Parallel()
	f, gate := gated()
	f.read = make(chan struct{}, 9)
	r := start(t, f, Options{Requests: 2})
	var two sync.WaitGroup
	for range 2 {
		two.Go(func() { r.ask(textPath, `{"model": "m", "prompt": "x"}`) })
		<-f.read // it is let in
	}
	status, header, data := r.post(textPath, `{"model": "m", "prompt": "x"}`)
	if _, kind, _, code := failure(t, string(data)); status != 429 || header.Get("Retry-After") != "1" || code != "rate_limit_exceeded" || kind != busy {
		t.Errorf("%d %v %s", status, header, data)
	}
	if res, _ := r.call("GET", "/health", "", nil, nil); res.StatusCode != 200 {
		t.Error("a busy server is not healthy")
	}
	close(gate)
	two.Wait()
	r.ask(textPath, `{"model": "m", "prompt": "x"}`)
}

// pipes is a listener of connections in memory: what is not read blocks who writes.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (p *pipes) dial() net.Conn {
	client, server := net.Pipe()
	p.conns <- server
	return client
}

// Whoever is slow on purpose keeps nothing of the server for long.
func TestSlowClientsAreCutOff(t *testing.T) {
	t.Parallel()
	post := func(n int, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", textPath, n, body)
	}
	body := `{"model": "m", "prompt": "x", "n": 64, "max_tokens": 100, "logprobs": 20, "stream": true}`
	for name, c := range map[string]struct {
		send string
		read bool
		want string
	}{
		"headers that do not end":     {"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", true, ""},
		"a body that does not end":    {post(100, `{"model"`), true, "HTTP/1.1 408"},
		"an answer that is not read":  {post(len(body), body), false, ""},
		"a request that does not end": {"", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPipes()
			log, ended := ends(t)
			startAt(t, says(strings.Repeat("a", 99)), Options{patience: 200 * time.Millisecond, Log: log}, p)
			conn := p.dial()
			defer conn.Close()
			if c.send != "" {
				if _, err := io.WriteString(conn, c.send); err != nil {
					t.Fatal(err)
				}
			}
			if !c.read { // a write of the server waits for a reader, and in vain
				<-ended
			}
			got, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(got), c.want) || c.read && c.want == "" && len(got) > 0 && !strings.HasPrefix(string(got), "HTTP/1.1 4") || strings.Contains(string(got), "[DONE]") {
				t.Errorf("%v, %.300q", err, got)
			}
		})
	}
}

// Connections that wait between requests, or after a slow answer, are not spoiled by the deadlines of the one before.
func TestAConnectionOutlivesADeadline(t *testing.T) {
	t.Parallel()
	p := newPipes()
	const patience = 100 * time.Millisecond
	f, gate := gated()
	startAt(t, f, Options{patience: patience}, p)
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return p.dial(), nil }, MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	go func() {
		<-time.After(3 * patience) // the request's body is long read when its answer begins
		close(gate)
	}()
	for range 2 {
		res, err := client.Post("http://localhost"+textPath, "application/json", strings.NewReader(`{"model": "m", "prompt": "x"}`))
		if err != nil {
			t.Fatal(err)
		}
		var got reply
		decode(t, []byte(bodyOf(t, res)), &got)
		if *got.Choices[0].Text != strings.Repeat("a", 16) {
			t.Errorf("the text is %q", *got.Choices[0].Text)
		}
		<-time.After(2 * patience) // and the write's deadline is over when the next one comes
	}
}

func TestStoppingFinishesWhatRuns(t *testing.T) {
	t.Parallel()
	f, gate := gated()
	r := start(t, f, Options{})
	answered := make(chan reply)
	go func() { answered <- r.ask(textPath, `{"model": "m", "prompt": "x", "max_tokens": 3}`) }()
	gate <- struct{}{}
	stopped := make(chan error)
	go func() { stopped <- r.stop() }()
	for { // until no connection is taken any more
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped before the answer: %v", err)
	default:
	}
	close(gate)
	if got := <-answered; *got.Choices[0].Text != "aaa" {
		t.Errorf("the text is %q", *got.Choices[0].Text)
	}
	if err := <-stopped; !errors.Is(err, errEnough) {
		t.Errorf("it stopped with %v", err)
	}
}

func TestALostListenerIsAnError(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := New(newFake(), Options{}).Run(context.Background(), l); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("got %v", err)
	}
}

// FuzzRequest: whatever comes is a request within the limits, or an error of the client's that says so.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		`{"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "stop": ["a"], "seed": -1, "stream": true, "stream_options": {"include_usage": true}}`,
		`{"model": "m", "prompt": [[1, 2], [3]], "echo": true, "logprobs": 3, "max_tokens": 0, "n": 2, "top_k": -1}`,
		`{"model": "m", "prompt": "\ud800", "tools": [], "x\u001b": [[[[{}]]]]}`, `{"a": {"b": "\"]"}}`, `{"model"`, `{"model":}`, `{]`, "1" + strings.Repeat("0", 600),
	} {
		f.Add([]byte(s))
	}
	m := newFake()
	m.positions = 64
	s := New(m, Options{Name: "m"})
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, read := range []reader{chatFields, completionFields} {
			r, err := s.read(body, read)
			if err != nil {
				if failure(t, string(err.json())); err.status < 400 || err.status > 499 || err.body.Message == "" || len(err.body.Message) > 600 {
					t.Errorf("status %d: %s", err.status, err.body.Message)
				}
				continue
			}
			o := r.options
			if r.n < 1 || len(r.prompts)*r.n > maxChoices || len(r.prompts) == 0 || o.MaxTokens < 1 && !r.echo || !(o.Temperature >= 0) ||
				!(o.TopP > 0 && o.TopP <= 1) || !(o.MinP >= 0 && o.MinP <= 1) || !(o.RepetitionPenalty > 0) || o.TopK < 0 || r.top < 0 || r.top > maxTop || !json.Valid(r.given) {
				t.Errorf("%+v", r)
			}
			for _, p := range r.prompts {
				if len(p.ids) == 0 || len(p.ids) > 64 {
					t.Errorf("a prompt of %d tokens", len(p.ids))
				}
			}
			newJob(context.Background(), r)
		}
	})
}
