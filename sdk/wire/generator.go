package wire

import (
	"context"
	"sync"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/pluginpb"
)

// Server half: in the host.

type generatorServer struct {
	pluginpb.UnimplementedGeneratorServer
	generator sdk.Generator
}

// serveGenerator serves a generator on the broker for one call of Sample, until stop is called.
func serveGenerator(broker *plugin.GRPCBroker, g sdk.Generator) (id uint32, stop func()) {
	var mu sync.Mutex
	var server *grpc.Server
	stopped := false
	id = broker.NextId()
	go broker.AcceptAndServe(id, func(options []grpc.ServerOption) *grpc.Server {
		s := NewServer(options)
		pluginpb.RegisterGeneratorServer(s, &generatorServer{generator: g})
		mu.Lock()
		defer mu.Unlock()
		if server = s; stopped {
			s.Stop()
		}
		return s
	})
	return id, func() {
		mu.Lock()
		defer mu.Unlock()
		if stopped = true; server != nil {
			server.Stop()
		}
	}
}

func (s *generatorServer) Generate(ctx context.Context, req *pluginpb.GenerateRequest) (*pluginpb.GenerateResponse, error) {
	o := req.GetOptions()
	in := sdk.GenerateRequest{Seeds: getSeeds(req.GetSeeds()), Options: sdk.GenerateOptions{
		Temperature: o.GetTemperature(), TopK: int(o.GetTopK()), TopP: o.GetTopP(), MinP: o.GetMinP(),
		RepetitionPenalty: o.GetRepetitionPenalty(), MaxTokens: int(o.GetMaxTokens()), Stop: o.GetStop(),
	}}
	for _, p := range req.GetPrompts() {
		in.Prompts = append(in.Prompts, getMessages(p.GetValues()))
	}
	if len(in.Prompts) != len(in.Seeds) {
		return nil, toStatus(malformed("seeds", "%d rows for %d prompts", len(in.Seeds), len(in.Prompts)))
	}
	out, err := s.generator.Generate(ctx, in)
	if err != nil {
		return nil, toStatus(err)
	}
	return &pluginpb.GenerateResponse{Completions: putCompletions(out.Completions)}, nil
}

// Client half: in the plugin.

type generatorClient struct{ rpc pluginpb.GeneratorClient }

func dialGenerator(broker *plugin.GRPCBroker, id uint32) (g sdk.Generator, hangUp func(), err error) {
	conn, err := broker.DialWithOptions(id, DialOptions()...)
	if err != nil {
		return nil, nil, sdk.Errorf(sdk.CodePlugin, "reach the host's generator: %w", err)
	}
	return &generatorClient{rpc: pluginpb.NewGeneratorClient(conn)}, func() { _ = conn.Close() }, nil
}

func (c *generatorClient) Generate(ctx context.Context, in sdk.GenerateRequest) (sdk.GenerateResponse, error) {
	req := &pluginpb.GenerateRequest{Seeds: putSeeds(in.Seeds), Options: &pluginpb.GenerateOptions{
		Temperature: in.Options.Temperature, TopK: int32(in.Options.TopK), TopP: in.Options.TopP, MinP: in.Options.MinP,
		RepetitionPenalty: in.Options.RepetitionPenalty, MaxTokens: int32(in.Options.MaxTokens), Stop: cleanAll(in.Options.Stop),
	}}
	for _, m := range in.Prompts {
		req.Prompts = append(req.Prompts, &pluginpb.Messages{Values: putMessages(m)})
	}
	res, err := c.rpc.Generate(ctx, req)
	if err != nil {
		return sdk.GenerateResponse{}, fromStatus(err)
	}
	return sdk.GenerateResponse{Completions: getCompletions(res.GetCompletions())}, nil
}

var _ sdk.Generator = (*generatorClient)(nil)
