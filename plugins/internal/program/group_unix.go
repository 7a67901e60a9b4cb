//go:build unix

package program

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup lets the program lead a process group of its own, which its children belong to.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
}

// killGroup kills the program and all that is left of its group.
func killGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }
