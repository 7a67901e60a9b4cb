package rundir

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dno-project/dno/sdk"
)

// PinsFile is what a run depends on: settings, seeds, versions, and hashes of all that it reads.
const PinsFile = "run.lock"

// Pins is run.lock: one value a key, and what was changed with the user's consent.
type Pins struct {
	Values  map[string]string `json:"values"`
	Changes []PinChange       `json:"changes,omitempty"`
}

// PinChange is a difference that was allowed.
type PinChange struct {
	Key  string `json:"key"`
	From string `json:"from"`
	To   string `json:"to"`
	Time string `json:"time"` // RFC 3339, for people
}

// Pins returns what the run depends on.
func (r *Run) Pins() (Pins, error) {
	p := Pins{Values: map[string]string{}}
	err := readRecord(r.path(PinsFile), &p)
	if isMissing(err) {
		err = nil
	}
	return p, err
}

// Differ says, one text a key and in their order, which of the values are others than those noted; a key that is not noted
// differs from nothing.
func (p Pins) Differ(values map[string]string) (keys, texts []string) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if was, known := p.Values[key]; known && was != values[key] {
			keys = append(keys, key)
			texts = append(texts, fmt.Sprintf("%s is %s, it was %s", key, show(values[key]), show(was)))
		}
	}
	return keys, texts
}

// Allow lets the values of keys differ from what the run began with. A key that the run does not have is
// an error with [sdk.CodeUsage].
func (r *Run) Allow(keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	p, err := r.Pins()
	if err != nil {
		return err
	}
	known := slices.Sorted(maps.Keys(p.Values))
	for _, key := range keys {
		if _, ok := p.Values[key]; !ok {
			e := sdk.Errorf(sdk.CodeUsage, "allow a change of %q: the run does not depend on it", key)
			if near := sdk.Nearest(key, known); near != "" {
				return e.WithHint("did you mean %q?", near)
			}
			return e.WithHint("%s lists what it depends on", r.path(PinsFile))
		}
	}
	r.allowed = keys
	return nil
}

// Pin notes values that the run depends on, or compares them with what is noted. Differences that are not
// allowed are an error with [sdk.CodeUsage] that names each of them.
func (r *Run) Pin(values map[string]string) error {
	r.pinning.Lock()
	defer r.pinning.Unlock()
	p, err := r.Pins()
	if err != nil {
		return err
	}
	keys, texts := p.Differ(values)
	var refused, flags []string
	for i, key := range keys {
		if slices.Contains(r.allowed, key) {
			p.Changes = append(p.Changes, PinChange{Key: key, From: p.Values[key], To: values[key], Time: time.Now().Format(time.RFC3339)})
			continue
		}
		refused, flags = append(refused, texts[i]), append(flags, "--allow-change "+key)
	}
	if len(refused) > 0 {
		return sdk.Errorf(sdk.CodeUsage, "go on with the run in %s: what it depends on has changed: %s", r.dir, strings.Join(refused, "; ")).
			WithHint("put back what it was, start a new run, or accept other results from here on: dno resume %s %s", r.dir, strings.Join(flags, " "))
	}
	noted := len(p.Values)
	maps.Copy(p.Values, values)
	if len(keys) == 0 && len(p.Values) == noted {
		return nil
	}
	return writeRecord(r.path(PinsFile), p)
}

// show shortens hashes and other long values.
func show(value string) string {
	if r := []rune(value); len(r) > 24 {
		value = string(r[:12]) + "…"
	}
	return strconv.Quote(value)
}

// PluginRecord says which plugin answered, and with what.
type PluginRecord struct {
	Kind     sdk.Kind          `json:"kind"`
	Name     string            `json:"name"`
	Version  string            `json:"version"`
	SHA256   string            `json:"sha256,omitempty"`   // of a third party's executable
	Settings sdk.Settings      `json:"settings,omitempty"` // as the script says, with the manifest's defaults
	Files    map[string]string `json:"files,omitempty"`    // sha256 of the files that settings name
}

// Pins are what a run depends on in the plugin. Its settings are not among them: a schedule may change
// them, and each plan records them.
func (p PluginRecord) Pins() map[string]string {
	out := map[string]string{fmt.Sprintf("plugin.%s/%s", p.Kind, p.Name): strings.TrimSpace(p.Version + " " + p.SHA256)}
	for name, sum := range p.Files {
		out["file."+name] = sum
	}
	return out
}
