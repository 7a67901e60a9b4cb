package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// PlainTemplate is the one chat template that is known, in Jinja: the beginning-of-text token where the
// tokenizer has one, then each message's content on a line of its own. transformers renders it alike.
const PlainTemplate = "{% if bos_token %}{{ bos_token }}{% endif %}{% for message in messages %}{{ message['content'] }}\n{% endfor %}"

// ErrTemplate says that a model comes with a chat template other than [PlainTemplate]. Whoever made the
// model can store the plain one in its place; nobody else should, for the model was trained on its own.
var ErrTemplate = errors.New("chat templates other than the plain one are not supported yet")

// Message is one turn of a chat.
type Message struct {
	Role    string // "system", "user" or "assistant"; the plain template does not show it
	Content string
}

// Chat turns messages into the ids of a prompt, and completions into ids that end. No content
// becomes a special token, whatever it spells. It is safe for concurrent use.
type Chat struct {
	tok     *Tokenizer
	bos     []int32 // one token or none
	eos     int32
	trimmed bool // the bos token takes white space after it along

	mu     sync.Mutex
	memory map[string][]int32 // of texts of prompts: a run asks for the same ones again and again
	held   int                // bytes of those texts
}

// mostHeld is how many bytes of texts are remembered.
const mostHeld = 16 << 20

// NewChat reads a tokenizer_config.json: eos_token, bos_token and chat_template. jinja is the content of
// chat_template.jinja, which goes before the configuration's; nil where the model has no such file.
// Without any template, messages are written as in [PlainTemplate], and the prompt begins with
// bos_token unless add_bos_token is false.
//
// Errors: [ErrTemplate] (wrapped) for any other template; a model without eos_token, whose completions
// could not end.
func NewChat(config, jinja []byte, tok *Tokenizer) (*Chat, error) {
	c, err := newChat(config, jinja, tok)
	if err != nil {
		return nil, fmt.Errorf("read tokenizer_config.json: %w", err)
	}
	return c, nil
}

func newChat(config, jinja []byte, tok *Tokenizer) (*Chat, error) {
	var file struct {
		BOS      tokenName `json:"bos_token"`
		EOS      tokenName `json:"eos_token"`
		AddBOS   *bool     `json:"add_bos_token"`
		Template any       `json:"chat_template"`
	}
	if err := json.Unmarshal(config, &file); err != nil {
		return nil, err
	}
	template := file.Template
	if jinja != nil {
		template = strings.TrimSuffix(string(jinja), "\n") // Jinja drops it too
	}
	if template != nil && template != PlainTemplate {
		return nil, fmt.Errorf("chat_template: %w", ErrTemplate)
	}
	c := &Chat{tok: tok}
	if file.EOS == "" {
		return nil, errors.New("there is no eos_token: completions could not end")
	}
	var ok bool
	if c.eos, ok = tok.ID(string(file.EOS)); !ok {
		return nil, fmt.Errorf("eos_token %q is not in the tokenizer", file.EOS)
	}
	if file.BOS == "" || template == nil && file.AddBOS != nil && !*file.AddBOS {
		return c, nil
	}
	bos, ok := tok.ID(string(file.BOS))
	if !ok {
		return nil, fmt.Errorf("bos_token %q is not in the tokenizer", file.BOS)
	}
	c.bos = []int32{bos}
	c.trimmed = tok.added[bos].RStrip
	return c, nil
}

// Prompt returns the ids of a chat up to where the completion begins.
//
// The slice is shared: it must not be written to.
//
// Differs: transformers renders the chat to one text and then takes "<eos>" in a message for the token.
func (c *Chat) Prompt(messages []Message) []int32 {
	var text strings.Builder
	for _, m := range messages {
		text.WriteString(m.Content)
		text.WriteByte('\n')
	}
	plain := text.String()
	if c.trimmed {
		plain = strings.TrimLeftFunc(plain, unicode.IsSpace)
	}
	c.mu.Lock()
	ids := c.memory[plain]
	c.mu.Unlock()
	if ids != nil {
		return ids
	}
	out := append([]int32{}, c.bos...)
	ids = slices.Clip(c.tok.encode(out, plain, false, len(out) == 0))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held += len(plain); c.memory == nil || c.held > mostHeld {
		c.memory, c.held = map[string][]int32{}, len(plain)
	}
	c.memory[plain] = ids
	return ids
}

// EncodeText returns the ids of a plain text, which is no chat: with what the tokenizer's post-processor puts around it,
// and with the bos token before it where that puts none there.
func (c *Chat) EncodeText(text string) []int32 {
	out := c.tok.Encode(text, Options{AddSpecial: true})
	if len(c.bos) > 0 && (len(out) == 0 || out[0] != c.bos[0]) {
		out = append([]int32{c.bos[0]}, out...)
	}
	return out
}

// EncodeCompletion returns the ids of a completion, the end-of-text token last.
func (c *Chat) EncodeCompletion(text string) []int32 {
	return append(c.tok.encode([]int32{}, text, false, false), c.eos)
}

// EOS returns the id of the token that ends a completion.
func (c *Chat) EOS() int32 { return c.eos }

// tokenName is "<eos>" or {"content": "<eos>", ...}.
type tokenName string

func (n *tokenName) UnmarshalJSON(b []byte) error {
	var s *string
	if json.Unmarshal(b, &s) == nil {
		if s != nil {
			*n = tokenName(*s)
		}
		return nil
	}
	var o struct {
		Content string `json:"content"`
	}
	err := json.Unmarshal(b, &o)
	*n = tokenName(o.Content)
	return err
}
