package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/dno-project/dno/sdk"
)

// Manifest starts the plugin that the spec names, reads what it declares, and stops it again. It needs
// no settings. The manifest is whole, of the spec's kind and, unless a path is asked for, of its name.
//
// Errors: as of [Host.Oracle].
func (h *Host) Manifest(ctx context.Context, spec Spec) (sdk.Manifest, error) {
	h.opening.Lock()
	defer h.opening.Unlock()
	program, err := h.lookUp(spec.Kind, spec.Name)
	if err != nil {
		return sdk.Manifest{}, err
	}
	c := newClient(h, spec, program)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(h.ctx, func() { cancel(errClosed) })()
	if h.ctx.Err() != nil {
		return sdk.Manifest{}, fmt.Errorf("%s: %w", c.id, errClosed)
	}
	p, err := c.start(ctx)
	var gone *goneError
	if errors.As(err, &gone) {
		err = sdk.Errorf(sdk.CodePlugin, "%s is no plugin, or died as it started: %w", c.id, gone)
	}
	if err != nil {
		return sdk.Manifest{}, err
	}
	defer p.stop()
	m := p.remote.Manifest()
	return m, checkManifest(spec, m)
}

// Only pins one sum for whatever is asked for: for a host that runs a single executable, at the wish of
// who has just named it.
type Only string

// Checksum returns the sum.
func (o Only) Checksum(sdk.Kind, string) (string, bool) { return string(o), true }
