// Package telemetry is the one way dno logs and counts: lines with constant keys, secrets taken out,
// and the progress of a stage. It writes on the writer it is given, standard error in dno, and
// never on standard output.
package telemetry

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"
)

// Options say where lines go and how they look.
type Options struct {
	Writer   io.Writer
	Level    string // least level written: "debug", "info" (where empty), "warn", "error" or "off"
	JSON     bool   // one object a line, for programs; else text, for people
	Color    bool
	Terminal bool // Writer is a terminal: a running stage shows as one live line (not with JSON)
}

// ForFile returns the options for a file: text; live line and colours where the file is a terminal,
// no colours where NO_COLOR is set or TERM is "dumb".
func ForFile(f *os.File, getenv func(string) string) Options {
	o := Options{Writer: f}
	o.Terminal = term.IsTerminal(int(f.Fd())) && getenv("TERM") != "dumb"
	o.Color = o.Terminal && getenv("NO_COLOR") == ""
	return o
}

// Logger writes lines. It is safe for concurrent use, and a copy writes to the same place. The zero
// value writes nothing.
type Logger struct {
	zl   zerolog.Logger
	sink *sink
}

// Field is a key with its value.
type Field struct {
	key   Key
	value any
}

// Of returns the field of this key with a value: a number, text, an error, a duration or anything
// that encodes as JSON.
func (k Key) Of(value any) Field { return Field{k, value} }

// New returns a logger. The error says that the level is unknown.
func New(o Options) (Logger, error) {
	level := zerolog.InfoLevel
	switch o.Level {
	case "", "info":
	case "debug":
		level = zerolog.DebugLevel
	case "warn":
		level = zerolog.WarnLevel
	case "error":
		level = zerolog.ErrorLevel
	case "off":
		level = zerolog.Disabled
	default:
		return Logger{}, fmt.Errorf("log level %q: want debug, info, warn, error or off", o.Level)
	}
	s := &sink{w: o.Writer, secrets: &Secrets{}, live: o.Terminal && !o.JSON}
	var w io.Writer = s
	if !o.JSON {
		w = zerolog.ConsoleWriter{Out: s, NoColor: !o.Color, TimeFormat: time.TimeOnly}
	}
	return Logger{zl: zerolog.New(w).Level(level).With().Timestamp().Logger(), sink: s}, nil
}

// Secrets returns what is taken out of every line: add to it before a secret can be written.
func (l Logger) Secrets() *Secrets {
	if l.sink == nil {
		return &Secrets{}
	}
	return l.sink.secrets
}

// live says whether the writer shows a live line.
func (l Logger) live() bool { return l.sink != nil && l.sink.live }

// With returns a logger that adds the fields to each of its lines.
func (l Logger) With(fields ...Field) Logger {
	c := l.zl.With()
	for _, f := range fields {
		c = c.Interface(string(f.key), plain(f.value))
	}
	return Logger{zl: c.Logger(), sink: l.sink}
}

// Debug writes a line for those who look for a fault.
func (l Logger) Debug(message string, fields ...Field) { send(l.zl.Debug(), message, fields) }

// Info writes a line that tells what dno does.
func (l Logger) Info(message string, fields ...Field) { send(l.zl.Info(), message, fields) }

// Warn writes a line on something that may spoil the run.
func (l Logger) Warn(message string, fields ...Field) { send(l.zl.Warn(), message, fields) }

// Error writes a line on something that failed.
func (l Logger) Error(message string, fields ...Field) { send(l.zl.Error(), message, fields) }

func send(e *zerolog.Event, message string, fields []Field) {
	if e == nil { // the level is off
		return
	}
	for _, f := range fields {
		e = e.Interface(string(f.key), plain(f.value))
	}
	e.Msg(message)
}

// plain gives errors and durations the form that people read.
func plain(v any) any {
	switch v := v.(type) {
	case error:
		return v.Error()
	case time.Duration:
		return v.String()
	}
	return v
}

// sink is the end of every line: it takes secrets out and keeps the live line below the others.
type sink struct {
	mu      sync.Mutex
	w       io.Writer
	secrets *Secrets
	live    bool   // the writer shows a live line
	line    string // the live line's text, "" where there is none
}

// eraseLine goes to the terminal line's start and clears it.
const eraseLine = "\r\x1b[K"

func (s *sink) Write(p []byte) (int, error) {
	text := s.secrets.Clean(string(p))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line != "" {
		text = eraseLine + text + s.line
	}
	_, err := io.WriteString(s.w, text)
	return len(p), err
}

// setLive replaces the live line; "" takes it away.
func (s *sink) setLive(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = s.secrets.Clean(line)
	_, _ = io.WriteString(s.w, eraseLine+s.line) // a progress line that cannot be written is no reason to stop
}
