//go:build unix

package main

import (
	"bufio"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
)

// signalled starts the command in a group of its own and sends the group a signal, as a terminal
// does, when a line of standard error matches. It returns all of standard error, and how it ended.
func signalled(cmd *exec.Cmd, line *regexp.Regexp, name string) (string, error) {
	signal := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}[name]
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	var all strings.Builder
	sent := false
	for in := bufio.NewScanner(pipe); in.Scan(); {
		all.WriteString(in.Text() + "\n")
		if !sent && line.MatchString(in.Text()) {
			sent = true
			if err := syscall.Kill(-cmd.Process.Pid, signal); err != nil {
				return all.String(), err
			}
		}
	}
	err = cmd.Wait()
	if !sent {
		return all.String(), fmt.Errorf("no line matched %s", line)
	}
	return all.String(), err
}
