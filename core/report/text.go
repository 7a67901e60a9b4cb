package report

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// Write draws the report as text of at most 80 columns (completions may be longer; they wrap).
func Write(w io.Writer, r Report) error {
	out := &printer{w: w}
	out.line("%s  seed %d  model %s", r.Script, r.Seed, r.Model)
	out.line("%s, %.0f s, %s", r.Dir, r.WallSeconds, r.State)
	out.line("")
	out.line("On %d test prompts. Accuracy in %% (greedy unless T=1); win rates against", r.TestPrompts)
	out.line("π_1 and the iteration's start; 95 %% intervals; KL in nats a completion.")
	out.line("")
	out.line(" it  accuracy           T=1  win rate vs π_1  vs start         tokens   KL KL π_1")
	out.line("  0  %-17s %s  %-16s %-16s %6.1f", interval(r.Baseline.Accuracy, r.Baseline.AccuracyLow, r.Baseline.AccuracyHigh, 100, 1),
		number(r.Baseline.AccuracySampled, 100, 1), "", "", r.Baseline.MeanTokens)
	for _, it := range r.Iterations {
		out.line("%3d  %-17s %s  %-16s %-16s %6.1f %s  %s", it.Iteration,
			interval(it.Accuracy, it.AccuracyLow, it.AccuracyHigh, 100, 1), number(it.AccuracySampled, 100, 1),
			interval(it.WinRate, it.WinRateLow, it.WinRateHigh, 1, 2), interval(it.WinRateParent, it.WinRateParentLow, it.WinRateParentHigh, 1, 2),
			it.MeanTokens, number(it.KL, 1, 1), number(it.KLInitial, 1, 1))
	}
	if len(r.Iterations) == 0 {
		return out.err
	}
	out.line("")
	out.line("     pairs, chosen over rejected (T teacher, S student)        seconds")
	out.line(" it  prompts    T>S    S>T    S>S  steps    loss  flips   sample train  eval")
	for _, it := range r.Iterations {
		out.line("%3d  %7d %6d %6d %6d %6d %7.4f  %4.1f%%   %6.1f %5.1f %5.1f", it.Iteration, it.Prompts,
			it.Pairs.TeacherStudent, it.Pairs.StudentTeacher, it.Pairs.StudentStudent, it.Steps, it.Loss, 100*it.FlipRate,
			it.Seconds["sample"]+it.Seconds["pair"], it.Seconds["train"], it.Seconds["evaluate"])
	}
	out.line("")
	out.line("Cross-play: win rate of the row's policy against the column's")
	head := "      "
	for j := range r.Iterations {
		head += fmt.Sprintf("   it %d", j)
	}
	out.line("%s", head)
	for i := range r.Iterations {
		row := fmt.Sprintf("  it %d", i+1)
		for _, x := range r.CrossPlay[i+1] {
			row += "  " + number(x, 1, 3)
		}
		out.line("%s", row)
	}
	out.inequality(r)
	for i, c := range r.Corrected {
		if i == 0 {
			out.line("")
			out.line("Mistakes of π_1 that are now corrected:")
		}
		out.line("")
		out.line("  prompt  %s", Clean(c.Prompt))
		out.line("  before  %s", Clean(c.Before))
		out.line("  after   %s   (answer %s)", Clean(c.After), Clean(c.Answer))
	}
	return out.err
}

func (p *printer) inequality(r Report) {
	first := true
	for _, it := range r.Iterations {
		if it.Inequality == nil {
			continue
		}
		if first {
			p.line("")
			p.line("Win rate over the start at T=1, and the bound 1/2 + (β/c)·KL of an exact step")
			p.line("(on validation; it says that a policy beats its parent, no more):")
			first = false
		}
		sign := "≥"
		if it.Inequality.Left < it.Inequality.Right {
			sign = "<"
		}
		p.line("  it %d   %.3f %s %.3f", it.Iteration, it.Inequality.Left, sign, it.Inequality.Right)
	}
}

// printer keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintln(p.w, strings.TrimRight(fmt.Sprintf(format, args...), " "))
	}
}

func number(x *float64, scale float64, decimals int) string {
	if x == nil {
		return "   -"
	}
	return fmt.Sprintf("%4.*f", decimals, *x*scale)
}

func interval(x, low, high *float64, scale float64, decimals int) string {
	if x == nil || low == nil || high == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f [%.*f, %.*f]", decimals, *x*scale, decimals, *low*scale, decimals, *high*scale)
}

// Clean makes model text safe for a terminal: control characters are shown as their pictures,
// line ends as ⏎, and characters that reorder text are dropped.
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return '⏎'
		case r < 0x20:
			return 0x2400 + r
		case r == 0x7f, r >= 0x80 && r < 0xa0:
			return '␡'
		case unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, text)
}
