// Package report draws a run directory for a person, and as one JSON object for machines.
package report

import (
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// Report is what `dno report --json` prints. Shares and rates are fractions. Figures are of the
// test prompts; accuracy, win_rate and mean_tokens at evaluate.temperature, accuracy_sampled at
// T=1, kl over the new policy's own T=1 completions. The _low and _high keys hold 95 % intervals.
// A key is null where it cannot be had: accuracy where the oracle gives no label "correct".
type Report struct {
	Dir         string               `json:"dir"`
	Script      string               `json:"script"`
	Model       string               `json:"model"`
	Seed        uint64               `json:"seed"`
	State       string               `json:"state"` // "finished: reason" or "unfinished"
	WallSeconds float64              `json:"wall_seconds"`
	TestPrompts int                  `json:"test_prompts"`
	Baseline    Baseline             `json:"baseline"` // π_1, before any training
	Iterations  []Iteration          `json:"iterations"`
	CrossPlay   [][]*rundir.Estimate `json:"cross_play"` // [i][j]: win rate of the policy after iteration i against that after j < i
	Corrected   []Corrected          `json:"corrected"`  // mistakes of π_1 that the last policy does not make; at most three
}

// Baseline are π_1's figures.
type Baseline struct {
	Accuracy        *float64 `json:"accuracy"`
	AccuracyLow     *float64 `json:"accuracy_low"`
	AccuracyHigh    *float64 `json:"accuracy_high"`
	AccuracySampled *float64 `json:"accuracy_sampled"`
	MeanTokens      float64  `json:"mean_tokens"`
	MeanTokensLow   *float64 `json:"mean_tokens_low"`
	MeanTokensHigh  *float64 `json:"mean_tokens_high"`
}

// Iteration is one iteration's line.
type Iteration struct {
	Iteration int `json:"iteration"` // from 1
	Baseline
	WinRate           *float64           `json:"win_rate"` // against π_1
	WinRateLow        *float64           `json:"win_rate_low"`
	WinRateHigh       *float64           `json:"win_rate_high"`
	WinRateParent     *float64           `json:"win_rate_parent"` // against the policy that the iteration began with
	WinRateParentLow  *float64           `json:"win_rate_parent_low"`
	WinRateParentHigh *float64           `json:"win_rate_parent_high"`
	KL                *float64           `json:"kl"`         // nats a completion, to the parent
	KLInitial         *float64           `json:"kl_initial"` // nats a completion, to π_1
	Pairs             Pairs              `json:"pairs"`
	Prompts           int                `json:"prompts"`
	Steps             int                `json:"steps"`
	Skipped           int                `json:"skipped"` // steps that were not made, for numbers that were not finite
	Loss              float64            `json:"loss"`    // mean over the steps
	Oracle            string             `json:"oracle"`
	LossName          string             `json:"loss_name"`
	LR                float64            `json:"lr"`
	Asked             int                `json:"asked"`     // ordered pairs put to the oracle
	Cached            int                `json:"cached"`    // ordered pairs that were known from before
	Abstained         int                `json:"abstained"` // of both
	FlipRate          float64            `json:"flip_rate"`
	Cycles            int                `json:"cycles"` // prompts whose majority preference has a cycle
	Inequality        *rundir.Inequality `json:"inequality"`
	Seconds           map[string]float64 `json:"seconds"` // wall time by stage
}

// Pairs counts an iteration's pairs by who is chosen over whom; the policy is the student.
type Pairs struct {
	TeacherStudent int `json:"teacher_student"`
	StudentTeacher int `json:"student_teacher"`
	StudentStudent int `json:"student_student"`
}

// Corrected is a prompt that π_1 answered wrongly and the last policy rightly.
type Corrected struct {
	Prompt string `json:"prompt"`
	Answer string `json:"answer"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// Build reads the run's records. prompts are the test prompts, for the corrected mistakes; with
// none there are no such.
func Build(run *rundir.Run, prompts []sdk.Prompt) (Report, error) {
	h := run.Header()
	r := Report{Dir: run.Dir(), Script: h.Script, Model: h.Model, Seed: h.Seed, State: "unfinished",
		Iterations: []Iteration{}, CrossPlay: [][]*rundir.Estimate{}, Corrected: []Corrected{}}
	reason, err := run.Concluded()
	if err != nil {
		return r, err
	}
	if reason != "" {
		r.State = "finished: " + reason
	}
	records, err := run.Iterations()
	if err != nil {
		return r, err
	}
	for _, rec := range records {
		for _, s := range rec.Seconds {
			r.WallSeconds += s
		}
		f := rec.Evaluation.Test
		if rec.Iteration == 0 {
			r.TestPrompts, r.Baseline = f.MeanTokens.N, baseline(f)
		} else {
			r.Iterations = append(r.Iterations, iteration(rec))
		}
		r.CrossPlay = append(r.CrossPlay, append([]*rundir.Estimate{}, f.CrossPlay...)) // [], not null, for π_1
	}
	if n := len(records); n > 1 {
		r.Corrected, err = corrected(run, n-1, prompts)
	}
	return r, err
}

func baseline(f rundir.Figures) Baseline {
	b := Baseline{MeanTokens: f.MeanTokens.Mean}
	_, b.MeanTokensLow, b.MeanTokensHigh = split(&f.MeanTokens)
	b.Accuracy, b.AccuracyLow, b.AccuracyHigh = split(f.Accuracy)
	b.AccuracySampled, _, _ = split(f.AccuracySampled)
	return b
}

func iteration(rec rundir.IterationRecord) Iteration {
	f := rec.Evaluation.Test
	it := Iteration{
		Iteration: rec.Iteration, Baseline: baseline(f),
		Pairs:   Pairs{rec.Pairs["teacher_student"], rec.Pairs["student_teacher"], rec.Pairs["student_student"]},
		Prompts: rec.Prompts, Steps: rec.Steps, Skipped: rec.Skipped, Loss: rec.Loss, Oracle: rec.Oracle, LossName: rec.LossName, LR: rec.LR,
		Asked: rec.Asked, Cached: rec.Cached, Abstained: rec.Abstained, FlipRate: rec.Flipped, Cycles: rec.Cycles,
		Inequality: rec.Inequality, Seconds: rec.Seconds,
	}
	it.WinRate, it.WinRateLow, it.WinRateHigh = split(f.WinRate)
	it.WinRateParent, it.WinRateParentLow, it.WinRateParentHigh = split(f.WinRateParent)
	it.KL, _, _ = split(f.KLParent)
	it.KLInitial, _, _ = split(f.KLInitial)
	return it
}

func split(e *rundir.Estimate) (mean, low, high *float64) {
	if e == nil {
		return nil, nil, nil
	}
	return &e.Mean, e.Low, e.High
}

// corrected returns the first prompts, in the order of the file, that π_1 got wrong and policy t right.
func corrected(run *rundir.Run, t int, prompts []sdk.Prompt) ([]Corrected, error) {
	out := []Corrected{}
	before, after, err := Answers(run, t)
	if err != nil {
		return out, err
	}
	byID := map[string]sdk.Prompt{}
	for _, p := range prompts {
		byID[p.ID] = p
	}
	for i := range min(len(before), len(after)) {
		p, known := byID[before[i].Prompt]
		if len(out) < 3 && known && Wrong(before[i].Assessed) && Right(after[i].Assessed) {
			out = append(out, Corrected{p.Text(), p.Answer, before[i].Greedy.Text, after[i].Greedy.Text})
		}
	}
	return out, nil
}

// Answers returns what π_1 and the policy after iteration t answer to the test prompts.
func Answers(run *rundir.Run, t int) (before, after []rundir.EvalRecord, err error) {
	for _, at := range []struct {
		t   int
		out *[]rundir.EvalRecord
	}{{0, &before}, {t, &after}} {
		it, err := run.Iteration(at.t)
		if err != nil {
			return nil, nil, err
		}
		if *at.out, err = rundir.ReadLog[rundir.EvalRecord](it.Path(rundir.TestFile)); err != nil {
			return nil, nil, err
		}
	}
	return before, after, nil
}

// Right says whether a completion was labelled correct; Wrong, whether it was labelled not correct.
func Right(a *sdk.Assessment) bool {
	return a != nil && a.Labels[sdk.LabelCorrect] == 1
}

// Wrong is the other verdict; both are false where there is no label.
func Wrong(a *sdk.Assessment) bool {
	if a == nil {
		return false
	}
	v, ok := a.Labels[sdk.LabelCorrect]
	return ok && v == 0
}
