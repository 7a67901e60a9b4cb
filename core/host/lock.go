package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/sdk"
)

// Lock is dno.lock: the third-party plugins that the user trusts, by checksum. It lies beside the
// script and belongs into version control.
//
//	{"plugins": [{"plugin": "oracle/weather", "path": "plugins/dno-oracle-weather",
//	              "sha256": "64 hex digits", "version": "1.2.0"}]}
type Lock struct {
	Plugins []Pin `json:"plugins"`
}

// Pin is one trusted executable.
type Pin struct {
	Plugin  string `json:"plugin"` // kind/name, where name is as the script writes it
	Path    string `json:"path"`   // where it was when it was pinned
	SHA256  string `json:"sha256"` // 64 lower-case hex digits
	Version string `json:"version"`
}

const lockBytes = 1 << 20 // a lock file of thousands of plugins is smaller

var hexSum = regexp.MustCompile(`^[0-9a-f]{64}$`)

// LoadLock reads the lock file at path; a missing file is an empty lock. The error has
// sdk.CodeCorrupt for a file that is no lock: an unknown key, a plugin named twice, a sum that is none.
func LoadLock(path string) (*Lock, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Lock{}, nil
	}
	if err != nil {
		return nil, sdk.Errorf(sdk.CodeIO, "read the plugins' lock file: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, lockBytes+1))
	if err != nil {
		return nil, sdk.Errorf(sdk.CodeIO, "read the plugins' lock file %s: %w", path, err)
	}
	l, err := parseLock(data)
	if err != nil {
		return nil, sdk.Errorf(sdk.CodeCorrupt, "read the plugins' lock file %s: %w", path, err).WithHint(
			"restore it from version control, or delete it and install the plugins again")
	}
	return l, nil
}

func parseLock(data []byte) (*Lock, error) {
	if len(data) > lockBytes {
		return nil, errors.New("it is over 1 MiB")
	}
	var l Lock
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the object")
	}
	seen := map[string]bool{}
	for i, p := range l.Plugins {
		kind, name, ok := strings.Cut(p.Plugin, "/")
		switch {
		case !ok || name == "" || !slices.Contains(kinds, sdk.Kind(kind)):
			return nil, sdk.Errorf(sdk.CodeCorrupt, "plugins[%d]: %q is no kind/name", i, p.Plugin)
		case seen[p.Plugin]:
			return nil, sdk.Errorf(sdk.CodeCorrupt, "plugins[%d]: %q stands twice", i, p.Plugin)
		case !hexSum.MatchString(p.SHA256):
			return nil, sdk.Errorf(sdk.CodeCorrupt, "plugins[%d]: sha256 of %q is not 64 lower-case hex digits", i, p.Plugin)
		}
		seen[p.Plugin] = true
	}
	return &l, nil
}

var kinds = []sdk.Kind{sdk.KindOracle, sdk.KindLoss, sdk.KindSampler}

// Save writes the lock to path, sorted, all or nothing.
func (l *Lock) Save(path string) error {
	slices.SortFunc(l.Plugins, func(a, b Pin) int { return strings.Compare(a.Plugin, b.Plugin) })
	data, err := json.MarshalIndent(l, "", "  ")
	if err == nil {
		err = fsx.WriteFile(path, append(data, '\n'), 0o644)
	}
	if err != nil {
		return sdk.Errorf(sdk.CodeIO, "write the plugins' lock file %s: %w", path, err)
	}
	return nil
}

// Set pins a plugin, instead of what was pinned for it before.
func (l *Lock) Set(p Pin) {
	l.Remove(p.Plugin)
	l.Plugins = append(l.Plugins, p)
}

// Remove takes a plugin's pin away and says whether there was one.
func (l *Lock) Remove(plugin string) bool {
	before := len(l.Plugins)
	l.Plugins = slices.DeleteFunc(l.Plugins, func(p Pin) bool { return p.Plugin == plugin })
	return len(l.Plugins) < before
}

// Checksum returns the sum that a plugin's executable must have.
func (l *Lock) Checksum(kind sdk.Kind, name string) (string, bool) {
	for _, p := range l.Plugins {
		if p.Plugin == string(kind)+"/"+name {
			return p.SHA256, true
		}
	}
	return "", false
}

// PinState is what has become of a pinned executable.
type PinState string

const (
	PinOK      PinState = "ok"
	PinChanged PinState = "CHANGED" // its checksum is another
	PinMissing PinState = "MISSING" // there is no such file
	PinUnfit   PinState = "UNFIT"   // it is no executable, or everybody can write it
)

// Verify says what has become of the pinned executable, its path starting from dir; the error says
// why it is not PinOK. Nothing is run.
func (p Pin) Verify(dir string) (PinState, error) {
	path := p.Path
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	if err := executable(path); errors.Is(err, fs.ErrNotExist) {
		return PinMissing, err
	} else if err != nil {
		return PinUnfit, err
	}
	sum, err := fsx.SumFile(path)
	if err != nil {
		return PinUnfit, err
	}
	if sum != p.SHA256 {
		return PinChanged, fmt.Errorf("%s has the checksum %s, %s is pinned", path, sum, p.SHA256)
	}
	return PinOK, nil
}

var _ Checksums = (*Lock)(nil)
