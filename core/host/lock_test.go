package host

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk"
)

func TestALockIsWrittenSortedAndReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dno.lock")
	l, err := LoadLock(path)
	if err != nil || len(l.Plugins) != 0 {
		t.Fatalf("a missing file is %v, %v", l, err)
	}
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	l.Set(Pin{Plugin: "oracle/weather", Path: "plugins/dno-oracle-weather", SHA256: a, Version: "1.2.0"})
	l.Set(Pin{Plugin: "loss/./mine", Path: "./mine", SHA256: a, Version: "1"})
	l.Set(Pin{Plugin: "oracle/weather", Path: "plugins/dno-oracle-weather", SHA256: b, Version: "1.3.0"})
	if err := l.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := LoadLock(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []Pin{
		{Plugin: "loss/./mine", Path: "./mine", SHA256: a, Version: "1"},
		{Plugin: "oracle/weather", Path: "plugins/dno-oracle-weather", SHA256: b, Version: "1.3.0"},
	}
	if !reflect.DeepEqual(got.Plugins, want) {
		t.Errorf("have %+v", got.Plugins)
	}
	if sum, ok := got.Checksum(sdk.KindLoss, "./mine"); !ok || sum != a {
		t.Errorf("checksum %q, %v", sum, ok)
	}
	if _, ok := got.Checksum(sdk.KindLoss, "weather"); ok {
		t.Error("an oracle's pin counts for a loss")
	}
	if !got.Remove("oracle/weather") || got.Remove("oracle/weather") || len(got.Plugins) != 1 {
		t.Errorf("after removing: %+v", got.Plugins)
	}
}

func TestLocksThatAreRefused(t *testing.T) {
	sum := strings.Repeat("0", 64)
	pin := `{"plugin": "loss/a", "sha256": "` + sum + `"}`
	for name, c := range map[string]struct{ text, want string }{
		"an empty file":         {"", "EOF"},
		"an unknown key":        {`{"plugins": [], "pluggins": []}`, "pluggins"},
		"something behind it":   {`{"plugins": []} {}`, "something follows"},
		"a plugin named twice":  {`{"plugins": [` + pin + `, ` + pin + `]}`, "plugins[1]"},
		"a name without a kind": {`{"plugins": [{"plugin": "a", "sha256": "` + sum + `"}]}`, "kind/name"},
		"a kind that is none":   {`{"plugins": [{"plugin": "engine/a", "sha256": "` + sum + `"}]}`, "kind/name"},
		"a short sum":           {`{"plugins": [{"plugin": "loss/a", "sha256": "00"}]}`, "64 lower-case hex digits"},
		"a file of over 1 MiB":  {strings.Repeat(" ", lockBytes+1), "1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dno.lock")
			if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := LoadLock(path)
			var e *sdk.Error
			if !errors.As(err, &e) || e.Code != sdk.CodeCorrupt || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, have %v", c.want, err)
			}
		})
	}
}

func FuzzLock(f *testing.F) {
	f.Add([]byte(`{"plugins": [{"plugin": "loss/a", "path": "p", "sha256": "` + strings.Repeat("0", 64) + `", "version": "1"}]}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"plugins": null}x`))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseLock(data)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "dno.lock")
		if err := l.Save(path); err != nil {
			t.Fatal(err)
		}
		again, err := LoadLock(path)
		if err != nil || (len(l.Plugins) > 0 && !reflect.DeepEqual(l.Plugins, again.Plugins)) {
			t.Fatalf("written %+v, read %+v, %v", l, again, err)
		}
	})
}

func TestPinsAreVerified(t *testing.T) {
	dir, path, sum := refusedParty(t)
	name := filepath.Base(path)
	for want, p := range map[PinState]Pin{
		PinOK:      {Path: name, SHA256: sum},
		PinChanged: {Path: path, SHA256: strings.Repeat("0", 64)},
		PinMissing: {Path: "none", SHA256: sum},
		PinUnfit:   {Path: ".", SHA256: sum},
	} {
		state, err := p.Verify(dir)
		if state != want || (err == nil) != (want == PinOK) {
			t.Errorf("want %s, got %s: %v", want, state, err)
		}
	}
	if runtime.GOOS == "windows" {
		return // its files have no such modes
	}
	for _, mode := range []os.FileMode{0o644, 0o757} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if state, err := (Pin{Path: path, SHA256: sum}).Verify(dir); state != PinUnfit || err == nil {
			t.Errorf("of mode %v: %s, %v", mode, state, err)
		}
	}
}
