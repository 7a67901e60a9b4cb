package fsx

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Appender adds whole lines to the end of a file. It is not safe for concurrent use.
type Appender struct {
	file    file
	path    string
	size    int64 // bytes of whole lines
	dropped int64
	err     error // sticky: after it the file's end is not known
}

// OpenAppend opens the file at path for appending, or creates it. A last line without its newline
// is what a crash in the middle of a write leaves: it is cut off, and [Appender.Dropped] says so.
func OpenAppend(path string) (*Appender, error) { return openAppend(system, path) }

func openAppend(disk ops, path string) (*Appender, error) {
	_, err := os.Lstat(path)
	isNew := errors.Is(err, fs.ErrNotExist)
	f, err := disk.edit(path)
	if err != nil {
		return nil, failed("open", path, err)
	}
	a := &Appender{file: f, path: path}
	if isNew {
		err = syncParent(disk, path)
	} else {
		err = a.cutTornLine()
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return a, nil
}

func (a *Appender) cutTornLine() error {
	info, err := a.file.Stat()
	if err != nil {
		return failed("look at", a.path, err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("append to %s: it is not a regular file", a.path)
	}
	end := info.Size()
	for a.size = end; a.size > 0; {
		block := make([]byte, min(a.size, 4096))
		if _, err := a.file.ReadAt(block, a.size-int64(len(block))); err != nil {
			return failed("read the end of", a.path, err)
		}
		if i := bytes.LastIndexByte(block, '\n'); i >= 0 {
			a.size -= int64(len(block) - 1 - i)
			break
		}
		a.size -= int64(len(block))
	}
	if a.dropped = end - a.size; a.dropped == 0 {
		return nil
	}
	if err := a.file.Truncate(a.size); err != nil {
		return failed("cut the torn last line of", a.path, err)
	}
	return nil
}

// Dropped is the length in bytes of the torn last line that OpenAppend cut off; 0 if there was none.
func (a *Appender) Dropped() int64 { return a.dropped }

// Write appends one line; a newline is added where line does not end with one. It is durable only
// after [Appender.Sync]. Where it fails, nothing of the line stays in the file and a later Write
// may succeed (a full disk may have room again); if even that cannot be had, every later call
// returns the first error.
func (a *Appender) Write(line []byte) error {
	if a.err != nil {
		return a.err
	}
	if !bytes.HasSuffix(line, []byte("\n")) {
		line = append(bytes.Clone(line), '\n') // one call: a line is not torn by our own doing
	}
	// Not O_APPEND: Windows does not let such a file be cut, and the path has one writer anyhow.
	_, err := a.file.WriteAt(line, a.size)
	if err == nil {
		a.size += int64(len(line))
		return nil
	}
	err = failed(fmt.Sprintf("append %d bytes to", len(line)), a.path, err)
	if cut := a.file.Truncate(a.size); cut != nil {
		a.err = errors.Join(err, failed("cut the torn last line of", a.path, cut))
		return a.err
	}
	return err
}

// Sync makes all lines written so far durable. After a failed fsync nobody knows what reached the
// disk, so every later call returns that error; open the file anew to go on.
func (a *Appender) Sync() error {
	if a.err != nil {
		return a.err
	}
	if err := a.file.Sync(); err != nil {
		a.err = failed("fsync", a.path, err)
	}
	return a.err
}

// Close closes the file. It does not sync.
func (a *Appender) Close() error {
	if err := a.file.Close(); err != nil {
		return failed("close", a.path, err)
	}
	return nil
}
