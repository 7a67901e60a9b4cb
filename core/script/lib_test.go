package script

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

// TestLibrary runs scripts/lib/*_test.lua: each function of the table that a file returns is a test.
func TestLibrary(t *testing.T) {
	files, err := filepath.Glob("../../scripts/lib/*_test.lua")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in Lua were found: %v", err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		box := newSandbox(nil, func(line string) { t.Log(line) })
		tests, err := box.file(filepath.Base(file), source)
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		each(tests, func(name, fn lua.LValue) bool {
			count++
			t.Run(name.String(), func(t *testing.T) {
				if _, err := box.run(context.Background(), request{what: name.String(), steps: promptSteps, seed: 1, fn: fn.(*lua.LFunction)}); err != nil {
					t.Error(err)
				}
			})
			return true
		})
		if count == 0 {
			t.Errorf("%s has no tests", file)
		}
	}
}
