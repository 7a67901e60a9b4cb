package command

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/sdk"
)

// sampler returns one that asks a shell script: for each line its body sees the id as $id and its number as $n.
func sampler(t *testing.T, body string) *Sampler {
	t.Helper()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("NOT TESTED: there is no sh for the sampler to ask: ", err)
	}
	path := filepath.Join(t.TempDir(), "sampler.sh")
	text := "n=0\nwhile IFS= read -r line; do\n n=$((n+1)); id=${line#*'\"id\":\"'}; id=${id%%'\"'*}\n " + body + "\ndone\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return configured(t, sdk.Settings{"path": "sh", "args": []any{path}})
}

func configured(t *testing.T, given sdk.Settings) *Sampler {
	t.Helper()
	s := New().(*Sampler)
	resolved, err := s.Manifest().Resolve(given)
	if err == nil {
		err = s.Configure(context.Background(), resolved)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func request(k int, texts ...string) sdk.SampleRequest {
	req := sdk.SampleRequest{K: k}
	for i, text := range texts {
		req.Prompts = append(req.Prompts, sdk.Prompt{ID: fmt.Sprint("p", i), Answer: "62", Messages: []sdk.Message{{Role: "user", Content: text}}})
		var seeds []uint64
		for j := range k {
			seeds = append(seeds, 1<<63+uint64(10*i+j))
		}
		req.Seeds = append(req.Seeds, seeds)
	}
	return req
}

func TestAShellScriptSamples(t *testing.T) {
	t.Parallel()
	// The first prompt's answer comes after the second's; the third has none.
	s := sampler(t, `case $n in
  1) first="{\"id\":\"$id\",\"completions\":[{\"text\":\"62\",\"finish\":\"stop\"},{\"text\":\"\",\"finish\":\"length\",\"tokens\":3}]}";;
  2) echo "{\"id\":\"$id\",\"completions\":[{\"text\":\"a b\"}]}"; echo; echo "$first";;
  *) echo "{\"id\":\"$id\",\"completions\":[]}";;
 esac`)
	got, err := s.Sample(context.Background(), request(2, "17 45", "more", "nothing"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]sdk.Completion{
		{{Text: "62", Finish: sdk.FinishStop, Seed: 1 << 63}, {Finish: sdk.FinishLength, Seed: 1<<63 + 1}},
		{{Text: "a b"}}, // fewer than asked: which seed it is of is not known
		nil,
	}
	if diff := cmp.Diff(want, got.Completions); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatTheProgramReads(t *testing.T) {
	t.Parallel()
	s := sampler(t, `quoted=$(printf '%s' "$line" | sed 's/[\\"]/\\&/g'); printf '{"id":"%s","completions":[{"text":"%s"}]}\n' "$id" "$quoted"`)
	req := request(1, "17 <45>", "")
	req.Prompts[1].Messages = []sdk.Message{{Role: "system", Content: "Add."}, {Role: "user", Content: "1 2"}}
	got, err := s.Sample(context.Background(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		`{"id":"1","prompt":"17 <45>","samples":1,"seeds":[9223372036854775808]}`,
		`{"id":"2","prompt":"Add.\n1 2","messages":[{"role":"system","content":"Add."},{"role":"user","content":"1 2"}],"samples":1,"seeds":[9223372036854775818]}`,
	} {
		if have := got.Completions[i][0].Text; have != want {
			t.Errorf("it read\n%s\nwant\n%s", have, want)
		}
	}
}

func TestTheProgramIsKept(t *testing.T) {
	t.Parallel()
	s := sampler(t, `echo "{\"id\":\"$id\",\"completions\":[{\"text\":\"$$ $n\"}]}"`)
	var said []string
	for range 2 {
		got, err := s.Sample(context.Background(), request(1, "x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		said = append(said, got.Completions[0][0].Text)
	}
	first, _, _ := strings.Cut(said[0], " ")
	if said[0] != first+" 1" || said[1] != first+" 2" {
		t.Errorf("it said %q", said)
	}
}

func TestF11F14WhatAProgramMustNotDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"write what is not JSON":       {`echo hello`, `sampler program sh (0 of 2 questions answered): the line "hello": want a JSON object like`},
		"answer a prompt of its own":   {`echo '{"id":"7","completions":[]}'`, `no prompt with the id "7" waits`},
		"answer twice":                 {`echo "{\"id\":\"$id\",\"completions\":[]}"; echo "{\"id\":\"$id\",\"completions\":[]}"`, `(1 of 2 questions answered): the line`},
		"have more than asked":         {`echo "{\"id\":\"$id\",\"completions\":[{\"text\":\"a\"},{\"text\":\"b\"},{\"text\":\"c\"}]}"`, `it has 3 completions, at most 2`},
		"leave the list out":           {`echo "{\"id\":\"$id\"}"`, `want a list of "completions"`},
		"leave a text out":             {`echo "{\"id\":\"$id\",\"completions\":[{\"text\":\"a\"},{\"finish\":\"stop\"}]}"`, `completions[1]: want a "text"`},
		"write null for a text":        {`echo "{\"id\":\"$id\",\"completions\":[{\"text\":null}]}"`, `completions[0]: want a "text"`},
		"finish for another reason":    {`echo "{\"id\":\"$id\",\"completions\":[{\"text\":\"a\",\"finish\":\"tired\"}]}"`, `completions[0]: "finish" is "tired"`},
		"write other bytes than UTF-8": {`printf '{"id":"%s","completions":[{"text":"\377"}]}\n' "$id"`, `it is not UTF-8`},
		"exit, saying why":             {`echo "no model file" >&2; exit 3`, `exit status 3; the end of its standard error: "no model file"`},
		"write a line of over 8 MiB":   {`head -c 9000000 /dev/zero | tr '\0' ' '; cat`, `it wrote a line of more than 8388608 bytes`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := sampler(t, c.body).Sample(context.Background(), request(2, "x", "y"), nil)
			if sdk.CodeOf(err) != sdk.CodePlugin || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for name, given := range map[string]sdk.Settings{
		"an empty path":              {"path": ""},
		"an argument of 1":           {"path": "sh", "args": []any{1.0}},
		"a generator's own settings": {"path": "sh", "temperature": 1.0},
	} {
		t.Run(name, func(t *testing.T) {
			s := New()
			resolved, err := s.Manifest().Resolve(given)
			if err == nil {
				err = s.Configure(context.Background(), resolved)
			}
			if sdk.CodeOf(err) != sdk.CodeUsage {
				t.Errorf("got %v", err)
			}
		})
	}
	s := configured(t, sdk.Settings{"path": "no-such-program"})
	req := request(1, "x")
	req.Seeds = nil
	if _, err := s.Sample(context.Background(), req, nil); sdk.CodeOf(err) != sdk.CodePlugin || !strings.Contains(err.Error(), "1 prompts came with seeds for 0") {
		t.Errorf("without seeds: %v", err)
	}
}

// An accepted line is a response to the request that it answers.
func FuzzAnswer(f *testing.F) {
	for _, line := range []string{
		`{"id":"1","completions":[{"text":"a"}]}`, `{"id":"1","completions":[]}`, `{"id":"1","completions":[{"text":"a","finish":"length"},{"text":""}]}`,
		`{"id":"1","completions":null}`, `{"id":"1","completions":[null]}`, `[]`, "\xff",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := parseAnswer(line, 2)
		if err != nil {
			return
		}
		req := request(2, "x")
		if err := req.CheckResponse(sdk.SampleResponse{Completions: [][]sdk.Completion{a.completions(req.Seeds[0])}}); err != nil {
			t.Errorf("%q: accepted, but %v", line, err)
		}
	})
}
