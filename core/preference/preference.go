// Package preference is the game: verdicts in, win rates, cycles, equilibria and pairs out.
//
// Everything here is a pure function of its input, in float64. Preferences need not be transitive:
// cycles are what DNO is for.
package preference

import (
	"math"
	"slices"

	"github.com/dno-project/dno/sdk"
)

// Who a completion's win rate is measured against.
const (
	OpponentsOwn = "own" // the policy's own completions: r_t is over π_t
	OpponentsAll = "all" // the teacher's too: Algorithm 2 as printed
)

// Which opponents the win rates that judge a pair leave out.
const (
	LeavePairOut = "leave-pair-out" // both of the pair: the gap is unbiased
	LeaveSelfOut = "leave-self-out" // only the completion itself: the gap is biased away from zero
)

// Options say how a game is estimated. The zero value is DNO's default.
type Options struct {
	Opponents string // OpponentsOwn where empty
	Estimator string // LeavePairOut where empty

	// OrderMatters says that both orders were asked. A comparison that lacks one, because the
	// oracle abstained, is then removed: a single order would carry the oracle's position bias.
	OrderMatters bool

	// Allowed are the completions that may stand in a pair, in any order; nil: all of them. They do
	// not change who is an opponent.
	Allowed []int
}

// Game is the n completions of one prompt with the oracle's preferences among them.
//
// Completions with the same text are one completion drawn several times: they share their verdicts,
// tie with each other and are never paired, but each draw counts as an opponent, as in the mean
// over π_t that a win rate estimates.
//
// A Game is immutable, and safe for concurrent use. Its methods take indices in 0..n-1 and, like a
// slice, panic on others.
type Game struct {
	completions []sdk.Completion
	options     Options
	first       []int       // first[i]: lowest index with the text of i
	asked       [][]float64 // mean P as asked with the row first, by text; NaN: not asked, or abstained
	p           [][]float64 // symmetrised P̃; NaN: not compared
	pairable    []int       // lowest allowed index of each text, ascending
}

// NewGame returns the game of n completions.
//
// raw is n×n, row-major: raw[i*n+j] is P(i ≻ j) in [0, 1] as the oracle answered with i shown
// first; NaN where it was not asked or abstained. The diagonal is not read, nor are verdicts
// between equal texts. Where several draws of the same two texts were asked, their verdicts are
// averaged. P is then symmetrised,
//
//	P̃(a,b) = (P(a,b) + 1 − P(b,a)) / 2
//
// so that P̃(a,b) + P̃(b,a) = 1 and a hard disagreement of the two orders (1 and 1, or 0 and 0) is
// a tie. Where only one order was asked, that is P̃.
//
// Errors: sdk.CodeInternal where raw has another length or a value is outside [0, 1];
// sdk.CodeUsage for an unknown option or an allowed index that does not exist.
func NewGame(completions []sdk.Completion, raw []float64, options Options) (*Game, error) {
	n := len(completions)
	if len(raw) != n*n {
		return nil, sdk.Errorf(sdk.CodeInternal, "game of %d completions: want %d verdicts, have %d", n, n*n, len(raw))
	}
	for at, v := range raw {
		if v < 0 || v > 1 { // false for NaN
			return nil, sdk.Errorf(sdk.CodeInternal, "game of %d completions: the preference for %d over %d is %v, want a probability in [0, 1]", n, at/n, at%n, v)
		}
	}
	if options.Opponents == "" {
		options.Opponents = OpponentsOwn
	}
	if options.Estimator == "" {
		options.Estimator = LeavePairOut
	}
	if o := options.Opponents; o != OpponentsOwn && o != OpponentsAll {
		return nil, sdk.Errorf(sdk.CodeUsage, "opponents: want %q or %q, have %q", OpponentsOwn, OpponentsAll, o)
	}
	if e := options.Estimator; e != LeavePairOut && e != LeaveSelfOut {
		return nil, sdk.Errorf(sdk.CodeUsage, "estimator: want %q or %q, have %q", LeavePairOut, LeaveSelfOut, e)
	}
	texts := make([]string, n)
	for i, c := range completions {
		texts[i] = c.Text
	}
	g := &Game{completions: slices.Clone(completions), options: options, first: FirstOf(texts)}
	g.asked = merge(raw, g.first)
	g.p = symmetrise(g.asked, g.first, options.OrderMatters)
	if err := g.allow(options.Allowed); err != nil {
		return nil, err
	}
	return g, nil
}

// FirstOf returns for each text the lowest index at which the same text stands: its own index where
// it is the first. Only texts with FirstOf(texts)[i] == i need to be judged.
func FirstOf(texts []string) []int {
	at := make(map[string]int, len(texts))
	first := make([]int, len(texts))
	for i, text := range texts {
		j, seen := at[text]
		if !seen {
			at[text], j = i, i
		}
		first[i] = j
	}
	return first
}

// merge averages the verdicts of equal texts, and hands the mean to every draw.
func merge(raw []float64, first []int) [][]float64 {
	n := len(first)
	sum, count := grid(n, n, 0), grid(n, n, 0)
	for i, a := range first {
		for j, b := range first {
			if v := raw[i*n+j]; a != b && !math.IsNaN(v) {
				sum[a][b] += v
				count[a][b]++
			}
		}
	}
	asked := grid(n, n, math.NaN())
	for i, a := range first {
		for j, b := range first {
			if count[a][b] > 0 {
				asked[i][j] = sum[a][b] / count[a][b]
			}
		}
	}
	return asked
}

func symmetrise(asked [][]float64, first []int, bothOrders bool) [][]float64 {
	p := grid(len(first), len(first), math.NaN())
	for i := range p {
		for j := range i + 1 {
			if first[i] == first[j] {
				p[i][j], p[j][i] = 0.5, 0.5
				continue
			}
			// d = P̃(i,j) − ½. Written so, equal verdicts of both orders give exactly a tie.
			d := (asked[i][j] - asked[j][i]) / 2
			switch one, other := math.IsNaN(asked[i][j]), math.IsNaN(asked[j][i]); {
			case !bothOrders && !one && other:
				d = asked[i][j] - 0.5
			case !bothOrders && one && !other:
				d = 0.5 - asked[j][i]
			}
			// 1 − x is exact for x in [½, 1], so the two entries sum to exactly 1.
			if d >= 0 {
				p[i][j] = 0.5 + d
				p[j][i] = 1 - p[i][j]
			} else if d < 0 {
				p[j][i] = 0.5 - d
				p[i][j] = 1 - p[j][i]
			}
		}
	}
	return p
}

func (g *Game) allow(allowed []int) error {
	n := g.N()
	lowest := make([]int, n) // by text: lowest allowed index + 1; 0: none
	mark := func(i int) {
		if at := &lowest[g.first[i]]; *at == 0 || i+1 < *at {
			*at = i + 1
		}
	}
	for _, i := range allowed {
		if i < 0 || i >= n {
			return sdk.Errorf(sdk.CodeUsage, "completion %d may be paired, but the group has only 0 to %d", i, n-1)
		}
		mark(i)
	}
	if allowed == nil {
		for i := range n {
			mark(i)
		}
	}
	for _, i := range lowest {
		if i > 0 {
			g.pairable = append(g.pairable, i-1)
		}
	}
	slices.Sort(g.pairable)
	g.options.Allowed = slices.Clone(allowed)
	return nil
}

func grid(rows, columns int, fill float64) [][]float64 {
	out := make([][]float64, rows)
	for i := range out {
		out[i] = slices.Repeat([]float64{fill}, columns)
	}
	return out
}

// N returns the number of completions.
func (g *Game) N() int { return len(g.completions) }

// Completion returns completion i.
func (g *Game) Completion(i int) sdk.Completion { return g.completions[i] }

// FirstOf returns the lowest index with the text of completion i.
func (g *Game) FirstOf(i int) int { return g.first[i] }

// Pairable returns the completions that may be paired, ascending: of each allowed text the lowest
// allowed index.
func (g *Game) Pairable() []int { return slices.Clone(g.pairable) }

// Preference returns the symmetrised P̃(i ≻ j), in [0, 1]; ½ for equal texts, NaN where the two
// were not compared. Preference(i, j) + Preference(j, i) is exactly 1.
func (g *Game) Preference(i, j int) float64 { return g.p[i][j] }

// Asymmetry returns |P(i,j) − (1 − P(j,i))|, how far the oracle's answer depends on the order; NaN
// unless both orders were answered.
func (g *Game) Asymmetry(i, j int) float64 {
	return math.Abs(g.asked[i][j] - (1 - g.asked[j][i]))
}

// Consistency says how far an oracle's verdicts depend on which completion it saw first.
type Consistency struct {
	BothOrders int     // pairs of distinct texts for which both orders were answered
	Flips      int     // of those, how many whose two verdicts prefer different completions
	Asymmetry  float64 // mean of |P(a,b) − (1 − P(b,a))| over BothOrders; 0 where there are none
}

// Consistency returns the game's figures; where each text pair is asked in one order they are zero.
func (g *Game) Consistency() Consistency {
	var c Consistency
	for i := range g.p {
		for j := range i {
			a := g.Asymmetry(i, j)
			if g.first[i] != i || g.first[j] != j || math.IsNaN(a) {
				continue
			}
			c.BothOrders++
			c.Asymmetry += a
			if (g.asked[i][j]-0.5)*(g.asked[j][i]-0.5) > 0 {
				c.Flips++
			}
		}
	}
	if c.BothOrders > 0 {
		c.Asymmetry /= float64(c.BothOrders)
	}
	return c
}
