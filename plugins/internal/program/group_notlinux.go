//go:build unix && !linux

package program

import "syscall"

// dieWithParent does nothing here: a program whose plugin was killed reads the end of its input.
func dieWithParent(*syscall.SysProcAttr) {}
