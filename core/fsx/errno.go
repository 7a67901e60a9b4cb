//go:build !windows

package fsx

import "syscall"

var (
	noSpace  = []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG}
	readOnly = []error{syscall.EROFS}
)
