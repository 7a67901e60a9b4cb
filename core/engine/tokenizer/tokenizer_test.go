package tokenizer

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// object is a JSON object.
type object = map[string]any

// tiny is a byte-level tokenizer.json: ids 0 to 255 are the bytes, then come a few merges, then
// <bos> and <eos>. Its parts may be replaced.
func tiny(replace object) object {
	vocab := object{}
	for b := range 256 {
		vocab[spell(string([]byte{byte(b)}))] = b
	}
	merges := []any{[]string{"a", "b"}, "Ġ ab", []string{"ab", "ab"}, "Ã ©"}
	for i, token := range []string{"ab", "Ġab", "abab", "Ã©"} {
		vocab[token] = 256 + i
	}
	file := object{
		"version":       "1.0",
		"added_tokens":  []any{added(260, "<bos>", object{"special": true}), added(261, "<eos>", object{"special": true})},
		"normalizer":    nil,
		"pre_tokenizer": object{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
		"decoder":       object{"type": "ByteLevel"},
		"post_processor": object{
			"type":           "TemplateProcessing",
			"single":         []any{object{"SpecialToken": object{"id": "<bos>", "type_id": 0}}, object{"Sequence": object{"id": "A", "type_id": 0}}},
			"pair":           []any{},
			"special_tokens": object{"<bos>": object{"id": "<bos>", "ids": []int{260}, "tokens": []string{"<bos>"}}},
		},
		"model": object{"type": "BPE", "vocab": vocab, "merges": merges},
	}
	maps.Copy(file, replace)
	return file
}

func added(id int, content string, flags object) object {
	token := object{"id": id, "content": content, "special": false, "normalized": false, "single_word": false, "lstrip": false, "rstrip": false}
	maps.Copy(token, flags)
	return token
}

func toJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustLoad(t testing.TB, file object) *Tokenizer {
	t.Helper()
	tok, err := Load(toJSON(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestByteLevelBPE(t *testing.T) {
	t.Parallel()
	tok := mustLoad(t, tiny(nil))
	cases := map[string]struct {
		text string
		o    Options
		want []int32
	}{
		"nothing is nothing":                    {"", Options{}, []int32{}},
		"nothing with special tokens":           {"", Options{AddSpecial: true}, []int32{260}},
		"the lowest rank first":                 {"abab", Options{}, []int32{258}},
		"of equal ranks the leftmost first":     {"ababab", Options{}, []int32{258, 256}},
		"a space belongs to the word after it":  {"ab ab", Options{}, []int32{256, 257}},
		"no merge across pieces":                {"ab 1", Options{}, []int32{256, ' ', '1'}},
		"a character of two bytes":              {"é", Options{}, []int32{259}},
		"a special token in data is text":       {"<eos>", Options{}, []int32{'<', 'e', 'o', 's', '>'}},
		"a special token where it is wanted":    {"ab<eos>ab", Options{ParseSpecial: true, AddSpecial: true}, []int32{260, 256, 261, 256}},
		"the beginning of a special token only": {"<eo", Options{ParseSpecial: true}, []int32{'<', 'e', 'o'}},
		"a byte that is no character":           {"\xff", Options{}, []int32{0xff}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := tok.Encode(c.text, c.o); !slices.Equal(got, c.want) {
				t.Errorf("%q: got %v, want %v", c.text, got, c.want)
			}
		})
	}
	if got, want := tok.VocabSize(), 262; got != want { // 256 bytes + 4 merges + 2
		t.Errorf("%d tokens, want %d", got, want)
	}
	for token, want := range map[string]int32{"<eos>": 261, "Ġab": 257} {
		if got, ok := tok.ID(token); !ok || got != want {
			t.Errorf("ID(%q) = %d, %v", token, got, ok)
		}
	}
	if id, ok := tok.ID(" ab"); ok {
		t.Errorf(`ID(" ab") = %d; tokenizer.json spells it otherwise`, id)
	}
	if got := tok.Decode([]int32{260, 256, 257, -1, 262, 1 << 30, 0xe6, 261}, false); got != "<bos>ab ab\ufffd<eos>" {
		t.Errorf("decoded %q", got)
	}
	if got := tok.Decode([]int32{260, 256, 261}, true); got != "ab" {
		t.Errorf("decoded %q", got)
	}
}

// TestUnknownCharacters: a character-level model without bytes.
func TestUnknownCharacters(t *testing.T) {
	t.Parallel()
	vocab := object{"<unk>": 0, "a": 1, "<0xC3>": 2, "<0xA9>": 3, "aa": 4}
	model := func(set object) object {
		m := object{"type": "BPE", "vocab": vocab, "merges": []string{"a a"}}
		maps.Copy(m, set)
		return object{"model": m, "added_tokens": nil, "pre_tokenizer": nil, "decoder": nil, "post_processor": nil}
	}
	cases := map[string]struct {
		set  object
		want []int32 // of "axyaaé日z"
	}{
		"are left out without an unknown token": {nil, []int32{4, 1}}, // and what stood around them meets
		"are one unknown token each":            {object{"unk_token": "<unk>"}, []int32{1, 0, 0, 4, 0, 0, 0}},
		"are fused with their neighbours":       {object{"unk_token": "<unk>", "fuse_unk": true}, []int32{1, 0, 4, 0}},
		"are bytes where all of them are known": {object{"unk_token": "<unk>", "byte_fallback": true}, []int32{1, 0, 0, 4, 2, 3, 0, 0}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok := mustLoad(t, tiny(model(c.set)))
			if got := tok.Encode("axyaaé日z", Options{}); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	whole := mustLoad(t, tiny(model(object{"vocab": object{"a": 0, "aa": 1, "aaa": 2}, "ignore_merges": true})))
	if got := whole.Encode("aaa", Options{}); !slices.Equal(got, []int32{2}) {
		t.Errorf("ignore_merges: got %v, want the token of the whole piece", got)
	}
	if got := whole.Decode([]int32{0, 2}, false); got != "a aaa" {
		t.Errorf("without a decoder tokens are joined by spaces, got %q", got)
	}
}

func TestWordLevel(t *testing.T) {
	t.Parallel()
	tok := mustLoad(t, tiny(object{
		"model":          object{"type": "WordLevel", "vocab": object{"<unk>": 0, "<eos>": 1, "two": 2, "+": 3}, "unk_token": "<unk>"},
		"added_tokens":   []any{added(1, "<eos>", object{"special": true})},
		"pre_tokenizer":  object{"type": "WhitespaceSplit"},
		"post_processor": nil, "decoder": nil,
	}))
	const text = "two + three <eos>"
	if got, want := tok.Encode(text, Options{ParseSpecial: true}), []int32{2, 3, 0, 1}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := tok.Encode(text, Options{}), []int32{2, 3, 0, 0}; !slices.Equal(got, want) {
		t.Errorf("from data: got %v, want %v: no word of a text is a special token", got, want)
	}
	if tok.VocabSize() != 4 {
		t.Errorf("%d tokens, want 4", tok.VocabSize())
	}
}

// TestNoMergeMakesASpecialToken: a file can hold merges that build a special token out of plain ones.
func TestNoMergeMakesASpecialToken(t *testing.T) {
	t.Parallel()
	for _, ignoreMerges := range []bool{false, true} {
		tok := mustLoad(t, tiny(object{
			"model":        object{"type": "BPE", "vocab": object{"<": 0, ">": 1, "<>": 2, "!": 3}, "merges": []string{"< >"}, "ignore_merges": ignoreMerges},
			"added_tokens": []any{added(2, "<>", object{"special": true}), added(3, "!", object{"special": true})}, "post_processor": nil,
		}))
		if got, want := tok.Encode("<>!", Options{}), []int32{0, 1}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if got, want := tok.Encode("<>!", Options{ParseSpecial: true}), []int32{2, 3}; !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestAddedTokens(t *testing.T) {
	t.Parallel()
	tok := mustLoad(t, tiny(object{
		"normalizer": object{"type": "Lowercase"},
		"added_tokens": []any{
			added(260, "<bos>", nil), added(261, "[w]", object{"single_word": true}), added(262, "[l]", object{"lstrip": true}),
			added(263, "[r]", object{"rstrip": true}), added(264, "[N]", object{"normalized": true}), added(265, "<bos><", nil),
			added(266, "[S]", object{"special": true}),
		},
	}))
	cases := map[string]struct {
		text string
		want []int32
	}{
		"the longest of several":                   {"<bos><x", []int32{265, 'x'}},
		"the leftmost before the longest":          {"<<bos>", []int32{'<', 260}},
		"a word alone":                             {"[w]", []int32{261}},
		"a word between spaces":                    {"x [w] x", []int32{'x', ' ', 261, ' ', 'x'}},
		"a word that another touches":              {"x[w]", []int32{'x', '[', 'w', ']'}},
		"white space before it is taken":           {"x \t[l] x", []int32{'x', 262, ' ', 'x'}},
		"white space after it is taken":            {"x [r] \tx", []int32{'x', ' ', 263, 'x'}},
		"white space is taken once":                {"[r] [l]", []int32{263, 262}},
		"found in the normalized text":             {"[n][N]", []int32{264, 264}},
		"not found in the normalized text":         {"[L]", []int32{'[', 'l', ']'}},
		"a special one is passed over":             {"[S]", []int32{'[', 's', ']'}},
		"what begins like one at the text's end":   {"a<bo", []int32{'a', '<', 'b', 'o'}},
		"one directly after another of its length": {"<bos><bos>", []int32{265, 'b', 'o', 's', '>'}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := tok.Encode(c.text, Options{}); !slices.Equal(got, c.want) {
				t.Errorf("%q: got %v, want %v", c.text, got, c.want)
			}
		})
	}
	if got := tok.Decode([]int32{264, 266}, false); got != "[n][S]" {
		t.Errorf("decoded %q", got)
	}
}

// TestLongPieces compares the heap with the definition of byte-pair encoding, taken literally.
func TestLongPieces(t *testing.T) {
	t.Parallel()
	tok := mustLoad(t, tiny(object{"pre_tokenizer": object{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}}))
	text := strings.Repeat("ababa bab aab é", 40)
	ids := []int32{}
	for _, b := range []byte(text) {
		ids = append(ids, int32(b))
	}
	for {
		best, at := merge{rank: 1 << 30}, -1
		for i := range len(ids) - 1 {
			if m, ok := tok.model.(*bpe).merges[pairKey(ids[i], ids[i+1])]; ok && m.rank < best.rank {
				best, at = m, i
			}
		}
		if at < 0 {
			break
		}
		ids = slices.Replace(ids, at, at+2, best.id)
	}
	if got := tok.Encode(text, Options{}); !slices.Equal(got, ids) {
		t.Errorf("got %v\nwant %v", got, ids)
	}
}

// FuzzEncode: on a byte-level tokenizer text survives encoding and decoding, no text makes a special
// token by itself, and parsing special tokens changes ids, not text.
func FuzzEncode(f *testing.F) {
	for _, s := range []string{"", "ab ab\n\n x", "<bos><eos><", "é日\U0001f680", "\xff\xe6\x97", "it's 12345'LL \r\n\t "} {
		f.Add(s)
	}
	patterns := []any{
		object{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
		object{"type": "Sequence", "pretokenizers": []any{
			object{"type": "Split", "pattern": object{"Regex": patternLlama3}, "behavior": "Isolated", "invert": false},
			object{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
		}},
		object{"type": "Sequence", "pretokenizers": []any{
			object{"type": "Digits", "individual_digits": true},
			object{"type": "Split", "pattern": object{"String": " "}, "behavior": "MergedWithNext", "invert": false},
			object{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
		}},
	}
	var toks []*Tokenizer
	for _, p := range patterns {
		toks = append(toks, mustLoad(f, tiny(object{"pre_tokenizer": p})))
	}
	f.Fuzz(func(t *testing.T, text string) {
		want := validUTF8([]byte(text))
		if utf8.ValidString(text) && want != text {
			t.Fatalf("%q became %q", text, want)
		}
		for _, tok := range toks {
			plain := tok.Encode(text, Options{})
			if got := tok.Decode(plain, false); got != want {
				t.Errorf("%q came back as %q", text, got)
			}
			if slices.ContainsFunc(plain, func(id int32) bool { return id >= 260 }) {
				t.Errorf("%q holds a special token: %v", text, plain)
			}
			if got := tok.Decode(tok.Encode(text, Options{ParseSpecial: true}), false); got != want {
				t.Errorf("%q with special tokens came back as %q", text, got)
			}
			if got := tok.Decode(tok.Encode(text, Options{AddSpecial: true}), true); got != want {
				t.Errorf("%q between special tokens came back as %q", text, got)
			}
		}
	})
}
