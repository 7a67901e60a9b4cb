package wire

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/pluginpb"
)

// Server half.

// LossService serves a loss.
func LossService(l sdk.Loss) Service {
	return Service{plugin: l, kind: sdk.KindLoss, register: func(s *grpc.Server, _ *plugin.GRPCBroker) {
		pluginpb.RegisterLossServer(s, &lossServer{loss: l})
	}}
}

type lossServer struct {
	pluginpb.UnimplementedLossServer
	loss sdk.Loss
}

func (s *lossServer) Evaluate(ctx context.Context, req *pluginpb.EvaluateRequest) (*pluginpb.EvaluateResponse, error) {
	batch, err := getBatch(req)
	if err != nil {
		return nil, toStatus(err)
	}
	out, err := s.loss.Evaluate(ctx, batch)
	if err != nil {
		return nil, toStatus(err)
	}
	return &pluginpb.EvaluateResponse{
		Loss: out.Loss, Gradient: putFloats(out.Gradient), TokenGradients: putRows(out.TokenGradients),
		Metrics: cleanKeys(out.Metrics), State: out.State, Call: req.GetCall(),
	}, nil
}

func (s *lossServer) Evaluations(stream pluginpb.Loss_EvaluationsServer) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		res, err := s.Evaluate(stream.Context(), req)
		if err != nil {
			return err
		}
		if err := stream.Send(res); err != nil {
			return err
		}
	}
}

// Client half.

// lossClient keeps a stream open for its calls, which never overlap.
type lossClient struct {
	pluginClient
	loss   pluginpb.LossClient
	stream pluginpb.Loss_EvaluationsClient // nil where none is open
	calls  uint32                          // on all streams so far
	end    context.CancelFunc              // ends the stream
	unary  bool                            // the plugin does not serve the stream
}

func newLossClient(base pluginClient, conn grpc.ClientConnInterface) sdk.Loss {
	return &lossClient{pluginClient: base, loss: pluginpb.NewLossClient(conn)}
}

func (c *lossClient) Evaluate(ctx context.Context, batch sdk.LossBatch) (sdk.LossResult, error) {
	req := putBatch(batch)
	if !c.unary {
		res, err := c.evaluation(ctx, req)
		if status.Code(err) != codes.Unimplemented {
			if err != nil {
				return sdk.LossResult{}, fromStatus(err)
			}
			return getResult(res)
		}
		c.unary, req.Call = true, 0
	}
	res, err := c.loss.Evaluate(ctx, req)
	if err != nil {
		return sdk.LossResult{}, fromStatus(err)
	}
	return getResult(res)
}

// evaluation is one call on the stream. An error ends the stream; the next call opens another one.
func (c *lossClient) evaluation(ctx context.Context, req *pluginpb.EvaluateRequest) (_ *pluginpb.EvaluateResponse, err error) {
	if err := ctx.Err(); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	if c.stream == nil {
		streamCtx, end := context.WithCancel(context.Background())
		if c.stream, err = c.loss.Evaluations(streamCtx); err != nil {
			end()
			return nil, err
		}
		c.end = end
	}
	defer context.AfterFunc(ctx, c.end)()
	defer func() {
		if err != nil {
			c.end()
			c.stream = nil
		}
	}()
	c.calls++
	req.Call = c.calls
	if err := c.stream.Send(req); err != nil && !errors.Is(err, io.EOF) { // with EOF the stream's own error is yet to be received
		return nil, err
	}
	res, err := c.stream.Recv()
	if errors.Is(err, io.EOF) {
		err = status.Error(codes.Internal, "the plugin ended its stream of evaluations")
	}
	switch {
	case err != nil && ctx.Err() != nil:
		err = status.FromContextError(ctx.Err()).Err()
	case err == nil && res.GetCall() != req.GetCall(): // or the answers would be one call late from here on
		err = toStatus(malformed("call", "%d answers call %d: each request on the stream is answered once, with its number", res.GetCall(), req.GetCall()))
	}
	return res, err
}

// Conversions.

func putBatch(b sdk.LossBatch) *pluginpb.EvaluateRequest {
	m := memory{free: make([]byte, (4+4+1+6*8)*len(b.Policy)+(4+4+5*8)*len(b.Chosen)+8*len(b.UnitWeight))}
	return &pluginpb.EvaluateRequest{
		Group: m.ints(b.Group), Policy: m.floats(b.Policy), Reference: m.floats(b.Reference),
		Tokens: m.ints(b.Tokens), WinRate: m.floats(b.WinRate), WinRateSe: m.floats(b.WinRateSE),
		Teacher: m.bools(b.Teacher), PolicyTokens: putRows(b.PolicyTokens), ReferenceTokens: putRows(b.ReferenceTokens),
		Chosen: m.ints(b.Chosen), Rejected: m.ints(b.Rejected),
		ChosenWinRate: m.floats(b.ChosenWinRate), RejectedWinRate: m.floats(b.RejectedWinRate),
		Target: m.floats(b.Target), Preference: m.floats(b.Preference), Weight: m.floats(b.Weight),
		UnitWeight: m.floats(b.UnitWeight), State: b.State,
		MismatchedPolicy: m.floats(b.MismatchedPolicy), MismatchedReference: m.floats(b.MismatchedReference),
	}
}

// getBatch decodes a batch and checks that its columns fit together, so that a loss may index them.
func getBatch(p *pluginpb.EvaluateRequest) (sdk.LossBatch, error) {
	var a arrays
	b := sdk.LossBatch{
		Group: a.ints("group", p.GetGroup()), Policy: a.floats("policy", p.GetPolicy()),
		Reference: a.floats("reference", p.GetReference()), Tokens: a.ints("tokens", p.GetTokens()),
		WinRate: a.floats("win_rate", p.GetWinRate()), WinRateSE: a.floats("win_rate_se", p.GetWinRateSe()),
		Teacher:         a.bools("teacher", p.GetTeacher()),
		PolicyTokens:    a.rows("policy_tokens", p.GetPolicyTokens()),
		ReferenceTokens: a.rows("reference_tokens", p.GetReferenceTokens()),
		Chosen:          a.ints("chosen", p.GetChosen()), Rejected: a.ints("rejected", p.GetRejected()),
		ChosenWinRate:   a.floats("chosen_win_rate", p.GetChosenWinRate()),
		RejectedWinRate: a.floats("rejected_win_rate", p.GetRejectedWinRate()),
		Target:          a.floats("target", p.GetTarget()), Preference: a.floats("preference", p.GetPreference()),
		Weight: a.floats("weight", p.GetWeight()), UnitWeight: a.floats("unit_weight", p.GetUnitWeight()),
		State:               p.GetState(),
		MismatchedPolicy:    a.floats("mismatched_policy", p.GetMismatchedPolicy()),
		MismatchedReference: a.floats("mismatched_reference", p.GetMismatchedReference()),
	}
	c := len(b.Policy)
	a.length("group", len(b.Group), c, false)
	a.length("tokens", len(b.Tokens), c, false)
	a.length("win_rate", len(b.WinRate), c, false)
	a.length("win_rate_se", len(b.WinRateSE), c, false)
	a.length("teacher", len(b.Teacher), c, false)
	a.length("reference", len(b.Reference), c, true)
	a.length("policy_tokens", len(b.PolicyTokens), c, true)
	a.length("reference_tokens", len(b.ReferenceTokens), c, true)
	a.length("mismatched_policy", len(b.MismatchedPolicy), c, true)
	a.length("mismatched_reference", len(b.MismatchedReference), c, true)
	pairs := len(b.Chosen)
	a.length("rejected", len(b.Rejected), pairs, false)
	a.length("chosen_win_rate", len(b.ChosenWinRate), pairs, false)
	a.length("rejected_win_rate", len(b.RejectedWinRate), pairs, false)
	a.length("target", len(b.Target), pairs, false)
	a.length("preference", len(b.Preference), pairs, false)
	a.length("weight", len(b.Weight), pairs, false)
	for i, n := range b.Tokens {
		if len(b.PolicyTokens) > i {
			a.length(fmt.Sprintf("policy_tokens[%d]", i), len(b.PolicyTokens[i]), int(n), false)
		}
		if len(b.ReferenceTokens) > i {
			a.length(fmt.Sprintf("reference_tokens[%d]", i), len(b.ReferenceTokens[i]), int(n), false)
		}
	}
	for k := range b.Chosen {
		if a.err == nil && (!within(b.Chosen[k], c) || !within(b.Rejected[k], c)) {
			a.fail(malformed("chosen, rejected", "pair %d is of the completions %d and %d: have %d", k, b.Chosen[k], b.Rejected[k], c))
		}
	}
	return b, a.err
}

func within(i int32, n int) bool { return i >= 0 && int(i) < n }

func getResult(p *pluginpb.EvaluateResponse) (sdk.LossResult, error) {
	var a arrays
	out := sdk.LossResult{
		Loss: p.GetLoss(), Gradient: a.floats("gradient", p.GetGradient()),
		TokenGradients: a.rows("token_gradients", p.GetTokenGradients()),
		Metrics:        p.GetMetrics(), State: p.GetState(),
	}
	return out, a.err
}

var _ sdk.Loss = (*lossClient)(nil)
