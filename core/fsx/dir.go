package fsx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// WriteDir replaces the directory at path by the one that fill makes in tmpdir, all or nothing.
// fill gets an empty directory beside path and need not fsync; everything that it leaves there
// is fsynced before the directory gets its name. An error of fill is returned as it is.
//
// No file system replaces a directory in one step everywhere, so the old one is moved aside, the
// new one renamed, the old one removed. A crash leaves at path
//
//   - before the move: the old directory;
//   - between the two renames: nothing; the old one is beside it, whole, and the next WriteDir
//     or [Recover] moves it back;
//   - afterwards: the new directory, with the old one beside it until it is swept.
func WriteDir(path string, fill func(tmpdir string) error) error {
	return writeDir(system, path, fill)
}

func writeDir(disk ops, path string, fill func(string) error) (err error) {
	if err := sweep(disk, path); err != nil {
		return err
	}
	tmp := beside(path, "tmp")
	if err := disk.mkdir(tmp); err != nil {
		return failed("create", path, err)
	}
	renamed := false
	defer func() {
		if !renamed {
			_ = disk.removeAll(tmp) // left where this fails: the next write sweeps it
		}
	}()
	if err := fill(tmp); err != nil {
		return err
	}
	if err := syncTree(disk, tmp); err != nil {
		return failed("fsync", path, err)
	}
	old := ""
	if _, err := os.Lstat(path); err == nil {
		old = beside(path, "old")
		if err := disk.rename(path, old); err != nil {
			return failed("move aside", path, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return failed("look for", path, err)
	}
	if err := disk.rename(tmp, path); err != nil {
		if old != "" {
			err = errors.Join(err, disk.rename(old, path))
		}
		return failed("replace", path, err)
	}
	renamed = true
	if err := syncParent(disk, path); err != nil {
		return err // the old directory stays aside: it may be the one that survives
	}
	if old != "" {
		if err := disk.removeAll(old); err != nil {
			return failed("remove the old copy of", path, err)
		}
	}
	return nil
}

// Put writes a new file, without a sync and in no safe order: for what [WriteDir] fills a directory with.
func Put(path string, data []byte) error {
	f, err := system.create(path, 0o644)
	if err != nil {
		return failed("create", path, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return failed(fmt.Sprintf("write %d bytes of", len(data)), path, err)
	}
	return nil
}

// MkdirAll makes a directory and those above it that are missing, durably.
func MkdirAll(path string) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("make the directory %s: there is a file of that name", path)
	case !errors.Is(err, fs.ErrNotExist):
		return failed("look for", path, err)
	}
	if dir, _ := split(path); dir != path {
		if err := MkdirAll(dir); err != nil {
			return err
		}
	}
	if err := system.mkdir(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return failed("make the directory", path, err)
	}
	return syncParent(system, path)
}

// syncTree fsyncs every file and directory under root, a directory after what is in it.
func syncTree(disk ops, root string) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir():
			dirs = append(dirs, path)
		case e.Type().IsRegular():
			return disk.sync(path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(dirs) {
		if err := disk.sync(dir); err != nil {
			return err
		}
	}
	return nil
}
