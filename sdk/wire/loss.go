package wire

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

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
		Metrics: cleanKeys(out.Metrics), State: out.State,
	}, nil
}

// Client half.

type lossClient struct {
	pluginClient
	loss pluginpb.LossClient
}

func newLossClient(base pluginClient, conn grpc.ClientConnInterface) sdk.Loss {
	return &lossClient{pluginClient: base, loss: pluginpb.NewLossClient(conn)}
}

func (c *lossClient) Evaluate(ctx context.Context, batch sdk.LossBatch) (sdk.LossResult, error) {
	res, err := c.loss.Evaluate(ctx, putBatch(batch))
	if err != nil {
		return sdk.LossResult{}, fromStatus(err)
	}
	return getResult(res)
}

// Conversions.

func putBatch(b sdk.LossBatch) *pluginpb.EvaluateRequest {
	return &pluginpb.EvaluateRequest{
		Group: putInts(b.Group), Policy: putFloats(b.Policy), Reference: putFloats(b.Reference),
		Tokens: putInts(b.Tokens), WinRate: putFloats(b.WinRate), WinRateSe: putFloats(b.WinRateSE),
		Teacher: putBools(b.Teacher), PolicyTokens: putRows(b.PolicyTokens), ReferenceTokens: putRows(b.ReferenceTokens),
		Chosen: putInts(b.Chosen), Rejected: putInts(b.Rejected),
		ChosenWinRate: putFloats(b.ChosenWinRate), RejectedWinRate: putFloats(b.RejectedWinRate),
		Target: putFloats(b.Target), Preference: putFloats(b.Preference), Weight: putFloats(b.Weight),
		UnitWeight: putFloats(b.UnitWeight), State: b.State,
		MismatchedPolicy: putFloats(b.MismatchedPolicy), MismatchedReference: putFloats(b.MismatchedReference),
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
