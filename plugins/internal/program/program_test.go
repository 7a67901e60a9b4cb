package program

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk"
)

// cat is a program that says again what it reads.
func cat(t *testing.T) *Kept {
	t.Helper()
	if _, err := exec.LookPath("cat"); err != nil {
		t.Skip("NOT TESTED: there is no cat: ", err)
	}
	k := &Kept{Role: "echo"}
	k.Use("cat", nil)
	t.Cleanup(k.Close)
	return k
}

func TestEachQuestionIsALine(t *testing.T) {
	t.Parallel()
	k := cat(t)
	for range 2 {
		var got []string
		err := Ask(context.Background(), k, []any{"a\n<b>", 7}, func(line []byte) error {
			got = append(got, string(line))
			return nil
		})
		if err != nil || fmt.Sprint(got) != `["a\n<b>" 7]` {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestALineThatIsNotTakenEndsTheProgram(t *testing.T) {
	t.Parallel()
	k := cat(t)
	refused := errors.New("not this one")
	var taken []string
	take := func(line []byte) error {
		if string(line) == "2" {
			return refused
		}
		taken = append(taken, string(line))
		return nil
	}
	err := Ask(context.Background(), k, []int{1, 2, 3}, take)
	if want := `echo program cat (1 of 3 questions answered): the line "2": not this one`; err == nil || err.Error() != want ||
		!errors.Is(err, refused) || sdk.CodeOf(err) != sdk.CodePlugin {
		t.Errorf("got %v\nwant %s", err, want)
	}
	// The 3 that the killed one had still to write is not read by the next.
	if err := Ask(context.Background(), k, []int{4}, take); err != nil || fmt.Sprint(taken) != "[1 4]" {
		t.Errorf("taken %v, %v", taken, err)
	}
}

func TestNothingIsStartedFor(t *testing.T) {
	t.Parallel()
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for name, c := range map[string]struct {
		ctx       context.Context
		path      string
		questions []int
		want      string
	}{
		"no questions":       {context.Background(), "no-such-program", nil, ""},
		"a cancelled call":   {cancelled, "no-such-program", []int{1}, "context canceled"},
		"no program":         {context.Background(), "", []int{1}, "the echo program was asked before it was configured"},
		"one that is absent": {context.Background(), "no-such-program", []int{1}, "start the echo program no-such-program: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &Kept{Role: "echo"}
			k.Use(c.path, nil)
			err := Ask(c.ctx, k, c.questions, func([]byte) error { return nil })
			if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestALineMayBeAsLongAsTheLimit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		bytes int // of the line
		fails bool
	}{
		"8 MiB":             {maxLine, false},
		"a byte above that": {maxLine + 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := 0
			err := Ask(context.Background(), cat(t), []string{strings.Repeat("x", c.bytes-2)}, func(line []byte) error {
				got = len(line)
				return nil
			})
			if errors.Is(err, errLongLine) != c.fails || !c.fails && got != c.bytes {
				t.Errorf("a line of %d bytes: read %d, %v", c.bytes, got, err)
			}
		})
	}
}
