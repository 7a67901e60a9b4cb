package fsx

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// TestF3RealLimit runs this test binary again with a limit of 4096 bytes a file: the kernel itself
// answers EFBIG in the middle of a write.
func TestF3RealLimit(t *testing.T) {
	t.Parallel()
	const variable = "FSX_TEST_LIMITED_DIR"
	if dir := os.Getenv(variable); dir != "" {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 4096, Max: 4096}); err != nil {
			t.Fatal(err)
		}
		if err := WriteFile(filepath.Join(dir, "f"), make([]byte, 10000), 0o644); !IsNoSpace(err) {
			t.Errorf("writing a file: %v", err)
		}
		a, err := OpenAppend(filepath.Join(dir, "j"))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Write(make([]byte, 4000)); err != nil {
			t.Fatal(err)
		}
		if err := a.Write(make([]byte, 200)); !IsNoSpace(err) { // 4001 + 201 > 4096
			t.Errorf("appending: %v", err)
		}
		if err := a.Write(make([]byte, 94)); err != nil { // 4001 + 95 = 4096
			t.Errorf("there is room for this line: %v", err)
		}
		return
	}
	dir := t.TempDir()
	if err := WriteFile(filepath.Join(dir, "f"), []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestF3RealLimit$", "-test.v")
	cmd.Env = append(os.Environ(), variable+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := read(t, filepath.Join(dir, "f")); got != "old" {
		t.Errorf("the old file became %d bytes", len(got))
	}
	if got := len(read(t, filepath.Join(dir, "j"))); got != 4096 {
		t.Errorf("the journal is %d bytes, want 4001 + 95", got)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"f", "j"}) {
		t.Errorf("the directory holds %q", got)
	}
}
