package rundir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/sdk"
)

// Finding is one thing that [Fsck] has to say of a run's folder.
type Finding struct {
	Path   string `json:"path"`
	What   string `json:"what"`
	Damage bool   `json:"damage"` // false: what a crash leaves, and the next resume repairs
}

// Fsck reads all of a run's folder and says what is wrong with it. It changes nothing and waits for nobody; of a run that
// is being written it may see the end of a file that is not there yet. The error is of a folder without a run.
func Fsck(dir string) ([]Finding, error) {
	run, err := Read(dir)
	if sdk.CodeOf(err) == sdk.CodeUsage {
		return nil, err
	}
	var found []Finding
	damage := func(path string, err error) { found = append(found, Finding{path, err.Error(), true}) }
	note := func(path, format string, args ...any) {
		found = append(found, Finding{path, fmt.Sprintf(format, args...), false})
	}
	if err != nil {
		damage(filepath.Join(dir, "run.json"), err)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // a writer has removed it meanwhile
			return nil
		case err != nil:
			damage(path, err)
			return nil
		}
		name := e.Name()
		switch {
		case path == dir:
		case fsx.IsUnfinished(name):
			note(path, "an unfinished write, which the next one to its name removes")
			return skip(e)
		case e.IsDir() && name == "inputs": // unpacked again by each run
			return fs.SkipDir
		case e.IsDir() && (name == checkpointName || strings.HasPrefix(name, stepPrefix)):
			err := fsx.Verify(path)
			for range 2 { // a writer may have replaced it meanwhile, or taken it away
				if err != nil {
					err = fsx.Verify(path)
				}
			}
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				damage(path, err)
			}
			return fs.SkipDir
		case strings.HasSuffix(name, ".jsonl"):
			fsckLog(path, damage, note)
		case strings.HasSuffix(name, ".json") || name == PinsFile:
			var v map[string]json.RawMessage
			if err := readRecord(path, &v); err != nil && !isMissing(err) {
				damage(path, err)
			}
		}
		return nil
	})
	if err != nil {
		return found, ioError(err)
	}
	if run != nil {
		run.fsck(damage)
	}
	return found, nil
}

func skip(e fs.DirEntry) error {
	if e.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// fsckLog checks each line of a log by itself, so that all that is damaged is named.
func fsckLog(path string, damage func(string, error), note func(string, string, ...any)) {
	text, err := os.ReadFile(path)
	if isMissing(err) {
		return
	}
	if err != nil {
		damage(path, err)
		return
	}
	for n := 1; len(text) > 0; n++ {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			note(path, "its last line is torn, %d bytes: they are cut and done again", len(line))
			return
		}
		var v map[string]json.RawMessage
		if err := unseal(line, &v); err != nil {
			damage(fmt.Sprintf("%s:%d", path, n), err)
		}
		text = rest
	}
}

// fsck checks what more than one file says.
func (r *Run) fsck(damage func(string, error)) {
	done, err := r.Iterations()
	if err != nil {
		return // it is found already, but for a gap
	}
	for _, rec := range done {
		it := Iteration{dir: r.iterationDir(rec.Iteration)}
		for _, name := range []string{checkpointName, EvaluationFile} {
			if _, err := os.Stat(it.Path(name)); errors.Is(err, fs.ErrNotExist) {
				damage(it.Path(name), fmt.Errorf("it is missing, and iteration %d is done", rec.Iteration))
			}
		}
	}
	if reason, err := r.Concluded(); err == nil && reason != "" && len(done) == 0 {
		damage(r.path("run.jsonl"), errors.New("it has no iteration, and the run is finished"))
	}
}

// Rollback takes back all iterations after t: their records and folders. What oracles said stays, so that nothing is
// paid for twice. It returns how many iterations it took back.
func (r *Run) Rollback(t int) (int, error) {
	done, err := r.Iterations()
	if err != nil {
		return 0, err
	}
	if t < 0 || t >= len(done) {
		return 0, sdk.Errorf(sdk.CodeUsage, "roll %s back to iteration %d: it has finished the iterations 0 to %d", r.dir, t, len(done)-1)
	}
	if err := r.Undo(t); err != nil { // first, so that a crash leaves a run that goes on
		return 0, err
	}
	folders, err := filepath.Glob(r.path("iter-*"))
	if err != nil {
		return 0, err
	}
	for _, dir := range folders {
		var s int
		if _, err := fmt.Sscanf(filepath.Base(dir), "iter-%d", &s); err == nil && s > t {
			if err := fsx.RemoveAll(dir); err != nil {
				return 0, ioError(err)
			}
		}
	}
	return len(done) - 1 - t, nil
}
