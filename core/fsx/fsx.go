// Package fsx is every file that must survive: written beside, fsynced, renamed.
//
// A file or directory under its final name is always whole: the old one or the new one, whatever
// instant a crash or a full disk chose. Names that begin with a dot and hold ".tmp-" or ".old-"
// are work in progress; the next write to the same path, or [Recover], sweeps those of a crash.
//
// A path has one writer at a time (a run directory's lock sees to that). A second one makes the
// first fail at its rename; it never mixes the two.
package fsx

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// WriteFile replaces the file at path by data, all or nothing. perm is that of a new file, before
// the umask. When it returns nil, data survives a power cut.
//
// Errors: [IsNoSpace] and [IsReadOnly] tell a disk's faults; what was at path is then still there.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return writeFile(system, path, data, perm)
}

func writeFile(disk ops, path string, data []byte, perm fs.FileMode) error {
	f, err := create(disk, path, perm)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		f.Abort()
		return err
	}
	return f.Commit()
}

// RemoveAll removes the file or directory at path, durably. That there is none is no error. A directory that
// a crash leaves half removed has another name.
func RemoveAll(path string) error {
	if err := sweep(system, path); err != nil { // it may bring the path back
		return err
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return failed("look for", path, err)
	}
	old := beside(path, "tmp")
	if err := system.rename(path, old); err != nil {
		return failed("remove", path, err)
	}
	if err := syncParent(system, path); err != nil {
		return err
	}
	if err := system.removeAll(old); err != nil {
		return failed("remove", path, err)
	}
	return nil
}

// File is a file being written beside its final name; it is there only after [File.Commit].
// It is not safe for concurrent use.
type File struct {
	disk      ops
	file      file
	path, tmp string
	err       error // the first failure: a file with a hole is never committed
	done      bool
}

// Create begins a file that will replace the one at path. The caller ends it with [File.Commit] or
// [File.Abort]; a deferred Abort after a Commit does nothing.
func Create(path string, perm fs.FileMode) (*File, error) { return create(system, path, perm) }

func create(disk ops, path string, perm fs.FileMode) (*File, error) {
	if err := sweep(disk, path); err != nil {
		return nil, err
	}
	tmp := beside(path, "tmp")
	file, err := disk.create(tmp, perm)
	if err != nil {
		return nil, failed("create", path, err)
	}
	return &File{disk: disk, file: file, path: path, tmp: tmp}, nil
}

// Write appends p. After a failure every later Write, and Commit, returns the same error.
func (f *File) Write(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	n, err := f.file.Write(p)
	if err != nil {
		f.err = failed(fmt.Sprintf("write %d bytes of", len(p)), f.path, err)
	}
	return n, f.err
}

// Commit makes the file durable and gives it its name. On an error nothing has changed at the
// path, unless only the last step failed, the fsync of the directory: then the new file is in
// place but a power cut may bring the old one back.
func (f *File) Commit() error {
	if f.done {
		return fmt.Errorf("commit %s: it is already committed or aborted", f.path)
	}
	if f.err == nil {
		if err := f.file.Sync(); err != nil {
			f.err = failed("fsync", f.path, err)
		}
	}
	if f.err != nil {
		f.Abort()
		return f.err
	}
	f.done = true
	err := f.file.Close()
	if err == nil {
		err = f.disk.rename(f.tmp, f.path)
	}
	if err != nil {
		_ = f.disk.removeAll(f.tmp) // the first error is the one to report
		return failed("replace", f.path, err)
	}
	return syncParent(f.disk, f.path)
}

// Abort forgets the file; what was at the path stays.
func (f *File) Abort() {
	if f.done {
		return
	}
	f.done = true
	_ = f.file.Close()
	_ = f.disk.removeAll(f.tmp) // left where this fails: the next write sweeps it
}

// Recover repairs what a crash during a write to path has left: a directory that was moved aside
// is moved back, unfinished copies are removed. Call it, holding the lock that writers hold,
// before reading a path that [WriteDir] replaces.
func Recover(path string) error { return sweep(system, path) }

// Tidy does what [Recover] does for all that is in dir.
func Tidy(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return failed("list", dir, err)
	}
	for _, e := range entries {
		if base := unfinished(e.Name()); base != "" {
			if err := sweep(system, filepath.Join(dir, base)); err != nil {
				return err
			}
		}
	}
	return nil
}

func sweep(disk ops, path string) error {
	old, tmp, err := leftovers(path)
	if err != nil {
		return failed("look for unfinished writes of", path, err)
	}
	if len(old) > 0 {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			if err := disk.rename(old[0], path); err != nil {
				return failed("move back", path, err)
			}
			old = old[1:]
		} else if err != nil {
			return failed("look for", path, err)
		}
	}
	for _, name := range append(old, tmp...) {
		if err := disk.removeAll(name); err != nil {
			return failed("remove the unfinished "+filepath.Base(name)+" of", path, err)
		}
	}
	return nil
}

// leftovers lists what earlier writers of path left beside it, in name order.
func leftovers(path string) (old, tmp []string, err error) {
	dir, base := split(path)
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		name := e.Name()
		switch {
		case isBeside(name, base, "old"):
			old = append(old, filepath.Join(dir, name))
		case isBeside(name, base, "tmp"):
			tmp = append(tmp, filepath.Join(dir, name))
		}
	}
	return old, tmp, err
}

// beside returns a fresh hidden name next to path. The name is random, so that two writers that
// should not have met cannot write into one file.
func beside(path, kind string) string {
	dir, base := split(path)
	return filepath.Join(dir, fmt.Sprintf(".%s.%s-%016x", base, kind, rand.Uint64()))
}

// IsUnfinished says whether a name is that of work in progress: of a write that goes on, or that a crash ended.
func IsUnfinished(name string) bool { return unfinished(name) != "" }

// unfinished returns the name that the work in progress is for, or "".
func unfinished(name string) string {
	for _, kind := range []string{"tmp", "old"} {
		if i := strings.LastIndex(name, "."+kind+"-"); i > 1 && name[0] == '.' && isBeside(name, name[1:i], kind) {
			return name[1:i]
		}
	}
	return ""
}

// split parts a path from its last element, also where a slash ends it.
func split(path string) (dir, base string) {
	path = filepath.Clean(path)
	return filepath.Dir(path), filepath.Base(path)
}

func isBeside(name, base, kind string) bool {
	rest, ok := strings.CutPrefix(name, "."+base+"."+kind+"-")
	return ok && len(rest) == 16 && strings.Trim(rest, "0123456789abcdef") == ""
}

func syncParent(disk ops, path string) error {
	dir, _ := split(path)
	if err := disk.sync(dir); err != nil {
		return failed("fsync the directory of", path, err)
	}
	return nil
}

// IsNoSpace reports whether err says that the disk, a quota or a limit on a file's size is
// exhausted: free space, then go on from the last whole file.
func IsNoSpace(err error) bool { return isAny(err, noSpace) }

// IsReadOnly reports whether err says that the file system cannot be written to at all.
func IsReadOnly(err error) bool { return isAny(err, readOnly) }

func isAny(err error, targets []error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func failed(doing, path string, err error) error {
	hint := ""
	switch {
	case IsNoSpace(err):
		hint = "no space is left there; free some and try again: "
	case IsReadOnly(err):
		hint = "its file system is read-only; choose another directory: "
	}
	return fmt.Errorf("%s %s: %s%w", doing, path, hint, err)
}
