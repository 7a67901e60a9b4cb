package wire

import (
	"context"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/pluginpb"
)

// Server half.

// SamplerService serves a sampler.
func SamplerService(x sdk.Sampler) Service {
	return Service{plugin: x, kind: sdk.KindSampler, register: func(s *grpc.Server, broker *plugin.GRPCBroker) {
		pluginpb.RegisterSamplerServer(s, &samplerServer{sampler: x, broker: broker})
	}}
}

type samplerServer struct {
	pluginpb.UnimplementedSamplerServer
	sampler sdk.Sampler
	broker  *plugin.GRPCBroker
}

func (s *samplerServer) Sample(ctx context.Context, req *pluginpb.SampleRequest) (*pluginpb.SampleResponse, error) {
	in := sdk.SampleRequest{K: int(req.GetK()), Seeds: getSeeds(req.GetSeeds())}
	for _, p := range req.GetPrompts() {
		prompt, err := getPrompt(p)
		if err != nil {
			return nil, toStatus(err)
		}
		in.Prompts = append(in.Prompts, prompt)
	}
	var generator sdk.Generator
	if id := req.GetGenerator(); id != 0 {
		g, hangUp, err := dialGenerator(s.broker, id)
		if err != nil {
			return nil, toStatus(err)
		}
		defer hangUp()
		generator = g
	}
	out, err := s.sampler.Sample(ctx, in, generator)
	if err != nil {
		return nil, toStatus(err)
	}
	return &pluginpb.SampleResponse{Completions: putCompletions(out.Completions)}, nil
}

// Client half.

type samplerClient struct {
	pluginClient
	sampler pluginpb.SamplerClient
	broker  *plugin.GRPCBroker
}

func newSamplerClient(base pluginClient, conn grpc.ClientConnInterface, broker *plugin.GRPCBroker) sdk.Sampler {
	return &samplerClient{pluginClient: base, sampler: pluginpb.NewSamplerClient(conn), broker: broker}
}

func (c *samplerClient) Sample(ctx context.Context, in sdk.SampleRequest, generator sdk.Generator) (sdk.SampleResponse, error) {
	req := &pluginpb.SampleRequest{K: int32(in.K), Seeds: putSeeds(in.Seeds)}
	for _, p := range in.Prompts {
		prompt, err := putPrompt(p)
		if err != nil {
			return sdk.SampleResponse{}, err
		}
		req.Prompts = append(req.Prompts, prompt)
	}
	if c.manifest.Sampler.UsesGenerator && generator != nil {
		id, stop := serveGenerator(c.broker, generator)
		defer stop()
		req.Generator = id
	}
	res, err := c.sampler.Sample(ctx, req)
	if err != nil {
		return sdk.SampleResponse{}, fromStatus(err)
	}
	return sdk.SampleResponse{Completions: getCompletions(res.GetCompletions())}, nil
}

// Conversions.

func putSeeds(x [][]uint64) []*pluginpb.Seeds {
	out := make([]*pluginpb.Seeds, len(x))
	for i, row := range x {
		out[i] = &pluginpb.Seeds{Values: row}
	}
	return out
}

func getSeeds(x []*pluginpb.Seeds) [][]uint64 {
	out := make([][]uint64, len(x))
	for i, row := range x {
		out[i] = row.GetValues()
	}
	return out
}

func putCompletions(x [][]sdk.Completion) []*pluginpb.Completions {
	out := make([]*pluginpb.Completions, len(x))
	for i, row := range x {
		p := &pluginpb.Completions{Values: make([]*pluginpb.Completion, len(row))}
		for k, c := range row {
			p.Values[k] = &pluginpb.Completion{
				Text: clean(c.Text), Tokens: c.Tokens, LogProb: c.LogProb,
				Finish: clean(string(c.Finish)), Source: clean(string(c.Source)), Seed: c.Seed,
			}
		}
		out[i] = p
	}
	return out
}

func getCompletions(x []*pluginpb.Completions) [][]sdk.Completion {
	out := make([][]sdk.Completion, len(x))
	for i, row := range x {
		for _, p := range row.GetValues() {
			out[i] = append(out[i], sdk.Completion{
				Text: p.GetText(), Tokens: p.GetTokens(), LogProb: p.LogProb,
				Finish: sdk.Finish(p.GetFinish()), Source: sdk.Source(p.GetSource()), Seed: p.GetSeed(),
			})
		}
	}
	return out
}

var _ sdk.Sampler = (*samplerClient)(nil)
