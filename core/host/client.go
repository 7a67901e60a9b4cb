package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/wire"
)

// client is one plugin as the host sees it: what it was asked to be, and the process that it is at
// the moment. oracle, loss and sampler put the sdk's interfaces on top.
type client struct {
	host    *Host
	spec    Spec
	program program
	id      string
	log     telemetry.Logger
	asked   bool // since the last Sweep; guarded by host.mu

	config sync.RWMutex  // Configure excludes calls
	slots  chan struct{} // one for each call that may run at once; made at the first start

	starting sync.Mutex // one start at a time; taken before mu
	mu       sync.Mutex // guards what follows
	proc     *process   // nil where none runs
	manifest sdk.Manifest
	settings sdk.Settings // resolved; nil before the first start
	closed   bool
}

func newClient(h *Host, spec Spec, p program) *client {
	return &client{
		host: h, spec: spec, program: p, id: id(spec.Kind, spec.Name), asked: true,
		log: h.options.Log.With(telemetry.Plugin.Of(string(spec.Kind) + "/" + spec.Name)),
	}
}

// Manifest returns what the plugin declared at its first start.
func (c *client) Manifest() sdk.Manifest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.manifest
}

// Configure checks settings against the manifest, fills in defaults and sends them. From then on
// they are the plugin's: a process that is started later gets them too.
func (c *client) Configure(ctx context.Context, given sdk.Settings) error {
	c.config.Lock()
	defer c.config.Unlock()
	c.mu.Lock()
	settings, err := c.host.resolve(c.manifest, given)
	if err == nil {
		c.settings = settings
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.attempt(ctx, func(ctx context.Context, p sdk.Plugin, _ *clock) error {
		return p.Configure(ctx, settings)
	})
}

// call is one call of the kind's own method, when it is its turn.
func (c *client) call(ctx context.Context, do func(context.Context, sdk.Plugin, *clock) error) error {
	c.config.RLock()
	defer c.config.RUnlock()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", c.id, context.Cause(ctx))
	}
	return c.attempt(ctx, do)
}

// maxRestarts is how often one call may have a new process.
const maxRestarts = 3

// attempt runs do against the plugin's process, and again against a new one where that ends.
func (c *client) attempt(ctx context.Context, do func(context.Context, sdk.Plugin, *clock) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.host.ctx, func() { cancel(errClosed) })()
	pause := c.host.patience.pause
	for n := 1; ; n++ {
		p, err := c.running(ctx)
		if err == nil {
			err = c.once(ctx, p, do)
		}
		var gone *goneError
		if !errors.As(err, &gone) {
			return err
		}
		if n > maxRestarts {
			return sdk.Errorf(sdk.CodePlugin, "%s died %d times in one call, for the last time: %w", c.id, n, gone).WithHint(
				"this is a fault of the plugin, or it has not enough memory; its words above say more")
		}
		c.log.Warn("plugin died, starting it again", telemetry.Attempt.Of(n), telemetry.Cause.Of(gone.how))
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", c.id, context.Cause(ctx))
		}
	}
}

// once runs do with the plugin's timeout and says what its failure means.
func (c *client) once(ctx context.Context, p *process, do func(context.Context, sdk.Plugin, *clock) error) error {
	limit := timeout(c.spec)
	callCtx, clock := newClock(ctx, limit)
	defer clock.stop()
	stop := p.watchHealth(c.host.patience, clock.cancel)
	err := do(callCtx, p.remote, clock)
	stop()
	var coded *sdk.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		c.drop(p)
		return fmt.Errorf("%s: %w", c.id, context.Cause(ctx))
	case context.Cause(callCtx) == errTooLate:
		c.drop(p)
		return sdk.Errorf(sdk.CodePlugin, "%s did not answer within %v%s", c.id, limit, p.lastLines()).WithHint(
			"give it more time with timeout = %d (seconds)", int(2*limit.Seconds()+1))
	case context.Cause(callCtx) == errStuck:
		c.drop(p)
		return &goneError{how: stuck(c.host.patience), lines: p.lastLines()}
	case errors.Is(err, wire.ErrGone):
		c.drop(p)
		if err := p.excess(c.id); err != nil {
			return err
		}
		return &goneError{how: p.howItEnded(), lines: p.lastLines()}
	case errors.As(err, &coded):
		return fmt.Errorf("%s: %w", c.id, err)
	}
	return sdk.Errorf(sdk.CodePlugin, "%s: %w", c.id, err)
}

// running returns the plugin's process, started and configured.
func (c *client) running(ctx context.Context) (*process, error) {
	c.starting.Lock()
	defer c.starting.Unlock()
	c.mu.Lock()
	p, settings := c.proc, c.settings
	c.mu.Unlock()
	if p != nil {
		return p, nil
	}
	if c.host.ctx.Err() != nil { // ctx may not have heard of it yet
		return nil, fmt.Errorf("%s: %w", c.id, errClosed)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", c.id, context.Cause(ctx))
	}
	p, err := c.start(ctx)
	if err != nil {
		return nil, err
	}
	m := p.remote.Manifest()
	if settings == nil {
		if err = checkManifest(c.spec, m); err == nil {
			settings, err = c.host.resolve(m, c.spec.Settings)
		}
	}
	if err == nil {
		err = c.once(ctx, p, func(ctx context.Context, remote sdk.Plugin, _ *clock) error {
			return remote.Configure(ctx, settings)
		})
	}
	if err == nil {
		err = c.adopt(p, m, settings)
	}
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// adopt makes p the client's process, unless the client was closed while p started.
func (c *client) adopt(p *process, m sdk.Manifest, settings sdk.Settings) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return fmt.Errorf("%s: %w", c.id, errClosed)
	}
	if c.settings == nil { // the first start
		c.manifest, c.settings = m, settings
		c.slots = make(chan struct{}, slots(m))
	}
	c.proc = p
	return nil
}

func slots(m sdk.Manifest) int {
	if m.Kind == sdk.KindOracle {
		return max(1, m.Oracle.Concurrency)
	}
	return 1
}

// drop stops a process that the next call must not get.
func (c *client) drop(p *process) {
	c.mu.Lock()
	if c.proc == p {
		c.proc = nil
	}
	c.mu.Unlock()
	p.stop()
}

func (c *client) stop() {
	c.mu.Lock()
	p := c.proc
	c.proc = nil
	c.mu.Unlock()
	if p != nil {
		p.stop()
	}
}

func (c *client) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.starting.Lock() // a start that was under way stops its process itself
	defer c.starting.Unlock()
}

func (c *client) hasSettings(given sdk.Settings) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	settings, err := c.host.resolve(c.manifest, given)
	return err == nil && c.settings != nil && sameJSON(settings, c.settings)
}

func (c *client) describe() Running {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Running{
		Kind: c.manifest.Kind, Name: c.manifest.Name, Version: c.manifest.Version,
		Path: c.program.path, SHA256: c.program.sum, Settings: c.settings,
	}
}

// goneError says that the process ended before it answered: the call may be sent again.
type goneError struct{ how, lines string }

func (e *goneError) Error() string { return e.how + e.lines }
