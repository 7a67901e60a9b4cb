package loop

import (
	"context"

	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// Plugin names a plugin and how the script wants it: its own settings, and those of the host.
type Plugin struct {
	Name     string       `json:"name"` // with a slash: the path of an executable
	Settings sdk.Settings `json:"settings,omitempty"`
	Env      []string     `json:"env,omitempty"`     // names of the variables that it may see
	Timeout  float64      `json:"timeout,omitempty"` // seconds a call; 0 is the host's default
	Memory   float64      `json:"memory,omitempty"`  // MiB; 0 is the host's default
	C        float64      `json:"c,omitempty"`       // losses: sharpens win rates into the target σ(c·(r₁−r₂))
}

// Plan is what one iteration shall do. Every field is also a top-level setting of the script:
// the default of each iteration's plan. The JSON names are the script's keys.
type Plan struct {
	Prompts Selection `json:"prompts"` // which of the training prompts

	// Sampling.
	Samples int     `json:"samples"` // K, the policy's completions a prompt
	Sampler Plugin  `json:"sampler"`
	Teacher *Plugin `json:"teacher,omitempty"` // a sampler in the role of the teacher; nil: none

	// Judging and pairing.
	Oracle     Plugin  `json:"oracle"`
	Opponents  string  `json:"opponents"`  // "own": the policy's completions; "all": Algorithm 2 as printed
	Estimator  string  `json:"estimator"`  // of the win rate; see preference.Options
	MinMargin  float64 `json:"min_margin"` // least leave-pair-out win-rate difference of a pair
	MaxPairs   int     `json:"max_pairs"`  // a prompt; 0: no limit
	MaxAbstain float64 `json:"max_abstain"`

	// Training.
	Loss        Plugin  `json:"loss"`
	Reference   string  `json:"reference"` // "previous" (π_t), "initial" (π_1)
	LR          float64 `json:"lr"`
	LRSchedule  string  `json:"lr_schedule"` // "constant", "linear", "cosine"
	Warmup      int     `json:"warmup"`      // steps
	Epochs      int     `json:"epochs"`
	BatchSize   int     `json:"batch_size"` // units (pairs, completions or groups) a step
	BatchBy     string  `json:"batch_by"`   // [ByPrompt] or [ByUnit]; [ByUnit] where a record of an earlier version has none
	Clip        float64 `json:"clip"`       // largest gradient norm; 0: none
	WeightDecay float64 `json:"weight_decay"`
	AdamBeta1   float64 `json:"adam_beta1"`
	AdamBeta2   float64 `json:"adam_beta2"`
	AdamEpsilon float64 `json:"adam_epsilon"`
}

// Selection says which of the training prompts an iteration uses: the Split-th of Of disjoint
// parts, shuffled by the run's seed; of those the first Count. Of 0 means all, Count 0 no limit.
type Selection struct {
	Split int `json:"split"` // from 1
	Of    int `json:"of"`
	Count int `json:"count"`
}

// Evaluate says how every policy is measured, whatever the iterations train on.
type Evaluate struct {
	Oracle      Plugin  `json:"oracle"`
	Temperature float64 `json:"temperature"`
	MaxTokens   int     `json:"max_tokens"` // 0: the sampler's
}

// Files name the three sets of prompts.
type Files struct {
	Train      string `json:"train"`
	Validation string `json:"validation"`
	Test       string `json:"test"`
}

// Experiment is a whole script, read: its settings, and the plan that each iteration starts from.
type Experiment struct {
	Model      string `json:"model"`
	Files      Files  `json:"files"`
	Seed       uint64 `json:"seed"`
	Iterations int    `json:"iterations"`
	LoRA       *LoRA  `json:"lora,omitempty"` // nil: all weights are trained
	Precision  string `json:"precision"`      // of the policy's products: "auto", or a name that its engine knows
	// SamplingWeights are those that samplers draw with: "same" as the policy's, or a name that its engine knows. All
	// that is trained on and measured is the policy's own: log-probabilities come from it, whatever drew a completion.
	SamplingWeights string `json:"sampling_weights"`
	// CheckpointEvery is after how many steps of training a checkpoint is made; 0: at an iteration's end only.
	CheckpointEvery int      `json:"checkpoint_every"`
	Budget          Budget   `json:"budget"`
	Evaluate        Evaluate `json:"evaluate"`
	Plan            Plan     `json:"plan"`
}

// LoRA says that a low-rank adapter is trained in place of the policy's weights, which stay as they are.
type LoRA struct {
	Rank           int      `json:"r"`
	Alpha          float64  `json:"alpha"`   // the adapter is scaled by alpha/r
	RankStabilized bool     `json:"rslora"`  // by alpha/√r
	Targets        []string `json:"targets"` // names of layers, or [AllLinear] alone
	Base           string   `json:"base"`    // in which the frozen weights are held: "float32", or a format that the engine knows
}

// AllLinear as a target is every linear layer of the decoder.
const AllLinear = "all-linear"

// DefaultLoRA is what a script's lora holds where it says nothing.
func DefaultLoRA() LoRA {
	return LoRA{Rank: 8, Alpha: 16, Targets: []string{AllLinear}, Base: "float32"}
}

// What is shuffled and dealt out to batches.
const (
	// ByPrompt keeps a prompt's units together: a completion goes through the model once for all its pairs, its prompt
	// once for all its completions.
	ByPrompt = "prompt"
	ByUnit   = "unit" // each by itself, as TRL does
)

// DefaultPlan is what a plan holds where the script says nothing.
func DefaultPlan() Plan {
	return Plan{
		Samples:    5,
		Sampler:    Plugin{Name: "nucleus"},
		Opponents:  "own",
		Estimator:  "leave-pair-out",
		MinMargin:  0.3,
		MaxAbstain: 0.05,
		Loss:       Plugin{Name: "dno", C: DefaultC},
		Reference:  "previous",
		LR:         1e-4,
		LRSchedule: "constant",
		Epochs:     1,
		BatchSize:  32,
		BatchBy:    ByUnit,
		Clip:       1,
		AdamBeta1:  0.9, AdamBeta2: 0.95, AdamEpsilon: 1e-8,
	}
}

// DefaultPrecision is what [Experiment.Precision] is where the script says nothing.
const DefaultPrecision = "auto"

// DefaultSamplingWeights is what [Experiment.SamplingWeights] is where the script says nothing.
const DefaultSamplingWeights = "same"

// DefaultCheckpointEvery is what [Experiment.CheckpointEvery] is where the script says nothing.
const DefaultCheckpointEvery = 20

// DefaultC is the sharpening of win rates into targets where the script says nothing.
const DefaultC = 4.0

// Script is the user's decisions. The zero answers are the paper's: see each method.
type Script interface {
	// Plan returns the plan of iteration t (from 1), given the figures of all finished ones,
	// measured on validation; nil ends the run.
	Plan(ctx context.Context, t int, history []rundir.IterationRecord) (*Plan, error)
	// Mix returns which completions of a group may be paired, as indices into own followed by
	// teacher; all of them where the script has no mix.
	Mix(ctx context.Context, t int, prompt sdk.Prompt, own, teacher []sdk.Completion) ([]int, error)
	// Pairs returns the pairs of a judged game; by default those of the plan's margin.
	Pairs(ctx context.Context, t int, prompt sdk.Prompt, game *preference.Game, rule preference.Rule) ([]preference.Pair, error)
}
