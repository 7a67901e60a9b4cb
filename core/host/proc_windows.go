package host

import (
	"os"
	"syscall"
)

// procAttr keeps a console's Ctrl-C from a plugin; Windows ends no process with its parent.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

func killGroup(p *os.Process) { _ = p.Kill() }
