// Package questions is what programs and services that compare two texts are asked, and what they answer, as JSON.
package questions

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/dno-project/dno/sdk"
)

// Question asks how probably text A is preferred to text B.
type Question struct {
	ID       string        `json:"id"`
	Prompt   string        `json:"prompt"`
	Messages []sdk.Message `json:"messages,omitempty"` // of a prompt of several turns
	Answer   string        `json:"answer"`             // the reference answer; "" where there is none
	A        string        `json:"a"`
	B        string        `json:"b"`
}

// answer is the answer to one question.
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

// Round is a batch's questions and their answers.
type Round struct {
	questions []Question
	answers   []answer // of the question at the same place

	first        int // the first question's id
	orderMatters bool
	asked        map[placed]int // the place of the question about an ordered pair of a comparison
}

// placed is an ordered pair of the comparison at a place of the batch.
type placed struct {
	comparison int
	pair       sdk.Ordered
}

// NewRound returns the questions about a batch whose pairs are all of candidates that there are: one
// for each ordered pair, the same question once. Where the order does not matter one order is
// asked only. Ids are numbers that follow after the given one.
func NewRound(batch []sdk.Comparison, after int, orderMatters bool) *Round {
	r := &Round{asked: map[placed]int{}, first: after + 1, orderMatters: orderMatters}
	for i, c := range batch {
		r.add(i, c)
	}
	return r
}

func (r *Round) add(place int, c sdk.Comparison) {
	for _, pair := range c.Pairs {
		pair, _ = r.order(pair)
		if _, again := r.asked[placed{place, pair}]; again {
			continue
		}
		q := Question{ID: strconv.Itoa(r.first + len(r.questions)), Prompt: c.Prompt.Text(), Answer: c.Prompt.Answer,
			A: c.Candidates[pair.A], B: c.Candidates[pair.B]}
		if len(c.Prompt.Messages) > 1 {
			q.Messages = c.Prompt.Messages
		}
		r.asked[placed{place, pair}] = len(r.questions)
		r.questions = append(r.questions, q)
		r.answers = append(r.answers, answer{})
	}
}

// order returns the order in which a pair is asked, and whether that is not the given one.
func (r *Round) order(pair sdk.Ordered) (sdk.Ordered, bool) {
	if !r.orderMatters && pair.A > pair.B {
		return sdk.Ordered{A: pair.B, B: pair.A}, true
	}
	return pair, false
}

// Len returns the number of questions.
func (r *Round) Len() int { return len(r.questions) }

// Parts deals the questions out into parts of at most size, in order. The parts of a round may be
// answered at the same time.
func (r *Round) Parts(size int) []*Part {
	var parts []*Part
	for from := 0; from < len(r.questions); from += size {
		to := min(from+size, len(r.questions))
		p := &Part{Questions: r.questions[from:to], answers: r.answers[from:to], waiting: make(map[string]int, to-from)}
		for i, q := range p.Questions {
			p.waiting[q.ID] = i
		}
		parts = append(parts, p)
	}
	return parts
}

// Part is some of a round's questions, which wait for their answers.
type Part struct {
	Questions []Question
	answers   []answer
	waiting   map[string]int // places of the questions without an answer, by id
}

// Take reads the answer to one of the part's questions:
//
//	{"id":"1","p":0.9}
//	{"id":"1","abstain":"the answer is not a number"}
//
// p is the probability in [0, 1] that a is preferred to b. Beside it there may be "reason" (a
// text), "cost" (at least 0), "model" (that answered), and what is said of each text by itself:
// "score" {"a":7,"b":3} and "labels" {"a":{"correct":1},"b":{"correct":0}}, of which either side may
// be left out. Other keys are not read.
//
// The error says what is wrong with it: no JSON, a key that is there twice, an id that no question waits
// under, a number out of range.
func (p *Part) Take(raw []byte) error {
	a, err := parseAnswer(raw)
	if err != nil {
		return err
	}
	place, waits := p.waiting[a.ID]
	if !waits {
		return fmt.Errorf("no question with the id %.40q waits for an answer", a.ID)
	}
	delete(p.waiting, a.ID)
	p.answers[place] = a
	return nil
}

// Missing returns an error that names the first question without an answer; nil if there is none.
func (p *Part) Missing() error {
	for i, q := range p.Questions {
		if _, waits := p.waiting[q.ID]; waits {
			return fmt.Errorf("questions[%d] (id %q) has no answer, %d of %d have one", i, q.ID, len(p.Questions)-len(p.waiting), len(p.Questions))
		}
	}
	return nil
}

// TakeAll reads the answers to all of the part's questions, in any order:
//
//	{"answers":[{"id":"1","p":0.9},{"id":"2","abstain":"why"}]}
//
// each as [Part.Take] does. The error names the first that is none by its index.
func (p *Part) TakeAll(body []byte) error {
	const want = `want {"answers":[{"id":"1","p":0.5}, ...]}`
	if !utf8.Valid(body) {
		return fmt.Errorf("%.200q is not UTF-8: %s", body, want)
	}
	var all struct {
		Answers []json.RawMessage `json:"answers"`
	}
	if err := unmarshal(body, &all); err != nil {
		return fmt.Errorf("%.200q: %s: %w", body, want, err)
	}
	if all.Answers == nil {
		return fmt.Errorf("%.200q has no answers: %s", body, want)
	}
	for i, raw := range all.Answers {
		if err := p.Take(raw); err != nil {
			return fmt.Errorf("answers[%d], %.200q: %w", i, raw, err)
		}
	}
	return p.Missing()
}

// parseAnswer reads and checks one answer; whether its id is known is not its matter.
func parseAnswer(raw []byte) (answer, error) {
	var a answer
	if err := unmarshal(raw, &a); err != nil {
		return answer{}, fmt.Errorf("want a JSON object like {\"id\":\"1\",\"p\":0.5}: %w", err)
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

// unmarshal reads an object. encoding/json alone takes the last of two values of a key, which may
// contradict each other, and keys in other capitals for the same.
func unmarshal(raw []byte, into any) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return err
	}
	in := json.NewDecoder(bytes.NewReader(raw))
	seen := map[string]bool{}
	if _, err := in.Token(); err != nil { // the opening brace; null has none
		return err
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return err
		}
		name := strings.ToLower(fmt.Sprint(key))
		if seen[name] {
			return fmt.Errorf("the key %.40q is there twice", name)
		}
		seen[name] = true
		var skipped json.RawMessage
		if err := in.Decode(&skipped); err != nil {
			return err
		}
	}
	return nil
}

// Verdicts returns the batch's verdicts when all questions are answered.
func (r *Round) Verdicts(batch []sdk.Comparison) []sdk.Verdicts {
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
