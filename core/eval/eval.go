// Package eval is who wins against whom, and how sure: means with 95 % intervals, win rates,
// differences, divergences and lengths.
//
// Every interval here is over independent values: one for each prompt. Several completions of one
// prompt are one value, their mean.
package eval

import (
	"encoding/json"
	"math"

	"github.com/dno-project/dno/sdk"
	"gonum.org/v1/gonum/mathext"
)

// Interval is a mean over N values with its 95 % confidence interval. What is unknown is NaN, in
// JSON null: everything where N is 0, and spread from too few values.
type Interval struct {
	Mean float64
	SE   float64 // standard error of the mean: sample standard deviation over √N; NaN below two values
	Low  float64
	High float64
	N    int
}

// z975 is the 97.5 % point of the standard normal distribution.
const z975 = 1.959963984540054

func unknown() Interval {
	return Interval{Mean: math.NaN(), SE: math.NaN(), Low: math.NaN(), High: math.NaN()}
}

// Mean returns the mean of real values with Student's interval,
//
//	mean ± t·s/√n
//
// where s is the sample standard deviation and t the 97.5 % point at n − 1 degrees of freedom.
// Below two values SE, Low and High are NaN, without one Mean is too. Equal values show no spread
// and give a point; for verdicts see [WinRate]. Values that are not finite make the result so.
func Mean(values []float64) Interval {
	m := unknown()
	m.N = len(values)
	if m.N == 0 {
		return m
	}
	n := float64(m.N)
	m.Mean = 0
	for _, v := range values {
		m.Mean += v
	}
	m.Mean /= n
	if m.N == 1 {
		return m
	}
	var squares float64
	for _, v := range values {
		squares += (v - m.Mean) * (v - m.Mean)
	}
	m.SE = math.Sqrt(squares / (n - 1) / n)
	t := t975(n - 1)
	m.Low, m.High = m.Mean-t*m.SE, m.Mean+t*m.SE
	return m
}

// t975 is the 97.5 % point of Student's distribution, from P(|T| > t) = I_x(ν/2, ½), x = ν/(ν +
// t²).
func t975(nu float64) float64 {
	x := mathext.InvRegIncBeta(nu/2, 0.5, 0.05)
	return math.Sqrt(nu * (1 - x) / x)
}

// WinRate returns the mean of verdicts in [0, 1] (a tie is ½) with Wilson's score interval,
//
//	(m + z²/2n ± z·√(m(1−m)/n + z²/4n²)) / (1 + z²/n)
//
// It stays within [0, 1] and does not shrink to a point where every game is won: 20 wins of 20
// leave [0.839, 1]. For wins and losses it is the standard interval of a proportion, so accuracies
// are measured with it too. With ties or probabilities the values spread less than wins and losses
// of the same mean, and it is too wide, never too narrow; the interval of [Mean] then shows their
// own spread.
//
// Without a value everything is NaN.
//
// Errors: sdk.CodeInternal for a value outside [0, 1]. Leave abstentions out; they are no verdicts.
//
// Source: Wilson 1927, Journal of the American Statistical Association 22. Differs: ties and
// probabilities count as fractions of a win.
func WinRate(values []float64) (Interval, error) {
	for i, v := range values {
		if !(v >= 0 && v <= 1) {
			return unknown(), sdk.Errorf(sdk.CodeInternal, "win rate: value %d of %d is %v, want a verdict in [0, 1]", i, len(values), v)
		}
	}
	m := Mean(values)
	if m.N == 0 {
		return m, nil
	}
	n, z2 := float64(m.N), z975*z975
	center := (m.Mean + z2/(2*n)) / (1 + z2/n)
	half := z975 * math.Sqrt(max(m.Mean*(1-m.Mean), 0)/n+z2/(4*n*n)) / (1 + z2/n)
	// Rounding must not leave the mean, or the unit interval, outside.
	m.Low = max(min(center-half, m.Mean), 0)
	m.High = min(max(center+half, m.Mean), 1)
	return m, nil
}

// Difference returns the mean of a − b with Student's interval, where a[i] and b[i] were measured
// on the same prompt: pairing takes out how hard each prompt is. An interval without 0 is a
// difference at the 5 % level.
//
// Errors: sdk.CodeInternal where the lengths differ.
func Difference(a, b []float64) (Interval, error) {
	if len(a) != len(b) {
		return unknown(), sdk.Errorf(sdk.CodeInternal, "paired difference: %d values against %d", len(a), len(b))
	}
	d := make([]float64, len(a))
	for i := range d {
		d[i] = a[i] - b[i]
	}
	return Mean(d), nil
}

// KL estimates KL(π‖π₀) in nats per completion,
//
//	mean of log π(y|x) − log π₀(y|x),  y ∼ π(·|x)
//
// from one completion of each prompt. policy[i] and base[i] are log-probabilities of the same
// completion, drawn from π itself; both have to be of the distribution that it was drawn from (at
// temperature 1 the models' own). The divergence is not negative, but by chance the estimate may
// be.
//
// Errors: sdk.CodeInternal where the lengths differ.
func KL(policy, base []float64) (Interval, error) { return Difference(policy, base) }

// RelativeChange returns mean(after)/mean(before) − 1, say of lengths in tokens on the same
// prompts: 0.1 is ten per cent longer. The interval is by the delta method,
//
//	R ± t·s/(√n·mean(before)),  s the sample standard deviation of after − (R + 1)·before
//
// which is good where mean(before) is many of its standard errors away from 0, as lengths are.
//
// Errors: sdk.CodeInternal where the lengths differ or the mean of before is not above 0.
//
// Source: Cochran 1977, Sampling Techniques, Chapter 6: the ratio estimate and its variance.
func RelativeChange(before, after []float64) (Interval, error) {
	if len(before) != len(after) {
		return unknown(), sdk.Errorf(sdk.CodeInternal, "relative change: %d values against %d", len(after), len(before))
	}
	if len(before) == 0 {
		return unknown(), nil
	}
	base := Mean(before).Mean
	if !(base > 0) {
		return unknown(), sdk.Errorf(sdk.CodeInternal, "relative change: the mean before is %v, want one above 0", base)
	}
	ratio := Mean(after).Mean / base
	residuals := make([]float64, len(before))
	for i := range residuals {
		residuals[i] = (after[i] - ratio*before[i]) / base
	}
	m := Mean(residuals) // its mean is 0
	m.Mean = ratio - 1
	m.Low += m.Mean
	m.High += m.Mean
	return m, nil
}

type intervalJSON struct {
	Mean *float64 `json:"mean"`
	SE   *float64 `json:"se"`
	Low  *float64 `json:"low"`
	High *float64 `json:"high"`
	N    int      `json:"n"`
}

// MarshalJSON writes {"mean", "se", "low", "high", "n"}; null for what is not finite.
func (m Interval) MarshalJSON() ([]byte, error) {
	finite := func(v float64) *float64 {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		return &v
	}
	return json.Marshal(intervalJSON{finite(m.Mean), finite(m.SE), finite(m.Low), finite(m.High), m.N})
}

// UnmarshalJSON reads what MarshalJSON writes; null and missing figures become NaN.
func (m *Interval) UnmarshalJSON(data []byte) error {
	var in intervalJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	value := func(v *float64) float64 {
		if v == nil {
			return math.NaN()
		}
		return *v
	}
	*m = Interval{value(in.Mean), value(in.SE), value(in.Low), value(in.High), in.N}
	return nil
}
