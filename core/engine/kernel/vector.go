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
func Softmax(x []float32) {
	if len(x) == 0 {
		return
	}
	sum := expShift(x, x, maximum(x), 1)
	scale(x, 1/sum)
}

// LogSumExp is log Σ exp(x[i]) for one row, computed as max + log Σ exp(x[i]-max). It is -Inf for an empty row and
// for a row of -Inf, +Inf if an entry is, NaN if one is.
func LogSumExp(x []float32) float32 {
	m, finite := finiteMax(x)
	if !finite {
		return m
	}
	return m + float32(math.Log(float64(sumExp(x, m))))
}

// LogSumExpTo is [LogSumExp], to the bit, that keeps what it adds up: dst[i] = exp(x[i]-max), and their sum. Where the
// result is not finite, neither means anything. dst may be x.
func LogSumExpTo(dst, x []float32) (log, sum float32) {
	m, finite := finiteMax(x)
	if !finite {
		return m, 0
	}
	sum = expShift(dst[:len(x)], x, m, 1)
	return m + float32(math.Log(float64(sum))), sum
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
