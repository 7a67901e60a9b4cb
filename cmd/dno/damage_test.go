//go:build unix

package main

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/dno-project/dno/core/rundir"
)

// F4: a bit in any 64th byte of any file of any checkpoint is found, and the file is named.
func TestF4EveryDamagedByteOfACheckpointIsNamed(t *testing.T) {
	dir := t.TempDir()
	testSize(t, dir)
	works(t, dir, "run", "kill.lua", "--dir", "r")
	run := filepath.Join(dir, "r")
	if found, err := rundir.Fsck(run); err != nil || len(found) > 0 {
		t.Fatalf("a run that went well: %+v, %v", found, err)
	}
	files, err := filepath.Glob(filepath.Join(run, "iter-*", "checkpoint", "*"))
	if err != nil || len(files) < 15 {
		t.Fatalf("%d files of checkpoints: %v", len(files), err)
	}
	flips := 0
	for _, path := range files {
		data := read(t, path)
		if len(data) > 64<<10 {
			t.Fatalf("%s has %d bytes: the experiment is not of test size", path, len(data))
		}
		for at := 0; at < len(data); at += 64 {
			data[at] ^= 1 << (at / 64 % 8)
			write(t, path, data)
			found, err := rundir.Fsck(run)
			if err != nil {
				t.Fatal(err)
			}
			if len(found) != 1 || !found[0].Damage || !strings.Contains(found[0].What, path) {
				t.Fatalf("byte %d of %s is changed, and fsck finds %+v", at, path, found)
			}
			data[at] ^= 1 << (at / 64 % 8)
			flips++
		}
		write(t, path, data)
	}
	t.Logf("%d bytes of %d files", flips, len(files))
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// F5: a record that is torn at any byte of the last two is told and made again; one that is damaged before the end is
// named, and the run is not gone on with.
func TestF5EveryTruncationOfTheLastTwoRecords(t *testing.T) {
	dir := t.TempDir()
	testSize(t, dir)
	works(t, dir, "run", "kill.lua", "--dir", "r")
	run := filepath.Join(dir, "r")
	for _, name := range []string{rundir.JudgmentsFile, "run.jsonl", "plugins.jsonl", "iter-001/completions.jsonl", "iter-002/verdicts.jsonl", "iter-002/steps.jsonl", "iter-002/eval-test.jsonl"} {
		data := read(t, filepath.Join(run, name))
		alone := t.TempDir() // each look at it is then a short one
		path := filepath.Join(alone, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(alone, "run.json"), read(t, filepath.Join(run, "run.json")))
		lines := strings.SplitAfter(strings.TrimSuffix(string(data), "\n"), "\n")
		last := len(strings.Join(lines[max(0, len(lines)-2):], "")) + 1
		for cut := 1; cut <= last; cut++ {
			write(t, path, data[:len(data)-cut])
			whole := cut == last || data[len(data)-cut-1] == '\n'
			found, err := rundir.Fsck(alone)
			if err != nil {
				t.Fatal(err)
			}
			torn := 0
			for _, f := range found {
				if f.Path == path && !f.Damage {
					torn++
				} else if strings.HasPrefix(f.Path, path) {
					t.Fatalf("%s, %d bytes short: %+v", name, cut, f)
				}
			}
			if whole != (torn == 0) {
				t.Fatalf("%s, %d bytes short: fsck finds %+v", name, cut, found)
			}
		}
	}
}

// F36: of twenty that go on with a run at once one does, and the others are told who holds it. When that one is
// killed the next one starts at once.
func TestF36OneOfTwentyGoesOn(t *testing.T) {
	dir := t.TempDir()
	testSize(t, dir)
	interrupted := func() {
		t.Helper()
		_, _ = watched(dir, func(event, stage string) { // it is killed: how it ends is of no interest
			if event == "started" && stage == "iteration 1: train" {
				p, _ := processes.Load(dir)
				_ = p.(*os.Process).Kill()
			}
		}, "run", "kill.lua", "--dir", "r")
	}
	interrupted()
	var mu sync.Mutex
	codes := map[int]int{}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			cmd := exec.Command("dno", "resume", "r")
			cmd.Dir = dir
			out, err := cmd.CombinedOutput()
			mu.Lock()
			defer mu.Unlock()
			code := exitCode(err)
			if codes[code]++; code == 8 && !strings.Contains(string(out), "another process is writing to it") || code == 2 && !strings.Contains(string(out), "it is finished") {
				t.Errorf("exit code %d: %s", code, out)
			}
		})
	}
	wg.Wait()
	// One that comes after the winner's end finds a finished run.
	if codes[0] != 1 || codes[8]+codes[2] != 19 || codes[8] == 0 {
		t.Errorf("the exit codes are %v, want one 0 and 19 of 8 or 2", codes)
	}
	if err := os.RemoveAll(filepath.Join(dir, "r")); err != nil {
		t.Fatal(err)
	}
	interrupted()
	if _, errs, code := dno(t, dir, nil, "resume", "r"); code != 0 {
		t.Errorf("after a kill the next one exits with %d: %s", code, errs)
	}
}

// F43: a run is made again from its records alone, with no oracle at hand, to the same bytes; what was changed in it is named.
func TestF43AReplayNeedsNoOracleAndFindsWhatWasChanged(t *testing.T) {
	dir := t.TempDir()
	testSize(t, dir)
	works(t, dir, "run", "kill.lua", "--dir", "r")
	asked := string(read(t, filepath.Join(dir, "asked.log")))

	// Another run of the same seed has nothing to ask.
	works(t, dir, "run", "kill.lua", "--dir", "s", "--reuse", "r")
	if again := string(read(t, filepath.Join(dir, "asked.log"))); again != asked {
		t.Errorf("with --reuse the oracle was asked %d bytes of questions more", len(again)-len(asked))
	}

	if err := os.Remove(filepath.Join(dir, "judge.sh")); err != nil {
		t.Fatal(err)
	}
	if out := works(t, dir, "replay", "r", "--out", "again"); !strings.Contains(out, "2 iterations made again") {
		t.Errorf("it prints %q", out)
	}
	want := finalFiles(t, filepath.Join(dir, "r"), 3)
	for name, text := range finalFiles(t, filepath.Join(dir, "again"), 3) {
		if want[name] != text {
			t.Errorf("%s differs", name)
		}
	}

	// A text that was changed by somebody who knows how to seal a record.
	path := filepath.Join(dir, "r", "iter-002", rundir.CompletionsFile)
	groups, err := rundir.ReadLog[rundir.GroupRecord](path)
	if err != nil {
		t.Fatal(err)
	}
	groups[3].Completions[1].Text += "."
	if err := rundir.WriteLog(path, groups); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := dno(t, dir, nil, "replay", "r"); code != 10 || !strings.Contains(errs, "iter-002/completions.jsonl differs in line 4") {
		t.Errorf("after a change it exits with %d: %s", code, errs)
	}
}

// F6: a run directory of this format stays readable. It was made by this test, with -format DIR, and is never made again.
func TestF6ARunOfEachFormatIsRead(t *testing.T) {
	if *makeFormat != "" {
		dir := t.TempDir()
		testSize(t, dir)
		works(t, dir, "run", "kill.lua", "--dir", "r", "--set", "iterations=1", "--set", "samples=2")
		r, err := rundir.Read(filepath.Join(dir, "r"))
		if err != nil {
			t.Fatal(err)
		}
		header := r.Header()
		header.ScriptDir = "/here" // no path of the machine
		if err := rundir.WriteLog(filepath.Join(dir, "r", "run.json"), []rundir.Header{header}); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(*makeFormat, os.DirFS(filepath.Join(dir, "r"))); err != nil {
			t.Fatal(err)
		}
	}
	runs, err := filepath.Glob("testdata/format-*")
	if err != nil || len(runs) == 0 {
		t.Fatalf("there are no runs: %v", err)
	}
	for _, run := range runs {
		if out := works(t, ".", "fsck", run); !strings.Contains(out, "is whole") {
			t.Errorf("%s: %s", run, out)
		}
		if out := works(t, ".", "status", run); !strings.Contains(out, "finished: all 1 iterations are done") {
			t.Errorf("%s: %s", run, out)
		}
		r, err := rundir.Read(run)
		if err != nil {
			t.Fatal(err)
		}
		it, err := r.Iteration(1)
		if err != nil {
			t.Fatal(err)
		}
		e, err := loadModel("tiny", copyOfTestSize(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (&policy{engine: e}).Load(t.Context(), it.Checkpoint()); err != nil {
			t.Errorf("%s: %v", run, err)
		}
		if done, err := r.Iterations(); err != nil || done[1].Fingerprint != e.Fingerprint() {
			t.Errorf("%s: the checkpoint has other weights than the record says: %v", run, err)
		}
	}
}

var makeFormat = flag.String("format", "", "make a run directory of this format there")

func copyOfTestSize(t *testing.T) string {
	dir := t.TempDir()
	testSize(t, dir)
	return dir
}

// F6: a file that a plugin's setting names is part of what the run depends on.
func TestF6AnOracleThatWasEditedIsNotAskedOn(t *testing.T) {
	dir := t.TempDir()
	testSize(t, dir)
	_, _ = watched(dir, func(event, stage string) { // it is killed: how it ends is of no interest
		if event == "done" && stage == "iteration 1: sample and judge" {
			p, _ := processes.Load(dir)
			_ = p.(*os.Process).Kill()
		}
	}, "run", "kill.lua", "--dir", "r")
	write(t, filepath.Join(dir, "judge.sh"), []byte(strings.Replace(judgeScript, "p=0.25", "p=0.5", 1)))
	if _, errs, code := dno(t, dir, nil, "resume", "r"); code != 2 || !strings.Contains(errs, "file.judge.sh is ") {
		t.Errorf("it exits with %d: %s", code, errs)
	}
	works(t, dir, "resume", "r", "--allow-change", "file.judge.sh")
	if text := string(read(t, filepath.Join(dir, "r", rundir.PinsFile))); !strings.Contains(text, `"changes":[{"key":"file.judge.sh"`) {
		t.Errorf("run.lock does not say so: %s", text)
	}
}

// F36: who reads a run while it is written waits for nobody and finds no damage.
func TestF36ReadersAreNotInTheWay(t *testing.T) {
	dir := t.TempDir()
	testSize(t, dir)
	done := make(chan struct{})
	looks := 0
	begun := make(chan struct{})
	var once sync.Once
	go func() {
		defer close(done)
		out, err := watched(dir, func(string, string) { once.Do(func() { close(begun) }) }, "run", "kill.lua", "--dir", "r")
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}()
	<-begun
	for running := true; running; looks++ {
		found, err := rundir.Fsck(filepath.Join(dir, "r"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if f.Damage {
				t.Errorf("look %d: %+v", looks, f)
			}
		}
		select {
		case <-done:
			running = false
		default:
		}
	}
	t.Logf("%d looks", looks)
}

// F6: a checkpoint of a later format, and one that cannot be read, are no damage: the run is not gone on with, and nothing is
// made again or removed.
func TestF6ACheckpointThatIsNotDamagedIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		code   int
		says   string
	}{
		"a later format": {func(t *testing.T, dir string) {
			path := filepath.Join(dir, "manifest.json")
			write(t, path, []byte(strings.Replace(string(read(t, path)), `"format":1`, `"format":2`, 1)))
		}, 2, "manifest.json has format 2, this version reads up to 1"},
		"unreadable": {func(t *testing.T, dir string) { // as nothing else is for root
			path := filepath.Join(dir, "model.safetensors")
			if err := errors.Join(os.Remove(path), os.Symlink("model.safetensors", path)); err != nil {
				t.Fatal(err)
			}
		}, 6, "model.safetensors"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := copyOfTestSize(t)
			works(t, dir, "run", "kill.lua", "--dir", "r")
			if err := os.Remove(filepath.Join(dir, "r", "end.json")); err != nil {
				t.Fatal(err)
			}
			checkpoint := filepath.Join(dir, "r", "iter-002", "checkpoint")
			c.change(t, checkpoint)
			before := read(t, filepath.Join(dir, "r", "run.jsonl"))
			if _, errs, code := dno(t, dir, nil, "resume", "r"); code != c.code || !strings.Contains(errs, c.says) {
				t.Errorf("it exits with %d: %s", code, errs)
			}
			if _, err := os.Stat(checkpoint); err != nil || string(read(t, filepath.Join(dir, "r", "run.jsonl"))) != string(before) {
				t.Errorf("the checkpoint or the record of its iteration is gone: %v", err)
			}
		})
	}
}
