package wire

import (
	"context"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/pluginpb"
)

// Server half.

// OracleService serves an oracle.
func OracleService(o sdk.Oracle) Service {
	return Service{plugin: o, kind: sdk.KindOracle, register: func(s *grpc.Server, _ *plugin.GRPCBroker) {
		pluginpb.RegisterOracleServer(s, &oracleServer{oracle: o})
	}}
}

type oracleServer struct {
	pluginpb.UnimplementedOracleServer
	oracle sdk.Oracle
}

func (s *oracleServer) Judge(ctx context.Context, req *pluginpb.JudgeRequest) (*pluginpb.JudgeResponse, error) {
	batch := make([]sdk.Comparison, len(req.GetComparisons()))
	for i, c := range req.GetComparisons() {
		prompt, err := getPrompt(c.GetPrompt())
		if err != nil {
			return nil, toStatus(err)
		}
		batch[i] = sdk.Comparison{ID: c.GetId(), Prompt: prompt, Candidates: c.GetCandidates()}
		for _, p := range c.GetPairs() {
			batch[i].Pairs = append(batch[i].Pairs, sdk.Ordered{A: int(p.GetA()), B: int(p.GetB())})
		}
	}
	verdicts, err := s.oracle.Judge(ctx, batch)
	if err != nil {
		return nil, toStatus(err)
	}
	out := &pluginpb.JudgeResponse{Verdicts: make([]*pluginpb.Verdicts, len(verdicts))}
	for i, v := range verdicts {
		p := &pluginpb.Verdicts{Id: clean(v.ID), Cost: v.Cost, Tokens: int32(v.Tokens), Model: clean(v.Model)}
		for _, x := range v.Pairs {
			p.Pairs = append(p.Pairs, &pluginpb.Verdict{P: x.P, Abstain: clean(x.Abstain), Reason: clean(x.Reason)})
		}
		for _, x := range v.Assessed {
			p.Assessed = append(p.Assessed, &pluginpb.Assessment{Score: x.Score, Labels: cleanKeys(x.Labels), Abstain: clean(x.Abstain)})
		}
		out.Verdicts[i] = p
	}
	return out, nil
}

// Client half.

type oracleClient struct {
	pluginClient
	oracle pluginpb.OracleClient
}

func newOracleClient(base pluginClient, conn grpc.ClientConnInterface) sdk.Oracle {
	return &oracleClient{pluginClient: base, oracle: pluginpb.NewOracleClient(conn)}
}

func (c *oracleClient) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	req := &pluginpb.JudgeRequest{Comparisons: make([]*pluginpb.Comparison, len(batch))}
	for i, x := range batch {
		prompt, err := putPrompt(x.Prompt)
		if err != nil {
			return nil, err
		}
		p := &pluginpb.Comparison{Id: clean(x.ID), Prompt: prompt, Candidates: cleanAll(x.Candidates)}
		for _, o := range x.Pairs {
			p.Pairs = append(p.Pairs, &pluginpb.Ordered{A: int32(o.A), B: int32(o.B)})
		}
		req.Comparisons[i] = p
	}
	res, err := c.oracle.Judge(ctx, req)
	if err != nil {
		return nil, fromStatus(err)
	}
	out := make([]sdk.Verdicts, len(res.GetVerdicts()))
	for i, v := range res.GetVerdicts() {
		x := sdk.Verdicts{ID: v.GetId(), Cost: v.GetCost(), Tokens: int(v.GetTokens()), Model: v.GetModel()}
		for _, p := range v.GetPairs() {
			x.Pairs = append(x.Pairs, sdk.Verdict{P: p.GetP(), Abstain: p.GetAbstain(), Reason: p.GetReason()})
		}
		for _, a := range v.GetAssessed() {
			x.Assessed = append(x.Assessed, sdk.Assessment{Score: a.Score, Labels: a.GetLabels(), Abstain: a.GetAbstain()})
		}
		out[i] = x
	}
	return out, nil
}

func cleanKeys(x map[string]float64) map[string]float64 {
	if len(x) == 0 {
		return nil
	}
	out := make(map[string]float64, len(x))
	for k, v := range x {
		out[clean(k)] = v
	}
	return out
}

var _ sdk.Oracle = (*oracleClient)(nil)
