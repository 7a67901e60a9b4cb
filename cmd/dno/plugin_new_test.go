package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/report"
)

// ran runs a command that has to succeed, and returns what it prints on both streams.
func ran(t testing.TB, dir, name string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, &out)
	}
	return out.String()
}

// trained checks that the project's run has finished and has moved the weights.
func trained(t *testing.T, dir string, args ...string) {
	t.Helper()
	works(t, dir, append([]string{"run", "experiment.lua", "--dir", "r"}, args...)...)
	var r report.Report
	if err := json.Unmarshal([]byte(works(t, dir, "report", "--json", "r")), &r); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.State, "finished") || len(r.Iterations) != 1 {
		t.Fatalf("the run is %q with %d iterations", r.State, len(r.Iterations))
	}
	if it := r.Iterations[0]; it.Steps == 0 || it.KL == nil || *it.KL == 0 {
		t.Errorf("%d steps, KL %v to the start: nothing has moved", it.Steps, it.KL)
	}
}

// TestNewPlugins does with each new project what its README says, on the sources that this test is of.
func TestNewPlugins(t *testing.T) {
	sources, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		t.Run("go/"+string(kind), func(t *testing.T) {
			t.Parallel()
			goTool, err := exec.LookPath("go")
			if err != nil {
				t.Skip("NOT TESTED: a new plugin in Go, for there is no go command")
			}
			dir := filepath.Join(t.TempDir(), "mine")
			works(t, ".", "plugin", "new", string(kind), "mine", "--sdk", sources, "--dir", dir)
			if files := ran(t, dir, goTool, "list", "-f", "{{.GoFiles}} {{.TestGoFiles}}", "."); files != "[main.go mine.go] [mine_test.go]\n" {
				t.Errorf("the project has %s", files)
			}
			if unformatted := ran(t, dir, filepath.Join(filepath.Dir(goTool), "gofmt"), "-l", "."); unformatted != "" {
				t.Errorf("not formatted: %s", unformatted)
			}
			plugin := "plugins/dno-" + string(kind) + "-mine"
			if runtime.GOOS == "windows" {
				plugin += ".exe"
			}
			ran(t, dir, goTool, "mod", "tidy", "-diff")
			ran(t, dir, goTool, "vet", "./...")
			ran(t, dir, goTool, "test", "./...")
			ran(t, dir, goTool, "build", "-o", plugin, ".")
			works(t, dir, "plugin", "check", plugin)
			works(t, dir, "plugin", "install", plugin)
			trained(t, dir)
		})
	}
	t.Run("exec/oracle", func(t *testing.T) {
		t.Parallel()
		skipOnWindows(t)
		dir := filepath.Join(t.TempDir(), "mine")
		works(t, ".", "plugin", "new", "oracle", "mine", "--lang", "exec", "--dir", dir)
		ran(t, dir, "./test.sh")
		works(t, dir, "plugin", "check", "judge.sh", "--exec")
		trained(t, dir)

		// The test script can fail.
		judge := filepath.Join(dir, "judge.sh")
		text, err := os.ReadFile(judge)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("length(a) < length(b)"), []byte("length(a) > length(b)"))
		if err := os.WriteFile(judge, text, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("./test.sh")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("another judge passes: %s", out)
		}
	})
}

// A path is written into go.mod as its grammar wants it.
func TestModuleText(t *testing.T) {
	for path, want := range map[string]string{
		"../..": "../..", "/home/a/dno": "/home/a/dno", "/home/a b/dno": `"/home/a b/dno"`, "C:/dno": "C:/dno",
	} {
		if got := moduleText(path); got != want {
			t.Errorf("%s becomes %s, want %s", path, got, want)
		}
	}
}

func TestEveryTemplateOfALanguageIsWhole(t *testing.T) {
	for _, lang := range []string{"go", "python"} {
		for _, kind := range kinds {
			files, err := render(lang, blanks{Name: "mine", Title: "Mine", SDK: "..", Kind: string(kind), Func: title(string(kind)), Article: "A", File: "mine"})
			if err != nil || len(files) < 9 {
				t.Fatalf("%s/%s has %d files: %v", lang, kind, len(files), err)
			}
			for name, data := range files {
				if bytes.Contains(data, []byte("<no value>")) || bytes.Contains(data, []byte("{{")) || !bytes.HasSuffix(data, []byte("\n")) {
					t.Errorf("%s/%s: %s has a blank without a value, or no last line", lang, kind, name)
				}
			}
		}
	}
}
