package sdk

import (
	"errors"
	"fmt"
)

// Code says what kind of failure an error is. It crosses the wire, and it is the process's exit code.
type Code int

const (
	CodeInternal    Code = 1  // a fault of dno or of the plugin
	CodeUsage       Code = 2  // the user's input: flags, settings, data
	CodeScript      Code = 3  // the Lua script
	CodePlugin      Code = 4  // a plugin did not start, crashed, or broke the contract
	CodeOracle      Code = 5  // the oracle's answers cannot carry an iteration: too many abstentions, no pairs
	CodeIO          Code = 6  // reading or writing files
	CodeNumeric     Code = 7  // NaN or infinity in training
	CodeLocked      Code = 8  // another process writes to the run directory
	CodeBudget      Code = 9  // a budget is reached; the run can be resumed
	CodeCorrupt     Code = 10 // a damaged artefact
	CodeThreshold   Code = 99 // a stated quality threshold is not met
	CodeInterrupted Code = 130
	CodeTerminated  Code = 143
)

// Error is an error with a code and, where there is one, a hint: what to do next.
type Error struct {
	Code Code
	Hint string // one sentence for the user; "" where there is nothing to add
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an [Error] with a code; %w keeps the cause.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// WithHint sets the hint and returns the error.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// CodeOf returns the code of the outermost [Error] in err's chain; [CodeInternal] where there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
