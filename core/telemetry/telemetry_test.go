package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"
)

func newLog(t *testing.T, o Options) (Logger, *bytes.Buffer) {
	t.Helper()
	var b bytes.Buffer
	o.Writer = &b
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return l, &b
}

func TestALineHasItsFields(t *testing.T) {
	l, b := newLog(t, Options{JSON: true})
	l.With(Plugin.Of("loss/dpo")).Warn("died", Attempt.Of(2), Cause.Of(errors.New("exit status 9")), Seconds.Of(1500*time.Millisecond))
	var got map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	if _, err := time.Parse(time.RFC3339, fmt.Sprint(got["time"])); err != nil {
		t.Error(err)
	}
	delete(got, "time")
	want := map[string]any{"level": "warn", "message": "died", "plugin": "loss/dpo", "attempt": 2.0, "error": "exit status 9", "seconds": "1.5s"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("have %v, want %v", got, want)
	}
}

func TestLevels(t *testing.T) {
	for level, want := range map[string]string{
		"debug": "dbg inf wrn err", "": "inf wrn err", "info": "inf wrn err", "warn": "wrn err", "error": "err", "off": "",
	} {
		l, b := newLog(t, Options{Level: level, JSON: true})
		l.Debug("dbg")
		l.Info("inf")
		l.Warn("wrn")
		l.Error("err")
		var got []string
		for _, line := range strings.Split(strings.TrimSpace(b.String()), "\n") {
			if line != "" {
				got = append(got, line[len(line)-5:len(line)-2])
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("level %q writes %v, want %s", level, got, want)
		}
	}
	if _, err := New(Options{Level: "loud"}); err == nil || !strings.Contains(err.Error(), "loud") {
		t.Errorf("an unknown level gives %v", err)
	}
}

func TestTextHasColoursOnlyWhereAsked(t *testing.T) {
	for _, color := range []bool{false, true} {
		l, b := newLog(t, Options{Color: color})
		l.Info("hello", Count.Of(3))
		if strings.Contains(b.String(), "\x1b[") != color || !strings.Contains(b.String(), "hello") {
			t.Errorf("colour %v gives %q", color, b)
		}
	}
}

func TestTheZeroLoggerWritesNothing(t *testing.T) {
	var l Logger
	l.Secrets().Add("password")
	l.With(Plugin.Of("x")).Error("nobody hears")
	p := NewProgress(l)
	p.Start("sample", 3)
	p.Add(1)
	p.Done()
}

func TestAFileIsNoTerminal(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if o := ForFile(f, os.Getenv); o.Terminal || o.Color || o.Writer != f {
		t.Errorf("have %+v", o)
	}
}

func TestSecretsAreTakenOutOfEverything(t *testing.T) {
	for _, asJSON := range []bool{true, false} {
		l, b := newLog(t, Options{JSON: asJSON, Terminal: true})
		l.Secrets().Add("sk-CANARY", "sk-CANARY-longer", "quote\"and/slash?", "1", "")
		l.With(Path.Of("https://x/?key=quote%22and%2Fslash%3F")).Info("sk-CANARY-longer and sk-CANARY",
			Cause.Of(errors.New("bad key quote\"and/slash?")), Count.Of(1))
		p := NewProgress(l)
		p.Start("reading sk-CANARY", 2)
		p.Done()
		s := b.String()
		for _, secret := range []string{"CANARY", "longer", "slash"} {
			if strings.Contains(s, secret) {
				t.Errorf("JSON %v: %q is in\n%s", asJSON, secret, s)
			}
		}
		if !strings.Contains(s, "*** and ***") || !strings.Contains(s, "1") {
			t.Errorf("JSON %v: have\n%s", asJSON, s)
		}
	}
}

func TestLinesOfManyGoroutinesStayWhole(t *testing.T) {
	l, b := newLog(t, Options{JSON: true})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range 50 {
				l.Secrets().Add(fmt.Sprintf("secret-%d", g))
				l.Info(strings.Repeat("x", 100))
			}
		})
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 400 {
		t.Errorf("%d lines, want 400", len(lines))
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Fatalf("not whole: %q", line)
		}
	}
}

// newProgress returns a progress with a clock that the test moves.
func newProgress(t *testing.T, o Options) (*Progress, *bytes.Buffer, *time.Time) {
	t.Helper()
	l, b := newLog(t, o)
	now := time.Unix(1000, 0)
	p := NewProgress(l)
	p.now = func() time.Time { return now }
	return p, b, &now
}

func TestOffATerminalAStageIsTwoLines(t *testing.T) {
	p, b, now := newProgress(t, Options{JSON: true})
	p.Start("sample", 512)
	for range 512 {
		*now = now.Add(250 * time.Millisecond)
		p.Add(1)
	}
	p.Done()
	p.Done() // a second one has nothing to end
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"stage":"sample","total":512`) ||
		!strings.Contains(lines[1], `"count":512,"total":512,"seconds":128`) { // 512 · 0.25 s
		t.Errorf("have %q", lines)
	}
}

func TestOnATerminalTheLiveLineStaysBelow(t *testing.T) {
	p, b, now := newProgress(t, Options{Terminal: true})
	p.Start("judge", 100)
	*now = now.Add(time.Second)
	p.Add(10)
	p.Add(10) // within 100 ms of the last drawing: not drawn
	p.log.Info("a line")
	*now = now.Add(9 * time.Second)
	p.Add(5)
	p.Done()
	s := b.String()
	for _, want := range []string{
		eraseLine + "judge 0/100 (0 %) 0s",
		eraseLine + "judge 10/100 (10 %) 1s",
		"a line\njudge 10/100 (10 %) 1s",
		// 25 in 10 s are 2.5/s; the other 75 take 30 s more.
		eraseLine + "judge 25/100 (25 %) 10s, 2.5/s, about 30s left" + eraseLine,
	} {
		if !strings.Contains(s, want) {
			t.Errorf("want %q in\n%q", want, s)
		}
	}
	if strings.Contains(s, "judge 20/100") {
		t.Errorf("drawn twice within 100 ms: %q", s)
	}
	if !strings.HasSuffix(s, "\n") || strings.Contains(s[strings.LastIndex(s, eraseLine)+len(eraseLine):], "judge 25/100") {
		t.Errorf("the live line stays behind: %q", s)
	}
}

func TestWhatALiveLineSays(t *testing.T) {
	for want, c := range map[string]struct {
		total, done int
		after       time.Duration
	}{
		"x 0/10 (0 %) 5s":  {10, 0, 5 * time.Second}, // nothing is done: no rate
		"x 5/10 (50 %) 1s": {10, 5, time.Second},     // too early for one
		"x 5/10 (50 %) 1m40s, 3.0/min, about 1m40s left": {10, 5, 100 * time.Second},
		"x 1/3 (33 %) 1h30m, 0.7/h, about 3h00m left":    {3, 1, 90 * time.Minute},
		"x 10/10 (100 %) 10s, 1.0/s":                     {10, 10, 10 * time.Second},
		"x 7 2s, 3.5/s":                                  {0, 7, 2 * time.Second}, // of nobody knows how many
	} {
		p := &Progress{stage: "x", total: c.total, done: c.done}
		if got := p.line(c.after); got != want {
			t.Errorf("have %q, want %q", got, want)
		}
	}
}

// jump moves a time's wall clock, as somebody who sets the clock does, and not its monotonic one. A time with both has,
// in its first word, a bit for that, 33 bits of seconds, and 30 of nanoseconds.
func jump(t time.Time, seconds int64) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t))
	*wall += uint64(seconds) << 30
	return t
}

// F37: the clock is set back a day, or forward a year, in the middle of a stage.
func TestF37AClockThatJumpsChangesNoFigure(t *testing.T) {
	for _, seconds := range []int64{-24 * 3600, 365 * 24 * 3600} {
		base := time.Now()
		if moved := jump(base, seconds); moved.Unix() != base.Unix()+seconds || moved.Sub(base) != 0 {
			t.Fatalf("the clock did not jump: %v, %v", base, moved)
		}
		l, b := newLog(t, Options{Terminal: true})
		p := NewProgress(l)
		now := base
		p.now = func() time.Time { return now }
		p.Start("judge", 100)
		now = jump(base.Add(4*time.Second), seconds)
		p.Add(10)
		now = jump(base.Add(8*time.Second), seconds)
		p.Add(10)
		p.Done()
		if s := b.String(); !strings.Contains(s, "judge 20/100 (20 %) 8s, 2.5/s, about 32s left") || !strings.Contains(s, "seconds=8") {
			t.Errorf("after a jump of %d s it says %q", seconds, s)
		}
	}
}

// What an earlier process did tells nothing of the rate.
func TestTheTimeLeftIsOfWhatIsDoneNow(t *testing.T) {
	p, b, now := newProgress(t, Options{Terminal: true})
	p.Start("train", 100)
	p.Already(60)
	*now = now.Add(10 * time.Second)
	p.Add(10)
	if s := b.String(); !strings.Contains(s, "train 70/100 (70 %) 10s, 1.0/s, about 30s left") {
		t.Errorf("it says %q", s)
	}
}
