package sdktest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The module is in a folder of its own below a new directory: module/go.mod, module/inner/package.
func TestGoldenDataAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		dirs    []string // what there is, in the new directory
		golden  string   // DNO_GOLDEN; "ABS/" stands for the new directory
		want    string   // "" is none
		says    string   // of the log, the skip or the failure
		failure bool
	}{
		"beside the module, where nothing is said":    {[]string{"shared/golden/arch", "own/arch"}, "", "shared/golden/arch", "", false},
		"a relative path counts from the module":      {[]string{"module/mine/arch", "module/inner/package/mine"}, "mine", "module/mine/arch", "", false},
		"a relative path may lead out of the module":  {[]string{"mine/arch", "shared/golden/arch"}, "../mine", "mine/arch", "", false},
		"an absolute path is taken as it is":          {[]string{"mine/arch", "shared/golden/arch"}, "ABS/mine", "mine/arch", "", false},
		"the fallback, loudly":                        {[]string{"own/arch"}, "", "own/arch", "NO GOLDEN DATA", false},
		"no data at all is a skip":                    {nil, "", "", "NOT TESTED", false},
		"data without such cases is a skip":           {[]string{"mine/traj", "shared/golden/arch", "own/arch"}, "../mine", "", "NOT TESTED", false},
		"a default without such cases is a skip too":  {[]string{"shared/golden/traj", "own/arch"}, "", "", "NOT TESTED", false},
		"a directory that was asked for and is not":   {[]string{"shared/golden/arch", "own/arch"}, "../mine", "", "is no directory", true},
		"a fallback without such cases is a skip":     {[]string{"own/traj"}, "", "", "NOT TESTED", false},
		"DNO_GOLDEN wins over default and fallback":   {[]string{"mine/arch", "shared/golden/arch", "own/arch"}, "../mine", "mine/arch", "", false},
		"the working directory does not count at all": {[]string{"module/inner/package/shared/golden/arch"}, "", "", "NOT TESTED", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := filepath.EvalSymlinks(t.TempDir()) // what the system calls the working directory
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range append(c.dirs, "module/inner/package") {
				if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, "module", "go.mod"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Chdir(filepath.Join(dir, "module", "inner", "package"))
			t.Setenv("DNO_GOLDEN", strings.Replace(c.golden, "ABS", dir, 1))
			r, got := newRecorder(), ""
			r.Run("find", func(r *recorder) { got = GoldenDir(r, "arch", filepath.Join(dir, "own")) })
			want := ""
			if c.want != "" {
				want = filepath.Join(dir, filepath.FromSlash(c.want))
			}
			if got != want {
				t.Errorf("found %q, want %q", got, want)
			}
			said := strings.Join(slices.Concat(*r.failed, *r.skipped, *r.logged), "\n")
			if (said != "") != (c.says != "") || !strings.Contains(said, c.says) || (len(*r.failed) > 0) != c.failure {
				t.Errorf("said %q (failures %q), want %q", said, *r.failed, c.says)
			}
		})
	}
}

func TestGoldenCasesAreSortedAndOfTheirPattern(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DNO_GOLDEN", dir)
	for _, name := range []string{"arch/b/config.json", "arch/a/config.json", "arch/notes.txt", "traj/c/config.json"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{filepath.Join(dir, "arch", "a", "config.json"), filepath.Join(dir, "arch", "b", "config.json")}
	if got := GoldenCases(t, "arch/*/config.json"); !slices.Equal(got, want) {
		t.Errorf("have %q, want %q", got, want)
	}
}
