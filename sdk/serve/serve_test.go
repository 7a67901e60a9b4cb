package serve

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/wire"
)

// TestMain is three programs: the tests, a plugin, and a parent that starts the plugin as a host does.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "test-plugin" {
		if err := Plugin(testLoss()); err != nil {
			panic(err)
		}
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "test-parent" {
		parent()
		return
	}
	os.Exit(m.Run())
}

func testLoss() sdk.Loss {
	lo, hi := sdk.Between(0, 1)
	return sdk.Pairwise(sdk.Manifest{
		Name: "weather", Version: "1.2.0", Help: "prefers rain",
		Settings: []sdk.Setting{
			{Name: "beta", Type: sdk.TypeNumber, Default: 0.1, Help: "strength, per nat", Min: lo, Max: hi},
			{Name: "places", Type: sdk.TypeList, Default: []any{"Bergen", 2.0}, Help: "where to look"},
			{Name: "key", Type: sdk.TypeString, Help: "what to open it with", Required: true},
		},
	}, func(sdk.Settings) (sdk.PairFunc, error) { return nil, errors.New("not here") })
}

// parent starts the plugin, prints its process id once it serves, and waits to be killed. It does
// not ask the kernel to kill the plugin: what is tested is the plugin's own check.
func parent() {
	cookie := wire.Handshake()
	cmd := exec.Command(os.Args[0], "test-plugin")
	cmd.Env = []string{cookie.MagicCookieKey + "=" + cookie.MagicCookieValue, "PLUGIN_PROTOCOL_VERSIONS=1", "TMPDIR=" + os.TempDir()}
	out, err := cmd.StdoutPipe()
	if err != nil {
		panic(err)
	}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		panic(err)
	}
	fmt.Println(cmd.Process.Pid, line)
	select {}
}

func TestAPluginRunByHandSaysWhatItIs(t *testing.T) {
	cmd := exec.Command(os.Args[0], "test-plugin")
	cmd.Env = []string{}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 || len(out) != 0 {
		t.Errorf("error %v, standard output %q: want exit code 1 and nothing", err, out)
	}
	for _, want := range []string{
		"weather 1.2.0 is a plugin of dno (loss): prefers rain\n",
		`loss = { "weather", beta = 0.1, places = { "Bergen", 2 } }`,
		"key                string  what to open it with (required)\n",
	} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("want %q in\n%s", want, stderr.String())
		}
	}
}

func TestAPluginOutlivesItsParentByASecondOrTwo(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIP: process states are read from /proc")
	}
	host := exec.Command(os.Args[0], "test-parent")
	host.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	host.Stderr = os.Stderr
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
	first, handshake, _ := strings.Cut(line, " ")
	pid, err := strconv.Atoi(first)
	if err != nil || !strings.HasPrefix(handshake, "1|1|unix|") || !strings.Contains(handshake, "|grpc|") || dead(pid) {
		t.Fatalf("no plugin serves: %q, %v", line, err)
	}
	if err := host.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = host.Wait()
	for end := time.Now().Add(20 * time.Second); !dead(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the plugin still runs 20 s after its parent was killed")
		}
	}
}

// dead says that a process is gone, or a zombie that nobody reaps.
func dead(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return true
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(state, "Z") || strings.HasPrefix(state, "X")
}

type nothing struct{ sdk.Plugin }

type both struct {
	sdk.Plugin
	sdk.Oracle
	sdk.Loss
}

func (both) Manifest() sdk.Manifest                        { return sdk.Manifest{} }
func (both) Configure(context.Context, sdk.Settings) error { return nil }

func TestAPluginIsOfExactlyOneKind(t *testing.T) {
	for _, p := range []sdk.Plugin{nothing{}, both{}} {
		if err := Plugin(p); sdk.CodeOf(err) != sdk.CodeInternal || !strings.Contains(err.Error(), "want exactly one") {
			t.Errorf("%T: %v", p, err)
		}
	}
}
