package fsx

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

var errCrash = errors.New("the process is dead")

// faulty counts the calls that change the disk and lets the nth fail.
type faulty struct {
	osOps
	n     int   // the call that fails, from 1; 0 is none
	err   error // how it fails
	crash bool  // and nothing works afterwards, cleaning up included
	calls int
	log   []string
}

func (d *faulty) call(name, path string) error {
	d.calls++
	d.log = append(d.log, name+" "+d.role(path))
	if d.calls == d.n || d.crash && d.n > 0 && d.calls > d.n {
		return d.err
	}
	return nil
}

// role names a path by what it is for, as the random part of its name is no good in a test.
func (d *faulty) role(path string) string {
	for _, kind := range []string{"tmp", "old"} {
		if i := strings.Index(path, "."+kind+"-"); i >= 0 {
			return kind + path[i+len(kind)+2+16:]
		}
	}
	return filepath.Base(path)
}

func (d *faulty) create(path string, perm fs.FileMode) (file, error) {
	if err := d.call("create", path); err != nil {
		return nil, err
	}
	f, err := d.osOps.create(path, perm)
	return &faultyFile{f, d, path}, err
}

func (d *faulty) edit(path string) (file, error) {
	if err := d.call("edit", path); err != nil {
		return nil, err
	}
	f, err := d.osOps.edit(path)
	return &faultyFile{f, d, path}, err
}

func (d *faulty) mkdir(path string) error {
	return unless(d.call("mkdir", path), func() error { return d.osOps.mkdir(path) })
}

func (d *faulty) rename(from, to string) error {
	return unless(d.call("rename", from+" to "+filepath.Base(to)), func() error { return d.osOps.rename(from, to) })
}

func (d *faulty) removeAll(path string) error {
	return unless(d.call("remove", path), func() error { return d.osOps.removeAll(path) })
}

func (d *faulty) sync(path string) error {
	return unless(d.call("sync", path), func() error { return d.osOps.sync(path) })
}

func unless(err error, then func() error) error {
	if err != nil {
		return err
	}
	return then()
}

type faultyFile struct {
	file
	disk *faulty
	path string
}

func (f *faultyFile) Write(p []byte) (int, error) { return f.write(p, f.file.Write) }

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, func(p []byte) (int, error) { return f.file.WriteAt(p, off) })
}

// write writes half of p where it fails, as a full disk does.
func (f *faultyFile) write(p []byte, write func([]byte) (int, error)) (int, error) {
	err := f.disk.call("write", f.path)
	switch {
	case err == nil:
		return write(p)
	case f.disk.calls > f.disk.n:
		return 0, err
	}
	n, _ := write(p[:len(p)/2])
	return n, err
}

func (f *faultyFile) Sync() error {
	return unless(f.disk.call("sync", f.path), f.file.Sync)
}

func (f *faultyFile) Truncate(size int64) error {
	return unless(f.disk.call("truncate", f.path), func() error { return f.file.Truncate(size) })
}

func (f *faultyFile) Close() error {
	err := f.file.Close() // a dead process's files are closed too
	return errors.Join(f.disk.call("close", f.path), err)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func fill(content string) func(string) error {
	return func(dir string) error {
		if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
			return err
		}
		for _, name := range []string{"a", "sub/b"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				return err
			}
		}
		return nil
	}
}

// whole returns what a directory written by fill holds, or fails the test if it is a mixture.
func whole(t *testing.T, dir string) string {
	t.Helper()
	a, b := read(t, filepath.Join(dir, "a")), read(t, filepath.Join(dir, "sub/b"))
	if a != b {
		t.Fatalf("the directory is a mixture: %q and %q", a, b)
	}
	return a
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.json")
	for _, content := range []string{"first", "", strings.Repeat("x", 1<<20)} {
		if err := WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != content {
			t.Fatalf("read back %d bytes, wrote %d", len(got), len(content))
		}
	}
	if got := names(t, dir); !slices.Equal(got, []string{"config.json"}) {
		t.Errorf("the directory holds %q", got)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("permissions are %v, want 0600", info.Mode().Perm())
	}
}

func TestF2OrderThatSurvivesPowerLoss(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	parent := filepath.Base(dir)
	disk := &faulty{}
	if err := writeFile(disk, filepath.Join(dir, "f"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := []string{"create tmp", "write tmp", "sync tmp", "close tmp", "rename tmp to f", "sync " + parent}
	if !slices.Equal(disk.log, want) {
		t.Errorf("a file: %q\nwant    %q", disk.log, want)
	}
	disk = &faulty{}
	if err := writeDir(disk, filepath.Join(dir, "d")+"/", fill("new")); err != nil {
		t.Fatal(err)
	}
	want = []string{"mkdir tmp", "sync tmp/a", "sync tmp/sub/b", "sync tmp/sub", "sync tmp", "rename tmp to d", "sync " + parent}
	if !slices.Equal(disk.log, want) {
		t.Errorf("a directory: %q\nwant         %q", disk.log, want)
	}
	disk = &faulty{}
	if err := writeDir(disk, filepath.Join(dir, "d"), fill("newer")); err != nil {
		t.Fatal(err)
	}
	if i, j, k := slices.Index(disk.log, "sync tmp"), slices.Index(disk.log, "sync "+parent), slices.Index(disk.log, "remove old"); i < 0 || i > j || j > k {
		t.Errorf("the old directory must go last: %q", disk.log)
	}
}

func TestAborted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	f.Abort()
	f.Abort()
	if err := f.Commit(); err == nil {
		t.Error("an aborted file was committed")
	}
	boom := errors.New("fill failed")
	if err := WriteDir(filepath.Join(dir, "d"), func(string) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("got %v, want fill's own error", err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"f"}) || read(t, path) != "old" {
		t.Errorf("the directory holds %q, the file %q", got, read(t, path))
	}
}

// TestF3EveryFault lets each call fail in turn, once or for good (a crash), until a run needs
// no more calls than that.
func TestF3EveryFault(t *testing.T) {
	t.Parallel()
	kinds := map[string]struct {
		write func(disk ops, path, content string) error
		read  func(t *testing.T, path string) string
	}{
		"a file": {
			func(disk ops, path, content string) error {
				return writeFile(disk, path, []byte(content), 0o644)
			},
			read,
		},
		"a directory": {
			func(disk ops, path, content string) error { return writeDir(disk, path, fill(content)) },
			whole,
		},
	}
	for kind, k := range kinds {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, crash %v", kind, crash), func(t *testing.T) {
				t.Parallel()
				for n := 1; ; n++ {
					dir := t.TempDir()
					path := filepath.Join(dir, "x")
					if err := k.write(system, path, "old"); err != nil {
						t.Fatal(err)
					}
					disk := &faulty{n: n, err: syscall.ENOSPC, crash: crash}
					if crash {
						disk.err = errCrash
					}
					err := k.write(disk, path, "new")
					if disk.calls < n {
						if err != nil {
							t.Fatalf("without a fault: %v", err)
						}
						if n < 6 {
							t.Fatalf("only %d faults were tried", n-1)
						}
						return
					}
					if err == nil {
						t.Fatalf("fault %d (%s) went unnoticed", n, disk.log[n-1])
					}
					if !crash && (!IsNoSpace(err) || IsReadOnly(err) || !strings.Contains(err.Error(), path)) {
						t.Errorf("fault %d (%s): %v does not say that the disk is full and where", n, disk.log[n-1], err)
					}
					if crash {
						if err := Recover(path); err != nil {
							t.Fatal(err)
						}
					}
					if got := k.read(t, path); got != "old" && got != "new" {
						t.Errorf("fault %d (%s): found %q", n, disk.log[n-1], got)
					}
					if err := k.write(system, path, "newer"); err != nil {
						t.Fatalf("after fault %d (%s): %v", n, disk.log[n-1], err)
					}
					if got := k.read(t, path); got != "newer" {
						t.Errorf("after fault %d (%s): found %q", n, disk.log[n-1], got)
					}
					if got := names(t, dir); !slices.Equal(got, []string{"x"}) {
						t.Errorf("after fault %d (%s): the directory holds %q", n, disk.log[n-1], got)
					}
				}
			})
		}
	}
}

func TestSweepLeavesOtherFilesAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keep := []string{".f.tmp-", ".f.tmp-0123456789abcdeg", ".ff.tmp-0123456789abcdef", "f.tmp-0123456789abcdef"}
	for _, name := range append([]string{".f.tmp-0123456789abcdef"}, keep...) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := Recover(filepath.Join(dir, "f")); err != nil {
		t.Fatal(err)
	}
	slices.Sort(keep)
	if got := names(t, dir); !slices.Equal(got, keep) {
		t.Errorf("left %q, want %q", got, keep)
	}
}

func TestF3ReadOnlyFileSystem(t *testing.T) {
	t.Parallel()
	err := writeFile(&faulty{n: 1, err: &fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}}, filepath.Join(t.TempDir(), "x"), nil, 0o644)
	if !IsReadOnly(err) || IsNoSpace(err) || !strings.Contains(err.Error(), "another directory") {
		t.Errorf("got %v", err)
	}
	if IsReadOnly(nil) || IsNoSpace(nil) {
		t.Error("no error is no fault of the disk")
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	for i := range 3 {
		a, err := OpenAppend(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{fmt.Sprint("line ", i), "ended\n"} {
			if err := a.Write([]byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(a.Sync(), a.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := read(t, path), "line 0\nended\nline 1\nended\nline 2\nended\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTornLastLineIsCut(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000) // more than a block of 4096
	cases := map[string]struct{ before, after string }{
		"an empty file":                     {"", ""},
		"a whole file":                      {"a\nb\n", "a\nb\n"},
		"a torn second line":                {"a\nb", "a\n"},
		"a torn only line":                  {"abc", ""},
		"a torn line longer than a block":   {"a\n" + long, "a\n"},
		"a torn only line of several block": {long + long, ""},
		"a whole line longer than a block":  {long + "\n", long + "\n"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "j")
			if err := os.WriteFile(path, []byte(c.before), 0o644); err != nil {
				t.Fatal(err)
			}
			a, err := OpenAppend(path)
			if err != nil {
				t.Fatal(err)
			}
			if want := int64(len(c.before) - len(c.after)); a.Dropped() != want {
				t.Errorf("dropped %d bytes, want %d", a.Dropped(), want)
			}
			if err := errors.Join(a.Write([]byte("next")), a.Close()); err != nil {
				t.Fatal(err)
			}
			if got := read(t, path); got != c.after+"next\n" {
				t.Errorf("got %d bytes, want %d", len(got), len(c.after)+5)
			}
		})
	}
}

func TestAppendFaults(t *testing.T) {
	t.Parallel()
	// Calls: 1 edit, 2 sync of the directory, 3 the first write, 4 and 5 what follows.
	cases := map[string]struct {
		n          int
		want       string // what the file holds after writing "one", "two", "three"
		wantErrors [3]bool
	}{
		"a failed write leaves nothing and the next succeeds": {4, "one\nthree\n", [3]bool{false, true, false}},
		"a failed first write":                                {3, "two\nthree\n", [3]bool{true, false, false}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "j")
			a, err := openAppend(&faulty{n: c.n, err: syscall.EDQUOT}, path)
			if err != nil {
				t.Fatal(err)
			}
			for i, line := range []string{"one", "two", "three"} {
				if err := a.Write([]byte(line)); (err != nil) != c.wantErrors[i] || err != nil && !IsNoSpace(err) {
					t.Errorf("%s: %v", line, err)
				}
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			if got := read(t, path); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	t.Run("a write that cannot be undone stops the appender", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "j")
		a, err := openAppend(&faulty{n: 3, err: syscall.ENOSPC, crash: true}, path)
		if err != nil {
			t.Fatal(err)
		}
		first := a.Write([]byte("one"))
		if first == nil || a.Write([]byte("two")) != first || a.Sync() != first {
			t.Errorf("later calls must return the first error %v", first)
		}
		_ = a.Close()
		a, err = OpenAppend(path)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if a.Dropped() != 2 { // half of "one\n"
			t.Errorf("dropped %d bytes, want 2", a.Dropped())
		}
	})
	t.Run("after a failed fsync nothing is accepted", func(t *testing.T) {
		t.Parallel()
		a, err := openAppend(&faulty{n: 4, err: syscall.EIO}, filepath.Join(t.TempDir(), "j"))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		if err := a.Write([]byte("one")); err != nil {
			t.Fatal(err)
		}
		if err := a.Sync(); err == nil || a.Write([]byte("two")) == nil {
			t.Error("the appender went on after a failed fsync")
		}
	})
}

func TestTwoWritersNeverMix(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	first, err := Create(path, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Create(path, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct {
		f *File
		b byte
	}{{first, '1'}, {second, '2'}} {
		if _, err := w.f.Write(bytes.Repeat([]byte{w.b}, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if err := first.Commit(); err == nil && runtime.GOOS != "windows" {
		t.Error("the first of two writers was not told")
	}
	if err := second.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != strings.Repeat("2", 100) {
		t.Errorf("got %q", got)
	}
}

// FuzzVerify: no manifest makes Verify panic, reach out of the directory, or pass a file that it does not know the sum of.
func FuzzVerify(f *testing.F) {
	f.Add([]byte(`{"format":1,"files":{"a":"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}}`))
	f.Add([]byte(`{"format":2,"files":{"a":""}}`))
	f.Add([]byte(`{"format":1,"files":{"../a":""}}`))
	f.Add([]byte(`{"format":1,"files":{"a":""}}{}`))
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("a"), 0o644); err != nil {
		f.Fatal(err)
	}
	sum := "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb" // of "a"
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, ManifestFile), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Verify(dir); err == nil && !bytes.Contains(data, []byte(sum)) {
			t.Errorf("%q passes", data)
		}
	})
}
