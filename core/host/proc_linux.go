package host

import "syscall"

// procAttr puts a plugin into a process group of its own, so that a terminal's Ctrl-C does not
// reach it and it can be killed with its children, and has the kernel kill it when the host dies.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
