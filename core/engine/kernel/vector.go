package kernel

import "math"

// Exp is dst[i] = exp(x[i]). dst may be x.
//
// It is within 2 ulp; exp(+Inf) = +Inf, exp(-Inf) = 0, exp(NaN) = NaN; results below 2⁻¹²⁶ are denormal, not 0.
func Exp(dst, x []float32) {
	if len(x) > 0 {
		expShift(dst[:len(x)], x, 0, 1)
	}
}

// Softmax is x[i] = exp(x[i]-max) / Σ exp(x[j]-max), in place, for one row. An entry of -Inf becomes 0; if all are,
// or if one is NaN or +Inf, the row becomes NaN.
func Softmax(x []float32) { SoftmaxOf(x, logSum(x)) }

// SoftmaxOf is Softmax of a row, or of a part of it, with the sum of the whole row.
func SoftmaxOf(x []float32, row LogSum) {
	if len(x) == 0 {
		return
	}
	expShift(x, x, row.Max, 1)
	scale(x, 1/row.Sum)
}

// SumBlock is how many numbers [LogSumExp] adds up at a time.
const SumBlock = 2048

// LogSum is the largest of some numbers and Σ exp(x-Max); Sum is 0 where Max is infinite.
type LogSum struct{ Max, Sum float32 }

// LogSumOf is of up to [SumBlock] numbers.
func LogSumOf(x []float32) LogSum {
	m, finite := finiteMax(x)
	if !finite {
		return LogSum{m, 0}
	}
	return LogSum{m, sumExp(x, m)}
}

// Plus is the sum of s and of the block of numbers that follow.
func (s LogSum) Plus(next LogSum) LogSum {
	low, high := s, next
	if !(next.Max > s.Max) {
		low, high = next, s
	}
	switch {
	case s.Max != s.Max || next.Max != next.Max:
		nan := float32(math.NaN())
		return LogSum{nan, nan}
	case low.Sum == 0 || high.Sum == 0: // nothing but -Inf in low, or +Inf in high
		return high
	}
	return LogSum{high.Max, high.Sum + float32(low.Sum*float32(math.Exp(float64(low.Max-high.Max))))}
}

// Log is the logarithm of the sum of exponentials.
func (s LogSum) Log() float32 {
	if s.Sum == 0 {
		return s.Max
	}
	return s.Max + float32(math.Log(float64(s.Sum)))
}

func logSum(x []float32) LogSum {
	s := LogSumOf(x[:min(SumBlock, len(x))])
	for at := SumBlock; at < len(x); at += SumBlock {
		s = s.Plus(LogSumOf(x[at:min(at+SumBlock, len(x))]))
	}
	return s
}

// LogSumExp is log Σ exp(x[i]) for one row, computed as max + log Σ exp(x[i]-max), block by block: it is the [LogSum] of
// the first [SumBlock] numbers, plus that of the next ones, and so on. It is -Inf for an empty row and for a row of -Inf,
// +Inf if an entry is, NaN if one is.
func LogSumExp(x []float32) float32 { return logSum(x).Log() }

// LogSumExpTo is [LogSumExp], to the bit, that keeps what it adds up: dst[i] = exp(x[i]-max), and their sum. Where the
// result is not finite, neither means anything. dst may be x.
func LogSumExpTo(dst, x []float32) (log, sum float32) {
	if len(x) > SumBlock {
		s := logSum(x)
		expShift(dst[:len(x)], x, s.Max, 1)
		return s.Log(), s.Sum
	}
	m, finite := finiteMax(x)
	if !finite {
		return m, 0
	}
	s := LogSum{m, expShift(dst[:len(x)], x, m, 1)}
	return s.Log(), s.Sum
}

// finiteMax returns the largest of x, or what LogSumExp is without a sum.
func finiteMax(x []float32) (m float32, finite bool) {
	if len(x) == 0 {
		return float32(math.Inf(-1)), false
	}
	m = maximum(x)
	if !math.IsInf(float64(m), 0) {
		return m, true
	}
	for _, v := range x {
		if v != v {
			return v, false
		}
	}
	return m, false
}

// Largest returns the first index of the largest of x, which has an element and no NaN.
func Largest(x []float32) int {
	const block = 1024
	best, at := float32(math.Inf(-1)), 0
	for i := 0; i < len(x); i += block {
		if m := maximum(x[i:min(i+block, len(x))]); m > best {
			best, at = m, i
		}
	}
	for x[at] < best {
		at++
	}
	return at
}

// Dot is Σ x[i]·y[i], in an order that depends on the length only. y is at least as long as x.
func Dot(x, y []float32) float32 {
	if len(x) == 0 {
		return 0
	}
	return dot(x, y[:len(x)])
}

// Axpy is y[i] += a·x[i]. y is at least as long as x.
func Axpy(a float32, x, y []float32) {
	if len(x) > 0 {
		axpy(a, x, y[:len(x)])
	}
}

// Scale is x[i] *= a.
func Scale(a float32, x []float32) {
	if len(x) > 0 {
		scale(x, a)
	}
}

// Add is dst[i] = x[i] + y[i]; dst may be x or y. y and dst are at least as long as x.
func Add(dst, x, y []float32) {
	if len(x) > 0 {
		add(dst[:len(x)], x, y[:len(x)])
	}
}

// SumSquares is Σ x[i]² in float64, in an order that depends on the length only.
func SumSquares(x []float32) float64 {
	if len(x) == 0 {
		return 0
	}
	return sumSquares(x)
}

// The Go loops. Each conversion of a product keeps the compiler from fusing it with the sum, on any CPU.

func expShiftGeneric(dst, x []float32, sub, scale float32) (sum float32) {
	for i, v := range x {
		dst[i] = float32(math.Exp(float64((v - sub) * scale)))
		sum += dst[i]
	}
	return sum
}

func sumExpGeneric(x []float32, sub float32) (sum float32) {
	for _, v := range x {
		sum += float32(math.Exp(float64(v - sub)))
	}
	return sum
}

func maximumGeneric(x []float32) float32 {
	m := x[0]
	for _, v := range x[1:] {
		if v > m {
			m = v
		}
	}
	return m
}

func dotGeneric(x, y []float32) (sum float32) {
	for i, v := range x {
		sum += float32(v * y[i])
	}
	return sum
}

func axpyGeneric(a float32, x, y []float32) {
	for i, v := range x {
		y[i] += float32(a * v)
	}
}

func scaleGeneric(x []float32, a float32) {
	for i := range x {
		x[i] *= a
	}
}

func addGeneric(dst, x, y []float32) {
	for i, v := range x {
		dst[i] = v + y[i]
	}
}

func sumSquaresGeneric(x []float32) (sum float64) {
	for _, v := range x {
		sum += float64(float64(v) * float64(v))
	}
	return sum
}
