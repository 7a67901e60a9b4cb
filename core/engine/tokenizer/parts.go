package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// pattern is what a Replace or a Split looks for; one of the two is set.
type pattern struct {
	String *string `json:"String"`
	Regex  *string `json:"Regex"`
}

func (p pattern) literal() (string, error) {
	switch {
	case p.Regex != nil:
		return "", fmt.Errorf("the regular expression %q is not supported", *p.Regex)
	case p.String == nil || *p.String == "":
		return "", errors.New("there is no pattern")
	}
	return *p.String, nil
}

func (l *loader) normalizer(raw json.RawMessage, depth int) error {
	kind, err := kindOf(raw)
	if err != nil {
		return err
	}
	var c struct {
		Type        string            `json:"type"`
		Pattern     pattern           `json:"pattern"`
		Content     string            `json:"content"`
		Prepend     string            `json:"prepend"`
		Normalizers []json.RawMessage `json:"normalizers"`
	}
	var n normalizer
	switch kind {
	case "Sequence":
		if err := decodeStrict(raw, &c); err != nil {
			return err
		}
		return sequence(c.Normalizers, depth, l.normalizer)
	case "NFC":
		n = compose(norm.NFC, norm.NFD)
	case "NFKC":
		n = compose(norm.NFKC, norm.NFKD)
	case "Lowercase":
		n = lowercase
	case "Prepend":
		n = func(s string) string { return c.Prepend + s }
	case "Replace":
		// below, when the pattern is known
	default:
		return unknownPart(kind)
	}
	if err := decodeStrict(raw, &c); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	if kind == "Replace" {
		old, err := c.Pattern.literal()
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		l.grow *= 1 + min(len(c.Content)/len(old), maxGrow)
		n = func(s string) string { return strings.ReplaceAll(s, old, c.Content) }
	}
	l.grow *= 1 + min(len(c.Prepend), maxGrow) // of a text of one byte
	if l.grow > maxGrow {
		return fmt.Errorf("%s: a text may become more than %d times as long", kind, maxGrow)
	}
	l.t.normalize = append(l.t.normalize, n)
	return nil
}

func (l *loader) preTokenizer(raw json.RawMessage, depth int) error {
	kind, err := kindOf(raw)
	if err != nil {
		return err
	}
	var s splitter
	switch kind {
	case "Sequence":
		var c struct {
			Type          string            `json:"type"`
			Pretokenizers []json.RawMessage `json:"pretokenizers"`
		}
		if err := decodeStrict(raw, &c); err != nil {
			return err
		}
		return sequence(c.Pretokenizers, depth, l.preTokenizer)
	case "ByteLevel":
		c, err := byteLevelOf(raw)
		if err != nil {
			return err
		}
		var scan scanner
		if *c.UseRegex {
			scan = scannerFor(patternGPT2)
		}
		s = byteLevel(c.AddPrefixSpace, scan)
	case "Split":
		if s, err = splitOf(raw); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	case "Digits":
		var c struct {
			Type       string `json:"type"`
			Individual bool   `json:"individual_digits"`
		}
		if err := decodeStrict(raw, &c); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		b := contiguous
		if c.Individual {
			b = isolated
		}
		s = splitRuns(findClass(unicode.IsNumber), b)
	case "Whitespace":
		s = splitWords
	case "WhitespaceSplit":
		s = splitRuns(findClass(unicode.IsSpace), removed)
	case "Metaspace":
		m, err := metaspaceOf(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		s = m.splitter()
	default:
		return unknownPart(kind)
	}
	l.t.split = append(l.t.split, s)
	return nil
}

func splitOf(raw json.RawMessage) (splitter, error) {
	var c struct {
		Type     string   `json:"type"`
		Pattern  pattern  `json:"pattern"`
		Behavior behavior `json:"behavior"`
		Invert   bool     `json:"invert"`
	}
	if err := decodeStrict(raw, &c); err != nil {
		return nil, err
	}
	if !c.Behavior.known() {
		return nil, fmt.Errorf("the behavior %q is not supported", c.Behavior)
	}
	var find func(string) []run
	if c.Pattern.Regex != nil {
		if scan := scannerFor(*c.Pattern.Regex); scan != nil {
			find = findPattern(scan)
		}
	}
	if find == nil {
		s, err := c.Pattern.literal()
		if err != nil {
			return nil, err
		}
		find = findString(s)
	}
	if c.Invert {
		find = invert(find)
	}
	return splitRuns(find, c.Behavior), nil
}

type byteLevelConfig struct {
	Type           string `json:"type"`
	AddPrefixSpace bool   `json:"add_prefix_space"`
	TrimOffsets    bool   `json:"trim_offsets"` // of no concern to ids
	UseRegex       *bool  `json:"use_regex"`
}

func byteLevelOf(raw json.RawMessage) (byteLevelConfig, error) {
	on := true
	c := byteLevelConfig{AddPrefixSpace: true, UseRegex: &on}
	if err := decodeStrict(raw, &c); err != nil {
		return c, fmt.Errorf("%q: %w", "ByteLevel", err)
	}
	if c.UseRegex == nil { // null
		c.UseRegex = &on
	}
	return c, nil
}

func metaspaceOf(raw json.RawMessage) (metaspace, error) {
	var c struct {
		Type           string `json:"type"`
		Replacement    string `json:"replacement"`
		StrRep         string `json:"str_rep"` // the same, in old files
		AddPrefixSpace *bool  `json:"add_prefix_space"`
		PrependScheme  string `json:"prepend_scheme"`
		Split          *bool  `json:"split"`
	}
	if err := decodeStrict(raw, &c); err != nil {
		return metaspace{}, err
	}
	m := metaspace{mark: c.Replacement, prepend: c.PrependScheme, split: c.Split == nil || *c.Split}
	if m.prepend == "" {
		m.prepend = "always"
		if c.AddPrefixSpace != nil && !*c.AddPrefixSpace { // how old files say "never"
			m.prepend = "never"
		}
	}
	switch {
	case utf8.RuneCountInString(m.mark) != 1:
		return m, fmt.Errorf("the replacement %q is not one character", m.mark)
	case !slices.Contains([]string{"always", "first", "never"}, m.prepend):
		return m, fmt.Errorf("the prepend_scheme %q is not supported", m.prepend)
	}
	return m, nil
}

func (l *loader) decoder(raw json.RawMessage, depth int) error {
	kind, err := kindOf(raw)
	if err != nil {
		return err
	}
	var c struct {
		Type     string            `json:"type"`
		Pattern  pattern           `json:"pattern"`
		Content  string            `json:"content"`
		Start    int               `json:"start"`
		Stop     int               `json:"stop"`
		Decoders []json.RawMessage `json:"decoders"`
	}
	switch kind {
	case "Metaspace":
		m, err := metaspaceOf(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		amid := func(s string) string { return strings.ReplaceAll(s, m.mark, " ") }
		l.decodeTokens(m.decoder(), amid, stageOf(m.decoder(), eachToken(amid)))
		return nil
	case "ByteLevel":
		if _, err := byteLevelOf(raw); err != nil {
			return err
		}
		l.decodeTokens(decodeByteLevel, func(s string) string { return string(appendSpelled(nil, s)) }, stageByteLevel)
		l.fused = true
		return nil
	case "Sequence", "Replace", "Strip", "ByteFallback", "Fuse":
	default:
		return unknownPart(kind)
	}
	if err := decodeStrict(raw, &c); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	switch kind {
	case "Sequence":
		return sequence(c.Decoders, depth, l.decoder)
	case "Replace":
		old, err := c.Pattern.literal()
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		f := func(s string) string { return strings.ReplaceAll(s, old, c.Content) }
		l.decodeTokens(eachToken(f), f, stateless(eachToken(f)))
	case "Strip":
		if utf8.RuneCountInString(c.Content) != 1 {
			return fmt.Errorf("%s: the content %q is not one character", kind, c.Content)
		}
		f := strip(c.Content, c.Start, c.Stop)
		if l.fused && c.Stop == 0 { // of the whole text: a token amid others is left
			l.decodeWith(eachToken(f), nil, stageStripStart(c.Content, c.Start))
		} else {
			l.decodeTokens(eachToken(f), f, stateless(eachToken(f)))
		}
	case "ByteFallback":
		l.decodeTokens(decodeByteFallback, func(s string) string {
			if b, ok := fallbackByte(s); ok {
				return string([]byte{b})
			}
			return s
		}, stageByteFallback)
	case "Fuse":
		l.decodeWith(decodeFuse, nil, stateless(decodeFuse))
		l.fused = true
	}
	return nil
}

// templateItem is a place in a template: a special token, or the text.
type templateItem struct {
	SpecialToken *struct {
		ID     string `json:"id"`
		TypeID int    `json:"type_id"`
	} `json:"SpecialToken"`
	Sequence *struct {
		ID     string `json:"id"`
		TypeID int    `json:"type_id"`
	} `json:"Sequence"`
}

func (l *loader) postProcessor(raw json.RawMessage, depth int) error {
	kind, err := kindOf(raw)
	if err != nil {
		return err
	}
	switch kind {
	case "ByteLevel": // of no concern to ids
		_, err := byteLevelOf(raw)
		return err
	case "Sequence":
		var c struct {
			Type       string            `json:"type"`
			Processors []json.RawMessage `json:"processors"`
		}
		if err := decodeStrict(raw, &c); err != nil {
			return err
		}
		return sequence(c.Processors, depth, l.postProcessor)
	case "TemplateProcessing":
	default:
		return unknownPart(kind)
	}
	var c struct {
		Type          string          `json:"type"`
		Single        []templateItem  `json:"single"`
		Pair          json.RawMessage `json:"pair"` // two texts are never encoded together
		SpecialTokens map[string]struct {
			ID     string   `json:"id"`
			IDs    []int32  `json:"ids"`
			Tokens []string `json:"tokens"`
		} `json:"special_tokens"`
	}
	if err := decodeStrict(raw, &c); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	var prefix, suffix []int32
	texts := 0
	for _, item := range c.Single {
		switch {
		case item.SpecialToken != nil:
			token, ok := c.SpecialTokens[item.SpecialToken.ID]
			if !ok {
				return fmt.Errorf("%s: special token %q has no ids", kind, item.SpecialToken.ID)
			}
			if texts == 0 {
				prefix = append(prefix, token.IDs...)
			} else {
				suffix = append(suffix, token.IDs...)
			}
		case item.Sequence != nil && item.Sequence.ID == "A":
			texts++
		}
	}
	if texts != 1 {
		return fmt.Errorf(`%s: the text "A" stands %d times in "single", not once`, kind, texts)
	}
	// A later processor puts its tokens around those of an earlier one.
	l.t.prefix = append(prefix, l.t.prefix...)
	l.t.suffix = append(l.t.suffix, suffix...)
	return nil
}

// sequence loads the parts of a Sequence.
func sequence(parts []json.RawMessage, depth int, load func(json.RawMessage, int) error) error {
	if depth == maxDepth {
		return fmt.Errorf("a Sequence is more than %d deep", maxDepth)
	}
	for _, part := range parts {
		if err := load(part, depth+1); err != nil {
			return err
		}
	}
	return nil
}
