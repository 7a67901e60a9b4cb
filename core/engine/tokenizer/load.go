package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds on what a file from a stranger may ask for.
const (
	maxID    = 1 << 22 // the largest published vocabularies have about 2¹⁸ tokens
	maxDepth = 8       // of a Sequence in a Sequence
	maxGrow  = 1 << 10 // times that normalizing may lengthen a text
)

// Load reads a tokenizer.json. Its truncation and padding are left out, as transformers does.
//
// Errors: the file is not JSON, contradicts itself, or has a part, a field or a regular expression
// that this package does not know; the error names it.
func Load(data []byte) (*Tokenizer, error) {
	l := loader{t: &Tokenizer{added: map[int32]addedToken{}, addedIDs: map[string]int32{}}, grow: 1}
	if err := l.load(data); err != nil {
		return nil, fmt.Errorf("load tokenizer: %w", err)
	}
	return l.t, nil
}

// loader fills a Tokenizer.
type loader struct {
	t     *Tokenizer
	grow  int  // times that the normalizers so far may lengthen a text
	fused bool // the decoders so far have joined all tokens to one
}

func (l *loader) load(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("it is not valid UTF-8")
	}
	var file struct {
		Version       json.RawMessage `json:"version"`
		Truncation    json.RawMessage `json:"truncation"`
		Padding       json.RawMessage `json:"padding"`
		AddedTokens   []addedToken    `json:"added_tokens"`
		Normalizer    json.RawMessage `json:"normalizer"`
		PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
		PostProcessor json.RawMessage `json:"post_processor"`
		Decoder       json.RawMessage `json:"decoder"`
		Model         json.RawMessage `json:"model"`
	}
	if err := decodeStrict(data, &file); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		raw  json.RawMessage
		load func(raw json.RawMessage, depth int) error
	}{
		{"normalizer", file.Normalizer, l.normalizer},
		{"pre_tokenizer", file.PreTokenizer, l.preTokenizer},
		{"decoder", file.Decoder, l.decoder},
		{"post_processor", file.PostProcessor, l.postProcessor},
	} {
		if isNull(part.raw) {
			continue
		}
		if err := part.load(part.raw, 0); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if err := l.model(file.Model, file.AddedTokens); err != nil {
		return fmt.Errorf("model: %w", err)
	}
	ids := append(slices.Clone(l.t.prefix), l.t.suffix...)
	for _, id := range ids {
		if id < 0 || int(id) >= len(l.t.tokens) {
			return fmt.Errorf("post_processor: no token has the id %d", id)
		}
	}
	return nil
}

type bpeConfig struct {
	Type         string           `json:"type"`
	Dropout      *float64         `json:"dropout"`
	UnkToken     *string          `json:"unk_token"`
	Prefix       string           `json:"continuing_subword_prefix"`
	Suffix       string           `json:"end_of_word_suffix"`
	FuseUnk      bool             `json:"fuse_unk"`
	ByteFallback bool             `json:"byte_fallback"`
	IgnoreMerges bool             `json:"ignore_merges"`
	Vocab        map[string]int32 `json:"vocab"`
	Merges       []mergePair      `json:"merges"`
}

type wordLevelConfig struct {
	Type     string           `json:"type"`
	UnkToken string           `json:"unk_token"`
	Vocab    map[string]int32 `json:"vocab"`
}

func (l *loader) model(raw json.RawMessage, added []addedToken) error {
	if isNull(raw) {
		return errors.New("there is none")
	}
	kind, err := kindOf(raw)
	if err != nil {
		return err
	}
	special := map[int32]bool{}
	for _, a := range added {
		if a.Special {
			special[a.ID] = true
		}
	}
	switch kind {
	case "", "BPE": // files of before 2021 do not write the type
		var c bpeConfig
		if err := decodeStrict(raw, &c); err != nil {
			return err
		}
		switch {
		case c.Dropout != nil && *c.Dropout != 0:
			return fmt.Errorf("dropout of %v is not supported: text would be encoded differently each time", *c.Dropout)
		case c.Prefix != "":
			return fmt.Errorf("continuing_subword_prefix %q is not supported", c.Prefix)
		case c.Suffix != "":
			return fmt.Errorf("end_of_word_suffix %q is not supported", c.Suffix)
		}
		if err := l.vocabulary(c.Vocab, added); err != nil {
			return err
		}
		l.t.model, err = newBPE(c, special)
		return err
	case "WordLevel":
		var c wordLevelConfig
		if err := decodeStrict(raw, &c); err != nil {
			return err
		}
		if err := l.vocabulary(c.Vocab, added); err != nil {
			return err
		}
		l.t.model, err = newWordLevel(c, special)
		return err
	}
	return unknownPart(kind)
}

// vocabulary enters the model's tokens and the added ones, which may be among the model's.
func (l *loader) vocabulary(vocab map[string]int32, added []addedToken) error {
	t := l.t
	last := int32(-1)
	for _, token := range slices.Sorted(maps.Keys(vocab)) {
		id := vocab[token]
		if id < 0 || id >= maxID {
			return fmt.Errorf("token %q has the id %d, which is not from 0 to %d", token, id, maxID-1)
		}
		last = max(last, id)
	}
	for _, a := range added {
		if a.ID < 0 || a.ID >= maxID {
			return fmt.Errorf("added token %q has the id %d, which is not from 0 to %d", a.Content, a.ID, maxID-1)
		}
		last = max(last, a.ID)
	}
	t.tokens = make([]string, last+1)
	taken := make([]bool, last+1)
	for token, id := range vocab {
		if taken[id] {
			return fmt.Errorf("two tokens have the id %d", id)
		}
		t.tokens[id], taken[id] = token, true
	}
	t.size = len(vocab)
	for _, a := range added {
		id, inVocab := vocab[a.Content]
		_, twice := t.addedIDs[a.Content]
		switch {
		case a.Content == "" || len(a.Content) > maxAdded:
			return fmt.Errorf("added token %d has %d bytes, not 1 to %d", a.ID, len(a.Content), maxAdded)
		case twice:
			return fmt.Errorf("added token %q stands there twice", a.Content)
		case inVocab && id != a.ID:
			return fmt.Errorf("added token %q has the id %d, but %d in the vocabulary", a.Content, a.ID, id)
		case !inVocab && taken[a.ID]:
			return fmt.Errorf("added token %q has the id %d of token %q", a.Content, a.ID, t.tokens[a.ID])
		}
		if !inVocab {
			t.tokens[a.ID], taken[a.ID] = a.Content, true
			t.size++
		}
		t.added[a.ID], t.addedIDs[a.Content] = a, a.ID
		if !a.Normalized {
			t.raw.add(a.Content, a)
			continue
		}
		content := a.Content
		for _, n := range t.normalize {
			content = n(content)
		}
		if content == "" {
			return fmt.Errorf("added token %q: the normalizer leaves nothing of it", a.Content)
		}
		if len(content) > maxAdded {
			return fmt.Errorf("added token %d: the normalizer makes it %d bytes long, more than %d", a.ID, len(content), maxAdded)
		}
		t.tokens[a.ID] = content // and so it is decoded, as in the reference
		t.normalized.add(content, a)
	}
	return nil
}

// mergePair is "a b" or ["a", "b"].
type mergePair [2]string

// UnmarshalJSON takes both spellings. There are half a million merges in a file, so the common forms are
// read without another pass of encoding/json.
func (m *mergePair) UnmarshalJSON(b []byte) error {
	var parts []string
	if fields := bytes.Split(b, []byte{'"'}); len(b) > 0 && !bytes.ContainsRune(b, '\\') {
		switch {
		case b[0] == '"' && len(fields) == 3:
			parts = strings.Split(string(fields[1]), " ")
		case b[0] == '[' && len(fields) == 5:
			parts = []string{string(fields[1]), string(fields[3])}
		}
	}
	if parts == nil {
		var s string
		if json.Unmarshal(b, &s) == nil {
			parts = strings.Split(s, " ")
		} else if err := json.Unmarshal(b, &parts); err != nil {
			return err
		}
	}
	if len(parts) != 2 || parts[0] == "" || parts[1] == "" {
		return fmt.Errorf("merge %s is not a pair of tokens", b)
	}
	*m = mergePair(parts)
	return nil
}

// decodeStrict decodes one JSON value; an unknown field is an error that names it.
func decodeStrict(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the closing brace")
	}
	return nil
}

// kindOf returns the "type" of a part.
func kindOf(raw json.RawMessage) (string, error) {
	var part struct {
		Type string `json:"type"`
	}
	err := json.Unmarshal(raw, &part)
	return part.Type, err
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func unknownPart(kind string) error { return fmt.Errorf("%q is not supported", kind) }
