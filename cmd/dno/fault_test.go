//go:build failpoint && unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/core/rundir"
)

// The built program on a disk that fails at its nth call, in each way: fsck finds the run whole, and it goes on to the same
// bytes. Every DNO_FAULT_STRIDE-th call is tried, each one with 1.
func TestF1F2F3TheProgramOnADiskThatFails(t *testing.T) {
	stride := 37
	if text := os.Getenv("DNO_FAULT_STRIDE"); text != "" {
		var err error
		if stride, err = strconv.Atoi(text); err != nil || stride < 1 {
			t.Fatalf("DNO_FAULT_STRIDE=%q", text)
		}
	}
	base := t.TempDir()
	testSize(t, base)
	// Where the disk keeps what it may have to bring back, and plugins their sockets, whose paths must be short.
	temp, err := os.MkdirTemp("", "dno-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(temp) })
	works(t, base, "run", "kill.lua", "--dir", "r")
	want := finalFiles(t, filepath.Join(base, "r"), 3)
	for k, kind := range fsx.Faults {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			tried, through := 0, 0
			for n := 1 + k*stride/len(fsx.Faults); ; n += stride {
				dir := t.TempDir()
				testSize(t, dir)
				_, errs, code := dno(t, dir, []string{fmt.Sprintf("%s=%s@%d", fsx.FailpointEnv, kind, n), "TMPDIR=" + temp}, "run", "kill.lua", "--dir", "r")
				dies := kind == fsx.Exit || kind == fsx.Lost
				switch {
				case dies && code != 137 && code != 0, !dies && code != 6 && code != 0:
					t.Fatalf("call %d: it exits with %d: %s", n, code, errs)
				case kind == fsx.NoSpace && code == 6 && !strings.Contains(errs, "no space is left"):
					t.Errorf("call %d: it says %s", n, errs)
				}
				tried++
				if rundir.Exists(filepath.Join(dir, "r")) {
					if out, errs, code := dno(t, dir, nil, "fsck", "r"); code != 0 {
						t.Fatalf("call %d: fsck exits with %d: %s%s", n, code, out, errs)
					}
					if _, errs, code := dno(t, dir, nil, "resume", "r"); code != 0 && !strings.Contains(errs, "it is finished") {
						t.Fatalf("call %d: resume exits with %d: %s", n, code, errs)
					}
				} else {
					works(t, dir, "run", "kill.lua", "--dir", "r")
				}
				for name, text := range finalFiles(t, filepath.Join(dir, "r"), 3) {
					if want[name] != text {
						t.Fatalf("call %d: %s differs", n, name)
					}
				}
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				if through++; code != 0 {
					through = 0
				}
				if through > 2+40/stride { // so many in a row come to their end: there are no more calls
					t.Logf("%d calls were tried, up to the %dth", tried, n)
					return
				}
			}
		})
	}
}
