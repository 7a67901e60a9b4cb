//go:build failpoint

package loop

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// faultRun starts the run in dir, or goes on with it.
func faultRun(t *testing.T, dir string) error {
	t.Helper()
	var run *rundir.Run
	var err error
	if rundir.Exists(dir) {
		run, err = rundir.Open(dir)
	} else {
		run, err = rundir.Create(dir, rundir.Header{Seed: 7, Iterations: 2}, []byte("-- test"), map[string]string{"seed": "7"})
	}
	if err != nil {
		return err
	}
	defer run.Close()
	if reason, err := run.Concluded(); reason != "" || err != nil {
		return err
	}
	plan := testPlan()
	plan.BatchSize = 8 // several steps an iteration
	l, _, _ := newLoop(t, run, plan)
	l.Experiment.Iterations, l.Experiment.CheckpointEvery = 2, 1
	l.Train, l.Validation, l.Test = prompts("train", 9), prompts("validation", 3), prompts("test", 4)
	return l.Execute(t.Context())
}

// Every call that changes the disk fails once, in every way: full, broken, half written, the process gone, and the
// process gone with all that was not synced. What is left is whole, and the run that goes on writes the same.
func TestF1F2F3EveryFaultOfTheDisk(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // where the disk keeps what it may have to bring back
	whole := filepath.Join(t.TempDir(), "run")
	count := fsx.Inject(fsx.Exit, 0)
	err := faultRun(t, whole)
	count.Restore()
	if err != nil {
		t.Fatal(err)
	}
	run, err := rundir.Read(whole)
	if err != nil {
		t.Fatal(err)
	}
	want := records(t, run)
	for _, kind := range fsx.Faults {
		t.Run(string(kind), func(t *testing.T) {
			for n := 1; n <= count.Calls(); n++ {
				dir := filepath.Join(t.TempDir(), "run")
				disk := fsx.Inject(kind, n)
				err := faultRun(t, dir)
				disk.Restore()
				lives := kind == fsx.NoSpace || kind == fsx.IO || kind == fsx.Short
				switch {
				case lives && err != nil && sdk.CodeOf(err) != sdk.CodeIO:
					t.Errorf("call %d: the error has code %d: %v", n, sdk.CodeOf(err), err)
				case !lives && err != nil && !errors.Is(err, fsx.ErrDead):
					t.Errorf("call %d: the process is dead, and returns %v", n, err)
				}
				if rundir.Exists(dir) {
					found, err := rundir.Fsck(dir)
					if err != nil {
						t.Fatal(err)
					}
					for _, f := range found {
						if f.Damage {
							t.Errorf("call %d: %s: %s", n, f.Path, f.What)
						}
					}
				}
				if err == nil { // the call was of no account: the end of the journal is closed
					if run, err := rundir.Read(dir); err != nil {
						t.Fatal(err)
					} else if reason, err := run.Concluded(); reason == "" {
						t.Errorf("call %d: it returns nothing, and the run has not ended: %v", n, err)
					}
				}
				if err := faultRun(t, dir); err != nil {
					t.Fatalf("call %d: it does not go on: %v", n, err)
				}
				run, err := rundir.Read(dir)
				if err != nil {
					t.Fatal(err)
				}
				got := records(t, run)
				for name, text := range want {
					if got[name] != text {
						t.Fatalf("call %d: %s differs from the undisturbed run's", n, name)
					}
				}
				if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	t.Logf("%d calls, %d kinds of fault each", count.Calls(), len(fsx.Faults))
}
