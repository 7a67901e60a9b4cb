//go:build unix

package docs_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/dno-project/dno/core/host"
	"github.com/dno-project/dno/plugins/oracle/command"
	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/pluginpb"
)

// literal is a block of bytes of the protocol's page, with the JSON that follows it.
type literal struct {
	name string
	data []byte
	json string
}

var literalBlock = regexp.MustCompile("(?s)```bytes (\\w+)\n(.*?)```\n```json\n(.*?)```")

func text(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func literals(t *testing.T) (out []literal) {
	t.Helper()
	page := text(t, "plugin-protocol.md")
	for _, m := range literalBlock.FindAllStringSubmatch(page, -1) {
		var digits strings.Builder
		for line := range strings.Lines(m[2]) {
			line, _, _ = strings.Cut(line, "#")
			digits.WriteString(strings.Join(strings.Fields(line), ""))
		}
		data, err := hex.DecodeString(digits.String())
		if err != nil {
			t.Fatalf("%s: %v", m[1], err)
		}
		out = append(out, literal{m[1], data, m[3]})
	}
	if n := strings.Count(page, "```bytes"); n != len(out) {
		t.Fatalf("%d blocks of bytes, %d of them followed by their JSON", n, len(out))
	}
	return out
}

// message returns an empty message of the contract, or the status that errors come in.
func message(t *testing.T, name string) proto.Message {
	t.Helper()
	switch name {
	case "Status":
		return status.New(codes.OK, "").Proto() // empty
	case "ConnInfo": // go-plugin's own
		m, err := protoregistry.GlobalTypes.FindMessageByName("plugin.ConnInfo")
		if err != nil {
			t.Fatal(err)
		}
		return m.New().Interface()
	}
	for _, m := range []proto.Message{
		&pluginpb.ManifestResponse{}, &pluginpb.ConfigureRequest{}, &pluginpb.JudgeRequest{}, &pluginpb.JudgeResponse{},
		&pluginpb.EvaluateRequest{}, &pluginpb.EvaluateResponse{}, &pluginpb.SampleRequest{}, &pluginpb.SampleResponse{},
		&pluginpb.GenerateRequest{}, &pluginpb.GenerateResponse{}, &pluginpb.Error{},
	} {
		if string(m.ProtoReflect().Descriptor().Name()) == name {
			return m
		}
	}
	t.Fatalf("the page shows a message %q, which the contract has not", name)
	return nil
}

func TestThePagesBytesAreWhatItSays(t *testing.T) {
	shown := map[string]int{}
	for _, l := range literals(t) {
		shown[l.name]++
		have, want := message(t, l.name), message(t, l.name)
		if err := proto.Unmarshal(l.data, have); err != nil {
			t.Errorf("%s: %v", l.name, err)
			continue
		}
		if err := protojson.Unmarshal([]byte(l.json), want); err != nil {
			t.Errorf("%s: %v", l.name, err)
			continue
		}
		if !proto.Equal(have, want) {
			t.Errorf("%s: the bytes say\n%s\nthe JSON says\n%s", l.name, protojson.Format(have), protojson.Format(want))
		}
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
		if err != nil || !bytes.Equal(again, l.data) {
			t.Errorf("%s: encoded again it is % x, %v", l.name, again, err)
		}
	}
	want := map[string]int{
		"ManifestResponse": 3, "ConfigureRequest": 1, "JudgeRequest": 1, "JudgeResponse": 1, "EvaluateRequest": 2, "EvaluateResponse": 1,
		"SampleRequest": 1, "SampleResponse": 1, "GenerateRequest": 1, "GenerateResponse": 1, "Error": 1, "Status": 1, "ConnInfo": 1,
	}
	for name, n := range want {
		if shown[name] != n {
			t.Errorf("the page shows %d blocks of %s, want %d", shown[name], name, n)
		}
	}
}

func TestThePageNamesEveryFieldAndMethod(t *testing.T) {
	page := text(t, "plugin-protocol.md")
	messages, services := pluginpb.File_plugin_proto.Messages(), pluginpb.File_plugin_proto.Services()
	for i := range messages.Len() {
		for k := range messages.Get(i).Fields().Len() {
			if name := messages.Get(i).Fields().Get(k).Name(); !strings.Contains(page, "`"+string(name)+"`") {
				t.Errorf("%s.%s is nowhere on the page", messages.Get(i).Name(), name)
			}
		}
	}
	for i := range services.Len() {
		for k := range services.Get(i).Methods().Len() {
			if name := services.Get(i).Methods().Get(k).Name(); !strings.Contains(page, "`"+string(name)+"`") {
				t.Errorf("the method %s is nowhere on the page", name)
			}
		}
	}
}

// stated returns the value that the page's table gives a variable of the plugin's environment.
func stated(t *testing.T, page, name string) string {
	t.Helper()
	row := regexp.MustCompile("(?m)^\\| `" + name + "` \\|[^`]*`([^`]+)`").FindStringSubmatch(page)
	if row == nil {
		t.Fatalf("the page states no value of %s", name)
	}
	return row[1]
}

// handshake reads a plugin's first line by the page's rules: where its socket is, and its certificate.
func handshake(t *testing.T, line string) (socket string, certificate []byte) {
	t.Helper()
	fields := strings.Split(strings.TrimSpace(line), "|")
	if len(fields) != 6 || !slices.Equal(fields[:3], []string{"1", "1", "unix"}) || !filepath.IsAbs(fields[3]) || fields[4] != "grpc" {
		t.Fatalf("the handshake is %q", line)
	}
	certificate, err := base64.RawStdEncoding.DecodeString(fields[5])
	if err != nil {
		t.Fatalf("the handshake is %q: %v", line, err)
	}
	return fields[3], certificate
}

// The page's own handshake follows the page's rules.
func TestThePagesHandshakeIsOne(t *testing.T) {
	shown := regexp.MustCompile("```handshake\n(.*)\n```").FindStringSubmatch(text(t, "plugin-protocol.md"))
	if shown == nil {
		t.Fatal("the page shows no handshake")
	}
	if _, certificate := handshake(t, shown[1]); len(certificate) == 0 || certificate[0] != 0x30 {
		t.Errorf("its certificate does not begin as DER does: % x", certificate)
	}
}

// dno starts a plugin as the page says: no arguments, an empty standard input, its own working
// directory, and these variables, no other.
func TestAPluginIsStartedAsThePageSays(t *testing.T) {
	t.Setenv("DNO_PAGE_CANARY", "a key")
	dir := t.TempDir()
	// A value may have lines that look like a variable of its own: the certificate's are base64 and end with "=".
	script := "#!/bin/sh\n{ echo arguments $#; echo stdin $(wc -c); echo dir $(pwd -P); env -0 | tr '\\n\\0' ' \\n' | sed -n 's/^\\([A-Za-z_][A-Za-z0-9_]*\\)=.*/variable \\1/p'; } > '" + dir + "/seen'\n"
	path := filepath.Join(dir, "dno-loss-curious")
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	h, err := host.New(host.Options{Lock: host.Only(fmt.Sprintf("%x", sha256.Sum256([]byte(script))))})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.Manifest(t.Context(), host.Spec{Kind: sdk.KindLoss, Name: path}); err == nil {
		t.Error("a script that serves nothing is a plugin")
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if here, err = filepath.EvalSymlinks(here); err != nil {
		t.Fatal(err)
	}
	page := text(t, "plugin-protocol.md")
	seen := strings.Split(strings.TrimSpace(text(t, filepath.Join(dir, "seen"))), "\n")
	for _, line := range []string{"arguments 0", "stdin 0", "dir " + here} {
		if !slices.Contains(seen, line) {
			t.Errorf("a plugin sees %q, not %q", seen, line)
		}
	}
	for _, line := range seen {
		name, ok := strings.CutPrefix(line, "variable ")
		if own := name == "PWD" || name == "OLDPWD" || name == "SHLVL" || name == "_"; ok && !own && !strings.Contains(page, "`"+name+"`") { // own: the shell's
			t.Errorf("a plugin sees the variable %s, which is nowhere on the page", name)
		}
	}
	for _, name := range []string{"PATH", "DNO_PLUGIN_COOKIE", "PLUGIN_PROTOCOL_VERSIONS", "PLUGIN_UNIX_SOCKET_DIR", "PLUGIN_CLIENT_CERT", "PLUGIN_MIN_PORT", "PLUGIN_MAX_PORT"} {
		if !slices.Contains(seen, "variable "+name) {
			t.Errorf("a plugin does not see %s, which the page states", name)
		}
	}
}

// The oracle "command" asks the page's question and takes each of the page's answers.
func TestThePagesLinesAreTakenAsTheyAre(t *testing.T) {
	block := regexp.MustCompile("(?s)```jsonl\n(.*?)\n```").FindStringSubmatch(text(t, "plugin-protocol.md"))
	if block == nil {
		t.Fatal("the page shows no lines of JSON")
	}
	lines := strings.Split(block[1], "\n")
	if len(lines) != 4 {
		t.Fatalf("the page shows %d lines of JSON, want a question and 3 answers", len(lines))
	}
	asked := filepath.Join(t.TempDir(), "asked")
	for _, line := range lines[1:] {
		oracle := command.New()
		defer oracle.(io.Closer).Close()
		err := oracle.Configure(t.Context(), sdk.Settings{
			"path": "sh", "args": []any{"-c", `read -r question; printf '%s' "$question" > "$1"; printf '%s\n' "$2"; read -r end`, "sh", asked, line}, "order_matters": true,
		})
		if err != nil {
			t.Fatal(err)
		}
		verdicts, err := oracle.Judge(t.Context(), []sdk.Comparison{{
			ID: "c", Prompt: sdk.Prompt{ID: "p", Messages: []sdk.Message{{Role: "user", Content: "2+2?"}}, Answer: "4"},
			Candidates: []string{"4", "5"}, Pairs: []sdk.Ordered{{A: 0, B: 1}},
		}})
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if question := text(t, asked); question != lines[0] {
			t.Errorf("the program is asked\n%s\nthe page shows\n%s", question, lines[0])
		}
		var said struct {
			P       float64
			Abstain string
			Reason  string
			Cost    float64
			Score   map[string]float64
		}
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			t.Fatal(err)
		}
		v := verdicts[0]
		if want := (sdk.Verdict{P: said.P, Abstain: said.Abstain, Reason: said.Reason}); v.Pairs[0] != want || v.Cost != said.Cost || len(v.Assessed) != len(said.Score) {
			t.Errorf("%s: is taken as %+v", line, v)
		}
	}
}

// raw passes bytes through: what is sent and what comes back is not touched by generated code.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (raw) Name() string                       { return "proto" }

// The page's rules, followed to the letter and without go-plugin, start a plugin, ask it, and stop it.
func TestAPluginIsRunByThePagesRules(t *testing.T) {
	track(t, "../cmd", "../core", "../plugins", "../scripts", "../sdk")
	dno := filepath.Join(t.TempDir(), "dno")
	works(t, "..", nil, "go", "build", "-o", dno, "./cmd/dno")
	sockets, err := os.MkdirTemp("", "dno-page-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(sockets)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}

	rules := text(t, "plugin-protocol.md")
	plugin := exec.Command(dno, "plugin", "serve", "loss/dpo")
	plugin.Env = []string{
		"PATH=" + os.Getenv("PATH"), "DNO_PLUGIN_COOKIE=" + stated(t, rules, "DNO_PLUGIN_COOKIE"),
		"PLUGIN_PROTOCOL_VERSIONS=" + stated(t, rules, "PLUGIN_PROTOCOL_VERSIONS"),
		"PLUGIN_UNIX_SOCKET_DIR=" + sockets,
		"PLUGIN_CLIENT_CERT=" + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
	}
	out, err := plugin.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := plugin.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plugin.Process.Kill() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	socket, served := handshake(t, line)
	if filepath.Dir(socket) != sockets {
		t.Fatalf("its socket is %s, want one in %s", socket, sockets)
	}
	certificate, err := x509.ParseCertificate(served)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		ServerName: "localhost", RootCAs: pool, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	health, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: "plugin"})
	if err != nil || health.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("its health is %v, %v", health, err)
	}
	ask := func(method string, request []byte, response proto.Message) {
		t.Helper()
		var answer []byte
		if err := conn.Invoke(ctx, "/dno.plugin.v1."+method, request, &answer, grpc.ForceCodec(raw{})); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		if err := proto.Unmarshal(answer, response); err != nil {
			t.Fatalf("%s: %v", method, err)
		}
	}
	page := map[string][]byte{}
	for _, l := range literals(t) {
		if page[l.name] == nil {
			page[l.name] = l.data
		}
	}
	var m pluginpb.ManifestResponse
	if ask("Plugin/Manifest", nil, &m); m.GetKind() != "loss" || m.GetName() != "dpo" {
		t.Errorf("the manifest is %v", &m)
	}
	ask("Plugin/Configure", page["ConfigureRequest"], &pluginpb.ConfigureResponse{})
	var result pluginpb.EvaluateResponse
	ask("Loss/Evaluate", page["EvaluateRequest"], &result)
	// β = 0.5 and h = (−3+4) − (−5+4) = 2, so L = log(1 + exp(−1)) and dL/dchosen = −0.5·σ(−1).
	want := []float64{math.Log1p(math.Exp(-1)), -0.5 / (1 + math.E), 0.5 / (1 + math.E)}
	have := []float64{result.GetLoss()}
	for g := result.GetGradient(); len(g) >= 8; g = g[8:] {
		bits := uint64(0)
		for i := range 8 {
			bits |= uint64(g[i]) << (8 * i)
		}
		have = append(have, math.Float64frombits(bits))
	}
	if len(have) != 3 || math.Abs(have[0]-want[0]) > 1e-12 || math.Abs(have[1]-want[1]) > 1e-12 || math.Abs(have[2]-want[2]) > 1e-12 {
		t.Errorf("the loss and its derivatives are %v, want %v", have, want)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/dno.plugin.v1.Loss/Evaluations", grpc.ForceCodec(raw{}))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var answer []byte
		if err := stream.SendMsg(page["EvaluateRequest"]); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(&answer); err != nil {
			t.Fatal(err)
		}
		var again pluginpb.EvaluateResponse
		if err := proto.Unmarshal(answer, &again); err != nil || !proto.Equal(&again, &result) {
			t.Errorf("on the stream it answers %v, %v", &again, err)
		}
	}

	// An error comes in the page's form: here a column of 3 bytes.
	var answer []byte
	err = conn.Invoke(ctx, "/dno.plugin.v1.Loss/Evaluate", []byte{0x12, 3, 1, 2, 3}, &answer, grpc.ForceCodec(raw{}))
	failed := status.Convert(err)
	shown := status.New(codes.OK, "").Proto() // empty
	if err := proto.Unmarshal(page["Status"], shown); err != nil {
		t.Fatal(err)
	}
	var detail pluginpb.Error
	if details := failed.Proto().GetDetails(); failed.Code() != codes.Code(shown.GetCode()) || len(details) != 1 ||
		details[0].GetTypeUrl() != shown.GetDetails()[0].GetTypeUrl() || details[0].UnmarshalTo(&detail) != nil || detail.GetCode() != int32(sdk.CodePlugin) {
		t.Errorf("columns that are cut fail with %v", failed.Proto())
	}

	// Whoever has no certificate of dno's gets nothing.
	other, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{ServerName: "localhost", RootCAs: pool})))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Invoke(ctx, "/dno.plugin.v1.Plugin/Manifest", &pluginpb.ManifestRequest{}, &m); err == nil {
		t.Error("the plugin answers a stranger")
	}

	if err := conn.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{}); err != nil && status.Code(err) != codes.Unavailable {
		t.Errorf("shutdown: %v", err)
	}
	if err := plugin.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}
