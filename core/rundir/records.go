package rundir

import "github.com/dno-project/dno/sdk"

// Header is a run's first file, run.json: how it was started, to start it again.
type Header struct {
	Format     int               `json:"format"`     // [Format]
	Script     string            `json:"script"`     // name of the script, as given
	ScriptDir  string            `json:"script_dir"` // absolute; where the script's relative paths start
	Files      map[string]string `json:"files"`      // the prompt files by role, as the script names them
	Seed       uint64            `json:"seed"`
	Settings   []string          `json:"settings"`        // --set key=value, in order
	Reuse      []string          `json:"reuse,omitempty"` // other runs whose judgments it may use; absolute
	Model      string            `json:"model"`
	Iterations int               `json:"iterations"`
	Started    string            `json:"started"` // RFC 3339, for people
}

// GroupRecord is one line of completions.jsonl.
type GroupRecord struct {
	sdk.Group
	Mixed []int `json:"mixed"` // indices of the completions that may be paired: what mix returned
}

// VerdictsRecord is one line of verdicts.jsonl: a prompt's judged game.
type VerdictsRecord struct {
	Prompt     string           `json:"prompt"`      // its ID
	Texts      []int            `json:"texts"`       // Texts[i]: index of the first completion with the same text as i
	Raw        [][]*float64     `json:"p"`           // P(i≻j) as asked with i first; null: not asked, or abstained
	BothOrders bool             `json:"both_orders"` // the oracle was asked both orders of each pair
	Abstain    []Abstention     `json:"abstain,omitempty"`
	Assessed   []sdk.Assessment `json:"assessed,omitempty"` // for each completion
	Asked      int              `json:"asked"`              // ordered pairs put to the oracle in this iteration
	Cached     int              `json:"cached,omitempty"`   // ordered pairs that it had judged in an earlier one, or in a reused run
	Cost       float64          `json:"cost,omitempty"`
	Tokens     int              `json:"tokens,omitempty"` // of the oracle
}

// Abstention is one comparison that the oracle did not decide.
type Abstention struct {
	A      int    `json:"a"`
	B      int    `json:"b"`
	Reason string `json:"reason"`
}

// PairRecord is one line of pairs.jsonl, in TRL's columns and with what DNO knows beside them.
type PairRecord struct {
	Prompt          []sdk.Message `json:"prompt"`
	Chosen          []sdk.Message `json:"chosen"`
	Rejected        []sdk.Message `json:"rejected"`
	PromptID        string        `json:"prompt_id"`
	ChosenIndex     int           `json:"chosen_index"` // into the group's completions
	RejectedIndex   int           `json:"rejected_index"`
	ChosenWinRate   float64       `json:"chosen_win_rate"` // leave-pair-out
	RejectedWinRate float64       `json:"rejected_win_rate"`
	ChosenSE        *float64      `json:"chosen_se"` // null below two opponents
	RejectedSE      *float64      `json:"rejected_se"`
	Opponents       int           `json:"opponents"`
	Preference      float64       `json:"preference"` // symmetrised P̃(chosen ≻ rejected)
	Margin          float64       `json:"margin"`
	Weight          float64       `json:"weight"`
	Class           string        `json:"class"` // teacher_student, student_teacher, student_student, teacher_teacher
}

// StepRecord is one line of steps.jsonl: one optimizer update.
type StepRecord struct {
	Step     int                `json:"step"`
	Epoch    int                `json:"epoch"`
	LR       float64            `json:"lr"`
	Loss     float64            `json:"loss"`      // mean over the batch's weight
	GradNorm float64            `json:"grad_norm"` // before clipping
	Units    int                `json:"units"`
	Tokens   int                `json:"tokens"`
	Metrics  map[string]float64 `json:"metrics,omitempty"` // TRL's names
	Skipped  string             `json:"skipped,omitempty"` // why the weights were left as they were
}

// Estimate is a mean with its 95 % interval.
type Estimate struct {
	Mean float64  `json:"mean"`
	Low  *float64 `json:"low"` // null below two values
	High *float64 `json:"high"`
	N    int      `json:"n"`
}

// Figures are one policy's figures on one set of prompts. Greedy means at evaluate.temperature.
type Figures struct {
	Accuracy        *Estimate   `json:"accuracy"`         // at evaluate.temperature; null where the oracle gives no label "correct"
	AccuracySampled *Estimate   `json:"accuracy_sampled"` // at T=1
	WinRate         *Estimate   `json:"win_rate"`         // against π_1; null for π_1 itself
	WinRateParent   *Estimate   `json:"win_rate_parent"`  // against the iteration's start
	WinRateSampled  *Estimate   `json:"win_rate_sampled"` // against the iteration's start, both sampled at T=1
	MeanTokens      Estimate    `json:"mean_tokens"`      // tokens a completion, at evaluate.temperature
	KLParent        *Estimate   `json:"kl_parent"`        // nats a completion, over the policy's own T=1 completions
	KLInitial       *Estimate   `json:"kl_initial"`       // the same to π_1
	CrossPlay       []*Estimate `json:"cross_play"`       // win rate against π_1, π_2, ... up to the parent; null where all was abstained from
}

// EvalRecord is one line of eval-validation.jsonl or eval-test.jsonl: what one policy answers to
// one prompt, at evaluate.temperature and sampled at T=1.
type EvalRecord struct {
	Prompt          string          `json:"prompt"` // its ID
	Greedy          sdk.Completion  `json:"greedy"`
	Sampled         sdk.Completion  `json:"sampled"`
	Assessed        *sdk.Assessment `json:"assessed,omitempty"` // of Greedy
	AssessedSampled *sdk.Assessment `json:"assessed_sampled,omitempty"`
	// log-probabilities of Sampled at T=1, nats: under this policy, its parent and π_1
	LogProb        float64 `json:"logprob"`
	LogProbParent  float64 `json:"logprob_parent"`
	LogProbInitial float64 `json:"logprob_initial"`
	// preferences for Greedy over the greedy completions of π_1, π_2, ... up to the parent;
	// null where the oracle abstained
	Wins []*float64 `json:"wins,omitempty"`
	// preference for Sampled over the parent's Sampled; null for π_1 or where the oracle abstained
	WinSampled *float64 `json:"win_sampled,omitempty"`
}

// Evaluation is eval.json.
type Evaluation struct {
	Validation Figures `json:"validation"`
	Test       Figures `json:"test"`
}

// IterationRecord is one line of run.jsonl. Iteration 0 is π_1, before any training.
type IterationRecord struct {
	Iteration   int            `json:"iteration"`
	Evaluation  Evaluation     `json:"evaluation"`
	Prompts     int            `json:"prompts"`
	Completions int            `json:"completions"`
	Asked       int            `json:"asked"`     // ordered pairs put to the oracle
	Cached      int            `json:"cached"`    // ordered pairs that were known from before
	Abstained   int            `json:"abstained"` // of both
	Flipped     float64        `json:"flip_rate"` // share of pairs asked both ways whose verdicts disagree
	Cost        float64        `json:"cost"`
	Tokens      int            `json:"tokens,omitempty"` // of the oracle
	Pairs       map[string]int `json:"pairs"`            // by class
	MeanMargin  float64        `json:"mean_margin"`
	Cycles      int            `json:"cycles"` // prompts whose majority relation has a cycle
	Steps       int            `json:"steps"`
	Skipped     int            `json:"skipped,omitempty"` // steps that were not made, for numbers that were not finite
	Loss        float64        `json:"loss"`              // mean over the iteration's steps
	Oracle      string         `json:"oracle"`
	LossName    string         `json:"loss_name"`
	Beta        float64        `json:"beta"` // the loss's setting beta; 0 where it has none
	Eta         float64        `json:"eta"`  // β/c of a loss of soft targets; 0 for others
	Reference   string         `json:"reference"`
	LR          float64        `json:"lr"`
	// The inequality of the paper's Section 3: P(π_{t+1} ≻ π_t) ≥ ½ + η·KL, with η = β/c; both sides, on validation.
	Inequality  *Inequality        `json:"inequality,omitempty"`
	Seconds     map[string]float64 `json:"seconds"`              // wall time by stage
	Fingerprint string             `json:"fingerprint"`          // sha256 of the weights at its end
	LossState   []byte             `json:"loss_state,omitempty"` // what the loss plugin returned last; the next iteration begins with it
}

// Inequality holds both sides of the monotonic improvement bound.
type Inequality struct {
	Left  float64 `json:"left"`
	Right float64 `json:"right"`
}
