package rundir

import "github.com/dno-project/dno/sdk"

// OpenedFile says which oracles and samplers the run has opened, so that it can be replayed without them.
const OpenedFile = "plugins.jsonl"

// OpenedRecord is one line of plugins.jsonl.
type OpenedRecord struct {
	Wanted   string       `json:"wanted"` // the plan's entry, as JSON
	Plugin   PluginRecord `json:"plugin"`
	Manifest sdk.Manifest `json:"manifest"`
}

// ID names what was asked for: a kind, with the plan's entry.
func (rec OpenedRecord) ID() string { return string(rec.Plugin.Kind) + rec.Wanted }

// Opened notes that a plugin was opened; what is noted already is not noted again.
func (r *Run) Opened(rec OpenedRecord) error {
	r.pinning.Lock()
	defer r.pinning.Unlock()
	if r.opened == nil {
		known, err := ReadLog[OpenedRecord](r.path(OpenedFile))
		if err != nil {
			return err
		}
		r.opened = map[string]bool{}
		for _, k := range known {
			r.opened[k.ID()] = true
		}
	}
	if r.opened[rec.ID()] {
		return nil
	}
	log, _, err := OpenLog[OpenedRecord](r.path(OpenedFile))
	if err != nil {
		return err
	}
	defer log.Close()
	if err := log.Append(rec); err != nil {
		return err
	}
	r.opened[rec.ID()] = true
	return nil
}

// AllOpened are the plugins that the run has opened.
func (r *Run) AllOpened() ([]OpenedRecord, error) { return ReadLog[OpenedRecord](r.path(OpenedFile)) }
