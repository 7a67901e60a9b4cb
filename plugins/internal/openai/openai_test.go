package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// network is one that is no network: connections are pipes within a bubble of synctest, so time stands
// still while anything is under way.
type network struct {
	connections chan net.Conn
	closed      chan struct{}
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.connections:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error   { close(n.closed); return nil }
func (n *network) Addr() net.Addr { return &net.IPAddr{} }

func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case n.connections <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve returns a client of a server in this process. It is to be called within a bubble.
func serve(t *testing.T, o Options, handler http.HandlerFunc) *Client {
	t.Helper()
	n := &network{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a server notices that the client is gone only when the body is read
		r.Body = io.NopCloser(bytes.NewReader(body))
		handler(w, r)
	}), ErrorLog: discard}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(n) // ends with the test
	}()
	if o.URL == "" {
		o.URL = "http://127.0.0.1"
	}
	if o.Random == nil {
		o.Random = func() float64 { return 0.5 }
	}
	o.Transport = &http.Transport{DialContext: n.dial}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		_ = server.Close()
		<-done
	})
	return c
}

// good is a whole reply whose text is the given one.
func good(text string) string {
	return fmt.Sprintf(`{"model":"m-1","choices":[{"message":{"content":%q},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`, text)
}

func answer(w http.ResponseWriter, status int, body string, header ...string) {
	for i := 0; i+1 < len(header); i += 2 {
		w.Header().Set(header[i], header[i+1])
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // the client may be gone, which is its matter
}

var discard = log.New(io.Discard, "", 0)

var hello = Request{Model: "m", Messages: []Message{{"user", "hello"}}, MaxTokens: 5}

// failure wants an error of this package.
func failure(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an *Error", err)
	}
	return e
}

func TestWhatIsSent(t *testing.T) {
	t.Parallel()
	chat := Request{Model: "m", Messages: []Message{{"system", "be <brief>"}, {"user", "hello"}}, MaxTokens: 5, Temperature: 0.5, Seed: 7, LogProbs: 20}
	plain := Request{Model: "m", Prompt: "Once", MaxTokens: 1, LogProbs: 5, Extra: map[string]any{"guided_choice": []string{"A", "B"}}}
	for name, c := range map[string]struct {
		request    Request
		options    Options
		path, body string
	}{
		"a chat": {chat, Options{}, "/v1/chat/completions",
			`{"logprobs":true,"max_tokens":5,"messages":[{"role":"system","content":"be <brief>"},{"role":"user","content":"hello"}],"model":"m","seed":7,"temperature":0.5,"top_logprobs":20}`},
		"a continued text, with keys of the request's": {plain, Options{URL: "http://127.0.0.1/"}, "/v1/completions",
			`{"guided_choice":["A","B"],"logprobs":5,"max_tokens":1,"model":"m","prompt":"Once","seed":0,"temperature":0}`},
		"extra_body wins, and a null takes a key out": {hello, Options{URL: "http://127.0.0.1/api/v1/", ExtraBody: map[string]any{"max_tokens": nil, "max_completion_tokens": 9, "temperature": 1}},
			"/api/v1/chat/completions", `{"max_completion_tokens":9,"messages":[{"role":"user","content":"hello"}],"model":"m","seed":0,"temperature":1}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.options.Key = "sk-some-key"
				client := serve(t, c.options, func(w http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					var have, want any
					if json.Unmarshal(body, &have) != nil || json.Unmarshal([]byte(c.body), &want) != nil {
						t.Errorf("no JSON: %s", body)
					}
					if diff := cmp.Diff(want, have); diff != "" || r.URL.Path != c.path || r.Method != "POST" {
						t.Errorf("%s %s (-want +got):\n%s", r.Method, r.URL.Path, diff)
					}
					if r.Header.Get("Authorization") != "Bearer sk-some-key" || r.Header.Get("Content-Type") != "application/json" {
						t.Errorf("header %v", r.Header)
					}
					answer(w, 200, good("hi"))
				})
				if _, err := client.Ask(t.Context(), c.request); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestReplies(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body string
		want Reply
	}{
		"a text": {`{"model":"m-1","system_fingerprint":"fp","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`,
			Reply{Text: "hi", Choices: 1, Finish: "stop", Usage: Usage{3, 2, true}, Model: "m-1", Fingerprint: "fp"}},
		"no usage: it is guessed": {`{"choices":[{"text":"12345","finish_reason":"length"}],"system_fingerprint":null,"usage":null}`,
			Reply{Text: "12345", Choices: 1, Finish: "length", Usage: Usage{2, 2, false}}},
		"no choice": {`{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":0}}`, Reply{Usage: Usage{3, 0, true}}},
		"null as content, and a refusal": {`{"choices":[{"message":{"content":null,"refusal":"no"}}],"usage":{"prompt_tokens":3.0,"completion_tokens":0}}`,
			Reply{Choices: 1, Refusal: "no", Usage: Usage{3, 0, true}}},
		"a call of a tool": {`{"choices":[{"message":{"content":null,"tool_calls":[{"id":"x"}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}`,
			Reply{Choices: 1, ToolCall: true, Finish: "tool_calls", Usage: Usage{3, 1, true}}},
		"content in parts": {`{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}`,
			Reply{Text: "ab", Choices: 1, Usage: Usage{3, 1, true}}},
		"log-probabilities of a chat, its own token once": {`{"choices":[{"message":{"content":"A"},"logprobs":{"content":[{"token":"A","logprob":-0.5,"top_logprobs":[{"token":"A","logprob":-0.5},{"token":" B","logprob":-1},{"token":"C","logprob":null}]}]}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}`,
			Reply{Text: "A", Choices: 1, Usage: Usage{3, 1, true}, Tokens: []Token{{"A", []Alternative{{"A", -0.5}, {" B", -1}}}}}},
		"log-probabilities of completions": {`{"choices":[{"text":" A","logprobs":{"tokens":[" A","x"],"token_logprobs":[-0.5,null],"top_logprobs":[{" B":-1,"C":-9}]}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}`,
			Reply{Text: " A", Choices: 1, Usage: Usage{3, 1, true}, Tokens: []Token{{" A", []Alternative{{" A", -0.5}, {" B", -1}, {"C", -9}}}, {Text: "x"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := serve(t, Options{}, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, c.body) })
				got, err := client.Ask(t.Context(), hello)
				if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
			})
		})
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := serve(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != "GET" || r.URL.Path != "/v1/models" || r.Header.Get("Content-Type") != "" {
				t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
			}
			answer(w, 200, `{"object":"list","data":[{"id":"a"},{"id":"b"}]}`)
		})
		if names, err := client.Models(t.Context()); err != nil || fmt.Sprint(names) != "[a b]" {
			t.Errorf("%v, %v", names, err)
		}
	})
}

func TestOptionsThatAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options Options
		want    string
	}{
		"no scheme":                          {Options{URL: "127.0.0.1:8000"}, "cannot be read"},
		"another scheme":                     {Options{URL: "ftp://host"}, "http:// or https://"},
		"no host":                            {Options{URL: "http:///v1"}, "http:// or https://"},
		"F41 http to another machine":        {Options{URL: "http://judge.example/v1"}, "insecure = true"},
		"F41 a name that begins like ours":   {Options{URL: "http://127.0.0.1.example/v1"}, "insecure = true"},
		"F33 a user in the URL":              {Options{URL: "https://me:sk-secret@host/v1"}, "a key does not belong there"},
		"F33 a query in the URL":             {Options{URL: "https://host/v1?key=sk-secret"}, "a key does not belong there"},
		"F33 a URL that cannot be parsed":    {Options{URL: "https://sk-secret\x7f/v1"}, "cannot be read"},
		"F33 a key with a newline":           {Options{URL: "https://host", Key: "sk-secret\n"}, "a header cannot hold"},
		"the whole address of a request":     {Options{URL: "https://host/v1/chat/completions"}, "leave that out"},
		"keys of the body that are not free": {Options{URL: "https://host", ExtraBody: map[string]any{"stream": true}}, `"stream"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(c.options)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "sk-secret") {
				t.Errorf("got %v, want it to say %q", err, c.want)
			}
		})
	}
	for _, url := range []string{"http://localhost:8000", "http://[::1]/v1", "http://127.1.2.3", "https://host"} {
		if _, err := New(Options{URL: url}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := New(Options{URL: "http://judge.example", Insecure: true}); err != nil {
		t.Error(err)
	}
}

func TestACancelledRequestReturnsItsCause(t *testing.T) {
	t.Parallel()
	why := errors.New("the run is over")
	for name, o := range map[string]Options{
		"while it waits for the reply": {},
		"while it waits for its turn":  {RequestsPerMinute: 0.1},
		"while it waits to try again":  {Retries: 9},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := serve(t, o, func(w http.ResponseWriter, r *http.Request) {
					if o.Retries > 0 {
						answer(w, 503, "", "Retry-After", "60")
						return
					}
					<-r.Context().Done()
				})
				ctx, cancel := context.WithCancelCause(t.Context())
				if o.RequestsPerMinute > 0 {
					client.limits.requests.take(time.Now(), 1)
				}
				go func() {
					time.Sleep(time.Second)
					cancel(why)
				}()
				began := time.Now()
				if _, err := client.Ask(ctx, hello); !errors.Is(err, why) || time.Since(began) != time.Second {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
			})
		})
	}
}
