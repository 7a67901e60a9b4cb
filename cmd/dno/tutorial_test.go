//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The pages that teach by commands are run: each in a fresh folder, from top to bottom.
//
//   - In a ```console block a line that begins with "$ " is a command of the shell. It has to end with
//     0, or with N where a line "exit status N" follows it.
//   - The other lines that follow are what it prints, on either output; where none follow, what it
//     prints is not looked at. A line "..." stands for any number of lines, "…" for any text in a line.
//   - A command that is cd and a folder holds for what follows.
//   - A block like ```lua title=my.lua is written to that file; .sh files can be run.
func TestTutorialsRun(t *testing.T) {
	if testing.Short() {
		t.Skip("the pages train for a minute")
	}
	pages := glob(t, "../../docs/tutorial/*.md", "../../docs/howto/*.md")
	if len(pages) == 0 {
		t.Fatal("there are no pages")
	}
	for _, path := range pages {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".md"), func(t *testing.T) {
			t.Parallel()
			if err := runPage(t.TempDir(), string(read(t, path))); err != nil {
				t.Errorf("%s:%v", path, err)
			}
		})
	}
}

func glob(t *testing.T, patterns ...string) (out []string) {
	t.Helper()
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	return out
}

// step is one thing that a page does: a file that it shows, or a command.
type step struct {
	line    int // in the page
	file    string
	content string
	command string
	want    []string // the lines that follow the command
	exit    int
}

var (
	fence      = regexp.MustCompile("^```([a-z]*)(?: +title=([A-Za-z0-9._-]+))?$")
	exitStatus = regexp.MustCompile(`^exit status (\d+)$`)
)

// parsePage lists a page's steps. Errors begin with the number of the line.
func parsePage(text string) ([]step, error) {
	var steps []step
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		if !strings.HasPrefix(lines[i], "```") {
			continue
		}
		opened := fence.FindStringSubmatch(lines[i])
		if opened == nil {
			return nil, fmt.Errorf("%d: want ```language or ```language title=file, have %s", i+1, lines[i])
		}
		start := i + 1
		for i++; i < len(lines) && lines[i] != "```"; i++ {
		}
		if i == len(lines) {
			return nil, fmt.Errorf("%d: the block is not closed", start)
		}
		body := lines[start:i]
		switch {
		case opened[2] != "":
			steps = append(steps, step{line: start, file: opened[2], content: strings.Join(body, "\n") + "\n"})
		case opened[1] == "console":
			commands, err := parseConsole(body, start)
			if err != nil {
				return nil, err
			}
			steps = append(steps, commands...)
		}
	}
	return steps, nil
}

func parseConsole(lines []string, start int) ([]step, error) {
	var steps []step
	for i, line := range lines {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			steps = append(steps, step{line: start + i + 1, command: command})
			continue
		}
		if len(steps) == 0 {
			return nil, fmt.Errorf("%d: a console block begins with a command: $ ...", start+i+1)
		}
		s := &steps[len(steps)-1]
		if m := exitStatus.FindStringSubmatch(line); m != nil {
			s.exit, _ = strconv.Atoi(m[1]) // digits alone
			continue
		}
		s.want = append(s.want, line)
	}
	return steps, nil
}

// runPage does in dir what the page says. Errors begin with the number of the line.
func runPage(dir, text string) error {
	steps, err := parsePage(text)
	if err != nil {
		return err
	}
	for _, s := range steps {
		if s.file != "" {
			mode := os.FileMode(0o644)
			if strings.HasSuffix(s.file, ".sh") || strings.HasSuffix(s.file, ".py") {
				mode = 0o755
			}
			err = os.WriteFile(filepath.Join(dir, s.file), []byte(s.content), mode)
		} else if folder, ok := strings.CutPrefix(s.command, "cd "); ok && !strings.ContainsAny(folder, " &;|") {
			dir = filepath.Join(dir, folder)
			_, err = os.Stat(dir)
		} else {
			err = s.run(dir)
		}
		if err != nil {
			return fmt.Errorf("%d: %w", s.line, err)
		}
	}
	return nil
}

func (s step) run(dir string) error {
	cmd := exec.Command("sh", "-c", s.command)
	cmd.Dir = dir
	sources, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	cmd.Env = append(os.Environ(), "HOME="+dir, "PWD="+dir, "DNO_SDK="+sources) // a reader's clone of dno
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {                    // HOME has none
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			return err
		}
		cmd.Env = append(cmd.Env, name+"="+strings.TrimSpace(string(out)))
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("%s: %w", s.command, err)
	}
	if got := cmd.ProcessState.ExitCode(); got != s.exit {
		return fmt.Errorf("%s: exit status %d, want %d; it printed:\n%s", s.command, got, s.exit, out)
	}
	if len(s.want) == 0 {
		return nil
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if !matchLines(s.want, got) {
		return fmt.Errorf("%s: its output is not what the page shows (-page +output):\n%s", s.command,
			cmp.Diff(strings.Join(s.want, "\n"), strings.Join(got, "\n")))
	}
	return nil
}

// matchLines holds lines against a pattern in which "..." is any number of lines.
func matchLines(want, got []string) bool {
	for i, w := range want {
		if w == "..." {
			for skip := range len(got) - i + 1 {
				if matchLines(want[i+1:], got[i+skip:]) {
					return true
				}
			}
			return false
		}
		if i == len(got) || !matchLine(w, got[i]) {
			return false
		}
	}
	return len(want) == len(got)
}

// matchLine holds a line against one in which "…" is any text. White space at the end is not seen
// on a page, so it is left out.
func matchLine(want, got string) bool {
	parts := strings.Split(strings.TrimRight(want, " "), "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(strings.TrimRight(got, " \r"))
}

func TestAPageIsRunAsItReads(t *testing.T) {
	t.Parallel()
	if err := runPage(t.TempDir(), string(read(t, "testdata/tutorial/page.md"))); err != nil {
		t.Errorf("testdata/tutorial/page.md:%v", err)
	}
}

func TestAPageThatIsNotTrueFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ page, want string }{
		"another exit status than 0":       {"```console\n$ exit 3\n```", "2: exit 3: exit status 3, want 0"},
		"another exit status than stated":  {"```console\n$ exit 3\nexit status 4\n```", "exit status 3, want 4"},
		"success where failure is stated":  {"```console\n$ true\nexit status 1\n```", "exit status 0, want 1"},
		"another line":                     {"text\n```console\n$ echo a\nb\n```", "3: echo a: its output"},
		"a line more than printed":         {"```console\n$ echo a\na\nb\n```", "its output"},
		"a line less than printed":         {"```console\n$ printf 'a\\nb\\n'\na\n```", "its output"},
		"dots that match nothing after it": {"```console\n$ printf 'a\\nb\\n'\n...\nc\n```", "its output"},
		"dots in a line, another end":      {"```console\n$ echo abc\na…d\n```", "its output"},
		"an error message not shown":       {"```console\n$ dno nope\nexit status 2\ndno: other\n```", "its output"},
		"a command that is not there":      {"```console\n$ no-such-command\n```", "exit status 127"},
		"a block that is not closed":       {"```console\n$ true\n", "1: the block is not closed"},
		"output before a command":          {"```console\na\n```", "2: a console block begins with a command"},
		"a title that leaves the folder":   {"```sh title=../x.sh\ntrue\n```", "1: want ```language"},
		"only the later command wrong":     {"```console\n$ true\n```\n\n```console\n$ true\n$ false\n```", "7: false: exit status 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := runPage(t.TempDir(), test.page); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("it ended with %v, want %q", err, test.want)
			}
		})
	}
}

func TestLinesAreHeldAgainstAPattern(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		want, got string
		match     bool
	}{
		"the same":                            {"a|b", "a|b", true},
		"dots for no line":                    {"...|a", "a", true},
		"dots for many":                       {"a|...|d", "a|b|c|d", true},
		"dots at the end":                     {"a|...", "a|b|c", true},
		"dots twice, first match not the one": {"...|a|...|a|b|...", "x|a|y|a|a|b|z", true},
		"dots alone":                          {"...", "", true},
		"a line in the wrong order":           {"...|b|...|a|...", "a|b", false},
		"text for text":                       {"12*7=…", "12*7=84;84+1=85", true},
		"text for none":                       {"a…", "a", true},
		"text twice":                          {"…: … s", "x: 5 s", true},
		"a pattern's signs are text":          {"a.c [1]…", "abc [1]", false},
		"white space at the end":              {"a ", "a   ", true},
		"white space within":                  {"a b", "a  b", false},
		"an empty line is a line":             {"a||b", "a|b", false},
	} {
		if got := matchLines(strings.Split(test.want, "|"), strings.Split(test.got, "|")); got != test.match {
			t.Errorf("%s: %q against %q is %v", name, test.got, test.want, got)
		}
	}
}
