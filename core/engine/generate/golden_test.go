package generate

import (
	"encoding/json"
	"os"
	"path"
	"strconv"
	"testing"

	"github.com/dno-project/dno/sdk/sdktest"
)

// golden returns the path of a file or directory among the golden data, or skips the test.
func golden(t *testing.T, elem ...string) string {
	t.Helper()
	return sdktest.GoldenDir(t, path.Join(elem...), "../testdata/golden")
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
