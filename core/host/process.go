package host

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"

	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/wire"
)

// process is one running plugin. It is never started again: a restart makes a new one.
type process struct {
	command  *command
	client   *plugin.Client
	remote   sdk.Plugin            // its sdk.Oracle, sdk.Loss or sdk.Sampler over gRPC
	protocol plugin.ClientProtocol // what answers health checks
	grace    time.Duration
	once     sync.Once // stops it
	stopped  func()    // called when it is gone
}

// patience is how long the host waits; tests have less of it.
type patience struct {
	start  time.Duration // for the handshake, and again for the manifest
	stop   time.Duration // from asking to killing
	pause  time.Duration // before the first restart in one call, doubled for each further one
	ask    time.Duration // between two health checks while a call runs
	health time.Duration // for an answer to one
}

func defaultPatience() patience {
	return patience{start: 10 * time.Second, stop: 2 * time.Second, pause: 100 * time.Millisecond, ask: 5 * time.Second, health: 30 * time.Second}
}

// start starts the client's program and fetches its manifest.
func (c *client) start(ctx context.Context) (*process, error) {
	cmd := exec.Command(c.program.argv[0], c.program.argv[1:]...)
	var sum []byte
	if c.program.sum != "" {
		path, err := c.host.temp.verifiedCopy(c.program.path, c.program.sum)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.id, err)
		}
		if err := runnable(path, c.program.path); err != nil {
			return nil, sdk.Errorf(sdk.CodePlugin, "%s: %w", c.id, err)
		}
		cmd = exec.Command(path)
		sum, _ = hex.DecodeString(c.program.sum) // it was equal to one, so it is one
	}
	tlsConfig, certificate, err := mutualTLS()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.id, err)
	}
	run := &command{cmd: cmd, thread: c.host.thread, lines: newLines(c.log), memory: c.spec.Memory, sum: sum}
	if run.memory == 0 {
		run.memory = defaultMemory
	}
	c.host.processes.Add(1)
	p := &process{command: run, grace: c.host.patience.stop, stopped: c.host.processes.Done, client: plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  wire.Handshake(),
		VersionedPlugins: wire.HostSets(),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		RunnerFunc: func(_ hclog.Logger, prepared *exec.Cmd, socketDir string) (runner.Runner, error) {
			run.socketDir = socketDir
			cmd.Env = append(append(c.environment(), prepared.Env...), wire.CertificateEnv+"="+certificate) // prepared: cookie, versions, directory for the socket
			cmd.SysProcAttr = procAttr()
			return run, nil
		},
		SkipHostEnv:      true,
		TLSConfig:        tlsConfig,
		StartTimeout:     c.host.patience.start,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: c.host.temp.path},
		GRPCDialOptions:  wire.DialOptions(),
		Logger:           bridge(c.log),
		SyncStdout:       &printed{lines: run.lines},
		SyncStderr:       &printed{lines: run.lines},
	})}
	started := make(chan error, 1)
	go func() {
		_, err := p.client.Start()
		started <- err
	}()
	select {
	case err = <-started:
	case <-ctx.Done():
		_ = run.Kill(ctx)
		<-started
		p.stop()
		return nil, fmt.Errorf("%s: %w", c.id, context.Cause(ctx))
	}
	if err != nil {
		p.stop()
		return nil, c.explain(p, err)
	}
	if err := p.connect(ctx, c.host.patience.start); err != nil {
		p.stop()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s: %w", c.id, context.Cause(ctx))
		}
		return nil, c.explain(p, err)
	}
	m := p.remote.Manifest()
	c.log.Debug("plugin started", telemetry.PID.Of(run.cmd.Process.Pid), telemetry.Version.Of(m.Version))
	return p, nil
}

func (p *process) connect(ctx context.Context, limit time.Duration) error {
	var err error
	if p.protocol, err = p.client.Client(); err != nil {
		return err
	}
	conn, err := wire.Dispense(p.protocol)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	p.remote, err = conn.Plugin(ctx)
	return err
}

// stop ends the process and everything that it started: it asks, and after a grace it kills. It
// returns when the process is gone and its output read.
func (p *process) stop() {
	p.once.Do(func() {
		defer p.stopped()
		defer p.killStrays()
		done := make(chan struct{})
		go func() {
			p.client.Kill()
			close(done)
		}()
		// go-plugin waits for an answer to its request, without end.
		if ends(done, p.grace) {
			return
		}
		_ = p.command.Kill(context.Background())
		p.killStrays()
		if ends(done, p.grace) {
			return
		}
		p.command.closePipes() // a child that was not found still holds them
		<-done
	})
}

func (p *process) killStrays() {
	if p.command.socketDir != "" { // there was a process
		killStrays(p.command.socketDir + "\x00")
	}
}

func ends(done <-chan struct{}, within time.Duration) bool {
	select {
	case <-done:
		return true
	case <-time.After(within):
		return false
	}
}

// baseEnv are the variables that every plugin sees.
func baseEnv() []string {
	names := []string{"PATH", "LANG", "TMPDIR"}
	if runtime.GOOS == "windows" {
		names = append(names, "SYSTEMROOT", "TEMP") // without them no program starts there
	}
	return names
}

func (c *client) environment() []string {
	var env []string
	for _, name := range baseEnv() {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	for _, name := range c.spec.Env {
		v, ok := os.LookupEnv(name)
		if !ok {
			c.log.Warn("the script passes on " + name + ", which is not set")
			continue
		}
		c.log.Secrets().Add(v)
		env = append(env, name+"="+v)
	}
	return env
}

// howItEnded says what became of a process after stop.
func (p *process) howItEnded() string {
	p.command.mu.Lock()
	defer p.command.mu.Unlock()
	if p.command.ended == "" || p.command.killed && p.command.ended == "signal: killed" { // by us
		return "the connection broke"
	}
	return "its process ended (" + p.command.ended + ")"
}

// lastLines is what the plugin printed last, ready to follow a sentence.
func (p *process) lastLines() string {
	kept := p.command.lines.kept()
	if len(kept) == 0 {
		return "; it printed nothing"
	}
	return "; it printed:\n  | " + strings.Join(kept, "\n  | ")
}

// explain says why a plugin did not start. One that ended may do better the next time.
func (c *client) explain(p *process, err error) error {
	if err := p.excess(c.id); err != nil {
		return err
	}
	if p.command.first == nil { // there was not even a process
		return sdk.Errorf(sdk.CodePlugin, "%s did not start: %w", c.id, err).WithHint(
			"is %s a program for %s/%s, or a script whose interpreter is there?", c.program.argv[0], runtime.GOOS, runtime.GOARCH)
	}
	line, silent := p.command.firstLine()
	fields := strings.Split(line, "|")
	switch {
	case errors.Is(err, wire.ErrGone) && len(fields) >= 5 && (len(fields) == 5 || fields[5] == ""):
		return sdk.Errorf(sdk.CodePlugin, "%s gave no certificate in its handshake: %w", c.id, err).WithHint(
			"dno talks to plugins with mutual TLS: the plugin has to read PLUGIN_CLIENT_CERT and answer with its own certificate")
	case silent || errors.Is(err, wire.ErrGone):
		return &goneError{how: p.howItEnded(), lines: p.lastLines()}
	case line == "" || errors.Is(err, context.DeadlineExceeded):
		return sdk.Errorf(sdk.CodePlugin, "%s did not say what it is within %v%s", c.id, c.host.patience.start, p.lastLines())
	case len(fields) < 4:
		return sdk.Errorf(sdk.CodePlugin, "%s wrote %q to standard output before the handshake%s", c.id, shorten(line), p.lastLines()).WithHint(
			"a plugin's standard output belongs to the handshake: print on standard error before serving")
	case fields[1] != strconv.Itoa(wire.Version):
		hint := "install a newer version of the plugin, made for this dno"
		if n, err := strconv.Atoi(fields[1]); err == nil && n > wire.Version {
			hint = "update dno, or install an older version of the plugin, made for this dno"
		}
		return sdk.Errorf(sdk.CodePlugin, "%s speaks version %q of the plugin protocol, this dno speaks version %d", c.id, shorten(fields[1]), wire.Version).WithHint("%s", hint)
	}
	var coded *sdk.Error
	if errors.As(err, &coded) {
		return fmt.Errorf("%s: %w", c.id, err)
	}
	return sdk.Errorf(sdk.CodePlugin, "%s did not start: %w%s", c.id, err, p.lastLines())
}

// shorten makes a plugin's line fit into a sentence.
func shorten(line string) string {
	const most = 80
	if line = printable(line); len([]rune(line)) > most {
		return string([]rune(line)[:most]) + "…"
	}
	return line
}

// bridge lets go-plugin write its own doings to our log, for those who look for a fault.
func bridge(log telemetry.Logger) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Level: hclog.Debug, Output: debugLines{log}, DisableTime: true,
	})
}

type debugLines struct{ log telemetry.Logger }

func (d debugLines) Write(p []byte) (int, error) {
	d.log.Debug(printable(strings.TrimSpace(string(p))))
	return len(p), nil
}

// printed takes what a plugin made with an older kit prints: go-plugin reads it over gRPC, in pieces.
type printed struct {
	lines *lines
	part  string
}

func (w *printed) Write(p []byte) (int, error) {
	w.part += string(p)
	for {
		line, rest, found := strings.Cut(w.part, "\n")
		if !found {
			break
		}
		w.lines.add(line)
		w.part = rest
	}
	if len(w.part) > lineBytes {
		w.lines.add(w.part)
		w.part = ""
	}
	return len(p), nil
}
