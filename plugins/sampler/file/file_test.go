package file

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/sdk"
)

func prompt(turns ...string) sdk.Prompt {
	var p sdk.Prompt
	for i, text := range turns {
		p.Messages = append(p.Messages, sdk.Message{Role: []string{"user", "assistant"}[i%2], Content: text})
	}
	return p
}

func TestSample(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "teacher.jsonl")
	content := "\ufeff" + `{"prompt": "1+1", "completion": "1+1=2"}` + "\r\n\n" +
		`{"prompt": [{"role": "user", "content": "1+1"}], "completion": "2", "source": "by hand"}` + "\n" +
		`{"prompt": "1+1", "completion": "two"}` + "\n" +
		`{"prompt": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "1+1"}], "completion": "still 2"}`
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New()
	if err := s.Configure(context.Background(), sdk.Settings{"path": path}); err != nil {
		t.Fatal(err)
	}
	withID := prompt("1+1")
	withID.ID, withID.Answer = "train-7", "2"
	for name, c := range map[string]struct {
		prompt sdk.Prompt
		k      int
		want   []string
	}{
		"in the file's order, a text is one user turn": {prompt("1+1"), 9, []string{"1+1=2", "2", "two"}},
		"K at most":                            {prompt("1+1"), 2, []string{"1+1=2", "2"}},
		"the id and the answer do not matter":  {withID, 1, []string{"1+1=2"}},
		"a conversation is another prompt":     {prompt("hello", "hi", "1+1"), 9, []string{"still 2"}},
		"a prompt that is not there gets none": {prompt("1+2"), 9, nil},
		"K of 0 gets none":                     {prompt("1+1"), 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := s.Sample(context.Background(), sdk.SampleRequest{Prompts: []sdk.Prompt{c.prompt}, K: c.k}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var want []sdk.Completion
			for _, text := range c.want {
				want = append(want, sdk.Completion{Text: text, Finish: sdk.FinishStop})
			}
			if diff := cmp.Diff([][]sdk.Completion{want}, out.Completions); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestConfigureReadsTheFileAnew(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "teacher.jsonl")
	s := New()
	for _, text := range []string{"first", "second"} {
		if err := os.WriteFile(path, []byte(`{"prompt": "p", "completion": "`+text+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Configure(context.Background(), sdk.Settings{"path": path}); err != nil {
			t.Fatal(err)
		}
		out, err := s.Sample(context.Background(), sdk.SampleRequest{Prompts: []sdk.Prompt{prompt("p")}, K: 9}, nil)
		if err != nil || len(out.Completions[0]) != 1 || out.Completions[0][0].Text != text {
			t.Errorf("got %+v, %v; want %q", out, err, text)
		}
	}
}

func TestAMissingFileIsTheUsersError(t *testing.T) {
	t.Parallel()
	err := New().Configure(context.Background(), sdk.Settings{"path": filepath.Join(t.TempDir(), "none.jsonl")})
	if sdk.CodeOf(err) != sdk.CodeUsage || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestErrorsNameTheLine(t *testing.T) {
	t.Parallel()
	const good = `{"prompt": "p", "completion": "c"}` + "\n"
	for name, c := range map[string]struct{ content, want string }{
		"not JSON":                     {good + "nonsense", "t.jsonl:2: want a line"},
		"blank lines are counted":      {good + "\n\n{", "t.jsonl:4: want a line"},
		"more than a record":           {good + good[:len(good)-1] + "{}", "t.jsonl:2: want a line"},
		"no prompt":                    {`{"completion": "c"}`, `t.jsonl:1: want a text or a list of {"role", "content"} in "prompt"`},
		"an empty prompt":              {`{"prompt": "", "completion": "c"}`, `in "prompt"`},
		"a prompt of no turns":         {`{"prompt": [], "completion": "c"}`, `in "prompt"`},
		"a prompt that is a number":    {`{"prompt": 5, "completion": "c"}`, `in "prompt"`},
		"a turn without role":          {`{"prompt": [{"role": "user", "content": "p"}, {"content": "q"}], "completion": "c"}`, "turn 2 of the prompt"},
		"no completion":                {`{"prompt": "p"}`, `want a text in "completion"`},
		"an empty completion":          {`{"prompt": "p", "completion": ""}`, `want a text in "completion"`},
		"a completion that is no text": {`{"prompt": "p", "completion": ["c"]}`, "t.jsonl:1: want a line"},
		"bytes that are no text":       {"{\"prompt\": \"p\xff\", \"completion\": \"c\"}", "not UTF-8"},
		"a line that is too long":      {good + strings.Repeat(" ", MaxLine+3), "t.jsonl:2: the line is longer than 8388608 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := read(strings.NewReader(c.content), "t.jsonl")
			if sdk.CodeOf(err) != sdk.CodeUsage || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestAFailingDiskIsNotTheUsersError(t *testing.T) {
	t.Parallel()
	failure := errors.New("input/output error")
	_, err := read(iotest.ErrReader(failure), "t.jsonl")
	if sdk.CodeOf(err) != sdk.CodeIO || !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
}

// What is read from a line is written as a line that is read alike.
func FuzzLine(f *testing.F) {
	for _, line := range []string{
		`{"prompt": "1+1", "completion": "2"}`, `{"prompt": [{"role": "user", "content": "p"}], "completion": "c"}`,
		`{"prompt": null, "completion": "c"}`, `{"prompt": "\ud800", "completion": "\u0000"}`, `[]`, `{"prompt": {}}`, "\xff",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		p, completion, err := parseLine(line)
		if err != nil {
			return
		}
		if len(p.Messages) == 0 || completion == "" {
			t.Fatalf("accepted %q as %+v, %q", line, p, completion)
		}
		again, err := json.Marshal(map[string]any{"prompt": p.Messages, "completion": completion})
		if err != nil {
			t.Fatal(err)
		}
		q, same, err := parseLine(again)
		if err != nil || same != completion || q.Hash() != p.Hash() {
			t.Errorf("%q became %q: %+v, %q, %v", line, again, q, same, err)
		}
	})
}
