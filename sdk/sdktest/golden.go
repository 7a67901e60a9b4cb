package sdktest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// GoldenDir returns a folder, or a file, of the golden data: numbers from other implementations.
//
// The data are in the directory that DNO_GOLDEN names (a relative path counts from the folder of
// go.mod), or else in ../shared/golden from there. Where DNO_GOLDEN is not set and that default is
// absent, the fallback is taken, if there is one: a directory of fewer cases that is the
// package's own. Where there is no data, or no sub in it, the test is skipped; it fails where
// DNO_GOLDEN names no directory.
func GoldenDir(t TB, sub string, fallback ...string) string {
	t.Helper()
	return GoldenCases(t, sub, fallback...)[0]
}

// GoldenCases returns the paths among the golden data that match a pattern of [path.Match], sorted;
// see [GoldenDir]. It never returns none.
func GoldenCases(t TB, pattern string, fallback ...string) []string {
	t.Helper()
	dir := goldenRoot(t, fallback)
	names, err := fs.Glob(os.DirFS(dir), pattern)
	if err != nil {
		t.Fatalf("list the golden data: %v", err)
	}
	if len(names) == 0 {
		t.Skipf("NOT TESTED against other implementations: no %s in the golden data %s; set DNO_GOLDEN to their directory", pattern, dir)
	}
	for i, name := range names {
		names[i] = filepath.Join(dir, filepath.FromSlash(name))
	}
	return names
}

func goldenRoot(t TB, fallback []string) string {
	t.Helper()
	module, err := moduleRoot()
	if err != nil {
		t.Fatalf("find the golden data: %v", err)
	}
	if dir := os.Getenv("DNO_GOLDEN"); dir != "" {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(module, dir)
		}
		if !isDir(dir) {
			t.Fatalf("DNO_GOLDEN names %s, which is no directory: unset it, or set it to that of the golden data", dir)
		}
		return dir
	}
	dir := filepath.Join(module, "..", "shared", "golden")
	for _, f := range fallback {
		if !isDir(dir) && isDir(f) {
			t.Logf("NO GOLDEN DATA in %s: comparing with the few cases in %s only", dir, f)
			return f
		}
	}
	return dir
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		dir = parent
	}
	return "", err
}
