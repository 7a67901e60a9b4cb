// Package rundir is the folder of one run: all that is needed to resume, audit and report it.
//
//	run.json            how the run is started: written once, before anything else
//	run.lock            what it depends on, and must find again when it goes on
//	script.lua          the script, as it was when the run began
//	run.jsonl           a line for each finished iteration; the last thing that an iteration writes
//	judgments.jsonl     all that oracles said, by content
//	plugins.jsonl       the oracles and samplers that it has opened
//	iter-000/           π_1: checkpoint and evaluation, before any training
//	iter-001/ ...       plan.json completions.jsonl verdicts.jsonl pairs.jsonl steps.jsonl
//	                    checkpoint/ eval.json eval-validation.jsonl eval-test.jsonl
//	end.json            why the run ended: written after the last iteration
//	lock                held by the one process that writes
//
// Each line of a record ends with the key crc, and so does each .json file.
package rundir

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/sdk"
	"github.com/gofrs/flock"
)

// Format is the number of the layout that this version writes and reads.
const Format = 2

// Run is an open run directory.
type Run struct {
	dir    string
	header Header
	lock   *flock.Flock // nil where the run is open for reading only

	pinning sync.Mutex
	opened  map[string]bool
	allowed []string // keys of run.lock whose values may change
}

// Exists says whether dir holds a run.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "run.json"))
	return err == nil
}

// Create makes the run directory dir with its header, script and pins and holds its lock. A directory
// that already holds a run is refused with [sdk.CodeUsage], or [sdk.CodeLocked] if it is being written.
func Create(dir string, header Header, script []byte, pins map[string]string) (*Run, error) {
	if err := fsx.MkdirAll(dir); err != nil {
		return nil, ioError(err)
	}
	lock, err := acquire(dir)
	if err != nil {
		return nil, err
	}
	if Exists(dir) {
		_ = lock.Unlock()
		return nil, sdk.Errorf(sdk.CodeUsage, "start a run in %s: it already holds one", dir).
			WithHint("go on with it: dno resume %s; or name another directory with --dir", dir)
	}
	header.Format = Format
	r := &Run{dir: dir, header: header, lock: lock}
	if err := fsx.WriteFile(r.path("script.lua"), script, 0o644); err != nil {
		_ = lock.Unlock()
		return nil, ioError(err)
	}
	if err := r.Pin(pins); err != nil {
		_ = lock.Unlock()
		return nil, err
	}
	// The header comes last: with it the directory is a run.
	if err := writeRecord(r.path("run.json"), header); err != nil {
		_ = lock.Unlock()
		return nil, err
	}
	return r, nil
}

// Copy makes a run in dir as r was when it began, with all that oracles said in it and what it opened: for a replay.
func Copy(r *Run, dir string) (*Run, error) {
	script, err := r.Script()
	if err != nil {
		return nil, err
	}
	pins, err := r.Pins()
	if err != nil {
		return nil, err
	}
	out, err := Create(dir, r.header, script, pins.Values)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{JudgmentsFile, OpenedFile} {
		text, err := os.ReadFile(r.path(name))
		if isMissing(err) {
			continue
		}
		if err == nil {
			err = fsx.WriteFile(out.path(name), text, 0o644)
		}
		if err != nil {
			_ = out.Close()
			return nil, ioError(err)
		}
	}
	return out, nil
}

// Open opens an existing run for writing and holds its lock; [sdk.CodeLocked] if another process does.
func Open(dir string) (*Run, error) {
	r, err := Read(dir)
	if err != nil {
		return nil, err
	}
	if r.lock, err = acquire(dir); err != nil {
		return nil, err
	}
	folders, _ := filepath.Glob(r.path("iter-*")) // the pattern is right
	for _, dir := range append(folders, dir) {
		if err := fsx.Tidy(dir); err != nil { // of what a crash has left
			_ = r.lock.Unlock()
			return nil, ioError(err)
		}
	}
	return r, nil
}

// Read opens an existing run for reading only; it never waits for a writer.
func Read(dir string) (*Run, error) {
	if !Exists(dir) {
		return nil, sdk.Errorf(sdk.CodeUsage, "open run %s: there is no run.json in it", dir).
			WithHint("start a run with: dno run --dir %s", dir)
	}
	r := &Run{dir: dir}
	if err := readRecord(r.path("run.json"), &r.header); err != nil {
		return nil, err
	}
	if r.header.Format != Format {
		return nil, sdk.Errorf(sdk.CodeUsage, "open run %s: it has format %d, this version reads format %d", dir, r.header.Format, Format)
	}
	return r, nil
}

// acquire takes the run's lock. The file is never renamed or removed: the kernel frees the lock
// with its holder, so a crash leaves nothing to clean up.
func acquire(dir string) (*flock.Flock, error) {
	lock := flock.New(filepath.Join(dir, "lock"))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, ioError(fmt.Errorf("lock the run directory: %w", err))
	}
	if !ok {
		return nil, sdk.Errorf(sdk.CodeLocked, "open run %s: another process is writing to it", dir).
			WithHint("wait until it ends; dno status %s shows where it is", dir)
	}
	return lock, nil
}

// Close frees the lock.
func (r *Run) Close() error {
	if r.lock == nil {
		return nil
	}
	return r.lock.Unlock()
}

// Dir is the run's directory.
func (r *Run) Dir() string { return r.dir }

// Header is what run.json says.
func (r *Run) Header() Header { return r.header }

// Script returns the script as it was when the run began.
func (r *Run) Script() ([]byte, error) {
	text, err := os.ReadFile(r.path("script.lua"))
	if err != nil {
		return nil, ioError(err)
	}
	return text, nil
}

// Iterations returns the finished iterations, π_1's evaluation (iteration 0) first.
func (r *Run) Iterations() ([]IterationRecord, error) {
	records, err := ReadLog[IterationRecord](r.path("run.jsonl"))
	if err != nil {
		return nil, err
	}
	for i, rec := range records {
		if rec.Iteration != i {
			return nil, sdk.Errorf(sdk.CodeCorrupt, "read %s:%d: it is iteration %d, want %d", r.path("run.jsonl"), i+1, rec.Iteration, i)
		}
	}
	return records, nil
}

// Finish appends an iteration's record: with it the iteration is done.
func (r *Run) Finish(record IterationRecord) error {
	log, _, err := OpenLog[IterationRecord](r.path("run.jsonl"))
	if err != nil {
		return err
	}
	defer log.Close()
	return log.Append(record)
}

// Conclude marks that the run has ended, with the reason ("all 4 iterations are done").
func (r *Run) Conclude(reason string) error {
	return writeRecord(r.path("end.json"), map[string]string{"reason": reason})
}

// Concluded returns why the run ended, or "" where it has not.
func (r *Run) Concluded() (string, error) {
	var end struct {
		Reason string `json:"reason"`
	}
	err := readRecord(r.path("end.json"), &end)
	if isMissing(err) {
		return "", nil
	}
	return end.Reason, err
}

func (r *Run) path(name string) string { return filepath.Join(r.dir, name) }

// Iteration returns the folder of iteration t, making it if the run is open for writing.
func (r *Run) Iteration(t int) (Iteration, error) {
	it := Iteration{dir: r.iterationDir(t)}
	if r.lock == nil {
		return it, nil
	}
	return it, ioError(fsx.MkdirAll(it.dir))
}

func (r *Run) iterationDir(t int) string { return r.path(fmt.Sprintf("iter-%03d", t)) }

const checkpointName = "checkpoint"

// Iteration is the folder of one iteration.
type Iteration struct{ dir string }

// Undo takes back the records of all iterations after t, which are then made again: their plans, completions
// and verdicts stay and are found again, their checkpoints go.
func (r *Run) Undo(t int) error {
	done, err := r.Iterations()
	if err != nil {
		return err
	}
	if err := WriteLog(r.path("run.jsonl"), done[:min(len(done), t+1)]); err != nil {
		return err
	}
	if err := fsx.RemoveAll(r.path("end.json")); err != nil {
		return ioError(err)
	}
	for s := t + 1; s < len(done); s++ {
		it, err := r.Iteration(s)
		if err != nil {
			return err
		}
		if err := fsx.RemoveAll(it.Checkpoint()); err != nil {
			return ioError(err)
		}
	}
	return nil
}

// Checkpoint is the path of the policy's checkpoint at the iteration's end.
func (it Iteration) Checkpoint() string { return filepath.Join(it.dir, checkpointName) }

const stepPrefix = "step-"

// StepCheckpoint is the path of a checkpoint inside of the iteration's training.
func (it Iteration) StepCheckpoint(step int) string {
	return filepath.Join(it.dir, fmt.Sprintf("%s%06d", stepPrefix, step))
}

// StepCheckpoints are the steps that there is a checkpoint of, in order.
func (it Iteration) StepCheckpoints() (steps []int, err error) {
	entries, err := os.ReadDir(it.dir)
	if err != nil && !isMissing(err) {
		return nil, ioError(err)
	}
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), stepPrefix)
		if step, err := strconv.Atoi(number); ok && err == nil {
			steps = append(steps, step)
		}
	}
	slices.Sort(steps)
	return steps, nil
}

// RemoveStepCheckpoint removes one.
func (it Iteration) RemoveStepCheckpoint(step int) error {
	return ioError(fsx.RemoveAll(it.StepCheckpoint(step)))
}

// Files are the names of all that the iteration has left, those in its checkpoint too, in order.
func (it Iteration) Files() (names []string, err error) {
	err = filepath.WalkDir(it.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			name, _ := filepath.Rel(it.dir, path) // it is below
			names = append(names, name)
		}
		return err
	})
	return names, ioError(err)
}

// Tidy removes what only an iteration in progress needs: checkpoints of its steps, draws of its evaluation, and what a crash
// has left of a write.
func (it Iteration) Tidy() error {
	steps, err := it.StepCheckpoints()
	if err != nil {
		return err
	}
	for _, step := range steps {
		if err := it.RemoveStepCheckpoint(step); err != nil {
			return err
		}
	}
	if err := fsx.RemoveAll(it.Path(DrawsFile)); err != nil {
		return ioError(err)
	}
	return ioError(fsx.Tidy(it.dir))
}

// Path returns the path of one of the iteration's files.
func (it Iteration) Path(name string) string { return filepath.Join(it.dir, name) }

// The names of an iteration's records.
const (
	PlanFile        = "plan.json"
	CompletionsFile = "completions.jsonl"
	VerdictsFile    = "verdicts.jsonl"
	PairsFile       = "pairs.jsonl"
	StepsFile       = "steps.jsonl"
	DrawsFile       = "draws.jsonl" // of the evaluation, until it is done
	EvaluationFile  = "eval.json"
	ValidationFile  = "eval-validation.jsonl"
	TestFile        = "eval-test.jsonl"
)

// BadBatch is the name of the file with the batch of a step that could not be made.
func BadBatch(step int) string { return fmt.Sprintf("bad-step-%06d.json", step) }

// WriteRecord writes one of the iteration's single records, all or nothing.
func (it Iteration) WriteRecord(name string, v any) error { return writeRecord(it.Path(name), v) }

// ReadRecord reads it back; ok is false where there is none yet.
func (it Iteration) ReadRecord(name string, v any) (ok bool, err error) {
	err = readRecord(it.Path(name), v)
	if isMissing(err) {
		return false, nil
	}
	return err == nil, err
}
