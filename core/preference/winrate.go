package preference

import (
	"math"

	"github.com/dno-project/dno/sdk"
)

// Estimate is a win rate measured against a sample of opponents.
type Estimate struct {
	Rate      float64 // mean P̃ over the opponents, in [0, 1]; NaN without one
	SE        float64 // sample standard deviation of those P̃ over √Opponents; NaN below two opponents
	Opponents int     // how many opponents the mean is over
}

// WinRate returns completion i's expected win rate,
//
//	r[i] = mean of P̃(i,k) over opponents k ≠ i
//
// which estimates E_{y'∼π_t}[P(y ≻ y'|x)] where the opponents are the policy's own completions. A
// teacher's completion has a win rate, but is nobody's opponent unless Options.Opponents is
// OpponentsAll. Comparisons that are missing are left out of the mean.
//
// With k opponents the standard error is at most 1/(2√(k−1)): five of them resolve differences of
// 0.2, not of 0.02.
//
// Source: Rosset et al. 2024 (arXiv 2404.03715), the reward r_t of Algorithm 1.
func (g *Game) WinRate(i int) Estimate { return g.mean(i, i) }

// PairWinRates returns the win rates that the pair (i, j) is judged by,
//
//	r_i = mean of P̃(i,k) and r_j = mean of P̃(j,k) over opponents k ∉ {i, j}
//
// With self or the other one among the opponents, the verdict on the pair itself would enter r_i
// with one sign and r_j with the other, and the gap r_i − r_j would be biased: on uniform
// rock-paper-scissors, where every true gap is 0, leaving only self out gives 0.25 at 5
// completions. That estimator is Options.Estimator LeaveSelfOut.
//
// Comparisons that are missing are left out. Where either completion has no opponent left,
// r_i = P̃(i,j) and r_j = P̃(j,i), each with one opponent and no standard error; without that
// comparison either, both are NaN.
func (g *Game) PairWinRates(i, j int) (ri, rj Estimate) {
	if g.options.Estimator == LeaveSelfOut {
		ri, rj = g.mean(i, i), g.mean(j, j)
	} else {
		ri, rj = g.mean(i, j), g.mean(j, i)
	}
	if ri.Opponents == 0 || rj.Opponents == 0 {
		direct := func(p float64) Estimate {
			e := Estimate{Rate: p, SE: math.NaN()}
			if !math.IsNaN(p) {
				e.Opponents = 1
			}
			return e
		}
		return direct(g.p[i][j]), direct(g.p[j][i])
	}
	return ri, rj
}

// mean is over the opponents k ∉ {i, left}.
func (g *Game) mean(i, left int) Estimate {
	var e Estimate
	each := func(f func(p float64)) {
		for k, p := range g.p[i] {
			if k != i && k != left && g.isOpponent(k) && !math.IsNaN(p) {
				f(p)
			}
		}
	}
	each(func(p float64) { e.Rate += p; e.Opponents++ })
	k := float64(e.Opponents)
	e.Rate /= k // NaN without an opponent
	e.SE = math.NaN()
	if e.Opponents > 1 {
		var squares float64
		each(func(p float64) { squares += (p - e.Rate) * (p - e.Rate) })
		e.SE = math.Sqrt(squares / (k - 1) / k)
	}
	return e
}

func (g *Game) isOpponent(k int) bool {
	return g.options.Opponents == OpponentsAll || !g.isTeacher(k)
}

func (g *Game) isTeacher(k int) bool { return g.completions[k].Source == sdk.FromTeacher }

// SoftTarget returns the label of a pair, σ(c·(r1 − r2)) in [0, 1]: how probably the first one
// should be preferred. c ≥ 0 sharpens win rates; scaling r and η together leaves DNO's target where
// it is.
//
// Source: Rosset et al. 2024 (arXiv 2404.03715), Eq. 8.
func SoftTarget(c, r1, r2 float64) float64 { return 1 / (1 + math.Exp(-c*(r1-r2))) }
