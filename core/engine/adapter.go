package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/engine/weights"
	"github.com/dno-project/dno/core/fsx"
)

// The files of an adapter. The first two are PEFT's; the third says of which weights exactly it is an adapter.
const (
	adapterConfigFile = "adapter_config.json"
	adapterFile       = "adapter_model.safetensors"
	baseFile          = "base.json"
)

// base is what base.json holds.
type base struct {
	Fingerprint string `json:"fingerprint"`    // of the frozen weights; see [Engine.Fingerprint]
	Held        string `json:"held,omitempty"` // in which format; "": float32
}

// ErrOtherBase says that an adapter was trained on other weights than the model's.
var ErrOtherBase = errors.New("the adapter is of another base model")

// Formats in which frozen weights can be held; see [Engine.HoldBase].
const (
	HeldFloat32  = "float32"
	HeldBFloat16 = "bfloat16"
	HeldQ8       = "q8_0"
)

// AdapterBase returns what the directory's adapter says that it is an adapter of: PEFT's base_model_name_or_path. ok is
// false where the directory holds no adapter.
func AdapterBase(fsys fs.FS, dir string) (name string, ok bool, err error) {
	c, err := readAdapterConfig(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	return c.Base, err == nil, err
}

func readAdapterConfig(fsys fs.FS, dir string) (model.LoRA, error) {
	data, err := fs.ReadFile(fsys, path.Join(dir, adapterConfigFile))
	if err != nil {
		return model.LoRA{}, err
	}
	return model.ParseLoRA(data)
}

// AddAdapter freezes the weights and adds a fresh adapter, which changes nothing yet: from now on it alone is trained,
// saved and restored. The optimizer has to be started again. seed decides what A is.
//
// Errors: [model.ErrAdapter]. The engine is then as it was.
func (e *Engine) AddAdapter(c model.LoRA, seed uint64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	sum := e.fingerprint()
	if err := e.model.AddAdapter(c, seed); err != nil {
		return err
	}
	e.adapted(sum)
	return nil
}

// LoadAdapter is AddAdapter for the adapter of a directory: one of PEFT's, or a checkpoint of an engine with one.
//
// Errors: [model.ErrAdapter], [ErrOtherBase] where the directory says of which weights it is, else one naming the file and what
// is wrong with it. The engine is then as it was.
func (e *Engine) LoadAdapter(fsys fs.FS, dir string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.loadAdapter(fsys, dir); err != nil {
		return fmt.Errorf("load the adapter at %s: %w", dir, err)
	}
	return nil
}

func (e *Engine) loadAdapter(fsys fs.FS, dir string) error {
	c, err := readAdapterConfig(fsys, dir)
	if err != nil {
		return err
	}
	sum := e.fingerprint()
	data, err := fs.ReadFile(fsys, path.Join(dir, baseFile))
	if err == nil {
		err = sameBase(data, sum)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := weights.OpenFileFS(fsys, path.Join(dir, adapterFile))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := e.model.ReadAdapter(c, f); err != nil {
		return err
	}
	e.adapted(sum)
	return nil
}

// AdapterHeld returns in which format training held the weights below the adapter of a directory; see [Engine.HoldBase].
func AdapterHeld(fsys fs.FS, dir string) (string, error) {
	data, err := fs.ReadFile(fsys, path.Join(dir, baseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return HeldFloat32, nil
	} else if err != nil {
		return "", err
	}
	var b base
	if err := json.Unmarshal(data, &b); err != nil {
		return "", fmt.Errorf("read %s: %w", baseFile, err)
	}
	if b.Held == "" {
		return HeldFloat32, nil
	}
	return b.Held, nil
}

func sameBase(data []byte, sum string) error {
	var b base
	if err := json.Unmarshal(data, &b); err != nil {
		return fmt.Errorf("read %s: %w", baseFile, err)
	}
	if b.Fingerprint != sum {
		return fmt.Errorf("%w: its weights have the fingerprint %.12s, the model's %.12s", ErrOtherBase, b.Fingerprint, sum)
	}
	return nil
}

// adapted notes that the model has an adapter over weights of a fingerprint.
func (e *Engine) adapted(sum string) {
	e.baseSum = sum
	e.forget()
}

// forget gives up what was built over other parameters.
func (e *Engine) forget() { e.score, e.train, e.solver = nil, nil, nil }

// MergeAdapter adds the adapter to the weights, which can then be trained themselves, and takes it away.
//
// Errors: there is none, or the weights are held rounded.
func (e *Engine) MergeAdapter() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.model.Adapter() == nil {
		return errors.New("merge the adapter: the model has none")
	}
	if err := e.model.Merge(); err != nil {
		return err
	}
	e.baseSum = ""
	e.forget()
	return nil
}

// HoldBase holds the frozen weights in fewer bytes. Training and sampling use that one copy, so that their
// log-probabilities stay equal to the bit; norms and the adapter stay float32.
//
//   - [HeldFloat32]: as they are; nothing happens.
//   - [HeldBFloat16]: rounded to bfloat16, and all products with them, backward too, are those of [kernel.BFloat16],
//     whatever precision is set. A checkpoint in bfloat16 loses nothing. 2 bytes a weight where the CPU has instructions
//     for it, 4 elsewhere.
//   - [HeldQ8]: blocks of 32 weights with one scale. A forward product rounds its activations to int8, too; a backward
//     product takes the rounded weights, in the precision that is set, and leaves that out: the gradient is that of the
//     weights held, not of the rounding. A little over 1 byte a weight.
//
// Errors: an unknown format, or no adapter.
func (e *Engine) HoldBase(format string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	pack := kernel.PackBF16
	switch format {
	case HeldFloat32:
		return nil
	case HeldBFloat16:
	case HeldQ8:
		pack = kernel.PackQ8
	default:
		return fmt.Errorf("hold the weights as %q: want %s, %s or %s", format, HeldFloat32, HeldBFloat16, HeldQ8)
	}
	if err := e.model.Hold(pack); err != nil {
		return err
	}
	e.held = format
	if format == HeldBFloat16 {
		e.model.SetPrecision(kernel.BFloat16)
	}
	e.forget()
	return nil
}

// Level names the first instruction set whose results are the same bytes as this machine's for the engine's products.
func (e *Engine) Level() string {
	if e.held == HeldQ8 {
		return kernel.Level()
	}
	return e.model.Precision().Level()
}

// adapterFiles returns what a checkpoint holds beside an adapter's tensors.
func (e *Engine) adapterFiles() (map[string][]byte, error) {
	config, err := e.model.Adapter().JSON()
	if err != nil {
		return nil, err
	}
	of, err := json.MarshalIndent(base{e.baseSum, e.held}, "", "  ")
	return map[string][]byte{adapterConfigFile: append(config, '\n'), baseFile: append(of, '\n')}, err
}

// checkpointAdapter opens the adapter of a verified checkpoint and compares it with the engine's.
func (e *Engine) checkpointAdapter(dir string) (*weights.File, error) {
	c, err := readAdapterConfig(os.DirFS(dir), ".")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it has no %s, and the policy is an adapter", ErrNoModel, adapterConfigFile)
	} else if err != nil {
		return nil, err
	}
	if have := *e.model.Adapter(); !c.Same(have) {
		return nil, fmt.Errorf("its %s is of another adapter: %+v, want %+v", adapterConfigFile, c, have)
	}
	data, err := os.ReadFile(filepath.Join(dir, baseFile))
	if err != nil {
		return nil, err
	}
	if err := sameBase(data, e.baseSum); err != nil {
		return nil, err
	}
	f, err := weights.Open(filepath.Join(dir, adapterFile))
	if err != nil {
		return nil, err
	}
	if err := e.model.FitsAdapter(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Memory returns the bytes of the weights and, of those that are trained, of gradients and the optimizer's state: without
// activations and the copy that is packed for sampling.
func (e *Engine) Memory() (bytes int) {
	const float = 4
	for _, p := range e.model.Trainable().All {
		bytes += 4 * float * len(p.W)
	}
	if e.model.Adapter() == nil {
		return bytes
	}
	for _, p := range e.model.Params().All {
		if bytes += float * len(p.W); p.Held != nil {
			bytes += p.Held.Size()
		}
	}
	return bytes
}

// put writes files into a directory in the making.
func put(dir string, files map[string][]byte) error {
	for name, data := range files {
		if err := fsx.Put(filepath.Join(dir, name), data); err != nil {
			return err
		}
	}
	return nil
}
