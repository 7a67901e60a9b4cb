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

	"github.com/dno-project/dno/sdk"
)

// hang has an oracle judge by a program that starts a child and never answers. It returns when
// both run, with the call's coming error and with what is read of the program: its end is reached
// only when the program and its child are gone.
func hang(t *testing.T, ctx context.Context) (*Oracle, <-chan error, *bufio.Reader) {
	t.Helper()
	fifo := filepath.Join(t.TempDir(), "alive")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	o := oracle(t, script(t, `exec 3>'`+fifo+`'; sleep 1000 & echo thinking >&2; echo ready >&3; wait`))
	done := make(chan error, 1)
	go func() {
		_, err := o.Judge(ctx, []sdk.Comparison{compare("x", "a", "b")})
		done <- err
	}()
	alive, err := os.Open(fifo) // waits for the program to open its side
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { alive.Close() })
	if err := alive.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(alive)
	if line, err := r.ReadString('\n'); line != "ready\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	return o, done, r
}

func TestACancelledCallKillsTheProgramAndItsChildren(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, done, alive := hang(t, ctx)
	cancel()
	err := <-done
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "0 of 2 questions answered") ||
		!strings.Contains(err.Error(), `"thinking"`) {
		t.Errorf("got %v", err)
	}
	if _, err := alive.ReadByte(); err != io.EOF {
		t.Errorf("something of the program lives on: %v", err)
	}
}

func TestCloseKillsTheProgramAndItsChildren(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "alive")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	o := oracle(t, script(t, `if [ $n = 1 ]; then exec 3>'`+fifo+`'; sleep 1000 & fi; echo "{\"id\":\"$id\",\"p\":1}"`))
	opened := make(chan *os.File)
	go func() {
		alive, err := os.Open(fifo)
		if err != nil {
			t.Error(err)
		}
		opened <- alive
	}()
	judge(t, o, compare("x", "a", "b"))
	alive := <-opened
	defer alive.Close()
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if err := alive.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := alive.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("something of the program lives on: %v", err)
	}
}
