package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"

	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/engine/weights"
	"github.com/dno-project/dno/core/fsx"
)

// SaveOptions say what [Engine.Save] writes beside the weights, and how.
type SaveOptions struct {
	Optimizer bool // the optimizer's state too, so that training goes on as if it had not stopped
	BF16      bool // weights rounded to bfloat16: half the size, for a model to be shipped

	// Files go in beside the engine's own, by name: what else a caller has to find again with the weights.
	Files map[string][]byte
}

const (
	weightsFile   = "model.safetensors"
	optimizerFile = "optimizer.safetensors"
	stateFile     = "state.json"
)

// state is what state.json holds.
type state struct {
	Step      int             `json:"step"` // updates made
	Optimizer OptimizerConfig `json:"optimizer"`
}

// Save writes a complete Hugging Face directory, all or nothing: config.json, model.safetensors and the
// tokenizer's files, which transformers loads, and with Optimizer also optimizer.safetensors and
// state.json; last a manifest of them all. What stood at dir is replaced.
//
// Of an engine with an adapter it writes that alone: adapter_config.json and adapter_model.safetensors, which PEFT loads,
// and base.json with the fingerprint of the frozen weights, in place of config.json and model.safetensors.
//
// Errors: [ErrNotFinite] for weights that no training or sampling can go on from; nothing is written then.
func (e *Engine) Save(dir string, o SaveOptions) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case o.Optimizer && e.solver == nil:
		return fmt.Errorf("save the model to %s with its optimizer: the optimizer has not been started", dir)
	case o.Optimizer && o.BF16:
		return fmt.Errorf("save the model to %s: rounded weights and an optimizer's state do not go together", dir)
	}
	for _, p := range e.model.Trainable().All {
		if notFinite([]float64{kernel.SumSquares(p.W)}) >= 0 {
			return fmt.Errorf("save the model to %s: tensor %s: %w", dir, p.Name, ErrNotFinite)
		}
	}
	if err := fsx.WriteDir(dir, func(tmp string) error { return e.write(tmp, o) }); err != nil {
		if fsx.IsNoSpace(err) {
			return fmt.Errorf("save the model to %s, which needs %d bytes: %w", dir, e.size(o), err)
		}
		return fmt.Errorf("save the model to %s: %w", dir, err)
	}
	return nil
}

// size is what a directory takes, without headers.
func (e *Engine) size(o SaveOptions) (bytes int) {
	for _, p := range e.model.Trainable().All {
		n := len(p.W)
		switch {
		case o.Optimizer:
			bytes += 12 * n // weights and two moments
		case o.BF16:
			bytes += 2 * n
		default:
			bytes += 4 * n
		}
	}
	for _, files := range []map[string][]byte{e.files, o.Files} {
		for _, data := range files {
			bytes += len(data)
		}
	}
	return bytes
}

func (e *Engine) write(dir string, o SaveOptions) error {
	dtype, spelled := weights.F32, "float32"
	if o.BF16 {
		dtype, spelled = weights.BF16, "bfloat16"
	}
	files := maps.Clone(e.files)
	maps.Copy(files, o.Files)
	tensors := weightsFile
	if e.model.Adapter() != nil {
		adapter, err := e.adapterFiles()
		if err != nil {
			return err
		}
		maps.Copy(files, adapter)
		tensors = adapterFile
	} else {
		config, err := e.model.Config.JSON(spelled)
		if err != nil {
			return err
		}
		files["config.json"] = append(config, '\n')
	}
	if o.Optimizer {
		if err := e.writeOptimizer(dir); err != nil {
			return err
		}
	}
	if err := put(dir, files); err != nil {
		return err
	}
	if err := weights.Write(filepath.Join(dir, tensors), e.model.Tensors(dtype), nil); err != nil {
		return err
	}
	return fsx.Seal(dir)
}

// writeOptimizer writes the running means as tensors m.NAME and v.NAME, and the rest as JSON.
func (e *Engine) writeOptimizer(dir string) error {
	s := e.solver.AdamW.State()
	var tensors []weights.Out
	for _, p := range s.Moments {
		tensors = append(tensors,
			weights.Out{Name: "m." + p.Name, Shape: []int{len(p.M)}, DType: weights.F32, Data: p.M},
			weights.Out{Name: "v." + p.Name, Shape: []int{len(p.V)}, DType: weights.F32, Data: p.V})
	}
	if err := weights.Write(filepath.Join(dir, optimizerFile), tensors, nil); err != nil {
		return err
	}
	data, err := json.MarshalIndent(state{Step: s.Step, Optimizer: e.optimizer}, "", "  ")
	if err != nil {
		return err
	}
	return fsx.Put(filepath.Join(dir, stateFile), append(data, '\n'))
}

// Restore replaces the weights by those of a checkpoint of the same shape. The optimizer goes on where
// the checkpoint's stopped; where it has none, the optimizer has to be started again. An engine with an adapter takes a
// checkpoint of an adapter of the same kind over the same weights.
//
// Errors: [fsx.ErrDamaged], with the file whose content is not what the checkpoint's manifest says; [ErrNoModel];
// [ErrOtherBase]; one naming the tensor that is missing or of another shape. After an error the weights are as they were,
// unless reading the disk itself failed half way.
func (e *Engine) Restore(dir string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.restore(dir); err != nil {
		return fmt.Errorf("restore the checkpoint at %s: %w", dir, err)
	}
	return nil
}

func (e *Engine) restore(dir string) error {
	if err := fsx.Recover(dir); err != nil {
		return err
	}
	if err := fsx.Verify(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrNoModel, err)
	} else if err != nil {
		return err
	}
	open, read := e.checkpointModel, e.model.Read
	if e.model.Adapter() != nil {
		open, read = e.checkpointAdapter, e.model.ReplaceAdapter
	}
	f, err := open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	solver, settings, err := e.readOptimizer(dir)
	if err != nil {
		return err
	}
	if err := read(f); err != nil {
		return err
	}
	e.solver, e.optimizer = solver, settings
	return nil
}

// checkpointModel opens the weights of a verified checkpoint and compares them with the engine's.
func (e *Engine) checkpointModel(dir string) (*weights.File, error) {
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, adapterConfigFile)); err == nil {
			return nil, fmt.Errorf("%w: it has no config.json but an adapter, and the policy is a whole model", ErrNoModel)
		}
		return nil, fmt.Errorf("%w: it has no config.json", ErrNoModel)
	} else if err != nil {
		return nil, err
	}
	c, err := model.ParseConfig(data)
	if err != nil {
		return nil, err
	}
	f, err := weights.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := e.model.Fits(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !reflect.DeepEqual(c, e.model.Config) {
		return nil, errors.Join(fmt.Errorf("its config.json is of another model: %+v, want %+v", c, e.model.Config), f.Close())
	}
	return f, nil
}

// readOptimizer returns a solver in the state that dir holds, or nil where it holds none.
func (e *Engine) readOptimizer(dir string) (*graph.Solver, OptimizerConfig, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, OptimizerConfig{}, nil
	} else if err != nil {
		return nil, OptimizerConfig{}, err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, OptimizerConfig{}, fmt.Errorf("read %s: %w", stateFile, err)
	}
	solver, err := e.newSolver(s.Optimizer)
	if err != nil {
		return nil, OptimizerConfig{}, fmt.Errorf("read %s: %w", stateFile, err)
	}
	f, err := weights.Open(filepath.Join(dir, optimizerFile))
	if err != nil {
		return nil, OptimizerConfig{}, err
	}
	defer f.Close()
	restored := solver.AdamW.State()
	restored.Step = s.Step
	for _, p := range restored.Moments {
		if err := errors.Join(readMoment(f, "m."+p.Name, p.M), readMoment(f, "v."+p.Name, p.V)); err != nil {
			return nil, OptimizerConfig{}, fmt.Errorf("read %s: %w", optimizerFile, err)
		}
	}
	return solver, s.Optimizer, solver.AdamW.SetState(restored)
}

func readMoment(f *weights.File, name string, to []float32) error {
	t, ok := f.Tensor(name)
	if !ok || t.Len() != len(to) {
		return fmt.Errorf("tensor %s has %d values, want %d", name, t.Len(), len(to))
	}
	_, err := t.Float32s(to)
	return err
}
