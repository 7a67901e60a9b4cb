// Package command is the oracle that asks any program, over JSON lines on its standard input and output.
package command

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/dno-project/dno/plugins/internal/pairs"
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
// (no JSON, an unknown id, p out of range, a line of more than 8 MiB), on its exit and when the
// call is cancelled it is killed with all its children, and the next question starts it anew.
// What it writes to standard error goes to the plugin's, and its last words into the error.
type Oracle struct {
	mu           sync.Mutex
	path         string
	args         []string
	orderMatters bool
	program      *program // nil while none runs
	asked        int      // the last question's id
}

// New returns the oracle.
func New() sdk.Oracle { return &Oracle{} }

// Manifest declares a pairwise oracle for which the order matters: the host asks both orders.
func (*Oracle) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Kind:    sdk.KindOracle,
		Name:    "command",
		Version: "1",
		Help:    "asks any program: a JSON line in for each question, a JSON line out",
		Settings: []sdk.Setting{
			{Name: "path", Type: sdk.TypePath, Required: true,
				Help: "the program; a name without a slash is looked up in PATH"},
			{Name: "args", Type: sdk.TypeList, Default: []any{}, Help: "its arguments, texts"},
			{Name: "order_matters", Type: sdk.TypeBool, Default: true,
				Help: "false: it is asked one order only, and P of the other is taken to be 1-P"},
		},
		Oracle: sdk.OracleTraits{Form: sdk.FormPairwise, OrderMatters: true, Concurrency: 1},
	}
}

// Configure takes the settings. A running program is stopped if it is to be another one.
func (o *Oracle) Configure(_ context.Context, s sdk.Settings) error {
	args, err := settings.Texts(s, "args")
	if err != nil {
		return err
	}
	path := s.String("path", "")
	if path == "" {
		return sdk.Errorf(sdk.CodeUsage, "setting \"path\": want the path of a program")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if path != o.path || !slices.Equal(args, o.args) {
		o.stop()
	}
	o.path, o.args, o.orderMatters = path, args, s.Bool("order_matters", true)
	return nil
}

// Judge asks the program all of the batch's questions and waits for all the answers.
func (o *Oracle) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.path == "" {
		return nil, sdk.Errorf(sdk.CodePlugin, "oracle \"command\" was asked to judge before it was configured")
	}
	r := newRound(o.asked, o.orderMatters)
	for i, c := range batch {
		if err := pairs.Check(c); err != nil {
			return nil, err
		}
		r.add(i, c)
	}
	o.asked += len(r.questions)
	if len(r.questions) > 0 {
		if err := o.ask(ctx, r); err != nil {
			return nil, err
		}
	}
	return r.verdicts(batch), nil
}

// ask has the round's questions answered by the program, which does not survive an error.
func (o *Oracle) ask(ctx context.Context, r *round) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if o.program == nil {
		p, err := start(o.path, o.args)
		if err != nil {
			return sdk.Errorf(sdk.CodePlugin, "start the oracle program %s: %w", o.path, err).
				WithHint("check that the file is there and executable; without a slash it is looked up in PATH")
		}
		o.program = p
	}
	err := o.program.converse(ctx, r)
	if err == nil {
		return nil
	}
	p := o.program
	o.stop()
	answered := fmt.Sprintf("%d of %d questions answered", r.answered, len(r.questions))
	if cause := ctx.Err(); cause != nil {
		return sdk.Errorf(sdk.CodePlugin, "oracle program %s: %s when the call was cancelled%s: %w", o.path, answered, p.lastWords(), cause).
			WithHint("if it seems to hang: it must flush its output after each line")
	}
	return sdk.Errorf(sdk.CodePlugin, "oracle program %s (%s): %w%s", o.path, answered, err, p.lastWords())
}

// stop kills the program with its children and waits for its end.
func (o *Oracle) stop() {
	if o.program != nil {
		o.program.kill()
		o.program = nil
	}
}

// Close stops the program. The oracle may be used again: the next question starts it anew.
func (o *Oracle) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stop()
	return nil
}

var _ sdk.Oracle = (*Oracle)(nil)
