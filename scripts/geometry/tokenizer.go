package geometry

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
)

// The tokenizer's special tokens; their ids are 0 and 1.
const (
	BOS = "<s>"
	EOS = "</s>"
)

// byteRunes is the printable stand-in of each byte in byte-level tokenizers: visible Latin-1
// characters stand for themselves, the rest for code points from U+0100 on.
//
// Source: GPT-2's encoder (Radford et al. 2019), as transformers spells it in tokenizer.json.
func byteRunes() [256]rune {
	var out [256]rune
	next := rune(0x100)
	for b := range out {
		switch {
		case b >= '!' && b <= '~', b >= 0xA1 && b <= 0xAC, b >= 0xAE:
			out[b] = rune(b)
		default:
			out[b] = next
			next++
		}
	}
	return out
}

// Tokenizer returns a tokenizer.json: byte-level BPE whose merges make each word of the texts one
// token (with its leading space), while digits stay single, so that columns of a sum stay apart.
// Any text can be encoded.
func Tokenizer(texts []string) ([]byte, error) {
	runes := byteRunes()
	vocab := map[string]int{BOS: 0, EOS: 1}
	add := func(token string) {
		if _, known := vocab[token]; !known {
			vocab[token] = len(vocab)
		}
	}
	for _, r := range runes {
		add(string(r))
	}
	var merges [][2]string
	merged := map[[2]string]bool{}
	for _, word := range words(texts) {
		// Left to right: "▁p"+"e", "▁pe"+"n". Prefixes are shared, so words never compete.
		parts := []rune{}
		for _, b := range []byte(word) {
			parts = append(parts, runes[b])
		}
		prefix := string(parts[:1])
		for _, r := range parts[1:] {
			m := [2]string{prefix, string(r)}
			prefix += string(r)
			if !merged[m] {
				merged[m] = true
				merges = append(merges, m)
				add(prefix)
			}
		}
	}
	special := func(id int, token string) map[string]any {
		return map[string]any{"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}
	}
	byteLevel := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	out, err := json.MarshalIndent(map[string]any{
		"version": "1.0", "truncation": nil, "padding": nil,
		"added_tokens": []any{special(0, BOS), special(1, EOS)},
		"normalizer":   nil,
		"pre_tokenizer": map[string]any{"type": "Sequence", "pretokenizers": []any{
			map[string]any{"type": "Digits", "individual_digits": true}, byteLevel,
		}},
		"post_processor": nil,
		"decoder":        byteLevel,
		"model": map[string]any{
			"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
			"fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": merges,
		},
	}, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write the tokenizer: %w", err)
	}
	return append(out, '\n'), nil
}

// words returns the distinct words of the texts, each as it stands behind a space and, where it
// opens a text, without one; most frequent first, then in alphabetical order.
func words(texts []string) []string {
	count := map[string]int{}
	for _, text := range texts {
		for i, w := range strings.Fields(text) {
			w = strings.Trim(w, ".,?0123456789+-*=;")
			if len(w) < 2 {
				continue
			}
			if i > 0 {
				w = " " + w
			}
			count[w]++
		}
	}
	out := make([]string, 0, len(count))
	for w := range count {
		out = append(out, w)
	}
	sort.Slice(out, func(i, j int) bool {
		if count[out[i]] != count[out[j]] {
			return count[out[i]] > count[out[j]]
		}
		return out[i] < out[j]
	})
	return out
}
