package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gofrs/flock"

	"github.com/dno-project/dno/sdk"
)

// tempDir is the host's own directory, for its user only: plugins' sockets and verified copies
// of executables. Its lock is held as long as the host lives, so that a later host can tell what
// a killed one has left.
type tempDir struct {
	path string
	lock *flock.Flock
}

const (
	tempPrefix = "dno-host-"
	tempLock   = "lock"
	// longestTemp keeps a socket's path, this plus some 40 bytes, below the 104 that every Unix takes.
	longestTemp = 60
)

func newTempDir(parent string) (*tempDir, error) {
	if parent == "" || len(parent)+len(tempPrefix)+10 > longestTemp {
		parent = os.TempDir()
	}
	sweepTemp(parent)
	for {
		path, err := os.MkdirTemp(parent, tempPrefix)
		if err != nil {
			return nil, err
		}
		lock := flock.New(filepath.Join(path, tempLock))
		held, err := lock.TryLock()
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(path))
		}
		// A host that sweeps at this moment may have had the lock first, and removed the directory.
		if _, err := os.Stat(lock.Path()); held && err == nil {
			return &tempDir{path: path, lock: lock}, nil
		}
		_ = lock.Close()
	}
}

// sweepTemp removes the directories of hosts that are gone, and ends what is left of their plugins.
// What cannot be removed stays.
func sweepTemp(parent string) {
	old, _ := filepath.Glob(filepath.Join(parent, tempPrefix+"*", tempLock))
	for _, path := range old {
		lock := flock.New(path)
		if held, err := lock.TryLock(); err == nil && held {
			killStrays(filepath.Dir(path) + "/")
			_ = os.RemoveAll(filepath.Dir(path))
		}
		_ = lock.Close()
	}
}

func (t *tempDir) remove() {
	_ = os.RemoveAll(t.path)
	_ = t.lock.Close()
}

// verifiedCopy returns a private copy of the executable at path, made once, whose bytes hash to
// sum. What is hashed is what is written, so it does not matter who changes the file meanwhile. The
// copy is hashed again before each start.
func (t *tempDir) verifiedCopy(path, sum string) (name string, err error) {
	dir := filepath.Join(t.path, sum)
	name = filepath.Join(dir, filepath.Base(path))
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	have, err := t.copyTo(dir, name, path)
	if err != nil {
		_ = os.Remove(name)
		return "", sdk.Errorf(sdk.CodeIO, "copy %s: %w", path, err)
	}
	if have != sum {
		_ = os.Remove(name)
		return "", sdk.Errorf(sdk.CodePlugin, "%s has the checksum %s, dno.lock pins %s", path, have, sum).WithHint(
			"the executable was replaced; if you trust the new one: dno plugin install %s", path)
	}
	return name, nil
}

func (t *tempDir) copyTo(dir, name, path string) (sum string, err error) {
	in, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = in.Close() }()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	// No process may start while the copy is open for writing: it would inherit the open file, and
	// the system runs no program that somebody can still write.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o500)
	if err != nil {
		return "", err
	}
	hash := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, hash), in)
	return hex.EncodeToString(hash.Sum(nil)), errors.Join(err, out.Close())
}
