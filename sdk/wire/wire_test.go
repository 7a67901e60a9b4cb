package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/pluginpb"
)

// connect serves a plugin in memory and returns the client half and a function that ends the server.
func connect(t *testing.T, s Service) (sdk.Plugin, func()) {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	server := NewServer(nil)
	registerPlugin(server, s)
	s.register(server, nil)
	go func() { _ = server.Serve(lis) }()
	options := append(DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	conn, err := grpc.NewClient("passthrough:memory", options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
	})
	p, err := (&Conn{conn: conn}).Plugin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return p, server.Stop
}

// plug is a plugin of all three kinds made of functions.
type plug struct {
	manifest  sdk.Manifest
	configure func(sdk.Settings) error
	judge     func(context.Context, []sdk.Comparison) ([]sdk.Verdicts, error)
	evaluate  func(sdk.LossBatch) (sdk.LossResult, error)
	sample    func(sdk.SampleRequest, sdk.Generator) (sdk.SampleResponse, error)
}

func (p *plug) Manifest() sdk.Manifest { return p.manifest }
func (p *plug) Configure(_ context.Context, settings sdk.Settings) error {
	return p.configure(settings)
}
func (p *plug) Judge(ctx context.Context, b []sdk.Comparison) ([]sdk.Verdicts, error) {
	return p.judge(ctx, b)
}
func (p *plug) Evaluate(_ context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	return p.evaluate(b)
}
func (p *plug) Sample(_ context.Context, r sdk.SampleRequest, g sdk.Generator) (sdk.SampleResponse, error) {
	return p.sample(r, g)
}

func TestAManifestCrossesWhole(t *testing.T) {
	lo, hi := sdk.Between(0, 1)
	m := sdk.Manifest{
		Name: "x", Version: "1.2", Help: "does x",
		Settings: []sdk.Setting{
			{Name: "number", Type: sdk.TypeNumber, Default: 0.1, Help: "h", Min: lo, Max: hi},
			{Name: "zero", Type: sdk.TypeNumber, Default: 0.0, Help: "h", Min: sdk.AtLeast(0)},
			{Name: "bool", Type: sdk.TypeBool, Default: false, Help: "h"},
			{Name: "text", Type: sdk.TypeString, Default: "", Help: "h", OneOf: []string{"", "a"}},
			{Name: "list", Type: sdk.TypeList, Default: []any{"a", 1.0, []any{}}, Help: "h"},
			{Name: "path", Type: sdk.TypePath, Help: "h", Required: true},
		},
	}
	for name, c := range map[string]struct {
		change  func(*sdk.Manifest)
		service func(*plug) Service
	}{
		"an oracle's": {func(m *sdk.Manifest) {
			m.Kind = sdk.KindOracle
			m.Oracle = sdk.OracleTraits{Form: sdk.FormListwise, OrderMatters: true, Concurrency: 7}
		}, func(p *plug) Service { return OracleService(p) }},
		"a loss's": {func(m *sdk.Manifest) {
			m.Kind = sdk.KindLoss
			m.Loss = sdk.LossTraits{Unit: sdk.UnitGroup, TokenLevel: true, NoReference: true, Mismatched: true, SoftTarget: true, Surrogate: true}
		}, func(p *plug) Service { return LossService(p) }},
		"a sampler's": {func(m *sdk.Manifest) {
			m.Kind = sdk.KindSampler
			m.Sampler.UsesGenerator = true
		}, func(p *plug) Service { return SamplerService(p) }},
	} {
		t.Run(name, func(t *testing.T) {
			want := m
			c.change(&want)
			served := want
			served.Kind = "" // the server's kind counts
			p, _ := connect(t, c.service(&plug{manifest: served}))
			if !reflect.DeepEqual(p.Manifest(), want) {
				t.Errorf("have\n%+v\nwant\n%+v", p.Manifest(), want)
			}
		})
	}
}

func TestSettingsCrossAsJSON(t *testing.T) {
	var got sdk.Settings
	p, _ := connect(t, LossService(&plug{configure: func(s sdk.Settings) error {
		got = s
		return nil
	}}))
	want := sdk.Settings{"n": 1e-300, "i": 9007199254740992.0, "b": true, "s": "naïve <&>", "l": []any{1.0, "x", nil}, "m": map[string]any{"k": 1.5}}
	if err := p.Configure(context.Background(), want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("have %v, want %v", got, want)
	}
	if err := p.Configure(context.Background(), sdk.Settings{"n": math.NaN()}); sdk.CodeOf(err) != sdk.CodeUsage {
		t.Errorf("NaN has no JSON: %v", err)
	}
}

func TestComparisonsAndVerdictsCrossWhole(t *testing.T) {
	batch := []sdk.Comparison{{
		ID: "c", Candidates: []string{"", "四 \u202e"}, Pairs: []sdk.Ordered{{A: 1, B: 0}, {A: 0, B: 1}},
		Prompt: sdk.Prompt{ID: "p", Answer: "4", Messages: []sdk.Message{{Role: "system", Content: "s"}, {Role: "user", Content: "u"}},
			Metadata: map[string]any{"level": 3.0, "tags": []any{"a"}}},
	}}
	zero, score := 0.0, -2.5
	answer := []sdk.Verdicts{{
		ID: "c", Cost: 0.25, Model: "judge-1", Pairs: []sdk.Verdict{{P: 0.75, Reason: "because"}, {Abstain: "no idea"}},
		Assessed: []sdk.Assessment{{Score: &zero, Labels: map[string]float64{"correct": 1}}, {Score: &score}, {Abstain: "empty"}},
	}, {ID: "d"}}
	p, _ := connect(t, OracleService(&plug{judge: func(_ context.Context, b []sdk.Comparison) ([]sdk.Verdicts, error) {
		if !reflect.DeepEqual(b, batch) {
			t.Errorf("the plugin gets\n%+v\nwant\n%+v", b, batch)
		}
		return answer, nil
	}}))
	out, err := p.(sdk.Oracle).Judge(context.Background(), batch)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(out, answer) {
		t.Errorf("the host gets\n%+v\nwant\n%+v", out, answer)
	}
}

// batch has every column, with the strangest numbers that each may hold.
func batch() sdk.LossBatch {
	return sdk.LossBatch{
		Group: []int32{0, 0, 1}, Policy: []float64{-1, -math.MaxFloat64, -5e-324}, Reference: []float64{-2, -3, math.Copysign(0, -1)},
		Tokens: []int32{1, 2, 1}, WinRate: []float64{0, 1, 0.5}, WinRateSE: []float64{0, 0.25, 0.5}, Teacher: []bool{true, false, true},
		PolicyTokens: [][]float64{{-1}, {-1, -2}, {-3}}, ReferenceTokens: [][]float64{{-4}, {-5, -6}, {-7}},
		Chosen: []int32{2, 0}, Rejected: []int32{1, 1}, ChosenWinRate: []float64{1, 0.5}, RejectedWinRate: []float64{0, 0.25},
		Target: []float64{0.9, 0.1}, Preference: []float64{1, 0}, Weight: []float64{1, 0.5},
		UnitWeight: []float64{2}, State: []byte{0, 255},
		MismatchedPolicy: []float64{-8, -9, -10}, MismatchedReference: []float64{-11, -12, -13},
	}
}

func TestABatchAndItsLossCrossBitForBit(t *testing.T) {
	result := sdk.LossResult{
		Loss: 1.0 / 3, Gradient: []float64{1e-310, -1, math.Inf(1)}, TokenGradients: [][]float64{{1}, {2, 3}, {4}},
		Metrics: map[string]float64{"rewards/margins": math.Pi}, State: []byte("state"),
	}
	var got sdk.LossBatch
	p, _ := connect(t, LossService(&plug{evaluate: func(b sdk.LossBatch) (sdk.LossResult, error) {
		got = b
		return result, nil
	}}))
	out, err := p.(sdk.Loss).Evaluate(context.Background(), batch())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, batch()) || !math.Signbit(got.Reference[2]) {
		t.Errorf("the plugin gets\n%+v\nwant\n%+v", got, batch())
	}
	if !reflect.DeepEqual(out, result) {
		t.Errorf("the host gets\n%+v\nwant\n%+v", out, result)
	}

	// Columns that are not there stay away, and NaN arrives as NaN.
	small := batch()
	small.Reference, small.PolicyTokens, small.ReferenceTokens, small.UnitWeight, small.State = nil, nil, nil, nil, nil
	small.WinRateSE[1] = math.NaN()
	if _, err := p.(sdk.Loss).Evaluate(context.Background(), small); err != nil {
		t.Fatal(err)
	}
	if got.Reference != nil || got.PolicyTokens != nil || got.ReferenceTokens != nil || got.UnitWeight != nil || got.State != nil || !math.IsNaN(got.WinRateSE[1]) {
		t.Errorf("the plugin gets %+v", got)
	}
}

func TestASampleCrossesWhole(t *testing.T) {
	req := sdk.SampleRequest{K: 2, Seeds: [][]uint64{{0, math.MaxUint64}}, Prompts: []sdk.Prompt{{ID: "p", Messages: []sdk.Message{{Role: "user", Content: "u"}}}}}
	p, lp := &plug{}, -1.5
	answer := sdk.SampleResponse{Completions: [][]sdk.Completion{
		{{Text: "a", Tokens: []int32{5, 2}, LogProb: &lp, Finish: sdk.FinishLength, Source: sdk.FromTeacher, Seed: math.MaxUint64}, {}}, nil,
	}}
	p.sample = func(r sdk.SampleRequest, g sdk.Generator) (sdk.SampleResponse, error) {
		if !reflect.DeepEqual(r, req) || g != nil {
			t.Errorf("the plugin gets %+v and the generator %v", r, g)
		}
		return answer, nil
	}
	client, _ := connect(t, SamplerService(p))
	out, err := client.(sdk.Sampler).Sample(context.Background(), req, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(out, answer) {
		t.Errorf("the host gets\n%+v\nwant\n%+v", out, answer)
	}
}

// unaryOnly is a loss's server as plugins in other languages may have it.
type unaryOnly struct {
	pluginpb.UnimplementedLossServer
	lossServer *lossServer
	calls      int
}

func (s *unaryOnly) Evaluate(ctx context.Context, req *pluginpb.EvaluateRequest) (*pluginpb.EvaluateResponse, error) {
	s.calls++
	return s.lossServer.Evaluate(ctx, req)
}

func TestALossWithoutTheStreamIsCalledWithoutIt(t *testing.T) {
	l := &plug{evaluate: func(b sdk.LossBatch) (sdk.LossResult, error) {
		return sdk.LossResult{Loss: b.Policy[0], Gradient: b.Policy}, nil
	}}
	server := &unaryOnly{lossServer: &lossServer{loss: l}}
	service := LossService(l)
	service.register = func(s *grpc.Server, _ *plugin.GRPCBroker) { pluginpb.RegisterLossServer(s, server) }
	p, _ := connect(t, service)
	for range 3 {
		if out, err := p.(sdk.Loss).Evaluate(context.Background(), batch()); err != nil || out.Loss != -1 {
			t.Fatalf("have %v, %v", out.Loss, err)
		}
	}
	if server.calls != 3 {
		t.Errorf("%d unary calls, want 3", server.calls)
	}
}

// twice answers each request on the stream two times.
type twice struct {
	pluginpb.UnimplementedLossServer
}

func (twice) Evaluations(stream pluginpb.Loss_EvaluationsServer) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		for range 2 {
			if err := stream.Send(&pluginpb.EvaluateResponse{Call: req.GetCall()}); err != nil {
				return err
			}
		}
	}
}

func TestAnAnswerOfAnotherCallIsRefused(t *testing.T) {
	service := LossService(&plug{})
	service.register = func(s *grpc.Server, _ *plugin.GRPCBroker) { pluginpb.RegisterLossServer(s, twice{}) }
	p, _ := connect(t, service)
	for i, want := range []string{"", "field call: 1 answers call 2", ""} { // after the error the stream is a new one
		_, err := p.(sdk.Loss).Evaluate(context.Background(), batch())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want) || sdk.CodeOf(err) != sdk.CodePlugin) {
			t.Errorf("call %d: %v, want %q", i, err, want)
		}
	}
}

func TestAnErrorEndsOneCallOfTheStreamOnly(t *testing.T) {
	calls, entered := 0, make(chan struct{})
	l := &plug{evaluate: func(b sdk.LossBatch) (sdk.LossResult, error) {
		switch calls++; calls {
		case 2:
			return sdk.LossResult{}, sdk.Errorf(sdk.CodeNumeric, "no good")
		case 3:
			close(entered)
			select {} // as a plugin that does not look at its context
		}
		return sdk.LossResult{Loss: float64(calls)}, nil
	}}
	client, _ := connect(t, LossService(l))
	p := client.(sdk.Loss)
	if out, err := p.Evaluate(context.Background(), batch()); err != nil || out.Loss != 1 {
		t.Fatalf("have %v, %v", out.Loss, err)
	}
	if _, err := p.Evaluate(context.Background(), batch()); sdk.CodeOf(err) != sdk.CodeNumeric || !strings.Contains(err.Error(), "no good") {
		t.Errorf("have %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := p.Evaluate(ctx, batch()); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call returns %v", err)
	}
	if _, err := p.Evaluate(ctx, batch()); !errors.Is(err, context.Canceled) {
		t.Errorf("a call with a cancelled context returns %v", err)
	}
	if out, err := p.Evaluate(context.Background(), batch()); err != nil || out.Loss != 4 {
		t.Errorf("after that it answers %v, %v", out.Loss, err)
	}
}

func TestTextThatIsNotUTF8BecomesUTF8(t *testing.T) {
	p, _ := connect(t, OracleService(&plug{judge: func(_ context.Context, b []sdk.Comparison) ([]sdk.Verdicts, error) {
		return []sdk.Verdicts{{Pairs: []sdk.Verdict{{Abstain: b[0].Candidates[0] + "\xff"}}}}, nil
	}}))
	out, err := p.(sdk.Oracle).Judge(context.Background(), []sdk.Comparison{{Candidates: []string{"\xfe"}}})
	if err != nil || out[0].Pairs[0].Abstain != "\uFFFD\uFFFD" {
		t.Errorf("have %+v, %v", out, err)
	}
}

func TestErrorsCross(t *testing.T) {
	coded := sdk.Errorf(sdk.CodeBudget, "the money is spent").WithHint("raise budget")
	for name, c := range map[string]struct {
		err  error
		code sdk.Code
		hint string
		text string
	}{
		"with code and hint":         {coded, sdk.CodeBudget, "raise budget", "the money is spent"},
		"wrapped, with all words":    {fmt.Errorf("judge 3: %w", coded), sdk.CodeBudget, "raise budget", "judge 3: the money is spent"},
		"plain":                      {errors.New("oops \xff"), sdk.CodeInternal, "", "oops \uFFFD"},
		"a deadline of the plugin's": {fmt.Errorf("ask the model: %w", context.DeadlineExceeded), sdk.CodeInternal, "", "ask the model: context deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := connect(t, OracleService(&plug{judge: func(context.Context, []sdk.Comparison) ([]sdk.Verdicts, error) { return nil, c.err }}))
			_, err := p.(sdk.Oracle).Judge(context.Background(), nil)
			if err == nil || err.Error() != c.text || sdk.CodeOf(err) != c.code {
				t.Fatalf("have %v with code %d", err, sdk.CodeOf(err))
			}
			var e *sdk.Error
			if errors.As(err, &e) && e.Hint != c.hint {
				t.Errorf("hint %q", e.Hint)
			}
			// Only this side's own context may look like a cancelled or late call.
			if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrGone) {
				t.Errorf("%v is taken for an error of the transport", err)
			}
		})
	}
}

func TestFailuresOfTheTransport(t *testing.T) {
	entered := make(chan struct{})
	p, stop := connect(t, OracleService(&plug{judge: func(ctx context.Context, b []sdk.Comparison) ([]sdk.Verdicts, error) {
		if len(b) == 0 {
			entered <- struct{}{}
			<-ctx.Done()
		}
		return nil, ctx.Err()
	}}))
	o := p.(sdk.Oracle)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-entered
		cancel()
	}()
	if _, err := o.Judge(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled call returns %v", err)
	}
	big := []sdk.Comparison{{Candidates: []string{strings.Repeat("x", 20<<20)}}}
	if _, err := o.Judge(context.Background(), big); err != nil {
		t.Errorf("20 MiB do not pass: %v", err)
	}
	big[0].Candidates[0] = strings.Repeat("x", MaxMessage+1)
	_, err := o.Judge(context.Background(), big)
	var e *sdk.Error
	if !errors.As(err, &e) || e.Code != sdk.CodePlugin || !strings.Contains(e.Hint, "64 MiB") {
		t.Errorf("a message over the limit gives %v", err)
	}
	go func() {
		<-entered
		stop()
	}()
	if _, err := o.Judge(context.Background(), nil); !errors.Is(err, ErrGone) {
		t.Errorf("a call during which the plugin dies returns %v", err)
	}
	if _, err := o.Judge(context.Background(), nil); !errors.Is(err, ErrGone) {
		t.Errorf("a call to a dead plugin returns %v", err)
	}
}

func TestMalformedMessagesNameTheField(t *testing.T) {
	for want, change := range map[string]func(*pluginpb.EvaluateRequest){
		"field policy: 25 bytes are no whole number of float64":         func(p *pluginpb.EvaluateRequest) { p.Policy = append(p.Policy, 0) },
		"field tokens: 13 bytes are no whole number of int32":           func(p *pluginpb.EvaluateRequest) { p.Tokens = append(p.Tokens, 0) },
		"field teacher: byte 1 is 2":                                    func(p *pluginpb.EvaluateRequest) { p.Teacher[1] = 2 },
		"field reference has 2 values: want 3":                          func(p *pluginpb.EvaluateRequest) { p.Reference = p.Reference[:16] },
		"field weight has 1 values: want 2":                             func(p *pluginpb.EvaluateRequest) { p.Weight = p.Weight[:8] },
		"field win_rate has 0 values: want 3":                           func(p *pluginpb.EvaluateRequest) { p.WinRate = nil },
		"field policy_tokens: 7 bytes":                                  func(p *pluginpb.EvaluateRequest) { p.PolicyTokens[1] = make([]byte, 7) },
		"pair 1 is of the completions -1 and 1: have 3":                 func(p *pluginpb.EvaluateRequest) { p.Chosen = new(memory).ints([]int32{0, -1}) },
		"field chosen, rejected: pair 0 is of the completions 2 and 3:": func(p *pluginpb.EvaluateRequest) { p.Rejected = new(memory).ints([]int32{3, 1}) },
	} {
		p := putBatch(batch())
		change(p)
		if _, err := getBatch(p); sdk.CodeOf(err) != sdk.CodePlugin || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, have %v", want, err)
		}
	}
	if _, err := getObject("settings_json", []byte(`[1]`)); err == nil || !strings.Contains(err.Error(), "settings_json") {
		t.Errorf("settings that are a list: %v", err)
	}
	if _, err := getResult(&pluginpb.EvaluateResponse{Gradient: make([]byte, 9)}); err == nil || !strings.Contains(err.Error(), "gradient") {
		t.Errorf("a gradient of 9 bytes: %v", err)
	}
}

func TestAnUnknownKindIsRefused(t *testing.T) {
	lis := bufconn.Listen(1 << 16)
	server := NewServer(nil)
	registerPlugin(server, Service{plugin: &plug{}, kind: "engine"})
	go func() { _ = server.Serve(lis) }()
	defer server.Stop()
	conn, err := grpc.NewClient("passthrough:memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := (&Conn{conn: conn}).Plugin(context.Background()); err == nil || !strings.Contains(err.Error(), `"engine"`) {
		t.Errorf("have %v", err)
	}
}

// FuzzEvaluateRequest: whatever decodes may be indexed as the contract says.
func FuzzEvaluateRequest(f *testing.F) {
	seed, err := proto.Marshal(putBatch(batch()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		var p pluginpb.EvaluateRequest
		if proto.Unmarshal(data, &p) != nil {
			return
		}
		b, err := getBatch(&p)
		if err != nil {
			return
		}
		sdk.SumPairs(b, func(sdk.PairTerm) (float64, float64, float64) { return 0, 0, 0 })
		again, err := getBatch(putBatch(b))
		if err != nil || len(again.Policy) != len(b.Policy) || !bytes.Equal(putFloats(again.Weight), putFloats(b.Weight)) {
			t.Fatalf("%+v becomes %+v, %v", b, again, err)
		}
	})
}

// FuzzEvaluateResponse: no answer of a plugin makes the host panic.
func FuzzEvaluateResponse(f *testing.F) {
	seed, err := proto.Marshal(&pluginpb.EvaluateResponse{Loss: 1, Gradient: putFloats([]float64{1, 2}), TokenGradients: putRows([][]float64{{1}, nil})})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var p pluginpb.EvaluateResponse
		if proto.Unmarshal(data, &p) != nil {
			return
		}
		if out, err := getResult(&p); err == nil && 8*len(out.Gradient) != len(p.GetGradient()) {
			t.Fatalf("%d bytes became %d numbers", len(p.GetGradient()), len(out.Gradient))
		}
	})
}

// FuzzManifest: no manifest makes the host panic, and what it reads is what it would write.
func FuzzManifest(f *testing.F) {
	m, err := putManifest(sdk.Manifest{Kind: sdk.KindLoss, Name: "x", Settings: []sdk.Setting{{Name: "n", Type: sdk.TypeNumber, Default: 1.0}}})
	if err != nil {
		f.Fatal(err)
	}
	seed, err := proto.Marshal(m)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var p pluginpb.ManifestResponse
		if proto.Unmarshal(data, &p) != nil {
			return
		}
		m, err := getManifest(&p)
		if err != nil {
			return
		}
		_, err = m.Resolve(nil) // a faulty default is the plugin's fault, a missing setting the user's
		if code := sdk.CodeOf(err); err != nil && code != sdk.CodeUsage && code != sdk.CodePlugin {
			t.Fatal(err)
		}
		if _, err := putManifest(m); err != nil {
			t.Fatal(err)
		}
	})
}
