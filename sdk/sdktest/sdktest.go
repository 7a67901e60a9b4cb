// Package sdktest is the conformance kit for plugins: sdktest.Loss(t, mine.New) checks a plugin
// against the contract of package sdk, in process and over the wire.
//
// It takes a testing.T or whatever has its methods, so a command can check plugins without tests.
package sdktest

import (
	"context"
	"io"
	"maps"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/wire"
)

// TB is what a check needs of a test. Fatalf and Skipf end the calling goroutine.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	Cleanup(func())
}

// T is a test with subtests of its own type, as *testing.T is.
type T[S any] interface {
	TB
	Run(name string, f func(S)) bool
}

// runner is a T whose subtests are TBs: what the kit itself is written against.
type runner struct {
	TB
	run func(name string, f func(TB))
}

func suite[S T[S]](t S) runner {
	return runner{t, func(name string, f func(TB)) { t.Run(name, func(s S) { f(s) }) }}
}

// subject is the plugin under test: how one is made and served, and its settings.
type subject[P sdk.Plugin] struct {
	runner
	make    func() P
	service func(P) wire.Service
	given   []sdk.Settings
}

// local returns a new plugin, which is closed with the test if it is an io.Closer.
func (s subject[P]) local(t TB) P {
	p := s.make()
	if c, ok := sdk.Plugin(p).(io.Closer); ok {
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	return p
}

// remote returns the host's end of a connection to a new plugin.
func (s subject[P]) remote(t TB) P {
	t.Helper()
	p, ok := overWire(t, s.service(s.local(t))).(P)
	if !ok {
		t.Fatalf("the wire gives another kind of plugin")
	}
	return p
}

// configured resolves and sends settings as the host does.
func (s subject[P]) configured(t TB, p P) P {
	t.Helper()
	settings := sdk.Settings{}
	for _, g := range s.given {
		maps.Copy(settings, g)
	}
	resolved, err := p.Manifest().Resolve(settings)
	if err != nil {
		t.Fatalf("resolve the settings: %v", err)
	}
	if err := p.Configure(context.Background(), resolved); err != nil {
		t.Fatalf("configure: %v", err)
	}
	return p
}

// manifest checks the manifest, on either side of the wire, and returns it.
func (s subject[P]) manifest() sdk.Manifest {
	m := s.make().Manifest()
	s.run("manifest", func(t TB) {
		remote := s.remote(t).Manifest()
		m.Kind = remote.Kind // set by the server
		sameManifest(t, m, remote)
		checkManifest(t, m)
	})
	return m
}

// everywhere runs checks twice: on new plugins in process, and on connections to new ones.
func (s subject[P]) everywhere(checks func(where string, p Served[P])) {
	local := func(t TB) P { return s.configured(t, s.local(t)) }
	remote := func(t TB) P { return s.configured(t, s.remote(t)) }
	checks("in process", Served[P]{Any: local, Fresh: local})
	checks("over the wire", Served[P]{Any: remote, Fresh: remote, detached: true})
}

// Served is where a check gets its plugins from, configured. A plugin that runs in a process of its
// own is slow to start: what any process can answer is asked of one that runs.
type Served[P sdk.Plugin] struct {
	Any   func(TB) P // one that may have answered before
	Fresh func(TB) P // one that has not; those returned before need not work any more

	detached bool // a cancelled call may still run at the other end, where the host would stop the process
}

// next returns what the call after a cancelled one is made of.
func (s Served[P]) next(t TB, cancelled P) P {
	if s.detached {
		return s.Fresh(t)
	}
	return cancelled
}

// manifest checks the manifest that came over the wire.
func (s Served[P]) manifest(r runner) (m sdk.Manifest, ok bool) {
	r.run("manifest", func(t TB) {
		m, ok = s.Any(t).Manifest(), true
		checkManifest(t, m)
	})
	return m, ok
}

// promptly is how soon a call has to return that was cancelled.
const promptly = 10 * time.Second

// returns checks that a call comes back which is cancelled as it begins, with or without an error.
func returns(t TB, call func(context.Context)) {
	t.Helper()
	returnsWithin(t, promptly, call)
}

func returnsWithin(t TB, limit time.Duration, call func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		call(ctx)
	}()
	cancel()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("a cancelled call has not returned after %v: it must watch its context", limit)
	}
}

// overWire serves a plugin in this process over go-plugin's own transport and returns the host's end.
func overWire(t TB, service wire.Service) sdk.Plugin {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	attach, closed := make(chan *plugin.ReattachConfig, 1), make(chan struct{})
	go plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: wire.Handshake(), VersionedPlugins: service.Sets(), GRPCServer: wire.NewServer,
		Logger: hclog.NewNullLogger(),
		Test:   &plugin.ServeTestConfig{Context: ctx, ReattachConfigCh: attach, CloseCh: closed},
	})
	stop := cancel // until there is a client, which asks the server to stop; both at once would race
	t.Cleanup(func() {
		stop()
		<-closed
		cancel()
	})
	var reattach *plugin.ReattachConfig
	select {
	case reattach = <-attach:
	case <-closed:
		t.Fatalf("serve the plugin: the server did not start")
	}
	client, err := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: wire.Handshake(), Plugins: wire.HostSets()[wire.Version], Reattach: reattach,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC}, GRPCDialOptions: wire.DialOptions(),
		Logger: hclog.NewNullLogger(),
	}).Client()
	if err != nil {
		t.Fatalf("reach the served plugin: %v", err)
	}
	stop = func() { _ = client.Close() }
	conn, err := wire.Dispense(client)
	if err != nil {
		t.Fatalf("reach the served plugin: %v", err)
	}
	p, err := conn.Plugin(ctx)
	if err != nil {
		t.Fatalf("ask for the manifest: %v", err)
	}
	return p
}

// checkManifest checks what a person and the host read.
func checkManifest(t TB, m sdk.Manifest) {
	t.Helper()
	if err := m.Check(); err != nil {
		t.Errorf("%v", err)
	}
	line := func(what, text string) {
		if text == "" || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%s is %q: want one line of printable characters", what, text)
		}
	}
	line("help", m.Help)
	line("version", m.Version)
	types := map[sdk.SettingType]bool{
		sdk.TypeNumber: true, sdk.TypeBool: true, sdk.TypeString: true, sdk.TypeList: true, sdk.TypePath: true,
	}
	reserved := map[string]bool{"env": true, "timeout": true, "memory": true, "c": m.Kind == sdk.KindLoss}
	seen := map[string]bool{}
	for _, s := range m.Settings {
		line("help of the setting "+s.Name, s.Help)
		switch {
		case !sdk.IsName(s.Name):
			t.Errorf("setting %q: want a name of lower-case letters, digits, '-' and '_'", s.Name)
		case reserved[s.Name]:
			t.Errorf("setting %q: this name is the host's", s.Name)
		case seen[s.Name]:
			t.Errorf("setting %q is declared twice", s.Name)
		case !types[s.Type]:
			t.Errorf("setting %q: type %q is none", s.Name, s.Type)
		case s.Required && s.Default != nil:
			t.Errorf("setting %q is required and has a default", s.Name)
		case s.Min != nil && s.Max != nil && *s.Min > *s.Max:
			t.Errorf("setting %q: no number is from %v to %v", s.Name, *s.Min, *s.Max)
		case s.Type != sdk.TypeString && len(s.OneOf) > 0:
			t.Errorf("setting %q: only a string can be one of several", s.Name)
		}
		seen[s.Name] = true
		if s.Default == nil {
			continue
		}
		// The default has to be what comes out: over the wire a Go int becomes a float64, and the
		// host would see another manifest than the plugin's.
		alone := sdk.Manifest{Kind: m.Kind, Name: m.Name, Settings: []sdk.Setting{s}}
		out, err := alone.Resolve(nil)
		if err != nil {
			t.Errorf("%v", err)
		} else if !reflect.DeepEqual(out[s.Name], s.Default) {
			t.Errorf("default of the setting %q is a %T: write it as %#v", s.Name, s.Default, out[s.Name])
		}
	}
}

// sameManifest says whether the wire keeps a manifest.
func sameManifest(t TB, local, remote sdk.Manifest) {
	t.Helper()
	if len(local.Settings) == 0 {
		local.Settings = remote.Settings
	}
	if !reflect.DeepEqual(local, remote) {
		t.Errorf("over the wire the manifest is\n%+v\ninstead of\n%+v", remote, local)
	}
}
