package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dno-project/dno/sdk"
)

func openLoss(t *testing.T, h *Host, spec Spec) sdk.Loss {
	t.Helper()
	l, _, err := h.Loss(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestALossIsStartedConfiguredAndEvaluated(t *testing.T) {
	h, _ := newHost(t)
	l, running, err := h.Loss(context.Background(), Spec{Name: "good", Settings: sdk.Settings{"beta": 3}})
	if err != nil {
		t.Fatal(err)
	}
	b := pairBatch()
	b.State = []byte("s")
	out, err := l.Evaluate(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	// β·d²/2 = 3·2²/2 = 6, derivatives ±β·d = ±6.
	if out.Loss != 6 || len(out.Gradient) != 2 || out.Gradient[0] != 6 || out.Gradient[1] != -6 || string(out.State) != "s!" {
		t.Errorf("have %+v", out)
	}
	if running.Name != "good" || running.Version != "1.0.0" || running.Settings["beta"] != 3.0 || running.SHA256 != "" {
		t.Errorf("running is %+v", running)
	}
	if l.Manifest().Kind != sdk.KindLoss || len(l.Manifest().Settings) != 3 {
		t.Errorf("manifest is %+v", l.Manifest())
	}
}

func TestTheSameSpecIsTheSameProcess(t *testing.T) {
	h, _ := newHost(t)
	first := openLoss(t, h, Spec{Name: "good"}).(*loss)
	same := openLoss(t, h, Spec{Name: "good", Settings: sdk.Settings{"beta": 1.0}}).(*loss) // 1 is the default
	other := openLoss(t, h, Spec{Name: "good", Settings: sdk.Settings{"beta": 2.0}}).(*loss)
	if first.pid() != same.pid() || first.pid() == other.pid() {
		t.Fatalf("processes %d, %d, %d", first.pid(), same.pid(), other.pid())
	}
	// Settings that are sent later count as much as those of the start.
	if err := first.Configure(context.Background(), sdk.Settings{"beta": 5}); err != nil {
		t.Fatal(err)
	}
	later := openLoss(t, h, Spec{Name: "good", Settings: sdk.Settings{"beta": 5.0}}).(*loss)
	if later.pid() != first.pid() {
		t.Error("a reconfigured plugin is not found by its new settings")
	}
	out, err := later.Evaluate(context.Background(), pairBatch())
	if err != nil || out.Loss != 10 { // 5·4/2
		t.Errorf("loss %v, error %v", out.Loss, err)
	}
}

func TestSweepStopsWhatWasNotAskedForAndACallStartsItAgain(t *testing.T) {
	h, _ := newHost(t)
	kept := openLoss(t, h, Spec{Name: "good"}).(*loss)
	idle := openLoss(t, h, Spec{Name: "good", Settings: sdk.Settings{"beta": 2}}).(*loss)
	old := idle.pid()
	h.Sweep() // both were asked for since the start
	if kept.pid() == 0 || idle.pid() != old {
		t.Fatal("the first sweep stopped a plugin that was just asked for")
	}
	openLoss(t, h, Spec{Name: "good"})
	h.Sweep()
	if kept.pid() == 0 || idle.pid() != 0 || !gone(t, old) {
		t.Fatalf("after the second sweep: kept %d, idle %d", kept.pid(), idle.pid())
	}
	if out, err := idle.Evaluate(context.Background(), pairBatch()); err != nil || out.Loss != 4 { // 2·4/2
		t.Errorf("a swept plugin answers %v, %v", out.Loss, err)
	}
}

func TestCloseLeavesNoProcessAndNoFile(t *testing.T) {
	h, _ := newHost(t)
	h.patience.stop = 100 * time.Millisecond
	l := openLoss(t, h, Spec{Name: "good"})
	pids := []int{l.(*loss).pid(), openLoss(t, h, Spec{Name: "stubborn"}).(*loss).pid(), openLoss(t, h, Spec{Name: "family"}).(*loss).pid()}
	children := childrenOf(t, pids[2])
	if len(children) != 1 {
		t.Fatalf("the plugin has the children %v, want one", children)
	}
	h.Close()
	for _, pid := range append(pids, children...) {
		eventually(t, fmt.Sprintf("process %d is gone", pid), func() bool { return gone(t, pid) })
	}
	if _, err := os.Stat(h.temp.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary directory is still there: %v", err)
	}
	if _, err := l.Evaluate(context.Background(), pairBatch()); !errors.Is(err, errClosed) {
		t.Errorf("a call after Close returns %v", err)
	}
	if _, _, err := h.Loss(context.Background(), Spec{Name: "good"}); !errors.Is(err, errClosed) {
		t.Errorf("a start after Close returns %v", err)
	}
	h.Close() // a second time does nothing
}

func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("SKIP: children are read from /proc")
	}
	var out []int
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range threads {
		data, _ := os.ReadFile(path)
		for _, f := range strings.Fields(string(data)) {
			n, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, n)
		}
	}
	return out
}

func TestCloseEndsACallThatHangs(t *testing.T) {
	h, _ := newHost(t)
	l := openLoss(t, h, Spec{Name: "good", Settings: sdk.Settings{"mode": "hang"}})
	failed := make(chan error)
	go func() {
		_, err := l.Evaluate(context.Background(), pairBatch())
		failed <- err
	}()
	h.Close()
	if err := <-failed; !errors.Is(err, errClosed) {
		t.Errorf("have %v", err)
	}
}

func TestF28APluginDiesWithAKilledHost(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIP: only Linux kills plugins with the host; elsewhere the sdk's own check does, tested there")
	}
	host := exec.Command(os.Args[0], "test-host")
	host.Stderr = os.Stderr
	temp, err := os.MkdirTemp("", "dno-test-") // not t.TempDir: its path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(temp)
	host.Env = append(os.Environ(), "TMPDIR="+temp)
	out, err := host.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || gone(t, pid) {
		t.Fatalf("no running plugin: %q, %v", line, err)
	}
	children := childrenOf(t, pid)
	if len(children) != 1 {
		t.Fatalf("the plugin has the children %v, want one", children)
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = host.Wait()
	eventually(t, "the plugin is gone", func() bool { return gone(t, pid) })

	// What the killed host left, the next one sweeps: files, and processes that plugins started.
	left, _ := filepath.Glob(filepath.Join(temp, tempPrefix+"*"))
	if len(left) != 1 {
		t.Fatalf("the killed host left %v, want one directory", left)
	}
	next, err := newTempDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	defer next.remove()
	if _, err := os.Stat(left[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s was not swept: %v", left[0], err)
	}
	eventually(t, "the plugin's child is gone", func() bool { return gone(t, children[0]) })
	second, err := newTempDir(temp)
	if err != nil {
		t.Fatal(err)
	}
	defer second.remove()
	if _, err := os.Stat(next.path); err != nil {
		t.Errorf("the directory of a living host was swept: %v", err)
	}
}

func TestACrashedPluginIsStartedAgainWithItsSettings(t *testing.T) {
	h, logged := newHost(t)
	calls := filepath.Join(t.TempDir(), "calls")
	l := openLoss(t, h, Spec{Name: "good", Settings: sdk.Settings{"mode": "once", "file": calls}})
	if err := l.Configure(context.Background(), sdk.Settings{"mode": "once", "file": calls, "beta": 7}); err != nil {
		t.Fatal(err)
	}
	out, err := l.Evaluate(context.Background(), pairBatch())
	if err != nil || out.Loss != 14 { // 7·4/2: the settings of the last Configure
		t.Fatalf("loss %v, error %v", out.Loss, err)
	}
	if data, _ := os.ReadFile(calls); len(data) != 2 {
		t.Errorf("the batch was sent %d times, want 2", len(data))
	}
	if !strings.Contains(logged.String(), "exit status 9") {
		t.Errorf("the log does not say how the plugin died:\n%s", logged)
	}
}

func TestAPluginThatIsKilledFromOutsideAnswersAllTheSame(t *testing.T) {
	h, _ := newHost(t)
	l := openLoss(t, h, Spec{Name: "good"}).(*loss)
	for range 5 {
		p, err := os.FindProcess(l.pid())
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if out, err := l.Evaluate(context.Background(), pairBatch()); err != nil || out.Loss != 2 {
			t.Fatalf("loss %v, error %v", out.Loss, err)
		}
	}
}

func TestACallThatHangsIsEndedAndItsProcessToo(t *testing.T) {
	h, _ := newHost(t)
	l := openLoss(t, h, Spec{Name: "good", Settings: sdk.Settings{"mode": "hang"}, Timeout: 200 * time.Millisecond}).(*loss)
	old := l.pid()
	_, err := l.Evaluate(context.Background(), pairBatch())
	if sdk.CodeOf(err) != sdk.CodePlugin || !strings.Contains(err.Error(), "did not answer within 200ms") {
		t.Fatalf("have %v", err)
	}
	if l.pid() != 0 || !gone(t, old) {
		t.Errorf("process %d is still there", old)
	}
	if err := l.Configure(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if out, err := l.Evaluate(context.Background(), pairBatch()); err != nil || out.Loss != 2 {
		t.Errorf("after that it answers %v, %v", out.Loss, err)
	}
}

func TestACancelledCallReturnsTheCause(t *testing.T) {
	h, _ := newHost(t)
	l := openLoss(t, h, Spec{Name: "good", Settings: sdk.Settings{"mode": "wait"}})
	why := errors.New("the user pressed Ctrl-C")
	ctx, cancel := context.WithCancelCause(context.Background())
	failed := make(chan error)
	go func() {
		_, err := l.Evaluate(ctx, pairBatch())
		failed <- err
	}()
	cancel(why)
	if err := <-failed; !errors.Is(err, why) {
		t.Errorf("have %v", err)
	}
}

func TestFaultsAtTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		spec Spec
		code sdk.Code
		want []string
		hint string
	}{
		"refusing its settings": {Spec{Name: "good", Settings: sdk.Settings{"mode": "refuse"}}, sdk.CodeUsage,
			[]string{`loss "good": this mode is refused`}, "take another"},
		"an unknown setting": {Spec{Name: "good", Settings: sdk.Settings{"betta": 1}}, sdk.CodeUsage,
			[]string{`has no setting "betta"; did you mean "beta"?`}, ""},
		"a setting out of range": {Spec{Name: "good", Settings: sdk.Settings{"beta": 11}}, sdk.CodeUsage,
			[]string{`setting "beta": want at most 10, have 11`}, ""},
		"a name that nothing has": {Spec{Name: "goood"}, sdk.CodePlugin,
			[]string{`there is no loss "goood"; there are ancient, bilingual, chatty`}, `did you mean "good"?`},
		"a name that is none": {Spec{Name: "Good!"}, sdk.CodeUsage, []string{"lower-case letters"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _ := newHost(t)
			_, _, err := h.Loss(context.Background(), c.spec)
			if err == nil || sdk.CodeOf(err) != c.code {
				t.Fatalf("code %d, want %d: %v", sdk.CodeOf(err), c.code, err)
			}
			for _, want := range c.want {
				expect(t, err, want)
			}
			var e *sdk.Error
			if c.hint != "" && (!errors.As(err, &e) || !strings.Contains(e.Hint, c.hint)) {
				t.Errorf("want the hint %q, have %+v", c.hint, e)
			}
			if n := len(h.clients); n != 0 {
				t.Errorf("%d clients are kept after a failed start", n)
			}
		})
	}
}

func TestAStartThatIsCancelledEndsAtOnce(t *testing.T) {
	h, logged := newHost(t)
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error)
	go func() {
		_, _, err := h.Loss(ctx, Spec{Name: "sleeps"})
		failed <- err
	}()
	eventually(t, "the plugin runs", func() bool { return strings.Contains(logged.String(), "I sleep") })
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("have %v", err)
	}
}

func TestAPluginOfAnotherKindIsRefused(t *testing.T) {
	h, _ := newHost(t, func(o *Options) {
		o.Bundled = func(sdk.Kind, string) ([]string, bool) {
			return []string{os.Args[0], "test-plugin", "good"}, true
		}
	})
	_, _, err := h.Oracle(context.Background(), Spec{Name: "good"})
	if sdk.CodeOf(err) != sdk.CodePlugin || !strings.Contains(err.Error(), `it is of kind "loss"`) {
		t.Errorf("have %v", err)
	}
	_, _, err = h.Loss(context.Background(), Spec{Name: "best"})
	if sdk.CodeOf(err) != sdk.CodePlugin || !strings.Contains(err.Error(), `it calls itself "good"`) {
		t.Errorf("have %v", err)
	}
}

func TestAPluginSeesOnlyTheVariablesItIsGiven(t *testing.T) {
	t.Setenv("DNO_TEST_CANARY", "sk-CANARY-not-for-you")
	t.Setenv("DNO_TEST_KEY", "sk-GIVEN-but-secret")
	h, logged := newHost(t)
	o, _, err := h.Oracle(context.Background(), Spec{Name: "judge", Env: []string{"DNO_TEST_KEY"}})
	if err != nil {
		t.Fatal(err)
	}
	out, err := o.Judge(context.Background(), comparisons(1, ""))
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{"PATH": true, "LANG": true, "TMPDIR": true, "DNO_TEST_KEY": true, "SYSTEMROOT": true, "TEMP": true}
	for _, line := range strings.Split(out[0].Pairs[0].Reason, "\n") {
		name, _, ok := strings.Cut(line, "=")
		handshake := strings.HasPrefix(name, "PLUGIN_") || name == "DNO_PLUGIN_COOKIE"
		inCertificate := !ok || strings.HasPrefix(line, "M") || strings.HasSuffix(line, "=")
		if !allowed[name] && !handshake && !inCertificate {
			t.Errorf("the plugin sees %q", line)
		}
	}
	// It was given the key, and put it into its answer: there it is taken out again.
	if strings.Contains(out[0].Pairs[0].Reason, "CANARY-not") || !strings.Contains(out[0].Pairs[0].Reason, "DNO_TEST_KEY=***\n") {
		t.Errorf("the plugin's environment is\n%s", out[0].Pairs[0].Reason)
	}
	h.options.Log.Info("a careless line with sk-GIVEN-but-secret in it")
	if s := logged.String(); strings.Contains(s, "sk-GIVEN") || !strings.Contains(s, "a careless line with *** in it") {
		t.Errorf("the log is\n%s", s)
	}
}

func comparisons(n int, answer string) []sdk.Comparison {
	out := make([]sdk.Comparison, n)
	for i := range out {
		out[i] = sdk.Comparison{
			ID:         fmt.Sprintf("c%d", i),
			Prompt:     sdk.Prompt{ID: "p", Messages: []sdk.Message{{Role: "user", Content: "2+2?"}}, Answer: answer},
			Candidates: []string{"4", "5"}, Pairs: []sdk.Ordered{{A: 0, B: 1}, {A: 1, B: 0}},
		}
	}
	return out
}

func TestAnOraclesConcurrencyIsKept(t *testing.T) {
	h, _ := newHost(t)
	o, _, err := h.Oracle(context.Background(), Spec{Name: "counter"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			out, err := o.Judge(context.Background(), comparisons(1, "five!"))
			if err != nil {
				t.Error(err)
			} else if out[0].Cost > 2 {
				t.Errorf("%v calls ran at once, the manifest says 2", out[0].Cost)
			}
		})
	}
	wg.Wait()
}

// countingGenerator answers with its seeds, after taking its time.
type countingGenerator struct {
	work time.Duration
	err  error
}

func (g *countingGenerator) Generate(ctx context.Context, req sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	if g.err != nil {
		return sdk.GenerateResponse{}, g.err
	}
	select {
	case <-time.After(g.work):
	case <-ctx.Done():
		return sdk.GenerateResponse{}, ctx.Err()
	}
	out := make([][]sdk.Completion, len(req.Seeds))
	for i, row := range req.Seeds {
		for _, seed := range row {
			p := -float64(seed)
			out[i] = append(out[i], sdk.Completion{
				Text: req.Prompts[i][0].Content + fmt.Sprint(seed), LogProb: &p, Finish: sdk.FinishStop, Seed: seed,
			})
		}
	}
	return sdk.GenerateResponse{Completions: out}, nil
}

func sampleRequest() sdk.SampleRequest {
	return sdk.SampleRequest{K: 2, Seeds: [][]uint64{{1, math.MaxUint64}, {3, 4}}, Prompts: []sdk.Prompt{
		{ID: "a", Messages: []sdk.Message{{Role: "user", Content: "a"}}},
		{ID: "b", Messages: []sdk.Message{{Role: "user", Content: "b"}}},
	}}
}

func TestF14AnswersThatBreakTheContractAreRefused(t *testing.T) {
	h, _ := newHost(t)
	o, _, err := h.Oracle(context.Background(), Spec{Name: "judge", Settings: sdk.Settings{"mode": "percent"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Judge(context.Background(), comparisons(2, ""))
	expect(t, err, `oracle "judge" broke the contract: verdicts[0].pairs[0].p is 75`)
	s, _, err := h.Sampler(context.Background(), Spec{Name: "drawer"})
	if err != nil {
		t.Fatal(err)
	}
	req := sampleRequest()
	req.K = 1 // of each prompt it draws as many as there are seeds, 2
	_, err = s.Sample(context.Background(), req, &countingGenerator{})
	expect(t, err, `sampler "drawer" broke the contract: completions[0] has 2 completions, at most 1`)
}

func TestASamplerDrawsThroughTheHostsGenerator(t *testing.T) {
	h, _ := newHost(t)
	// The generator takes longer than the plugin may: its time does not count.
	s, _, err := h.Sampler(context.Background(), Spec{Name: "drawer", Timeout: 250 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		out, err := s.Sample(context.Background(), sampleRequest(), &countingGenerator{work: 400 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		first, last := out.Completions[0][1], out.Completions[1][1]
		if first.Seed != math.MaxUint64 || first.Text != "a18446744073709551615" || last.Text != "b4" || *last.LogProb != -4 {
			t.Errorf("have %+v", out)
		}
	}
	broken := sdk.Errorf(sdk.CodeNumeric, "the weights are NaN").WithHint("lower lr")
	_, err = s.Sample(context.Background(), sampleRequest(), &countingGenerator{err: broken})
	var e *sdk.Error
	if !errors.As(err, &e) || e.Code != sdk.CodeNumeric || e.Hint != "lower lr" || !strings.Contains(err.Error(), "the weights are NaN") {
		t.Errorf("the generator's own error comes back as %v", err)
	}
}

func TestAFloodOfPrintsIsTamed(t *testing.T) {
	h, logged := newHost(t)
	l := openLoss(t, h, Spec{Name: "chatty"})
	if _, err := l.Evaluate(context.Background(), pairBatch()); err != nil {
		t.Fatal(err)
	}
	h.Close() // everything is read now
	s := logged.String()
	if n := strings.Count(s, "red"); n < 50 || n > 2000 {
		t.Errorf("%d of 20000 lines are in the log", n)
	}
	if strings.Contains(s, "\x1b") || strings.Contains(s, strings.Repeat("x", lineBytes+1)) {
		t.Error("the log has escape sequences or a line of 1 MiB")
	}
}
