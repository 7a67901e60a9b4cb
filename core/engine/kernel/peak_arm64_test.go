//go:build !purego

package kernel

var peak = map[string]func(n int){"neon": peakNEON}
