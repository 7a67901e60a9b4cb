package docs_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/report"
	"github.com/dno-project/dno/core/rundir"
)

// The examples are run as their readers would: built, checked, pinned, and used in an experiment
// by the binary itself.

// tools is what an example is built and run with.
type tools struct {
	goTool, dno string
	golden      string // the golden data, or "" where they are not at hand
}

// newTools builds dno once. Only a machine without the go command skips.
func newTools(t *testing.T) tools {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("NOT TESTED: the examples, for there is no go command")
	}
	x := tools{goTool: goTool, dno: executable(filepath.Join(t.TempDir(), "dno"))}
	works(t, "..", nil, goTool, "build", "-o", x.dno, "./cmd/dno")
	// The examples' modules are elsewhere than the repository's, and so is their default.
	x.golden = os.Getenv("DNO_GOLDEN")
	if beside, err := filepath.Abs("../../shared/golden"); err == nil && x.golden == "" {
		if _, err := os.Stat(beside); err == nil {
			x.golden = beside
		}
	}
	return x
}

func executable(path string) string {
	if runtime.GOOS == "windows" {
		return path + ".exe"
	}
	return path
}

// works runs a command that has to succeed, and returns what it prints.
func works(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", filepath.Base(name), strings.Join(args, " "), err, &out, &errs)
	}
	return out.String()
}

// track reads a folder's files in this process. The go command would otherwise not know that this
// test depends on them, and keep a pass after a change.
func track(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				_, err = os.ReadFile(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// experiment is a folder with the small experiment of the command's own tests.
func experiment(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../cmd/dno/testdata/small")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// iterations reads a run's records, iteration 0 first.
func iterations(t *testing.T, run string) []rundir.IterationRecord {
	t.Helper()
	out, err := rundir.ReadLog[rundir.IterationRecord](filepath.Join(run, "run.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// trained checks that a run has finished, that the report says that it was with this plugin, and that
// each iteration has moved the weights.
func (x tools) trained(t *testing.T, dir, run, kind, name string, want int) {
	t.Helper()
	var r report.Report
	if err := json.Unmarshal([]byte(works(t, dir, nil, x.dno, "report", "--json", run)), &r); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.State, "finished") || len(r.Iterations) != want {
		t.Fatalf("the run is %q with %d iterations, want %d", r.State, len(r.Iterations), want)
	}
	for _, it := range r.Iterations {
		used := map[string]string{"loss": it.LossName, "oracle": it.Oracle}[kind]
		if used != "" && used != name {
			t.Errorf("iteration %d was with the %s %q", it.Iteration, kind, used)
		}
		if it.Steps == 0 || it.KL == nil || *it.KL == 0 {
			t.Errorf("iteration %d: %d steps, KL %v to its start: it has moved nothing", it.Iteration, it.Steps, it.KL)
		}
	}
	records := iterations(t, filepath.Join(dir, run))
	for i, rec := range records[1:] {
		if rec.Fingerprint == records[i].Fingerprint {
			t.Errorf("iteration %d has left the weights as they were", rec.Iteration)
		}
	}
}

func TestExamples(t *testing.T) {
	x := newTools(t)
	track(t, "examples", "../cmd", "../core", "../plugins", "../scripts", "../sdk")
	modules, err := filepath.Glob("examples/*/go.mod")
	if err != nil || len(modules) < 7 {
		t.Fatalf("there are %d examples with a module of their own: %v", len(modules), err)
	}
	for _, module := range modules {
		folder := filepath.Dir(module)
		t.Run(filepath.Base(folder), func(t *testing.T) {
			t.Parallel()
			x.example(t, folder)
		})
	}
	t.Run("oracle-shell", func(t *testing.T) {
		t.Parallel()
		x.shellOracleTrains(t)
	})
}

// example builds one Go example and uses it in a run.
func (x tools) example(t *testing.T, folder string) {
	kind, name, ok := strings.Cut(filepath.Base(folder), "-")
	if !ok || !slices.Contains([]string{"oracle", "loss", "sampler"}, kind) {
		t.Fatalf("its folder is not named <kind>-<name>")
	}
	dir := experiment(t)
	plugin := executable(filepath.Join(dir, "plugins", "dno-"+kind+"-"+name))
	built := t.Run("module", func(t *testing.T) {
		var env []string
		if x.golden != "" {
			env = []string{"DNO_GOLDEN=" + x.golden}
		}
		works(t, folder, nil, x.goTool, "mod", "tidy", "-diff")
		works(t, folder, nil, x.goTool, "build", "-o", plugin, ".")
		if deps := works(t, folder, nil, x.goTool, "list", "-deps", "."); strings.Contains(deps, "gorgonia.org") || !strings.Contains(deps, "go-plugin") {
			t.Errorf("a plugin compiles Gorgonia, or no go-plugin:\n%s", deps)
		}
		works(t, folder, nil, x.goTool, "vet", "./...")
		works(t, folder, env, x.goTool, "test", "./...")
	})
	if !built {
		return
	}
	t.Run("check", func(t *testing.T) {
		works(t, dir, nil, x.dno, "plugin", "check", plugin)
	})
	t.Run("run", func(t *testing.T) {
		works(t, dir, nil, x.dno, "plugin", "install", plugin)
		works(t, dir, nil, x.dno, "run", "small.lua", "--dir", "r", "--set", "iterations=1", "--set", kind+"="+name)
		x.trained(t, dir, "r", kind, name, 1)
	})
	switch kind + "/" + name {
	case "loss/bco":
		t.Run("state", func(t *testing.T) { x.stateIsKept(t, dir) })
	case "loss/ld-dpo":
		t.Run("as dpo", func(t *testing.T) { x.dampsNothing(t, dir) })
	}
}

// shellOracleTrains checks that in a run with the oracle in sh each chosen text is the shorter one.
func (x tools) shellOracleTrains(t *testing.T) {
	script := shellOracle(t)
	dir := experiment(t)
	works(t, dir, nil, x.dno, "run", "small.lua", "--dir", "r", "--set", "iterations=1", "--set", "samples=3",
		"--set", `oracle={"command", path="`+script+`", order_matters=false}`)
	x.trained(t, dir, "r", "oracle", "command", 1)
	pairs, err := rundir.ReadLog[rundir.PairRecord](filepath.Join(dir, "r/iter-001/pairs.jsonl"))
	if err != nil || len(pairs) == 0 {
		t.Fatalf("%d pairs: %v", len(pairs), err)
	}
	for i, p := range pairs {
		if chosen, rejected := p.Chosen[0].Content, p.Rejected[0].Content; len(chosen) >= len(rejected) {
			t.Errorf("pair %d: the chosen %q is not shorter than the rejected %q", i, chosen, rejected)
		}
	}
}

// stateIsKept checks that the mean which the loss keeps goes from one iteration to the next: in one
// process, in another run of the same seed, and over a kill.
func (x tools) stateIsKept(t *testing.T, dir string) {
	args := func(run string) []string { return []string{"run", "small.lua", "--dir", run, "--set", "loss=bco"} }
	works(t, dir, nil, x.dno, args("whole")...)
	works(t, dir, nil, x.dno, args("again")...)
	x.killed(t, dir, `stage="iteration 2: sample`, args("killed")...)
	if n := len(iterations(t, filepath.Join(dir, "killed"))); n != 2 {
		t.Fatalf("the killed run has %d records, want those of the iterations 0 and 1", n)
	}
	works(t, dir, nil, x.dno, "resume", "killed")

	want := iterations(t, filepath.Join(dir, "whole"))
	rewards := 0.0 // two a pair, all of weight 1, in one epoch
	for i, rec := range want[1:] {
		for _, n := range rec.Pairs {
			rewards += 2 * float64(n)
		}
		if len(rec.LossState) != 20 {
			t.Fatalf("iteration %d has a state of %d bytes", i+1, len(rec.LossState))
		}
		if count := math.Float64frombits(binary.LittleEndian.Uint64(rec.LossState[4:])); count != rewards {
			t.Errorf("after iteration %d the mean is over %v rewards, want %v", i+1, count, rewards)
		}
	}
	for _, run := range []string{"again", "killed"} {
		x.trained(t, dir, run, "loss", "bco", 2)
		for i, have := range iterations(t, filepath.Join(dir, run)) {
			if have.Fingerprint != want[i].Fingerprint || !bytes.Equal(have.LossState, want[i].LossState) {
				t.Errorf("%s: iteration %d ended with other weights or another state", run, i)
			}
		}
	}
}

// dampsNothing checks that with ld_alpha = 1 the derivatives of tokens train what those of completions
// do: the weights of the bundled DPO, to the bit.
func (x tools) dampsNothing(t *testing.T, dir string) {
	last := func(run, loss string) string {
		works(t, dir, nil, x.dno, "run", "small.lua", "--dir", run, "--set", "iterations=1", "--set", "loss="+loss)
		records := iterations(t, filepath.Join(dir, run))
		return records[len(records)-1].Fingerprint
	}
	dpo := last("dpo", `{"dpo", beta=0.1}`)
	if last("one", `{"ld-dpo", beta=0.1, ld_alpha=1}`) != dpo {
		t.Error("with ld_alpha = 1 the weights are not those of DPO")
	}
	if last("half", `{"ld-dpo", beta=0.1, ld_alpha=0.5}`) == dpo {
		t.Error("ld_alpha changes nothing")
	}
}

// killed runs dno and kills it as soon as a line of its log has the given text.
func (x tools) killed(t *testing.T, dir, text string, args ...string) {
	t.Helper()
	cmd := exec.Command(x.dno, args...)
	cmd.Dir = dir
	stderr, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	found := false
	lines := bufio.NewScanner(stderr)
	for !found && lines.Scan() {
		found = strings.Contains(lines.Text(), text)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // that it was killed is known
	if !found {
		t.Fatalf("dno ended before it wrote %q", text)
	}
}

// The oracle in sh answers as it says, whatever the texts contain.
func TestShellOracleAnswers(t *testing.T) {
	script := shellOracle(t)
	cases := []struct{ line, want string }{
		{`{"id":"1","prompt":"x","answer":"4","a":"ab","b":"abc"}`, `{"id":"1","p":1}`},
		{`{"id":"2","prompt":"x","answer":"4","a":"abc","b":"ab"}`, `{"id":"2","p":0}`},
		{`{"id":"3","prompt":"x","answer":"4","a":"abc","b":"xyz"}`, `{"id":"3","p":0.5}`},
		{`{"id":"4","prompt":"x","answer":"4","a":"","b":"abc"}`, `{"id":"4","p":0}`},
		{`{"id":"5","prompt":"x","answer":"4","a":"","b":""}`, `{"id":"5","p":0.5}`},
		// Keys within the texts are none.
		{`{"id":"6","prompt":"\"a\":\"\"","answer":"\"b\":\"","a":"ab\",\"b\":\"","b":"abc"}`, `{"id":"6","p":0}`},
		// a"b is 3, a control character and b are 2; two backslashes are 2, \u0041 behind one is 6.
		{`{"id":"7","prompt":"x","answer":"4","a":"a\"b","b":"\u0001b"}`, `{"id":"7","p":0}`},
		{`{"id":"8","prompt":"x","answer":"4","a":"\\\\","b":"\\u0041"}`, `{"id":"8","p":1}`},
		{`{"id":"9","prompt":"x","answer":"4","a":"%d $(exit) 'x'","b":"ab"}`, `{"id":"9","p":0}`},
		{`{"id":"10","prompt":"x","answer":"4","a":"ab"}`, `{"id":"10","abstain":"the question has no b"}`},
	}
	var in, want strings.Builder
	for _, c := range cases {
		in.WriteString(c.line + "\n")
		want.WriteString(c.want + "\n")
	}
	cmd := exec.Command(script)
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if string(out) != want.String() {
		t.Errorf("got\n%swant\n%s", out, &want)
	}
}

func shellOracle(t *testing.T) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("NOT TESTED: the oracle in sh, which Windows does not run")
	}
	for _, tool := range []string{"sh", "awk"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT TESTED: the oracle in sh, for there is no %s", tool)
		}
	}
	path, err := filepath.Abs("examples/oracle-shell/shorter.sh")
	if err != nil {
		t.Fatal(err)
	}
	return path
}
