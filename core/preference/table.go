package preference

import (
	"math"
	"slices"

	"github.com/dno-project/dno/sdk"
)

// Table is a preference function over n choices, known exactly: completions of a small game, or
// checkpoints that played each other. A policy over it is n probabilities.
//
// On a table the iterations of DNO have closed forms, so what the theory promises can be seen: the
// plain game's last iterate cycles while its average converges; the regularised game converges in
// its last iterate.
type Table struct {
	p []float64
	n int
}

// NewTable returns the table of p, n×n and row-major: p[i*n+j] = P(i ≻ j) in [0, 1].
//
// Errors: sdk.CodeUsage unless n ≥ 1, p has n² values in [0, 1], P(i,j) + P(j,i) = 1 to 1e-9 and
// the diagonal is ½ to 1e-9.
func NewTable(p []float64, n int) (Table, error) {
	if n < 1 || len(p) != n*n {
		return Table{}, sdk.Errorf(sdk.CodeUsage, "preference table of %d choices: want n² values, have %d", n, len(p))
	}
	for i := range n {
		for j := range i + 1 {
			a, b := p[i*n+j], p[j*n+i]
			if !(a >= 0 && a <= 1 && b >= 0 && b <= 1 && math.Abs(a+b-1) <= 1e-9) {
				return Table{}, sdk.Errorf(sdk.CodeUsage, "preference table: P(%d,%d) = %v and P(%d,%d) = %v: want two probabilities that sum to 1", i, j, a, j, i, b)
			}
		}
	}
	return Table{p: slices.Clone(p), n: n}, nil
}

// N returns the number of choices.
func (t Table) N() int { return t.n }

// Rewards returns each choice's expected win rate against π, r[i] = Σ_j P(i ≻ j)·π[j].
func (t Table) Rewards(pi []float64) ([]float64, error) {
	if err := t.check(pi); err != nil {
		return nil, err
	}
	return t.rewards(pi), nil
}

// Gap returns the duality gap 2·(max_i (Pπ)_i − ½) in [0, 1]: what the two players could gain
// together by leaving π for their best answers. It is 0 exactly at a Nash equilibrium.
func (t Table) Gap(pi []float64) (float64, error) {
	e, err := t.Exploitability(pi)
	return 2 * e, err
}

// Exploitability returns max_i (Pπ)_i − ½ in [0, ½]: by how much the best single choice beats π.
func (t Table) Exploitability(pi []float64) (float64, error) {
	if err := t.check(pi); err != nil {
		return 0, err
	}
	return slices.Max(t.rewards(pi)) - 0.5, nil
}

// Rules is how the self-play game is played.
type Rules struct {
	Steps int     // T, at least 1
	Eta   float64 // η > 0: the larger, the smaller the steps

	// Tau is τ in [0, η]. Above 0 the game is regularised towards its start, π_ref = π_1:
	// completions are drawn from, and r_t is taken under, π_t^τ ∝ π_t^{1−τ/η}·π_ref^{τ/η}.
	Tau float64
}

// Trajectory is where a self-play game went.
type Trajectory struct {
	Last    []float64 // π_{T+1}
	Average []float64 // the uniform mixture of π_1..π_T, which Algorithm 1 returns

	GapLast, GapAverage float64

	// MinSlack is the least of P(π_{t+1} ≻ μ_t) − ½ − η·KL(π_{t+1}‖μ_t) over the steps, where μ_t
	// is π_t or, regularised, π_t^τ. Theory says that it is never negative.
	MinSlack float64
}

// Play iterates the exact step of DNO from π_1 = start,
//
//	π_{t+1} ∝ μ_t·exp(r_t/η),  r_t = Pμ_t
//
// with μ_t as in [Rules]. Choices of probability 0 stay there.
//
// Errors: sdk.CodeUsage for a start that is no distribution or rules outside their ranges.
//
// Source: Rosset et al. 2024 (arXiv 2404.03715), Algorithm 1; Appendix A, Option II of Algorithms 3
// and 4, where Tau > 0.
func (t Table) Play(start []float64, rules Rules) (Trajectory, error) {
	if err := t.check(start); err != nil {
		return Trajectory{}, err
	}
	if rules.Steps < 1 || !(rules.Eta > 0) || !(rules.Tau >= 0 && rules.Tau <= rules.Eta) || math.IsInf(rules.Eta, 1) {
		return Trajectory{}, sdk.Errorf(sdk.CodeUsage, "self-play: want 1 step or more, eta above 0 and tau from 0 to eta; have steps %d, eta %v, tau %v", rules.Steps, rules.Eta, rules.Tau)
	}
	pi, sum, least := slices.Clone(start), make([]float64, t.n), math.Inf(1)
	for range rules.Steps {
		for i := range sum {
			sum[i] += pi[i]
		}
		mu := t.mixture(pi, start, rules.Tau/rules.Eta)
		pi = t.step(mu, rules.Eta)
		least = min(least, t.slack(mu, pi, rules.Eta))
	}
	for i := range sum {
		sum[i] /= float64(rules.Steps)
	}
	return Trajectory{
		Last: pi, Average: sum, MinSlack: least,
		GapLast:    2 * (slices.Max(t.rewards(pi)) - 0.5),
		GapAverage: 2 * (slices.Max(t.rewards(sum)) - 0.5),
	}, nil
}

// Step returns the exact next policy, π'[i] ∝ π[i]·exp((Pπ)_i/η): the maximiser of Eq. 8.
func (t Table) Step(pi []float64, eta float64) ([]float64, error) {
	if err := t.check(pi); err != nil {
		return nil, err
	}
	if !(eta > 0) || math.IsInf(eta, 1) {
		return nil, sdk.Errorf(sdk.CodeUsage, "self-play: want eta above 0, have %v", eta)
	}
	return t.step(pi, eta), nil
}

func (t Table) step(pi []float64, eta float64) []float64 {
	logits := t.rewards(pi)
	for i := range logits {
		logits[i] = math.Log(pi[i]) + logits[i]/eta
	}
	return softmax(logits)
}

// mixture is π^{1−a}·ref^a, normalised.
func (t Table) mixture(pi, ref []float64, a float64) []float64 {
	if a == 0 {
		return pi
	}
	logits := make([]float64, t.n)
	for i := range logits {
		logits[i] = math.Inf(-1)
		if pi[i] > 0 && ref[i] > 0 { // 0·log 0 would be NaN
			logits[i] = (1-a)*math.Log(pi[i]) + a*math.Log(ref[i])
		}
	}
	return softmax(logits)
}

// slack is P(next ≻ pi) − ½ − η·KL(next‖pi).
func (t Table) slack(pi, next []float64, eta float64) float64 {
	var win, kl float64
	for i, r := range t.rewards(pi) {
		if next[i] > 0 {
			win += next[i] * r
			kl += next[i] * math.Log(next[i]/pi[i])
		}
	}
	return win - 0.5 - eta*kl
}

func (t Table) rewards(pi []float64) []float64 {
	r := make([]float64, t.n)
	for i := range r {
		for j, q := range pi {
			r[i] += t.p[i*t.n+j] * q
		}
	}
	return r
}

func (t Table) check(pi []float64) error {
	var sum float64
	for _, q := range pi {
		if !(q >= 0) {
			sum = math.NaN()
		}
		sum += q
	}
	if len(pi) != t.n || !(math.Abs(sum-1) <= 1e-9) {
		return sdk.Errorf(sdk.CodeUsage, "policy over %d choices: want as many probabilities that sum to 1, have %d with the sum %v", t.n, len(pi), sum)
	}
	return nil
}

// softmax overwrites and returns its argument; at least one entry must be finite.
func softmax(logits []float64) []float64 {
	top, sum := slices.Max(logits), 0.0
	for i, l := range logits {
		logits[i] = math.Exp(l - top)
		sum += logits[i]
	}
	for i := range logits {
		logits[i] /= sum
	}
	return logits
}
