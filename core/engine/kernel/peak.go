package kernel

import "runtime"

// Peak does n rounds of multiplications and additions that do not wait for one another, as many at once as the
// instructions in use can hold, and returns how many floating-point operations that were. It touches no memory: timed,
// it is what one thread can do at most at this level (see [Level]) with factors of that precision. At "generic" that is
// what a Go loop can.
func Peak(p Precision, n int) (flops float64) {
	if n <= 0 {
		return 0
	}
	return float64(n) * float64(peak(p, n))
}

// peakGeneric does n rounds of what the Go loops are made of, and returns the operations of one round. It has as many
// sums as fit the registers, and they begin differently, or the compiler would make one of them.
func peakGeneric(n int) int {
	a, b, x0 := float32(0.5), float32(1), float32(n)
	x1, x2, x3, x4, x5, x6 := x0+1, x0+2, x0+3, x0+4, x0+5, x0+6
	x7, x8, x9, x10, x11 := x0+7, x0+8, x0+9, x0+10, x0+11
	for range n {
		x0 = float32(x0*a) + b
		x1 = float32(x1*a) + b
		x2 = float32(x2*a) + b
		x3 = float32(x3*a) + b
		x4 = float32(x4*a) + b
		x5 = float32(x5*a) + b
		x6 = float32(x6*a) + b
		x7 = float32(x7*a) + b
		x8 = float32(x8*a) + b
		x9 = float32(x9*a) + b
		x10 = float32(x10*a) + b
		x11 = float32(x11*a) + b
	}
	runtime.KeepAlive(x0 + x1 + x2 + x3 + x4 + x5 + x6 + x7 + x8 + x9 + x10 + x11)
	return 2 * 12
}
