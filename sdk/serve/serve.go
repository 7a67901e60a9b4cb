// Package serve is a plugin's main in one call: serve.Loss(mine.New()).
//
// A plugin's standard output belongs to the handshake. From the first call of the host on, what
// the plugin prints on it goes to standard error, which the host shows in its log. A main that
// prints before it calls this package breaks the handshake.
package serve

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/wire"
)

// Oracle serves an oracle until the host tells it to stop, and then closes it where it is an
// io.Closer. Run by hand it says what it is and exits.
func Oracle(o sdk.Oracle) { run(wire.OracleService(o), o) }

// Loss serves a loss, on one processor unless GOMAXPROCS is set or the loss sets it; see [Oracle].
func Loss(l sdk.Loss) { run(wire.LossService(l), l) }

// Sampler serves a sampler; see [Oracle].
func Sampler(s sdk.Sampler) { run(wire.SamplerService(s), s) }

// Plugin serves p as what it is: an oracle, a loss or a sampler. The error says that it is none of
// them, or more than one.
func Plugin(p sdk.Plugin) error {
	var services []wire.Service
	if o, ok := p.(sdk.Oracle); ok {
		services = append(services, wire.OracleService(o))
	}
	if l, ok := p.(sdk.Loss); ok {
		services = append(services, wire.LossService(l))
	}
	if s, ok := p.(sdk.Sampler); ok {
		services = append(services, wire.SamplerService(s))
	}
	if len(services) != 1 {
		return sdk.Errorf(sdk.CodeInternal, "serve %T: it implements %d of Oracle, Loss and Sampler, want exactly one", p, len(services))
	}
	run(services[0], p)
	return nil
}

func run(service wire.Service, p sdk.Plugin) {
	cookie := wire.Handshake()
	if os.Getenv(cookie.MagicCookieKey) != cookie.MagicCookieValue {
		byHand(os.Stderr, service.Manifest())
		os.Exit(1)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // a plugin's heap is small: a collection every hundred calls would be most of its work
	}
	if _, ok := p.(sdk.Loss); ok && os.Getenv("GOMAXPROCS") == "" {
		// A loss is called once a step and computes for microseconds: on one processor a call costs a
		// fifth less, for no thread has to wake another. A loss that needs more sets it in Configure.
		runtime.GOMAXPROCS(1)
	}
	go exitWithParent(os.Getppid(), time.NewTicker(time.Second).C)
	stderr := os.Stderr
	config := &plugin.ServeConfig{
		HandshakeConfig:  cookie,
		VersionedPlugins: service.Sets(),
		Logger:           hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: stderr, DisableTime: true}),
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server {
			return wire.NewServer(append(options, grpc.UnaryInterceptor(printTo(stderr))))
		},
	}
	if err := identify(config); err != nil {
		fmt.Fprintf(stderr, "serve %s: %v\n", service.Manifest().Name, err)
		os.Exit(1)
	}
	plugin.Serve(config)
	if c, ok := p.(io.Closer); ok {
		_ = c.Close() // the process ends here: nobody is left to hear of a failure
	}
}

// printTo returns an interceptor that sends what the plugin prints to its true standard error
// before the first call. go-plugin, after its handshake, replaces both files by pipes that are
// read over gRPC: the last words of a process that exits would be lost in them.
func printTo(stderr *os.File) grpc.UnaryServerInterceptor {
	var once sync.Once
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		once.Do(func() { os.Stdout, os.Stderr = stderr, stderr })
		return handler(ctx, req)
	}
}

// exitWithParent ends the process when its parent is another than at the start: a host that was
// killed cannot stop its plugins. On Linux the kernel does the same at once, where the host asked
// for it; Windows never shows a new parent.
func exitWithParent(parent int, tick <-chan time.Time) {
	for range tick {
		if os.Getppid() != parent {
			os.Exit(1)
		}
	}
}

// byHand says what this program is to somebody who runs it from a shell.
func byHand(w io.Writer, m sdk.Manifest) {
	fmt.Fprintf(w, "%s %s is a plugin of dno (%s): %s\n", m.Name, m.Version, m.Kind, m.Help)
	fmt.Fprintf(w, "It is not run by itself: dno starts it. In a script:\n\n  %s = { %q", m.Kind, m.Name)
	for _, s := range m.Settings {
		if s.Default != nil {
			fmt.Fprintf(w, ", %s = %s", s.Name, lua(s.Default))
		}
	}
	fmt.Fprint(w, " }\n")
	if len(m.Settings) > 0 {
		fmt.Fprint(w, "\nSettings:\n")
	}
	for _, s := range m.Settings {
		note := ""
		if s.Required {
			note = " (required)"
		}
		fmt.Fprintf(w, "  %-18s %-7s %s%s\n", s.Name, s.Type, s.Help, note)
	}
}

// lua writes a setting's value as a script would.
func lua(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case []any:
		items := make([]string, len(v))
		for i, x := range v {
			items[i] = lua(x)
		}
		return "{ " + strings.Join(items, ", ") + " }"
	}
	return fmt.Sprint(v)
}
