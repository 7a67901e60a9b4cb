package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/wire"
)

// What a plugin may do wrong, and what becomes of it. The ids F26 to F33 are those of the table of
// faults that docs/plugin-protocol.md refers to.

// survivors are the living processes that a host's plugins have started: all of them inherit the path of
// its directory in their environment.
func survivors(t *testing.T, h *Host) (pids []string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return nil
	}
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		environ, _ := os.ReadFile(path) // of a zombie, or of a process that is gone: nothing
		if strings.Contains(string(environ), h.temp.path) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

// evil is what one plugin does in a call, or at its start, and what the host makes of it.
type evil struct {
	name, mode string // name: "good", unless it goes wrong before it serves
	memory     int64
	timeout    time.Duration
	health     time.Duration // to answer a health check; 0: half a second
	state      int           // bytes of the loss's state in the request
	calls      int           // how many reach the plugin, where it counts them
	code       sdk.Code      // 0: it recovers, and answers as an honest plugin would
	want, hint string
	linux      bool // the means are Linux's
}

func TestEvilPlugins(t *testing.T) {
	for name, c := range map[string]evil{
		"F26 noise on standard output before the handshake": {name: "talks", code: sdk.CodePlugin,
			want: `loss "talks" wrote "hello from main" to standard output before the handshake`, hint: "standard error"},
		"F27 a flood of lines": {name: "chatty"},
		"F27 floods both outputs with 100 MB, binary and without a line's end": {mode: "flood"},
		"F27 floods, and says why it ends": {mode: "flood and exit", code: sdk.CodePlugin,
			want: "last words on std"},
		"F27 closes its outputs": {mode: "close"},
		"F28 hangs at its start": {name: "sleeps", code: sdk.CodePlugin,
			want: "did not say what it is within 1s; it printed:\n  | I sleep"},
		"F28 hangs in a call": {mode: "hang", timeout: 300 * time.Millisecond, code: sdk.CodePlugin,
			want: "did not answer within 300ms", hint: "timeout = 1 (seconds)"},
		"F28 ignores that it shall stop": {name: "stubborn"},
		"F28 is stopped in a call, each time": {mode: "stop", health: 500 * time.Millisecond, code: sdk.CodePlugin, linux: true,
			want: "died 4 times in one call, for the last time: it was stuck: no answer to a health check within 500ms"},
		"F28 is stopped in a call, once":            {mode: "stop once", health: 500 * time.Millisecond, linux: true},
		"F28 is busy, and answers its health check": {mode: "busy", health: 2 * time.Second, calls: 1},
		"F28 ends its server, and lives on": {name: "shut", mode: "shut", code: sdk.CodePlugin,
			want: "died 4 times in one call, for the last time: the connection broke"},
		"F28 leaves a child":                         {name: "family", linux: true},
		"F28 leaves a child in a session of its own": {name: "estranged", linux: true},
		"F28 says that it serves where nothing is": {name: "liar", code: sdk.CodePlugin,
			want: "gave no certificate in its handshake"},
		"F29 exits in a call": {mode: "exit", code: sdk.CodePlugin,
			want: "its process ended (exit status 3); it printed:\n"},
		"F29 exits in one call":            {mode: "once", calls: 2},
		"F29 panics in a call":             {mode: "panic", code: sdk.CodePlugin, want: "| panic: boom"},
		"F29 dies at its start":            {name: "dies", code: sdk.CodePlugin, want: "exit status 7); it printed:\n  | no licence found"},
		"F29 eats memory in a call":        {mode: "eat", memory: 256 << 20, code: sdk.CodePlugin, want: "more than its limit of 256 MiB, and was stopped", hint: "memory = ", linux: true},
		"F29 has a child that eats memory": {mode: "eat elsewhere", memory: 256 << 20, code: sdk.CodePlugin, want: "more than its limit of 256 MiB", hint: "memory = ", linux: true},
		"F29 eats memory at once":          {name: "hungry", memory: 256 << 20, code: sdk.CodePlugin, want: "more than its limit of 256 MiB", linux: true},
		"F30 NaN":                          {mode: "nan", code: sdk.CodeNumeric, want: `loss "good": gradient[1] is NaN`},
		"F30 a gradient too short":         {mode: "short", code: sdk.CodePlugin, want: "gradient has 1 values for 2 completions", hint: "tell its author"},
		"F30 rows nobody asked for":        {mode: "rows", code: sdk.CodePlugin, want: "token_gradients has 1 rows"},
		"F30 an answer over 64 MiB":        {mode: "huge", code: sdk.CodePlugin, want: "larger than max", hint: "at most 64 MiB"},
		"F30 an infinite loss":             {mode: "infinite", code: sdk.CodeNumeric, want: "loss is +Inf"},
		"F30 an error of its own":          {mode: "error", code: sdk.CodeOracle, want: `loss "good": no good`, hint: "try again"},
		"F30 an error without code":        {mode: "plain", code: sdk.CodePlugin, want: `loss "good": something else`},
		"F30 a request over 64 MiB":        {state: wire.MaxMessage, code: sdk.CodePlugin, want: "larger than max", hint: "at most 64 MiB"},
		"F31 a later protocol":             {name: "future", code: sdk.CodePlugin, want: `speaks version "7" of the plugin protocol, this dno speaks version 1`, hint: "update dno"},
		"F31 an earlier protocol":          {name: "ancient", code: sdk.CodePlugin, want: `speaks version "0" of the plugin protocol`, hint: "newer version of the plugin"},
		"F31 this protocol and next":       {name: "bilingual"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.linux && runtime.GOOS != "linux" {
				t.Skip("SKIP: this is done with means of Linux")
			}
			t.Parallel()
			if c.name == "" {
				c.name = "good"
			}
			h, _ := newHost(t)
			h.patience = patience{start: 10 * time.Second, stop: 100 * time.Millisecond, pause: time.Millisecond, ask: 20 * time.Millisecond, health: 10 * time.Second}
			if c.name == "sleeps" {
				h.patience.start = time.Second
			}
			if c.health > 0 {
				h.patience.health = c.health
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			calls := filepath.Join(t.TempDir(), "calls")
			spec := Spec{Name: c.name, Memory: c.memory, Timeout: c.timeout, Settings: sdk.Settings{"mode": c.mode, "file": calls}}
			l, _, err := h.Loss(ctx, spec)
			var out sdk.LossResult
			if err == nil {
				b := pairBatch()
				b.State = make([]byte, c.state)
				out, err = l.Evaluate(ctx, b)
			}
			if ctx.Err() != nil {
				t.Fatalf("it took a minute: %v", err)
			}
			switch {
			case c.code == 0 && (err != nil || out.Loss != 2 || !slices.Equal(out.Gradient, []float64{2, -2})):
				t.Errorf("have %+v, %v; want what an honest plugin answers", out, err)
			case c.code != 0 && (err == nil || sdk.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want)):
				t.Errorf("want code %d and %q, have code %d: %v", c.code, c.want, sdk.CodeOf(err), err)
			}
			if data, _ := os.ReadFile(calls); c.calls > 0 && len(data) != c.calls {
				t.Errorf("the call was sent %d times, want %d", len(data), c.calls)
			}
			var e *sdk.Error
			if c.hint != "" && (!errors.As(err, &e) || !strings.Contains(e.Hint, c.hint)) {
				t.Errorf("want the hint %q, have %+v", c.hint, e)
			}
			// The fault stays where it is: another plugin of the same host works.
			if other, _, err := h.Loss(ctx, Spec{Name: "good"}); err != nil {
				t.Errorf("another plugin does not start: %v", err)
			} else if out, err := other.Evaluate(ctx, pairBatch()); err != nil || out.Loss != 2 {
				t.Errorf("another plugin answers %v, %v", out.Loss, err)
			}
			h.Close()
			eventually(t, "no process is left", func() bool { return len(survivors(t, h)) == 0 })
			if _, err := os.Stat(h.temp.path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the temporary directory is still there: %v", err)
			}
		})
	}
}

// A plugin that dies again and again, in every third call, changes no result and sees no batch
// that an honest one would not.
func TestF29ACrashEveryThirdCallChangesNothing(t *testing.T) {
	h, _ := newHost(t)
	file := filepath.Join(t.TempDir(), "calls")
	crashing := openLoss(t, h, Spec{Name: "good", Settings: sdk.Settings{"mode": "third", "file": file}})
	honest := openLoss(t, h, Spec{Name: "good"})
	var state, honestState []byte
	for i := range 20 {
		b := pairBatch()
		b.Policy[0] -= float64(i) / 3
		b.State = state
		have, err := crashing.Evaluate(context.Background(), b)
		if err != nil {
			t.Fatal(err)
		}
		b.State = honestState
		want, err := honest.Evaluate(context.Background(), b)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(have) != fmt.Sprint(want) {
			t.Fatalf("call %d: have %+v, want %+v", i, have, want)
		}
		state, honestState = have.State, want.State
	}
	data, err := os.ReadFile(file + ".batches")
	if err != nil {
		t.Fatal(err)
	}
	sent := strings.Fields(string(data))
	if again := len(sent) - len(slices.Compact(slices.Clone(sent))); len(sent) != 29 || again != 9 {
		t.Errorf("%d batches were sent, %d of them the same bytes again; want 29 and 9", len(sent), again)
	}
}

// Memory is watched between calls too: the next call says what happened, and the one after it has a new process.
func TestF29MemoryBetweenCalls(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIP: memory is watched on Linux only")
	}
	h, _ := newHost(t)
	l := openLoss(t, h, Spec{Name: "good", Memory: 256 << 20, Settings: sdk.Settings{"mode": "eat later"}}).(*loss)
	if _, err := l.Evaluate(context.Background(), pairBatch()); err != nil {
		t.Fatal(err)
	}
	pid := l.pid()
	eventually(t, "it is killed for its memory", func() bool { return gone(t, pid) })
	_, err := l.Evaluate(context.Background(), pairBatch())
	expect(t, err, "more than its limit of 256 MiB")
	if out, err := l.Evaluate(context.Background(), pairBatch()); err != nil || out.Loss != 2 {
		t.Errorf("after that it answers %v, %v", out.Loss, err)
	}
}

// While a plugin is launched again and again somebody replaces its executable, back and forth: what
// runs is what was pinned, or nothing.
func TestF32ASwappedExecutableNeverRuns(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("SKIP: scripts of Unix")
	}
	dir, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	script := func(word string) []byte { return fmt.Appendf(nil, "#!/bin/sh\necho %s >> '%s'\n", word, ran) }
	path := filepath.Join(dir, fileName(sdk.KindLoss, "good"))
	put := func(word string) {
		beside := filepath.Join(dir, word)
		if err := errors.Join(os.WriteFile(beside, script(word), 0o755), os.Rename(beside, path)); err != nil {
			t.Error(err)
		}
	}
	put("honest")
	sum, err := fsx.SumFile(path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				put("evil")
				put("honest")
			}
		}
	})
	refused := 0
	for range 150 {
		h, _ := newHost(t, func(o *Options) { *o = Options{SearchDirs: []string{dir}, Lock: pinned("loss/good", sum)} })
		_, _, err := h.Loss(context.Background(), Spec{Name: "good"})
		switch {
		case err != nil && strings.Contains(err.Error(), "has the checksum"):
			refused++
		case err == nil || !strings.Contains(err.Error(), "died 4 times"): // it is no plugin
			t.Fatalf("have %v", err)
		}
		h.Close()
	}
	close(done)
	swapping.Wait()
	data, err := os.ReadFile(ran)
	if err != nil {
		t.Fatal(err)
	}
	honest, evil := strings.Count(string(data), "honest"), strings.Count(string(data), "evil")
	if evil > 0 || honest == 0 || refused == 0 {
		t.Errorf("of 150 launches %d were refused; the pinned executable ran %d times, the other one %d times", refused, honest, evil)
	}
}

// A sampler may ask the generator for anything: what is absurd is the sampler's fault, and the generator
// does not see it.
func TestF30AbsurdRequestsToTheGenerator(t *testing.T) {
	h, _ := newHost(t)
	for mode, want := range map[string]string{
		"many":     "it asks for 1048578 completions, at most 65536 are drawn at once",
		"enormous": "larger than max",
		"rows":     "1 rows for 2 prompts",
		"negative": "max_tokens is -1, want at least 1",
		"hot":      "temperature is NaN",
		"stop":     "a stop text is empty",
		"again":    "max_tokens is -2147483648, want at least 1",
	} {
		t.Run(mode, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			s, _, err := h.Sampler(ctx, Spec{Name: "drawer", Settings: sdk.Settings{"mode": mode}})
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Sample(ctx, sampleRequest(), &countingGenerator{err: errors.New("the generator was asked")})
			if sdk.CodeOf(err) != sdk.CodePlugin || !strings.Contains(err.Error(), want) {
				t.Errorf("want code 4 and %q, have %v", want, err)
			}
			if s, _, err = h.Sampler(ctx, Spec{Name: "drawer"}); err == nil {
				_, err = s.Sample(ctx, sampleRequest(), &countingGenerator{})
			}
			if err != nil {
				t.Errorf("an honest sampler of the same host: %v", err)
			}
		})
	}
}
