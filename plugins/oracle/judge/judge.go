// Package judge is the oracle that asks a language model behind any OpenAI-compatible server.
package judge

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"github.com/dno-project/dno/plugins/internal/openai"
	"github.com/dno-project/dno/plugins/internal/pairs"
	"github.com/dno-project/dno/sdk"
)

// Oracle asks a model which completion is better, in one of three modes.
//
//   - pairwise: one request for each ordered pair that is asked for, A shown first. With verdict = "text"
//     P is 1, 0 or ½ by the model's words; with "logprobs" it is
//     P = exp(lp(A) − logsumexp(lp(A), lp(B))), lp being the log-probability of the token at the reply's
//     first place that is not blank, with and without a space before it; a token that is not among the
//     alternatives counts as −∞.
//   - listwise: one request for all candidates, which are scored side by side from 0 to 6.
//   - pointwise: one request for each candidate, scored from 0 to 6.
//
// Scores become preferences by one rule: the higher score is preferred (P = 1), equal ones tie (½).
//
// What a completion says cannot become a verdict. Completions stand between lines with a tag that none
// of the texts contains, and a verdict is read from nowhere but the reply's last line, or from fields of
// its one JSON object, that bear the tag. The tag is a keyed hash of the texts: the same question is the
// same request, whatever was asked before, and the order of a list's candidates is by that hash, too.
//
// A reply without a verdict is asked for once more, and then abstained from. The reason begins with a
// code: "unparsable", "empty", "truncated", "refused", "tool-call", "no-verdict" (log-probabilities of
// neither answer), "no-logprobs", "too-long" (for the model's context), "server" (a fault of the server's
// on this request, while others are answered). Failures that are not of one request are errors of the
// call: a wrong key, a quota that is used up, a server that is not there.
//
// Canaries are pairs with a known verdict, in which the wrong answer gives the judge orders. Four are
// asked before anything else, and one with about every Nth question (setting canary_every); which
// questions those are is decided by their content. A judge that fails more than a quarter is an error.
//
// Source: Rosset et al. 2024 (arXiv 2404.03715), Figure 3, for the steps of the scale, in other words;
// Li et al. 2023, AlpacaEval, for the probability from two tokens.
type Oracle struct {
	config   config
	client   *openai.Client
	prompts  *prompts
	model    string // asked of the server where the settings name none
	canaries *canaries

	// workers are free places for those who ask. A call keeps the ones that it has until nothing of it is
	// left to ask: so calls end one after the other, and what ended is kept if a later one fails.
	workers chan struct{}
	begin   chan struct{} // holds a token while nobody makes the beginning
	begun   bool          // guarded by it

	strikes atomic.Int32 // requests in a row that failed by the server's fault
}

// New returns the oracle.
func New() sdk.Oracle { return &Oracle{} }

// Configure takes the settings. It sends nothing: a server that is not there is noticed by the first
// question. With the settings of before, the limits and the canaries go on as they are.
func (o *Oracle) Configure(_ context.Context, s sdk.Settings) error {
	c, err := readConfig(s, os.LookupEnv)
	if err != nil {
		return err
	}
	p, err := newPrompts(c)
	if err != nil {
		return err
	}
	if o.client != nil && c == o.config {
		return nil
	}
	client, err := c.client()
	if err != nil {
		return sdk.Errorf(sdk.CodeUsage, "make a client: %w", err).WithHint("correct the settings url, key, extra_body or insecure")
	}
	_ = o.Close()
	o.config, o.client, o.prompts, o.model, o.canaries = c, client, p, c.model, &canaries{every: c.canaryEvery}
	o.workers, o.begin, o.begun = make(chan struct{}, c.concurrency), make(chan struct{}, 1), false
	o.begin <- struct{}{}
	o.strikes.Store(0)
	return nil
}

// Close ends the connections.
func (o *Oracle) Close() error {
	if o.client != nil {
		o.client.Close()
	}
	return nil
}

// Judge asks all that the batch needs, as much at once as the setting concurrency allows: over all
// calls, for they share the client.
func (o *Oracle) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	for _, c := range batch {
		if err := pairs.Check(c); err != nil {
			return nil, err
		}
	}
	if len(batch) == 0 {
		return []sdk.Verdicts{}, nil
	}
	if o.client == nil {
		return nil, sdk.Errorf(sdk.CodePlugin, "oracle \"judge\" was asked to judge before it was configured")
	}
	spent, err := o.beginning(ctx)
	if err != nil {
		return nil, o.explain(err)
	}
	all := make([]*plan, len(batch))
	var tasks []task
	for i, c := range batch {
		all[i] = o.plan(c, true)
		tasks = append(tasks, all[i].tasks...)
	}
	if err := together(ctx, o.workers, tasks); err != nil {
		return nil, o.explain(err)
	}
	out := make([]sdk.Verdicts, len(batch))
	for i, p := range all {
		if out[i], err = p.verdicts(); err != nil {
			return nil, err
		}
	}
	spent.onto(&out[0])
	return out, nil
}

// beginning asks what has to be known before the first question: the model's name, and whether it can
// judge. It returns what that took.
func (o *Oracle) beginning(ctx context.Context) (took bill, err error) {
	select {
	case <-o.begin:
		defer func() { o.begin <- struct{}{} }()
	case <-ctx.Done():
		return bill{}, context.Cause(ctx)
	}
	if o.begun {
		return bill{}, nil
	}
	if o.model == "" {
		names, err := o.client.Models(ctx)
		if err != nil {
			return bill{}, err
		}
		if len(names) != 1 {
			return bill{}, sdk.Errorf(sdk.CodeUsage, "the server at %s has %d models: %.300q", o.config.url, len(names), names).
				WithHint("say which one is to judge: model = \"...\"")
		}
		o.model = names[0]
	}
	if took, err = o.canaries.first(ctx, o.preferred); err == nil {
		o.begun = true
	}
	return took, err
}

// explain makes an error of a request one for the user.
func (o *Oracle) explain(err error) error {
	var failed *failure
	if errors.As(err, &failed) {
		return sdk.Errorf(sdk.CodeOracle, "the judge %q at %s %w", o.model, o.config.url, failed).
			WithHint("take a stronger model, another mode or another template; canary_every = 0 asks no such pairs")
	}
	var e *openai.Error
	if !errors.As(err, &e) {
		return err
	}
	out := sdk.Errorf(sdk.CodeOracle, "%w", e)
	switch e.Kind {
	case openai.KindKey:
		if o.config.keyName == "" {
			return out.WithHint("the server wants a key: key = \"env:NAME\", and env = { \"NAME\" } so that the oracle may see that variable")
		}
		return out.WithHint("is the key in the variable %s the right one, and may it use the model %q?", o.config.keyName, o.model)
	case openai.KindQuota:
		return out.WithHint("nothing is left to pay with: see the provider's billing page, then go on with dno resume")
	case openai.KindAddress:
		return out.WithHint("set url to the address that the server itself gives")
	case openai.KindRequest:
		return out.WithHint("do url, model and api fit the server? extra_body takes a key out of requests with null: '{\"seed\": null}'")
	case openai.KindTimeout:
		return out.WithHint("give it more time with request_timeout, or fewer questions at once with concurrency; then dno resume")
	}
	return out.WithHint("when the server is well again, go on with dno resume")
}

// task is something to ask.
type task func(context.Context) error

// together runs tasks on as many workers as there are places. The first error ends them all.
func together(ctx context.Context, places chan struct{}, tasks []task) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(cap(places), len(tasks)) {
		wg.Go(func() {
			select {
			case places <- struct{}{}:
				defer func() { <-places }()
			case <-ctx.Done():
				return
			}
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(tasks) {
					return
				}
				if err := tasks[i](ctx); err != nil {
					cancel(err) // the first one stays
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// preferred says which of two texts the judge prefers, as P of the first, and what that took. P is nil
// where the judge abstains. Canaries are asked with it, by workers who have a place already.
func (o *Oracle) preferred(ctx context.Context, prompt sdk.Prompt, a, b string) (*float64, bill, error) {
	p := o.plan(sdk.Comparison{Prompt: prompt, Candidates: []string{a, b}, Pairs: []sdk.Ordered{{A: 0, B: 1}}}, false)
	if err := together(ctx, make(chan struct{}, len(p.tasks)), p.tasks); err != nil {
		return nil, bill{}, err
	}
	v, err := p.verdicts()
	took := bill{v.Cost, v.Tokens}
	if err != nil || v.Pairs[0].Abstain != "" {
		return nil, took, err
	}
	return &v.Pairs[0].P, took, nil
}

var _ sdk.Oracle = (*Oracle)(nil)
