package judge

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dno-project/dno/sdk"
)

// plan is what has to be asked for a comparison, and the answers when its tasks have run.
type plan struct {
	config     config
	comparison sdk.Comparison
	tasks      []task
	answers    []*answer // to what was asked, each once
	pairs      []int     // pairwise: each pair's answer; −1 for a pair of equal texts
	candidates []scored  // else: where each candidate's score is
	canaries   []*bill
}

// scored is where a candidate's score is: an answer, and a place among the texts that it is about.
type scored struct{ answer, place int }

// plan decides what to ask. Equal questions are asked once. Of a comparison without pairs nothing is:
// assessments are of no use by themselves, and cost as much.
func (o *Oracle) plan(c sdk.Comparison, withCanaries bool) *plan {
	p := &plan{config: o.config, comparison: c}
	known := map[string]int{}
	ask := func(texts ...string) int {
		key := fmt.Sprintf("%q", texts)
		if at, again := known[key]; again {
			return at
		}
		a := &answer{}
		known[key] = len(p.answers)
		p.answers = append(p.answers, a)
		p.tasks = append(p.tasks, func(ctx context.Context) (err error) {
			*a, err = o.ask(ctx, c.Prompt, texts)
			return err
		})
		if which, due := o.canaries.due(o.prompts.hash(c.Prompt, texts)); due && withCanaries {
			took := new(bill)
			p.canaries = append(p.canaries, took)
			p.tasks = append(p.tasks, func(ctx context.Context) (err error) {
				*took, err = o.canaries.ask(ctx, which, o.preferred)
				return err
			})
		}
		return known[key]
	}
	if len(c.Pairs) == 0 {
		return p
	}
	switch o.config.mode {
	case modePairwise:
		for _, pair := range c.Pairs {
			at, a, b := -1, c.Candidates[pair.A], c.Candidates[pair.B]
			if a != b {
				at = ask(a, b)
			}
			p.pairs = append(p.pairs, at)
		}
	case modeListwise:
		texts := o.prompts.shuffled(c.Prompt, c.Candidates)
		at := ask(texts...)
		for _, text := range c.Candidates {
			p.candidates = append(p.candidates, scored{at, slices.Index(texts, text)})
		}
	default:
		for _, text := range c.Candidates {
			p.candidates = append(p.candidates, scored{ask(text), 0})
		}
	}
	return p
}

// verdicts makes the answer to the comparison, when the tasks have run.
func (p *plan) verdicts() (sdk.Verdicts, error) {
	out := sdk.Verdicts{ID: p.comparison.ID}
	for _, took := range p.canaries {
		took.onto(&out)
	}
	for _, a := range p.answers {
		a.bill.onto(&out)
		if a.model != "" && out.Model != "" && a.model != out.Model {
			return out, sdk.Errorf(sdk.CodeOracle, "%s answered one comparison with two models, %q and %q", p.config.url, out.Model, a.model).
				WithHint("name a model that stays the same, or another server: verdicts of two models are not comparable")
		}
		if a.model != "" {
			out.Model = a.model
		}
	}
	if p.config.mode == modePairwise {
		for _, at := range p.pairs {
			if at < 0 {
				out.Pairs = append(out.Pairs, sdk.Verdict{P: 0.5, Reason: "the texts are equal"})
				continue
			}
			a := p.answers[at]
			out.Pairs = append(out.Pairs, sdk.Verdict{P: a.p, Abstain: a.abstain, Reason: a.words})
		}
		return out, nil
	}
	for _, at := range p.candidates {
		out.Assessed = append(out.Assessed, p.assessment(at))
	}
	for _, pair := range p.comparison.Pairs {
		out.Pairs = append(out.Pairs, p.prefer(p.candidates[pair.A], p.candidates[pair.B]))
	}
	return out, nil
}

func (p *plan) assessment(at scored) sdk.Assessment {
	a := p.answers[at.answer]
	if a.abstain != "" {
		return sdk.Assessment{Abstain: a.abstain}
	}
	return sdk.Assessment{Score: &a.scores[at.place].score}
}

// prefer is the rule by which scores become a preference: the higher one wins, equal ones tie.
func (p *plan) prefer(x, y scored) sdk.Verdict {
	for _, at := range []scored{x, y} {
		if a := p.answers[at.answer]; a.abstain != "" {
			return sdk.Verdict{Abstain: a.abstain, Reason: a.words}
		}
	}
	a, b := p.answers[x.answer].scores[x.place], p.answers[y.answer].scores[y.place]
	v := sdk.Verdict{P: 0.5, Reason: fmt.Sprintf("score %v: %s\nscore %v: %s", a.score, clip(a.words, 400), b.score, clip(b.words, 400))}
	switch {
	case a.score > b.score:
		v.P = 1
	case a.score < b.score:
		v.P = 0
	}
	return v
}

// clip cuts a text to at most so many characters.
func clip(text string, most int) string {
	text = strings.TrimSpace(text)
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}
