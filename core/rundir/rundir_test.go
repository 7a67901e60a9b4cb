package rundir

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/sdk"
)

// The test binary, run with the argument "hold" and a directory, is another process that writes to
// that run: it says "held" and keeps the lock until its standard input ends.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "hold" {
		run, err := Open(os.Args[2])
		if err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
			os.Exit(int(sdk.CodeOf(err)))
		}
		os.Stdout.WriteString("held\n")
		io.Copy(io.Discard, os.Stdin)
		run.Close()
		return
	}
	os.Exit(m.Run())
}

func header() Header {
	return Header{
		Script: "my.lua", ScriptDir: "/here", Files: map[string]string{"test": "test.jsonl"}, Seed: 1<<63 + 1,
		Settings: []string{"lr=0"}, Model: "m", Iterations: 2,
		Started: "2024-04-04T00:00:00Z",
	}
}

func create(t *testing.T) *Run {
	t.Helper()
	run, err := Create(filepath.Join(t.TempDir(), "a", "run"), header(), []byte("return {}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { run.Close() })
	return run
}

func TestARunReadsBackWhatItWasCreatedWith(t *testing.T) {
	run := create(t)
	want := header()
	want.Format = Format
	if diff := cmp.Diff(want, run.Header()); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	if !Exists(run.Dir()) || Exists(filepath.Dir(run.Dir())) {
		t.Error("Exists does not tell a run from another folder")
	}
	again, err := Read(run.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, again.Header()); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
	if text, err := again.Script(); err != nil || string(text) != "return {}\n" {
		t.Errorf("the script is %q: %v", text, err)
	}
	if done, err := again.Iterations(); err != nil || len(done) != 0 {
		t.Errorf("a new run has the iterations %v: %v", done, err)
	}
	if reason, err := again.Concluded(); err != nil || reason != "" {
		t.Errorf("a new run has ended with %q: %v", reason, err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestF36ARunIsWrittenByOneAtATime(t *testing.T) {
	run := create(t)
	wantLocked := func(_ *Run, err error) {
		t.Helper()
		if sdk.CodeOf(err) != sdk.CodeLocked || !strings.Contains(err.Error(), run.Dir()) {
			t.Errorf("a second writer got %v", err)
		}
	}
	wantLocked(Open(run.Dir()))
	wantLocked(Create(run.Dir(), header(), nil, nil))
	if _, err := Read(run.Dir()); err != nil {
		t.Errorf("a reader is locked out: %v", err)
	}
	if err := run.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := Open(run.Dir())
	if err != nil {
		t.Fatalf("the lock is not free after Close: %v", err)
	}
	second.Close()
}

func TestCreateRefusesARunAndTouchesNothing(t *testing.T) {
	run := create(t)
	run.Close()
	before := mustRead(t, filepath.Join(run.Dir(), "run.json"))
	other := header()
	other.Seed = 7
	_, err := Create(run.Dir(), other, []byte("other"), nil)
	var coded *sdk.Error
	if sdk.CodeOf(err) != sdk.CodeUsage || !errors.As(err, &coded) || !strings.Contains(coded.Hint, "dno resume "+run.Dir()) {
		t.Errorf("it got %v", err)
	}
	if string(before) != string(mustRead(t, filepath.Join(run.Dir(), "run.json"))) || string(mustRead(t, filepath.Join(run.Dir(), "script.lua"))) != "return {}\n" {
		t.Error("the old run was changed")
	}
	if second, err := Open(run.Dir()); err != nil {
		t.Errorf("the refused Create kept the lock: %v", err)
	} else {
		second.Close()
	}
}

// The kernel frees the lock with its holder, however that ends.
func TestF36AnotherProcessHoldsTheLockUntilItEnds(t *testing.T) {
	run := create(t)
	run.Close()
	other := exec.Command(os.Args[0], "hold", run.Dir())
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process says %q: %v", line, err)
	}
	if _, err := Open(run.Dir()); sdk.CodeOf(err) != sdk.CodeLocked {
		t.Errorf("beside another process: %v", err)
	}
	if got, err := Read(run.Dir()); err != nil || got.Header().Seed != header().Seed {
		t.Errorf("a reader beside another process: %v", err)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait() // it was killed
	second, err := Open(run.Dir())
	if err != nil {
		t.Fatalf("after the other was killed: %v", err)
	}
	second.Close()
}

func TestIterationsAreReadInOrder(t *testing.T) {
	run := create(t)
	loss := 0.25
	for i := range 3 {
		if err := run.Finish(IterationRecord{Iteration: i, Loss: loss, LossState: []byte{0, 255}, Pairs: map[string]int{"student_student": i}}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := run.Iterations()
	if err != nil || len(got) != 3 || got[2].Pairs["student_student"] != 2 || got[2].Loss != loss || string(got[2].LossState) != "\x00\xff" {
		t.Errorf("%+v, %v", got, err)
	}
	// A record of another iteration than its place says.
	if err := run.Finish(IterationRecord{Iteration: 5}); err != nil {
		t.Fatal(err)
	}
	if _, err := run.Iterations(); sdk.CodeOf(err) != sdk.CodeCorrupt || !strings.Contains(err.Error(), "run.jsonl:4: it is iteration 5, want 3") {
		t.Errorf("with a gap: %v", err)
	}
}

func TestTheEndIsRecordedWithItsReason(t *testing.T) {
	run := create(t)
	if err := run.Conclude("all 2 iterations are done"); err != nil {
		t.Fatal(err)
	}
	if reason, err := run.Concluded(); err != nil || reason != "all 2 iterations are done" {
		t.Errorf("%q, %v", reason, err)
	}
	mustWrite(t, filepath.Join(run.Dir(), "end.json"), []byte("{}\n"))
	if _, err := run.Concluded(); sdk.CodeOf(err) != sdk.CodeCorrupt {
		t.Errorf("a damaged end: %v", err)
	}
}

func TestAnIterationsFolderIsMadeByTheWriterAlone(t *testing.T) {
	run := create(t)
	reader, err := Read(run.Dir())
	if err != nil {
		t.Fatal(err)
	}
	it, err := reader.Iteration(12)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(run.Dir(), "iter-012")
	if _, err := os.Stat(folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a reader made %s: %v", folder, err)
	}
	var v map[string]any
	if ok, err := it.ReadRecord(PlanFile, &v); ok || err != nil {
		t.Errorf("a record that is not there: %v, %v", ok, err)
	}
	if it, err = run.Iteration(12); err != nil {
		t.Fatal(err)
	}
	if it.Path(PlanFile) != filepath.Join(folder, "plan.json") || it.Checkpoint() != filepath.Join(folder, "checkpoint") {
		t.Errorf("the paths are %s and %s", it.Path(PlanFile), it.Checkpoint())
	}
	if err := it.WriteRecord(PlanFile, map[string]int{"samples": 5}); err != nil {
		t.Fatal(err)
	}
	if ok, err := it.ReadRecord(PlanFile, &v); !ok || err != nil || v["samples"] != 5.0 {
		t.Errorf("a record that is there: %v, %v, %v", ok, err, v)
	}
	mustWrite(t, it.Path(PlanFile), []byte(`{"samples":6,"crc":"00000000"}`))
	if ok, err := it.ReadRecord(PlanFile, &v); ok || sdk.CodeOf(err) != sdk.CodeCorrupt {
		t.Errorf("a record with a wrong checksum: %v, %v", ok, err)
	}
}

func TestWhatIsNoRunIsAUsageError(t *testing.T) {
	dir := t.TempDir()
	for name, open := range map[string]func(string) (*Run, error){"open": Open, "read": Read} {
		if _, err := open(dir); sdk.CodeOf(err) != sdk.CodeUsage || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s an empty folder: %v", name, err)
		}
		if _, err := open(filepath.Join(dir, "none")); sdk.CodeOf(err) != sdk.CodeUsage {
			t.Errorf("%s a missing folder: %v", name, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("looking has made %v", left)
	}
	// A run of a later version.
	later := header()
	later.Format = Format + 1
	if err := writeRecord(filepath.Join(dir, "run.json"), later); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); sdk.CodeOf(err) != sdk.CodeUsage || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("format 2: %v", err)
	}
	mustWrite(t, filepath.Join(dir, "run.json"), nil)
	if _, err := Open(dir); sdk.CodeOf(err) != sdk.CodeCorrupt {
		t.Errorf("an empty run.json: %v", err)
	}
}

func TestARunDirectoryThatCannotBeMadeIsAnIOError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	mustWrite(t, file, nil)
	if _, err := Create(filepath.Join(file, "run"), header(), nil, nil); sdk.CodeOf(err) != sdk.CodeIO {
		t.Errorf("below a file: %v", err)
	}
}

// F6: a folder of another format is refused, and so is a run whose input has changed, one key at a time.
func TestF6ARunOfAnotherFormat(t *testing.T) {
	for _, format := range []int{0, Format - 1, Format + 1} {
		run := create(t)
		run.Close()
		h := header()
		h.Format = format
		if err := writeRecord(filepath.Join(run.Dir(), "run.json"), h); err != nil {
			t.Fatal(err)
		}
		for name, open := range map[string]func(string) (*Run, error){"read": Read, "open": Open} {
			if _, err := open(run.Dir()); sdk.CodeOf(err) != sdk.CodeUsage || !strings.Contains(err.Error(), fmt.Sprintf("format %d", format)) {
				t.Errorf("%s a run of format %d: %v", name, format, err)
			}
		}
	}
}

func TestF6WhatARunDependsOnMayNotChange(t *testing.T) {
	run := create(t)
	began := map[string]string{"kernel": "avx2", "settings.lr": "0.1", "data.train": strings.Repeat("a", 64)}
	if err := run.Pin(began); err != nil {
		t.Fatal(err)
	}
	for key, was := range began {
		now := maps.Clone(began)
		now[key] = "other"
		err := run.Pin(now)
		var coded *sdk.Error
		if sdk.CodeOf(err) != sdk.CodeUsage || !strings.Contains(err.Error(), key+` is "other", it was "`+was[:3]) ||
			!errors.As(err, &coded) || !strings.Contains(coded.Hint, "--allow-change "+key) {
			t.Errorf("%s has changed: %v", key, err)
		}
		if p, err := run.Pins(); err != nil || !maps.Equal(p.Values, began) || len(p.Changes) > 0 {
			t.Errorf("a refusal changed run.lock to %+v, %v", p, err)
		}
	}
	if err := run.Allow("kernels"); sdk.CodeOf(err) != sdk.CodeUsage {
		t.Errorf("a key that is not there is allowed: %v", err)
	}
	if err := run.Allow("kernel"); err != nil {
		t.Fatal(err)
	}
	now := map[string]string{"kernel": "avx512", "settings.lr": "0.1", "plugin.loss/dpo": "1"}
	if err := run.Pin(now); err != nil {
		t.Fatal(err)
	}
	p, err := run.Pins()
	if err != nil || p.Values["kernel"] != "avx512" || p.Values["plugin.loss/dpo"] != "1" || len(p.Changes) != 1 || p.Changes[0].From != "avx2" {
		t.Errorf("run.lock holds %+v, %v", p, err)
	}
	now["settings.lr"] = "0.2"
	if err := run.Pin(now); err == nil {
		t.Error("a change of another key passed with the allowed one")
	}
}

func TestARollbackKeepsWhatWasPaidFor(t *testing.T) {
	run := create(t)
	j := openJudgments(t, run)
	p := 1.0
	if err := j.Add(Judgment{Key: keyOf(1), P: &p}); err != nil {
		t.Fatal(err)
	}
	for n := range 4 {
		it, err := run.Iteration(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := it.WriteRecord(PlanFile, map[string]int{"n": n}); err != nil {
			t.Fatal(err)
		}
		if n < 3 {
			if err := run.Finish(IterationRecord{Iteration: n}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := run.Conclude("done"); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{-1, 3} {
		if _, err := run.Rollback(n); sdk.CodeOf(err) != sdk.CodeUsage {
			t.Errorf("back to iteration %d: %v", n, err)
		}
	}
	if n, err := run.Rollback(1); n != 1 || err != nil {
		t.Errorf("%d were taken back, %v; want 1", n, err)
	}
	done, err := run.Iterations()
	if reason, _ := run.Concluded(); err != nil || len(done) != 2 || reason != "" {
		t.Errorf("%d iterations are left, the run has ended with %q: %v", len(done), reason, err)
	}
	folders, _ := filepath.Glob(filepath.Join(run.Dir(), "iter-*"))
	if len(folders) != 2 {
		t.Errorf("the folders are %v", folders)
	}
	if again := openJudgments(t, run); again.Len() != 1 {
		t.Errorf("%d judgments are left", again.Len())
	}
}
