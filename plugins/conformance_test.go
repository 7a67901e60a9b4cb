package plugins

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/sdktest"
)

// always answers every question with the one probability, in sh alone.
const always = `while IFS= read -r line; do
	id=${line#*'"id":"'}
	printf '{"id":"%s","p":0.75}\n' "${id%%'"'*}"
done`

// conformance names the settings that plugins are checked with: the defaults where a plugin is not
// listed.
func conformance(t *testing.T) map[string][]sdk.Settings {
	t.Helper()
	known := filepath.Join(t.TempDir(), "known.jsonl")
	var lines strings.Builder
	for i := range 3 { // the kit's prompts: 3, 1 and 0 completions for K = 2
		for range 3 - 2*i {
			fmt.Fprintf(&lines, "{\"prompt\":\"What is %d+%d?\",\"completion\":\"It is %d.\"}\n", i, i, 2*i)
		}
	}
	if err := os.WriteFile(known, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	both := []sdk.Settings{{}, {"order_matters": false}}
	for _, s := range both {
		s["path"], s["args"] = "sh", []any{"-c", always}
	}
	schema := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(schema, []byte(`{"type": "integer"}`), 0o600); err != nil { // of the kit's answers "4" is one
		t.Fatal(err)
	}
	return map[string][]sdk.Settings{
		"loss/dno":       {{}, {"beta": 0.01}},
		"loss/dpo":       {{}, {"beta": 2, "label_smoothing": 0.25}},
		"loss/ipo":       {{}, {"beta": 2, "average": false}},
		"oracle/command": both,
		"oracle/length":  {{}, {"prefer": "shorter"}},
		"oracle/verifier": {{}, {"check": "number", "abs_tol": 0.5, "rel_tol": 0.1}, {"check": "boxed"}, {"check": "choice"},
			{"check": "exact", "ignore_case": true, "ignore_space": true}, {"check": "regex"}, {"check": "regex", "pattern": "[0-9]"},
			{"check": "json_schema", "schema": schema}, {"check": "json_schema"}, {"check": "instructions"}},
		"sampler/file":    {{"path": known}},
		"sampler/nucleus": {{}, {"temperature": 0, "stop": []any{"\n"}}},
	}
}

func TestEveryPluginKeepsTheContract(t *testing.T) {
	settings := conformance(t)
	for _, e := range List() {
		name := string(e.Kind) + "/" + e.Name
		all := settings[name]
		if len(all) == 0 {
			all = []sdk.Settings{{}}
		}
		for i, given := range all {
			t.Run(fmt.Sprintf("%s/%d", name, i), func(t *testing.T) {
				if _, err := exec.LookPath("sh"); err != nil && e.Name == "command" {
					t.Skip("NOT TESTED: there is no sh for the oracle to ask: ", err)
				}
				switch e.Kind {
				case sdk.KindOracle:
					sdktest.Oracle(t, func() sdk.Oracle { return e.New().(sdk.Oracle) }, given)
				case sdk.KindLoss:
					sdktest.Loss(t, func() sdk.Loss { return e.New().(sdk.Loss) }, given)
				case sdk.KindSampler:
					sdktest.Sampler(t, func() sdk.Sampler { return e.New().(sdk.Sampler) }, given)
				}
			})
		}
	}
}
