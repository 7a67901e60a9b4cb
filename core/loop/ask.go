package loop

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// ask answers the questions: from what is known, and by the oracle for the rest, in parallel as its
// manifest allows. Equal texts tie without being asked.
func (j *judge) ask(ctx context.Context, questions []question) ([]answer, error) {
	answers := make([]answer, len(questions))
	for at := 0; at < len(questions); at += judgeBatch {
		to := min(at+judgeBatch, len(questions))
		if err := j.askBatch(ctx, questions[at:to], answers[at:to]); err != nil {
			return nil, fmt.Errorf("judge with oracle %q: %w", j.name, err)
		}
	}
	return answers, nil
}

// The comparisons put at once, in as many calls as the oracle takes: one call has a time limit and
// a message a greatest size, however many prompts a set has.
const judgeBatch = 64

func (j *judge) askBatch(ctx context.Context, questions []question, answers []answer) error {
	all := make([]keyed, len(questions))
	var open []keyed
	for i, q := range questions {
		all[i].Comparison, answers[i] = j.compile(q)
		if err := j.keys.of(&all[i]); err != nil {
			return err
		}
		if rest, any := j.unknown(all[i]); any {
			open = append(open, rest)
		}
	}
	for len(open) > 0 {
		calls := make([]int, len(open))
		for i, c := range open {
			calls[i] = j.calls(c)
		}
		n, err := j.purse.fit(calls, j.traits.Concurrency)
		if err != nil {
			return err
		}
		if err := j.putAll(ctx, open[:n]); err != nil {
			return err
		}
		open = open[n:]
	}
	for i, q := range questions {
		v := j.recall(all[i], &answers[i])
		j.read(q, all[i].Comparison, v, &answers[i])
	}
	return nil
}

// calls is how many questions of the bill a comparison is.
func (j *judge) calls(c keyed) int {
	switch j.traits.Form {
	case sdk.FormListwise:
		return 1
	case sdk.FormPointwise:
		return len(c.candidates)
	}
	return len(c.pairs)
}

// putAll asks the oracle in as many calls as it takes at once.
func (j *judge) putAll(ctx context.Context, open []keyed) error {
	parts := max(1, min(j.traits.Concurrency, len(open)))
	var wg sync.WaitGroup
	errs := make([]error, parts)
	for part := range parts {
		lo, hi := part*len(open)/parts, (part+1)*len(open)/parts
		if lo == hi {
			continue
		}
		wg.Go(func() { errs[part] = j.put(ctx, open[lo:hi]) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// put asks the oracle in one call, and keeps what it says: when put returns nil it is paid for once and for all.
func (j *judge) put(ctx context.Context, open []keyed) error {
	batch := make([]sdk.Comparison, len(open))
	for i, c := range open {
		batch[i] = c.Comparison
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	ctx, cancel := lenient(ctx)
	defer cancel()
	verdicts, err := j.oracle.Judge(ctx, batch)
	if err != nil {
		return err
	}
	if len(verdicts) != len(batch) {
		return sdk.Errorf(sdk.CodePlugin, "it answered %d comparisons of %d", len(verdicts), len(batch))
	}
	var records []rundir.Judgment
	for i, v := range verdicts {
		if err := j.answeredBy(v.Model); err != nil {
			return err
		}
		c, first := open[i], len(records)
		if n := len(v.Pairs); n != len(c.pairs) {
			return sdk.Errorf(sdk.CodePlugin, "comparison %s: %d verdicts for %d pairs", c.ID, n, len(c.pairs))
		}
		if n := len(v.Assessed); n != 0 && n != len(c.Candidates) {
			return sdk.Errorf(sdk.CodePlugin, "comparison %s: %d assessments for %d candidates", c.ID, n, len(c.Candidates))
		}
		for k, pair := range v.Pairs {
			rec := rundir.Judgment{Key: c.pairs[k], Iteration: j.iteration, Oracle: j.name, Abstain: pair.Abstain, Reason: pair.Reason}
			if pair.Abstain == "" {
				rec.P = &pair.P
			}
			records = append(records, rec)
		}
		for k, key := range c.candidates {
			rec := rundir.Judgment{Key: key, Iteration: j.iteration, Oracle: j.name, Assessed: &sdk.Assessment{}}
			if len(v.Assessed) > 0 {
				rec.Assessed = &v.Assessed[k]
			}
			records = append(records, rec)
		}
		if len(records) > first {
			r := &records[first]
			r.Cost, r.Tokens, r.Calls = v.Cost, v.Tokens, j.calls(c)
			j.purse.spend(rundir.Spent{Calls: r.Calls, Tokens: r.Tokens, Money: r.Cost})
		}
	}
	return j.known.Add(records...)
}

// unknown returns the part of a comparison that has to be asked; any is false where nothing has. Of a list
// it is the whole, for each answer there depends on all candidates.
func (j *judge) unknown(c keyed) (rest keyed, any bool) {
	missing := func(k rundir.Key) bool {
		_, ok := j.known.Get(k)
		return !ok
	}
	wanted := make([]bool, len(c.Candidates))
	for i, key := range c.candidates {
		wanted[i] = missing(key)
		any = any || wanted[i]
	}
	var pairs []int
	for k, key := range c.pairs {
		if missing(key) {
			pairs = append(pairs, k)
			wanted[c.Pairs[k].A], wanted[c.Pairs[k].B], any = true, true, true
		}
	}
	if !any || j.traits.Form == sdk.FormListwise {
		return c, any
	}
	rest = keyed{Comparison: sdk.Comparison{ID: c.ID, Prompt: c.Prompt}}
	at := make([]int, len(c.Candidates))
	for i, want := range wanted {
		if at[i] = len(rest.Candidates); want {
			rest.Candidates, rest.candidates = append(rest.Candidates, c.Candidates[i]), append(rest.candidates, c.candidates[i])
		}
	}
	if j.traits.Form == sdk.FormPointwise { // it scores candidates; the pairs are what the scores are for
		for _, o := range c.Pairs {
			if wanted[o.A] && wanted[o.B] {
				rest.Pairs = append(rest.Pairs, sdk.Ordered{A: at[o.A], B: at[o.B]})
			}
		}
		return rest, true
	}
	for _, k := range pairs {
		o := c.Pairs[k]
		rest.Pairs, rest.pairs = append(rest.Pairs, sdk.Ordered{A: at[o.A], B: at[o.B]}), append(rest.pairs, c.pairs[k])
	}
	return rest, true
}

// recall is the oracle's answer to a comparison all of which is known. What was asked in this iteration
// counts as asked, also after a crash; its cost is the iteration's.
func (j *judge) recall(c keyed, a *answer) sdk.Verdicts {
	var v sdk.Verdicts
	get := func(k rundir.Key) (rec rundir.Judgment, fresh bool) {
		rec, _ = j.known.Get(k)
		if fresh = rec.Iteration == j.iteration; fresh {
			v.Cost += rec.Cost
			v.Tokens += rec.Tokens
		}
		return rec, fresh
	}
	count := func(fresh bool) {
		if fresh {
			a.asked++
		} else {
			a.cached++
		}
	}
	assessed, scored := false, make([]bool, len(c.candidates)) // scored: in this iteration
	for i, key := range c.candidates {
		rec, fresh := get(key)
		scored[i] = fresh
		var said sdk.Assessment
		if rec.Assessed != nil {
			said = *rec.Assessed
		}
		v.Assessed = append(v.Assessed, said)
		assessed = assessed || said.Score != nil || said.Abstain != "" || len(said.Labels) > 0
	}
	if !assessed {
		v.Assessed = nil
	}
	for _, key := range c.pairs {
		rec, fresh := get(key)
		verdict := sdk.Verdict{Abstain: rec.Abstain}
		if rec.P != nil {
			verdict.P = *rec.P
		}
		v.Pairs = append(v.Pairs, verdict)
		count(fresh)
	}
	if j.traits.Form == sdk.FormPointwise { // a pair is known where both its scores are
		for _, o := range c.Pairs {
			count(scored[o.A] || scored[o.B])
		}
	}
	return v
}

// keyed is a comparison with the keys of what is asked in it.
type keyed struct {
	sdk.Comparison
	pairs      []rundir.Key // one a pair; none of a pointwise oracle
	candidates []rundir.Key
}

// keys make the keys of one oracle's judgments.
type keys struct {
	oracle [sha256.Size]byte
	form   sdk.OracleForm
}

// newKeys hashes all of an oracle that decides what it says: which it is, its version, its settings and the
// files that they name.
func newKeys(rec rundir.PluginRecord, traits sdk.OracleTraits) (keys, error) {
	text, err := json.Marshal(rec)
	return keys{oracle: sha256.Sum256(text), form: traits.Form}, err
}

// of fills in a comparison's keys. A pair's is of the oracle, the prompt and both texts in their order; a
// candidate's has one text; in a list all candidates are part of every key.
func (k keys) of(c *keyed) error {
	prompt, err := json.Marshal(c.Prompt) // the oracle sees its ID, answer and metadata too
	if err != nil {
		return err
	}
	texts := make([][sha256.Size]byte, len(c.Candidates))
	for i, text := range c.Candidates {
		texts[i] = sha256.Sum256([]byte(text))
	}
	scope := sha256.New()
	scope.Write(k.oracle[:])
	sum := sha256.Sum256(prompt)
	scope.Write(sum[:])
	if k.form == sdk.FormListwise {
		for _, text := range texts {
			scope.Write(text[:])
		}
	}
	base := scope.Sum(nil)
	key := func(parts ...int) (out rundir.Key) {
		h := sha256.New()
		h.Write(binary.LittleEndian.AppendUint64(base, uint64(len(parts))))
		for _, i := range parts {
			h.Write(texts[i][:])
		}
		copy(out[:], h.Sum(nil))
		return out
	}
	if k.form != sdk.FormPointwise {
		for _, o := range c.Pairs {
			c.pairs = append(c.pairs, key(o.A, o.B))
		}
	}
	for i := range c.Candidates {
		c.candidates = append(c.candidates, key(i))
	}
	return nil
}
