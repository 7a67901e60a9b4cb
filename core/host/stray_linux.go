package host

import (
	"bytes"
	"os"
	"strconv"
	"syscall"

	"github.com/hashicorp/go-plugin"
)

// killStrays kills what a plugin started and left outside of its process group. Each of them has the
// plugin's environment, and in it the directory of its socket, a name that nobody else has; prefix is
// that directory, or one above it with its slash. One that has changed its environment stays.
func killStrays(prefix string) {
	mark := []byte("\x00" + plugin.EnvUnixSocketDir + "=" + prefix)
	for range strayRounds {
		killed := false
		entries, _ := os.ReadDir("/proc") // none where nothing is mounted
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil {
				continue
			}
			environ, _ := os.ReadFile("/proc/" + e.Name() + "/environ") // of a process that is gone, or another user's: nothing
			if bytes.Contains(append([]byte{0}, environ...), mark) && syscall.Kill(pid, syscall.SIGKILL) == nil {
				killed = true
			}
		}
		if !killed {
			return
		}
	}
}

// strayRounds is how often strays are looked for, as one of them may start another meanwhile.
const strayRounds = 20
