//go:build unix

package command

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestACancelledCallKillsTheProgramAndItsChildren(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "alive")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	once := fifo + ".once"
	s := sampler(t, `if [ ! -e '`+once+`' ]; then : > '`+once+`'; exec 3>'`+fifo+`'; sleep 1000 & echo thinking >&2; echo ready >&3; wait; fi
 echo "{\"id\":\"$id\",\"completions\":[{\"text\":\"ok\"}]}"`)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := s.Sample(ctx, request(1, "x"), nil)
		done <- err
	}()
	alive, err := os.Open(fifo) // waits for the program to open its side
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	if err := alive.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(alive)
	if line, err := r.ReadString('\n'); line != "ready\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), `0 of 1 questions answered`) || !strings.Contains(err.Error(), `"thinking"`) {
		t.Errorf("got %v", err)
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("something of the program lives on: %v", err)
	}
	if got, err := s.Sample(context.Background(), request(1, "x"), nil); err != nil || got.Completions[0][0].Text != "ok" {
		t.Errorf("the next call: %+v, %v", got, err)
	}
}
