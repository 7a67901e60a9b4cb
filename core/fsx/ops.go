package fsx

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
	"syscall"
)

// ops is every call by which this package changes a disk: the one seam where faults are injected.
type ops interface {
	create(path string, perm fs.FileMode) (file, error) // fails where path exists
	edit(path string) (file, error)                     // creates where path does not exist
	mkdir(path string) error
	rename(from, to string) error // replaces a file, not a directory
	removeAll(path string) error
	sync(path string) error // makes a file's or a directory's content durable
}

// file is what is written to; *os.File is one.
type file interface {
	io.Writer
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
}

// system is the real disk.
var system ops = osOps{}

type osOps struct{}

func (osOps) create(path string, perm fs.FileMode) (file, error) {
	return open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
}

func (osOps) edit(path string) (file, error) {
	return open(path, os.O_RDWR|os.O_CREATE, 0o644)
}

// open keeps a nil *os.File out of the interface.
func open(path string, flag int, perm fs.FileMode) (file, error) {
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osOps) mkdir(path string) error      { return os.Mkdir(path, 0o755) }
func (osOps) rename(from, to string) error { return os.Rename(from, to) }
func (osOps) removeAll(path string) error  { return os.RemoveAll(path) }

func (osOps) sync(path string) error {
	flag := os.O_RDONLY // fsync needs no more, and a file may be read-only
	if runtime.GOOS == "windows" {
		info, err := os.Stat(path)
		if err != nil || info.IsDir() {
			return err // directories cannot be flushed there; the file system journals names
		}
		flag = os.O_RDWR
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = f.Sync()
	}
	// Some network file systems refuse to fsync a directory: they have nothing to flush.
	if err != nil && info != nil && info.IsDir() && (errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported)) {
		err = nil
	}
	return errors.Join(err, f.Close())
}
