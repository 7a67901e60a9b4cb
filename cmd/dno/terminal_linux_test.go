package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal: what is written to tty is read from pty.
func terminal(t *testing.T) (pty, tty *os.File) {
	t.Helper()
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("there are no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { pty.Close() })
	fd := int(pty.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return pty, tty
}

// onTerminal runs dno with both outputs on a terminal and returns what that was sent.
func onTerminal(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	pty, tty := terminal(t)
	cmd := exec.Command("dno", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, tty, tty
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	var all strings.Builder
	_, _ = io.Copy(&all, pty) // it ends with an error when the last writer has gone
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, all.String())
	}
	return all.String()
}

func TestATerminalShowsALiveLineAndColoursUnlessToldNotTo(t *testing.T) {
	t.Parallel()
	const live, colour = "\r\x1b[K", "\x1b[3"
	for name, test := range map[string]struct {
		env          []string
		live, colour bool
	}{
		"as it comes":                 {[]string{"TERM=xterm", "NO_COLOR="}, true, true},
		"NO_COLOR":                    {[]string{"TERM=xterm", "NO_COLOR=1"}, true, false},
		"a terminal that can nothing": {[]string{"TERM=dumb", "NO_COLOR="}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out := onTerminal(t, small(t), test.env, "run", "small.lua", "--dir", "r", "--set", "iterations=1")
			if strings.Contains(out, live) != test.live || strings.Contains(out, colour) != test.colour {
				t.Errorf("want a live line: %v, colours: %v; it was sent %q", test.live, test.colour, out)
			}
			if escapes := strings.Count(out, "\x1b") - strings.Count(out, live); !test.colour && escapes > 0 {
				t.Errorf("%d escape sequences are neither: %q", escapes, out)
			}
			if !strings.Contains(out, "On 20 test prompts.") {
				t.Errorf("there is no report in %q", out)
			}
		})
	}
}
