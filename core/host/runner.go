package host

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
)

// command is a plugin's process, as go-plugin's runner. It is ours rather than go-plugin's own,
// for it starts on the host's thread, has an empty standard input, kills the whole process group,
// and reads both outputs for good, so that no print can stop the plugin.
type command struct {
	cmd       *exec.Cmd
	socketDir string // its own, set before it starts
	memory    int64  // the most that it may have, bytes
	sum       []byte // what the executable must hash to; empty for a bundled one
	thread    *thread
	lines     *lines
	reading   sync.WaitGroup
	pipes     []*os.File     // the host's ends of the outputs
	gone      chan struct{}  // closed when the process has ended
	first     *io.PipeReader // the handshake's line, for go-plugin; ends with the output

	mu        sync.Mutex
	handshake string // the output's first line
	silent    bool   // the output ended by itself before there was a line
	killed    bool
	used      int64  // what it had when it was killed for its memory; 0: it was not
	ended     string // how the process ended: "exit status 2"; "" while it runs
}

// handshakeBytes is the most that is read of a first line; one with a certificate has about 1 KiB,
// and from 64 KiB on go-plugin would stop reading.
const handshakeBytes = 32 << 10

func (c *command) Start(context.Context) error {
	// go-plugin's SecureConfig keeps its hash's state, so each start takes a new one.
	if len(c.sum) > 0 {
		check := plugin.SecureConfig{Checksum: c.sum, Hash: sha256.New()}
		if ok, err := check.Check(c.cmd.Path); err != nil {
			return fmt.Errorf("verify its copy: %w", err)
		} else if !ok {
			return errors.New("its verified copy was changed after it was made")
		}
	}
	stdout, stdoutEnd, err := os.Pipe()
	if err != nil {
		return err
	}
	stderr, stderrEnd, err := os.Pipe()
	if err != nil {
		_, _ = stdout.Close(), stdoutEnd.Close()
		return err
	}
	c.pipes = []*os.File{stdout, stderr}
	c.cmd.Stdout, c.cmd.Stderr = stdoutEnd, stderrEnd
	err = c.thread.do(func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.killed {
			return errors.New("it was stopped before it started")
		}
		return c.cmd.Start()
	})
	_, _ = stdoutEnd.Close(), stderrEnd.Close()
	if err != nil {
		c.closePipes()
		return err
	}
	c.gone = make(chan struct{})
	go c.watchMemory(c.cmd.Process.Pid, c.gone)
	first, handshake := io.Pipe()
	c.first = first
	c.reading.Go(func() { c.lines.read(stderr) })
	c.reading.Go(func() { c.readStdout(stdout, handshake) })
	return nil
}

// readStdout hands the first line to go-plugin and all others to the log.
func (c *command) readStdout(stdout io.Reader, handshake *io.PipeWriter) {
	r := bufio.NewReaderSize(stdout, handshakeBytes)
	slice, err := r.ReadSlice('\n')
	line := strings.TrimRight(string(slice), "\r\n")
	c.mu.Lock()
	c.handshake, c.silent = line, len(slice) == 0 && !c.killed
	c.mu.Unlock()
	if len(slice) > 0 {
		_, _ = io.WriteString(handshake, line+"\n")
	}
	if err == nil || errors.Is(err, bufio.ErrBufferFull) {
		c.lines.read(r)
	}
	_ = handshake.Close() // not before: to go-plugin its end means that the plugin ended
}

// firstLine is the line with the handshake. silent says that the output ended without one.
func (c *command) firstLine() (line string, silent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handshake, c.silent
}

func (c *command) Stdout() io.ReadCloser { return c.first }

// Stderr is empty for go-plugin: the host reads it itself.
func (c *command) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

func (c *command) Wait(context.Context) error {
	c.reading.Wait()
	err := c.cmd.Wait()
	close(c.gone)
	c.mu.Lock()
	c.ended = c.cmd.ProcessState.String()
	c.mu.Unlock()
	killGroup(c.cmd.Process) // what it started and left behind
	c.closePipes()
	return err
}

// Kill kills the process with its children, or keeps it from starting.
func (c *command) Kill(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.killed = true
	if c.cmd.Process != nil && c.ended == "" {
		killGroup(c.cmd.Process)
	}
	return nil
}

// closePipes ends the readers, even where a child of the plugin still holds the other ends.
func (c *command) closePipes() {
	for _, f := range c.pipes {
		_ = f.Close()
	}
}

func (c *command) Name() string { return c.cmd.Path }

func (c *command) ID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(c.cmd.Process.Pid)
}

func (c *command) Diagnose(context.Context) string { return "" }

func (c *command) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

func (c *command) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}

var _ runner.Runner = (*command)(nil)
