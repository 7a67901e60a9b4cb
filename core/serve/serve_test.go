package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/dno-project/dno/sdk"
)

const (
	chatPath = "/v1/chat/completions"
	textPath = "/v1/completions"
)

func says(text string) *fake {
	f := newFake()
	f.say = func(Draw) string { return text }
	return f
}

func TestAChatIsAnswered(t *testing.T) {
	t.Parallel()
	r := start(t, says("aé"), Options{Fingerprint: "print"})
	got := r.ask(chatPath, `{"model": "m", "seed": 5, "user": "u", "n": 2, "logprobs": true, "top_logprobs": 2, "return_token_ids": true, "messages": [
		{"role": "developer", "content": "x", "name": null}, {"role": "user", "content": [{"type": "text", "text": "y"}, {"type": "text", "text": "z"}]}]}`)
	if !strings.HasPrefix(got.ID, "chatcmpl-") || got.Created == 0 {
		t.Errorf("id %q, created %d", got.ID, got.Created)
	}
	prompt := "system:x\nuser:yz\n"
	if !slices.Equal(got.PromptIDs, idsOf(prompt)) {
		t.Errorf("the prompt's ids are %v", got.PromptIDs)
	}
	for i, c := range got.Choices {
		if c.Index != i || *c.Message != (message{Role: "assistant", Content: "aé"}) || *c.Finish != "stop" || !slices.Equal(c.TokenIDs, []int32{'a', 0xc3, 0xa9, eos}) {
			t.Errorf("choice %d is %+v", i, c)
		}
		var names []string
		for at, token := range c.LogProbs.Content {
			names = append(names, token.Token)
			id := c.TokenIDs[at]
			if token.LogProb != logProb(at, id) {
				t.Errorf("token %d has the log-probability %v", at, token.LogProb)
			}
			if want := []spelledToken{{`\xc0`, logProb(at, 0), []int{0xc0}}, {`\xc1`, logProb(at, 1), []int{0xc1}}}; !reflect.DeepEqual(token.Top, want) {
				t.Errorf("token %d has the alternatives %v", at, token.Top)
			}
		}
		if want := []string{"a", `\xc3`, `\xa9`, "<eos>"}; !slices.Equal(names, want) || !slices.Equal(c.LogProbs.Content[1].Bytes, []int{0xc3}) {
			t.Errorf("the tokens are %q", names)
		}
	}
	got.ID, got.Created, got.Choices, got.PromptIDs = "", 0, nil, nil
	n := len(prompt)
	if want := (reply{Object: "chat.completion", Model: "m", Fingerprint: "print", Seed: "5", Usage: &usage{n, 8, n + 8}}); !reflect.DeepEqual(got, want) {
		t.Errorf("the rest is %+v", got)
	}
}

func TestACompletionIsAnswered(t *testing.T) {
	t.Parallel()
	r := start(t, says("é!"), Options{})
	for name, c := range map[string]struct {
		prompt string
		texts  []string
	}{
		"a text":           {`"xé"`, []string{"xé"}},
		"texts":            {`["x", "yz"]`, []string{"x", "yz"}},
		"ids":              {`[120, 121]`, []string{"xy"}},
		"lists of ids":     {`[[120], [121, 122]]`, []string{"x", "yz"}},
		"one list of them": {`[[120, 121]]`, []string{"xy"}},
	} {
		got := r.ask(textPath, `{"model": "m", "echo": true, "logprobs": 1, "return_token_ids": true, "max_tokens": 2, "n": 2, "prompt": `+c.prompt+`}`)
		if got.Object != "text_completion" || !strings.HasPrefix(got.ID, "cmpl-") || len(got.Choices) != 2*len(c.texts) {
			t.Fatalf("%s: %+v", name, got)
		}
		for i, choice := range got.Choices {
			prompt := c.texts[i/2]
			l := choice.LogProbs
			n := len(prompt)
			if *choice.Text != prompt+"é" || *choice.Finish != "length" || choice.Index != i || !slices.Equal(choice.TokenIDs, []int32{0xc3, 0xa9}) || !slices.Equal(choice.PromptIDs, idsOf(prompt)) {
				t.Errorf("%s: choice %+v", name, choice)
			}
			if len(l.Tokens) != n+2 || l.Tokens[0] != "x" && l.Tokens[0] != "y" || l.Tokens[n] != `bytes:\xc3` {
				t.Errorf("%s: tokens %q", name, l.Tokens)
			}
			if l.LogProbs[0] != nil || l.Top[0] != nil || len(l.LogProbs) != n+2 || len(l.Top) != n+2 || *l.LogProbs[n] != logProb(n-1, 0xc3) {
				t.Errorf("%s: log-probabilities %v, most probable %v", name, l.LogProbs, l.Top)
			}
			if want := map[string]float64{`bytes:\xc3`: logProb(n-1, 0xc3), `bytes:\xc0`: logProb(n-1, 0)}; !reflect.DeepEqual(l.Top[n], want) {
				t.Errorf("%s: most probable %v, want %v", name, l.Top[n], want)
			}
			offsets := []int{} // each byte at the character that it is of
			for i := range n {
				offsets = append(offsets, utf8.RuneCountInString(strings.ToValidUTF8(prompt[:i], "")))
			}
			at := utf8.RuneCountInString(prompt)
			if want := append(offsets, at, at); !slices.Equal(l.Offsets, want) {
				t.Errorf("%s: offsets %v, want %v", name, l.Offsets, want)
			}
		}
	}
}

func TestEchoAlone(t *testing.T) {
	t.Parallel()
	r := start(t, newFake(), Options{})
	for _, c := range []struct {
		body   string
		tokens int
	}{
		{`"prompt": "xy", "logprobs": 0`, 2},
		{`"prompt": "x", "logprobs": 3`, 1},
		{`"prompt": "xy"`, 0},
	} {
		got := r.ask(textPath, `{"model": "m", "echo": true, "max_tokens": 0, `+c.body+`}`)
		choice := got.Choices[0]
		if !strings.HasPrefix(*choice.Text, "x") || *choice.Finish != "length" || got.Usage.Completion != 0 {
			t.Errorf("%s: %+v, %+v", c.body, choice, got.Usage)
		}
		if l := choice.LogProbs; c.tokens > 0 && (len(l.Tokens) != c.tokens || len(l.LogProbs) != c.tokens) || c.tokens == 0 && l != nil {
			t.Errorf("%s: %+v", c.body, l)
		}
	}
}

// What each field becomes, and what is so without it.
func TestFieldsReachTheModel(t *testing.T) {
	t.Parallel()
	plain := sdk.GenerateOptions{Temperature: 1, TopP: 1, RepetitionPenalty: 1, MaxTokens: 1024}
	with := func(change func(*sdk.GenerateOptions)) sdk.GenerateOptions {
		o := plain
		change(&o)
		return o
	}
	for body, want := range map[string]sdk.GenerateOptions{
		``:                        plain,
		`"temperature": 0`:        with(func(o *sdk.GenerateOptions) { o.Temperature = 0 }),
		`"temperature": null`:     plain,
		`"top_p": 0.5`:            with(func(o *sdk.GenerateOptions) { o.TopP = 0.5 }),
		`"top_k": 3`:              with(func(o *sdk.GenerateOptions) { o.TopK = 3 }),
		`"top_k": -1`:             plain,
		`"min_p": 0.25`:           with(func(o *sdk.GenerateOptions) { o.MinP = 0.25 }),
		`"repetition_penalty": 2`: with(func(o *sdk.GenerateOptions) { o.RepetitionPenalty = 2 }),
		`"max_tokens": 7`:         with(func(o *sdk.GenerateOptions) { o.MaxTokens = 7 }),
		`"max_completion_tokens": 7, "max_tokens": 7`: with(func(o *sdk.GenerateOptions) { o.MaxTokens = 7 }),
		`"max_completion_tokens": 8`:                  with(func(o *sdk.GenerateOptions) { o.MaxTokens = 8 }),
		`"stop": "x"`:                                 with(func(o *sdk.GenerateOptions) { o.Stop = []string{"x"} }),
		`"stop": ["x", "null"]`:                       with(func(o *sdk.GenerateOptions) { o.Stop = []string{"x", "null"} }),
		`"stop": null, "response_format": {"type": "text"}, "tools": [], "presence_penalty": 0.0, "logit_bias": {}, "store": false`: plain,
	} {
		f := says("q")
		r := start(t, f, Options{})
		if body != "" {
			body = ", " + body
		}
		got := r.ask(chatPath, `{"model": "m", "messages": [{"role": "user", "content": "x"}]`+body+`}`)
		if len(f.asked) != 1 || !reflect.DeepEqual(f.asked[0].Options, want) || f.asked[0].Top != 0 {
			t.Errorf("%s: drew %+v, want %+v", body, f.asked, want)
		}
		if got.Seed.String() != fmt.Sprint(f.asked[0].Seed) {
			t.Errorf("the seed %s is answered, and %d was drawn with", got.Seed, f.asked[0].Seed)
		}
	}
	f := says("q")
	start(t, f, Options{}).ask(textPath, `{"model": "m", "prompt": "x", "logprobs": false}`)
	if f.asked[0].Options.MaxTokens != 16 {
		t.Errorf("a completion has %d tokens", f.asked[0].Options.MaxTokens)
	}
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]uint64{"0": 0, "-1": 1<<64 - 1, "18446744073709551615": 1<<64 - 1, "9007199254740993": 9007199254740993} {
		f := says("q")
		got := start(t, f, Options{}).ask(textPath, `{"model": "m", "prompt": ["x", "y"], "n": 2, "seed": `+written+`}`)
		if got.Seed.String() != written {
			t.Errorf("seed %s comes back as %s", written, got.Seed)
		}
		for _, d := range f.asked {
			if d.Seed != want && d.Seed != seedOf(want, 1) {
				t.Errorf("seed %s: drew with %d", written, d.Seed)
			}
		}
	}
	// They are part of what a request means: the same ones in every version.
	if a, b, c := seedOf(7, 0), seedOf(7, 1), seedOf(8, 1); a != 7 || b != 0x63cbe1e459320dd7 || c != 0x9e5651b0ef953636 {
		t.Errorf("seeds %#x %#x %#x", a, b, c)
	}
	seen := map[uint64]bool{}
	for seed := range uint64(100) {
		for i := range 100 {
			seen[seedOf(seed, i)] = true
		}
	}
	if len(seen) != 100*100 {
		t.Errorf("of 10000 seeds only %d differ", len(seen))
	}
	if a, b := randomSeed(), randomSeed(); a == b || a >= 1<<53 || b >= 1<<53 {
		t.Errorf("the random seeds are %d and %d", a, b)
	}
}

// A stream, put together, is what the same request gets at once; each event is whole characters.
func TestStreamsAreTheSameAnswers(t *testing.T) {
	t.Parallel()
	r := start(t, newFake(), Options{})
	for seed := range 40 {
		for _, c := range []struct{ path, body string }{
			{chatPath, `"messages": [{"role": "user", "content": "x"}], "n": 3`},
			{chatPath, `"messages": [{"role": "user", "content": "x"}], "n": 2, "logprobs": true, "top_logprobs": 2, "return_token_ids": true, "stop": ["ab", "é世", "世\n"]`},
			{chatPath, `"messages": [{"role": "user", "content": "x"}], "max_tokens": 4`},
			{textPath, `"prompt": ["xé", "y"], "n": 2, "max_tokens": 50`},
			{textPath, `"prompt": "xé", "echo": true, "logprobs": 2, "return_token_ids": true, "stop": ["🚀", "b a"], "max_tokens": 50`},
			{textPath, `"prompt": "xé", "echo": true, "logprobs": 0, "max_tokens": 0`},
			{textPath, `"prompt": "xé", "echo": true, "max_tokens": 0`},
		} {
			body := fmt.Sprintf(`{"model": "m", "seed": %d, %s`, seed, c.body)
			want := r.ask(c.path, body+"}")
			status, header, data := r.post(c.path, body+`, "stream": true, "stream_options": {"include_usage": true}}`)
			if status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "text/event-stream") {
				t.Fatalf("status %d, %v", status, header)
			}
			got := joined(t, data, c.path == chatPath)
			want.ID, want.Created = "", 0
			if want.Object == "chat.completion" {
				want.Object = "chat.completion.chunk"
			}
			if !reflect.DeepEqual(got, want) {
				a, _ := json.Marshal(got)
				b, _ := json.Marshal(want)
				t.Fatalf("%s %s\nstreamed %s\nat once  %s", c.path, body, a, b)
			}
		}
	}
}

// joined puts a stream together to the answer that it stands for.
func joined(t *testing.T, stream []byte, chat bool) (out reply) {
	t.Helper()
	all := events(t, stream)
	if last := all[len(all)-1]; last != "[DONE]" {
		t.Fatalf("the stream ends with %s", last)
	}
	choices := map[int]*replyChoice{}
	for i, data := range all[:len(all)-1] {
		if !utf8.ValidString(data) {
			t.Fatalf("%q is no text", data)
		}
		var e reply
		decode(t, []byte(data), &e)
		if last := i == len(all)-2; last != (e.Usage != nil) || last != (len(e.Choices) == 0) {
			t.Fatalf("event %d of %d is %s", i, len(all), data)
		}
		if out.ID != "" && out.ID != e.ID {
			t.Fatalf("two ids: %s, %s", out.ID, e.ID)
		}
		ids := out.PromptIDs
		before := out
		if out = e; out.PromptIDs == nil {
			out.PromptIDs = ids
		} else if before.ID != "" && ids == nil && chat && len(choices) > 0 && e.Choices[0].Delta.Role == "" {
			t.Fatal("the prompt's ids come late")
		}
		for _, c := range e.Choices {
			text := c.Text
			if chat {
				text = c.Delta.Content
				if first := choices[c.Index] == nil; first != (c.Delta.Role == "assistant") {
					t.Fatalf("the role of %s", data)
				}
			}
			have := choices[c.Index]
			if have == nil {
				have = &c
				choices[c.Index] = have
				empty := ""
				if chat {
					have.Delta, have.Message = nil, &message{Role: "assistant"}
				} else {
					have.Text = &empty
				}
			} else {
				if have.Finish != nil {
					t.Fatalf("choice %d goes on after its end", c.Index)
				}
				have.Finish = c.Finish
				have.TokenIDs = append(have.TokenIDs, c.TokenIDs...)
				if l := c.LogProbs; l != nil {
					h := have.LogProbs
					h.Content, h.Tokens, h.LogProbs = append(h.Content, l.Content...), append(h.Tokens, l.Tokens...), append(h.LogProbs, l.LogProbs...)
					h.Offsets = append(h.Offsets, l.Offsets...)
					h.Top = append(h.Top, l.Top...)
				}
			}
			if chat {
				have.Message.Content += *text
			} else {
				*have.Text += *text
			}
		}
	}
	out.ID, out.Created, out.Choices = "", 0, nil
	for i := range len(choices) {
		out.Choices = append(out.Choices, *choices[i])
	}
	return out
}

// A stream tells each character as soon as it is whole, and its role once; without include_usage it tells none.
func TestAStreamComesAsItIsDrawn(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	f := says("a世b")
	f.step = func() { <-gate }
	r := start(t, f, Options{})
	posted := make(chan *http.Response)
	go func() {
		res, err := http.Post(r.url+chatPath, "application/json", strings.NewReader(`{"model": "m", "stream": true, "messages": [{"role": "user", "content": "x"}]}`))
		if err != nil {
			t.Error(err)
			close(gate)
		}
		posted <- res
	}()
	gate <- struct{}{} // "a"
	res := <-posted
	if res == nil {
		return
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	line := func() string {
		t.Helper()
		data, err := in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		_, _ = in.ReadString('\n')
		return data
	}
	var got []string
	for i, tokens := range []int{0, 3, 1, 1} { // "a"; the three bytes of "世"; "b"; the end
		for range tokens {
			gate <- struct{}{}
		}
		var e reply
		data := line()
		decode(t, []byte(strings.TrimPrefix(data, "data: ")), &e)
		if strings.Contains(data, "usage") || (i == 3) != (e.Choices[0].Finish != nil) {
			t.Errorf("event %d is %s", i, data)
		}
		got = append(got, e.Choices[0].Delta.Role+*e.Choices[0].Delta.Content)
	}
	if want := []string{"assistanta", "世", "b", ""}; !slices.Equal(got, want) || line() != "data: [DONE]\n" {
		t.Errorf("the events are %q", got)
	}
}

func TestSixtyFourClients(t *testing.T) {
	t.Parallel()
	f := newFake()
	r := start(t, f, Options{})
	ask := func(i int) string {
		return fmt.Sprintf(`{"model": "m", "seed": %d, "n": %d, "logprobs": true, "messages": [{"role": "user", "content": "%d"}]}`, i, 1+i%3, i)
	}
	var want []reply
	for i := range 64 {
		want = append(want, r.ask(chatPath, ask(i)))
	}
	var clients sync.WaitGroup
	got := make([]reply, 64)
	for i := range got {
		clients.Go(func() { got[i] = r.ask(chatPath, ask(i)) })
	}
	clients.Wait()
	for i := range got {
		for _, a := range []*reply{&got[i], &want[i]} {
			a.ID, a.Created = "", 0
		}
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("client %d got\n%+v, alone\n%+v", i, got[i], want[i])
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.atOnce < 2 || f.gone > 0 {
		t.Errorf("at most %d completions were drawn at once, %d were dropped", f.atOnce, f.gone)
	}
}

// A large request does not hold up a small one that comes after it.
func TestRequestsTakeTurns(t *testing.T) {
	t.Parallel()
	q := newQueue()
	var jobs []*job
	for i, n := range []int{4, 1, 2} {
		j := newJob(context.Background(), &request{prompts: []prompt{{ids: []int32{int32(i)}}}, n: n, options: sdk.GenerateOptions{MaxTokens: 1}})
		jobs = append(jobs, j)
		q.add(j)
	}
	var order []int32
	for {
		some := q.take(2)
		if len(some) == 0 {
			break
		}
		for _, d := range some {
			order = append(order, d.Prompt[0])
		}
	}
	if want := []int32{0, 1, 2, 0, 2, 0, 0}; !slices.Equal(order, want) {
		t.Errorf("the order is %v, want %v", order, want)
	}
	q.fail(errStopped)
	for _, j := range jobs {
		for _, c := range j.choices {
			if !errors.Is(c.err, errStopped) {
				t.Errorf("a choice that was drawn ended with %v", c.err)
			}
		}
	}
}

func TestWhatIsCertainBeforeStopTexts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text  string
		stops []string
		want  string
	}{
		{"abc", nil, "abc"},
		{"abc", []string{"x"}, "abc"},
		{"abc", []string{"cd"}, "ab"},
		{"abc", []string{"bcd", "cx"}, "a"},
		{"abab", []string{"ababc"}, ""},
		{"xabab", []string{"abac"}, "xab"},
		{"abc", []string{"b"}, "a"},
		{"abcb", []string{"bx", "cb"}, "ab"},
		{"世", []string{"\xb8\x96"}, ""},
		{"", []string{"a"}, ""},
	} {
		if got := c.text[:certain(c.text, c.stops)]; got != c.want {
			t.Errorf("of %q before %q certain is %q, want %q", c.text, c.stops, got, c.want)
		}
	}
}

func TestModelsAreListed(t *testing.T) {
	t.Parallel()
	r := start(t, newFake(), Options{Name: "runs/x/checkpoint"})
	for path, want := range map[string]string{
		"/v1/models":                       `"data":[{"id":"runs/x/checkpoint","object":"model"`,
		"/v1/models/runs/x/checkpoint":     `{"id":"runs/x/checkpoint","object":"model"`,
		"/v1/models/runs%2Fx%2Fcheckpoint": `"max_model_len":4096`,
		"/health":                          `{"status":"ok"}`,
	} {
		res, err := http.Get(r.url + path)
		if err != nil {
			t.Fatal(err)
		}
		if data := bodyOf(t, res); res.StatusCode != http.StatusOK || !strings.Contains(data, want) {
			t.Errorf("%s: %d %s", path, res.StatusCode, data)
		}
	}
}
