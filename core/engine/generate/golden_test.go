package generate

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// golden returns the path of a file or directory among the golden data, or skips the test.
func golden(t *testing.T, elem ...string) string {
	t.Helper()
	root := os.Getenv("DNO_GOLDEN")
	if root == "" {
		dir, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for !exists(filepath.Join(dir, "go.mod")) {
			if dir == filepath.Dir(dir) {
				t.Fatal("no go.mod above the test's directory")
			}
			dir = filepath.Dir(dir)
		}
		root = filepath.Join(dir, "..", "shared", "golden")
	}
	path := filepath.Join(append([]string{root}, elem...)...)
	if !exists(path) {
		t.Skipf("GOLDEN DATA ABSENT: no %s; set DNO_GOLDEN", path)
	}
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("reading %s: %v", path, err)
	}
}

// number is a float64 that may be written as the string "inf", "-inf" or "nan".
type number float64

func (n *number) UnmarshalJSON(data []byte) error {
	text := string(data)
	if s, err := strconv.Unquote(text); err == nil {
		text = s
	}
	v, err := strconv.ParseFloat(text, 64)
	*n = number(v)
	return err
}
