//go:build !purego

package kernel

// peaks are, by kind and level, loops of 48 vector FMAs that measure what the core can do, and the operations of one.
var peaks = map[string]map[string]peak{
	"float32":  {"avx2": {peakAVX2, 16}, "avx512": {peakAVX512, 32}, "bf16": {peakAVX512, 32}, "vnni": {peakAVX512, 32}},
	"bfloat16": {"avx2": {peakAVX2, 16}, "avx512": {peakAVX512, 32}, "bf16": {peakBF16, 64}, "vnni": {peakBF16, 64}},
	"int8":     {"vnni": {peakVNNI, 128}},
}
