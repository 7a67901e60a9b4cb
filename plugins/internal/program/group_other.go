//go:build !unix

package program

import (
	"os"
	"os/exec"
)

// ownGroup does nothing where there are no process groups.
func ownGroup(*exec.Cmd) {}

// killGroup kills the program; its children read the end of their input.
func killGroup(p *os.Process) error { return p.Kill() }
