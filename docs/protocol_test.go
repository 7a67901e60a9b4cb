//go:build unix

package docs_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
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
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/dno-project/dno/sdk/pluginpb"
)

// literal is a block of bytes of the protocol's page, with the JSON that follows it.
type literal struct {
	name string
	data []byte
	json string
}

var literalBlock = regexp.MustCompile("(?s)```bytes (\\w+)\n(.*?)```\n```json\n(.*?)```")

func literals(t *testing.T) (out []literal) {
	t.Helper()
	page, err := os.ReadFile("plugin-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range literalBlock.FindAllStringSubmatch(string(page), -1) {
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
	if n := strings.Count(string(page), "```bytes"); n != len(out) {
		t.Fatalf("%d blocks of bytes, %d of them followed by their JSON", n, len(out))
	}
	return out
}

// message returns an empty message of the contract, or the status that errors come in.
func message(t *testing.T, name string) proto.Message {
	t.Helper()
	if name == "Status" {
		return status.New(codes.OK, "").Proto() // empty
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
		"SampleRequest": 1, "SampleResponse": 1, "GenerateRequest": 1, "GenerateResponse": 1, "Error": 1, "Status": 1,
	}
	for name, n := range want {
		if shown[name] != n {
			t.Errorf("the page shows %d blocks of %s, want %d", shown[name], name, n)
		}
	}
}

func TestThePageNamesEveryFieldAndMethod(t *testing.T) {
	data, err := os.ReadFile("plugin-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
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

// raw passes bytes through: what is sent and what comes back is not touched by generated code.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = bytes.Clone(data); return nil }
func (raw) Name() string                       { return "proto" }

// The page's rules, followed to the letter and without go-plugin, start a plugin, ask it, and stop it.
func TestAPluginIsRunByThePagesRules(t *testing.T) {
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

	plugin := exec.Command(dno, "plugin", "serve", "loss/dpo")
	plugin.Env = []string{
		"PATH=" + os.Getenv("PATH"), "DNO_PLUGIN_COOKIE=5f0c6ba1-direct-nash-optimization", "PLUGIN_PROTOCOL_VERSIONS=1",
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
	fields := strings.Split(strings.TrimSpace(line), "|")
	if len(fields) < 6 || !slices.Equal(fields[:3], []string{"1", "1", "unix"}) || fields[4] != "grpc" || filepath.Dir(fields[3]) != sockets {
		t.Fatalf("the handshake is %q", line)
	}
	served, err := base64.RawStdEncoding.DecodeString(fields[5])
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(served)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	conn, err := grpc.NewClient("unix:"+fields[3], grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
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

	// Whoever has no certificate of dno's gets nothing.
	other, err := grpc.NewClient("unix:"+fields[3], grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{ServerName: "localhost", RootCAs: pool})))
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
