package host

import (
	"errors"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk"
)

func TestManifestIsReadAndTheProcessIsGone(t *testing.T) {
	_, path, sum := thirdParty(t, sdk.KindLoss, "good")
	h, logged := newHost(t, func(o *Options) { o.Lock = Only(sum) })
	m, err := h.Manifest(t.Context(), Spec{Kind: sdk.KindLoss, Name: path})
	if err != nil {
		t.Fatal(err)
	}
	if m.Kind != sdk.KindLoss || m.Name != "good" || m.Version == "" {
		t.Errorf("the manifest is %+v", m)
	}
	h.processes.Wait() // it would wait for ever for a process that is left
	if logged.String() == "" {
		t.Error("the start is not logged")
	}
}

func TestManifestOfWhatIsNotAskedForIsRefused(t *testing.T) {
	dir, path, sum := thirdParty(t, sdk.KindLoss, "good")
	h, _ := newHost(t, func(o *Options) { o.Lock, o.SearchDirs = Only(sum), []string{dir} })
	if _, err := h.Manifest(t.Context(), Spec{Kind: sdk.KindOracle, Name: path}); sdk.CodeOf(err) != sdk.CodePlugin {
		t.Errorf("of another kind: %v", err)
	}
	if _, err := h.Manifest(t.Context(), Spec{Kind: sdk.KindLoss, Name: "none"}); sdk.CodeOf(err) != sdk.CodePlugin {
		t.Errorf("of a name that there is not: %v", err)
	}
	h.Close()
	if _, err := h.Manifest(t.Context(), Spec{Kind: sdk.KindLoss, Name: path}); !errors.Is(err, errClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestManifestOfAProgramThatEndsIsAnError(t *testing.T) {
	_, path, sum := refusedParty(t)
	h, _ := newHost(t, func(o *Options) { o.Lock = Only(sum) })
	if _, err := h.Manifest(t.Context(), Spec{Kind: sdk.KindLoss, Name: path}); sdk.CodeOf(err) != sdk.CodePlugin || !strings.Contains(err.Error(), "is no plugin") {
		t.Errorf("got %v", err)
	}
}
