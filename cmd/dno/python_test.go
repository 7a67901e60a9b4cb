//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/dno-project/dno/core/host"
	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/pluginpb"
)

// grpcEnvironment makes a Python environment with grpcio. Without Python, or where grpcio cannot be
// had, the test is skipped, unless DNO_REQUIRE_PYTHON is 1: then it fails.
func grpcEnvironment(t testing.TB) (dir string) {
	t.Helper()
	name := os.Getenv("DNO_PYTHON")
	if name == "" {
		name = "python3"
	}
	dir = filepath.Join(t.TempDir(), "venv")
	for _, args := range [][]string{
		{name, "-m", "venv", dir},
		{filepath.Join(dir, "bin", "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "grpcio==1.80.1"},
	} {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err == nil {
			continue
		}
		if os.Getenv("DNO_REQUIRE_PYTHON") == "1" {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		t.Skipf("NOT TESTED: plugins in Python, for %s failed: %v\n%s", strings.Join(args, " "), err, out)
	}
	return dir
}

func TestPythonPlugins(t *testing.T) {
	env := grpcEnvironment(t)
	interpreter := filepath.Join(env, "bin", "python")
	sources, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	inSDK := func(t *testing.T, stdin string, args ...string) string {
		t.Helper()
		cmd := exec.Command(interpreter, args...)
		var out, errs bytes.Buffer
		cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = filepath.Join(sources, "sdk", "python"), strings.NewReader(stdin), &out, &errs
		cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
		if err := cmd.Run(); err != nil {
			t.Fatalf("python %s: %v\n%s%s", strings.Join(args, " "), err, &out, &errs)
		}
		return out.String() + errs.String()
	}
	t.Run("unit tests", func(t *testing.T) {
		if out := inSDK(t, "", "-m", "unittest"); !strings.Contains(out, "\nOK") || strings.Contains(out, "Ran 0 tests") {
			t.Errorf("python -m unittest prints\n%s", out)
		}
	})
	t.Run("messages are the same bytes", func(t *testing.T) {
		names, lines := messagesInHex(t)
		written := strings.Fields(inSDK(t, strings.Join(lines, "\n"), "-m", "tests.reencode"))
		if len(written) != len(lines) {
			t.Fatalf("Python writes %d messages, want %d", len(written), len(lines))
		}
		for i, have := range written {
			if _, want, _ := strings.Cut(lines[i], " "); have != want {
				t.Errorf("%s: Python writes\n%.300s\ninstead of\n%.300s", names[i], have, want)
			}
		}
	})
	t.Run("certificate", func(t *testing.T) {
		const script = "from dno_sdk import tls\nfor _ in range(20):\n    key, certificate, _ = tls.self_signed()\n    print(key.decode() + certificate.decode() + ';')"
		made := strings.Split(inSDK(t, "", "-c", script), ";")
		if len(made) != 21 {
			t.Fatalf("%d certificates, want 20", len(made)-1)
		}
		for _, out := range made[:20] {
			pair, err := tls.X509KeyPair([]byte(out), []byte(out))
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			pool := x509.NewCertPool()
			pool.AddCert(pair.Leaf)
			if err := pair.Leaf.CheckSignatureFrom(pair.Leaf); err != nil {
				t.Error(err)
			}
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: "localhost", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("edges of an oracle", func(t *testing.T) { pythonOracle(t, interpreter, sources) })
	t.Run("edges of a sampler", func(t *testing.T) { pythonSampler(t, interpreter, sources) })
	project := func(kind sdk.Kind) string {
		dir := filepath.Join(t.TempDir(), "mine")
		works(t, ".", "plugin", "new", string(kind), "mine", "--lang", "python", "--sdk", sources, "--dir", dir)
		if err := os.Symlink(env, filepath.Join(dir, ".venv")); err != nil {
			t.Fatal(err)
		}
		ran(t, dir, "./build.sh")
		plugin := "plugins/dno-" + string(kind) + "-mine"
		works(t, dir, "plugin", "check", plugin)
		works(t, dir, "plugin", "install", plugin)
		return dir
	}
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			dir := project(kind)
			trained(t, dir)
			stopsByItself(t, dir, kind)
		})
	}
	t.Run("example", func(t *testing.T) {
		// A copy beside the original's parents: build.sh finds dno's sources from where it lies.
		dir, err := os.MkdirTemp("../../docs/examples", "tmp-python-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		if err := os.CopyFS(dir, os.DirFS("../../docs/examples/oracle-python")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(env, filepath.Join(dir, ".venv")); err != nil {
			t.Fatal(err)
		}
		ran(t, dir, "./build.sh")
		works(t, dir, "plugin", "check", "plugins/dno-oracle-arithmetic")
		works(t, dir, "plugin", "install", "plugins/dno-oracle-arithmetic")
		if err := os.CopyFS(dir, os.DirFS("testdata/small")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "small.lua"), filepath.Join(dir, "experiment.lua")); err != nil {
			t.Fatal(err)
		}
		trained(t, dir, "--set", "iterations=1", "--set", "oracle=arithmetic")
	})
}

func mustRender(t *testing.T, lang string, kind sdk.Kind) map[string][]byte {
	t.Helper()
	files, err := render(lang, blanks{Name: "mine", Title: "Mine", SDK: "..", Kind: string(kind), Func: title(string(kind)), Article: "A", File: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// The example's build script is the scaffold's.
func TestThePythonExampleIsBuiltLikeANewPlugin(t *testing.T) {
	have := string(read(t, "../../docs/examples/oracle-python/build.sh"))
	want := string(mustRender(t, "python", sdk.KindOracle)["build.sh"])
	want = strings.NewReplacer("-mine", "-arithmetic", `sdk="../sdk/python"`, `sdk="../../../sdk/python"`).Replace(want)
	if have != want {
		t.Errorf("docs/examples/oracle-python/build.sh is\n%s\ninstead of\n%s", have, want)
	}
}

// stopsByItself starts the plugin as a run does and closes the host: the process ends when it is asked to,
// and is not killed.
func stopsByItself(t *testing.T, dir string, kind sdk.Kind) {
	t.Helper()
	lock, err := host.LoadLock(filepath.Join(dir, lockFile))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var logged bytes.Buffer
	log, err := telemetry.New(telemetry.Options{Writer: locked{&mu, &logged}, Level: "debug", JSON: true})
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.New(host.Options{SearchDirs: []string{filepath.Join(dir, "plugins")}, Lock: lock, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	spec := host.Spec{Name: "mine"}
	switch kind {
	case sdk.KindOracle:
		_, _, err = h.Oracle(context.Background(), spec)
	case sdk.KindLoss:
		_, _, err = h.Loss(context.Background(), spec)
	case sdk.KindSampler:
		_, _, err = h.Sampler(context.Background(), spec)
	}
	h.Close()
	mu.Lock()
	defer mu.Unlock()
	if err != nil || !strings.Contains(logged.String(), "plugin process exited") || strings.Contains(logged.String(), "killed") {
		t.Errorf("%v; the log says\n%s", err, &logged)
	}
}

type locked struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// messagesInHex returns messages of every type of the contract, all fields filled, as "Name hex".
func messagesInHex(t *testing.T) (names, lines []string) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	all := pluginpb.File_plugin_proto.Messages()
	for i := range all.Len() {
		d := all.Get(i)
		for range 20 {
			m := filled(r, d).Interface()
			data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if len(data) == 0 { // it has no field, and strings.Fields would lose it
				continue
			}
			names = append(names, string(d.Name()))
			lines = append(lines, fmt.Sprintf("%s %s", d.Name(), hex.EncodeToString(data)))
		}
	}
	if len(lines) < 400 {
		t.Fatalf("only %d messages", len(lines))
	}
	return names, lines
}

// filled returns a message with a random value in each field.
func filled(r *rand.Rand, d protoreflect.MessageDescriptor) protoreflect.Message {
	m := dynamicpb.NewMessage(d)
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		switch {
		case f.IsMap():
			entries := m.Mutable(f).Map()
			for k := range r.IntN(3) {
				entries.Set(protoreflect.ValueOfString(fmt.Sprint("k", k)).MapKey(), value(r, f.MapValue()))
			}
		case f.IsList():
			list := m.Mutable(f).List()
			for range r.IntN(4) {
				list.Append(value(r, f))
			}
		default:
			m.Set(f, value(r, f))
		}
	}
	return m
}

func value(r *rand.Rand, f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return protoreflect.ValueOfMessage(filled(r, f.Message()))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString([]string{"", "x", "naïve 四 \u202e", strings.Repeat("a", 300)}[r.IntN(4)])
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(bytes.Repeat([]byte{0, 255}, r.IntN(20)))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(r.IntN(2) == 1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(r.Uint32() >> r.IntN(32)))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(r.Uint32() >> r.IntN(32))
	case protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(r.Uint64() >> r.IntN(64))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64([]float64{0, 0.5, -1e300, r.NormFloat64()}[r.IntN(4)])
	}
	panic(f.Kind()) // the contract has no other
}
