package report

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/dno-project/dno/core/rundir"
)

// Write draws the report as text of at most 80 columns (completions may be longer; they wrap).
func Write(w io.Writer, r Report) error {
	out := &printer{w: w}
	out.line("%s  seed %d  model %s", r.Script, r.Seed, r.Model)
	out.line("%s, %.0f s, %s", r.Dir, r.WallSeconds, r.State)
	out.line("")
	if r.TestPrompts == 0 {
		out.line("Nothing is measured yet.")
		return out.err
	}
	out.line("On %d test prompts. Accuracy in %% (greedy unless T=1); win rates against", r.TestPrompts)
	out.line("π_1 and the iteration's start; 95 %% intervals; KL to the start and KL_1 to π_1,")
	out.line("in nats a completion.")
	out.line("")
	const row = "%2v %-19s %5s %-17s %-17s %5s %4s %4s"
	out.line(row, "it", "accuracy", "T=1", "win rate vs π_1", "vs start", "tok.", "KL", "KL_1")
	b := r.Baseline
	out.line(row, 0, interval(b.Accuracy, b.AccuracyLow, b.AccuracyHigh, 100, 1), number(b.AccuracySampled, 100, 1), "", "",
		number(&b.MeanTokens, 1, 1), "", "")
	for _, it := range r.Iterations {
		out.line(row, it.Iteration,
			interval(it.Accuracy, it.AccuracyLow, it.AccuracyHigh, 100, 1), number(it.AccuracySampled, 100, 1),
			interval(it.WinRate, it.WinRateLow, it.WinRateHigh, 1, 2), interval(it.WinRateParent, it.WinRateParentLow, it.WinRateParentHigh, 1, 2),
			number(&it.MeanTokens, 1, 1), number(it.KL, 1, 1), number(it.KLInitial, 1, 1))
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
	for _, it := range r.Iterations {
		if it.Skipped > 0 {
			out.line("     iteration %d: %d steps not made, for numbers that were not finite", it.Iteration, it.Skipped)
		}
	}
	out.line("")
	out.line("Cross-play: win rate of the row's policy against the column's")
	for from := 0; from < len(r.Iterations); from += crossPlayColumns {
		out.crossPlay(r.CrossPlay, from, min(from+crossPlayColumns, len(r.Iterations)))
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

// So many opponents stand side by side in 80 columns.
const crossPlayColumns = 4

// crossPlay draws the columns from the policy after iteration `from` up to that before `to`.
func (p *printer) crossPlay(rates [][]*rundir.Estimate, from, to int) {
	head := "       "
	for j := from; j < to; j++ {
		head += fmt.Sprintf(" %-17s", fmt.Sprintf("it %d", j))
	}
	p.line("%s", head)
	for i := from + 1; i < len(rates); i++ {
		row := fmt.Sprintf("  it %-2d", i)
		for _, x := range rates[i][from:min(to, len(rates[i]))] {
			mean, low, high := split(x)
			row += fmt.Sprintf(" %-17s", interval(mean, low, high, 1, 2))
		}
		p.line("%s", row)
	}
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
		p.line("  it %-2d  %.3f %s %.3f", it.Iteration, it.Inequality.Left, sign, it.Inequality.Right)
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
		case r == '\n', r == 0x2028, r == 0x2029:
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
