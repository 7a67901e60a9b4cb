//go:build !purego

package kernel

// peakInt8 is Peak for products of int8.
func peakInt8(n int) float64 {
	if !level.hasVNNI() {
		return 0
	}
	peakVNNI(n)
	return 48 * 128 * float64(n)
}
