// Package command is the sampler that asks any program, over JSON lines on its standard input and output.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/dno-project/dno/plugins/internal/program"
	"github.com/dno-project/dno/plugins/internal/settings"
	"github.com/dno-project/dno/sdk"
)

// Sampler keeps one program running and writes it a line for each prompt:
//
//	{"id":"1","prompt":"17 45 8","samples":2,"seeds":[7046029254386353131,42]}
//
// prompt is the text of the prompt's turns; with several turns, "messages" lists them as well. The
// reference answer is not shown. seeds are whole numbers of 64 bits, one for each completion: the same
// seed shall give the same completion, whatever else is asked. The program answers each with a
// line, in any order:
//
//	{"id":"1","completions":[{"text":"17+45=62;62+8=70","finish":"stop"},{"text":"17+45=6","finish":"length"}]}
//
// of at most so many completions as samples; an empty list says that it has none. finish is "stop",
// or "length" where the text is cut; it may be left out. Other keys are not read.
//
// The program is started with the first prompt, in the plugin's directory and with the plugin's
// environment, and is kept for the whole run; it must flush each line. On an answer that is none
// (no JSON, an unknown id, too many completions, a line of more than 8 MiB), on its exit and when the
// call is cancelled it is killed with all its children, and the next prompt starts it anew. What it
// writes to standard error goes to the plugin's, and its last words into the error.
type Sampler struct {
	mu      sync.Mutex
	program program.Kept
	asked   int // the last prompt's id to the program
}

// New returns the sampler.
func New() sdk.Sampler { return &Sampler{program: program.Kept{Role: "sampler"}} }

// Manifest declares a sampler that needs no generator.
func (*Sampler) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Kind:     sdk.KindSampler,
		Name:     "command",
		Version:  "1",
		Help:     "asks any program: a JSON line in for each prompt, a JSON line with its completions out",
		Settings: settings.Program(),
	}
}

// Configure takes the settings. A running program is stopped if it is to be another one.
func (s *Sampler) Configure(_ context.Context, given sdk.Settings) error {
	path, args, err := settings.ReadProgram(given)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.program.Use(path, args)
	return nil
}

// question is one line to the program.
type question struct {
	ID       string        `json:"id"`
	Prompt   string        `json:"prompt"`
	Messages []sdk.Message `json:"messages,omitempty"` // of a prompt of several turns
	Samples  int           `json:"samples"`
	Seeds    []uint64      `json:"seeds"`
}

// Sample asks the program for the completions of all prompts and waits for all the answers.
func (s *Sampler) Sample(ctx context.Context, req sdk.SampleRequest, _ sdk.Generator) (sdk.SampleResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(req.Seeds) != len(req.Prompts) {
		return sdk.SampleResponse{}, sdk.Errorf(sdk.CodePlugin, "%d prompts came with seeds for %d", len(req.Prompts), len(req.Seeds))
	}
	questions := make([]question, len(req.Prompts))
	waiting := map[string]int{} // places of the prompts without an answer, by id
	for i, p := range req.Prompts {
		s.asked++
		q := question{ID: strconv.Itoa(s.asked), Prompt: p.Text(), Samples: req.K, Seeds: req.Seeds[i]}
		if len(p.Messages) > 1 {
			q.Messages = p.Messages
		}
		questions[i], waiting[q.ID] = q, i
	}
	out := sdk.SampleResponse{Completions: make([][]sdk.Completion, len(req.Prompts))}
	err := program.Ask(ctx, &s.program, questions, func(line []byte) error {
		a, err := parseAnswer(line, req.K)
		if err != nil {
			return err
		}
		place, waits := waiting[a.ID]
		if !waits {
			return fmt.Errorf("no prompt with the id %.40q waits for completions", a.ID)
		}
		delete(waiting, a.ID)
		out.Completions[place] = a.completions(req.Seeds[place])
		return nil
	})
	if err != nil {
		return sdk.SampleResponse{}, err
	}
	return out, nil
}

// answer is one line from the program.
type answer struct {
	ID          string `json:"id"`
	Completions []struct {
		Text   *string    `json:"text"`
		Finish sdk.Finish `json:"finish"`
	} `json:"completions"`
}

// parseAnswer reads and checks one answer of at most k completions; whether its id is known is not
// its matter.
func parseAnswer(line []byte, k int) (answer, error) {
	var a answer
	if !utf8.Valid(line) {
		return answer{}, errors.New("it is not UTF-8")
	}
	if err := json.Unmarshal(line, &a); err != nil {
		return answer{}, fmt.Errorf(`want a JSON object like {"id":"1","completions":[{"text":"..."}]}: %w`, err)
	}
	switch {
	case a.Completions == nil:
		return answer{}, errors.New(`want a list of "completions", an empty one where there are none`)
	case len(a.Completions) > k:
		return answer{}, fmt.Errorf("it has %d completions, at most %d were asked for", len(a.Completions), k)
	}
	for i, c := range a.Completions {
		switch {
		case c.Text == nil:
			return answer{}, fmt.Errorf(`completions[%d]: want a "text"`, i)
		case c.Finish != "" && c.Finish != sdk.FinishStop && c.Finish != sdk.FinishLength:
			return answer{}, fmt.Errorf(`completions[%d]: "finish" is %.40q: want "stop", "length" or none`, i, c.Finish)
		}
	}
	return a, nil
}

// completions returns what the program answered; completion i belongs to seeds[i] where all were drawn.
func (a answer) completions(seeds []uint64) []sdk.Completion {
	var out []sdk.Completion
	for i, c := range a.Completions {
		drawn := sdk.Completion{Text: *c.Text, Finish: c.Finish}
		if len(a.Completions) == len(seeds) {
			drawn.Seed = seeds[i]
		}
		out = append(out, drawn)
	}
	return out
}

// Close stops the program. The sampler may be used again: the next prompt starts it anew.
func (s *Sampler) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.program.Close()
	return nil
}

var _ sdk.Sampler = (*Sampler)(nil)
