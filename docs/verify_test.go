package docs_test

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dno-project/dno/plugins/oracle/verifier"
	"github.com/dno-project/dno/sdk"
)

// The judgements that howto/verify-answers.md shows are the verifier's.
func TestShownJudgementsAreTrue(t *testing.T) {
	page, err := os.ReadFile("howto/verify-answers.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]int{}
	for _, block := range regexp.MustCompile("(?s)```jsonl\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		for line := range strings.Lines(block[1]) {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			o := verifier.New()
			settings, p := sdk.Settings{}, sdk.Prompt{Metadata: map[string]any{}}
			for key, value := range fields {
				switch isSetting := slices.ContainsFunc(o.Manifest().Settings, func(s sdk.Setting) bool { return s.Name == key }); {
				case isSetting && key != "schema":
					settings[key] = value
				case key == "answer":
					p.Answer, _ = value.(string)
				case key != "completion" && key != "score" && key != "abstain":
					p.Metadata[key] = value
				}
			}
			if err := o.Configure(context.Background(), settings); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			completion, _ := fields["completion"].(string)
			out, err := o.Judge(context.Background(), []sdk.Comparison{{Prompt: p, Candidates: []string{completion}, Pairs: []sdk.Ordered{{A: 0, B: 0}}}})
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			shown[settings.String("check", "")]++
			why, _ := fields["abstain"].(string)
			if have := out[0].Pairs[0].Abstain; have != why {
				t.Errorf("%s: it abstains with %q", line, have)
			} else if why == "" && *out[0].Assessed[0].Score != fields["score"] {
				t.Errorf("%s: the score is %v", line, *out[0].Assessed[0].Score)
			}
		}
	}
	if len(shown) != 7 || shown["number"] < 5 {
		t.Errorf("shown are %v", shown)
	}
}
