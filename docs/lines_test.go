//go:build unix

package docs_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	httporacle "github.com/dno-project/dno/plugins/oracle/http"
	samplercommand "github.com/dno-project/dno/plugins/sampler/command"
	"github.com/dno-project/dno/sdk"
)

// shown returns the lines of the protocol page's block with the given language.
func shown(t *testing.T, language string) []string {
	t.Helper()
	block := regexp.MustCompile("(?s)```" + language + "\n(.*?)\n```").FindStringSubmatch(text(t, "plugin-protocol.md"))
	if block == nil {
		t.Fatalf("the page shows no block %q", language)
	}
	return strings.Split(block[1], "\n")
}

// The oracle "http" posts the page's questions and takes the page's answers.
func TestThePagesServiceIsAskedAsItIs(t *testing.T) {
	questions, answers := shown(t, "questions"), shown(t, "answers")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if want := questions[0] + "\n"; err != nil || string(body) != want {
			t.Errorf("the service is asked, %v,\n%s\nthe page shows\n%s", err, body, want)
		}
		_, _ = io.WriteString(w, answers[0])
	}))
	defer server.Close()
	oracle := httporacle.New()
	if err := oracle.Configure(t.Context(), sdk.Settings{"url": server.URL}); err != nil {
		t.Fatal(err)
	}
	verdicts, err := oracle.Judge(t.Context(), []sdk.Comparison{{
		ID: "c", Prompt: sdk.Prompt{Messages: []sdk.Message{{Role: "user", Content: "2+2?"}}, Answer: "4"},
		Candidates: []string{"4", "5"}, Pairs: []sdk.Ordered{{A: 0, B: 1}, {A: 1, B: 0}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]sdk.Verdict{{P: 0.75, Reason: "right"}, {Abstain: "no idea"}}, verdicts[0].Pairs); diff != "" {
		t.Error(diff)
	}
}

// The sampler "command" asks for the page's completions and takes them.
func TestThePagesSamplerIsAskedAsItIs(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("NOT TESTED: there is no sh for the sampler to ask: ", err)
	}
	lines := shown(t, "sampler")
	asked := filepath.Join(t.TempDir(), "asked")
	sampler := samplercommand.New()
	defer sampler.(io.Closer).Close()
	err := sampler.Configure(t.Context(), sdk.Settings{
		"path": "sh", "args": []any{"-c", `read -r question; printf '%s' "$question" > "$1"; printf '%s\n' "$2"; read -r end`, "sh", asked, lines[1]},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := sampler.Sample(t.Context(), sdk.SampleRequest{
		Prompts: []sdk.Prompt{{ID: "p", Messages: []sdk.Message{{Role: "user", Content: "2+2?"}}, Answer: "4"}}, K: 2, Seeds: [][]uint64{{7, 1<<63 + 1}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if question := text(t, asked); question != lines[0] {
		t.Errorf("the program is asked\n%s\nthe page shows\n%s", question, lines[0])
	}
	want := []sdk.Completion{{Text: "4", Finish: sdk.FinishStop, Seed: 7}, {Text: "2+2=", Finish: sdk.FinishLength, Seed: 1<<63 + 1}}
	if diff := cmp.Diff(want, got.Completions[0]); diff != "" {
		t.Error(diff)
	}
}
