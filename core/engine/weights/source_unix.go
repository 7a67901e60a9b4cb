//go:build unix

package weights

import (
	"fmt"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// osSource maps the files of a directory into memory.
type osSource string

func (dir osSource) open(name string) ([]byte, func() error, error) {
	// Without O_NONBLOCK, opening a pipe would wait for a writer before it could be refused.
	f, err := os.OpenFile(filepath.Join(string(dir), name), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if err := checkRegular(info); err != nil {
		return nil, nil, err
	}
	size := info.Size()
	switch {
	case isIndex(name), size == 0: // nothing can be mapped of an empty file
		data, err := readWhole(f, size, false)
		return data, func() error { return nil }, err
	case size > math.MaxInt:
		return nil, nil, fmt.Errorf("%d bytes are more than this machine can address", size)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	return data, func() error { return unix.Munmap(data) }, nil
}
