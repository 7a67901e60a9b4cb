package telemetry

import (
	"fmt"
	"io"
	"strings"
)

// Lines writes a text for people line by line, without white space at the lines' ends, and keeps the first error.
type Lines struct {
	To  io.Writer
	Err error
}

// Line writes a line, unless one before has failed.
func (l *Lines) Line(format string, args ...any) {
	if l.Err == nil {
		_, l.Err = fmt.Fprintln(l.To, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
}
