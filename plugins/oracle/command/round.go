package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/dno-project/dno/sdk"
)

// question is one line to the program.
type question struct {
	ID       string        `json:"id"`
	Prompt   string        `json:"prompt"`
	Messages []sdk.Message `json:"messages,omitempty"` // of a prompt of several turns
	Answer   string        `json:"answer"`
	A        string        `json:"a"`
	B        string        `json:"b"`
}

// answer is one line from the program.
type answer struct {
	ID      string                    `json:"id"`
	P       *float64                  `json:"p"`
	Abstain *string                   `json:"abstain"`
	Reason  string                    `json:"reason"`
	Cost    float64                   `json:"cost"`
	Model   string                    `json:"model"` // that answered
	Score   sided[*float64]           `json:"score"`
	Labels  sided[map[string]float64] `json:"labels"`
}

// sided is what is said of each text by itself.
type sided[T any] struct {
	A T `json:"a"`
	B T `json:"b"`
}

// round is a batch's questions and their answers.
type round struct {
	questions []question
	answers   []answer       // of the question at the same place
	byID      map[string]int // places of the questions that wait for an answer
	answered  int

	first        int // the first question's id
	orderMatters bool
	asked        map[placed]int // the place of the question about an ordered pair of a comparison
}

// placed is an ordered pair of the comparison at a place of the batch.
type placed struct {
	comparison int
	pair       sdk.Ordered
}

// newRound returns an empty round whose questions' ids follow after the given one.
func newRound(after int, orderMatters bool) *round {
	return &round{byID: map[string]int{}, asked: map[placed]int{}, first: after + 1, orderMatters: orderMatters}
}

// add puts each of a comparison's pairs as a question, the same question once.
func (r *round) add(place int, c sdk.Comparison) {
	for _, pair := range c.Pairs {
		pair, _ = r.order(pair)
		if _, again := r.asked[placed{place, pair}]; again {
			continue
		}
		q := question{ID: strconv.Itoa(r.first + len(r.questions)), Prompt: c.Prompt.Text(), Answer: c.Prompt.Answer,
			A: c.Candidates[pair.A], B: c.Candidates[pair.B]}
		if len(c.Prompt.Messages) > 1 {
			q.Messages = c.Prompt.Messages
		}
		r.asked[placed{place, pair}] = len(r.questions)
		r.byID[q.ID] = len(r.questions)
		r.questions = append(r.questions, q)
		r.answers = append(r.answers, answer{})
	}
}

// order returns the order in which a pair is asked, and whether that is not the given one.
func (r *round) order(pair sdk.Ordered) (sdk.Ordered, bool) {
	if !r.orderMatters && pair.A > pair.B {
		return sdk.Ordered{A: pair.B, B: pair.A}, true
	}
	return pair, false
}

// take reads one line of the program's.
func (r *round) take(line []byte) error {
	a, err := parseAnswer(line)
	if err != nil {
		return fmt.Errorf("the line %.200q: %w", line, err)
	}
	place, waiting := r.byID[a.ID]
	if !waiting {
		return fmt.Errorf("the line %.200q: no question with the id %q waits for an answer", line, a.ID)
	}
	delete(r.byID, a.ID)
	r.answers[place] = a
	r.answered++
	return nil
}

// parseAnswer reads and checks one answer; whether its id is known is not its matter.
func parseAnswer(line []byte) (answer, error) {
	var a answer
	if err := json.Unmarshal(line, &a); err != nil {
		return answer{}, fmt.Errorf("want a JSON line like {\"id\":\"1\",\"p\":0.5}: %w", err)
	}
	switch {
	case a.P == nil && a.Abstain == nil:
		return answer{}, errors.New(`want "p" or "abstain"`)
	case a.P != nil && a.Abstain != nil:
		return answer{}, errors.New(`"p" and "abstain" exclude each other`)
	case a.Abstain != nil && *a.Abstain == "":
		return answer{}, errors.New(`"abstain" needs a reason`)
	case a.P != nil && !(*a.P >= 0 && *a.P <= 1):
		return answer{}, fmt.Errorf(`"p" is %v, want a probability from 0 to 1`, *a.P)
	case !(a.Cost >= 0):
		return answer{}, fmt.Errorf(`"cost" is %v, want at least 0`, a.Cost)
	}
	return a, nil
}

// verdicts returns the batch's verdicts when all questions are answered.
func (r *round) verdicts(batch []sdk.Comparison) []sdk.Verdicts {
	out := make([]sdk.Verdicts, len(batch))
	for i, c := range batch {
		v := sdk.Verdicts{ID: c.ID, Pairs: make([]sdk.Verdict, len(c.Pairs))}
		assessed := make([]sdk.Assessment, len(c.Candidates))
		counted := map[int]bool{}
		said := false
		for k, pair := range c.Pairs {
			pair, turned := r.order(pair)
			place := r.asked[placed{i, pair}]
			a := r.answers[place]
			v.Pairs[k] = a.verdict(turned)
			if counted[place] {
				continue
			}
			counted[place] = true
			v.Cost += a.Cost
			if a.Model != "" {
				v.Model = a.Model
			}
			said = assess(&assessed[pair.A], a.Score.A, a.Labels.A) || said
			said = assess(&assessed[pair.B], a.Score.B, a.Labels.B) || said
		}
		if said {
			v.Assessed = assessed
		}
		out[i] = v
	}
	return out
}

// verdict returns the answer for the pair as asked, or for the pair turned round.
func (a answer) verdict(turned bool) sdk.Verdict {
	v := sdk.Verdict{Reason: a.Reason}
	switch {
	case a.Abstain != nil:
		v.Abstain = *a.Abstain
	case turned:
		v.P = 1 - *a.P
	default:
		v.P = *a.P
	}
	return v
}

// assess adds what an answer says of one text, where nothing was said of it before. It returns
// whether anything is said.
func assess(of *sdk.Assessment, score *float64, labels map[string]float64) bool {
	if of.Score == nil {
		of.Score = score
	}
	if of.Labels == nil {
		of.Labels = labels
	}
	return score != nil || labels != nil
}
