package loop

import (
	"fmt"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// After so many steps in a row without an update a run stops: more would change nothing.
const maxBadSteps = 3

// badBatch is bad-step-N.json: what a step was about that could not be made. Numbers are texts, as they may be NaN.
type badBatch struct {
	Step        int        `json:"step"`
	Error       string     `json:"error"`
	Completions []badText  `json:"completions"`
	Pairs       [][2]int32 `json:"pairs,omitempty"` // chosen, rejected: indices into the completions
}

type badText struct {
	Prompt     string `json:"prompt"` // its ID
	Completion string `json:"completion"`
	Policy     string `json:"policy,omitempty"` // log-probability, nats; not there where the step did not get so far
	Reference  string `json:"reference,omitempty"`
}

// badBatch keeps the batch of a step that failed for numbers which are not finite: it is skipped, and nil returned. Any other
// error, and the third such step in a row, is returned.
func (l *Loop) badBatch(it rundir.Iteration, games []judged, b *batch, step int, before []rundir.StepRecord, err error) error {
	if sdk.CodeOf(err) != sdk.CodeNumeric {
		return err
	}
	bad := badBatch{Step: step, Error: err.Error()}
	for i, at := range b.places {
		g := games[at.game]
		text := badText{Prompt: g.Prompt.ID, Completion: g.Completions[at.completion].Text}
		if len(b.Policy) == len(b.places) {
			text.Policy = fmt.Sprint(b.Policy[i])
		}
		if len(b.Reference) == len(b.places) {
			text.Reference = fmt.Sprint(b.Reference[i])
		}
		bad.Completions = append(bad.Completions, text)
	}
	for k := range b.Chosen {
		bad.Pairs = append(bad.Pairs, [2]int32{b.Chosen[k], b.Rejected[k]})
	}
	name := rundir.BadBatch(step)
	if err := it.WriteRecord(name, bad); err != nil {
		return err
	}
	l.Log("step %d is skipped, and its batch is in %s: %v", step, it.Path(name), err)
	row := 1
	for i := len(before) - 1; i >= 0 && before[i].Skipped != ""; i-- {
		row++
	}
	if row >= maxBadSteps {
		return sdk.Errorf(sdk.CodeNumeric, "%d steps in a row could not be made: %w", row, err)
	}
	return nil
}
