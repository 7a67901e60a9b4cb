// Command dno teaches a language model from preferences over its own answers: Direct Nash
// Optimization. It is the composition root: it alone knows every package, and wires them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/dno-project/dno/core/report"
	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

// app is what every command shares: where it writes, and how.
type app struct {
	stdout, stderr io.Writer
	json           bool // --json: one JSON object on stdout
	verbose        bool
	log            telemetry.Logger
	writing        string // the run directory that this process writes to; "" where none
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run executes one command line and returns the process's exit code.
func run(args []string, stdout, stderr io.Writer) (code int) {
	a := &app{stdout: stdout, stderr: stderr}
	// Go itself exits with 2 on a panic, which is our code for a wrong command line.
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(stderr, "dno: internal error: %v\n%s", r, debug.Stack())
			code = int(sdk.CodeInternal)
		}
	}()
	ctx, cause, stop := interruptible()
	defer stop()
	root := a.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if s := cause(); s != nil && errors.Is(err, context.Canceled) {
		err = interrupted(s, a.writing)
	}
	return a.fail(err)
}

// interruptible returns a context that the first signal cancels; the second ends the process at
// once. What is on disk is consistent at any moment, so both can be resumed.
func interruptible() (ctx context.Context, cause func() os.Signal, stop func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		first, ok := <-signals
		if !ok {
			return
		}
		cancel(signalError{first})
		if second, ok := <-signals; ok {
			os.Exit(int(interrupted(second, "").Code))
		}
	}()
	cause = func() os.Signal {
		var s signalError
		if errors.As(context.Cause(ctx), &s) {
			return s.signal
		}
		return nil
	}
	return ctx, cause, func() {
		signal.Stop(signals)
		close(signals)
		cancel(nil)
	}
}

// signalError is the cause of a context that a signal cancelled. What waits on the context may
// return either the cause or context.Canceled.
type signalError struct{ signal os.Signal }

func (s signalError) Error() string { return "stopped by the signal: " + s.signal.String() }

func (s signalError) Is(target error) bool { return target == context.Canceled }

// interrupted is what a command ends with that a signal stopped; writing is its run directory, or "".
func interrupted(s os.Signal, writing string) *sdk.Error {
	code := sdk.CodeInterrupted
	if s == syscall.SIGTERM {
		code = sdk.CodeTerminated
	}
	if writing == "" {
		return sdk.Errorf(code, "%w", signalError{s})
	}
	return sdk.Errorf(code, "%w; nothing that was written is lost", signalError{s}).WithHint("go on with: dno resume %s", writing)
}

// fail prints the error, once and with its hint, and returns the exit code.
func (a *app) fail(err error) int {
	code := sdk.CodeOf(err)
	hint := ""
	for e := err; e != nil; e = errors.Unwrap(e) {
		if coded, ok := e.(*sdk.Error); ok && coded.Hint != "" {
			hint = coded.Hint
			break
		}
	}
	clean := a.log.Secrets().Clean // of keys that a plugin was given, and put into its error
	text, hint := clean(err.Error()), clean(hint)
	if a.json {
		out := map[string]any{"error": text, "code": int(code)}
		if hint != "" {
			out["hint"] = hint
		}
		_ = json.NewEncoder(a.stderr).Encode(out)
		return int(code)
	}
	fmt.Fprintf(a.stderr, "dno: %s\n", printable(text))
	if hint != "" {
		fmt.Fprintf(a.stderr, "     %s\n", printable(hint))
	}
	return int(code)
}

// printable is text that may come from a plugin or a file, safe for a terminal. Its lines stay lines.
func printable(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = report.Clean(line)
	}
	return strings.Join(lines, "\n")
}

func (a *app) root() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "dno",
		Short: "Direct Nash Optimization: a language model learns from preferences over its own answers",
		Long: `dno trains a language model by self-play: the policy completes each prompt several times, an
oracle says which completion is better, a contrastive loss updates the policy, and the next iteration begins.

A Lua script is one experiment; oracles, losses and samplers are plugins.`,
		Example: `  dno run                              the embedded experiment
  dno run my.lua --set loss.beta=0.5   your own
  dno report                           what came out of it`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.log = newLog(a.stderr, a.json, a.verbose)
			// go-plugin tells some of its doings to the standard logger.
			log.SetFlags(0)
			log.SetOutput(details{a.log})
		},
	})
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON, for machines")
	root.PersistentFlags().BoolVarP(&a.verbose, "verbose", "v", false, "log details, such as what plugins print")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return sdk.Errorf(sdk.CodeUsage, "%w", err).WithHint("%s --help shows the flags", c.CommandPath())
	})
	root.AddCommand(
		a.runCommand(), a.resumeCommand(), a.replayCommand(), a.fsckCommand(), a.rollbackCommand(), a.planCommand(), a.statusCommand(), a.samplesCommand(),
		a.reportCommand(), a.sftCommand(), a.mergeCommand(), a.generateCommand(), a.serveCommand(), a.evalCommand(), a.benchCommand(), a.pluginCommand(),
		a.scriptCommand(), a.doctorCommand(), a.versionCommand(),
	)
	// Cobra's own two commands come without an example.
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Example = "  dno help run"
		case "completion":
			c.Example = "  dno completion bash > dno.bash"
			for _, shell := range c.Commands() {
				shell.Example = "  " + shell.CommandPath()
			}
		}
	}
	usageErrors(root)
	return root
}

// group makes a command of one that only holds others: by itself it shows its help.
func group(c *cobra.Command) *cobra.Command {
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		var names []string
		for _, sub := range c.Commands() {
			names = append(names, sub.Name())
		}
		if near := sdk.Nearest(args[0], names); near != "" {
			return fmt.Errorf("there is no command %q; did you mean %q?", args[0], near)
		}
		return fmt.Errorf("there is no command %q", args[0])
	}
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
	return c
}

// usageErrors gives wrong arguments the code of a wrong command line.
func usageErrors(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return sdk.Errorf(sdk.CodeUsage, "%w", err).WithHint("%s --help shows an example", c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		usageErrors(sub)
	}
}

// printJSON writes v as one indented JSON object on stdout.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
