// Package logistic is the logistic function and its logarithm, exact at any argument.
package logistic

import "math"

// Sigmoid returns σ(x) = 1/(1 + e^(−x)). Far below zero it keeps its relative precision:
// Sigmoid(−700) is about 1e−304, not 0.
func Sigmoid(x float64) float64 {
	if x < 0 {
		e := math.Exp(x)
		return e / (1 + e)
	}
	return 1 / (1 + math.Exp(-x))
}

// Log returns log σ(x) = min(x, 0) − log(1 + e^(−|x|)), which neither overflows far below zero
// (there it is x) nor vanishes early far above (there it is −e^(−x)).
func Log(x float64) float64 {
	return math.Min(x, 0) - math.Log1p(math.Exp(-math.Abs(x)))
}
