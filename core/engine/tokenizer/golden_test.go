package tokenizer

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk/sdktest"
)

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(path, ": ", err)
	}
}

func loadGzip(t *testing.T, path string) *Tokenizer {
	t.Helper()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("SKIPPED: the tokenizer's own file is not there (its licence keeps it out of the project): ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := Load(b)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// TestGoldenTokenizers compares with Hugging Face tokenizers on real vocabularies. There, special tokens in
// the text are parsed as such. The chats of these files need a Jinja interpreter, which is a later task.
func TestGoldenTokenizers(t *testing.T) {
	for _, path := range sdktest.GoldenCases(t, "tokenizers/*.json") {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok := loadGzip(t, filepath.Join(filepath.Dir(path), "files", name, "tokenizer.json.gz"))
			var golden struct {
				VocabSize  int              `json:"vocab_size"`
				SpecialIDs map[string]int32 `json:"special_ids"`
				Cases      []struct {
					Text               string  `json:"text"`
					IDs                []int32 `json:"ids"`
					IDsWithSpecial     []int32 `json:"ids_with_special"`
					Decoded            string  `json:"decoded"`
					DecodedSkipSpecial string  `json:"decoded_skip_special"`
				} `json:"cases"`
			}
			readJSON(t, path, &golden)
			if len(golden.Cases) == 0 {
				t.Fatal("there are no cases")
			}
			if got := tok.VocabSize(); got != golden.VocabSize {
				t.Errorf("%d tokens, want %d", got, golden.VocabSize)
			}
			for token, want := range golden.SpecialIDs {
				if got, ok := tok.ID(token); !ok || got != want {
					t.Errorf("ID(%q) = %d, %v, want %d", token, got, ok, want)
				}
			}
			for _, c := range golden.Cases {
				if got := tok.Encode(c.Text, Options{ParseSpecial: true}); !slices.Equal(got, c.IDs) {
					t.Errorf("%q\n got %v\nwant %v", c.Text, got, c.IDs)
				}
				if got := tok.Encode(c.Text, Options{ParseSpecial: true, AddSpecial: true}); !slices.Equal(got, c.IDsWithSpecial) {
					t.Errorf("%q with special tokens\n got %v\nwant %v", c.Text, got, c.IDsWithSpecial)
				}
				if got := tok.Decode(c.IDs, false); got != c.Decoded {
					t.Errorf("decoded %q, want %q", got, c.Decoded)
				}
				if got := tok.Decode(c.IDsWithSpecial, true); got != c.DecodedSkipSpecial {
					t.Errorf("decoded without special tokens %q, want %q", got, c.DecodedSkipSpecial)
				}
				for _, id := range tok.Encode(c.Text, Options{}) {
					if tok.added[id].Special {
						t.Errorf("%q: special token %q where none was to be parsed", c.Text, tok.tokens[id])
					}
				}
			}
		})
	}
}

// TestGoldenTinyTokenizers does the same with the tokenizers of the golden models.
func TestGoldenTinyTokenizers(t *testing.T) {
	for _, path := range sdktest.GoldenCases(t, "arch/*/tokenizer_cases.json") {
		dir := filepath.Dir(path)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile(filepath.Join(dir, "tokenizer.json"))
			if err != nil {
				t.Fatal(err)
			}
			tok, err := Load(b)
			if err != nil {
				t.Fatal(err)
			}
			var golden struct {
				Cases []struct {
					Text    string  `json:"text"`
					IDs     []int32 `json:"ids"`
					Plain   []int32 `json:"ids_no_special"`
					Decoded string  `json:"decoded"`
				} `json:"cases"`
			}
			readJSON(t, path, &golden)
			if len(golden.Cases) == 0 {
				t.Fatal("there are no cases")
			}
			for _, c := range golden.Cases {
				if got := tok.Encode(c.Text, Options{ParseSpecial: true, AddSpecial: true}); !slices.Equal(got, c.IDs) {
					t.Errorf("%q with special tokens\n got %v\nwant %v", c.Text, got, c.IDs)
				}
				if got := tok.Encode(c.Text, Options{ParseSpecial: true}); !slices.Equal(got, c.Plain) {
					t.Errorf("%q\n got %v\nwant %v", c.Text, got, c.Plain)
				}
				if got := tok.Decode(c.Plain, false); got != c.Decoded {
					t.Errorf("decoded %q, want %q", got, c.Decoded)
				}
			}
			// These models have a chat template of their own, which is refused and never replaced in silence.
			config, err := os.ReadFile(filepath.Join(dir, "tokenizer_config.json"))
			if err != nil {
				t.Fatal(err)
			}
			jinja, err := os.ReadFile(filepath.Join(dir, "chat_template.jinja"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := NewChat(config, jinja, tok); string(jinja) != PlainTemplate && !errors.Is(err, ErrTemplate) {
				t.Errorf("got %v, want ErrTemplate", err)
			}
			if _, err := NewChat(config, nil, tok); err != nil {
				t.Error(err)
			}
		})
	}
}
