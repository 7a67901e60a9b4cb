package program

import "syscall"

// dieWithParent has the kernel kill the program when the thread that started it ends: nobody else
// can after the plugin itself was killed.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
