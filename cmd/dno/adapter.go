package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/dno-project/dno/core/engine"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

// maxAdapters is how many adapters may stand one on another; a circle has no end.
const maxAdapters = 8

// loadWhole is loadModel for one whose weights are to be trained, or to get an adapter: an adapter that it has is merged.
func loadWhole(ref, from string) (*engine.Engine, error) { return loadMerged(ref, from, maxAdapters) }

func loadMerged(ref, from string, depth int) (*engine.Engine, error) {
	e, _, err := loadUnder(ref, from, depth)
	if err != nil {
		return nil, err
	}
	if e.Model().Adapter() != nil {
		err = e.MergeAdapter()
	}
	return e, err
}

// loadUnder reads a model. Of an adapter's directory it reads first what it is an adapter of, merged, and puts the adapter
// on that; held says in which format the adapter's training held those weights.
func loadUnder(ref, from string, depth int) (e *engine.Engine, held string, err error) {
	fsys, dir, err := openRef(ref, from)
	if err != nil {
		return nil, "", err
	}
	base, ok, err := engine.AdapterBase(fsys, dir)
	switch {
	case err != nil:
		return nil, "", modelError(ref, err)
	case !ok:
		e, err := engine.Load(fsys, dir)
		if err != nil {
			return nil, "", modelError(ref, err)
		}
		return e, engine.HeldFloat32, nil
	case depth == 0:
		return nil, "", sdk.Errorf(sdk.CodeCorrupt, "open model %q: more than %d adapters stand one on another", ref, maxAdapters)
	case base == "":
		return nil, "", sdk.Errorf(sdk.CodeUsage, "open model %q: its adapter_config.json does not say what it is an adapter of", ref).
			WithHint("write a directory behind base_model_name_or_path")
	}
	if e, err = loadMerged(base, locate(ref, from), depth-1); err != nil {
		return nil, "", sdk.Errorf(sdk.CodeOf(err), "open what the adapter %q is an adapter of: %w", ref, err).
			WithHint("base_model_name_or_path in its adapter_config.json is that model's directory, from the adapter's on where it is relative")
	}
	if err := e.LoadAdapter(fsys, dir); err != nil {
		return nil, "", modelError(ref, err)
	}
	if held, err = engine.AdapterHeld(fsys, dir); err != nil {
		return nil, "", modelError(ref, err)
	}
	return e, held, nil
}

// addAdapter puts a fresh adapter on a model, if the experiment trains one. from is where the model's path starts.
func addAdapter(e *engine.Engine, x loop.Experiment, from string) error {
	c := x.LoRA
	if c == nil {
		return nil
	}
	if c.Base == engine.HeldBFloat16 && x.Precision == kernel.Float32.String() {
		return sdk.Errorf(sdk.CodeUsage, "lora.base = %q: products with weights held so are bfloat16, and precision is %q", c.Base, x.Precision).
			WithHint(`leave precision "auto", or hold the weights in float32`)
	}
	base := x.Model
	if !strings.HasPrefix(base, embedded) {
		base = locate(base, from)
	}
	err := e.AddAdapter(model.LoRA{Rank: c.Rank, Alpha: c.Alpha, RankStabilized: c.RankStabilized, Targets: c.Targets, Base: base}, x.Seed)
	if err == nil {
		err = e.HoldBase(c.Base)
	}
	if err != nil {
		return sdk.Errorf(sdk.CodeUsage, "lora: %w", err)
	}
	return nil
}

func (a *app) mergeCommand() *cobra.Command {
	var bf16 bool
	c := &cobra.Command{
		Use:   "merge ADAPTER OUT",
		Short: "Merge an adapter into the weights below it",
		Long: `Merge an adapter (a checkpoint of a run with lora, or a directory of PEFT's) into the weights that it is an
adapter of, and write a whole model to OUT. The merged model computes the same up to rounding.`,
		Example: "  dno merge runs/dno-1/iter-004/checkpoint merged",
		Args:    cobra.ExactArgs(2),
		RunE:    func(_ *cobra.Command, args []string) error { return a.merge(args[0], args[1], bf16) },
	}
	c.Flags().BoolVar(&bf16, "bf16", false, "save weights rounded to bfloat16")
	return c
}

func (a *app) merge(adapter, out string, bf16 bool) error {
	if err := checkKernel(); err != nil {
		return err
	}
	if err := replaceable("merge", out); err != nil {
		return err
	}
	e, _, err := loadUnder(adapter, ".", maxAdapters)
	if err != nil {
		return err
	}
	if e.Model().Adapter() == nil {
		return sdk.Errorf(sdk.CodeUsage, "merge: %s is no adapter: it has no adapter_config.json", adapter)
	}
	if err := e.MergeAdapter(); err != nil {
		return err
	}
	if err := save(e, out, engine.SaveOptions{BF16: bf16}); err != nil {
		return err
	}
	if a.json {
		return a.printJSON(map[string]any{"adapter": adapter, "out": out, "fingerprint": e.Fingerprint()})
	}
	fmt.Fprintf(a.stdout, "%s: %s merged, fingerprint %s\n", out, adapter, e.Fingerprint())
	return nil
}

// adapterError reports whether an error is one of an adapter that does not fit, and not of a damaged file.
func adapterError(err error) bool {
	return errors.Is(err, model.ErrAdapter) || errors.Is(err, engine.ErrOtherBase)
}
