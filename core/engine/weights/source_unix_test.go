//go:build unix

package weights

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestF17APipeIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), singleName)
	if err := unix.Mkfifo(path, 0o644); err != nil {
		t.Skip("this file system has no pipes: ", err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("got %v", err)
	}
}

func TestASymbolicLinkIsFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "blob"), []Out{{"a", nil, F32, []float32{1}}}, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("blob", filepath.Join(dir, singleName)); err != nil {
		t.Skip("this file system has no symbolic links: ", err)
	}
	if got := floats(t, open(t, dir), "a"); !slices.Equal(got, []float32{1}) {
		t.Errorf("got %v", got)
	}
}

// TestF17ASparseTerabyte: neither mapping nor refusing it takes memory.
func TestF17ASparseTerabyte(t *testing.T) {
	path := filepath.Join(t.TempDir(), singleName)
	if err := os.WriteFile(path, bytesOf(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 0), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Skip("this file system has no sparse files of a terabyte: ", err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, errMapped := Open(path)
	_, errRead := readWhole(f, 1<<40, true)
	runtime.ReadMemStats(&after)
	for _, err := range []error{errMapped, errRead} {
		if err == nil || !strings.Contains(err.Error(), "belong to none") {
			t.Errorf("got %v", err)
		}
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("refusing it took %d bytes of memory", used)
	}
}
