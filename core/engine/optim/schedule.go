package optim

import "math"

// Schedule is the learning rate at optimizer step s = 0, 1, ….
//
// Every schedule begins with a warm-up, lr·s/warmup for s < warmup: with one, step 0 has the learning rate 0.
type Schedule func(s int) float64

// Constant is lr after the warm-up.
func Constant(lr float64, warmup int) Schedule {
	return func(s int) float64 {
		if s < warmup {
			return lr * float64(s) / float64(warmup)
		}
		return lr
	}
}

// Cosine falls from lr to 0 by half a cosine, with x = (s−warmup)/(steps−warmup):
//
//	lr · (1 + cos(πx)) / 2
//
// From s = steps on it is 0.
//
// Source: Loshchilov and Hutter 2016 (arXiv 1608.03983), Eq. 5 without restarts. Checked against the golden
// trajectories.
func Cosine(lr float64, warmup, steps int) Schedule {
	return falling(lr, warmup, steps, func(x float64) float64 { return 0.5 * (1 + math.Cos(math.Pi*x)) })
}

// Linear falls from lr to 0 in a line: lr·(1−x), with x = (s−warmup)/(steps−warmup). From s = steps on it is 0.
func Linear(lr float64, warmup, steps int) Schedule {
	return falling(lr, warmup, steps, func(x float64) float64 { return 1 - x })
}

func falling(lr float64, warmup, steps int, at func(x float64) float64) Schedule {
	return func(s int) float64 {
		switch {
		case s < warmup:
			return lr * float64(s) / float64(warmup)
		case s >= steps:
			return 0
		}
		return lr * at(float64(s-warmup)/float64(steps-warmup))
	}
}
