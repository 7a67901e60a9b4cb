package preference

import (
	"cmp"
	"math"
	"slices"

	"github.com/dno-project/dno/sdk"
)

// How a rule takes pairs from a game.
const (
	SelectAll       = "all"        // every pair that passes
	SelectBestWorst = "best_worst" // only the completion with the highest win rate over the one with the lowest
)

// DefaultMinMargin is the margin of the default rule.
const DefaultMinMargin = 0.3

// Rule says which pairs are taken from a game: (i, j) where
//
//	P̃(i ≻ j) > ½  and  r_i − r_j ≥ MinMargin
//
// with the win rates of [Game.PairWinRates]. The zero value asks for no margin beyond r_i ≥ r_j.
type Rule struct {
	MinMargin float64 // in [-1, 1]; compared with a slack of 1e-9, so that 0.7 − 0.4 reaches 0.3
	MaxPairs  int     // a prompt: those of the largest margins; 0: no limit
	Select    string  // SelectAll where empty
}

const slack = 1e-9 // above the rounding of means, far below what a verdict can resolve

// Class says who wrote a pair's chosen and rejected completions, in this order. The student is the
// policy. How the classes shift over iterations is the paper's own diagnostic (Table 2).
type Class string

const (
	TeacherStudent Class = "teacher_student"
	StudentTeacher Class = "student_teacher"
	StudentStudent Class = "student_student"
	TeacherTeacher Class = "teacher_teacher"
)

// Pair is a chosen and a rejected completion of one game, by index, with what they were judged by.
type Pair struct {
	Chosen, Rejected int
	ChosenWinRate    float64 // r of [Game.PairWinRates]
	RejectedWinRate  float64
	ChosenSE         float64 // NaN below two opponents
	RejectedSE       float64
	Opponents        int     // that the win rates are over; the smaller number where abstentions make two
	Preference       float64 // P̃(chosen ≻ rejected)
	Margin           float64 // ChosenWinRate − RejectedWinRate
	Weight           float64 // 1 unless a script says otherwise
	Class            Class
}

// Pairs returns the rule's pairs among the completions that may be paired, ordered by chosen and
// then by rejected index, each with weight 1. Of several draws of one text the first stands for
// all.
//
// Equal margins that compete for the last of MaxPairs, and equal win rates for the best or the
// worst, are decided for the lower index.
//
// Errors: sdk.CodeUsage for a margin outside [-1, 1], a negative limit or an unknown selection.
//
// Source: Rosset et al. 2024 (arXiv 2404.03715), the large-margin pairs of Algorithm 2. Differs:
// the margin is between leave-pair-out win rates over the policy's completions, not rubric points.
func (g *Game) Pairs(rule Rule) ([]Pair, error) {
	if !(rule.MinMargin >= -1 && rule.MinMargin <= 1) {
		return nil, sdk.Errorf(sdk.CodeUsage, "pairs: min_margin is a difference of win rates: want -1 to 1, have %v", rule.MinMargin)
	}
	if rule.MaxPairs < 0 {
		return nil, sdk.Errorf(sdk.CodeUsage, "pairs: max_pairs: want 1 or more, or 0 for no limit, have %d", rule.MaxPairs)
	}
	var pairs []Pair
	take := func(i, j int) {
		if !(g.p[i][j] > 0.5) { // also where not compared
			return
		}
		if pair := g.measure(i, j); pair.Margin >= rule.MinMargin-slack {
			pairs = append(pairs, pair)
		}
	}
	switch rule.Select {
	case SelectAll, "":
		for _, i := range g.pairable {
			for _, j := range g.pairable {
				take(i, j)
			}
		}
	case SelectBestWorst:
		if best, worst := g.extremes(); best != worst {
			take(best, worst)
		}
	default:
		return nil, sdk.Errorf(sdk.CodeUsage, "pairs: select: want %q or %q, have %q", SelectAll, SelectBestWorst, rule.Select)
	}
	if rule.MaxPairs > 0 && len(pairs) > rule.MaxPairs {
		slices.SortStableFunc(pairs, func(a, b Pair) int { return cmp.Compare(b.Margin, a.Margin) })
		pairs = pairs[:rule.MaxPairs]
		slices.SortFunc(pairs, func(a, b Pair) int {
			return cmp.Or(cmp.Compare(a.Chosen, b.Chosen), cmp.Compare(a.Rejected, b.Rejected))
		})
	}
	return pairs, nil
}

// Pair returns the pair that a script names itself, with the game's figures; no rule is applied.
//
// Errors: sdk.CodeScript for indices that do not exist, may not be paired, have the same text or
// were not compared, and for a weight that is not a positive number.
func (g *Game) Pair(chosen, rejected int, weight float64) (Pair, error) {
	for _, i := range []int{chosen, rejected} {
		if i < 0 || i >= g.N() {
			return Pair{}, sdk.Errorf(sdk.CodeScript, "pair of %d over %d: the group has completions 0 to %d", chosen, rejected, g.N()-1)
		}
		if g.options.Allowed != nil && !slices.Contains(g.options.Allowed, i) {
			return Pair{}, sdk.Errorf(sdk.CodeScript, "pair of %d over %d: completion %d is not in the mix", chosen, rejected, i)
		}
	}
	if g.first[chosen] == g.first[rejected] {
		return Pair{}, sdk.Errorf(sdk.CodeScript, "pair of %d over %d: both have the same text", chosen, rejected)
	}
	if math.IsNaN(g.p[chosen][rejected]) {
		return Pair{}, sdk.Errorf(sdk.CodeScript, "pair of %d over %d: the oracle abstained from comparing the two", chosen, rejected)
	}
	if !(weight > 0) || math.IsInf(weight, 1) {
		return Pair{}, sdk.Errorf(sdk.CodeScript, "pair of %d over %d: want a weight above 0, have %v", chosen, rejected, weight)
	}
	pair := g.measure(chosen, rejected)
	pair.Weight = weight
	return pair, nil
}

func (g *Game) measure(i, j int) Pair {
	ri, rj := g.PairWinRates(i, j)
	return Pair{
		Chosen: i, Rejected: j,
		ChosenWinRate: ri.Rate, RejectedWinRate: rj.Rate,
		ChosenSE: ri.SE, RejectedSE: rj.SE,
		Opponents:  min(ri.Opponents, rj.Opponents),
		Preference: g.p[i][j],
		Margin:     ri.Rate - rj.Rate,
		Weight:     1,
		Class:      g.class(i, j),
	}
}

func (g *Game) class(chosen, rejected int) Class {
	switch a, b := g.isTeacher(chosen), g.isTeacher(rejected); {
	case a && b:
		return TeacherTeacher
	case a:
		return TeacherStudent
	case b:
		return StudentTeacher
	}
	return StudentStudent
}

// extremes returns the pairable completions of highest and lowest win rate; the same one, or -1
// twice, where no two can be told apart.
func (g *Game) extremes() (best, worst int) {
	best, worst = -1, -1
	var high, low float64
	for _, i := range g.pairable {
		r := g.standing(i)
		if math.IsNaN(r) {
			continue
		}
		if best < 0 || r > high {
			best, high = i, r
		}
		if worst < 0 || r < low {
			worst, low = i, r
		}
	}
	return best, worst
}

// standing is the win rate; without an opponent (one own completion and a teacher's) it is the mean
// over the others that may be paired.
func (g *Game) standing(i int) float64 {
	if e := g.WinRate(i); e.Opponents > 0 {
		return e.Rate
	}
	var sum, count float64
	for _, k := range g.pairable {
		if p := g.p[i][k]; k != i && !math.IsNaN(p) {
			sum += p
			count++
		}
	}
	return sum / count
}
