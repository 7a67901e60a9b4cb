package wire

import (
	"context"
	"encoding/json"

	"google.golang.org/grpc"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/pluginpb"
)

// Server half.

type pluginServer struct {
	pluginpb.UnimplementedPluginServer
	service Service
}

func registerPlugin(s *grpc.Server, service Service) {
	pluginpb.RegisterPluginServer(s, &pluginServer{service: service})
}

func (s *pluginServer) Manifest(context.Context, *pluginpb.ManifestRequest) (*pluginpb.ManifestResponse, error) {
	out, err := putManifest(s.service.Manifest())
	return out, toStatus(err)
}

func (s *pluginServer) Configure(ctx context.Context, req *pluginpb.ConfigureRequest) (*pluginpb.ConfigureResponse, error) {
	settings, err := getObject("settings_json", req.GetSettingsJson())
	if err == nil {
		err = s.service.plugin.Configure(ctx, settings)
	}
	if err != nil {
		return nil, toStatus(err)
	}
	return &pluginpb.ConfigureResponse{}, nil
}

// Client half: what the clients of all three kinds have in common.

type pluginClient struct {
	rpc      pluginpb.PluginClient
	manifest sdk.Manifest
}

func (c *Conn) base(ctx context.Context) (pluginClient, error) {
	rpc := pluginpb.NewPluginClient(c.conn)
	m, err := rpc.Manifest(ctx, &pluginpb.ManifestRequest{})
	if err != nil {
		return pluginClient{}, fromStatus(err)
	}
	manifest, err := getManifest(m)
	return pluginClient{rpc: rpc, manifest: manifest}, err
}

func (c pluginClient) Manifest() sdk.Manifest { return c.manifest }

func (c pluginClient) Configure(ctx context.Context, settings sdk.Settings) error {
	b, err := putObject(settings)
	if err != nil {
		return err
	}
	_, err = c.rpc.Configure(ctx, &pluginpb.ConfigureRequest{SettingsJson: b})
	return fromStatus(err)
}

// Conversions.

func putManifest(m sdk.Manifest) (*pluginpb.ManifestResponse, error) {
	out := &pluginpb.ManifestResponse{
		Kind: string(m.Kind), Name: clean(m.Name), Version: clean(m.Version), Help: clean(m.Help),
	}
	switch m.Kind {
	case sdk.KindOracle:
		out.Oracle = &pluginpb.OracleTraits{
			Form: string(m.Oracle.Form), OrderMatters: m.Oracle.OrderMatters, Concurrency: int32(m.Oracle.Concurrency),
		}
	case sdk.KindLoss:
		out.Loss = &pluginpb.LossTraits{
			Unit: string(m.Loss.Unit), TokenLevel: m.Loss.TokenLevel,
			NoReference: m.Loss.NoReference, Mismatched: m.Loss.Mismatched, SoftTarget: m.Loss.SoftTarget, Surrogate: m.Loss.Surrogate,
		}
	case sdk.KindSampler:
		out.Sampler = &pluginpb.SamplerTraits{UsesGenerator: m.Sampler.UsesGenerator}
	}
	for _, s := range m.Settings {
		p := &pluginpb.Setting{
			Name: clean(s.Name), Type: string(s.Type), Help: clean(s.Help),
			Min: s.Min, Max: s.Max, Required: s.Required,
		}
		p.OneOf = cleanAll(s.OneOf)
		if s.Default != nil {
			b, err := json.Marshal(s.Default)
			if err != nil {
				return nil, sdk.Errorf(sdk.CodePlugin, "manifest of %q: default of the setting %q: %w", m.Name, s.Name, err)
			}
			p.DefaultJson = b
		}
		out.Settings = append(out.Settings, p)
	}
	return out, nil
}

func getManifest(p *pluginpb.ManifestResponse) (sdk.Manifest, error) {
	m := sdk.Manifest{
		Kind: sdk.Kind(p.GetKind()), Name: p.GetName(), Version: p.GetVersion(), Help: p.GetHelp(),
		Oracle: sdk.OracleTraits{
			Form:         sdk.OracleForm(p.GetOracle().GetForm()),
			OrderMatters: p.GetOracle().GetOrderMatters(),
			Concurrency:  int(p.GetOracle().GetConcurrency()),
		},
		Loss: sdk.LossTraits{
			Unit:        sdk.Unit(p.GetLoss().GetUnit()),
			TokenLevel:  p.GetLoss().GetTokenLevel(),
			NoReference: p.GetLoss().GetNoReference(),
			Mismatched:  p.GetLoss().GetMismatched(),
			SoftTarget:  p.GetLoss().GetSoftTarget(),
			Surrogate:   p.GetLoss().GetSurrogate(),
		},
		Sampler: sdk.SamplerTraits{UsesGenerator: p.GetSampler().GetUsesGenerator()},
	}
	for _, s := range p.GetSettings() {
		out := sdk.Setting{
			Name: s.GetName(), Type: sdk.SettingType(s.GetType()), Help: s.GetHelp(),
			Min: s.Min, Max: s.Max, OneOf: s.GetOneOf(), Required: s.GetRequired(),
		}
		if b := s.GetDefaultJson(); len(b) > 0 {
			if err := json.Unmarshal(b, &out.Default); err != nil {
				return m, malformed("default_json", "default of the setting %q: %w", s.GetName(), err)
			}
		}
		m.Settings = append(m.Settings, out)
	}
	return m, nil
}

// putObject encodes settings or metadata; nil stays nil.
func putObject(x map[string]any) ([]byte, error) {
	if x == nil {
		return nil, nil
	}
	b, err := json.Marshal(x)
	if err != nil {
		return nil, sdk.Errorf(sdk.CodeUsage, "encode %v as JSON: %w", x, err)
	}
	return b, nil
}

func getObject(field string, b []byte) (map[string]any, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var x map[string]any
	if err := json.Unmarshal(b, &x); err != nil {
		return nil, malformed(field, "decode JSON object: %w", err)
	}
	return x, nil
}

func putPrompt(p sdk.Prompt) (*pluginpb.Prompt, error) {
	meta, err := putObject(p.Metadata)
	if err != nil {
		return nil, err
	}
	return &pluginpb.Prompt{
		Id: clean(p.ID), Messages: putMessages(p.Messages), Answer: clean(p.Answer), MetadataJson: meta,
	}, nil
}

func getPrompt(p *pluginpb.Prompt) (sdk.Prompt, error) {
	meta, err := getObject("metadata_json", p.GetMetadataJson())
	if err != nil {
		return sdk.Prompt{}, err
	}
	return sdk.Prompt{
		ID: p.GetId(), Messages: getMessages(p.GetMessages()), Answer: p.GetAnswer(), Metadata: meta,
	}, nil
}

func putMessages(x []sdk.Message) []*pluginpb.Message {
	out := make([]*pluginpb.Message, len(x))
	for i, m := range x {
		out[i] = &pluginpb.Message{Role: clean(m.Role), Content: clean(m.Content)}
	}
	return out
}

func getMessages(x []*pluginpb.Message) []sdk.Message {
	out := make([]sdk.Message, len(x))
	for i, m := range x {
		out[i] = sdk.Message{Role: m.GetRole(), Content: m.GetContent()}
	}
	return out
}

func cleanAll(x []string) []string {
	out := make([]string, len(x))
	for i, s := range x {
		out[i] = clean(s)
	}
	return out
}
