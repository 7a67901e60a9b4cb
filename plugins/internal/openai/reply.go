package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Reply is the first choice of a server's reply.
type Reply struct {
	Text        string // "" where there is none
	Choices     int    // how many there were
	Refusal     string // the model's words where the server marks them as a refusal
	ToolCall    bool   // it wants to call a tool
	Finish      string // "stop", "length", "content_filter", ...
	Tokens      []Token
	Usage       Usage
	Model       string // that answered, as the server names it
	Fingerprint string // the server's word for the model's configuration; ""
}

// Token is one token of a reply with the likeliest tokens at its place, itself perhaps among them.
type Token struct {
	Text string
	Top  []Alternative
}

// Alternative is a token that could have stood somewhere, and its log-probability in nats.
type Alternative struct {
	Text    string
	LogProb float64
}

// Usage is what a request took, in tokens.
type Usage struct {
	Prompt, Reply int
	Known         bool // the server said so; else it is a guess of four bytes a token
}

func (r *Reply) clean(redact func(string) string) {
	for _, s := range []*string{&r.Text, &r.Refusal, &r.Model, &r.Fingerprint} {
		*s = redact(*s)
	}
}

// wireReply is a reply of either kind. Numbers are floats, for some servers write 12.0.
type wireReply struct {
	Model       string  `json:"model"`
	Fingerprint *string `json:"system_fingerprint"`
	Choices     []struct {
		Finish   *string         `json:"finish_reason"`
		LogProbs json.RawMessage `json:"logprobs"`
		Text     *string         `json:"text"`
		Message  *struct {
			Content      json.RawMessage   `json:"content"`
			Refusal      *string           `json:"refusal"`
			ToolCalls    []json.RawMessage `json:"tool_calls"`
			FunctionCall json.RawMessage   `json:"function_call"`
		} `json:"message"`
	} `json:"choices"`
	Usage *struct {
		Prompt float64 `json:"prompt_tokens"`
		Reply  float64 `json:"completion_tokens"`
	} `json:"usage"`
}

// parseReply reads a reply of chat/completions or completions.
func parseReply(raw []byte) (Reply, error) {
	var w wireReply
	if err := decode(raw, &w); err != nil {
		return Reply{}, err
	}
	r := Reply{Model: w.Model, Choices: len(w.Choices)}
	if w.Fingerprint != nil {
		r.Fingerprint = *w.Fingerprint
	}
	if u := w.Usage; u != nil && u.Prompt >= 0 && u.Reply >= 0 && u.Prompt < 1e9 && u.Reply < 1e9 {
		r.Usage = Usage{int(u.Prompt), int(u.Reply), true}
	}
	if len(w.Choices) == 0 {
		return r, nil
	}
	c := w.Choices[0]
	if c.Finish != nil {
		r.Finish = *c.Finish
	}
	switch {
	case c.Message != nil:
		text, err := content(c.Message.Content)
		if err != nil {
			return Reply{}, err
		}
		r.Text = text
		r.ToolCall = len(c.Message.ToolCalls) > 0 || present(c.Message.FunctionCall)
		if c.Message.Refusal != nil {
			r.Refusal = *c.Message.Refusal
		}
	case c.Text != nil:
		r.Text = *c.Text
	}
	var err error
	r.Tokens, err = tokens(c.LogProbs)
	return r, err
}

// content reads a message's content: a text, null, or a list of parts of which those of text count.
func content(raw json.RawMessage) (text string, err error) {
	if !present(raw) || json.Unmarshal(raw, &text) == nil {
		return text, nil
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return "", errors.New("the message's content is neither a text nor a list of parts")
	}
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.Text)
	}
	return b.String(), nil
}

// tokens reads log-probabilities in the form of chats ({"content": [{"token", "top_logprobs"}]}) or of
// completions ({"tokens": [...], "top_logprobs": [{token: logprob}]}): servers use either for both.
func tokens(raw json.RawMessage) ([]Token, error) {
	if !present(raw) {
		return nil, nil
	}
	var w struct {
		Content []struct {
			Token   string   `json:"token"`
			LogProb *float64 `json:"logprob"`
			Top     []struct {
				Token   string   `json:"token"`
				LogProb *float64 `json:"logprob"`
			} `json:"top_logprobs"`
		} `json:"content"`
		Tokens   []string              `json:"tokens"`
		LogProbs []*float64            `json:"token_logprobs"`
		Top      []map[string]*float64 `json:"top_logprobs"`
	}
	if json.Unmarshal(raw, &w) != nil {
		return nil, errors.New("the reply's log-probabilities are in no known form")
	}
	var out []Token
	for _, c := range w.Content {
		t := Token{Text: c.Token}
		t.add(c.Token, c.LogProb)
		for _, a := range c.Top {
			t.add(a.Token, a.LogProb)
		}
		out = append(out, t)
	}
	for i, token := range w.Tokens {
		t := Token{Text: token}
		if i < len(w.LogProbs) {
			t.add(token, w.LogProbs[i])
		}
		if i < len(w.Top) {
			for _, text := range slices.Sorted(maps.Keys(w.Top[i])) {
				t.add(text, w.Top[i][text])
			}
		}
		out = append(out, t)
	}
	return out, nil
}

// add notes an alternative once.
func (t *Token) add(text string, p *float64) {
	if p == nil {
		return
	}
	for _, a := range t.Top {
		if a.Text == text {
			return
		}
	}
	t.Top = append(t.Top, Alternative{text, *p})
}

// decode reads JSON that is not too deep.
func decode(raw []byte, to any) error {
	if depth(raw) > maxDepth {
		return fmt.Errorf("the reply is nested more than %d levels deep", maxDepth)
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("the reply is not the JSON that it should be: %w; it begins %.80q", err, raw)
	}
	return nil
}

// depth is how deep lists and objects are nested in a JSON text, whatever else is wrong with it.
func depth(raw []byte) (deepest int) {
	level, inside := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case inside && c == '\\':
			i++
		case c == '"':
			inside = !inside
		case inside:
		case c == '{' || c == '[':
			level++
			deepest = max(deepest, level)
		case c == '}' || c == ']':
			level--
		}
	}
	return deepest
}
