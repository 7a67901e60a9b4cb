package host

import (
	"bufio"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/dno-project/dno/core/telemetry"
)

// lines is what a plugin prints: every line goes to the log, as fast as the log should grow, and
// the last ones are kept for the error that may follow.
type lines struct {
	log telemetry.Logger
	now func() time.Time

	mu      sync.Mutex
	last    []string
	trace   []string // a crash's first lines, from "panic:" on: they say more than its last ones
	budget  float64  // lines that may be logged now
	filled  time.Time
	dropped int
}

const (
	keptLines = 40   // for the error of a plugin that dies
	lineBytes = 1000 // of a line; the rest is cut off
	logBurst  = 100  // lines logged at once
	logRate   = 20   // lines a second after that
)

func newLines(log telemetry.Logger) *lines {
	return &lines{log: log, now: time.Now, budget: logBurst}
}

// read takes lines until the reader ends. It never stops reading: a full pipe would stop the plugin.
func (l *lines) read(r io.Reader) {
	buffered := bufio.NewReaderSize(r, 4096)
	for {
		line, cut, err := buffered.ReadLine()
		if err != nil {
			return
		}
		text := string(line)
		for cut && err == nil {
			_, cut, err = buffered.ReadLine()
		}
		l.add(text)
	}
}

func (l *lines) add(raw string) {
	text := l.log.Secrets().Clean(printable(raw))
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.trace) > 0 || crash.MatchString(text) {
		if len(l.trace) < keptLines {
			l.trace = append(l.trace, text)
		}
	}
	if l.last = append(l.last, text); len(l.last) > keptLines {
		l.last = l.last[1:]
	}
	now := l.now()
	if !l.filled.IsZero() {
		l.budget = min(logBurst, l.budget+logRate*now.Sub(l.filled).Seconds())
	}
	l.filled = now
	if l.budget < 1 {
		l.dropped++
		return
	}
	l.budget--
	if l.dropped > 0 {
		l.log.Warn("plugin prints too much, lines left out", telemetry.Dropped.Of(l.dropped))
		l.dropped = 0
	}
	l.log.Info(text)
}

// kept returns the lines that tell most about the plugin's end.
func (l *lines) kept() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.trace) > 0 {
		return l.trace
	}
	return l.last
}

var (
	crash  = regexp.MustCompile(`^(panic:|fatal error:|Traceback )`)
	escape = regexp.MustCompile(`\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.?)`)
)

// printable cuts a line and takes out what a terminal would obey.
func printable(line string) string {
	if len(line) > lineBytes {
		line = line[:lineBytes] + "…"
	}
	line = escape.ReplaceAllString(strings.ToValidUTF8(line, "\uFFFD"), "")
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '\uFFFD'
		}
		return r
	}, line)
}
