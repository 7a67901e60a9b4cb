package host

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/dno-project/dno/sdk"
)

// program is what runs for a plugin: a bundled one by its command, a third party's by its path
// and checksum.
type program struct {
	argv []string
	path string // "" for a bundled plugin
	sum  string // hex sha256, "" for a bundled plugin
}

// isPath tells an executable's path from a plugin's name.
func isPath(name string) bool {
	return strings.ContainsRune(name, '/') || strings.ContainsRune(name, filepath.Separator)
}

func (h *Host) lookUp(kind sdk.Kind, name string) (program, error) {
	path := name
	if !isPath(name) {
		if !sdk.IsName(name) {
			return program{}, sdk.Errorf(sdk.CodeUsage, "%s: a plugin's name has lower-case letters, digits, '-' and '_' only; a path has a slash", id(kind, name))
		}
		if h.options.Bundled != nil {
			if argv, ok := h.options.Bundled(kind, name); ok && len(argv) > 0 {
				return program{argv: argv}, nil
			}
		}
		found, err := h.search(kind, name)
		if err != nil {
			return program{}, err
		}
		if path = found; path == "" {
			return program{}, h.missing(kind, name)
		}
	}
	if err := executable(path); err != nil {
		return program{}, sdk.Errorf(sdk.CodePlugin, "%s: %w", id(kind, name), err)
	}
	var sum string
	ok := false
	if h.options.Lock != nil {
		sum, ok = h.options.Lock.Checksum(kind, name)
	}
	if !ok {
		return program{}, sdk.Errorf(sdk.CodePlugin, "%s: the checksum of %s is not pinned in dno.lock", id(kind, name), path).WithHint(
			"if you trust this executable: dno plugin install %s", path)
	}
	return program{argv: []string{path}, path: path, sum: strings.ToLower(sum)}, nil
}

// search looks for the executable in the directories; "" where there is none. An executable whose
// links lead out of its directory is refused: whoever may write there could point anywhere.
func (h *Host) search(kind sdk.Kind, name string) (string, error) {
	for _, dir := range h.options.SearchDirs {
		path := filepath.Join(dir, fileName(kind, name))
		if _, err := os.Lstat(path); err != nil {
			continue
		}
		realDir, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return "", sdk.Errorf(sdk.CodePlugin, "%s: %w", id(kind, name), err)
		}
		target, err := filepath.EvalSymlinks(path)
		if err != nil {
			return "", sdk.Errorf(sdk.CodePlugin, "%s: %w", id(kind, name), err)
		}
		if rel, err := filepath.Rel(realDir, target); err != nil || !filepath.IsLocal(rel) {
			return "", sdk.Errorf(sdk.CodePlugin, "%s: %s is a link out of its directory, to %s", id(kind, name), path, target).WithHint(
				"put the executable itself there, or name its path in the script")
		}
		return target, nil
	}
	return "", nil
}

// executable says what keeps a file from being run as a plugin.
func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file", path)
	case runtime.GOOS == "windows":
		return nil
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable: chmod +x it", path)
	case info.Mode()&0o002 != 0:
		return fmt.Errorf("%s can be written by everybody: chmod o-w it", path)
	}
	return nil
}

func fileName(kind sdk.Kind, name string) string {
	f := "dno-" + string(kind) + "-" + name
	if runtime.GOOS == "windows" {
		f += ".exe"
	}
	return f
}

// Names returns the names of a kind's plugins that there are, sorted: the bundled ones and the
// executables in the search directories.
func (h *Host) Names(kind sdk.Kind) []string {
	var names []string
	if h.options.BundledNames != nil {
		names = append(names, h.options.BundledNames(kind)...)
	}
	prefix, suffix := fileName(kind, ""), ""
	if runtime.GOOS == "windows" {
		prefix, suffix = strings.TrimSuffix(prefix, ".exe"), ".exe"
	}
	for _, dir := range h.options.SearchDirs {
		entries, _ := os.ReadDir(dir) // a directory that is not there holds none
		for _, e := range entries {
			if name, ok := strings.CutPrefix(e.Name(), prefix); ok {
				if name, ok = strings.CutSuffix(name, suffix); ok && sdk.IsName(name) {
					names = append(names, name)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (h *Host) missing(kind sdk.Kind, name string) error {
	names := h.Names(kind)
	have := "there is none at all"
	if len(names) > 0 {
		have = "there are " + strings.Join(names, ", ")
	}
	e := sdk.Errorf(sdk.CodePlugin, "there is no %s; %s", id(kind, name), have)
	if near := sdk.Nearest(name, names); near != "" {
		return e.WithHint("did you mean %q?", near)
	}
	return e.WithHint("an executable is found as %s in %s, or by a path with a slash",
		fileName(kind, name), strings.Join(h.options.SearchDirs, ", "))
}
