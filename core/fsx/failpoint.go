//go:build failpoint

package fsx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// This file is in binaries for tests only: the disk fails at a call that is counted.

// Fault is how the disk fails.
type Fault string

// The faults. After the first three the process lives on; Exit ends it before the call, Lost too, and takes
// with it all that was not synced, as a power cut may.
const (
	NoSpace Fault = "nospace"
	IO      Fault = "io"
	Short   Fault = "short" // half of a write, then no space
	Exit    Fault = "exit"
	Lost    Fault = "lost"
)

// Faults are all of them.
var Faults = []Fault{NoSpace, IO, Short, Exit, Lost}

// ErrDead is what every call returns after an Exit or Lost that was injected into the process itself.
var ErrDead = errors.New("the process is dead")

// FailpointEnv says which call fails, and how: "lost@17". The process ends with 137 where it has to.
const FailpointEnv = "DNO_FAILPOINT"

func init() {
	v := os.Getenv(FailpointEnv)
	if v == "" {
		return
	}
	kind, number, ok := strings.Cut(v, "@")
	n, err := strconv.Atoi(number)
	if !ok || err != nil {
		panic(fmt.Sprintf("%s=%q: want kind@n", FailpointEnv, v))
	}
	Inject(Fault(kind), n).die = func() { os.Exit(137) }
}

// Inject makes the nth call that changes the disk fail, from 1; 0 only counts.
func Inject(kind Fault, n int) *Injected {
	d := &Injected{kind: kind, n: n, die: func() {}, files: map[string][]byte{}}
	system = d
	return d
}

// Injected is a disk with a fault.
type Injected struct {
	osOps
	mu    sync.Mutex
	kind  Fault
	n     int
	calls int
	dead  bool
	die   func()

	files map[string][]byte // what is durable of each file that has content which is not
	names []name            // what changed in directories that were not synced since
}

type name struct {
	dir  string
	undo func()
}

// Calls is how many calls there were.
func (d *Injected) Calls() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

// Restore gives the real disk back.
func (d *Injected) Restore() { system = osOps{} }

// call counts one call, and says whether it fails.
func (d *Injected) call() error {
	if d.dead {
		return ErrDead
	}
	if d.calls++; d.calls != d.n {
		return nil
	}
	switch d.kind {
	case NoSpace, Short:
		return syscall.ENOSPC
	case IO:
		return syscall.EIO
	case Lost:
		d.lose()
	}
	d.dead = true
	d.die()
	return ErrDead
}

// lose takes back all that is not durable.
func (d *Injected) lose() {
	for i := len(d.names) - 1; i >= 0; i-- {
		d.names[i].undo()
	}
	for path, content := range d.files {
		if _, err := os.Lstat(path); err == nil {
			must(os.WriteFile(path, content, 0o644))
		}
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// touch keeps what is durable of a file before it is changed.
func (d *Injected) touch(path string) {
	if _, ok := d.files[path]; !ok {
		content, err := os.ReadFile(path)
		must(err)
		d.files[path] = content
	}
}

func (d *Injected) changed(path string, undo func()) {
	d.names = append(d.names, name{filepath.Dir(path), undo})
}

// do runs one call, under the lock.
func (d *Injected) do(call func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.call(); err != nil {
		return err
	}
	return call()
}

func (d *Injected) create(path string, perm fs.FileMode) (f file, err error) {
	path = filepath.Clean(path)
	err = d.do(func() error {
		if f, err = d.osOps.create(path, perm); err != nil {
			return err
		}
		d.files[path] = nil
		d.changed(path, func() { must(os.RemoveAll(path)) })
		return nil
	})
	return &injectedFile{f, d, path}, err
}

func (d *Injected) edit(path string) (f file, err error) {
	path = filepath.Clean(path)
	err = d.do(func() error {
		_, missing := os.Lstat(path)
		if f, err = d.osOps.edit(path); err != nil || missing == nil {
			return err
		}
		d.files[path] = nil
		d.changed(path, func() { must(os.RemoveAll(path)) })
		return nil
	})
	return &injectedFile{f, d, path}, err
}

func (d *Injected) mkdir(path string) error {
	path = filepath.Clean(path)
	return d.do(func() error {
		if err := d.osOps.mkdir(path); err != nil {
			return err
		}
		d.changed(path, func() { must(os.RemoveAll(path)) })
		return nil
	})
}

func (d *Injected) rename(from, to string) error {
	from, to = filepath.Clean(from), filepath.Clean(to)
	return d.do(func() error {
		replaced, gone := os.ReadFile(to)
		durable, unsynced := d.files[to]
		if err := d.osOps.rename(from, to); err != nil {
			return err
		}
		d.move(from, to)
		d.changed(to, func() {
			d.move(to, from)
			must(os.Rename(to, from))
			if gone == nil {
				must(os.WriteFile(to, replaced, 0o644))
				if unsynced {
					d.files[to] = durable
				}
			}
		})
		return nil
	})
}

// move follows a rename of a file or of the directory that it is in.
func (d *Injected) move(from, to string) {
	for path, content := range d.files {
		if rest, ok := strings.CutPrefix(path, from); ok && (rest == "" || rest[0] == filepath.Separator) {
			delete(d.files, path)
			d.files[to+rest] = content
		}
	}
}

func (d *Injected) removeAll(path string) error {
	path = filepath.Clean(path)
	return d.do(func() error {
		kept, err := os.MkdirTemp("", "dno-removed-")
		must(err)
		copied := filepath.Join(kept, "copy")
		info, missing := os.Lstat(path)
		if missing == nil && info.IsDir() {
			must(os.CopyFS(copied, os.DirFS(path)))
		} else if missing == nil {
			data, err := os.ReadFile(path)
			must(err)
			must(os.WriteFile(copied, data, 0o644))
		}
		if err := d.osOps.removeAll(path); err != nil {
			return err
		}
		if missing == nil {
			d.changed(path, func() { must(os.Rename(copied, path)) })
		}
		return nil
	})
}

func (d *Injected) sync(path string) error {
	path = filepath.Clean(path)
	return d.do(func() error {
		if err := d.osOps.sync(path); err != nil {
			return err
		}
		delete(d.files, path)
		kept := d.names[:0]
		for _, n := range d.names {
			if n.dir != path {
				kept = append(kept, n)
			}
		}
		d.names = kept
		return nil
	})
}

type injectedFile struct {
	file
	disk *Injected
	path string
}

func (f *injectedFile) Write(p []byte) (int, error) { return f.write(p, f.file.Write) }

func (f *injectedFile) WriteAt(p []byte, off int64) (int, error) {
	return f.write(p, func(p []byte) (int, error) { return f.file.WriteAt(p, off) })
}

func (f *injectedFile) write(p []byte, write func([]byte) (int, error)) (n int, err error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if !f.disk.dead {
		f.disk.touch(f.path)
	}
	if err := f.disk.call(); err != nil {
		if f.disk.kind == Short && !f.disk.dead {
			n, _ = write(p[:len(p)/2])
		}
		return n, err
	}
	return write(p)
}

func (f *injectedFile) Sync() error {
	return f.disk.do(func() error {
		delete(f.disk.files, f.path)
		return f.file.Sync()
	})
}

func (f *injectedFile) Truncate(size int64) error {
	return f.disk.do(func() error {
		f.disk.touch(f.path)
		return f.file.Truncate(size)
	})
}

func (f *injectedFile) Close() error {
	err := f.file.Close() // a dead process's files are closed too
	return errors.Join(f.disk.do(func() error { return nil }), err)
}
