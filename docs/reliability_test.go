package docs_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var updateReliability = flag.Bool("update", false, "write RELIABILITY.md's last column anew")

var (
	testName = regexp.MustCompile(`(?m)^func (Test((?:F\d+)+)[A-Z]\w*)\(`)
	rowName  = regexp.MustCompile(`(?m)^\s+"(F\d+) [^"]*":`) // of a table of cases
	oneID    = regexp.MustCompile(`F\d+`)
)

// faultTests are the tests in the repository by the id of the fault that they cause.
func faultTests(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	add := func(id, name string) {
		if !slices.Contains(found[id], name) {
			found[id] = append(found[id], name)
		}
	}
	for _, dir := range []string{"../core", "../cmd", "../plugins", "../sdk"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			pkg := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../")
			for _, m := range testName.FindAllStringSubmatch(string(text), -1) {
				for _, id := range oneID.FindAllString(m[2], -1) {
					add(id, fmt.Sprintf("%s `%s`", pkg, m[1]))
				}
			}
			for _, m := range rowName.FindAllStringSubmatch(string(text), -1) {
				add(m[1], fmt.Sprintf("%s, rows of `%s`", pkg, filepath.Base(path)))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, names := range found {
		slices.Sort(names)
	}
	return found
}

// The page lists every fault from F1 on, and the tests that there are.
func TestReliabilityNamesTheTests(t *testing.T) {
	const page = "RELIABILITY.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	found := faultTests(t)
	var out []string
	next := 1
	for _, line := range strings.Split(string(text), "\n") {
		cells := strings.Split(line, " | ")
		id, isRow := strings.CutPrefix(cells[0], "| F")
		if !isRow {
			out = append(out, line)
			continue
		}
		n, err := strconv.Atoi(id)
		if err != nil || n != next || len(cells) < 3 {
			t.Fatalf("the row %.40q follows F%d", line, next-1)
		}
		next++
		tests := strings.Join(found["F"+id], ", ")
		if tests == "" {
			tests = "not tested"
		}
		delete(found, "F"+id)
		out = append(out, fmt.Sprintf("| F%s | %s | %s | %s |", id, cells[1], strings.TrimSuffix(cells[2], " |"), tests))
	}
	if next != 46 || len(found) > 0 {
		t.Errorf("there are %d rows, want F1 to F45; tests without a row: %v", next-1, found)
	}
	want := strings.Join(out, "\n")
	if *updateReliability {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("%s does not name the tests that there are: go test ./docs -run TestReliability -update", page)
	}
}
