package host

import "os/exec"

func stopSelf() { select {} }

func ownSession(*exec.Cmd) {}
