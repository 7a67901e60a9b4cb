package tokenizer

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// The expected values of the first three tests are what Hugging Face tokenizers 0.23.3 gives.

func TestPreTokenizers(t *testing.T) {
	t.Parallel()
	const text = "It'S 1234½ x_y,  don'ſ!\r\n\n \tz  "
	split := func(pattern object, behavior string, invert bool) string {
		return string(toJSON(t, object{"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}))
	}
	regex := func(p string) object { return object{"Regex": p} }
	dash := object{"String": "-"}
	cases := []struct {
		part, text string
		want       []string
	}{
		{`{"type": "Whitespace"}`, text, []string{"It", "'", "S", "1234", "½", "x_y", ",", "don", "'", "ſ", "!", "z"}},
		{`{"type": "Whitespace"}`, "a\u0301\u200db\u00a0-ⓐ²", []string{"a\u0301\u200db", "-", "ⓐ", "²"}},
		{`{"type": "WhitespaceSplit"}`, text, []string{"It'S", "1234½", "x_y,", "don'ſ!", "z"}},
		{`{"type": "Digits", "individual_digits": true}`, text, []string{"It'S ", "1", "2", "3", "4", "½", " x_y,  don'ſ!\r\n\n \tz  "}},
		{`{"type": "Digits", "individual_digits": false}`, text, []string{"It'S ", "1234½", " x_y,  don'ſ!\r\n\n \tz  "}},
		{`{"type": "ByteLevel", "add_prefix_space": false}`, text, []string{"It", "'", "S", "Ġ1234Â½", "Ġx", "_", "y", ",", "Ġ", "Ġdon", "'", "Å¿", "!", "čĊĊĠ", "ĉ", "z", "ĠĠ"}},
		{`{"type": "ByteLevel", "add_prefix_space": true, "use_regex": true}`, "it's é", []string{"Ġit", "'s", "ĠÃ©"}},
		{`{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}`, "a é\n", []string{"aĠÃ©Ċ"}},
		{split(regex(patternLlama3), "Isolated", false), text, []string{"It", "'S", " ", "123", "4½", " x", "_y", ",", " ", " don", "'ſ", "!\r\n\n", " ", "\tz", "  "}},
		{split(regex(patternQwen2), "Isolated", false), text, []string{"It", "'S", " ", "1", "2", "3", "4", "½", " x", "_y", ",", " ", " don", "'ſ", "!\r\n\n", " ", "\tz", "  "}},
		{split(dash, "Removed", false), "-a--b-", []string{"a", "b"}},
		{split(dash, "Removed", true), "-a--b-", []string{"-", "-", "-", "-"}},
		{split(dash, "Isolated", false), "-a--b-", []string{"-", "a", "-", "-", "b", "-"}},
		{split(dash, "MergedWithPrevious", false), "-a--b-", []string{"-", "a-", "-", "b-"}},
		{split(dash, "MergedWithPrevious", true), "-a--b-", []string{"-a", "-", "-b", "-"}},
		{split(dash, "MergedWithNext", false), "-a--b-", []string{"-a", "-", "-b", "-"}},
		{split(dash, "MergedWithNext", true), "-a--b-", []string{"-", "a-", "-", "b-"}},
		{split(dash, "Contiguous", false), "-a--b-", []string{"-", "a", "--", "b", "-"}},
		{`{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}`, "a  b", []string{"▁a", "▁", "▁b"}},
		{`{"type": "Metaspace", "replacement": "▁", "add_prefix_space": true, "str_rep": "▁"}`, "▁a b", []string{"▁a", "▁b"}},
		{`{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true}`, "a  b", []string{"a", "▁", "▁b"}},
		{`{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}`, "a  b", []string{"▁a▁▁b"}},
		{`{"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}]}`, "a b", []string{"▁a", "b"}},
		{`{"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", "add_prefix_space": false}]}`, "a 12", []string{"a", "Ġ", "1", "2"}},
	}
	for _, c := range cases {
		l := loader{t: &Tokenizer{}, grow: 1}
		if err := l.preTokenizer(json.RawMessage(c.part), 0); err != nil {
			t.Errorf("%s: %v", c.part, err)
			continue
		}
		pieces := []piece{{c.text, true}}
		for _, split := range l.t.split {
			var next []piece
			for _, p := range pieces {
				next = split(next, p)
			}
			pieces = next
		}
		got := []string{}
		for _, p := range pieces {
			got = append(got, p.text)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s of %q\n got %q\nwant %q", c.part, c.text, got, c.want)
		}
	}
}

func TestNormalizers(t *testing.T) {
	t.Parallel()
	grave, below := "\u0301", "\u0323"
	cases := []struct{ part, text, want string }{
		{`{"type": "NFC"}`, "e\u0301 \u212b", "é Å"},
		{`{"type": "NFC"}`, "a" + strings.Repeat(below+grave, 20), "ạ" + strings.Repeat(below, 19) + strings.Repeat(grave, 20)},
		{`{"type": "NFC"}`, strings.Repeat(grave, 33) + "a" + grave, strings.Repeat(grave, 33) + "á"},
		{`{"type": "NFKC"}`, "ﬁ½ \u212b", "fi1\u20442 Å"},
		{`{"type": "NFKC"}`, "ﬁ" + strings.Repeat("\u0301\u0327", 16), "fí" + strings.Repeat("\u0327", 16) + strings.Repeat("\u0301", 15)},
		{`{"type": "Lowercase"}`, "İSTANBUL ΣΑΣ Ǆ", "i\u0307stanbul σασ ǆ"},
		{`{"type": "Prepend", "prepend": "▁"}`, "a", "▁a"},
		{`{"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}`, "a b", "▁a▁b"},
	}
	for _, c := range cases {
		l := loader{t: &Tokenizer{}, grow: 1}
		if err := l.normalizer(json.RawMessage(c.part), 0); err != nil {
			t.Errorf("%s: %v", c.part, err)
			continue
		}
		got := c.text
		for _, n := range l.t.normalize {
			got = n(got)
		}
		if got != c.want {
			t.Errorf("%s of %+q\n got %+q\nwant %+q", c.part, c.text, got, c.want)
		}
	}
}

func TestDecoders(t *testing.T) {
	t.Parallel()
	cases := []struct {
		part   string
		tokens []string
		want   string
	}{
		{`{"type": "ByteLevel"}`, []string{"Ġa", "Ã", "©", "Ġ日", "Ã", "x"}, " aéĠ日\ufffdx"},
		{`{"type": "ByteFallback"}`, []string{"a", "<0xE6>", "<0x97>", "<0xA5>", "b", "<0xE6>", "<0x97>", "<0xZZ>"}, "a日b\ufffd\ufffd<0xZZ>"},
		{`{"type": "Fuse"}`, []string{"a", "b"}, "ab"},
		{`{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}`, []string{"▁a▁", "b"}, " a b"},
		{`{"type": "Strip", "content": " ", "start": 1, "stop": 0}`, []string{"  a ", " b"}, " a b"},
		{`{"type": "Strip", "content": "e", "start": 0, "stop": 2}`, []string{"eee", "be"}, "eb"},
		{`{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}`, []string{"▁▁a▁", "▁b"}, "a b"},
		{`{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true}`, []string{"▁a", "▁b"}, " a b"},
		{`{"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}`, []string{"▁a", "<0xC3>", "<0xA9>", "▁b"}, "aé b"},
	}
	for _, c := range cases {
		l := loader{t: &Tokenizer{}, grow: 1}
		if err := l.decoder(json.RawMessage(c.part), 0); err != nil {
			t.Errorf("%s: %v", c.part, err)
			continue
		}
		tokens := c.tokens
		for _, d := range l.t.decode {
			tokens = d(tokens)
		}
		if got := strings.Join(tokens, ""); got != c.want {
			t.Errorf("%s of %q: got %q, want %q", c.part, c.tokens, got, c.want)
		}
	}
}

// TestCutOffCharacters: as in Table 3-8 and its neighbours of the Unicode Standard, 3.9.
func TestCutOffCharacters(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a\xe6\x97b":       "a\ufffdb",
		"\xf0\x9f\x9a":     "\ufffd",
		"\xc0\x80":         "\ufffd\ufffd",
		"\xed\xa0\x80":     "\ufffd\ufffd\ufffd",
		"\xf4\x90\x80\x80": "\ufffd\ufffd\ufffd\ufffd",
		"\xe6\xe6\x97\xa5": "\ufffd日",
		"\ufffd日":          "\ufffd日",
	} {
		if got := validUTF8([]byte(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestPilesEqualPlainComposition: where x/text breaks nothing, composing by hand gives the same.
func TestPilesEqualPlainComposition(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "abc", "e\u0301\u0323x", "\u0301a", "한국어 \u1112\u1161\u11ab", "ẹ\u0302 \u09c7\u09be", "ﬁ½\u212b\u0344"} {
		for _, part := range []string{"NFC", "NFKC"} {
			l := loader{t: &Tokenizer{}, grow: 1}
			if err := l.normalizer(json.RawMessage(`{"type":"`+part+`"}`), 0); err != nil {
				t.Fatal(err)
			}
			n := l.t.normalize[0]
			pile := "a" + strings.Repeat("\u0301", 10) // makes n compose by hand
			if got, want := n(s+" "+pile), n(s)+" á"+strings.Repeat("\u0301", 9); got != want {
				t.Errorf("%s of %+q: got %+q, want %+q", part, s, got, want)
			}
		}
	}
}

func TestF19WhatIsNotKnownIsNamed(t *testing.T) {
	t.Parallel()
	nested := `{"type":"NFC"}`
	for range 9 {
		nested = `{"type":"Sequence","normalizers":[` + nested + `]}`
	}
	grow := `{"type":"Replace","pattern":{"String":"a"},"content":"aaaaaaaaaaaaaaaa"}`
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	model := func(set object) object {
		m := object{"type": "BPE", "vocab": object{"a": 0, "b": 1, "ab": 2}, "merges": []any{}}
		for k, v := range set {
			m[k] = v
		}
		return object{"model": m, "added_tokens": nil, "post_processor": nil}
	}
	cases := map[string]struct {
		replace object
		want    string
	}{
		"a normalizer":                         {object{"normalizer": raw(`{"type":"Nmt"}`)}, `normalizer: "Nmt"`},
		"a normalizer in a sequence":           {object{"normalizer": raw(`{"type":"Sequence","normalizers":[{"type":"StripAccents"}]}`)}, `"StripAccents"`},
		"a normalizer's field":                 {object{"normalizer": raw(`{"type":"NFC","form":"x"}`)}, `"form"`},
		"a normalizer's regular expression":    {object{"normalizer": raw(`{"type":"Replace","pattern":{"Regex":" {2,}"},"content":"▁"}`)}, `" {2,}"`},
		"a Replace of nothing":                 {object{"normalizer": raw(`{"type":"Replace","pattern":{"String":""},"content":"▁"}`)}, "no pattern"},
		"a normalizer that makes text explode": {object{"normalizer": raw(`{"type":"Sequence","normalizers":[` + strings.Repeat(grow+",", 8) + grow + `]}`)}, "1024 times"},
		"a Prepend that is far too long":       {object{"normalizer": object{"type": "Prepend", "prepend": strings.Repeat("x", 2000)}}, "1024 times"},
		"sequences nested too deep":            {object{"normalizer": raw(nested)}, "more than 8 deep"},
		"a normalizer that is a number":        {object{"normalizer": 3}, "normalizer"},
		"a pre-tokenizer":                      {object{"pre_tokenizer": raw(`{"type":"BertPreTokenizer"}`)}, `pre_tokenizer: "BertPreTokenizer"`},
		"a pre-tokenizer's regular expression": {object{"pre_tokenizer": raw(`{"type":"Split","pattern":{"Regex":"\\d+"},"behavior":"Isolated","invert":false}`)}, `"\\d+"`},
		"a pre-tokenizer's behavior":           {object{"pre_tokenizer": raw(`{"type":"Split","pattern":{"String":"x"},"behavior":"Deleted"}`)}, `"Deleted"`},
		"a Metaspace's scheme":                 {object{"pre_tokenizer": raw(`{"type":"Metaspace","replacement":"▁","prepend_scheme":"last"}`)}, `"last"`},
		"a Metaspace's replacement":            {object{"pre_tokenizer": raw(`{"type":"Metaspace","replacement":"","prepend_scheme":"first"}`)}, `replacement ""`},
		"a ByteLevel's field":                  {object{"pre_tokenizer": raw(`{"type":"ByteLevel","x":1}`)}, `"ByteLevel": json: unknown field "x"`},
		"a decoder":                            {object{"decoder": raw(`{"type":"CTC"}`)}, `decoder: "CTC"`},
		"a decoder's regular expression":       {object{"decoder": raw(`{"type":"Replace","pattern":{"Regex":"x"},"content":""}`)}, `"x"`},
		"a Strip of a word":                    {object{"decoder": raw(`{"type":"Strip","content":"ab","start":1,"stop":0}`)}, `"ab"`},
		"a post-processor":                     {object{"post_processor": raw(`{"type":"BertProcessing","sep":["x",1],"cls":["y",2]}`)}, `post_processor: "BertProcessing"`},
		"a template's token without ids":       {object{"post_processor": raw(`{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<x>","type_id":0}}],"pair":[],"special_tokens":{}}`)}, `"<x>"`},
		"a template without the text":          {object{"post_processor": raw(`{"type":"TemplateProcessing","single":[],"pair":[],"special_tokens":{}}`)}, `0 times`},
		"a template's id that is none":         {object{"post_processor": raw(`{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"x":{"id":"x","ids":[900],"tokens":["x"]}}}`)}, "900"},
		"a model":                              {object{"model": object{"type": "Unigram", "vocab": []any{}}}, `model: "Unigram"`},
		"no model":                             {object{"model": nil}, "model: there is none"},
		"a model's field":                      {model(object{"cache": 1}), `"cache"`},
		"dropout":                              {model(object{"dropout": 0.1}), "dropout"},
		"a prefix of subwords":                 {model(object{"continuing_subword_prefix": "##"}), `"##"`},
		"a suffix of words":                    {model(object{"end_of_word_suffix": "</w>"}), `"</w>"`},
		"an unknown token that is not there":   {model(object{"unk_token": "<unk>"}), `"<unk>"`},
		"a merge of three":                     {model(object{"merges": []any{"a b c"}}), `"a b c"`},
		"a merge of a list of three":           {model(object{"merges": []any{[]string{"a", "b", "c"}}}), `"c"`},
		"a merge of nothing":                   {model(object{"merges": []any{"a "}}), `"a "`},
		"a merge that is a number":             {model(object{"merges": []any{1}}), "model"},
		"a merge of a token that is not there": {model(object{"merges": []any{"a x"}}), `merge 0: "x"`},
		"a merge into one that is not there":   {model(object{"merges": []any{"b a"}}), `merge 0: "ba"`},
		"a negative id":                        {model(object{"vocab": object{"a": -1}}), `"a" has the id -1`},
		"an id that would take gigabytes":      {model(object{"vocab": object{"a": 1 << 30}}), `"a" has the id 1073741824`},
		"an id beyond 32 bits":                 {model(object{"vocab": object{"a": 1 << 40}}), "model"},
		"two tokens of one id":                 {model(object{"vocab": object{"a": 1, "b": 1}}), "two tokens have the id 1"},
		"an added token twice":                 {object{"added_tokens": []any{added(300, "x!", nil), added(301, "x!", nil)}}, `"x!"`},
		"an added token of another's id":       {object{"added_tokens": []any{added(256, "x!", nil)}}, `"x!" has the id 256 of token "ab"`},
		"an added token with two ids":          {object{"added_tokens": []any{added(300, "ab", nil)}}, `"ab" has the id 300, but 256`},
		"an added token without text":          {object{"added_tokens": []any{added(300, "", nil)}}, "added token 300"},
		"an added token of a negative id":      {object{"added_tokens": []any{added(-1, "x!", nil)}}, `"x!"`},
		"an added token that is normalized away": {object{"normalizer": raw(`{"type":"Replace","pattern":{"String":"x!"},"content":""}`),
			"added_tokens": []any{added(300, "x!", object{"normalized": true})}}, `"x!"`},
		"an added token that normalizing makes a book": {object{"normalizer": raw(`{"type":"Replace","pattern":{"String":"x"},"content":"` + strings.Repeat("y", 500) + `"}`),
			"added_tokens": []any{added(300, strings.Repeat("x", 1000), object{"normalized": true})}}, "added token 300: the normalizer makes it 500000 bytes"},
		"an added token's field": {object{"added_tokens": []any{added(300, "x!", object{"bold": true})}}, `"bold"`},
		"a section":              {object{"vocabulary": object{}}, `"vocabulary"`},
		"a WordLevel model without an unknown token": {object{"model": object{"type": "WordLevel", "vocab": object{"a": 0}}, "added_tokens": nil}, "unk_token"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Load(toJSON(t, tiny(c.replace))); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error that says %s", err, c.want)
			}
		})
	}
	for name, file := range map[string]string{"nothing": "", "no JSON": "{", "a list": "[]", "two files": "{} {}", "bytes": "{\"\xff\":1}"} {
		if _, err := Load([]byte(file)); err == nil {
			t.Errorf("loaded %s", name)
		}
	}
}

func TestSeveralProcessors(t *testing.T) {
	t.Parallel()
	around := func(front, back string) object {
		item := func(token string) object { return object{"SpecialToken": object{"id": token, "type_id": 0}} }
		return object{"type": "TemplateProcessing", "single": []any{item(front), object{"Sequence": object{"id": "A", "type_id": 0}}, item(back)}, "pair": nil,
			"special_tokens": object{"<bos>": object{"id": "<bos>", "ids": []int{260}, "tokens": nil}, "<eos>": object{"id": "<eos>", "ids": []int{261}, "tokens": nil}}}
	}
	tok := mustLoad(t, tiny(object{"post_processor": object{"type": "Sequence", "processors": []any{
		around("<bos>", "<bos>"), object{"type": "ByteLevel"}, around("<eos>", "<eos>"),
	}}}))
	if got, want := tok.Encode("ab", Options{AddSpecial: true}), []int32{261, 260, 256, 260, 261}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// FuzzLoad: any bytes are refused or give a tokenizer that works.
func FuzzLoad(f *testing.F) {
	f.Add(toJSON(f, tiny(nil)), "ab <bos>é")
	f.Add([]byte(`{"added_tokens":[{"id":3,"content":"x","normalized":true,"lstrip":true}],"normalizer":{"type":"NFKC"},"pre_tokenizer":{"type":"Metaspace","replacement":"_"},"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}`), "a b x")
	f.Add([]byte(`{"model":{"type":"WordLevel","vocab":{"?":0},"unk_token":"?"},"pre_tokenizer":{"type":"Whitespace"},"decoder":{"type":"Strip","content":" ","start":1,"stop":9}}`), "a, b")
	f.Add([]byte(`{"normalizer":{"type":"Sequence","normalizers":[{"type":"Lowercase"},{"type":"Replace","pattern":{"String":"a"},"content":"bb"}]},"model":{"vocab":{"b":0},"merges":[]}}`), "Aa")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		if len(text) > 1000 {
			return // a text may become 1024 times as long
		}
		tok, err := Load(data)
		if err != nil {
			return
		}
		for _, o := range []Options{{}, {ParseSpecial: true, AddSpecial: true}} {
			ids := tok.Encode(text, o)
			for _, id := range ids {
				if id < 0 || int(id) >= len(tok.tokens) {
					t.Fatalf("%q gives the id %d", text, id)
				}
				if o == (Options{}) && tok.added[id].Special {
					if m, ok := tok.model.(*bpe); ok && (id == m.unknown || slices.Contains(m.bytes[:], id)) {
						continue
					}
					if m, ok := tok.model.(*wordLevel); ok && id == m.unknown {
						continue
					}
					t.Fatalf("%q gives the special token %d", text, id)
				}
			}
			if got, _ := streamed(t, tok, ids); got != tok.Decode(ids, true) {
				t.Fatalf("%v: streamed %q, decoded %q", ids, got, tok.Decode(ids, true))
			}
		}
	})
}
