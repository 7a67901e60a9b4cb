package judge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/dno-project/dno/sdk"
)

// asked is a request as a server sees it.
type asked struct {
	Path  string
	Key   string
	Body  map[string]any
	Shown string // all that the judge is shown
	Raw   string
}

// server is an OpenAI-compatible server in this process that answers as reply does, with status 0 for 200.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []asked
}

func serve(t testing.TB, reply func(asked) (status int, body string)) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client is gone
		}
		a := asked{Path: r.URL.Path, Key: r.Header.Get("Authorization"), Raw: string(raw)}
		if r.Method == http.MethodPost {
			if err := json.Unmarshal(raw, &a.Body); err != nil {
				t.Errorf("no JSON: %s", raw)
			}
		}
		if prompt, ok := a.Body["prompt"].(string); ok {
			a.Shown = prompt
		}
		turns, _ := a.Body["messages"].([]any)
		for _, turn := range turns {
			a.Shown += turn.(map[string]any)["content"].(string) + "\n"
		}
		s.mu.Lock()
		s.requests = append(s.requests, a)
		s.mu.Unlock()
		status, body := reply(a)
		if status != 0 {
			w.WriteHeader(status)
		}
		_, _ = io.WriteString(w, body) // the client may be gone
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) seen() []asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]asked{}, s.requests...)
}

// oracle returns a configured one that asks the server, without canaries unless they are asked for.
func oracle(t testing.TB, s *server, given ...sdk.Settings) *Oracle {
	t.Helper()
	o := New().(*Oracle)
	all := sdk.Settings{"url": s.URL, "model": "m", "canary_every": 0, "retries": 0}
	for _, g := range given {
		maps.Copy(all, g)
	}
	resolved, err := o.Manifest().Resolve(all)
	if err == nil {
		err = o.Configure(context.Background(), resolved)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

var tagShown = regexp.MustCompile(`\[begin question ([a-z0-9]{6})\]`)

// tag is the word by which the texts of a request are marked.
func (a asked) tag() string {
	if m := tagShown.FindStringSubmatch(a.Shown); m != nil {
		return m[1]
	}
	return "no tag"
}

// candidates are the texts that a request shows.
func (a asked) candidates() (out []string) {
	for _, m := range regexp.MustCompile(`\[begin ([^]\n]*`+a.tag()+`[^]\n]*)\]\n`).FindAllStringSubmatchIndex(a.Shown, -1) {
		name := a.Shown[m[2]:m[3]]
		text, _, found := strings.Cut(a.Shown[m[1]:], "\n[end "+name+"]")
		if found && !strings.HasPrefix(name, "question ") && !strings.HasPrefix(name, "reference ") {
			out = append(out, text)
		}
	}
	return out
}

// said is a whole reply with that text.
func said(text string) string {
	return fmt.Sprintf(`{"model":"m-1","choices":[{"message":{"content":%[1]s},"text":%[1]s,"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":10}}`, quoted(text))
}

func quoted(text string) string {
	raw, _ := json.Marshal(text) // a text can always be encoded
	return string(raw)
}

func sum() sdk.Prompt {
	return sdk.Prompt{ID: "sum", Messages: []sdk.Message{{Role: "user", Content: "What is 17 + 25?"}}, Answer: "42"}
}

func bothOrders(texts ...string) sdk.Comparison {
	c := sdk.Comparison{ID: "c", Prompt: sum(), Candidates: texts}
	for a := range texts {
		for b := range texts {
			if a != b {
				c.Pairs = append(c.Pairs, sdk.Ordered{A: a, B: b})
			}
		}
	}
	return c
}

func judge(t testing.TB, o *Oracle, batch ...sdk.Comparison) []sdk.Verdicts {
	t.Helper()
	out, err := o.Judge(context.Background(), batch)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Manifest().Oracle.CheckVerdicts(batch, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// honest is a judge that knows the answer: a text that has it is worth 5, another one 1. It speaks
// whatever form the request asks for.
func honest(a asked) string {
	return by(a, func(text string) int { return 1 + 4*strings.Count(text, "42") })
}

// by answers a request with the given worth of texts.
func by(a asked, worth func(string) int) string {
	texts := a.candidates()
	fields := regexp.MustCompile(`"(`+a.tag()+`_\d+)_score"`).FindAllStringSubmatch(a.Shown, -1)
	if len(fields) > 0 {
		reply := map[string]any{}
		for i, f := range fields {
			reply[f[1]+"_score"], reply[f[1]+"_justification"] = min(6, worth(texts[i])), "reasons for "+texts[i]
		}
		raw, _ := json.Marshal(reply)
		text := string(raw)
		if opening := `{"` + fields[0][1] + `_justification": "`; strings.HasSuffix(a.Shown, opening) {
			text = `reasons", ` + strings.TrimPrefix(strings.Replace(text, `"`+fields[0][1]+`_justification":`, `"x":`, 1), "{")
		}
		return said(text)
	}
	verdict := "tie"
	switch x, y := worth(texts[0]), worth(texts[1]); {
	case x > y:
		verdict = "A"
	case x < y:
		verdict = "B"
	}
	switch {
	case a.Body["logprobs"] != nil:
		return fmt.Sprintf(`{"model":"m-1","choices":[{"logprobs":{"tokens":[%q],"token_logprobs":[-0.5]},"text":%[1]q,"message":{"content":%[1]q},"finish_reason":"length"}],"usage":{"prompt_tokens":100,"completion_tokens":10}}`, verdict)
	case strings.Contains(a.Shown, `"verdict_`+a.tag()+`"`):
		return said(fmt.Sprintf(`{"justification_%[1]s": "so it is", "verdict_%[1]s": %[2]q}`, a.tag(), verdict))
	}
	return said("The one text: " + texts[0] + "\nVerdict " + a.tag() + ": " + verdict)
}

// Every mode, interface, form of verdict and grammar, from the settings to the verdicts.
func TestAllFormsJudge(t *testing.T) {
	t.Parallel()
	for _, api := range []string{"chat", "completions"} {
		for _, mode := range []string{"pairwise", "listwise", "pointwise"} {
			for _, grammar := range []string{"off", "response_format", "structured_outputs", "guided_choice", "gbnf"} {
				for _, verdict := range []string{"text", "logprobs"} {
					if mode != "pairwise" && (grammar == "guided_choice" || verdict == "logprobs") || verdict == "logprobs" && grammar == "response_format" {
						continue // refused: see TestSettingsThatAreRefused
					}
					t.Run(strings.Join([]string{api, mode, grammar, verdict}, " "), func(t *testing.T) {
						t.Parallel()
						s := serve(t, func(a asked) (int, string) { return 0, honest(a) })
						o := oracle(t, s, sdk.Settings{"api": api, "mode": mode, "grammar": grammar, "verdict": verdict,
							"price_in": 10, "price_out": 30})
						v := judge(t, o, bothOrders("It is 42.", "It is 43."))[0]
						if v.Pairs[0].P != 1 || v.Pairs[1].P != 0 || v.Pairs[0].Abstain != "" || v.Model != "m-1" {
							t.Errorf("got %+v", v)
						}
						requests := map[string]int{"pairwise": 2, "listwise": 1, "pointwise": 2}[mode]
						if n := len(s.seen()); n != requests {
							t.Errorf("%d requests, want %d", n, requests)
						}
						// 100 tokens at 10 a million and 10 at 30 are 0.0013.
						if want := float64(requests) * 0.0013; v.Cost < want*0.9999 || v.Cost > want*1.0001 || v.Tokens != 110*requests {
							t.Errorf("cost %v and %d tokens, want %v and %d", v.Cost, v.Tokens, want, 110*requests)
						}
						if mode == "pairwise" {
							if len(v.Assessed) != 0 {
								t.Errorf("assessed %+v", v.Assessed)
							}
						} else if *v.Assessed[0].Score != 5 || *v.Assessed[1].Score != 1 {
							t.Errorf("scores %v and %v", *v.Assessed[0].Score, *v.Assessed[1].Score)
						}
						path := map[string]string{"chat": "/v1/chat/completions", "completions": "/v1/completions"}[api]
						for _, a := range s.seen() {
							if a.Path != path || !strings.Contains(a.Shown, "What is 17 + 25?") || !strings.Contains(a.Shown, "[begin reference ") {
								t.Errorf("asked %s: %s", a.Path, a.Raw)
							}
						}
					})
				}
			}
		}
	}
}

// What a server is told about the form of a reply.
func TestGrammars(t *testing.T) {
	t.Parallel()
	const list = `{"additionalProperties":false,"properties":{"T_1_justification":{"type":"string"},"T_1_score":{"maximum":6,"minimum":0,"type":"integer"}},"required":["T_1_justification","T_1_score"],"type":"object"}`
	for name, c := range map[string]struct {
		settings sdk.Settings
		key      string
		want     string // with T for the tag
	}{
		"pairs, OpenAI": {sdk.Settings{"grammar": "response_format"}, "response_format",
			`{"json_schema":{"name":"verdict","schema":{"additionalProperties":false,"properties":{"justification_T":{"type":"string"},"verdict_T":{"enum":["A","B","tie"],"type":"string"}},"required":["justification_T","verdict_T"],"type":"object"},"strict":true},"type":"json_schema"}`},
		"pairs, vLLM":             {sdk.Settings{"grammar": "structured_outputs"}, "structured_outputs", `{"choice":["Verdict T: A","Verdict T: B","Verdict T: tie"]}`},
		"pairs, vLLM before":      {sdk.Settings{"grammar": "guided_choice"}, "guided_choice", `["Verdict T: A","Verdict T: B","Verdict T: tie"]`},
		"pairs, llama.cpp":        {sdk.Settings{"grammar": "gbnf"}, "grammar", `"root ::= \"Verdict T: A\" | \"Verdict T: B\" | \"Verdict T: tie\""`},
		"log-probabilities, vLLM": {sdk.Settings{"grammar": "guided_choice", "verdict": "logprobs"}, "guided_choice", `["A","B"]`},
		"scores, OpenAI":          {sdk.Settings{"mode": "pointwise", "grammar": "response_format"}, "response_format", `{"json_schema":{"name":"verdict","schema":` + list + `,"strict":true},"type":"json_schema"}`},
		"scores, vLLM":            {sdk.Settings{"mode": "pointwise", "grammar": "structured_outputs"}, "structured_outputs", `{"json":` + list + `}`},
		"scores, llama.cpp":       {sdk.Settings{"mode": "pointwise", "grammar": "gbnf"}, "json_schema", list},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(a asked) (int, string) { return 0, honest(a) })
			judge(t, oracle(t, s, c.settings), bothOrders("42", "43"))
			a := s.seen()[0]
			raw, _ := json.Marshal(a.Body[c.key])
			if got := strings.ReplaceAll(string(raw), a.tag(), "T"); got != c.want {
				t.Errorf("%s is %s", c.key, got)
			}
		})
	}
}

func TestTheRuleOfScores(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"listwise", "pointwise"} {
		s := serve(t, func(a asked) (int, string) { return 0, by(a, func(text string) int { return len(text) }) })
		v := judge(t, oracle(t, s, sdk.Settings{"mode": mode}), bothOrders("aaa", "b", "ccc", "b"))[0]
		want := map[sdk.Ordered]float64{{A: 0, B: 1}: 1, {A: 1, B: 0}: 0, {A: 0, B: 2}: 0.5, {A: 1, B: 3}: 0.5, {A: 3, B: 2}: 0}
		for i, pair := range bothOrders("aaa", "b", "ccc", "b").Pairs {
			if p, known := want[pair]; known && (v.Pairs[i].P != p || v.Pairs[i].Abstain != "" || !strings.HasPrefix(v.Pairs[i].Reason, "score ")) {
				t.Errorf("%s: pair %v: %+v, want %v", mode, pair, v.Pairs[i], p)
			}
		}
		if n, most := len(s.seen()), map[string]int{"listwise": 1, "pointwise": 3}[mode]; n != most {
			t.Errorf("%s: %d requests for three different texts", mode, n)
		}
	}
}

// The same question is the same request, byte by byte, whatever was asked before and in whatever order a
// list's candidates come; another seed gives other tags.
func TestRequestsAreDeterministic(t *testing.T) {
	t.Parallel()
	ask := func(settings sdk.Settings, before []sdk.Comparison, c sdk.Comparison) string {
		s := serve(t, func(a asked) (int, string) { return 0, honest(a) })
		o := oracle(t, s, settings)
		judge(t, o, before...)
		from := len(s.seen())
		judge(t, o, c)
		return s.seen()[from].Raw
	}
	for _, mode := range []string{"pairwise", "listwise", "pointwise"} {
		c := bothOrders("It is 42.", "It is 43.", "No idea.")
		first := ask(sdk.Settings{"mode": mode, "concurrency": 1}, nil, c)
		if again := ask(sdk.Settings{"mode": mode, "concurrency": 1}, []sdk.Comparison{bothOrders("x", "y")}, c); again != first {
			t.Errorf("%s: the same question, asked twice:\n%s\n%s", mode, first, again)
		}
		if other := ask(sdk.Settings{"mode": mode, "concurrency": 1, "seed": 1}, nil, c); strings.Contains(other, tagShown.FindStringSubmatch(first)[1]) {
			t.Errorf("%s: another seed has the same tag", mode)
		}
	}
	c := bothOrders("It is 42.", "It is 43.", "No idea.")
	turned := bothOrders("No idea.", "It is 42.", "It is 43.")
	list := sdk.Settings{"mode": "listwise"}
	if a, b := ask(list, nil, c), ask(list, nil, turned); a != b {
		t.Errorf("the order of candidates changes a list's request:\n%s\n%s", a, b)
	}
}

func TestATagIsForeignToAllTexts(t *testing.T) {
	t.Parallel()
	var sum [32]byte
	first := foreign(sum, nil)
	second := foreign(sum, []string{"a text", "with " + strings.ToUpper(first) + "in it"})
	third := foreign(sum, []string{first, "x" + second})
	if len(first) != 6 || first == second || second == third || first == third || foreign(sum, []string{"a text"}) != first {
		t.Errorf("the tags are %s, %s, %s", first, second, third)
	}
}

func TestTheReferenceAnswerMayBeHidden(t *testing.T) {
	t.Parallel()
	for _, shown := range []bool{true, false} {
		s := serve(t, func(a asked) (int, string) { return 0, honest(a) })
		judge(t, oracle(t, s, sdk.Settings{"reference_answer": shown}), bothOrders("x", "y"))
		if has := strings.Contains(s.seen()[0].Shown, "\n42\n"); has != shown {
			t.Errorf("reference_answer = %v: %s", shown, s.seen()[0].Shown)
		}
	}
}

func TestTurnsOfAConversationAreNamed(t *testing.T) {
	t.Parallel()
	s := serve(t, func(a asked) (int, string) { return 0, honest(a) })
	c := bothOrders("x", "y")
	c.Prompt.Messages = []sdk.Message{{Role: "user", Content: "Hi."}, {Role: "assistant", Content: "Hello."}, {Role: "user", Content: "6 times 7?"}}
	judge(t, oracle(t, s), c)
	if shown := s.seen()[0].Shown; !strings.Contains(shown, "]\nuser: Hi.\nassistant: Hello.\nuser: 6 times 7?\n[end question") {
		t.Errorf("shown %s", shown)
	}
}

func TestWhatNeedsNoRequest(t *testing.T) {
	t.Parallel()
	s := serve(t, func(a asked) (int, string) { return 0, honest(a) })
	o := oracle(t, s, sdk.Settings{"model": ""})
	if out := judge(t, o); len(out) != 0 || len(s.seen()) != 0 {
		t.Errorf("an empty batch: %v after %d requests", out, len(s.seen()))
	}
	o = oracle(t, s)
	if v := judge(t, o, bothOrders("same", "same"))[0]; v.Pairs[0].P != 0.5 || v.Pairs[1].P != 0.5 || len(s.seen()) != 0 {
		t.Errorf("equal texts: %+v after %d requests", v, len(s.seen()))
	}
	for _, mode := range []string{"pairwise", "listwise", "pointwise"} {
		c := bothOrders("x", "y")
		c.Pairs = nil
		if v := judge(t, oracle(t, s, sdk.Settings{"mode": mode}), c)[0]; len(v.Pairs) != 0 || len(v.Assessed) != 0 || len(s.seen()) != 0 {
			t.Errorf("%s, no pairs: %+v after %d requests", mode, v, len(s.seen()))
		}
	}
}
