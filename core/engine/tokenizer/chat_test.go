package tokenizer

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestPlainChat(t *testing.T) {
	t.Parallel()
	tok := mustLoad(t, tiny(nil))
	messages := []Message{{"system", "ab"}, {"user", "<eos>"}}
	content := []int32{256, '\n', '<', 'e', 'o', 's', '>', '\n'}
	withBOS := append([]int32{260}, content...)
	cases := map[string]struct {
		config object
		jinja  string
		want   []int32
	}{
		"without a template":                           {object{"bos_token": "<bos>"}, "", withBOS},
		"with the plain template":                      {object{"bos_token": "<bos>", "chat_template": PlainTemplate}, "", withBOS},
		"with the plain template in a file":            {object{"bos_token": "<bos>", "chat_template": "another"}, PlainTemplate, withBOS},
		"with a file that ends with a newline":         {object{"bos_token": "<bos>"}, PlainTemplate + "\n", withBOS},
		"without a beginning-of-text token":            {object{"bos_token": nil}, "", content},
		"with a token written as an object":            {object{"bos_token": object{"content": "<bos>", "lstrip": false}}, "", withBOS},
		"with a beginning-of-text token that is off":   {object{"bos_token": "<bos>", "add_bos_token": false}, "", content},
		"with a template, which does not ask for that": {object{"bos_token": "<bos>", "add_bos_token": false, "chat_template": PlainTemplate}, "", withBOS},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.config["eos_token"] = "<eos>"
			var jinja []byte
			if c.jinja != "" {
				jinja = []byte(c.jinja)
			}
			chat, err := NewChat(toJSON(t, c.config), jinja, tok)
			if err != nil {
				t.Fatal(err)
			}
			if got := chat.Prompt(messages); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if got, want := chat.EncodeCompletion("ab<bos>"), []int32{256, '<', 'b', 'o', 's', '>', 261}; !slices.Equal(got, want) {
				t.Errorf("completion %v, want %v", got, want)
			}
			if chat.EOS() != 261 {
				t.Errorf("EOS is %d", chat.EOS())
			}
		})
	}
	if chat, err := NewChat([]byte(`{"eos_token":"<eos>"}`), nil, tok); err != nil || len(chat.Prompt(nil)) != 0 {
		t.Errorf("no messages and no token before them are no ids: %v", err)
	}
}

// TestChatTextIsNotTheBeginning: what only the first text of all gets, a text after <bos> does not get.
func TestChatTextIsNotTheBeginning(t *testing.T) {
	t.Parallel()
	tok := mustLoad(t, tiny(object{
		"pre_tokenizer": object{"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": true},
		"added_tokens":  []any{added(260, "<bos>", object{"special": true, "rstrip": true}), added(261, "<eos>", object{"special": true})},
	}))
	for config, want := range map[string][]int32{
		`{"eos_token":"<eos>","bos_token":"<bos>"}`: {260, 'x'},
		`{"eos_token":"<eos>"}`:                     {'_', 'x'},
	} {
		chat, err := NewChat([]byte(config), nil, tok)
		if err != nil {
			t.Fatal(err)
		}
		// "\n" is not in this vocabulary: it is spelled Ċ there.
		if got := chat.Prompt([]Message{{"user", " x"}}); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", config, got, want)
		}
		if got, want := chat.EncodeCompletion("x"), []int32{'x', 261}; !slices.Equal(got, want) {
			t.Errorf("%s: completion %v, want %v", config, got, want)
		}
	}
}

// A plain text begins as every text of the model's training did, once.
func TestTextBeginsWithBOS(t *testing.T) {
	t.Parallel()
	with, without := mustLoad(t, tiny(nil)), mustLoad(t, tiny(object{"post_processor": nil}))
	for name, c := range map[string]struct {
		tok    *Tokenizer
		config string
		want   []int32
	}{
		"put there by the post-processor": {with, `{"eos_token": "<eos>", "bos_token": "<bos>"}`, []int32{260, 256}},
		"put there for want of one":       {without, `{"eos_token": "<eos>", "bos_token": "<bos>"}`, []int32{260, 256}},
		"not wanted":                      {without, `{"eos_token": "<eos>", "bos_token": "<bos>", "add_bos_token": false}`, []int32{256}},
		"there is none":                   {without, `{"eos_token": "<eos>"}`, []int32{256}},
	} {
		chat, err := NewChat([]byte(c.config), nil, c.tok)
		if err != nil {
			t.Fatal(err)
		}
		if got := chat.EncodeText("ab"); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestChatRefuses(t *testing.T) {
	t.Parallel()
	tok := mustLoad(t, tiny(nil))
	cases := map[string]struct {
		config, jinja, want string
		template            bool
	}{
		"another template":            {`{"eos_token":"<eos>","chat_template":"{{ messages }}"}`, "", "template", true},
		"several templates":           {`{"eos_token":"<eos>","chat_template":[{"name":"default","template":"x"}]}`, "", "template", true},
		"another template in a file":  {`{"eos_token":"<eos>"}`, "{{ messages }}", "template", true},
		"no end-of-text token":        {`{"bos_token":"<bos>"}`, "", "eos_token", false},
		"an unknown end-of-text":      {`{"eos_token":"</s>"}`, "", `"</s>"`, false},
		"an unknown beginning":        {`{"eos_token":"<eos>","bos_token":"<s>"}`, "", `"<s>"`, false},
		"a token that is a number":    {`{"eos_token":3}`, "", "tokenizer_config.json", false},
		"a configuration cut in half": {`{"eos_token":`, "", "tokenizer_config.json", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var jinja []byte
			if c.jinja != "" {
				jinja = []byte(c.jinja)
			}
			_, err := NewChat([]byte(c.config), jinja, tok)
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrTemplate) != c.template {
				t.Errorf("got %v, want an error that says %s", err, c.want)
			}
		})
	}
}

// FuzzNewChat: any tokenizer_config.json is refused or gives a chat whose ids the tokenizer has, and whose
// completions end.
func FuzzNewChat(f *testing.F) {
	for _, config := range []string{
		`{"eos_token":"<eos>","bos_token":"<bos>"}`, `{"eos_token":{"content":"<eos>"},"bos_token":null,"add_bos_token":false}`,
		`{"eos_token":"a","chat_template":[{"name":"default","template":"x"}]}`, `{"eos_token":{"content":{}}}`, `{"eos_token":""}`,
	} {
		f.Add([]byte(config), []byte(nil), "ab <bos>")
	}
	f.Add([]byte(`{"eos_token":"<eos>"}`), []byte(PlainTemplate+"\n"), "\xff")
	tok := mustLoad(f, tiny(nil))
	f.Fuzz(func(t *testing.T, config, jinja []byte, text string) {
		chat, err := NewChat(config, jinja, tok)
		if err != nil {
			return
		}
		completion := chat.EncodeCompletion(text)
		if completion[len(completion)-1] != chat.EOS() {
			t.Errorf("the completion %v does not end with %d", completion, chat.EOS())
		}
		for _, id := range append(completion, chat.Prompt([]Message{{"user", text}})...) {
			if id < 0 || int(id) >= tok.VocabSize() {
				t.Errorf("%q gives the id %d", text, id)
			}
		}
	})
}

// What is remembered of prompts is bounded, and never another prompt's.
func TestPromptsAreRemembered(t *testing.T) {
	t.Parallel()
	chat, err := NewChat(toJSON(t, object{"eos_token": "<eos>", "bos_token": "<bos>"}), nil, mustLoad(t, tiny(nil)))
	if err != nil {
		t.Fatal(err)
	}
	prompt := func(i int) []Message { return []Message{{"user", strings.Repeat(string(rune('a'+i)), mostHeld/5)}} }
	for range 2 {
		for i := range 12 {
			ids := chat.Prompt(prompt(i))
			if n := len(ids) - 2; n != mostHeld/5 || ids[0] != 260 || ids[1] != int32('a'+i) || ids[n] != int32('a'+i) {
				t.Fatalf("prompt %d has %d ids, the first %v", i, len(ids), ids[:3])
			}
			if again := chat.Prompt(prompt(i)); &again[0] != &ids[0] {
				t.Errorf("prompt %d is not remembered", i)
			}
			_ = append(ids, 7) // has no room in what is remembered
			if len(chat.memory) > 5 || chat.held > mostHeld {
				t.Errorf("%d prompts of %d bytes are remembered", len(chat.memory), chat.held)
			}
		}
	}
}
