package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/serve"
	"github.com/dno-project/dno/sdk/wire"
)

// TestMain is several programs: the tests, the plugins that they start (this binary, re-executed as a
// bundled plugin or under a third party's name), a host that a test kills, and a plugin's greedy child.
func TestMain(m *testing.M) {
	if name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), "dno-"); ok {
		servePlugin(strings.TrimSuffix(name[strings.Index(name, "-")+1:], ".exe"))
		return
	}
	if len(os.Args) == 3 && os.Args[1] == "test-plugin" {
		servePlugin(os.Args[2])
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "test-host" {
		hostMain()
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "test-eater" {
		eat()
	}
	os.Exit(m.Run())
}

// hostMain starts a plugin, prints its process id, and waits to be killed.
func hostMain() {
	h, err := New(bundled())
	if err != nil {
		panic(err)
	}
	l, _, err := h.Loss(context.Background(), Spec{Name: "family"})
	if err != nil {
		panic(err)
	}
	fmt.Println(l.(*loss).pid())
	select {}
}

// stdout is the true standard output, which is another than os.Stdout once a plugin serves.
var stdout = os.Stdout

func (c *client) pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc == nil {
		return 0
	}
	return c.proc.command.cmd.Process.Pid
}

var testPlugins = map[sdk.Kind][]string{
	sdk.KindLoss:    {"ancient", "bilingual", "chatty", "dies", "estranged", "family", "future", "good", "hungry", "liar", "shut", "sleeps", "stubborn", "talks"},
	sdk.KindOracle:  {"counter", "judge"},
	sdk.KindSampler: {"drawer"},
}

func bundled() Options {
	return Options{
		Bundled: func(kind sdk.Kind, name string) ([]string, bool) {
			for _, n := range testPlugins[kind] {
				if n == name {
					return []string{os.Args[0], "test-plugin", name}, true
				}
			}
			return nil, false
		},
		BundledNames: func(kind sdk.Kind) []string { return testPlugins[kind] },
	}
}

func servePlugin(name string) {
	switch name {
	case "talks":
		fmt.Println("hello from main")
	case "sleeps":
		fmt.Fprintln(os.Stderr, "I sleep")
		select {}
	case "dies":
		fmt.Fprintln(os.Stderr, "no licence found")
		os.Exit(7)
	case "ancient":
		fmt.Println("1|0|unix|/nowhere|grpc|")
		select {}
	case "liar":
		fmt.Println("1|1|unix|/nowhere|grpc|")
		select {}
	case "hungry":
		eat()
	case "bilingual": // as a plugin made for this host and a later one
		serveVersions(name, wire.Version, wire.Version+1)
		return
	case "future":
		serveVersions(name, 7)
		return
	case "shut": // its server ends in a call, and it lives on
		serveVersions(name, wire.Version)
		select {}
	case "family", "estranged":
		child := exec.Command("sleep", "1000")
		if name == "estranged" {
			ownSession(child)
		}
		if err := child.Start(); err != nil {
			panic(err)
		}
	case "chatty":
		line := strings.Repeat("x", 1<<20)
		fmt.Fprintln(os.Stderr, line)
		for range 20000 {
			fmt.Fprintln(os.Stderr, "\x1b[31mred\x1b[0m \xff\x00")
		}
	}
	switch name {
	case "judge", "counter":
		serve.Oracle(&judge{name: name})
	case "drawer":
		serve.Sampler(&drawer{})
	default:
		serve.Loss(newTestLoss(name))
	}
	if name == "stubborn" {
		select {} // served to the end, but does not go
	}
}

// server is what serveVersions serves on.
var server *grpc.Server

// serveVersions serves a loss in other versions of the protocol than a plugin of today would.
func serveVersions(name string, versions ...int) {
	sets := map[int]plugin.PluginSet{}
	for _, v := range versions {
		sets[v] = wire.LossService(newTestLoss(name)).Sets()[wire.Version]
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: wire.Handshake(), VersionedPlugins: sets,
		GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
			server = wire.NewServer(o)
			return server
		},
	})
}

// testLoss is ½·β·d² for each pair, d = policy chosen − rejected, with ways to go wrong.
type testLoss struct {
	name     string
	settings sdk.Settings
}

func newTestLoss(name string) *testLoss { return &testLoss{name: name} }

func (l *testLoss) Manifest() sdk.Manifest {
	least, most := sdk.Between(0, 10)
	return sdk.Manifest{
		Name: l.name, Version: "1.0.0", Help: "half the square of the difference",
		Settings: []sdk.Setting{
			{Name: "beta", Type: sdk.TypeNumber, Default: 1.0, Help: "factor", Min: least, Max: most},
			{Name: "mode", Type: sdk.TypeString, Default: "", Help: "what to do wrong"},
			{Name: "file", Type: sdk.TypeString, Default: "", Help: "where to count calls"},
		},
	}
}

func (l *testLoss) Configure(_ context.Context, s sdk.Settings) error {
	if s.String("mode", "") == "refuse" {
		return sdk.Errorf(sdk.CodeUsage, "this mode is refused").WithHint("take another")
	}
	l.settings = s
	return nil
}

func (l *testLoss) Evaluate(ctx context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	beta := l.settings.Number("beta", math.NaN())
	out := sdk.SumPairs(b, func(t sdk.PairTerm) (float64, float64, float64) {
		d := t.ChosenPolicy - t.RejectedPolicy
		return beta * d * d / 2, beta * d, -beta * d
	})
	out.State = append(b.State, '!')
	switch l.settings.String("mode", "") {
	case "short":
		out.Gradient = out.Gradient[1:]
	case "nan":
		out.Gradient[1] = math.NaN()
	case "infinite":
		out.Loss = math.Inf(1)
	case "rows":
		out.TokenGradients = [][]float64{{1}}
	case "error":
		return out, sdk.Errorf(sdk.CodeOracle, "no good").WithHint("try again")
	case "plain":
		return out, errors.New("something else")
	case "hang":
		select {}
	case "wait":
		<-ctx.Done()
		return out, ctx.Err()
	case "flood":
		flood()
	case "flood and exit":
		flood()
		fmt.Fprintln(stdout, "\nlast words on stdout")
		fmt.Fprintln(os.Stderr, "\nlast words on stderr")
		os.Exit(3)
	case "close":
		_, _ = stdout.Close(), os.Stderr.Close()
	case "shut":
		go server.Stop()
		select {}
	case "busy":
		countCalls(l.settings.String("file", ""))
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); { // work, not synchronisation
		}
	case "huge":
		out.State = make([]byte, wire.MaxMessage+1)
	case "eat":
		eat()
	case "eat later":
		go eat()
	case "eat elsewhere":
		if err := exec.Command(os.Args[0], "test-eater").Run(); err != nil {
			panic(err)
		}
	case "stop":
		stopSelf()
	case "stop once":
		if countCalls(l.settings.String("file", "")) == 1 {
			stopSelf()
		}
	case "third": // dies in every third call, having noted what it was given
		file := l.settings.String("file", "")
		note(file+".batches", fmt.Sprintf("%x\n", sha256.Sum256(fmt.Appendf(nil, "%v", b))))
		if countCalls(file)%3 == 0 {
			os.Exit(9)
		}
	case "exit":
		fmt.Println("last words on stdout")
		fmt.Fprintln(os.Stderr, "last words on stderr")
		os.Exit(3)
	case "panic":
		panic("boom")
	case "once": // dies in the first call that this file sees
		if countCalls(l.settings.String("file", "")) == 1 {
			os.Exit(9)
		}
	}
	return out, nil
}

// countCalls adds a byte to the file and returns how many it has then.
func countCalls(path string) int {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	if _, err := f.WriteString("."); err != nil {
		panic(err)
	}
	info, err := f.Stat()
	if err != nil {
		panic(err)
	}
	return int(info.Size())
}

func note(path, line string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(line)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		panic(err)
	}
}

// flood prints 100 MB on each output, binary and without a line's end.
func flood() {
	junk := bytes.Repeat([]byte{0, 0xff, 'x', '\x1b'}, 250_000)
	for range 100 {
		_, _ = os.Stderr.Write(junk)
		_, _ = stdout.Write(junk)
	}
}

// eat takes memory, and uses it, until it is killed.
func eat() {
	var all [][]byte
	for {
		b := make([]byte, 16<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		all = append(all, b)
		time.Sleep(time.Duration(len(all)) * time.Millisecond) // so that a fault of the test does not take the machine
	}
}

// judge answers with its environment as the reason; as "counter", how many calls run at once.
type judge struct {
	name    string
	mode    string
	mu      sync.Mutex
	running int
	most    int
}

func (j *judge) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name: j.name, Version: "1", Help: "says what it sees",
		Settings: []sdk.Setting{{Name: "mode", Type: sdk.TypeString, Default: "", Help: "what to do wrong"}},
		Oracle:   sdk.OracleTraits{Form: sdk.FormPairwise, Concurrency: 2},
	}
}

func (j *judge) Configure(_ context.Context, s sdk.Settings) error {
	j.mode = s.String("mode", "")
	return nil
}

func (j *judge) Judge(_ context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	j.mu.Lock()
	j.running++
	j.most = max(j.most, j.running)
	j.mu.Unlock()
	defer func() {
		j.mu.Lock()
		j.running--
		j.mu.Unlock()
	}()
	out := make([]sdk.Verdicts, len(batch))
	for i, c := range batch {
		for range c.Pairs {
			out[i].Pairs = append(out[i].Pairs, sdk.Verdict{P: 0.75, Reason: strings.Join(os.Environ(), "\n")})
		}
		out[i].ID = c.ID
		if j.mode == "percent" {
			out[i].Pairs[0].P *= 100
		}
		j.mu.Lock()
		out[i].Cost = float64(j.most)
		j.mu.Unlock()
		time.Sleep(time.Duration(len(c.Prompt.Answer)) * time.Millisecond) // work, not synchronisation
	}
	return out, nil
}

// drawer asks the host's generator for everything, or for what it must not.
type drawer struct{ mode string }

func (d *drawer) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Name: "drawer", Version: "1", Help: "draws", Sampler: sdk.SamplerTraits{UsesGenerator: true},
		Settings: []sdk.Setting{{Name: "mode", Type: sdk.TypeString, Default: "", Help: "what to ask for"}},
	}
}

func (d *drawer) Configure(_ context.Context, s sdk.Settings) error {
	d.mode = s.String("mode", "")
	return nil
}

func (d *drawer) Sample(ctx context.Context, req sdk.SampleRequest, g sdk.Generator) (sdk.SampleResponse, error) {
	in := sdk.GenerateRequest{Seeds: req.Seeds, Options: sdk.GenerateOptions{Temperature: 1, MaxTokens: 8}}
	for _, p := range req.Prompts {
		in.Prompts = append(in.Prompts, p.Messages)
	}
	switch d.mode {
	case "many":
		in.Seeds[0] = make([]uint64, 1<<20)
	case "enormous": // 2^24 seeds in ten bytes each are over 64 MiB
		in.Seeds[0] = make([]uint64, 1<<24)
		for i := range in.Seeds[0] {
			in.Seeds[0][i] = math.MaxUint64
		}
	case "rows":
		in.Seeds = in.Seeds[:1]
	case "negative":
		in.Options.MaxTokens = -1
	case "hot":
		in.Options.Temperature = math.NaN()
	case "stop":
		in.Options.Stop = []string{""}
	case "again": // what was refused, is asked for again, and again
		in.Options.MaxTokens = math.MinInt32
		for range 100 {
			_, _ = g.Generate(ctx, in)
		}
	}
	out, err := g.Generate(ctx, in)
	return sdk.SampleResponse(out), err
}

// What the tests share.

// newHost returns a host that is closed with the test, and its log.
func newHost(t *testing.T, change ...func(*Options)) (*Host, *syncBuffer) {
	t.Helper()
	o := bundled()
	logged := &syncBuffer{}
	log, err := telemetry.New(telemetry.Options{Writer: logged, Level: "debug", JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	o.Log = log
	for _, f := range change {
		f(&o)
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	h.patience.pause = time.Millisecond
	t.Cleanup(h.Close)
	return h, logged
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// eventually polls a condition: processes end and pipes are read when the system likes.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if condition() {
			return
		}
	}
	t.Fatalf("after 20 s still not: %s", what)
}

// gone says that a process is dead; a zombie that nobody reaps is dead too.
func gone(t *testing.T, pid int) bool {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("SKIP: process states are read from /proc")
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

// pairBatch is one pair of log-probabilities −3 and −5: d = 2, so the loss is 2β and its derivatives ±2β.
func pairBatch() sdk.LossBatch {
	nan := math.NaN()
	return sdk.LossBatch{
		Group: []int32{0, 0}, Policy: []float64{-3, -5}, Reference: []float64{-4, -4}, Tokens: []int32{1, 2},
		WinRate: []float64{nan, nan}, WinRateSE: []float64{nan, nan}, Teacher: []bool{false, true},
		Chosen: []int32{0}, Rejected: []int32{1}, ChosenWinRate: []float64{0.9}, RejectedWinRate: []float64{0.1},
		Target: []float64{0.7}, Preference: []float64{1}, Weight: []float64{1},
	}
}
