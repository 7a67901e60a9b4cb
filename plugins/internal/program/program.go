package program

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"
)

const (
	maxLine = 8 << 20 // bytes of one line of the program's
	maxTail = 2 << 10 // bytes of its standard error that an error quotes

	// How long the output of a program that has ended is waited for: children of its own may hold it open.
	lingering = 2 * time.Second
)

// process is a running program. Its lines arrive on a channel, which is closed when it has ended
// and all its output is read.
type process struct {
	stdin  io.WriteCloser
	lines  chan []byte
	cancel context.CancelFunc // kills the program with its children
	tail   *tail
	err    error // why it ended; set before lines is closed
}

// start starts the program and returns when it runs.
func start(path string, args []string) (*process, error) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{lines: make(chan []byte), cancel: cancel, tail: &tail{forward: os.Stderr}}
	splitter := &splitter{lines: p.lines, quit: ctx.Done(), kill: cancel}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = splitter, p.tail, lingering
	ownGroup(cmd)
	cmd.Cancel = func() error { return killGroup(cmd.Process) }
	stdin, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	p.stdin = stdin
	started := make(chan error)
	go func() {
		// A program that dies with its parent dies with the thread that started it: this one stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		_ = killGroup(cmd.Process) // what it left behind; mostly nothing, which is an error here
		splitter.end()
		if splitter.err != nil {
			p.err = splitter.err
		}
		close(p.lines)
	}()
	if err := <-started; err != nil {
		cancel()
		return nil, err
	}
	return p, nil
}

// converse has n questions written and reads until as many lines are taken; it returns how many were. On
// an error the program is in no state to go on with.
func (p *process) converse(ctx context.Context, n int, write func() error, take func(line []byte) error) (answered int, err error) {
	written := make(chan struct{})
	go func() {
		defer close(written)
		// A program that does not read ends, or is waited for: either is noticed by the reader.
		_ = write()
	}()
	for answered < n {
		select {
		case <-ctx.Done():
			return answered, ctx.Err()
		case line, open := <-p.lines:
			if !open {
				return answered, p.ended()
			}
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			if err := take(line); err != nil {
				return answered, fmt.Errorf("the line %.200q: %w", line, err)
			}
			answered++
		}
	}
	select {
	case <-written: // so that the next call's questions do not run into these
		return answered, nil
	case <-ctx.Done():
		return answered, ctx.Err()
	}
}

func writeLines[Q any](w io.Writer, questions []Q) error {
	buffered := bufio.NewWriterSize(w, 64<<10)
	encoder := json.NewEncoder(buffered)
	encoder.SetEscapeHTML(false)
	for _, q := range questions {
		if err := encoder.Encode(q); err != nil {
			return err
		}
	}
	return buffered.Flush()
}

// ended says how the program ended, which it should not have.
func (p *process) ended() error {
	switch {
	case p.err == nil, errors.Is(p.err, exec.ErrWaitDelay):
		return errors.New("it ended (exit status 0) before it had answered all questions")
	case errors.Is(p.err, errLongLine):
		return p.err
	}
	return fmt.Errorf("it ended before it had answered all questions: %w", p.err)
}

// kill ends the program with its children and waits until it is gone.
func (p *process) kill() {
	p.cancel()
	for range p.lines {
	}
}

// lastWords are the end of what the program has written to standard error, as part of an error's
// text. They are complete when the program has ended.
func (p *process) lastWords() string {
	text := bytes.TrimSpace(p.tail.bytes())
	if len(text) == 0 {
		return ""
	}
	return fmt.Sprintf("; the end of its standard error: %q", text)
}

var errLongLine = fmt.Errorf("it wrote a line of more than %d bytes", maxLine)

// splitter is a writer that sends what is written line by line, until quit is closed.
type splitter struct {
	lines chan<- []byte
	quit  <-chan struct{}
	kill  func() // ends the program whose output this is
	part  []byte // of a line that is not complete
	err   error  // why it gave up
}

func (s *splitter) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, rest, complete := bytes.Cut(b, []byte{'\n'})
		if len(s.part)+len(line) > maxLine {
			s.err = errLongLine
			s.kill() // it may never write again, and so never notice
			return 0, s.err
		}
		s.part = append(s.part, line...)
		if !complete {
			return n, nil
		}
		s.send()
		b = rest
	}
}

func (s *splitter) send() {
	select {
	case s.lines <- s.part:
	case <-s.quit:
	}
	s.part = nil
}

// end sends a last line that has no newline.
func (s *splitter) end() {
	if s.err == nil && len(s.part) > 0 {
		s.send()
	}
}

// tail is a writer that forwards everything and remembers the end of it.
type tail struct {
	forward io.Writer
	mu      sync.Mutex
	kept    []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	t.kept = append(t.kept, b...)
	if extra := len(t.kept) - maxTail; extra > 0 {
		t.kept = bytes.Clone(t.kept[extra:])
	}
	t.mu.Unlock()
	_, _ = t.forward.Write(b) // a lost log is no reason to stop the program
	return len(b), nil
}

func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.kept)
}
