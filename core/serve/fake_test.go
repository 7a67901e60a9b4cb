package serve

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
)

// fake is a model whose tokens are bytes; eos ends a completion. What it says is of its Draw alone.
type fake struct {
	positions int
	slots     int
	say       func(d Draw) string
	step      func()        // before each step of all that is drawn; may be nil
	read      chan struct{} // told each text that a request has; may be nil

	mu     sync.Mutex
	asked  []Draw
	gone   int // completions that nobody wanted any more
	atOnce int // the most completions in one step
}

const eos = 256

func newFake() *fake { return &fake{positions: 4096, slots: 8, say: babble} }

// babble is text of characters of one to four bytes.
func babble(d Draw) string {
	r := rand.New(rand.NewPCG(d.Seed, uint64(len(d.Prompt)+len(d.Given))))
	var out strings.Builder
	for range 5 + r.IntN(30) {
		out.WriteString([]string{"a", "b", "ab", "é", "世", "🚀", " ", "\n", "\xf0\x9f", "<"}[r.IntN(10)])
	}
	return out.String()
}

func (f *fake) Positions() int  { return f.positions }
func (f *fake) Vocabulary() int { return eos + 1 }
func (f *fake) EncodeText(s string) []int32 {
	if f.read != nil {
		f.read <- struct{}{}
	}
	return idsOf(s)
}
func (f *fake) EncodeChat(messages []sdk.Message) []int32 {
	var all strings.Builder
	for _, m := range messages {
		if m.Content == "panic" {
			panic("the fake's own")
		}
		all.WriteString(m.Role + ":" + m.Content + "\n")
	}
	return idsOf(all.String())
}

func idsOf(s string) []int32 {
	out := []int32{}
	for _, b := range []byte(s) {
		out = append(out, int32(b))
	}
	return out
}

func (f *fake) Decode(ids []int32) string {
	s, out := &fakeStream{}, ""
	for _, id := range ids {
		out += s.Next(id)
	}
	return out + s.End()
}

func (f *fake) Stream() TextStream { return &fakeStream{} }

func (f *fake) Bytes(id int32) []byte {
	if id == eos {
		return []byte("<eos>")
	}
	return []byte{byte(id)}
}

type fakeStream struct{ held []byte }

func (s *fakeStream) Next(id int32) (out string) {
	if id == eos {
		return ""
	}
	s.held = append(s.held, byte(id))
	for len(s.held) > 0 && utf8.FullRune(s.held) {
		r, n := utf8.DecodeRune(s.held)
		out += string(r)
		s.held = s.held[n:]
	}
	return out
}

func (s *fakeStream) End() string {
	if len(s.held) == 0 {
		return ""
	}
	return strings.Repeat("\ufffd", len(s.held))
}

// making is a completion in the making.
type making struct {
	Draw
	will []int32 // all tokens, those that are given too
	ids  []int32
}

func (f *fake) Serve(ctx context.Context, next func(int) []Draw) error {
	var active []*making
	for {
		if free := f.slots - len(active); free > 0 {
			for _, d := range next(free) {
				text := f.say(d)
				if text == "fail" {
					return errors.New("the fake's own error")
				}
				if text == "panic" {
					panic("the fake's own")
				}
				f.mu.Lock()
				f.asked = append(f.asked, d)
				f.mu.Unlock()
				active = append(active, &making{Draw: d, will: slices.Concat(d.Given, idsOf(text), []int32{eos})})
			}
		}
		if len(active) == 0 {
			return nil
		}
		f.mu.Lock()
		f.atOnce = max(f.atOnce, len(active))
		f.mu.Unlock()
		if f.step != nil {
			f.step()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		active = slices.DeleteFunc(active, func(m *making) bool { return f.advance(m) })
	}
}

// logProb is the log-probability of a token at a place.
func logProb(at int, id int32) float64 { return -float64(at+1) - float64(id)/1024 }

func (f *fake) advance(m *making) (over bool) {
	at := len(m.ids)
	id := m.will[at]
	m.ids = append(m.ids, id)
	t := Token{ID: id, LogProb: logProb(at, id)}
	for i := range int32(m.Top) {
		t.Top = append(t.Top, Alternative{i + 0xc0, logProb(at, i)})
	}
	if !m.Token(t) {
		f.mu.Lock()
		f.gone++
		f.mu.Unlock()
		return true
	}
	drawn := m.ids[min(len(m.Given), len(m.ids)):]
	text := f.Decode(drawn)
	for _, stop := range m.Options.Stop {
		if i := strings.Index(text, stop); i >= 0 {
			m.Done(Result{Text: text[:i], Finish: sdk.FinishStop}, nil)
			return true
		}
	}
	switch {
	case len(m.ids) < len(m.Given):
	case len(drawn) > 0 && id == eos:
		m.Done(Result{Text: text, Finish: sdk.FinishStop}, nil)
		return true
	case len(drawn) == m.Options.MaxTokens:
		m.Done(Result{Text: text, Finish: sdk.FinishLength}, nil)
		return true
	}
	return false
}

// ends is a log, and what is told each request that has ended.
func ends(t testing.TB) (telemetry.Logger, chan struct{}) {
	t.Helper()
	ended := make(chan struct{}, 100)
	log, err := telemetry.New(telemetry.Options{Writer: onLine(func(line string) {
		if strings.Contains(line, "DBG request") {
			ended <- struct{}{}
		}
	}), Level: "debug"})
	if err != nil {
		t.Fatal(err)
	}
	return log, ended
}

type onLine func(string)

func (f onLine) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

// running is a server that runs until the test ends.
type running struct {
	t      testing.TB
	url    string
	server *Server
	stop   func() error // and what Run returned
}

func start(t testing.TB, m Model, o Options) *running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startAt(t, m, o, l)
}

var errEnough = errors.New("the test stops the server")

func startAt(t testing.TB, m Model, o Options, l net.Listener) *running {
	t.Helper()
	if o.Name == "" {
		o.Name = "m"
	}
	s := New(m, o)
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, l) }()
	r := &running{t, "http://" + l.Addr().String(), s, sync.OnceValue(func() error {
		cancel(errEnough)
		return <-ended
	})}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections() // the server waits a while for those that were never used
		if err := r.stop(); !errors.Is(err, errEnough) {
			t.Errorf("the server ended with %v", err)
		}
	})
	return r
}

// post sends a body, and returns the status, the answer's header and its body.
func (r *running) post(path, body string) (int, http.Header, []byte) {
	r.t.Helper()
	res, err := http.Post(r.url+path, "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, res.Header, data
}

// ask sends a body that is to be answered, and decodes the answer.
func (r *running) ask(path, body string) (out reply) {
	r.t.Helper()
	status, _, data := r.post(path, body)
	if status != http.StatusOK {
		r.t.Fatalf("%s %s: status %d, %s", path, body, status, data)
	}
	decode(r.t, data, &out)
	return out
}

func decode(t testing.TB, data []byte, v any) {
	t.Helper()
	in := json.NewDecoder(bytes.NewReader(data))
	in.DisallowUnknownFields()
	if err := in.Decode(v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}

// reply is an answer as a client reads it.
type reply struct {
	ID, Object, Model string
	Created           int64
	Fingerprint       string `json:"system_fingerprint"`
	Seed              json.Number
	Choices           []replyChoice
	Usage             *usage
	PromptIDs         []int32 `json:"prompt_token_ids"`
}

type replyChoice struct {
	Index   int
	Message *message
	Delta   *struct {
		Role    string
		Content *string
	}
	Text     *string
	LogProbs *struct {
		Content []struct {
			Token   string
			LogProb float64
			Bytes   []int
			Top     []spelledToken `json:"top_logprobs"`
		}
		Refusal  *string
		Tokens   []string
		LogProbs []*float64           `json:"token_logprobs"`
		Top      []map[string]float64 `json:"top_logprobs"`
		Offsets  []int                `json:"text_offset"`
	}
	Finish    *string `json:"finish_reason"`
	PromptIDs []int32 `json:"prompt_token_ids"`
	TokenIDs  []int32 `json:"token_ids"`
}

// events splits a stream into the data of its events.
func events(t testing.TB, stream []byte) (out []string) {
	t.Helper()
	rest := string(stream)
	for rest != "" {
		event, more, ok := strings.Cut(rest, "\n\n")
		data, isData := strings.CutPrefix(event, "data: ")
		if !ok || !isData || strings.Contains(data, "\n") {
			t.Fatalf("no event in %q", rest)
		}
		out, rest = append(out, data), more
	}
	return out
}
