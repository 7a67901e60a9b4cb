// Package program is a program kept running beside a plugin, spoken to in lines over its standard input and output.
package program

import (
	"context"
	"fmt"
	"slices"

	"github.com/dno-project/dno/sdk"
)

// Kept is a program that is started with the first question and kept from call to call. It is
// started in the plugin's directory and with the plugin's environment. What it writes to standard
// error goes to the plugin's, and its last words into errors. It is not safe for concurrent use.
type Kept struct {
	Role string // what the program is, in errors: "oracle"

	path    string
	args    []string
	running *process // nil while none runs
}

// Use names the program to be asked. One that runs is stopped if it is to be another one.
func (k *Kept) Use(path string, args []string) {
	if path != k.path || !slices.Equal(args, k.args) {
		k.Close()
	}
	k.path, k.args = path, args
}

// Ask writes the questions, each as a line of JSON, and hands each line that comes back to take,
// until there are as many as questions. Blank lines are passed over; a line has at most 8 MiB.
//
// On an error of take's, a line that is too long, the program's end and ctx's end it is killed with
// all its children, and the next call starts it anew. The error, of [sdk.CodePlugin], says how many
// questions were answered.
func Ask[Q any](ctx context.Context, k *Kept, questions []Q, take func(line []byte) error) error {
	if k.path == "" {
		return sdk.Errorf(sdk.CodePlugin, "the %s program was asked before it was configured", k.Role)
	}
	if err := ctx.Err(); err != nil || len(questions) == 0 {
		return err
	}
	if k.running == nil {
		p, err := start(k.path, k.args)
		if err != nil {
			return sdk.Errorf(sdk.CodePlugin, "start the %s program %s: %w", k.Role, k.path, err).
				WithHint("check that the file is there and executable; without a slash it is looked up in PATH")
		}
		k.running = p
	}
	p := k.running
	answered, err := p.converse(ctx, len(questions), func() error { return writeLines(p.stdin, questions) }, take)
	if err == nil {
		return nil
	}
	k.Close()
	done := fmt.Sprintf("%d of %d questions answered", answered, len(questions))
	if cause := ctx.Err(); cause != nil {
		return sdk.Errorf(sdk.CodePlugin, "%s program %s: %s when the call was cancelled%s: %w", k.Role, k.path, done, p.lastWords(), cause).
			WithHint("if it seems to hang: it must flush its output after each line")
	}
	return sdk.Errorf(sdk.CodePlugin, "%s program %s (%s): %w%s", k.Role, k.path, done, err, p.lastWords())
}

// Close kills the program with its children and waits for its end. The next question starts it anew.
func (k *Kept) Close() {
	if k.running != nil {
		k.running.kill()
		k.running = nil
	}
}
