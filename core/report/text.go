package report

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/core/telemetry"
)

// Write draws the report as text of at most 80 columns (completions may be longer; they wrap).
func Write(w io.Writer, r Report) error {
	out := &printer{telemetry.Lines{To: w}}
	out.Line("%s  seed %d  model %s", r.Script, r.Seed, r.Model)
	out.Line("%s, %.0f s, %s", r.Dir, r.WallSeconds, r.State)
	out.Line("")
	if r.TestPrompts == 0 {
		out.Line("Nothing is measured yet.")
		return out.Err
	}
	out.Line("On %d test prompts. Accuracy in %% (greedy unless T=1); win rates against", r.TestPrompts)
	out.Line("π_1 and the iteration's start; 95 %% intervals; KL to the start and KL_1 to π_1,")
	out.Line("in nats a completion.")
	out.Line("")
	const row = "%2v %-19s %5s %-17s %-17s %5s %4s %4s"
	out.Line(row, "it", "accuracy", "T=1", "win rate vs π_1", "vs start", "tok.", "KL", "KL_1")
	b := r.Baseline
	out.Line(row, 0, interval(b.Accuracy, b.AccuracyLow, b.AccuracyHigh, 100, 1), number(b.AccuracySampled, 100, 1), "", "",
		number(&b.MeanTokens, 1, 1), "", "")
	for _, it := range r.Iterations {
		out.Line(row, it.Iteration,
			interval(it.Accuracy, it.AccuracyLow, it.AccuracyHigh, 100, 1), number(it.AccuracySampled, 100, 1),
			interval(it.WinRate, it.WinRateLow, it.WinRateHigh, 1, 2), interval(it.WinRateParent, it.WinRateParentLow, it.WinRateParentHigh, 1, 2),
			number(&it.MeanTokens, 1, 1), number(it.KL, 1, 1), number(it.KLInitial, 1, 1))
	}
	if len(r.Iterations) == 0 {
		return out.Err
	}
	out.Line("")
	out.Line("     pairs, chosen over rejected (T teacher, S student)        seconds")
	out.Line(" it  prompts    T>S    S>T    S>S  steps    loss  flips   sample train  eval")
	for _, it := range r.Iterations {
		out.Line("%3d  %7d %6d %6d %6d %6d %7.4f  %4.1f%%   %6.1f %5.1f %5.1f", it.Iteration, it.Prompts,
			it.Pairs.TeacherStudent, it.Pairs.StudentTeacher, it.Pairs.StudentStudent, it.Steps, it.Loss, 100*it.FlipRate,
			it.Seconds["sample"]+it.Seconds["pair"], it.Seconds["train"], it.Seconds["evaluate"])
	}
	for _, it := range r.Iterations {
		if it.Skipped > 0 {
			out.Line("     iteration %d: %d steps not made, for numbers that were not finite", it.Iteration, it.Skipped)
		}
	}
	out.Line("")
	out.Line("Cross-play: win rate of the row's policy against the column's")
	for from := 0; from < len(r.Iterations); from += crossPlayColumns {
		out.crossPlay(r.CrossPlay, from, min(from+crossPlayColumns, len(r.Iterations)))
	}
	out.inequality(r)
	for i, c := range r.Corrected {
		if i == 0 {
			out.Line("")
			out.Line("Mistakes of π_1 that are now corrected:")
		}
		out.Line("")
		out.Line("  prompt  %s", Clean(c.Prompt))
		out.Line("  before  %s", Clean(c.Before))
		out.Line("  after   %s   (answer %s)", Clean(c.After), Clean(c.Answer))
	}
	return out.Err
}

// So many opponents stand side by side in 80 columns.
const crossPlayColumns = 4

// crossPlay draws the columns from the policy after iteration `from` up to that before `to`.
func (p *printer) crossPlay(rates [][]*rundir.Estimate, from, to int) {
	head := "       "
	for j := from; j < to; j++ {
		head += fmt.Sprintf(" %-17s", fmt.Sprintf("it %d", j))
	}
	p.Line("%s", head)
	for i := from + 1; i < len(rates); i++ {
		row := fmt.Sprintf("  it %-2d", i)
		for _, x := range rates[i][from:min(to, len(rates[i]))] {
			mean, low, high := split(x)
			row += fmt.Sprintf(" %-17s", interval(mean, low, high, 1, 2))
		}
		p.Line("%s", row)
	}
}

func (p *printer) inequality(r Report) {
	first := true
	for _, it := range r.Iterations {
		if it.Inequality == nil {
			continue
		}
		if first {
			p.Line("")
			p.Line("Win rate over the start at T=1, and the bound 1/2 + (β/c)·KL of an exact step")
			p.Line("(on validation; it says that a policy beats its parent, no more):")
			first = false
		}
		sign := "≥"
		if it.Inequality.Left < it.Inequality.Right {
			sign = "<"
		}
		p.Line("  it %-2d  %.3f %s %.3f", it.Iteration, it.Inequality.Left, sign, it.Inequality.Right)
	}
}

type printer struct{ telemetry.Lines }

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
