//go:build unix

package host

import (
	"syscall"
	"testing"
	"time"
)

func TestAStoppedProcessDoesNotHoldUpClose(t *testing.T) {
	h, _ := newHost(t)
	h.patience.stop = 100 * time.Millisecond
	l := openLoss(t, h, Spec{Name: "good"}).(*loss)
	pid := l.pid()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h.Close()
	eventually(t, "the process is gone", func() bool { return gone(t, pid) })
}
