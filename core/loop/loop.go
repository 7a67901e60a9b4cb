// Package loop is DNO itself: sample, compare, pair, train, evaluate, and again.
//
// It knows the game and nothing of tokens: the policy in training is reached through [Policy],
// oracles, losses and samplers through the interfaces of package sdk, the user's decisions through
// [Script]. Each stage is one file; each writes its record before the next one begins, and a run
// that was interrupted goes on at the first missing record.
package loop

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// Policy is the model in training, shaped like a process: data in, data out, no callback but the
// loss. Implementations need not be safe for concurrent use.
type Policy interface {
	sdk.Generator
	// GenerateAll answers each request as Generate does, with less work where prompts stand in several.
	GenerateAll(ctx context.Context, reqs ...sdk.GenerateRequest) ([]sdk.GenerateResponse, error)
	// LogProbs returns, for each completion, its summed log-probability at temperature 1 in nats and
	// its length in tokens, under the current weights.
	LogProbs(ctx context.Context, texts []Text) ([]LogProb, error)
	// TokenLogProbs returns the log-probability of each token of each completion. The rows add up to
	// what LogProbs returns, to the bit.
	TokenLogProbs(ctx context.Context, texts []Text) ([][]float64, error)
	// StartTraining forgets the optimizer's state and takes new settings.
	StartTraining(ctx context.Context, o Optimizer) error
	// Step makes one optimizer update. It calls loss exactly once, with the log-probabilities of all
	// texts in order. A loss or gradient that is not finite is an error with [sdk.CodeNumeric],
	// and leaves the weights as they are.
	Step(ctx context.Context, texts []Text, lr float64, loss LossFunc) (StepResult, error)
	// StepTokens is Step for a loss of each token's log-probability.
	StepTokens(ctx context.Context, texts []Text, lr float64, loss TokenLossFunc) (StepResult, error)
	// Save writes a checkpoint directory, all or nothing: the weights, the bytes that the caller wants to find
	// again with them and, for training to go on, the optimizer's state.
	Save(ctx context.Context, dir string, position []byte, training bool) error
	// Load reads one, verified. Errors: [sdk.CodeCorrupt] for one that is damaged or not there, which may be made
	// again; other codes for one that may be whole. The policy is then as it was.
	Load(ctx context.Context, dir string) (position []byte, err error)
	// Fingerprint is the sha256 of the weights, in hex.
	Fingerprint() string
}

// Text is a completion with its prompt. Where Completion.Tokens is nil the policy encodes the text
// and ends it with its end-of-sequence token.
type Text struct {
	Prompt     []sdk.Message
	Completion sdk.Completion
}

// LogProb is a completion's log-probability in nats and its length in tokens.
type LogProb struct {
	LogProb float64
	Tokens  int
}

// LossFunc returns a loss and its derivative by each log-probability.
type LossFunc func(logps []float64) (loss float64, gradient []float64, err error)

// TokenLossFunc is a [LossFunc] of the log-probabilities of each text's tokens, a row a text.
type TokenLossFunc func(logps [][]float64) (loss float64, gradient [][]float64, err error)

// Optimizer holds AdamW's settings for one iteration.
type Optimizer struct {
	Beta1, Beta2, Epsilon, WeightDecay float64
	Clip                               float64 // largest gradient norm; 0: none
}

// StepResult is what one update reports.
type StepResult struct {
	Loss     float64
	GradNorm float64 // before clipping
	Tokens   int     // of all texts, prompts included
}

// Plugins opens what a plan names, and says what it is. The returned plugins are configured by the loop, at
// each iteration's start, with the settings of the plan.
type Plugins interface {
	Oracle(ctx context.Context, p Plugin) (sdk.Oracle, rundir.PluginRecord, error)
	Loss(ctx context.Context, p Plugin) (sdk.Loss, rundir.PluginRecord, error)
	Sampler(ctx context.Context, p Plugin) (sdk.Sampler, rundir.PluginRecord, error)
	// Sweep stops those that were not opened since the last Sweep.
	Sweep()
}

// Progress is told how far a stage is.
type Progress interface {
	Start(stage string, total int)
	Already(n int) // that an interrupted run had done before
	Add(n int)
	Done()
}

// Loop is one run, wired.
type Loop struct {
	Experiment Experiment
	Script     Script
	Policy     Policy
	Draws      sdk.Generator // what samplers draw from, of which no log-probability is used; nil: the policy
	Plugins    Plugins
	Run        *rundir.Run
	Reuse      []string          // directories of other runs, whose judgments are not paid for again
	Judgments  *rundir.Judgments // what oracles said; set by Execute
	Train      []sdk.Prompt
	Validation []sdk.Prompt
	Test       []sdk.Prompt
	Progress   Progress
	Log        func(format string, args ...any) // one line of news

	redone   []rundir.IterationRecord         // what is made again, as it was
	answered map[string][][]rundir.EvalRecord // by file: what the policies answered that others have played against
}

// The prompts of one batch of sampling: enough to fill the generator, few enough that judging
// starts soon and a crash loses little.
const sampleBatch = 64

// Execute runs what is left of the run: all of a new one, the rest of an interrupted one.
// A cancelled context ends it at the next record; nothing that was written is lost.
func (l *Loop) Execute(ctx context.Context) error {
	done, err := l.Run.Iterations()
	if err != nil {
		return err
	}
	if l.Judgments, err = l.Run.Judgments(); err != nil {
		return err
	}
	defer l.Judgments.Close()
	l.torn(rundir.JudgmentsFile, l.Judgments.Torn())
	for _, dir := range l.Reuse {
		if err := l.Judgments.Reuse(dir); err != nil {
			return err
		}
	}
	ctx, cancel := l.withinWall(ctx, done)
	defer cancel()
	return overrun(ctx, l.rest(ctx, done))
}

// rest runs what the records do not hold yet.
func (l *Loop) rest(ctx context.Context, done []rundir.IterationRecord) (err error) {
	if len(done) == 0 {
		rec, err := l.baseline(ctx)
		if err != nil {
			return err
		}
		done = append(done, rec)
	} else if done, err = l.goOn(ctx, done); err != nil {
		return err
	}
	for t := len(done); ; t++ {
		plan, reason, err := l.plan(ctx, t, done)
		if err != nil {
			return err
		}
		if plan == nil {
			l.Log("%s", reason)
			return l.Run.Conclude(reason)
		}
		rec, err := l.iterate(ctx, t, plan)
		if err != nil {
			return err
		}
		if err := l.same(rec); err != nil {
			return err
		}
		done = append(done, rec)
	}
}

// iterate is one iteration: each stage reads what the one before it left on disk or in memory.
func (l *Loop) iterate(ctx context.Context, t int, plan *Plan) (rundir.IterationRecord, error) {
	it, err := l.Run.Iteration(t)
	if err != nil {
		return rundir.IterationRecord{}, err
	}
	rec := rundir.IterationRecord{
		Iteration: t, Seconds: map[string]float64{}, Pairs: map[string]int{},
		Oracle: plan.Oracle.Name, LossName: plan.Loss.Name, Reference: plan.Reference, LR: plan.LR,
	}
	clock := time.Now()
	lap := func(stage string) {
		rec.Seconds[stage] = time.Since(clock).Seconds()
		clock = time.Now()
	}
	judged, err := l.sampleAndCompare(ctx, t, it, plan, &rec)
	if err != nil {
		return rec, err
	}
	lap("sample")
	units, err := l.pair(ctx, t, it, plan, judged, &rec)
	if err != nil {
		return rec, err
	}
	lap("pair")
	if err := l.train(ctx, t, it, plan, judged, units, &rec); err != nil {
		return rec, err
	}
	lap("train")
	rec.Fingerprint = l.Policy.Fingerprint()
	if rec.Evaluation, err = l.evaluate(ctx, t, it); err != nil {
		return rec, err
	}
	rec.Inequality = inequality(rec.Eta, rec.Evaluation.Validation)
	lap("evaluate")
	l.Plugins.Sweep()
	if err := it.Tidy(); err != nil {
		return rec, err
	}
	return rec, l.Run.Finish(rec)
}

// baseline records π_1 before any training: its checkpoint and its figures, as iteration 0.
func (l *Loop) baseline(ctx context.Context) (rundir.IterationRecord, error) {
	rec := rundir.IterationRecord{Seconds: map[string]float64{}, Pairs: map[string]int{}, Fingerprint: l.Policy.Fingerprint()}
	it, err := l.Run.Iteration(0)
	if err != nil {
		return rec, err
	}
	start := time.Now()
	if err := l.save(ctx, it.Checkpoint(), position{}); err != nil {
		return rec, err
	}
	if rec.Evaluation, err = l.evaluate(ctx, 0, it); err != nil {
		return rec, err
	}
	rec.Seconds["evaluate"] = time.Since(start).Seconds()
	if err := it.Tidy(); err != nil {
		return rec, err
	}
	return rec, l.Run.Finish(rec)
}

// seed derives a seed from all that names a completion, so that it depends neither on its batch
// nor on how often the run was interrupted.
func (l *Loop) seed(t int, role string, p sdk.Prompt, k int) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d/%d/%s/%s/%d", l.Experiment.Seed, t, role, p.Hash(), k))
	return binary.LittleEndian.Uint64(sum[:])
}

// torn tells that a crash had left a last line unfinished.
func (l *Loop) torn(name string, bytes int64) {
	if bytes > 0 {
		l.Log("the last line of %s was torn by a crash: its %d bytes are cut, and done again", name, bytes)
	}
}

// note records a plugin that was opened, and refuses one that has changed since the run began. Without a run there is
// nothing to hold it to.
func (l *Loop) note(p Plugin, rec rundir.PluginRecord, m sdk.Manifest) error {
	if l.Run == nil {
		return nil
	}
	if err := l.Run.Pin(rec.Pins()); err != nil {
		return err
	}
	wanted, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return l.Run.Opened(rundir.OpenedRecord{Wanted: string(wanted), Plugin: rec, Manifest: m})
}

// configured opens a plugin's settings: resolved against its manifest and given to it.
func configure(ctx context.Context, p sdk.Plugin, settings sdk.Settings) (sdk.Settings, error) {
	resolved, err := p.Manifest().Resolve(settings)
	if err != nil {
		return nil, err
	}
	return resolved, p.Configure(ctx, resolved)
}
