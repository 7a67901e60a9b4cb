package logistic

import (
	"math"
	"testing"
)

func TestValues(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ x, sigmoid, log float64 }{
		"at zero a half and its logarithm":      {0, 0.5, -math.Ln2},
		"σ(ln 3) = 3/4":                         {math.Log(3), 0.75, math.Log(0.75)},
		"σ(−ln 3) = 1/4":                        {-math.Log(3), 0.25, math.Log(0.25)},
		"far above, 1 and −e^(−40)":             {40, 1, -math.Exp(-40)},
		"far below, e^x and x":                  {-700, math.Exp(-700), -700},
		"beyond the range of exp, log stays x":  {-1e4, 0, -1e4},
		"beyond the range of exp, nothing lost": {1e4, 1, 0},
		"infinity is a limit, not a NaN":        {math.Inf(1), 1, 0},
		"minus infinity is a limit, not a NaN":  {math.Inf(-1), 0, math.Inf(-1)},
		"near zero to first order, ½ + x/4":     {1e-9, 0.5 + 1e-9/4, -math.Ln2 + 1e-9/2},
	} {
		t.Run(name, func(t *testing.T) {
			near(t, "Sigmoid", Sigmoid(c.x), c.sigmoid)
			near(t, "Log", Log(c.x), c.log)
		})
	}
}

func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if got != want && !(math.Abs(got-want) <= 1e-14*math.Abs(want)) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
