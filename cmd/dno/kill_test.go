//go:build unix

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dno-project/dno/core/engine"
	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/rundir"
)

// judgeScript prefers the text that sorts later, and notes each question that it answers.
const judgeScript = `#!/bin/sh
while IFS= read -r line; do
  rest=${line#'{"id":"'}
  id=${rest%%'"'*}
  question=${rest#*,}
  printf '%s\n' "$question" >> "${0%/*}/asked.log"
  both=${question#*'"a":"'}
  a=${both%%'","b":"'*}
  b=${both#*'","b":"'}
  if [ "$a" \> "$b" ]; then p=1; else p=0.25; fi
  printf '{"id":"%s","p":%s}\n' "$id" "$p"
done
`

const killScript = `local dno = require "dno"

return dno.experiment {
  model = "tiny",
  prompts = { train = "train.jsonl", validation = "validation.jsonl", test = "test.jsonl" },
  iterations = 2,
  samples = 3,
  sampler = { "nucleus", max_tokens = 12 },
  oracle = { "command", path = "judge.sh" },
  min_margin = 0.01,
  batch_size = 4,
  lr = 1e-2,
  checkpoint_every = 2,
  evaluate = { oracle = { "command", path = "judge.sh" }, temperature = 0, max_tokens = 12 },
}
`

// testSize makes a folder with an experiment whose model has some thousand parameters.
func testSize(t *testing.T, dir string) {
	t.Helper()
	if err := copySmall(dir); err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(model.Config{Vocab: 320, Width: 8, FFN: 16, Layers: 1, Heads: 2, KVHeads: 2, HeadDim: 4, MaxPositions: 512, NormEps: 1e-5,
		Rope: model.Rope{Theta: 10000, Type: "default"}, Tied: true, InitStd: 0.3, BOS: 2, Pad: 0, EOS: []int32{1}},
		os.DirFS("../../core/engine/testdata/golden/arch/llama_gqa_untied"), 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Save(filepath.Join(dir, "tiny"), engine.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"judge.sh": judgeScript, "kill.lua": killScript} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

var stageLine = regexp.MustCompile(` (started|done) .*stage="([^"]+)"`)

// watched runs dno and calls seen for each stage that begins or ends.
func watched(dir string, seen func(event, stage string), args ...string) (stderr string, err error) {
	cmd := exec.Command("dno", args...)
	cmd.Dir = dir
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	processes.Store(dir, cmd.Process)
	var all strings.Builder
	for in := bufio.NewScanner(pipe); in.Scan(); {
		all.WriteString(in.Text() + "\n")
		if m := stageLine.FindStringSubmatch(in.Text()); m != nil {
			seen(m[1], m[2])
		}
	}
	return all.String(), cmd.Wait()
}

var processes sync.Map // the running dno of a folder

// kills is how often dno is killed; another number by the environment.
func kills(t *testing.T, env string, usual int) int {
	text := os.Getenv(env)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q: %v", env, text, err)
	}
	return n
}

// kill -9 at a moment that is uniform within each stage in turn: what is left is whole, the run goes on to the same
// bytes, and no judgment that was written is asked for again.
func TestF1KilledAtAnyMoment(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs for seconds")
	}
	killAtAnyMoment(t, kills(t, "DNO_KILLS", 14), 3, func(dir string) { testSize(t, dir) }, "run", "kill.lua", "--dir", "r")
}

// The same of the default run, which takes a minute each time.
func TestF1KilledAtAnyMomentOfTheDefaultRun(t *testing.T) {
	n := kills(t, "DNO_KILLS_DEFAULT", 0)
	if n == 0 {
		t.Skip("NOT TESTED: kills of the default run, which take a minute each: DNO_KILLS_DEFAULT=20")
	}
	killAtAnyMoment(t, n, 5, func(string) {}, "run", "--dir", "r")
}

// killAtAnyMoment kills a run n times, each in a folder that prepare has filled. The run has some iterations, π_1's included.
func killAtAnyMoment(t *testing.T, n, iterations int, prepare func(dir string), args ...string) {
	type span struct {
		stage string
		took  time.Duration
	}
	var spans []span
	base := t.TempDir()
	prepare(base)
	start := time.Now()
	began := start
	out, err := watched(base, func(event, stage string) {
		if event == "started" {
			began = time.Now()
		} else {
			spans = append(spans, span{stage, time.Since(began)})
		}
	}, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if len(spans) != 1+3*(iterations-1) {
		t.Fatalf("the stages are %v", spans)
	}
	t.Logf("the run takes %v: %v", time.Since(start), spans)
	want := finalFiles(t, filepath.Join(base, "r"), iterations)
	checkAsked(t, base)
	seeds := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0)) // another moment each time
	for i := range n {
		s, share := spans[i%len(spans)], seeds.Float64()
		t.Run(fmt.Sprintf("%d %s", i, s.stage), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			prepare(dir)
			var once sync.Once
			out, err := watched(dir, func(event, stage string) {
				if event == "started" && stage == s.stage {
					once.Do(func() {
						p, _ := processes.Load(dir)
						time.AfterFunc(time.Duration(share*float64(s.took)), func() { _ = p.(*os.Process).Kill() })
					})
				}
			}, args...)
			if _, errs, code := dno(t, dir, nil, "fsck", "r"); code != 0 {
				t.Fatalf("after the kill fsck exits with %d: %s\n%s", code, errs, out)
			}
			if err != nil {
				_, errs, code := dno(t, dir, nil, "resume", "r")
				if ended := code == 2 && strings.Contains(errs, "it is finished"); code != 0 && !ended { // killed after its last record
					t.Fatalf("it was killed after %.3f of the stage, and resume exits with %d: %s", share, code, errs)
				}
			}
			for name, text := range finalFiles(t, filepath.Join(dir, "r"), iterations) {
				if want[name] != text {
					t.Errorf("killed after %.3f of the stage: %s differs", share, name)
				}
			}
			checkAsked(t, dir)
		})
	}
}

// finalFiles are the contents of all that a run's iterations leave, checkpoints too.
func finalFiles(t *testing.T, run string, iterations int) map[string]string {
	t.Helper()
	out := map[string]string{}
	r, err := rundir.Read(run)
	if err != nil {
		t.Fatal(err)
	}
	for i := range iterations {
		it, err := r.Iteration(i)
		if err != nil {
			t.Fatal(err)
		}
		names, err := it.Files()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			out[filepath.Join(filepath.Base(it.Path("")), name)] = string(read(t, it.Path(name)))
		}
	}
	if len(out) < 20 {
		t.Fatalf("the run has left only %d files", len(out))
	}
	return out
}

// checkAsked compares the oracle's own count with the journal: each question that it was asked is there once, so that
// what was asked more than once was in flight when dno was killed.
func checkAsked(t *testing.T, dir string) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(dir, "asked.log"))
	if errors.Is(err, os.ErrNotExist) {
		return // its oracle keeps no count
	}
	asked := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	distinct := map[string]int{}
	for _, q := range asked {
		distinct[string(q)]++
	}
	lines, err := rundir.ReadLog[rundir.Judgment](filepath.Join(dir, "r", rundir.JudgmentsFile))
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, l := range lines {
		if l.P != nil {
			key, _ := l.Key.MarshalText()
			keys = append(keys, string(key))
		}
	}
	slices.Sort(keys)
	if n := len(slices.Compact(slices.Clone(keys))); n != len(keys) || n != len(distinct) {
		t.Errorf("the journal has %d judgments of pairs, %d of them distinct; the oracle was asked %d questions, %d of them distinct", len(keys), n, len(asked), len(distinct))
	}
	if again := len(asked) - len(distinct); again > 0 {
		t.Logf("%d of %d questions were in flight at the kill, and asked again", again, len(distinct))
	}
}

// F38: a signal at the start of any stage: the process is gone within 10 s with the signal's code, and the run goes on to
// the same bytes.
func TestF38ASignalInAnyStage(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs for seconds")
	}
	base := t.TempDir()
	testSize(t, base)
	works(t, base, "run", "kill.lua", "--dir", "r")
	want := finalFiles(t, filepath.Join(base, "r"), 3)
	for stage, s := range map[string]struct {
		signal os.Signal
		code   int
	}{
		"iteration 0: evaluate":         {os.Interrupt, 130},
		"iteration 1: sample and judge": {syscall.SIGTERM, 143},
		"iteration 1: train":            {os.Interrupt, 130},
		"iteration 2: train":            {syscall.SIGTERM, 143},
		"iteration 2: evaluate":         {os.Interrupt, 130},
	} {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			testSize(t, dir)
			var sent time.Time
			out, err := watched(dir, func(event, at string) {
				if event == "started" && at == stage && sent.IsZero() {
					p, _ := processes.Load(dir)
					_ = p.(*os.Process).Signal(s.signal)
					sent = time.Now()
				}
			}, "run", "kill.lua", "--dir", "r")
			if code := exitCode(err); code != s.code || time.Since(sent) > 10*time.Second || !strings.Contains(out, "go on with: dno resume r") {
				t.Fatalf("it exited with %d after %v: %s", code, time.Since(sent), out)
			}
			works(t, dir, "resume", "r")
			for name, text := range finalFiles(t, filepath.Join(dir, "r"), 3) {
				if want[name] != text {
					t.Errorf("%s differs", name)
				}
			}
			checkAsked(t, dir)
		})
	}
}

// F38: an oracle that does not answer is waited for after the first signal, for less than 10 s; after the second it is not.
func TestF38ASecondSignalWaitsForNobody(t *testing.T) {
	for want, signals := range map[int][]os.Signal{130: {os.Interrupt}, 143: {os.Interrupt, syscall.SIGTERM}} {
		t.Run(fmt.Sprint(len(signals)), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			testSize(t, dir)
			if err := os.WriteFile(filepath.Join(dir, "judge.sh"), []byte("#!/bin/sh\necho waiting >&2\nread line\nexec sleep 1000\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("dno", "run", "kill.lua", "--dir", "r")
			cmd.Dir = dir
			pipe, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var sent time.Time
			left := signals // the second is sent after the first was seen: of two at once either may come first
			for in := bufio.NewScanner(pipe); in.Scan(); {
				seen := "waiting"
				if len(left) < len(signals) {
					seen = "a second signal does not wait"
				}
				if len(left) > 0 && strings.Contains(in.Text(), seen) {
					sent = time.Now()
					_ = cmd.Process.Signal(left[0])
					left = left[1:]
				}
			}
			err = cmd.Wait()
			limit := 10 * time.Second
			if len(signals) == 2 {
				limit = 2 * time.Second
			}
			if code, took := exitCode(err), time.Since(sent); code != want || took > limit {
				t.Errorf("after %v it exited with %d in %v", signals, code, took)
			}
			works(t, dir, "fsck", "r")
		})
	}
}
