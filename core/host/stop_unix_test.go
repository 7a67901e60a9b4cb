//go:build unix

package host

import (
	"os"
	"os/exec"
	"syscall"
)

// stopSelf stops this process as SIGSTOP does: it is there, and does nothing.
func stopSelf() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	select {} // the signal may take its time
}

// ownSession starts a command outside of this process's group and session.
func ownSession(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
