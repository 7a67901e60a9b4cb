package main

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/dno-project/dno/sdk"
)

// Loss is the binary classifier of chosen against rejected completions. Of one pair
//
//	L = −log σ(β·w − δ) − log σ(−(β·l − δ)),  w, l = log π/π_ref of the chosen, of the rejected
//
// w and l are in nats. δ is the mean of the rewards β·w and β·l of all pairs so far, those of this
// batch among them; a pair of weight 2 counts as two. So unlike a loss of the margin alone, this one
// knows which completion is to become more probable and which less.
//
// δ is held fixed in the derivatives, although it contains this batch's log-probabilities: they
// are −β·σ(δ − β·w) and β·σ(β·l − δ), and not the slope of L (hence Surrogate in the manifest).
//
// The mean lives in the state bytes, so it is saved with the run and goes on after a restart.
//
// Source: Jung et al. 2024 (arXiv 2404.04656), BCO with reward shift; the mean is updated before
// it is used, as in TRL's BCOTrainer.
//
// Differs: TRL averages over the 2B completions, which is half of this mean over B pairs. The
// density ratio, for data whose chosen and rejected completions have different prompts, is left
// out: in pairs they have the same.
type Loss struct {
	Beta float64 // β > 0, per nat
}

// New returns the loss as a plugin.
func New() sdk.Loss { return &Loss{Beta: defaultBeta} }

const defaultBeta = 0.1

// Manifest declares a loss of pairs whose derivatives hold δ fixed.
func (*Loss) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Kind: sdk.KindLoss, Name: "bco", Version: "1",
		Help: "binary classifier of chosen against rejected, shifted by the running mean of the rewards (BCO)",
		Settings: []sdk.Setting{{Name: "beta", Type: sdk.TypeNumber, Default: defaultBeta, Min: sdk.AtLeast(1e-6),
			Help: "strength of the pull to the reference, per nat"}},
		Loss: sdk.LossTraits{Unit: sdk.UnitPair, Surrogate: true},
	}
}

// Configure takes the setting "beta".
func (l *Loss) Configure(_ context.Context, s sdk.Settings) error {
	l.Beta = s.Number("beta", defaultBeta)
	return nil
}

// Evaluate returns the pairs' losses, each times its weight, and the mean as its new state. The
// error says that the given state is not this loss's.
func (l *Loss) Evaluate(_ context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	delta, err := decode(b.State)
	if err != nil {
		return sdk.LossResult{}, err
	}
	reward := func(i int32) float64 { return l.Beta * (b.Policy[i] - b.Reference[i]) }
	for k, w := range b.Weight {
		delta.add(reward(b.Chosen[k]), w)
		delta.add(reward(b.Rejected[k]), w)
	}
	out := sdk.LossResult{
		Gradient: make([]float64, len(b.Policy)), State: delta.encode(),
		Metrics: map[string]float64{"delta": delta.mean},
	}
	for k, w := range b.Weight {
		i, j := b.Chosen[k], b.Rejected[k]
		chosen, rejected := reward(i)-delta.mean, reward(j)-delta.mean
		out.Loss -= w * (logSigmoid(chosen) + logSigmoid(-rejected))
		out.Gradient[i] -= w * l.Beta * sigmoid(-chosen)
		out.Gradient[j] += w * l.Beta * sigmoid(rejected)
	}
	return out, nil
}

// running is a weighted mean of what was added.
type running struct{ count, mean float64 }

func (r *running) add(x, weight float64) {
	r.count += weight
	r.mean += (x - r.mean) * weight / r.count
}

// version is the first of the state's bytes: a change of their meaning changes it.
const version = "bco1"

// encode writes the version, then count and mean as little-endian float64.
func (r running) encode() []byte {
	out := binary.LittleEndian.AppendUint64([]byte(version), math.Float64bits(r.count))
	return binary.LittleEndian.AppendUint64(out, math.Float64bits(r.mean))
}

// decode reads what encode wrote; nothing at all is the start of a run.
func decode(state []byte) (running, error) {
	if len(state) == 0 {
		return running{}, nil
	}
	if len(state) != len(version)+16 || string(state[:len(version)]) != version {
		return running{}, foreign("%d bytes that begin with %.8q, want %d that begin with %q", len(state), state, len(version)+16, version)
	}
	number := func(at int) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(state[len(version)+at:])) }
	r := running{count: number(0), mean: number(8)}
	if !(r.count > 0) || math.IsInf(r.count, 0) || math.IsNaN(r.mean) || math.IsInf(r.mean, 0) {
		return running{}, foreign("a mean of %v over %v rewards", r.mean, r.count)
	}
	return r, nil
}

func foreign(format string, args ...any) error {
	return sdk.Errorf(sdk.CodeCorrupt, "the saved state is not one of loss \"bco\", version 1: it has "+format, args...).
		WithHint("it was saved by another version of the plugin, or is damaged: start a new run")
}

// sigmoid is σ(x), with all its digits far below 0.
func sigmoid(x float64) float64 {
	if x < 0 {
		e := math.Exp(x)
		return e / (1 + e)
	}
	return 1 / (1 + math.Exp(-x))
}

// logSigmoid is log σ(x), which neither overflows nor vanishes early.
func logSigmoid(x float64) float64 { return math.Min(x, 0) - math.Log1p(math.Exp(-math.Abs(x))) }

var _ sdk.Loss = (*Loss)(nil)
