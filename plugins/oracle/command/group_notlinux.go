//go:build unix && !linux

package command

import "syscall"

// dieWithParent does nothing here: a program whose plugin was killed reads the end of its input.
func dieWithParent(*syscall.SysProcAttr) {}
