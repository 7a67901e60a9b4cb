package sdk

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestHashIsThatOfTheTurnsWithTheirLengths(t *testing.T) {
	p := Prompt{ID: "1", Messages: []Message{{"user", "2+2?"}}, Answer: "4", Metadata: map[string]any{"level": 1.0}}
	sum := sha256.Sum256([]byte("4:user4:2+2?"))
	if want := hex.EncodeToString(sum[:]); p.Hash() != want {
		t.Errorf("have %s, want %s", p.Hash(), want)
	}
	if same := (Prompt{ID: "2", Messages: p.Messages}); same.Hash() != p.Hash() {
		t.Error("the id, the answer or the metadata count")
	}
}

// Each of these reads the same as another one when its parts are put together without care.
func TestHashesOfDifferentTurnsDiffer(t *testing.T) {
	seen := map[string]int{}
	for i, messages := range [][]Message{
		nil,
		{{"", ""}},
		{{"", ""}, {"", ""}},
		{{"user", "ab"}},
		{{"user", "a"}, {"user", "b"}},
		{{"user", "auserb"}},
		{{"usera", "b"}},
		{{"user", "b"}, {"user", "a"}},
		{{"user", "a4:user1:b"}},
		{{"user", "a\n"}, {"user", "b"}},
		{{"user", "a"}, {"user", "\nb"}},
		{{"user", "a"}, {"assistant", "b"}},
	} {
		hash := Prompt{Messages: messages}.Hash()
		if k, there := seen[hash]; there {
			t.Errorf("prompts %d and %d have one hash", k, i)
		}
		seen[hash] = i
	}
}

func TestTextJoinsTurns(t *testing.T) {
	for want, messages := range map[string][]Message{
		"":           nil,
		"one":        {{"user", "one"}},
		"one\ntwo\n": {{"system", "one"}, {"user", "two"}, {"user", ""}},
	} {
		if got := (Prompt{Messages: messages}).Text(); got != want {
			t.Errorf("have %q, want %q", got, want)
		}
	}
}

func TestSettingsOfAnotherTypeFallBack(t *testing.T) {
	s := Settings{"number": 2.5, "text": "x", "yes": true}
	if s.Number("number", 1) != 2.5 || s.Number("text", 1) != 1 || s.Number("none", 1) != 1 {
		t.Error("Number")
	}
	if s.String("text", "y") != "x" || s.String("number", "y") != "y" || s.String("none", "y") != "y" {
		t.Error("String")
	}
	if !s.Bool("yes", false) || s.Bool("text", false) || !s.Bool("none", true) {
		t.Error("Bool")
	}
}

func TestCodeOf(t *testing.T) {
	inner := Errorf(CodeOracle, "judge: %w", fs.ErrNotExist)
	for name, c := range map[string]struct {
		err  error
		want Code
	}{
		"an error has its code":                       {inner, CodeOracle},
		"through one more":                            {fmt.Errorf("iteration 2: %w", inner), CodeOracle},
		"through several":                             {fmt.Errorf("run: %w", fmt.Errorf("iteration 2: %w", inner)), CodeOracle},
		"through joined errors":                       {errors.Join(errors.New("other"), inner), CodeOracle},
		"the outermost code counts":                   {Errorf(CodeUsage, "read it: %w", inner), CodeUsage},
		"an error without a code is dno's own":        {errors.New("other"), CodeInternal},
		"words of an error do not carry its code":     {fmt.Errorf("judge: %v", inner), CodeInternal},
		"a hint does not hide it":                     {inner.WithHint("try %d more", 2), CodeOracle},
		"no error at all has no code of its own yet":  {nil, CodeInternal},
		"an error of an error without a code, coded":  {Errorf(CodeIO, "x: %w", errors.New("y")), CodeIO},
		"a code between two errors without a code":    {fmt.Errorf("a: %w", Errorf(CodeIO, "b: %w", fs.ErrExist)), CodeIO},
		"the code is not that of a cause but its own": {Errorf(CodeNumeric, "loss: %v", inner), CodeNumeric},
	} {
		t.Run(name, func(t *testing.T) {
			if got := CodeOf(c.err); got != c.want {
				t.Errorf("have %d, want %d", got, c.want)
			}
		})
	}
}

func TestErrorfKeepsCauseWordsAndHint(t *testing.T) {
	err := error(Errorf(CodeUsage, "read %q: %w", "f", fs.ErrNotExist).WithHint("make %s", "it"))
	if err.Error() != `read "f": file does not exist` || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("have %v", err)
	}
	var e *Error
	if !errors.As(fmt.Errorf("more: %w", err), &e) || e.Hint != "make it" {
		t.Errorf("have %+v", e)
	}
}
