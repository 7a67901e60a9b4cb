// Package wire is each plugin interface over gRPC, both halves of an interface in one file: the
// server half wraps the plugin's own value, the client half implements the same interface for the host.
package wire

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/dno-project/dno/sdk"
)

// Version is the protocol's version, negotiated at the handshake. Adding a field does not change it.
const Version = 1

// MaxMessage is the greatest size of one message in bytes, in both directions.
const MaxMessage = 64 << 20

// Handshake returns the cookie that tells a plugin that dno started it. It is no secret: it only lets a plugin
// that somebody runs by hand say what it is.
func Handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{
		ProtocolVersion:  Version,
		MagicCookieKey:   "DNO_PLUGIN_COOKIE",
		MagicCookieValue: "5f0c6ba1-direct-nash-optimization",
	}
}

// Service is one plugin's server half: see [OracleService], [LossService] and [SamplerService].
type Service struct {
	plugin   sdk.Plugin
	kind     sdk.Kind
	register func(*grpc.Server, *plugin.GRPCBroker)
}

// Manifest returns the plugin's manifest with its kind filled in.
func (s Service) Manifest() sdk.Manifest {
	m := s.plugin.Manifest()
	m.Kind = s.kind
	return m
}

// Sets returns what a plugin's process serves, by protocol version.
func (s Service) Sets() map[int]plugin.PluginSet {
	return map[int]plugin.PluginSet{Version: {endpointName: &endpoint{service: s}}}
}

// HostSets returns what the host can talk to, by protocol version.
func HostSets() map[int]plugin.PluginSet { return Service{}.Sets() }

// NewServer returns a gRPC server with the message limits, and with what else is given.
func NewServer(options []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(options, grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window))...)
}

// DialOptions are the message limits of a client.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
		grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window),
	}
}

// window is how many bytes are sent before the other side has read them. A window of fixed size also
// keeps gRPC from measuring the line with a ping for each message, which takes as long as a small call.
const window = 4 << 20

// Conn is the host's end of a running plugin, before it is known of which kind the plugin is.
type Conn struct {
	conn   grpc.ClientConnInterface
	broker *plugin.GRPCBroker
}

// Dispense returns the connection of a started go-plugin client.
func Dispense(client plugin.ClientProtocol) (*Conn, error) {
	raw, err := client.Dispense(endpointName)
	if err != nil {
		return nil, err
	}
	conn, ok := raw.(*Conn)
	if !ok {
		return nil, fmt.Errorf("want a connection made of HostSets, have %T", raw)
	}
	return conn, nil
}

// Plugin asks for the manifest and returns the client half of the kind that it names: an
// [sdk.Oracle], [sdk.Loss] or [sdk.Sampler].
//
// An error of the plugin's own comes back with its [sdk.Code] and hint. A call whose process or
// connection is gone returns [ErrGone]. A result that cannot be decoded is an error with [sdk.CodePlugin].
func (c *Conn) Plugin(ctx context.Context) (sdk.Plugin, error) {
	base, err := c.base(ctx)
	if err != nil {
		return nil, err
	}
	switch base.manifest.Kind {
	case sdk.KindOracle:
		return newOracleClient(base, c.conn), nil
	case sdk.KindLoss:
		return newLossClient(base, c.conn), nil
	case sdk.KindSampler:
		return newSamplerClient(base, c.conn, c.broker), nil
	}
	return nil, sdk.Errorf(sdk.CodePlugin, "the plugin says that it is a %q: want oracle, loss or sampler", base.manifest.Kind)
}

// ErrGone says that the plugin's process or connection is gone. The host starts a new process and
// sends the same call again.
var ErrGone = errors.New("connection to the plugin is gone")

// endpointName is the one name that a plugin's process dispenses; its kind is in its manifest.
const endpointName = "dno"

// endpoint is go-plugin's view of both sides; on the host's side the service is empty.
type endpoint struct {
	plugin.NetRPCUnsupportedPlugin
	service Service
}

func (e *endpoint) GRPCServer(broker *plugin.GRPCBroker, s *grpc.Server) error {
	registerPlugin(s, e.service)
	e.service.register(s, broker)
	return nil
}

func (e *endpoint) GRPCClient(_ context.Context, broker *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return &Conn{conn: conn, broker: broker}, nil
}

var _ plugin.GRPCPlugin = (*endpoint)(nil)
