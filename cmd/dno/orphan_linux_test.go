package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dno is killed while an oracle's program thinks: its plugins end, and the program. What the program
// had started itself ends when dno is next run.
func TestF28AKilledDnoLeavesNoProcess(t *testing.T) {
	t.Parallel()
	dir := small(t)
	judge := "#!/bin/sh\nsleep 1000 <&- >&- &\necho $$ $! >&2\nwait\n"
	if err := os.WriteFile(filepath.Join(dir, "judge.sh"), []byte(judge), 0o755); err != nil {
		t.Fatal(err)
	}
	tmp, err := os.MkdirTemp("", "dno") // short, for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	cmd := exec.Command("dno", "run", "small.lua", "--dir", "r", "--set", `oracle={"command", path="./judge.sh"}`)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "TMPDIR="+tmp)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var program, child int
	lines := bufio.NewScanner(stderr)
	for child == 0 && lines.Scan() {
		words := strings.Fields(lines.Text()) // the plugin's prints are in dno's log
		if len(words) > 3 && words[1] == "INF" {
			_, _ = fmt.Sscan(words[2]+" "+words[3], &program, &child) // of other lines: nothing
		}
	}
	if child == 0 {
		t.Fatal("the program did not say that it runs")
	}
	plugins := descendants(cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for _, pid := range append(plugins, program) {
		if pid != child {
			waitForEnd(t, pid)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) == 0 {
		t.Fatalf("the killed dno left %v, %v: there is nothing to sweep", left, err)
	}
	if _, errs, code := dno(t, dir, []string{"TMPDIR=" + tmp}, "plan", "small.lua"); code != 0 {
		t.Fatal(errs)
	}
	waitForEnd(t, child)
	if err := nothingLeft(tmp); err != nil {
		t.Error(err)
	}
}

func waitForEnd(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if _, state, _ := bytes.Cut(stat, []byte(") ")); err != nil || bytes.HasPrefix(state, []byte("Z")) {
			return
		}
	}
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	t.Errorf("process %d lives on: %q", pid, cmdline)
}
