//go:build !purego

package kernel

// peak are the loops of 48 vector FMAs that measure what the core can do.
var peak = map[string]func(n int){"avx2": peakAVX2, "avx512": peakAVX512}
