package main

import (
	"cmp"
	"context"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dno-project/dno/sdk"
)

// Oracle ranks all completions of a prompt side by side, by their arithmetic, and prefers by rank
//
//	P(a ≻ b) = σ(s·(rank b − rank a))
//
// with s the setting "sharpness": a Bradley-Terry model in which a rank is worth s. So how surely a
// beats b depends on how many of the others stand between them, which no oracle of pairs can know.
//
// A step is a fragment between semicolons or newlines of the form "17+45=62": two whole numbers of
// at most nine digits, one of + - * /, a value; spaces may stand between. A completion is better if
// more of its different steps are right, or as many and fewer of them wrong. The best has rank 1;
// equally good ones share a rank, and the next rank follows at once, so copies change nothing.
//
// A completion without any step has no rank: the oracle abstains from its pairs.
//
// Where the prompt's reference answer is a whole number, a completion is correct if the value of
// its last step is that number.
//
// Differs: the bundled verifier asks whether a step uses the prompt's own numbers; this one does
// not, so a true step about nothing counts. It is an example.
type Oracle struct{ sharpness float64 }

// New returns the oracle.
func New() sdk.Oracle { return &Oracle{sharpness: defaultSharpness} }

const defaultSharpness = 2.0

// Labels beside [sdk.LabelCorrect].
const (
	LabelStepsRight = "steps_right" // different steps whose arithmetic holds
	LabelStepsWrong = "steps_wrong" // different steps whose arithmetic does not
	LabelRank       = "rank"        // 1 is the best; not there without a step
)

// Manifest declares a listwise oracle for which the order does not matter.
func (*Oracle) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Kind: sdk.KindOracle, Name: "listwise", Version: "1",
		Help: "ranks a prompt's completions by how many of their arithmetic steps are right",
		Settings: []sdk.Setting{{Name: "sharpness", Type: sdk.TypeNumber, Default: defaultSharpness, Min: sdk.AtLeast(0),
			Help: "log-odds that one rank is worth; 0 makes everything a tie"}},
		Oracle: sdk.OracleTraits{Form: sdk.FormListwise, Concurrency: 4},
	}
}

// Configure takes the setting "sharpness".
func (o *Oracle) Configure(_ context.Context, s sdk.Settings) error {
	o.sharpness = s.Number("sharpness", defaultSharpness)
	return nil
}

// Judge ranks the candidates of each comparison and answers its pairs.
func (o *Oracle) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	out := make([]sdk.Verdicts, len(batch))
	for i, c := range batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out[i] = o.judge(c)
	}
	return out, nil
}

func (o *Oracle) judge(c sdk.Comparison) sdk.Verdicts {
	marks := make([]mark, len(c.Candidates))
	for i, text := range c.Candidates {
		marks[i] = read(text)
	}
	ranks := rank(marks)
	out := sdk.Verdicts{ID: c.ID}
	answer, err := strconv.ParseInt(strings.TrimSpace(c.Prompt.Answer), 10, 64)
	for i, m := range marks {
		labels := map[string]float64{LabelStepsRight: float64(m.right), LabelStepsWrong: float64(m.wrong)}
		if ranks[i] > 0 {
			labels[LabelRank] = float64(ranks[i])
		}
		if err == nil {
			labels[sdk.LabelCorrect] = 0
			if m.readable() && m.last == answer {
				labels[sdk.LabelCorrect] = 1
			}
		}
		out.Assessed = append(out.Assessed, sdk.Assessment{Labels: labels})
	}
	for _, p := range c.Pairs {
		a, b := ranks[p.A], ranks[p.B]
		if a == 0 || b == 0 {
			out.Pairs = append(out.Pairs, sdk.Verdict{Abstain: "a completion has no arithmetic step"})
			continue
		}
		out.Pairs = append(out.Pairs, sdk.Verdict{P: 1 / (1 + math.Exp(o.sharpness*float64(a-b)))})
	}
	return out
}

// mark is what is read of one completion.
type mark struct {
	right, wrong int   // different steps
	last         int64 // value of the last step
}

func (m mark) readable() bool { return m.right+m.wrong > 0 }

// better orders marks, the best first.
func better(a, b mark) int {
	return cmp.Or(cmp.Compare(b.right, a.right), cmp.Compare(a.wrong, b.wrong))
}

// Nine digits a number: products fit into 64 bits.
var step = regexp.MustCompile(`^\s*(\d{1,9})\s*([-+*/])\s*(\d{1,9})\s*=\s*(-?\d{1,18})\s*$`)

// read finds a completion's steps. One that is written twice counts once.
func read(text string) (m mark) {
	seen := map[string]bool{}
	for _, fragment := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		s := step.FindStringSubmatch(fragment)
		if s == nil {
			continue
		}
		var n [3]int64
		for i, digits := range []string{s[1], s[3], s[4]} {
			n[i], _ = strconv.ParseInt(digits, 10, 64) // the expression lets through what fits
		}
		m.last = n[2]
		if key := strings.Join(s[1:4], ""); !seen[key] {
			seen[key] = true
			if holds(n[0], s[2], n[1], n[2]) {
				m.right++
			} else {
				m.wrong++
			}
		}
	}
	return m
}

func holds(a int64, op string, b, value int64) bool {
	switch op {
	case "+":
		return a+b == value
	case "-":
		return a-b == value
	case "*":
		return a*b == value
	}
	return b != 0 && a%b == 0 && a/b == value
}

// rank returns each mark's rank: 1 and one for each better mark, equal marks counted once; 0 where
// nothing was read.
func rank(marks []mark) []int {
	var order []mark
	for _, m := range marks {
		if m.readable() {
			order = append(order, m)
		}
	}
	slices.SortFunc(order, better)
	order = slices.CompactFunc(order, func(a, b mark) bool { return better(a, b) == 0 })
	ranks := make([]int, len(marks))
	for i, m := range marks {
		if at, found := slices.BinarySearchFunc(order, m, better); found && m.readable() {
			ranks[i] = at + 1
		}
	}
	return ranks
}

var _ sdk.Oracle = (*Oracle)(nil)
