package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gofrs/flock"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/scripts/geometry"
)

// The test binary is copied to a directory on PATH under the name dno: run under that name it is
// dno itself, and so are the plugins that it starts.
// Under the name of a third party's plugin it is that.
func TestMain(m *testing.M) {
	if serveThirdParty(filepath.Base(os.Args[0])) {
		return
	}
	testscript.Main(m, map[string]func(){"dno": main})
}

// TestScripts runs testdata/script: commands on top, files below. Each script finds the small
// experiment of testdata/small in its folder.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			// Sockets live in the temporary directory, and their paths must be short.
			tmp, err := os.MkdirTemp("", "dno")
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(tmp) })
			env.Setenv("TMPDIR", tmp)
			return copySmall(env.WorkDir)
		},
		Condition: func(cond string) (bool, error) {
			if cond != "fastkernel" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return kernel.Level() != "generic", nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fails": cmdFails, "signal": cmdSignal, "json": cmdJSON, "lock": cmdLock,
			"flip": cmdFlip, "cut": cmdCut, "embedded": cmdEmbedded, "same": cmdSame,
			"thirdparty": cmdThirdParty, "positive": cmdPositive,
		},
	})
}

// copySmall copies the small experiment into dir, beside what is there.
func copySmall(dir string) error {
	return copyFiles(os.DirFS("testdata/small"), dir)
}

// copyFiles is os.CopyFS for a folder without sub-folders, where what is there already stays.
func copyFiles(from fs.FS, to string) error {
	files, err := fs.ReadDir(from, ".")
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(to, f.Name())
		if _, err := os.Stat(path); err == nil {
			continue
		}
		data, err := fs.ReadFile(from, f.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fails CODE ARGS...: dno ends with this code, one error on standard error and nothing on standard
// output; it leaves no process and no temporary file.
func cmdFails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: fails CODE ARGS...")
	}
	err := ts.Exec("dno", args[1:]...)
	if got := exitCode(err); strconv.Itoa(got) != args[0] {
		ts.Fatalf("dno exited with %d, want %s", got, args[0])
	}
	if out := ts.ReadFile("stdout"); out != "" {
		ts.Fatalf("dno failed, and wrote on standard output: %q", out)
	}
	ts.Check(oneError(ts.ReadFile("stderr")))
	ts.Check(nothingLeft(ts.Getenv("TMPDIR")))
}

var (
	logLine  = regexp.MustCompile(`^\d\d:\d\d:\d\d (DBG|INF|WRN) `)
	hintLine = regexp.MustCompile(`^ {5}\S`)
)

// oneError checks what dno writes where it fails: log lines, then "dno: " and the error, then
// perhaps a hint. Only a plugin's last words may follow the error on lines of their own.
func oneError(stderr string) error {
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	for len(lines) > 0 && logLine.MatchString(lines[0]) {
		lines = lines[1:]
	}
	if len(lines) == 0 || !strings.HasPrefix(lines[0], "dno: ") {
		return fmt.Errorf("there is no error line in %q", stderr)
	}
	lines = lines[1:]
	for len(lines) > 0 && strings.HasPrefix(lines[0], "  | ") {
		lines = lines[1:]
	}
	if len(lines) > 1 || len(lines) == 1 && !hintLine.MatchString(lines[0]) {
		return fmt.Errorf("more than an error and a hint: %q", stderr)
	}
	if strings.ContainsRune(stderr, '\x1b') {
		return fmt.Errorf("there is an escape sequence in %q", stderr)
	}
	return nil
}

// nothingLeft checks that no temporary file is there, and no process that was given this temporary
// directory. dno waits for its plugins, so there is nothing to wait for here.
func nothingLeft(tmp string) error {
	left, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("dno left %s in the temporary directory", left[0].Name())
	}
	environs, _ := filepath.Glob("/proc/[0-9]*/environ") // none where there is no such file system
	for _, path := range environs {
		env, err := os.ReadFile(path)
		if err == nil && bytes.Contains(env, []byte("TMPDIR="+tmp+"\x00")) {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			return fmt.Errorf("dno left a process: %q", command)
		}
	}
	return nil
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// signal NAME LINE CODE ARGS...: runs dno, sends it and its group the signal (INT, TERM or KILL) as
// soon as a line of its standard error matches LINE, and wants this exit code, -1 for KILL. What it
// wrote on standard error is then in the file stderr.txt.
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: signal NAME LINE CODE ARGS...")
	}
	cmd := exec.Command("dno", args[3:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "TMPDIR="+ts.Getenv("TMPDIR"))
	stderr, err := signalled(cmd, regexp.MustCompile(args[1]), args[0])
	ts.Check(os.WriteFile(ts.MkAbs("stderr.txt"), []byte(stderr), 0o644))
	if got := exitCode(err); strconv.Itoa(got) != args[2] {
		ts.Fatalf("dno exited with %d, want %s: %s", got, args[2], stderr)
	}
	if args[0] == "KILL" {
		return // it could not clean up
	}
	ts.Check(oneError(stderr))
	ts.Check(nothingLeft(ts.Getenv("TMPDIR")))
}

// json KEYS...: the last command's standard output is one JSON object with these keys.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: json KEYS...")
	}
	object, err := oneObject(ts.ReadFile("stdout"))
	ts.Check(err)
	for _, key := range args {
		if _, ok := object[key]; !ok {
			ts.Fatalf("the object has no key %q", key)
		}
	}
}

// oneObject decodes text that is one JSON object and nothing more.
func oneObject(text string) (map[string]any, error) {
	in := json.NewDecoder(strings.NewReader(text))
	var object map[string]any
	if err := in.Decode(&object); err != nil {
		return nil, fmt.Errorf("no JSON object: %w in %q", err, text)
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("something follows the JSON object in %q", text)
	}
	return object, nil
}

// positive PATHS...: the last command's standard output is one JSON object with a number above 0 under
// each dotted path, in each element of the lists on the way.
func cmdPositive(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: positive PATHS...")
	}
	object, err := oneObject(ts.ReadFile("stdout"))
	ts.Check(err)
	for _, path := range args {
		ts.Check(positive(object, path, strings.Split(path, ".")))
	}
}

func positive(value any, path string, keys []string) error {
	switch v := value.(type) {
	case []any:
		if len(v) == 0 {
			return fmt.Errorf("a list on the way to %s is empty", path)
		}
		for _, element := range v {
			if err := positive(element, path, keys); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		if len(keys) > 0 {
			return positive(v[keys[0]], path, keys[1:])
		}
	case float64:
		if len(keys) == 0 && v > 0 {
			return nil
		}
	}
	return fmt.Errorf("%s is %v, want a number above 0", path, value)
}

// lock DIR: a run directory's lock is held until the script ends.
func cmdLock(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: lock DIR")
	}
	lock := flock.New(ts.MkAbs(filepath.Join(args[0], "lock")))
	ok, err := lock.TryLock()
	ts.Check(err)
	if !ok {
		ts.Fatalf("the lock is held by another")
	}
	ts.Defer(func() { _ = lock.Unlock() })
}

// flip FILE OFFSET: flips the lowest bit of one byte; below 0 the offset is from the end.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	change(ts, neg, args, func(data []byte, at int) []byte {
		data[at] ^= 1
		return data
	})
}

// cut FILE OFFSET: cuts the file there; below 0 the offset is from the end.
func cmdCut(ts *testscript.TestScript, neg bool, args []string) {
	change(ts, neg, args, func(data []byte, at int) []byte { return data[:at] })
}

func change(ts *testscript.TestScript, neg bool, args []string, f func([]byte, int) []byte) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip or cut FILE OFFSET")
	}
	data := []byte(ts.ReadFile(args[0]))
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(data)
	}
	if at < 0 || at >= len(data) {
		ts.Fatalf("offset %s is outside of the %d bytes", args[1], len(data))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), f(data, at), 0o644))
}

// embedded DIR: the embedded model as a directory.
func cmdEmbedded(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: embedded DIR")
	}
	model, err := fs.Sub(geometry.Files(), "model")
	ts.Check(err)
	ts.Check(os.MkdirAll(ts.MkAbs(args[0]), 0o755))
	ts.Check(copyFiles(model, ts.MkAbs(args[0])))
}

// same A B: two files have the same bytes; with "!" they differ.
func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same FILE FILE")
	}
	if equal := ts.ReadFile(args[0]) == ts.ReadFile(args[1]); equal == neg {
		ts.Fatalf("%s and %s: equal is %v", args[0], args[1], equal)
	}
}

// dno runs one command line in dir; env is added to the environment.
func dno(t testing.TB, dir string, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs strings.Builder
	cmd := exec.Command("dno", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
	cmd.Env = append(os.Environ(), env...)
	err := cmd.Run()
	if code = exitCode(err); code < 0 {
		t.Fatalf("dno %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), code
}

// works runs a command that has to succeed, and returns what it prints.
func works(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, errs, code := dno(t, dir, nil, args...)
	if code != 0 {
		t.Fatalf("dno %s exited with %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

// small is a fresh folder with the small experiment.
func small(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := copySmall(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestEveryScriptIsNamedByItsCategory(t *testing.T) {
	t.Parallel()
	names, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(names) < 20 {
		t.Fatalf("found %d scripts: %v", len(names), err)
	}
	for _, name := range names {
		category, _, ok := strings.Cut(filepath.Base(name), "_")
		if !ok || !slices.Contains([]string{"error", "json", "look", "model", "output", "plugin", "resume", "run"}, category) {
			t.Errorf("%s begins with no category", name)
		}
	}
}

func skipOnWindows(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no such signals, shells or terminals on Windows")
	}
}

func TestEveryCommandShowsAnExample(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if !strings.Contains(c.Example, "dno") {
			t.Errorf("%s --help has no example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{}).root())
}
