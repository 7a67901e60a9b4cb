package plugins

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk"
)

func TestEveryEntryIsWhatItsManifestSays(t *testing.T) {
	t.Parallel()
	for _, e := range List() {
		t.Run(string(e.Kind)+"/"+e.Name, func(t *testing.T) {
			p := e.New()
			m := p.Manifest()
			if m.Kind != e.Kind || m.Name != e.Name || m.Help != e.Help || m.Version == "" {
				t.Errorf("entry %+v, manifest %+v", e, m)
			}
			_, oracle := p.(sdk.Oracle)
			_, loss := p.(sdk.Loss)
			_, sampler := p.(sdk.Sampler)
			want := map[sdk.Kind][3]bool{sdk.KindOracle: {true, false, false}, sdk.KindLoss: {false, true, false}, sdk.KindSampler: {false, false, true}}
			if got := [3]bool{oracle, loss, sampler}; got != want[e.Kind] {
				t.Errorf("is an oracle, a loss, a sampler: %v", got)
			}
			if q := e.New(); sdk.Plugin(q) == p && len(m.Settings) > 0 {
				t.Error("the same plugin twice: it would share its settings")
			}
			given := sdk.Settings{}
			for _, s := range m.Settings {
				// Without a default the help says what holds if it is not given.
				optional := s.Type == sdk.TypePath || s.Default == nil && strings.Contains(s.Help, "if not given") // every path names a file
				if s.Help == "" || !optional && s.Required == (s.Default != nil) {
					t.Errorf("setting %q: wants a help line, and a default unless it is required or a path", s.Name)
				}
				if s.Default != nil {
					given[s.Name] = s.Default
				}
				if s.Required {
					given[s.Name] = "required settings are all texts"
				}
			}
			if _, err := m.Resolve(given); err != nil {
				t.Errorf("a default is refused: %v", err)
			}
		})
	}
}

func TestEveryPackageIsListed(t *testing.T) {
	t.Parallel()
	var listed, there []string
	for _, e := range List() {
		listed = append(listed, path.Join(string(e.Kind), e.Name))
	}
	if !slices.IsSorted(listed) {
		t.Errorf("not sorted: %v", listed)
	}
	for _, kind := range []sdk.Kind{sdk.KindLoss, sdk.KindOracle, sdk.KindSampler} {
		folders, err := os.ReadDir(string(kind))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range folders {
			there = append(there, path.Join(string(kind), f.Name()))
		}
	}
	if !slices.Equal(listed, there) {
		t.Errorf("listed %v\n there %v", listed, there)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind       sdk.Kind
		name, hint string
		there      bool
	}{
		"a listed plugin":                {sdk.KindLoss, "dpo", "", true},
		"a slip of the hand gets a hint": {sdk.KindOracle, "verifer", `did you mean "verifier"?`, false},
		"a name of another kind":         {sdk.KindOracle, "nucleus", "", false},
		"a name that is near to none":    {sdk.KindSampler, "transformer", "", false},
		"a kind that does not exist":     {"reward", "dpo", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := New(c.kind, c.name)
			if c.there {
				if err != nil || p.Manifest().Name != c.name {
					t.Errorf("got %v, %v", p, err)
				}
				return
			}
			var e *sdk.Error
			if p != nil || !errors.As(err, &e) || e.Code != sdk.CodeUsage || e.Hint != c.hint {
				t.Errorf("got %v, %v, hint %q", p, err, e.Hint)
			}
		})
	}
}
