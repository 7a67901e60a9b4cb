// Package command is the oracle that asks any program, over JSON lines on its standard input and output.
package command

import (
	"context"
	"sync"

	"github.com/dno-project/dno/plugins/internal/pairs"
	"github.com/dno-project/dno/plugins/internal/program"
	"github.com/dno-project/dno/plugins/internal/questions"
	"github.com/dno-project/dno/plugins/internal/settings"
	"github.com/dno-project/dno/sdk"
)

// Oracle keeps one program running and writes it a line for each question:
//
//	{"id":"1","prompt":"17 45 8","answer":"70","a":"17+45=62;62+8=70","b":"71"}
//
// prompt is the text of the prompt's turns; with several turns, "messages" lists them as well.
// answer is the reference answer, "" where there is none. The program answers each with a line, in
// any order:
//
//	{"id":"1","p":0.9}
//	{"id":"1","abstain":"the answer is not a number"}
//
// p is the probability in [0, 1] that a is preferred to b. Beside it there may be "reason" (a
// text), "cost" (at least 0), and what is said of each text by itself: "score" {"a":7,"b":3} and
// "labels" {"a":{"correct":1},"b":{"correct":0}}, of which either side may be left out. Where
// several answers speak of one text, the first question's counts. Other keys are not read.
//
// The program is started with the first question, in the plugin's directory and with the plugin's
// environment, and is kept for the whole run; it must flush each line. On an answer that is none
// (no JSON, a key twice, an unknown id, p out of range, a line of more than 8 MiB), on its exit and when
// the call is cancelled it is killed with all its children, and the next question starts it anew.
// What it writes to standard error goes to the plugin's, and its last words into the error.
type Oracle struct {
	mu           sync.Mutex
	program      program.Kept
	orderMatters bool
	asked        int // the last question's id
}

// New returns the oracle.
func New() sdk.Oracle { return &Oracle{program: program.Kept{Role: "oracle"}} }

// Manifest declares a pairwise oracle for which the order matters: the host asks both orders.
func (*Oracle) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Kind:    sdk.KindOracle,
		Name:    "command",
		Version: "1",
		Help:    "asks any program: a JSON line in for each question, a JSON line out",
		Settings: append(settings.Program(), sdk.Setting{Name: "order_matters", Type: sdk.TypeBool, Default: true,
			Help: "false: it is asked one order only, and P of the other is taken to be 1-P"}),
		Oracle: sdk.OracleTraits{Form: sdk.FormPairwise, OrderMatters: true, Concurrency: 1},
	}
}

// Configure takes the settings. A running program is stopped if it is to be another one.
func (o *Oracle) Configure(_ context.Context, s sdk.Settings) error {
	path, args, err := settings.ReadProgram(s)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.program.Use(path, args)
	o.orderMatters = s.Bool("order_matters", true)
	return nil
}

// Judge asks the program all of the batch's questions and waits for all the answers.
func (o *Oracle) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range batch {
		if err := pairs.Check(c); err != nil {
			return nil, err
		}
	}
	r := questions.NewRound(batch, o.asked, o.orderMatters)
	o.asked += r.Len()
	for _, part := range r.Parts(max(1, r.Len())) {
		if err := program.Ask(ctx, &o.program, part.Questions, part.Take); err != nil {
			return nil, err
		}
	}
	return r.Verdicts(batch), nil
}

// Close stops the program. The oracle may be used again: the next question starts it anew.
func (o *Oracle) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.program.Close()
	return nil
}

var _ sdk.Oracle = (*Oracle)(nil)
