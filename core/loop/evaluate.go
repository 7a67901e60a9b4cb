package loop

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/dno-project/dno/core/eval"
	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// evaluate measures the policy at the end of iteration t (0: π_1) on validation and test, against
// every earlier policy, with the evaluation's oracle.
func (l *Loop) evaluate(ctx context.Context, t int, it rundir.Iteration) (rundir.Evaluation, error) {
	var e rundir.Evaluation
	if ok, err := it.ReadRecord(rundir.EvaluationFile, &e); ok || err != nil {
		return e, err
	}
	judge, err := l.openJudge(ctx, t, l.Experiment.Evaluate.Oracle)
	if err != nil {
		return e, err
	}
	sets := []struct {
		file    string
		prompts []sdk.Prompt
		figures *rundir.Figures
	}{{rundir.ValidationFile, l.Validation, &e.Validation}, {rundir.TestFile, l.Test, &e.Test}}

	l.Progress.Start(fmt.Sprintf("iteration %d: evaluate", t), 2*(len(l.Validation)+len(l.Test)))
	defer l.Progress.Done()
	prompts := slices.Concat(l.Validation, l.Test)
	all, err := l.recordedAnswers(ctx, t, it, prompts)
	if err != nil {
		return e, err
	}
	answers := [][]rundir.EvalRecord{all[:len(l.Validation)], all[len(l.Validation):]}
	var earlier [2][][]rundir.EvalRecord
	var parents []rundir.EvalRecord
	for i, s := range sets {
		if earlier[i], err = l.earlier(t, s.file, s.prompts); err != nil {
			return e, err
		}
		if t > 0 {
			parents = append(parents, earlier[i][t-1]...)
		}
	}
	if err := together(ctx, func(ctx context.Context) error {
		return l.addLogProbs(ctx, t, prompts, all, parents)
	}, func(ctx context.Context) error {
		for i, s := range sets {
			if err := judge.evaluation(ctx, s.prompts, answers[i], earlier[i]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return e, err
	}
	for i, s := range sets {
		if err := rundir.WriteLog(it.Path(s.file), answers[i]); err != nil {
			return e, err
		}
		if *s.figures, err = figures(answers[i], t); err != nil {
			return e, err
		}
	}
	return e, it.WriteRecord(rundir.EvaluationFile, e)
}

// together runs all at once. The first error, which is returned, ends the other's context.
func together(ctx context.Context, all ...func(context.Context) error) (first error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var once sync.Once
	var wg sync.WaitGroup
	for _, f := range all {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				once.Do(func() { first = err })
				cancel()
			}
		})
	}
	wg.Wait()
	return first
}

// recordedAnswers are answers that a run which was interrupted does not draw again.
func (l *Loop) recordedAnswers(ctx context.Context, t int, it rundir.Iteration, prompts []sdk.Prompt) ([]rundir.EvalRecord, error) {
	log, known, err := rundir.OpenLog[rundir.EvalRecord](it.Path(rundir.DrawsFile))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	l.torn(rundir.DrawsFile, log.Torn())
	for i, r := range known {
		if i >= len(prompts) || r.Prompt != prompts[i].ID {
			return nil, sdk.Errorf(sdk.CodeCorrupt, "evaluate iteration %d: %s answers prompt %q at %d, which is not what is asked there", t, it.Path(rundir.DrawsFile), r.Prompt, i+1)
		}
	}
	l.Progress.Already(2 * len(known))
	fresh, err := l.answers(ctx, t, prompts[len(known):], func(batch []rundir.EvalRecord) error { return log.Append(batch...) })
	return append(known, fresh...), err
}

// Measure returns the figures of the policy as it is, on the prompts, with the evaluation's oracle
// and without a run directory or an opponent.
func (l *Loop) Measure(ctx context.Context, prompts []sdk.Prompt) (rundir.Figures, error) {
	judge, err := l.openJudge(ctx, 0, l.Experiment.Evaluate.Oracle)
	if err != nil {
		return rundir.Figures{}, err
	}
	l.Progress.Start("evaluate", 2*len(prompts))
	defer l.Progress.Done()
	answers, err := l.answers(ctx, 0, prompts, func([]rundir.EvalRecord) error { return nil })
	if err != nil {
		return rundir.Figures{}, err
	}
	if err := judge.evaluation(ctx, prompts, answers, nil); err != nil {
		return rundir.Figures{}, err
	}
	return figures(answers, 0)
}

// answers draws, for each prompt, one completion at evaluate.temperature and one at T=1; keep is called with
// each batch.
func (l *Loop) answers(ctx context.Context, t int, prompts []sdk.Prompt, keep func([]rundir.EvalRecord) error) ([]rundir.EvalRecord, error) {
	maxTokens, err := l.EvaluationTokens(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]rundir.EvalRecord, len(prompts))
	for at := 0; at < len(prompts); at += evalBatch {
		batch := prompts[at:min(at+evalBatch, len(prompts))]
		// TopP 1 and no other filter: the T=1 figures are of the model's own distribution.
		greedy := sdk.GenerateRequest{Options: sdk.GenerateOptions{Temperature: l.Experiment.Evaluate.Temperature, TopP: 1, MaxTokens: maxTokens}}
		sampled := sdk.GenerateRequest{Options: sdk.GenerateOptions{Temperature: 1, TopP: 1, MaxTokens: maxTokens}}
		for _, p := range batch {
			// The same draws in every iteration: differences are then the policies' own.
			greedy.Prompts = append(greedy.Prompts, p.Messages)
			greedy.Seeds = append(greedy.Seeds, []uint64{l.seed(0, "evaluate", p, 0)})
			sampled.Prompts = append(sampled.Prompts, p.Messages)
			sampled.Seeds = append(sampled.Seeds, []uint64{l.seed(0, "evaluate-sampled", p, 0)})
		}
		drawn, err := l.Policy.GenerateAll(ctx, greedy, sampled)
		if err != nil {
			return nil, fmt.Errorf("evaluate iteration %d: %w", t, err)
		}
		for i, p := range batch {
			out[at+i] = rundir.EvalRecord{Prompt: p.ID, Greedy: drawn[0].Completions[i][0], Sampled: drawn[1].Completions[i][0]}
		}
		l.Progress.Add(2 * len(batch))
		if err := keep(out[at : at+len(batch)]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// EvaluationTokens is the token limit of the evaluation: its own, else the sampler's, as the
// script or the sampler's manifest says; 256 for a sampler without one.
func (l *Loop) EvaluationTokens(ctx context.Context) (int, error) {
	if n := l.Experiment.Evaluate.MaxTokens; n > 0 {
		return n, nil
	}
	p := l.Experiment.Plan.Sampler
	if n := p.Settings.Number("max_tokens", 0); n >= 1 {
		return int(n), nil
	}
	sampler, rec, err := l.Plugins.Sampler(ctx, p)
	if err != nil {
		return 0, err
	}
	if err := l.note(p, rec, sampler.Manifest()); err != nil {
		return 0, err
	}
	settings, err := sampler.Manifest().Resolve(p.Settings)
	return int(settings.Number("max_tokens", 256)), err
}

// Completions of so many prompts are drawn together.
const evalBatch = 512

// addLogProbs gives each sampled completion its log-probability under the policy, its parent and
// π_1, all three by the same kernels; the policy's weights are what they were when it returns. What the
// parent drew as well, of the same seed, its record knows under both already.
func (l *Loop) addLogProbs(ctx context.Context, t int, prompts []sdk.Prompt, answers, parents []rundir.EvalRecord) error {
	var all, fresh []int
	for i := range answers {
		all = append(all, i)
		if t > 0 && sameTokens(answers[i].Sampled, parents[i].Sampled) {
			answers[i].LogProbParent, answers[i].LogProbInitial = parents[i].LogProb, parents[i].LogProbInitial
		} else {
			fresh = append(fresh, i)
		}
	}
	under := func(which []int, set func(*rundir.EvalRecord, float64)) error {
		texts := make([]Text, len(which))
		for k, i := range which {
			texts[k] = Text{prompts[i].Messages, answers[i].Sampled}
		}
		logps, err := l.Policy.LogProbs(ctx, texts)
		for k := range logps {
			set(&answers[which[k]], logps[k].LogProb)
		}
		return err
	}
	if t == 0 {
		return under(all, func(r *rundir.EvalRecord, x float64) { r.LogProb, r.LogProbParent, r.LogProbInitial = x, x, x })
	}
	if err := under(all, func(r *rundir.EvalRecord, x float64) { r.LogProb = x }); err != nil || len(fresh) == 0 {
		return err
	}
	if err := l.loadIteration(ctx, 0); err != nil {
		return err
	}
	if err := under(fresh, func(r *rundir.EvalRecord, x float64) { r.LogProbParent, r.LogProbInitial = x, x }); err != nil {
		return err
	}
	if t > 1 {
		if err := l.loadIteration(ctx, t-1); err != nil {
			return err
		}
		if err := under(fresh, func(r *rundir.EvalRecord, x float64) { r.LogProbParent = x }); err != nil {
			return err
		}
	}
	return l.loadIteration(ctx, t)
}

// sameTokens reports whether a model draws a and b with the same probability, whatever the model.
func sameTokens(a, b sdk.Completion) bool {
	return len(a.Tokens) > 0 && a.Text == b.Text && slices.Equal(a.Tokens, b.Tokens)
}

// earlier returns what the policies before iteration t answered to the prompts, π_1 first. Each file is read once.
func (l *Loop) earlier(t int, file string, prompts []sdk.Prompt) ([][]rundir.EvalRecord, error) {
	out := l.answered[file]
	for s := len(out); s < t; s++ {
		it, err := l.Run.Iteration(s)
		if err != nil {
			return nil, err
		}
		records, err := rundir.ReadLog[rundir.EvalRecord](it.Path(file))
		if err != nil {
			return nil, err
		}
		same := func(r rundir.EvalRecord, p sdk.Prompt) bool { return r.Prompt == p.ID }
		if !slices.EqualFunc(records, prompts, same) {
			return nil, sdk.Errorf(sdk.CodeCorrupt, "evaluate iteration %d: %s answers other prompts than those of this experiment", t, it.Path(file))
		}
		out = append(out, records)
	}
	if l.answered == nil {
		l.answered = map[string][][]rundir.EvalRecord{}
	}
	l.answered[file] = out
	return out[:t], nil
}

// evaluation judges each prompt once: the policy's greedy completion against every earlier
// policy's, its sampled one against the parent's.
func (j *judge) evaluation(ctx context.Context, prompts []sdk.Prompt, answers []rundir.EvalRecord, earlier [][]rundir.EvalRecord) error {
	questions := make([]question, len(prompts))
	for i, p := range prompts {
		// Candidates: 0 greedy, 1 sampled, then each earlier policy's greedy, last the parent's sampled.
		q := question{prompt: p, texts: []string{answers[i].Greedy.Text, answers[i].Sampled.Text}}
		for _, e := range earlier {
			q.texts = append(q.texts, e[i].Greedy.Text)
			q.pairs = append(q.pairs, [2]int{0, len(q.texts) - 1})
		}
		if n := len(earlier); n > 0 {
			q.texts = append(q.texts, earlier[n-1][i].Sampled.Text)
			q.pairs = append(q.pairs, [2]int{1, len(q.texts) - 1})
		}
		questions[i] = q
	}
	out, err := j.ask(ctx, questions)
	if err != nil {
		return err
	}
	for i, a := range out {
		r := &answers[i]
		if len(a.assessed) > 0 {
			r.Assessed, r.AssessedSampled = &a.assessed[0], &a.assessed[1]
		}
		completions := make([]sdk.Completion, len(questions[i].texts))
		for k, text := range questions[i].texts {
			completions[k].Text = text
		}
		game, err := preference.NewGame(completions, flat(a.raw), preference.Options{OrderMatters: j.traits.OrderMatters})
		if err != nil {
			return err
		}
		for s := range earlier {
			r.Wins = append(r.Wins, known(game.Preference(0, 2+s)))
		}
		if n := len(earlier); n > 0 {
			r.WinSampled = known(game.Preference(1, 2+n))
		}
	}
	return nil
}

// figures sums up one policy's answers.
func figures(answers []rundir.EvalRecord, t int) (rundir.Figures, error) {
	var tokens, logp, parent, initial []float64
	for _, r := range answers {
		tokens = append(tokens, float64(len(r.Greedy.Tokens)))
		logp = append(logp, r.LogProb)
		parent = append(parent, r.LogProbParent)
		initial = append(initial, r.LogProbInitial)
	}
	f := rundir.Figures{MeanTokens: *estimate(eval.Mean(tokens))}
	var err error
	if f.Accuracy, err = rate(labels(answers, func(r rundir.EvalRecord) *sdk.Assessment { return r.Assessed })); err != nil {
		return f, err
	}
	if f.AccuracySampled, err = rate(labels(answers, func(r rundir.EvalRecord) *sdk.Assessment { return r.AssessedSampled })); err != nil || t == 0 {
		return f, err
	}
	for _, kl := range []struct {
		base []float64
		out  **rundir.Estimate
	}{{parent, &f.KLParent}, {initial, &f.KLInitial}} {
		e, err := eval.KL(logp, kl.base)
		if err != nil {
			return f, err
		}
		*kl.out = estimate(e)
	}
	for s := range t {
		w, err := winRate(answers, func(r rundir.EvalRecord) *float64 { return r.Wins[s] })
		if err != nil {
			return f, err
		}
		f.CrossPlay = append(f.CrossPlay, w)
	}
	f.WinRate, f.WinRateParent = f.CrossPlay[0], f.CrossPlay[t-1]
	f.WinRateSampled, err = winRate(answers, func(r rundir.EvalRecord) *float64 { return r.WinSampled })
	return f, err
}

// labels returns the label "correct" of each assessed completion; those that the oracle abstained
// from are left out. Nil where any other has no label: an oracle that labels only what it compares
// labels what has changed, and an accuracy of that is biased.
func labels(answers []rundir.EvalRecord, of func(rundir.EvalRecord) *sdk.Assessment) []float64 {
	var xs []float64
	for _, r := range answers {
		a := of(r)
		if a != nil && a.Abstain != "" {
			continue
		}
		if a == nil {
			return nil
		}
		v, ok := a.Labels[sdk.LabelCorrect]
		if !ok {
			return nil
		}
		xs = append(xs, v)
	}
	return xs
}

func winRate(answers []rundir.EvalRecord, of func(rundir.EvalRecord) *float64) (*rundir.Estimate, error) {
	var xs []float64
	for _, r := range answers {
		if p := of(r); p != nil {
			xs = append(xs, *p)
		}
	}
	return rate(xs)
}

// rate is the mean of values in [0, 1] with Wilson's interval; nil of none.
func rate(xs []float64) (*rundir.Estimate, error) {
	if len(xs) == 0 {
		return nil, nil
	}
	e, err := eval.WinRate(xs)
	return estimate(e), err
}

func estimate(e eval.Interval) *rundir.Estimate {
	return &rundir.Estimate{Mean: e.Mean, Low: known(e.Low), High: known(e.High), N: e.N}
}

// inequality holds both sides of P(π_{t+1} ≻ π_t) ≥ ½ + η·KL(π_{t+1}‖π_t) at T=1: the bound of an
// exact step, printed as a diagnostic of this one. Nil for a loss that does not regress onto win
// rates (η = 0): it says nothing of such.
//
// Source: Rosset et al. 2024 (arXiv 2404.03715), monotonic improvement.
func inequality(eta float64, f rundir.Figures) *rundir.Inequality {
	if eta <= 0 || f.WinRateSampled == nil || f.KLParent == nil {
		return nil
	}
	return &rundir.Inequality{Left: f.WinRateSampled.Mean, Right: 0.5 + eta*f.KLParent.Mean}
}
