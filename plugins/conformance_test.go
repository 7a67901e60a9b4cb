package plugins

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// parrot answers every prompt with two completions made of its seeds, in sh alone.
const parrot = `while IFS= read -r line; do
	id=${line#*'"id":"'} seeds=${line#*'"seeds":['}
	seeds=${seeds%%']'*}
	printf '{"id":"%s","completions":[{"text":"drawn with %s"},{"text":"and %s","finish":"length"}]}\n' "${id%%'"'*}" "${seeds%%,*}" "${seeds#*,}"
done`

// service is a server that prefers the text with more bytes.
func service(t *testing.T) string {
	t.Helper()
	type question struct{ ID, A, B string }
	type answer struct {
		ID string  `json:"id"`
		P  float64 `json:"p"`
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Questions []question }
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		var out struct {
			Answers []answer `json:"answers"`
		}
		for _, q := range in.Questions {
			out.Answers = append(out.Answers, answer{q.ID, 1 / (1 + math.Exp(float64(len(q.B)-len(q.A))))})
		}
		if err := json.NewEncoder(w).Encode(out); err != nil {
			t.Log(err) // a cancelled call has gone
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// judgeReply answers as a server of a language model: A is somewhat better, and every score is 3.
func judgeReply(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		fmt.Fprint(w, `{"data":[{"id":"a-model"}]}`)
		return
	}
	body, _ := io.ReadAll(r.Body) // of a client that is gone: nothing to answer
	reply := map[string]any{"finish_reason": "stop"}
	text := "no verdict was asked for"
	if m := regexp.MustCompile(`Verdict [a-z0-9]{6}:`).Find(body); m != nil {
		text = string(m) + " A"
	}
	var scores []string
	for _, m := range regexp.MustCompile(`[a-z0-9]{6}_\d+_score`).FindAll(body, -1) {
		scores = append(scores, fmt.Sprintf("%q: 3", m))
	}
	if scores != nil {
		text = "{" + strings.Join(scores, ", ") + "}"
	}
	if bytes.Contains(body, []byte(`"top_logprobs"`)) {
		text, reply["logprobs"] = "A", map[string]any{"tokens": []string{"A"}, "top_logprobs": []any{map[string]float64{"A": -0.3, "B": -1.4}}}
	}
	reply["message"] = map[string]string{"content": text}
	raw, _ := json.Marshal(map[string]any{"model": "a-model", "choices": []any{reply}}) // of texts and numbers alone
	_, _ = w.Write(raw)
}

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
	server := httptest.NewServer(http.HandlerFunc(judgeReply))
	t.Cleanup(server.Close)
	var judges []sdk.Settings
	for _, s := range []sdk.Settings{{}, {"verdict": "logprobs"}, {"mode": "listwise"}, {"mode": "pointwise"}} {
		s["url"], s["canary_every"] = server.URL, 0
		judges = append(judges, s)
	}
	both := []sdk.Settings{{}, {"order_matters": false}}
	for _, s := range both {
		s["path"], s["args"] = "sh", []any{"-c", always}
	}
	schema := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(schema, []byte(`{"type": "integer"}`), 0o600); err != nil { // of the kit's answers "4" is one
		t.Fatal(err)
	}
	url := service(t)
	return map[string][]sdk.Settings{
		"loss/dno":       {{}, {"beta": 0.01}},
		"loss/dpo":       {{}, {"beta": 2, "label_smoothing": 0.25}},
		"loss/ipo":       {{}, {"beta": 2, "average": false}},
		"oracle/command": both,
		"oracle/cyclic":  {{}, {"traits": []any{"steps", "words", "digits"}, "middles": []any{1.0, 2.0, 0.5}, "scale": 1, "sharpness": 2}},
		"oracle/http":    {{"url": url}, {"url": url, "batch": 1, "order_matters": false}},
		"oracle/judge":   judges,
		"oracle/length":  {{}, {"prefer": "shorter"}},
		"oracle/verifier": {{}, {"check": "number", "abs_tol": 0.5, "rel_tol": 0.1}, {"check": "boxed"}, {"check": "choice"},
			{"check": "exact", "ignore_case": true, "ignore_space": true}, {"check": "regex"}, {"check": "regex", "pattern": "[0-9]"},
			{"check": "json_schema", "schema": schema}, {"check": "json_schema"}, {"check": "instructions"}},
		"sampler/command": {{"path": "sh", "args": []any{"-c", parrot}}},
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
					t.Skip("NOT TESTED: there is no sh to ask: ", err)
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
