// Package host finds, verifies, starts, watches and stops plugins. What it returns implements the
// sdk's interface over a process, and outlives the process: a plugin that crashes is started again.
package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
)

// Options say where plugins come from.
type Options struct {
	// Bundled returns the command that serves a bundled plugin (this binary, re-executed), and
	// BundledNames which ones there are. Bundled ones need no checksum and hide others of their name.
	Bundled      func(kind sdk.Kind, name string) (argv []string, ok bool)
	BundledNames func(kind sdk.Kind) []string

	// Locate returns the path that a setting of type path means; nil: paths are taken as they are.
	Locate func(path string) (string, error)

	SearchDirs []string  // where executables named dno-<kind>-<name> are looked for, in this order
	Lock       Checksums // what third-party executables must hash to; nil refuses all of them
	TempDir    string    // for sockets and verified copies; the system's where empty or too long for a socket's path
	Log        telemetry.Logger
}

// Checksums are the pinned sha256 sums, in hex, of third-party plugins; a [Lock] is one.
type Checksums interface {
	Checksum(kind sdk.Kind, name string) (sum string, ok bool)
}

// Spec asks for a plugin.
type Spec struct {
	Kind     sdk.Kind
	Name     string        // "dpo", or the path of an executable if it contains a slash
	Settings sdk.Settings  // as the script gave them
	Env      []string      // names of the environment variables that it may see; their values are kept out of the log
	Memory   int64         // resident, in bytes, of its process and those that it starts; 0: 2 GiB
	Timeout  time.Duration // of one call; 0: a minute for a loss, ten for an oracle or a sampler
}

// Running says which plugin a spec came to be, for the run's record.
type Running struct {
	Kind     sdk.Kind
	Name     string // as the manifest says
	Version  string
	Path     string       // of the executable; "" for a bundled plugin
	SHA256   string       // its verified checksum; "" for a bundled plugin
	Settings sdk.Settings // with defaults filled in
}

// Host owns the plugins' processes. It is safe for concurrent use. What a plugin does hurts its own calls
// alone, and this is what it cannot do:
//
//   - See more of the environment than PATH, LANG, TMPDIR and what its spec names; its standard input is
//     empty. A value that the spec names is taken out of the log and of the plugin's answers.
//   - Run other bytes than those that were pinned: a third party's program runs from a private copy.
//   - Hold a start up: it has 10 s for its handshake, and 10 s for its manifest.
//   - Hold a call up longer than the spec's timeout, which stands still while the host's generator draws
//     for a sampler; or, where it is stuck, longer than 35 s: it is asked for its health every 5 s, and one
//     that does not answer within 30 s is killed, and the call sent again. One that is busy answers.
//   - End a run by ending itself: a call is sent again to a new process, three times, after 0.1, 0.2 and 0.4 s.
//   - Take more memory than its spec allows, on Linux, with the processes that it started: five times a second
//     it is looked at. It is killed, and the call fails, or the next one.
//   - Send or get a message of more than 64 MiB, or an answer that breaks the contract.
//   - Fill the log, or stop because nobody reads: what it prints is read for good, logged at most 20 lines a
//     second after the first 100, and the last 40 lines are kept for the error.
//   - Outlive the host, or its own stop: it has 2 s to go, then it is killed, with its process group and, on
//     Linux, what has left the group and kept its environment. On Linux it dies with a host that is killed;
//     elsewhere the sdk's plugins notice within a second. The next host sweeps what that one left.
//
// After a call that was cancelled or timed out the process is stopped, for nobody knows what it is
// doing; the next call starts a new one.
type Host struct {
	options  Options
	patience patience
	temp     *tempDir
	thread   *thread
	ctx      context.Context // ends with Close
	end      context.CancelFunc

	processes sync.WaitGroup // those that are not gone yet

	opening sync.Mutex // one plugin is looked up and started at a time
	mu      sync.Mutex // guards what follows
	clients []*client
	closed  bool
}

// New returns a host without plugins. It sweeps what killed hosts left in the temporary directory.
func New(options Options) (*Host, error) {
	temp, err := newTempDir(options.TempDir)
	if err != nil {
		return nil, sdk.Errorf(sdk.CodeIO, "make a temporary directory for plugins: %w", err)
	}
	h := &Host{options: options, patience: defaultPatience(), temp: temp, thread: newThread()}
	h.ctx, h.end = context.WithCancel(context.Background())
	return h, nil
}

// Oracle returns the oracle that the spec asks for, configured. Oracle, Loss and Sampler start
// its process, or return the running one of the same kind, name, settings, environment, memory and timeout.
//
// The returned value checks settings against the manifest and every answer against the contract,
// naming plugin, field and index. A call whose process died is sent again to a new process, three
// times; then it fails with the plugin's last lines.
//
// Errors: sdk.CodePlugin for a plugin that is missing, not pinned, tampered with, does not start or
// breaks the contract; sdk.CodeUsage for settings; else the plugin's own code.
func (h *Host) Oracle(ctx context.Context, spec Spec) (sdk.Oracle, Running, error) {
	spec.Kind = sdk.KindOracle
	c, err := h.open(ctx, spec)
	if err != nil {
		return nil, Running{}, err
	}
	return &oracle{c}, c.describe(), nil
}

// Loss returns the loss that the spec asks for; see [Host.Oracle]. A loss or derivative that is
// NaN or infinite is an error with sdk.CodeNumeric.
func (h *Host) Loss(ctx context.Context, spec Spec) (sdk.Loss, Running, error) {
	spec.Kind = sdk.KindLoss
	c, err := h.open(ctx, spec)
	if err != nil {
		return nil, Running{}, err
	}
	return &loss{c}, c.describe(), nil
}

// Sampler returns the sampler that the spec asks for; see [Host.Oracle].
func (h *Host) Sampler(ctx context.Context, spec Spec) (sdk.Sampler, Running, error) {
	spec.Kind = sdk.KindSampler
	c, err := h.open(ctx, spec)
	if err != nil {
		return nil, Running{}, err
	}
	return &sampler{c}, c.describe(), nil
}

// Sweep stops the processes of plugins that were not asked for since the last Sweep: call it once
// an iteration, after asking for the plugins that it needs. A swept plugin that is called all the
// same is started again.
func (h *Host) Sweep() {
	h.mu.Lock()
	var idle []*client
	for _, c := range h.clients {
		if !c.asked {
			idle = append(idle, c)
		}
		c.asked = false
	}
	h.mu.Unlock()
	for _, c := range idle {
		c.stop()
	}
}

// Close stops every plugin and returns when no process is left. Calls that still run fail.
func (h *Host) Close() {
	h.end()
	h.mu.Lock()
	h.closed = true
	clients := h.clients
	h.clients = nil
	h.mu.Unlock()
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(c.close)
	}
	wg.Wait()
	h.processes.Wait() // of calls that were cut off, too
	h.opening.Lock()   // a start that was under way when Close began has seen its end
	defer h.opening.Unlock()
	h.thread.stop()
	h.temp.remove()
}

// errClosed is what calls return after Close.
var errClosed = errors.New("the plugin host is closed")

func (h *Host) open(ctx context.Context, spec Spec) (*client, error) {
	h.opening.Lock()
	defer h.opening.Unlock()
	spec.Env = slices.Clone(spec.Env)
	slices.Sort(spec.Env)
	if c := h.find(spec); c != nil {
		return c, nil
	}
	program, err := h.lookUp(spec.Kind, spec.Name)
	if err != nil {
		return nil, err
	}
	c := newClient(h, spec, program)
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, errClosed
	}
	h.clients = append(h.clients, c)
	h.mu.Unlock()
	if err := c.attempt(ctx, func(context.Context, sdk.Plugin, *clock) error { return nil }); err != nil {
		c.close()
		h.mu.Lock()
		h.clients = slices.DeleteFunc(h.clients, func(x *client) bool { return x == c })
		h.mu.Unlock()
		return nil, err
	}
	return c, nil
}

// find returns the client that a spec already has. Settings are compared with defaults filled in.
func (h *Host) find(spec Spec) *client {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.clients {
		if c.spec.Kind == spec.Kind && c.spec.Name == spec.Name && c.spec.Timeout == spec.Timeout && c.spec.Memory == spec.Memory &&
			slices.Equal(c.spec.Env, spec.Env) && c.hasSettings(spec.Settings) {
			c.asked = true
			return c
		}
	}
	return nil
}

// sameJSON compares settings by value; maps are encoded with sorted keys.
func sameJSON(a, b sdk.Settings) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// resolve checks settings against the manifest, fills in defaults and locates paths.
func (h *Host) resolve(m sdk.Manifest, given sdk.Settings) (sdk.Settings, error) {
	settings, err := m.Resolve(given)
	if err != nil || h.options.Locate == nil {
		return settings, err
	}
	for _, s := range m.Settings {
		path, given := settings[s.Name].(string)
		if s.Type != sdk.TypePath || !given {
			continue
		}
		if settings[s.Name], err = h.options.Locate(path); err != nil {
			return nil, err
		}
	}
	return settings, nil
}

// timeout is that of the spec, or its kind's default.
func timeout(spec Spec) time.Duration {
	switch {
	case spec.Timeout > 0:
		return spec.Timeout
	case spec.Kind == sdk.KindLoss:
		return time.Minute // arithmetic on small arrays
	}
	return 10 * time.Minute // a remote model, with its retries
}

// id names a plugin in errors and logs.
func id(kind sdk.Kind, name string) string { return fmt.Sprintf("%s %q", kind, name) }
