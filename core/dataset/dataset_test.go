package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/dno-project/dno/sdk"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func user(text string) []sdk.Message { return []sdk.Message{{Role: "user", Content: text}} }

// asked is the prompt of one text with its default id.
func asked(text string) sdk.Prompt {
	p := sdk.Prompt{Messages: user(text)}
	p.ID = p.Hash()[:16]
	return p
}

func TestReadPrompts(t *testing.T) {
	chat := []sdk.Message{{Role: "system", Content: "Be brief."}, {Role: "user", Content: "Hi"}, {Role: "assistant", Content: "Hello"}, {Role: "user", Content: "2+2?"}}
	tests := map[string]struct {
		text  string
		want  []sdk.Prompt
		lines []int
	}{
		"a text is the user's turn": {`{"prompt": "2+2?"}`, []sdk.Prompt{asked("2+2?")}, []int{1}},
		"all keys": {`{"prompt": "2+2?", "answer": "4", "id": "sum-1", "level": 3, "tags": ["a", {"b": null}]}` + "\n",
			[]sdk.Prompt{{ID: "sum-1", Messages: user("2+2?"), Answer: "4", Metadata: map[string]any{"level": 3.0, "tags": []any{"a", map[string]any{"b": nil}}}}}, []int{1}},
		"messages": {`{"id": "c", "prompt" : [ {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi", "name": null}, {"role": "assistant", "content": "Hello"}, {"content": "2+2?", "role": "user"} ] }`,
			[]sdk.Prompt{{ID: "c", Messages: chat}}, []int{1}},
		"numbers are kept as written": {`{"prompt": "x", "answer": 1.50, "id": 17}`, []sdk.Prompt{{ID: "17", Messages: user("x"), Answer: "1.50"}}, []int{1}},
		"null is nothing":             {`{"prompt": "x", "answer": null, "id":  null}`, []sdk.Prompt{asked("x")}, []int{1}},
		"white space is the prompt's": {`{"prompt": " x\n\t"}`, []sdk.Prompt{asked(" x\n\t")}, []int{1}},
		"a key in other capitals is another key": {`{"prompt": "x", "Answer": "4", "Prompt": "y"}`,
			[]sdk.Prompt{{ID: asked("x").ID, Messages: user("x"), Metadata: map[string]any{"Answer": "4", "Prompt": "y"}}}, []int{1}},
		"carriage returns, a byte order mark, blank lines": {"\ufeff{\"prompt\":\"a\"}\r\n\r\n  \n{\"prompt\":\"b\"}\r\n", []sdk.Prompt{asked("a"), asked("b")}, []int{1, 4}},
		"the same text in another role is another prompt": {`{"prompt": "a"}` + "\n" + `{"prompt": [{"role": "system", "content": "a"}, {"role": "user", "content": "a"}]}`,
			[]sdk.Prompt{asked("a"), func() sdk.Prompt {
				p := sdk.Prompt{Messages: []sdk.Message{{Role: "system", Content: "a"}, {Role: "user", Content: "a"}}}
				p.ID = p.Hash()[:16]
				return p
			}()}, []int{1, 2}},
		"a line as long as the buffer and longer": {`{"prompt": "` + strings.Repeat("long ", 40000) + `"}` + "\n" + `{"prompt": "b"}`,
			[]sdk.Prompt{asked(strings.Repeat("long ", 40000)), asked("b")}, []int{1, 2}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			set, err := ReadPrompts(iotest.OneByteReader(strings.NewReader(test.text)), "train.jsonl")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Set{Name: "train.jsonl", Prompts: test.want, Lines: test.lines}, set); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestF20ReadPromptsNamesTheFault(t *testing.T) {
	tests := map[string]struct{ text, words string }{
		"an empty file":                  {"", "train.jsonl has no prompts: want {"},
		"only blank lines":               {"\n\r\n \n", "train.jsonl has no prompts"},
		"only a byte order mark":         {"\ufeff", "train.jsonl has no prompts"},
		"a list":                         {`[{"prompt": "x"}]`, "train.jsonl:1: the line is no JSON object: want {"},
		"plain text, after a good line":  {`{"prompt": "x"}` + "\n\nhello\n", "train.jsonl:3: the line is no JSON object"},
		"a cut line":                     {`{"prompt": "x`, "train.jsonl:1: the line is not valid JSON (unexpected end of JSON input)"},
		"two objects on a line":          {`{"prompt": "x"} {"prompt": "y"}`, "train.jsonl:1: the line is not valid JSON (invalid character '{'"},
		"no prompt":                      {`{"text": "x"}`, `the key "prompt" is missing: want {`},
		"a misspelt prompt":              {`{"id": "1", "promt": "x"}`, `did you mean it by "promt"?`},
		"no prompt but messages":         {`{"messages": []}`, `the key "prompt" is missing`},
		"a null prompt":                  {`{"prompt": null}`, `the key "prompt" is missing`},
		"a key twice":                    {`{"prompt": "x", "prompt": "y"}`, `the key "prompt" is there twice`},
		"an empty prompt":                {`{"prompt": ""}`, `"prompt" is empty`},
		"a prompt of white space":        {`{"prompt": " \n\t "}`, `"prompt" is empty`},
		"a prompt that is a number":      {`{"prompt": 5}`, `"prompt" is of the wrong kind: want {`},
		"a prompt that is an object":     {`{"prompt": {"role": "user"}}`, `"prompt" is of the wrong kind`},
		"no messages":                    {`{"prompt": []}`, `"prompt" is an empty list`},
		"a message that is text":         {`{"prompt": ["x"]}`, `prompt[0] is no message: want {"role"`},
		"a message without a role":       {`{"prompt": [{"content": "x"}]}`, `"prompt[0].role" is missing`},
		"a message without content":      {`{"prompt": [{"role": "user"}]}`, `"prompt[0].content" is missing`},
		"a message with a key twice":     {`{"prompt": [{"role": "user", "role": "user", "content": "x"}]}`, `prompt[0]: the key "role" is there twice`},
		"a message with another key":     {`{"prompt": [{"role": "user", "content": "x", "tool": 1}]}`, `prompt[0] has the key "tool": want {`},
		"an unknown role":                {`{"prompt": [{"role": "tool", "content": "x"}]}`, `prompt[0] has the role "tool": want {`},
		"an empty turn":                  {`{"prompt": [{"role": "user", "content": "x"}, {"role": "user", "content": ""}]}`, `"prompt[1].content" is empty`},
		"content that is null":           {`{"prompt": [{"role": "user", "content": null}]}`, `"prompt[0].content" is not text`},
		"content that is a number":       {`{"prompt": [{"role": "user", "content": 3}]}`, `"prompt[0].content" is not text`},
		"the assistant's turn last":      {`{"prompt": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}`, "ends with the assistant's turn"},
		"an answer that is a list":       {`{"prompt": "x", "answer": ["y"]}`, `"answer" is not text`},
		"an id that is a truth value":    {`{"prompt": "x", "id": true}`, `"id" is not text`},
		"an empty id":                    {`{"prompt": "x", "id": ""}`, `"id" is empty`},
		"NUL in a prompt":                {`{"prompt": "x\u0000"}`, `"prompt" contains the character NUL`},
		"NUL in an answer":               {`{"prompt": "x", "answer": "\u0000"}`, `"answer" contains the character NUL`},
		"a NUL byte":                     {"{\"prompt\": \"x\x00\"}", "not valid JSON"},
		"bytes that are not UTF-8":       {"{\"prompt\": \"caf\xe9\"}", "train.jsonl:1: the line is not UTF-8 text"},
		"a file in UTF-16":               {"\xff\xfe{\x00\"\x00", "the line is not UTF-8 text"},
		"a number out of range":          {`{"prompt": "x", "level": 1e999}`, `key "level": `},
		"an id twice":                    {`{"prompt": "x", "id": "a"}` + "\n\n" + `{"prompt": "y", "id": "a"}`, `train.jsonl:3: the id "a" is that of line 1`},
		"a prompt twice":                 {`{"prompt": "x", "id": "a"}` + "\n" + `{"prompt": "x", "id": "b", "answer": "4"}`, `train.jsonl:2: the prompt of line 1 is here again`},
		"a line above eight mebibytes":   {`{"prompt": "x"}` + "\n" + `{"prompt": "` + strings.Repeat("x", 8<<20) + `"}`, "train.jsonl:2: the line is longer than 8 MiB"},
		"a byte order mark further down": {`{"prompt": "x"}` + "\n\ufeff" + `{"prompt": "y"}`, "train.jsonl:2: the line is no JSON object"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			set, err := ReadPrompts(strings.NewReader(test.text), "train.jsonl")
			if err == nil || !strings.Contains(err.Error(), test.words) || sdk.CodeOf(err) != sdk.CodeUsage {
				t.Errorf("error %v, want one with %q", err, test.words)
			}
			if set.Prompts != nil {
				t.Errorf("prompts beside an error: %v", set)
			}
		})
	}
}

func TestF20ALineOfEightMebibytesIsRead(t *testing.T) {
	const frame = len(`{"prompt":""}`)
	line := `{"prompt":"` + strings.Repeat("x", 8<<20-frame) + `"}` + "\r\n"
	set, err := ReadPrompts(strings.NewReader(line), "train.jsonl")
	if err != nil || len(set.Prompts[0].Text()) != 8<<20-frame {
		t.Error(err)
	}
}

func TestReadingFailsWithItsCause(t *testing.T) {
	cause := errors.New("the disk is gone")
	r := bytes.NewReader([]byte("{\"prompt\": \"x\"}\n{\"pro"))
	_, err := ReadPrompts(iotest.TimeoutReader(r), "train.jsonl") // the second read fails
	if !errors.Is(err, iotest.ErrTimeout) || sdk.CodeOf(err) != sdk.CodeIO {
		t.Errorf("error %v", err)
	}
	_, err = ReadDemonstrations(iotest.ErrReader(cause), "sft.jsonl")
	if !errors.Is(err, cause) || sdk.CodeOf(err) != sdk.CodeIO || !strings.Contains(err.Error(), "sft.jsonl, line 1") {
		t.Errorf("error %v", err)
	}
}

func TestReadFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sft.jsonl")
	if err := os.WriteFile(path, []byte(`{"prompt": "x", "completion": "y"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := ReadPromptsFile(path)
	if err != nil || set.Name != path || set.Prompts[0].Metadata["completion"] != "y" {
		t.Errorf("%+v, %v", set, err)
	}
	d, err := ReadDemonstrationsFile(path)
	if err != nil || len(d) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := ReadPromptsFile(filepath.Join(dir, "none.jsonl")); !errors.Is(err, os.ErrNotExist) || sdk.CodeOf(err) != sdk.CodeUsage {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := ReadPromptsFile(dir); err == nil || sdk.CodeOf(err) != sdk.CodeIO {
		t.Errorf("a directory: %v", err)
	}
}

func TestReadDemonstrations(t *testing.T) {
	text := `{"prompt": "2+2?", "completion": "4", "answer": "4", "level": 1}
{"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "id": "m"}
{"prompt": "2+2?", "completion": " four "}
`
	first := asked("2+2?")
	first.Answer, first.Metadata = "4", map[string]any{"level": 1.0}
	want := []Demonstration{
		{first, "4"},
		{sdk.Prompt{ID: "m", Messages: []sdk.Message{{Role: "system", Content: "Be brief."}, {Role: "user", Content: "Hi"}}}, "Hello"},
		{asked("2+2?"), " four "},
	}
	got, err := ReadDemonstrations(strings.NewReader(text), "sft.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	tests := map[string]struct{ text, words string }{
		"nothing":                       {"", "sft.jsonl has no demonstrations: want {"},
		"no completion":                 {`{"prompt": "x"}`, `sft.jsonl:1: the key "completion" is missing`},
		"no prompt":                     {`{"completion": "x"}`, `the key "prompt" is missing`},
		"an empty completion":           {`{"prompt": "x", "completion": " "}`, `"completion" is empty`},
		"a completion that is a list":   {`{"prompt": "x", "completion": ["y"]}`, `"completion" is not text`},
		"both forms":                    {`{"prompt": "x", "messages": []}`, `"messages" beside "prompt"`},
		"messages that are text":        {`{"messages": "x"}`, `"messages" is of the wrong kind`},
		"messages without an answer":    {`{"messages": [{"role": "user", "content": "x"}]}`, `must end with the assistant's turn`},
		"only an answer":                {`{"messages": [{"role": "assistant", "content": "x"}]}`, `must end with the assistant's turn`},
		"two answers":                   {`{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}, {"role": "assistant", "content": "x"}]}`, "ends with the assistant's turn"},
		"a message of the wrong kind":   {`{"messages": [3]}`, "messages[0] is no message"},
		"a fault of the prompt's":       {`{"prompt": "", "completion": "y"}`, `"prompt" is empty`},
		"a line that is no JSON object": {`"x"`, "sft.jsonl:1: the line is no JSON object"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ReadDemonstrations(strings.NewReader(test.text), "sft.jsonl")
			if err == nil || !strings.Contains(err.Error(), test.words) || sdk.CodeOf(err) != sdk.CodeUsage {
				t.Errorf("error %v, want one with %q", err, test.words)
			}
		})
	}
}

func readSet(t *testing.T, name, text string) Set {
	t.Helper()
	set, err := ReadPrompts(strings.NewReader(text), name)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestF42ALeakBetweenSetsIsNamed(t *testing.T) {
	train := readSet(t, "train.jsonl", `{"prompt": "a"}`+"\n"+`{"prompt": "b", "id": "same"}`)
	validation := readSet(t, "validation.jsonl", `{"prompt": "c", "id": "same"}`)
	test := readSet(t, "test.jsonl", `{"prompt": "d"}`+"\n\n"+`{"prompt": "b", "id": "seven", "answer": "1"}`+"\n"+`{"prompt": "c"}`)
	if err := CheckDisjoint(train, validation); err != nil {
		t.Errorf("disjoint sets: %v", err)
	}
	if err := CheckDisjoint(); err != nil {
		t.Errorf("no sets: %v", err)
	}
	err := CheckDisjoint(train, validation, test)
	if err == nil || !strings.Contains(err.Error(), `train.jsonl:2 (id "same") and test.jsonl:3 (id "seven")`) || sdk.CodeOf(err) != sdk.CodeUsage {
		t.Fatalf("error %v", err)
	}
	var e *sdk.Error
	if !errors.As(err, &e) || !strings.Contains(e.Hint, "two sets: 2;") {
		t.Errorf("hint %q", e.Hint)
	}
	if err := CheckDisjoint(train, train); err == nil {
		t.Error("the same file twice is no leak")
	}
	made := Set{Name: "embedded", Prompts: []sdk.Prompt{asked("b"), asked("b")}}
	if err := CheckDisjoint(made); err != nil {
		t.Errorf("one set by itself: %v", err)
	}
	if err := CheckDisjoint(train, made); err == nil || !strings.Contains(err.Error(), "and embedded (id ") {
		t.Errorf("a set without lines: error %v", err)
	}
}

func numbered(n int) []sdk.Prompt {
	var out []sdk.Prompt
	for i := range n {
		out = append(out, asked(fmt.Sprint("prompt ", i)))
	}
	return out
}

func ids(prompts []sdk.Prompt) []string {
	var out []string
	for _, p := range prompts {
		out = append(out, p.Text())
	}
	return out
}

func TestPartsAreDisjointAndWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prompts := numbered(rapid.IntRange(1, 40).Draw(t, "prompts"))
		n := rapid.IntRange(1, len(prompts)).Draw(t, "parts")
		seed := rapid.Uint64().Draw(t, "seed")
		order := rapid.Permutation(prompts).Draw(t, "order")
		seen := map[string]bool{}
		for part := 1; part <= n; part++ {
			got, err := Split(prompts, part, n, seed)
			if err != nil {
				t.Fatal(err)
			}
			if size := len(got); size != len(prompts)/n && size != len(prompts)/n+1 {
				t.Fatalf("part %d of %d holds %d of %d prompts", part, n, size, len(prompts))
			}
			again, err := Split(order, part, n, seed)
			if err != nil || !slices.Equal(ids(got), ids(again)) {
				t.Fatalf("the file's order matters: %v and %v, error %v", ids(got), ids(again), err)
			}
			for _, id := range ids(got) {
				if seen[id] {
					t.Fatalf("%q is in two parts", id)
				}
				seen[id] = true
			}
		}
		if len(seen) != len(prompts) {
			t.Fatalf("%d of %d prompts are in a part", len(seen), len(prompts))
		}
	})
}

func TestTheSeedDecidesTheOrder(t *testing.T) {
	prompts := numbered(5)
	// The order is part of what a seed means: it must never change. By sha256 over the seed's eight
	// bytes, the lowest first, and the content hash in hex; computed with another program.
	for seed, want := range map[uint64][]string{
		7: {"prompt 1", "prompt 4", "prompt 3", "prompt 0", "prompt 2"},
		8: {"prompt 4", "prompt 2", "prompt 0", "prompt 3", "prompt 1"},
	} {
		if got := ids(Shuffle(prompts, seed)); !slices.Equal(got, want) {
			t.Errorf("order of seed %d: %q, want %q", seed, got, want)
		}
	}
	if diff := cmp.Diff(numbered(5), prompts); diff != "" {
		t.Error("the prompts were changed: ", diff)
	}
}

func TestSplitRefuses(t *testing.T) {
	for _, test := range []struct{ t, n int }{{0, 1}, {2, 1}, {1, 0}, {-1, -1}, {1, 4}} {
		if _, err := Split(numbered(3), test.t, test.n, 1); sdk.CodeOf(err) != sdk.CodeUsage {
			t.Errorf("part %d of %d of 3 prompts: error %v", test.t, test.n, err)
		}
	}
}

func FuzzReadPrompts(f *testing.F) {
	for _, seed := range []string{
		`{"prompt": "x", "answer": "y", "id": 1, "level": {"a": [1e3, null]}}`,
		"\ufeff" + `{"prompt": [{"role": "user", "content": "x"}]}` + "\r\n\r\n" + `{"prompt": "\ud800"}`,
		`{"prompt": "x"`, "\x00", `{"prompt":"x","prompt":"y"}`, `{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		checkRead(t, data)
		demonstrations, err := ReadDemonstrations(bytes.NewReader(data), "fuzz")
		if err == nil == (len(demonstrations) == 0) {
			t.Fatalf("%d demonstrations, error %v", len(demonstrations), err)
		}
	})
}

func checkRead(t *testing.T, data []byte) {
	set, err := ReadPrompts(bytes.NewReader(data), "fuzz")
	if err != nil {
		if sdk.CodeOf(err) != sdk.CodeUsage || !strings.HasPrefix(err.Error(), "fuzz") {
			t.Fatalf("error without its place: %v", err)
		}
		return
	}
	if len(set.Prompts) == 0 || len(set.Lines) != len(set.Prompts) || CheckDisjoint(set) != nil {
		t.Fatalf("set %+v", set)
	}
	seen := map[string]bool{}
	for i, p := range set.Prompts {
		if p.ID == "" || seen[p.ID] || len(p.Messages) == 0 || strings.TrimSpace(p.Text()) == "" || !utf8.ValidString(p.Text()+p.Answer+p.ID) {
			t.Fatalf("prompt %+v", p)
		}
		seen[p.ID] = true
		if i > 0 && set.Lines[i] <= set.Lines[i-1] {
			t.Fatalf("lines %v", set.Lines)
		}
	}
}
