// Package weights is named tensors on disk: safetensors in, one file or many shards, and out.
//
// Files come from strangers. Whatever they hold, reading them ends in tensors or in an error that
// names the file and the tensor: never in a panic, and never in memory asked for by a number that
// the file merely claims.
package weights

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	singleName = "model.safetensors"
	indexName  = "model.safetensors.index.json"
)

// File is an open set of tensors, of one file or of all shards of a model. Reading from it is safe
// for concurrent use; [File.Close] is not.
type File struct {
	tensors  map[string]Tensor
	metadata map[string]string
	release  []func() error
}

// Open opens a safetensors file, a *.index.json that lists shards, or a model's directory, in which
// model.safetensors goes before model.safetensors.index.json. On Unix the files are mapped, so
// only what is read takes memory; elsewhere they are read whole.
//
// A mapped file must not be truncated while it is open (the kernel would stop the process): replace
// files by renaming, as this package's [Write] does.
func Open(path string) (*File, error) {
	path = filepath.Clean(path)
	if info, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open weights %s: %w", path, err)
	} else if !info.IsDir() {
		dir, name := filepath.Split(path)
		return inDir(dir)(openNamed(osSource(dir), name))
	}
	return inDir(path)(openDir(osSource(path)))
}

// OpenFS is [Open] for the directory dir of any file system, such as one embedded in the binary.
// Files are read whole.
func OpenFS(fsys fs.FS, dir string) (*File, error) {
	sub, err := fs.Sub(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("open weights in %s: %w", dir, err)
	}
	return inDir(dir)(openDir(fsSource{sub}))
}

// OpenFileFS opens one safetensors file of any file system. It is read whole.
func OpenFileFS(fsys fs.FS, name string) (*File, error) {
	f, err := openNamed(fsSource{fsys}, name)
	if err != nil {
		return nil, fmt.Errorf("open weights: %w", err)
	}
	return f, nil
}

// inDir adds the directory to an error that names a file in it.
func inDir(dir string) func(*File, error) (*File, error) {
	return func(f *File, err error) (*File, error) {
		if err != nil {
			return nil, fmt.Errorf("open weights in %s: %w", cmp.Or(dir, "."), err)
		}
		return f, nil
	}
}

// OpenBytes opens one safetensors file that is in memory already. The tensors refer to data, which
// must not be changed until the last use of them.
func OpenBytes(data []byte) (*File, error) {
	tensors, metadata, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("read safetensors: %w", err)
	}
	return &File{tensors: tensors, metadata: metadata}, nil
}

// Names returns the names of all tensors, sorted.
func (f *File) Names() []string { return slices.Sorted(maps.Keys(f.tensors)) }

// Tensor returns the tensor of that name; false where there is none.
func (f *File) Tensor(name string) (Tensor, bool) {
	t, ok := f.tensors[name]
	return t, ok
}

// Metadata returns the file's __metadata__, or that of an index; empty where there is none.
func (f *File) Metadata() map[string]string { return maps.Clone(f.metadata) }

// Close releases the files. Tensors that were taken from f must not be used afterwards.
func (f *File) Close() error {
	var err error
	for _, release := range f.release {
		err = errors.Join(err, release())
	}
	f.tensors, f.release = nil, nil
	return err
}

// source is where the files of one model lie.
type source interface {
	// open returns a whole file and what releases it.
	open(name string) (data []byte, release func() error, err error)
}

func openDir(src source) (*File, error) {
	f, err := openNamed(src, singleName)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = openNamed(src, indexName)
	}
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errMissingShard) {
		return nil, fmt.Errorf("neither %s nor %s is there: %w", singleName, indexName, err)
	}
	return f, err
}

func openNamed(src source, name string) (*File, error) {
	if isIndex(name) {
		return openShards(src, name)
	}
	data, release, err := src.open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f, err := OpenBytes(data)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), release())
	}
	f.release = append(f.release, release)
	return f, nil
}

func isIndex(name string) bool { return strings.HasSuffix(name, ".index.json") }

// fsSource reads files whole.
type fsSource struct{ fsys fs.FS }

func (s fsSource) open(name string) ([]byte, func() error, error) {
	f, err := s.fsys.Open(name)
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
	data, err := readWhole(f, info.Size(), !isIndex(name))
	return data, func() error { return nil }, err
}

// readWhole reads size bytes. The head of a safetensors file is checked before the rest is asked
// for, so that a file that claims a terabyte and holds nonsense costs nothing.
func readWhole(r io.Reader, size int64, isTensors bool) ([]byte, error) {
	var head []byte
	if isTensors {
		head = make([]byte, min(size, lengthBytes))
		if _, err := io.ReadFull(r, head); err != nil {
			return nil, err
		}
		n, err := headerLength(head, size)
		if err != nil {
			return nil, err
		}
		head = append(head, make([]byte, n)...)
		if _, err := io.ReadFull(r, head[lengthBytes:]); err != nil {
			return nil, err
		}
		if _, _, err := parseHeader(head[lengthBytes:], size-int64(len(head))); err != nil {
			return nil, err
		}
	} else if size > maxHeader {
		return nil, fmt.Errorf("%d bytes are more than the %d that an index may have", size, int64(maxHeader))
	}
	data := make([]byte, size)
	_, err := io.ReadFull(r, data[copy(data, head):])
	return data, err
}

// checkRegular refuses what would block (a pipe) or never end (a device).
func checkRegular(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("it is not a regular file but %s", info.Mode().Type())
	}
	return nil
}
