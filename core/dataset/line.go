package dataset

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/dno-project/dno/sdk"
)

// maxLine is the longest line in bytes: far above any prompt, far below what memory holds.
const maxLine = 8 << 20

var errTooLong = fmt.Errorf("the line is longer than %d MiB: want one JSON object a line", maxLine>>20)

// eachLine calls f with each line that is not blank, without its end.
func eachLine(r io.Reader, name string, f func(line int, text []byte) error) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for line := 1; ; line++ {
		text, err := readLine(in)
		last := errors.Is(err, io.EOF)
		if err != nil && !last && err != errTooLong {
			return sdk.Errorf(sdk.CodeIO, "read %s, line %d: %w", name, line, err)
		}
		if last {
			err = nil
		}
		if line == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		text = bytes.TrimSpace(text)
		if err == nil && len(text) > 0 {
			err = f(line, text)
		}
		if err != nil {
			return sdk.Errorf(sdk.CodeUsage, "%s:%d: %w", name, line, err)
		}
		if last {
			return nil
		}
	}
}

// readLine returns the next line, with io.EOF the last one, which may be empty.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(bytes.TrimRight(line, "\r\n")) > maxLine {
			return nil, errTooLong
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// object is a line's keys and their values.
type object struct {
	keys   []string // in the line's order
	values map[string]json.RawMessage
	form   string // what is legal, for errors
}

// parseObject reads a line as one JSON object. encoding/json alone would let a key that is given
// twice and bytes that are not UTF-8 pass in silence.
func parseObject(text []byte, form string) (object, error) {
	o := object{values: map[string]json.RawMessage{}, form: form}
	if !utf8.Valid(text) {
		return o, fmt.Errorf("the line is not UTF-8 text: save the file as UTF-8")
	}
	if text[0] != '{' {
		return o, fmt.Errorf("the line is no JSON object: %s", form)
	}
	if err := json.Unmarshal(text, &o.values); err != nil {
		return o, fmt.Errorf("the line is not valid JSON (%w): %s", err, form)
	}
	seen := make(map[string]bool, len(o.values))
	in := json.NewDecoder(bytes.NewReader(text))
	_, err := in.Token() // the opening brace
	for err == nil && in.More() {
		var token json.Token
		if token, err = in.Token(); err != nil {
			break
		}
		key := fmt.Sprint(token)
		if seen[key] {
			return o, fmt.Errorf("the key %q is there twice", key)
		}
		seen[key] = true
		o.keys = append(o.keys, key)
		var skipped json.RawMessage
		err = in.Decode(&skipped)
	}
	return o, err
}

// has reports whether the key is there with a value; null is none.
func (o object) has(key string) bool {
	v, ok := o.values[key]
	return ok && string(v) != "null"
}

// missing says that a key is not there, and names the one that it may have been meant to be.
func (o object) missing(key string) error {
	if near := sdk.Nearest(key, o.keys); near != "" && near != key {
		return fmt.Errorf("the key %q is missing, did you mean it by %q? %s", key, near, o.form)
	}
	return fmt.Errorf("the key %q is missing: %s", key, o.form)
}

// prompt returns the line as a prompt; the keys in used are no metadata.
func (o object) prompt(used ...string) (sdk.Prompt, error) {
	if !o.has("prompt") {
		return sdk.Prompt{}, o.missing("prompt")
	}
	messages, err := o.turns("prompt")
	if err != nil {
		return sdk.Prompt{}, err
	}
	return o.rest(messages, append(used, "prompt"))
}

// rest completes a prompt of these messages with the line's answer, id and metadata.
func (o object) rest(messages []sdk.Message, used []string) (sdk.Prompt, error) {
	p := sdk.Prompt{Messages: messages}
	if last := messages[len(messages)-1].Role; last != "user" {
		return p, fmt.Errorf("the prompt ends with the %s's turn: its last turn must be the user's", last)
	}
	var err error
	if p.Answer, err = o.label("answer"); err != nil {
		return p, err
	}
	if p.ID, err = o.label("id"); err != nil {
		return p, err
	}
	if p.ID == "" {
		if o.has("id") {
			return p, fmt.Errorf(`"id" is empty: want text, or leave the key out`)
		}
		p.ID = p.Hash()[:16]
	}
	for _, key := range o.keys {
		if key == "answer" || key == "id" || slices.Contains(used, key) {
			continue
		}
		var v any
		if err := json.Unmarshal(o.values[key], &v); err != nil {
			return p, fmt.Errorf("key %q: %w", key, err)
		}
		if p.Metadata == nil {
			p.Metadata = map[string]any{}
		}
		p.Metadata[key] = v
	}
	return p, nil
}

func (o object) demonstration() (Demonstration, error) {
	if !o.has("messages") {
		if !o.has("prompt") {
			return Demonstration{}, o.missing("prompt")
		}
		if !o.has("completion") {
			return Demonstration{}, o.missing("completion")
		}
		completion, err := text("completion", o.values["completion"])
		if err != nil {
			return Demonstration{}, err
		}
		p, err := o.prompt("completion", "messages")
		return Demonstration{Prompt: p, Completion: completion}, err
	}
	if o.has("prompt") || o.has("completion") {
		return Demonstration{}, fmt.Errorf(`the line has "messages" beside "prompt" or "completion": %s`, o.form)
	}
	messages, err := o.turns("messages")
	if err != nil {
		return Demonstration{}, err
	}
	n := len(messages) - 1
	if messages[n].Role != "assistant" || n == 0 {
		return Demonstration{}, fmt.Errorf(`"messages" must end with the assistant's turn, after the prompt's`)
	}
	p, err := o.rest(messages[:n], []string{"messages", "prompt", "completion"})
	return Demonstration{Prompt: p, Completion: messages[n].Content}, err
}

// turns reads a list of messages, or a prompt that is one text.
func (o object) turns(key string) ([]sdk.Message, error) {
	raw := o.values[key]
	if raw[0] == '"' && key == "prompt" {
		content, err := text(key, raw)
		return []sdk.Message{{Role: "user", Content: content}}, err
	}
	if raw[0] != '[' {
		return nil, fmt.Errorf("%q is of the wrong kind: %s", key, o.form)
	}
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, fmt.Errorf("%q: %w", key, err)
	}
	if len(items) == 0 {
		return nil, fmt.Errorf("%q is an empty list: want one message at least", key)
	}
	var messages []sdk.Message
	for i, item := range items {
		m, err := message(fmt.Sprintf("%s[%d]", key, i), item)
		if err != nil {
			return nil, err
		}
		messages = append(messages, m)
	}
	return messages, nil
}

var roles = []string{"user", "assistant", "system"}

func message(name string, raw json.RawMessage) (sdk.Message, error) {
	const form = `want {"role": "user", "assistant" or "system", "content": text}`
	if raw[0] != '{' {
		return sdk.Message{}, fmt.Errorf("%s is no message: %s", name, form)
	}
	o, err := parseObject(raw, form)
	if err != nil {
		return sdk.Message{}, fmt.Errorf("%s: %w", name, err)
	}
	for _, key := range o.keys {
		if key != "role" && key != "content" && o.has(key) {
			return sdk.Message{}, fmt.Errorf("%s has the key %q: %s", name, key, form)
		}
	}
	var m sdk.Message
	if m.Role, err = text(name+".role", o.values["role"]); err != nil {
		return m, err
	}
	if !slices.Contains(roles, m.Role) {
		return m, fmt.Errorf("%s has the role %q: %s", name, m.Role, form)
	}
	m.Content, err = text(name+".content", o.values["content"])
	return m, err
}

// text reads a string that says something.
func text(name string, raw json.RawMessage) (string, error) {
	if len(raw) == 0 {
		return "", fmt.Errorf("%q is missing: want a JSON string", name)
	}
	if raw[0] != '"' {
		return "", notText(name)
	}
	s, err := label(name, raw)
	if err == nil && strings.TrimSpace(s) == "" {
		err = fmt.Errorf("%q is empty", name)
	}
	return s, err
}

func notText(name string) error { return fmt.Errorf("%q is not text: want a JSON string", name) }

func (o object) label(key string) (string, error) {
	if !o.has(key) {
		return "", nil
	}
	return label(key, o.values[key])
}

// label reads a string, or a number as it is written.
func label(name string, raw json.RawMessage) (string, error) {
	var s string
	switch {
	case raw[0] == '"':
		if err := json.Unmarshal(raw, &s); err != nil {
			return "", fmt.Errorf("%q: %w", name, err)
		}
	case raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9':
		s = string(raw)
	default:
		return "", notText(name)
	}
	if strings.ContainsRune(s, 0) {
		return "", fmt.Errorf("%q contains the character NUL (\\u0000)", name)
	}
	return s, nil
}
