package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/sdk"
)

// The test binary, run with the argument "program", is an oracle program itself: it prefers the
// longer text and says in its reason what it was asked.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "program" {
		preferLonger(os.Stdin, os.Stdout)
		return
	}
	os.Exit(m.Run())
}

func preferLonger(r io.Reader, w io.Writer) {
	in, out := json.NewDecoder(r), json.NewEncoder(w)
	for {
		var q json.RawMessage
		if in.Decode(&q) != nil {
			return
		}
		var asked struct{ ID, A, B string }
		if json.Unmarshal(q, &asked) != nil {
			return
		}
		p := map[bool]float64{true: 0.9, false: 0.1}[len(asked.A) > len(asked.B)]
		if out.Encode(map[string]any{"id": asked.ID, "p": p, "reason": string(q)}) != nil {
			return
		}
	}
}

// script writes a shell script that answers each line; body sees its id as $id and its number as $n.
func script(t *testing.T, body string) sdk.Settings {
	t.Helper()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("there is no sh here: the command oracle is not tested with a script")
	}
	path := filepath.Join(t.TempDir(), "judge.sh")
	text := "n=0\nwhile IFS= read -r line; do\n n=$((n+1)); id=${line#*'\"id\":\"'}; id=${id%%'\"'*}\n " + body + "\ndone\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return sdk.Settings{"path": "sh", "args": []any{path}}
}

func oracle(t *testing.T, s sdk.Settings) *Oracle {
	t.Helper()
	o := New().(*Oracle)
	resolved, err := o.Manifest().Resolve(s)
	if err == nil {
		err = o.Configure(context.Background(), resolved)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

func compare(id, a, b string) sdk.Comparison {
	return sdk.Comparison{ID: id, Candidates: []string{a, b}, Pairs: []sdk.Ordered{{A: 0, B: 1}, {A: 1, B: 0}},
		Prompt: sdk.Prompt{Messages: []sdk.Message{{Role: "user", Content: "17 45 8"}}, Answer: "70"}}
}

func judge(t *testing.T, o *Oracle, batch ...sdk.Comparison) []sdk.Verdicts {
	t.Helper()
	out, err := o.Judge(context.Background(), batch)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAShellScriptJudges(t *testing.T) {
	t.Parallel()
	o := oracle(t, script(t, `case $line in
  *'"a":"good"'*) echo "{\"id\":\"$id\",\"p\":1,\"reason\":\"a is good\",\"cost\":0.5,\"model\":\"judge-1\",\"score\":{\"a\":7,\"b\":3},\"labels\":{\"a\":{\"correct\":1},\"b\":{\"correct\":0}}}";;
  *'"b":"good"'*) echo "{\"id\":\"$id\",\"p\":0.25}";;
  *) echo; echo "{\"id\":\"$id\",\"abstain\":\"nothing good here\"}";;
 esac`))
	seven, three := 7.0, 3.0
	want := []sdk.Verdicts{
		{ID: "x", Cost: 0.5, Model: "judge-1", Pairs: []sdk.Verdict{{P: 1, Reason: "a is good"}, {P: 0.25}}, Assessed: []sdk.Assessment{
			{Score: &seven, Labels: map[string]float64{"correct": 1}}, {Score: &three, Labels: map[string]float64{"correct": 0}}}},
		{ID: "y", Pairs: []sdk.Verdict{{Abstain: "nothing good here"}, {Abstain: "nothing good here"}}},
	}
	if diff := cmp.Diff(want, judge(t, o, compare("x", "good", "bad"), compare("y", "bad", "worse"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAPythonProgramJudges(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil || exec.Command(python, "-c", "").Run() != nil {
		t.Skip("there is no python3 here: the command oracle is not tested with it")
	}
	path := filepath.Join(t.TempDir(), "judge.py")
	text := `import json, sys
for line in sys.stdin:
    q = json.loads(line)
    print(json.dumps({"id": q["id"], "p": 0.5 + (q["a"] == q["answer"]) / 2 - (q["b"] == q["answer"]) / 2}), flush=True)
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o := oracle(t, sdk.Settings{"path": python, "args": []any{path}})
	got := judge(t, o, compare("x", "70", "71"), compare("y", "7", "8"))
	if got[0].Pairs[0].P != 1 || got[0].Pairs[1].P != 0 || got[1].Pairs[0].P != 0.5 {
		t.Errorf("got %+v", got)
	}
}

func TestWhatTheProgramReads(t *testing.T) {
	t.Parallel()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := oracle(t, sdk.Settings{"path": executable, "args": []any{"program"}})
	c := compare("x", "<longer> & \"quoted\"\n", "ß")
	c.Pairs = c.Pairs[:1]
	several := c
	several.Prompt = sdk.Prompt{Messages: []sdk.Message{{Role: "system", Content: "Add."}, {Role: "user", Content: "1 2"}}}
	got := judge(t, o, c, several)
	for i, want := range []string{
		`{"id":"1","prompt":"17 45 8","answer":"70","a":"<longer> & \"quoted\"\n","b":"ß"}`,
		`{"id":"2","prompt":"Add.\n1 2","messages":[{"role":"system","content":"Add."},{"role":"user","content":"1 2"}],"answer":"","a":"<longer> & \"quoted\"\n","b":"ß"}`,
	} {
		if v := got[i].Pairs[0]; v.Reason != want || v.P != 0.9 {
			t.Errorf("P = %v, the program read\n%s\nwant\n%s", v.P, v.Reason, want)
		}
	}
}

func TestAnswersMayComeInAnyOrder(t *testing.T) {
	t.Parallel()
	// The answers to each four questions come last first; the first of them is preferred with 0.1.
	o := oracle(t, script(t, `all="{\"id\":\"$id\",\"p\":0.$n}
$all"
 if [ $n = 4 ]; then printf '%s' "$all"; n=0; all=; fi`))
	for range 2 {
		got := judge(t, o, compare("x", "a", "b"), compare("y", "c", "d"))
		if fmt.Sprint(got[0].Pairs, got[1].Pairs) != "[{0.1  } {0.2  }] [{0.3  } {0.4  }]" {
			t.Errorf("got %+v", got)
		}
	}
}

func TestALargeBatchFillsNoPipeForGood(t *testing.T) {
	t.Parallel()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := oracle(t, sdk.Settings{"path": executable, "args": []any{"program"}})
	// 2 × 2,000 questions of over 500 bytes, each sent back: some megabytes both ways, where a pipe holds 64 KiB.
	batch := make([]sdk.Comparison, 2000)
	for i := range batch {
		batch[i] = compare(fmt.Sprint(i), strings.Repeat("a", 200+i%7), strings.Repeat("b", 203))
	}
	for i, v := range judge(t, o, batch...) {
		if want := map[bool]float64{true: 0.9, false: 0.1}[i%7 > 3]; v.ID != fmt.Sprint(i) || v.Pairs[0].P != want {
			t.Fatalf("comparison %d: got %v from %q, want %v", i, v.Pairs[0].P, v.ID, want)
		}
	}
}

func TestOrderMatters(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		orderMatters bool
		want         string // P, and in brackets which question was the one answered
	}{
		"both orders are asked":                           {true, "0.75 (1) 0.75 (2) 0.75 (1)"},
		"one order is asked, the other one is its mirror": {false, "0.75 (1) 0.25 (1) 0.75 (1)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := script(t, `echo "{\"id\":\"$id\",\"p\":0.75,\"reason\":\"$n\",\"cost\":1}"`)
			s["order_matters"] = c.orderMatters
			q := compare("x", "a", "b")
			q.Pairs = append(q.Pairs, q.Pairs[0]) // the same question again
			v := judge(t, oracle(t, s), q)[0]
			var got []string
			asked := map[string]bool{}
			for _, p := range v.Pairs {
				got = append(got, fmt.Sprintf("%v (%s)", p.P, p.Reason))
				asked[p.Reason] = true
			}
			if strings.Join(got, " ") != c.want || v.Cost != float64(len(asked)) {
				t.Errorf("got %v for %v, want %v", got, v.Cost, c.want)
			}
		})
	}
}

func TestTheProgramIsKept(t *testing.T) {
	t.Parallel()
	s := script(t, `echo "{\"id\":\"$id\",\"p\":0.5,\"reason\":\"$$ $n\"}"`)
	o := oracle(t, s)
	pid := func(want string) string {
		t.Helper()
		reason := judge(t, o, compare("x", "a", "b"))[0].Pairs[0].Reason
		pid, n, _ := strings.Cut(reason, " ")
		if n != want {
			t.Errorf("it was its question %s, want %s", n, want)
		}
		return pid
	}
	first := pid("1")
	if again := pid("3"); again != first {
		t.Errorf("process %s became %s from call to call", first, again)
	}
	if err := o.Configure(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	if again := pid("5"); again != first {
		t.Errorf("process %s became %s at an iteration's start", first, again)
	}
	other := sdk.Settings{"path": "sh", "args": append([]any{}, append(s["args"].([]any), "more")...)}
	if err := o.Configure(context.Background(), other); err != nil {
		t.Fatal(err)
	}
	if again := pid("1"); again == first {
		t.Errorf("process %s was kept although its arguments changed", first)
	}
}

func TestWhatAProgramMustNotDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"write what is not JSON":         {`echo hello`, `(0 of 2 questions answered): the line "hello": want a JSON object`},
		"answer a question of its own":   {`echo '{"id":"7","p":1}'`, `no question with the id "7" waits`},
		"answer twice":                   {`echo "{\"id\":\"$id\",\"p\":1}"; echo "{\"id\":\"$id\",\"p\":1}"`, `(1 of 2 questions answered): the line "{\"id\":\"1\",\"p\":1}": no question`},
		"be surer than sure":             {`echo "{\"id\":\"$id\",\"p\":1.5}"`, `"p" is 1.5, want a probability from 0 to 1`},
		"answer neither":                 {`echo "{\"id\":\"$id\"}"`, `want "p" or "abstain"`},
		"abstain without a reason":       {`echo "{\"id\":\"$id\",\"abstain\":\"\"}"`, `"abstain" needs a reason`},
		"abstain and answer":             {`echo "{\"id\":\"$id\",\"p\":1,\"abstain\":\"no\"}"`, `exclude each other`},
		"cost less than nothing":         {`echo "{\"id\":\"$id\",\"p\":1,\"cost\":-1}"`, `"cost" is -1`},
		"exit, saying why":               {`echo "no model file" >&2; exit 3`, `it ended before it had answered all questions: exit status 3; the end of its standard error: "no model file"`},
		"exit as if all were done":       {`echo "{\"id\":\"$id\",\"p\":1}"; exit 0`, `(1 of 2 questions answered): it ended (exit status 0)`},
		"write a line of over 8 MiB":     {`head -c 9000000 /dev/zero | tr '\0' ' '; cat`, `it wrote a line of more than 8388608 bytes`},
		"leave half a line as it exits":  {`printf '{"id":'; exit 0`, `the line "{\"id\":": want a JSON object`},
		"write long last words: cut off": {`i=0; while [ $i -lt 300 ]; do echo "long words" >&2; i=$((i+1)); done; echo done >&2; exit 1`, `long words\ndone"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := oracle(t, script(t, c.body))
			_, err := o.Judge(context.Background(), []sdk.Comparison{compare("x", "a", "b")})
			if sdk.CodeOf(err) != sdk.CodePlugin || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v\nwant %s", err, c.want)
			}
			if len(err.Error()) > 4<<10 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestTheNextCallStartsTheProgramAnew(t *testing.T) {
	t.Parallel()
	marker := filepath.Join(t.TempDir(), "marker")
	o := oracle(t, script(t, `if [ ! -e '`+marker+`' ]; then : > '`+marker+`'; exit 1; fi; echo "{\"id\":\"$id\",\"p\":0.75}"`))
	if _, err := o.Judge(context.Background(), []sdk.Comparison{compare("x", "a", "b")}); err == nil {
		t.Fatal("a program that exits was taken for an oracle")
	}
	if got := judge(t, o, compare("x", "a", "b")); got[0].Pairs[1].P != 0.75 {
		t.Errorf("got %+v", got)
	}
}

func TestAProgramThatIsNotThere(t *testing.T) {
	t.Parallel()
	o := oracle(t, sdk.Settings{"path": filepath.Join(t.TempDir(), "none")})
	_, err := o.Judge(context.Background(), []sdk.Comparison{compare("x", "a", "b")})
	if sdk.CodeOf(err) != sdk.CodePlugin || !strings.Contains(err.Error(), "start the oracle program") {
		t.Errorf("got %v", err)
	}
}

func TestNoQuestionsStartNoProgram(t *testing.T) {
	t.Parallel()
	o := oracle(t, sdk.Settings{"path": filepath.Join(t.TempDir(), "none")})
	c := compare("x", "a", "b")
	c.Pairs = nil
	if got := judge(t, o, c); len(got) != 1 || got[0].ID != "x" || len(got[0].Pairs) != 0 {
		t.Errorf("got %+v", got)
	}
}

func TestRefusedSettings(t *testing.T) {
	t.Parallel()
	for name, given := range map[string]sdk.Settings{
		"no path":                    {},
		"an empty path":              {"path": ""},
		"an argument of 1":           {"path": "sh", "args": []any{1.0}},
		"arguments that are no list": {"path": "sh", "args": "-c"},
	} {
		t.Run(name, func(t *testing.T) {
			o := New()
			resolved, err := o.Manifest().Resolve(given)
			if err == nil {
				err = o.Configure(context.Background(), resolved)
			}
			if sdk.CodeOf(err) != sdk.CodeUsage {
				t.Errorf("got %v", err)
			}
		})
	}
}
