package tokenizer

import (
	"encoding/json"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dno-project/dno/sdk/sdktest"
)

// streamed decodes ids by a stream, and says how many returns were not empty before the end.
func streamed(t testing.TB, tok *Tokenizer, ids []int32) (text string, early int) {
	t.Helper()
	s := tok.Stream()
	for _, id := range ids {
		part := s.Next(id)
		if !utf8.ValidString(part) {
			t.Fatalf("%v: %q is no text", ids, part)
		}
		if part != "" {
			early++
		}
		text += part
	}
	return text + s.End(), early
}

var streamDecoders = map[string]struct {
	decoder string
	tokens  []string
	held    bool // nothing comes before the end
}{
	"byte level":              {`{"type": "ByteLevel"}`, []string{"Ġa", "Ã", "©", "ðŁ", "ļ", "Ģ", "Ġ日", "x", "æ", "<e>"}, false},
	"byte fallback":           {`{"type": "ByteFallback"}`, []string{"a", "<0xE6>", "<0x97>", "<0xA5>", "b", "<0xZZ>", "<0xC3>"}, false},
	"metaspace":               {`{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}`, []string{"▁▁a▁", "▁b", "▁", "c"}, false},
	"metaspace, never":        {`{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true}`, []string{"▁a", "▁b"}, false},
	"llama 2":                 {`{"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}`, []string{"▁a", "▁", "▁▁", "<0xC3>", "<0xA9>", "<0xFF>", "▁b"}, false},
	"two spaces are stripped": {`{"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 2, "stop": 0}]}`, []string{" ", "  a", " b", ""}, false},
	"strip each":              {`{"type": "Strip", "content": "e", "start": 1, "stop": 2}`, []string{"eee", "be", "ee"}, false},
	"strip the end":           {`{"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": "e", "start": 0, "stop": 2}]}`, []string{"eee", "be", "e"}, true},
	"replace across tokens":   {`{"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "ab"}, "content": "c"}]}`, []string{"a", "b", "ab"}, true},
	"metaspace of all":        {`{"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}]}`, []string{"▁a", "▁b"}, true},
	"bytes of all":            {`{"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "ByteLevel"}, {"type": "ByteFallback"}]}`, []string{"<0x", "41>", "Ġ", "日"}, true},
}

// A stream's texts, joined, are the text, whatever ids come in whatever order.
func TestStreamsAreDecode(t *testing.T) {
	t.Parallel()
	for name, c := range streamDecoders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := loader{t: &Tokenizer{tokens: c.tokens, added: map[int32]addedToken{}}, grow: 1}
			if err := l.decoder(json.RawMessage(c.decoder), 0); err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(3, 4))
			all := 0
			for n := range 2000 {
				ids := make([]int32, n%9)
				for i := range ids {
					ids[i] = int32(r.IntN(len(c.tokens)+2)) - 1 // those at the ends no token has
				}
				got, early := streamed(t, l.t, ids)
				if want := l.t.Decode(ids, true); got != want {
					t.Fatalf("%v: streamed %q, want %q", ids, got, want)
				}
				all += early
			}
			if (all == 0) != c.held {
				t.Errorf("%d texts came before the end", all)
			}
		})
	}
}

func TestAStreamHoldsBackPartsOfACharacter(t *testing.T) {
	t.Parallel()
	tok := mustLoad(t, tiny(nil))
	s := tok.Stream()
	var parts []string
	for _, id := range []int32{260, 'a', 0xf0, 0x9f, 0x9a, 0x80, 0xe6, 'b', 0xe6, 0x97, 261} { // with special tokens
		parts = append(parts, s.Next(id))
	}
	parts = append(parts, s.End())
	if got := strings.Join(parts, "|"); got != "|a||||🚀||\ufffdb||||\ufffd" {
		t.Errorf("got %q", got)
	}
}

func TestAStreamOfWords(t *testing.T) {
	t.Parallel()
	tok := &Tokenizer{tokens: []string{"a", "b"}}
	if got, _ := streamed(t, tok, []int32{0, 1, 0}); got != "a b a" || got != tok.Decode([]int32{0, 1, 0}, true) {
		t.Errorf("got %q", got)
	}
}

func TestBytesOfTokens(t *testing.T) {
	t.Parallel()
	tok := mustLoad(t, tiny(nil))
	for id, want := range map[int32]string{0xe6: "\xe6", 257: " ab", 259: "é", 260: "<bos>", 262: "", -1: ""} {
		if got := tok.Bytes(id); string(got) != want {
			t.Errorf("the bytes of %d are %q, want %q", id, got, want)
		}
	}
	llama := streamDecoders["llama 2"]
	l := loader{t: &Tokenizer{tokens: llama.tokens}, grow: 1}
	if err := l.decoder(json.RawMessage(llama.decoder), 0); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for id := range llama.tokens {
		all.Write(l.t.Bytes(int32(id)))
	}
	if got := all.String(); got != " a   é\xff b" {
		t.Errorf("joined they are %q", got)
	}
}

// TestGoldenStreams streams the texts of real vocabularies, and random ids.
func TestGoldenStreams(t *testing.T) {
	for _, path := range sdktest.GoldenCases(t, "tokenizers/*.json") {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok := loadGzip(t, filepath.Join(filepath.Dir(path), "files", name, "tokenizer.json.gz"))
			var golden struct {
				Cases []struct {
					Text string  `json:"text"`
					IDs  []int32 `json:"ids_with_special"`
				} `json:"cases"`
			}
			readJSON(t, path, &golden)
			check := func(ids []int32) {
				t.Helper()
				if got, _ := streamed(t, tok, ids); got != tok.Decode(ids, true) {
					t.Fatalf("%v: streamed %q, want %q", ids, got, tok.Decode(ids, true))
				}
			}
			early := 0
			for _, c := range golden.Cases {
				check(c.IDs)
				_, n := streamed(t, tok, c.IDs)
				early += n
			}
			if early == 0 {
				t.Error("nothing comes before the end")
			}
			r := rand.New(rand.NewPCG(1, 1))
			for range 500 {
				ids := make([]int32, r.IntN(30))
				for i := range ids {
					ids[i] = int32(r.IntN(tok.VocabSize()))
				}
				check(ids)
			}
		})
	}
}
