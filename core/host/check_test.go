package host

import (
	"strings"
	"testing"
	"time"

	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
)

func expect(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("want %q, have %v", want, err)
	}
}

func TestManifestsAreChecked(t *testing.T) {
	spec := Spec{Kind: sdk.KindOracle, Name: "x"}
	good := sdk.Manifest{Kind: sdk.KindOracle, Name: "x", Version: "1", Oracle: sdk.OracleTraits{Form: sdk.FormListwise}}
	for name, c := range map[string]struct {
		change func(*sdk.Manifest)
		want   string
	}{
		"a whole one passes":    {func(*sdk.Manifest) {}, ""},
		"one without a version": {func(m *sdk.Manifest) { m.Version = "" }, "no version"},
		"one without a form":    {func(m *sdk.Manifest) { m.Oracle.Form = "" }, `form is ""`},
		"a name with a space":   {func(m *sdk.Manifest) { m.Name = "x y" }, "lower-case"},
	} {
		t.Run(name, func(t *testing.T) {
			m := good
			c.change(&m)
			expect(t, checkManifest(spec, m), c.want)
		})
	}
}

func TestPrintsAreKeptAndLimited(t *testing.T) {
	logged := &syncBuffer{}
	log, err := telemetry.New(telemetry.Options{Writer: logged, JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	log.Secrets().Add("hunter2")
	l := newLines(log)
	now := time.Unix(0, 0)
	l.now = func() time.Time { return now }
	for range logBurst + 5 {
		l.add("password hunter2")
	}
	if n := strings.Count(logged.String(), "password ***"); n != logBurst {
		t.Errorf("%d lines at once, want %d", n, logBurst)
	}
	now = now.Add(time.Second) // allows logRate more
	l.add("later")
	if s := logged.String(); !strings.Contains(s, `"dropped":5`) || !strings.Contains(s, "later") {
		t.Errorf("after a second the log is\n%s", s[len(s)-300:])
	}
	kept := l.kept()
	if len(kept) != keptLines || kept[0] != "password ***" || kept[keptLines-1] != "later" {
		t.Errorf("kept are %q", kept)
	}
	l.add("panic: boom")
	for range 100 {
		l.add("goroutine")
	}
	if kept = l.kept(); len(kept) != keptLines || kept[0] != "panic: boom" {
		t.Errorf("of a crash, kept are %q", kept)
	}
}

func TestPrintableTakesOutWhatATerminalWouldObey(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[1;31mred\x1b[0m":              "red",
		"\x1b]0;title\x07text":              "text",
		"bell\x07 and \u202eright-to-left":  "bell\uFFFD and \uFFFDright-to-left",
		"tab\tand \xff byte":                "tab and \uFFFD byte",
		strings.Repeat("é", lineBytes):      strings.Repeat("é", lineBytes/2) + "…",
		"grün, 漢字":                          "grün, 漢字",
		"cut \x1b":                          "cut ",
		"\x1b[38;5;196mcolour\x1b[K and \r": "colour and \uFFFD",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m")
	f.Add("\x1b]8;;http://x\x1b\\link")
	f.Fuzz(func(t *testing.T, in string) {
		if out := printable(in); strings.ContainsAny(out, "\x1b\x07\n\r\x00") {
			t.Errorf("printable(%q) = %q", in, out)
		}
	})
}
