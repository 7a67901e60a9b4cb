package fsx

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ManifestFile is the file of a directory that says what else is in it.
const ManifestFile = "manifest.json"

// manifestFormat is the number of the format that this version writes and reads.
const manifestFormat = 1

type manifest struct {
	Format int               `json:"format"`
	Files  map[string]string `json:"files"` // hex sha256 by name
}

// ErrDamaged is the error of a directory that is not what its manifest says.
var ErrDamaged = errors.New("it is damaged")

// ErrFormat is the error of a directory that a later version has sealed: it may be whole.
var ErrFormat = errors.New("it is of a later version")

// Seal writes a manifest of the files in dir, which has no folders: their names and checksums. It belongs
// at the end of what [WriteDir] fills a directory with.
func Seal(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return failed("list", dir, err)
	}
	m := manifest{Format: manifestFormat, Files: map[string]string{}}
	for _, e := range entries {
		if m.Files[e.Name()], err = SumFile(filepath.Join(dir, e.Name())); err != nil {
			return failed("hash", filepath.Join(dir, e.Name()), err)
		}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return Put(filepath.Join(dir, ManifestFile), data)
}

// Verify holds the files of a sealed directory against its manifest. Errors: [ErrDamaged], with the file;
// fs.ErrNotExist where there is no such directory; [ErrFormat].
func Verify(dir string) error {
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	data, err := os.ReadFile(filepath.Join(dir, ManifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s has no %s", ErrDamaged, dir, ManifestFile)
	} else if err != nil {
		return err
	}
	var m manifest
	decode := json.NewDecoder(bytes.NewReader(data))
	decode.DisallowUnknownFields()
	if err := decode.Decode(&m); err != nil || decode.More() || m.Format < 1 || len(m.Files) == 0 {
		return fmt.Errorf("%w: %s is no manifest", ErrDamaged, filepath.Join(dir, ManifestFile))
	}
	if m.Format > manifestFormat {
		return fmt.Errorf("%w: %s has format %d, this version reads up to %d", ErrFormat, filepath.Join(dir, ManifestFile), m.Format, manifestFormat)
	}
	for name, want := range m.Files {
		path := filepath.Join(dir, name)
		if filepath.Base(name) != name {
			return fmt.Errorf("%w: %s names %q, which is no file of it", ErrDamaged, filepath.Join(dir, ManifestFile), name)
		}
		switch have, err := SumFile(path); {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w: %s is missing", ErrDamaged, path)
		case err != nil:
			return err
		case have != want:
			return fmt.Errorf("%w: %s does not have the checksum that is in %s", ErrDamaged, path, filepath.Join(dir, ManifestFile))
		}
	}
	return nil
}

// SumFile returns the hex sha256 of a file.
func SumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
