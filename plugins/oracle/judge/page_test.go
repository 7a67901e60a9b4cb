package judge

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk"
)

const page = "../../../docs/howto/judge.md"

// The page names every setting and every code, and the oracles that it shows can be configured.
func TestThePage(t *testing.T) {
	t.Setenv("OPENAI_API_KEY", "sk-some-key")
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for _, s := range New().Manifest().Settings {
		if !strings.Contains(text, "`"+s.Name+"`") {
			t.Errorf("the page does not name the setting %q", s.Name)
		}
		for _, one := range s.OneOf {
			if !strings.Contains(text, "`"+one+"`") {
				t.Errorf("the page does not name %s = %q", s.Name, one)
			}
		}
	}
	source, err := os.ReadFile("testdata/replies.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"abstain": "([a-z-]+)"`).FindAllStringSubmatch(string(source)+`"abstain": "server"`, -1) {
		if !strings.Contains(text, "| `"+m[1]+"` |") {
			t.Errorf("the page does not list the code %q", m[1])
		}
	}
	shown := regexp.MustCompile(`(?m)oracle\s+= \{ "judge", (.*) \},?$`).FindAllStringSubmatch(text, -1)
	if len(shown) < 6 {
		t.Fatalf("only %d oracles are shown", len(shown))
	}
	entry := regexp.MustCompile(`(\w+) = ("[^"]*"|'[^']*'|\{[^}]*\}|[\d.]+|true|false)(?:, |$)`)
	for _, m := range shown {
		given := sdk.Settings{}
		rest := entry.ReplaceAllStringFunc(m[1], func(part string) string {
			e := entry.FindStringSubmatch(part)
			if e[1] == "env" || e[1] == "timeout" { // the host's
				return ""
			}
			var value any
			if quote := strings.HasPrefix(e[2], "'"); quote {
				value = strings.Trim(e[2], "'")
			} else if err := json.Unmarshal([]byte(e[2]), &value); err != nil {
				t.Errorf("%s: %v", part, err)
			}
			given[e[1]] = value
			return ""
		})
		o := New()
		resolved, err := o.Manifest().Resolve(given)
		if err == nil {
			err = o.Configure(context.Background(), resolved)
		}
		if err != nil || rest != "" || len(given) == 0 {
			t.Errorf("%s: %v; not read: %q", m[1], err, rest)
		}
	}
}
