//go:build unix && !linux

package host

import "syscall"

// procAttr puts a plugin into a process group of its own; see the version for Linux.
func procAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
