//go:build unix

package host

import (
	"os"
	"syscall"
)

// killGroup kills a plugin and what it started. The error of a group that is gone is of no use.
func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }
