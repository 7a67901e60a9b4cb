package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// leak is an oracle that does all it can with what it sees: it notes its environment, prints it, and
// returns it as its reason, or abstains with it.
const leak = `#!/bin/sh
env >> seen.txt
env >&2
while IFS= read -r line; do
  id=$(printf '%%s' "$line" | sed 's/^{"id":"\([^"]*\)".*/\1/')
  printf '{"id":"%%s",%s}\n' "$id"
done
`

// A key in the environment reaches the plugin that the script allows it, and nothing else: no other
// plugin, no log, no record, no report, no error, no process list (F33).
func TestF33AKeyReachesOnlyThePluginThatIsAllowedIt(t *testing.T) {
	skipOnWindows(t)
	key, other := "sk-CANARY-"+rand.Text(), "sk-OTHER-"+rand.Text()
	environ := []string{"DNO_CANARY_KEY=" + key, "OPENAI_API_KEY=" + other}
	for name, c := range map[string]struct {
		answer  string // of the oracle
		env     string // what the script allows it
		code    int
		allowed bool
	}{
		"an oracle that is allowed nothing":                     {answer: `"p":1,"reason":"'"$DNO_CANARY_KEY$OPENAI_API_KEY"'"`},
		"an oracle that is allowed the key, and returns it":     {answer: `"p":1,"reason":"'"$DNO_CANARY_KEY"'"`, env: `, env=["DNO_CANARY_KEY"]`, allowed: true},
		"an oracle that abstains with the key":                  {answer: `"abstain":"'"$DNO_CANARY_KEY"'"`, env: `, env=["DNO_CANARY_KEY"]`, code: 5, allowed: true},
		"an oracle whose program breaks the rules with the key": {answer: `"q":"'"$DNO_CANARY_KEY"'"`, env: `, env=["DNO_CANARY_KEY"]`, code: 4, allowed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := small(t)
			if err := os.WriteFile(filepath.Join(dir, "leak.sh"), fmt.Appendf(nil, leak, c.answer), 0o755); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			cmd := exec.Command("dno", "run", "small.lua", "--dir", "r", "--verbose", "--set", "iterations=1", "--set", "samples=2", "--set", "min_margin=0",
				"--set", fmt.Sprintf(`oracle={"command", path="leak.sh", order_matters=false%s}`, strings.NewReplacer("[", "{", "]", "}").Replace(c.env)))
			cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = dir, &out, &out, append(os.Environ(), environ...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			watched := make(chan []string)
			done := make(chan struct{})
			go func() { watched <- watchProcesses(cmd.Process.Pid, done, key, other) }()
			err := cmd.Wait()
			close(done)
			found := <-watched
			if code := exitCode(err); code != c.code {
				t.Fatalf("it exited with %d, want %d\n%s", code, c.code, &out)
			}
			for _, line := range found {
				ofTheOracle := strings.Contains(line, "oracle/command") || !strings.Contains(line, "plugin serve") // or a program that it started
				if !c.allowed || !ofTheOracle || !strings.HasPrefix(line, "environ: ") || strings.Contains(line, "other key") {
					t.Errorf("the key is in a process: %s", line)
				}
			}
			// What the oracle saw is the control: the test could else not fail.
			seen := string(read(t, filepath.Join(dir, "seen.txt")))
			if strings.Contains(seen, key) != c.allowed || strings.Contains(seen, other) {
				t.Errorf("the oracle sees\n%s", seen)
			}
			report, errs, _ := dno(t, dir, environ, "report", "r")
			asJSON, _, _ := dno(t, dir, environ, "report", "--json", "r")
			samples, _, _ := dno(t, dir, environ, "samples", "r")
			for where, text := range map[string]string{"output": out.String(), "report": report + errs + asJSON, "samples": samples} {
				if strings.Contains(text, key) || strings.Contains(text, other) {
					t.Errorf("the key is in the %s:\n%s", where, text)
				}
			}
			err = filepath.WalkDir(filepath.Join(dir, "r"), func(path string, d fs.DirEntry, err error) error {
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				data, err := os.ReadFile(path)
				if bytes.Contains(data, []byte(key)) || bytes.Contains(data, []byte(other)) {
					t.Errorf("the key is in %s", path)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// watchProcesses looks at all descendants of a process again and again, and says in which environments
// and command lines it has seen a key.
func watchProcesses(root int, done <-chan struct{}, key, other string) []string {
	found := map[string]bool{}
	own, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", root))
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return slices.Collect(maps.Keys(found))
		case <-tick.C:
		}
		for _, pid := range descendants(root) {
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // of a process that is gone: nothing
			if bytes.Equal(cmdline, own) {
				continue // forked, and not yet another program: it is still the parent's memory
			}
			environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			name := strings.ReplaceAll(string(cmdline), "\x00", " ")
			for where, data := range map[string][]byte{"cmdline: ": cmdline, "environ: ": environ} {
				if bytes.Contains(data, []byte(key)) {
					found[where+name] = true
				}
				if bytes.Contains(data, []byte(other)) {
					found[where+"other key: "+name] = true
				}
			}
		}
	}
}

func descendants(root int) (out []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", root))
	for _, path := range lists {
		list, _ := os.ReadFile(path)
		for _, field := range strings.Fields(string(list)) {
			var pid int
			if _, err := fmt.Sscan(field, &pid); err == nil {
				out = append(append(out, pid), descendants(pid)...)
			}
		}
	}
	return out
}
