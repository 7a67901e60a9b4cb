// Package kernel is arithmetic on slices: the Go loop that each function equals, and assembly.
//
// Everything is float32 and row-major; [GemmBF16] and [PackQ8] round the factors of products on the way. A matrix is a
// slice and a leading dimension (ld): element (i, j) is x[i*ld+j].
//
// Two promises hold at a fixed level (see [Level]). The bytes of a result do not depend on the number of threads.
// And a row's result does not depend on the rows computed with it: it is the same in a batch of one and of a thousand.
//
// A slice that is too short for the shape panics, as an index out of range does.
package kernel

//go:generate go -C _asm run . -out ../asm_amd64.s -stubs ../asm_amd64.go -pkg kernel
//go:generate go -C _neon run . -out ../neon_arm64.s -stubs ../neon_arm64.go

import (
	"fmt"
	"os"
	"strings"
)

// instructions names a set of vector instructions. Each has those before it, but that bf16 lacks those of avx512vnni, and
// the last that a CPU has is preferred.
type instructions uint8

const (
	generic    instructions = iota // Go loops
	neon                           // Advanced SIMD, which every arm64 has, 4 lanes
	avx2                           // AVX2 and FMA, 8 lanes
	avx512                         // AVX-512 F, BW, DQ and VL, 16 lanes
	avx512vnni                     // AVX-512 VNNI: as avx512, but for products of int8
	bf16                           // AVX-512 BF16: as avx512, but for products of bfloat16
	vnni                           // both
)

var levelNames = [...]string{"generic", "neon", "avx2", "avx512", "avx512vnni", "bf16", "vnni"}

// hasVNNI reports whether products of int8 have instructions of their own.
func (l instructions) hasVNNI() bool { return l == avx512vnni || l == vnni }

func (l instructions) String() string { return levelNames[l] }

// level is what every kernel dispatches on; levelErr says why it is not what DNO_KERNEL asked for.
var level, levelErr = choose(os.Getenv("DNO_KERNEL"), detect())

// choose picks the last (best) of the levels that the CPU has, or the one that is asked for.
func choose(asked string, have []instructions) (instructions, error) {
	best := have[len(have)-1]
	if asked == "" {
		return best, nil
	}
	var names []string
	for _, l := range have {
		if l.String() == asked {
			return l, nil
		}
		names = append(names, l.String())
	}
	return best, fmt.Errorf("choose the kernels by DNO_KERNEL=%q: this build on this CPU has %s; set it to one of them or unset it",
		asked, strings.Join(names, ", "))
}

// Level names the instructions in use: "generic", "avx2", "avx512", "avx512vnni", "bf16" or "vnni", or on arm64 "neon". It
// is the best that the CPU has, unless the environment variable DNO_KERNEL names another. Results of different levels
// differ in the last bits, but for these: from "avx512" on everything that is float32 is the same bytes, from "bf16" on
// what is bfloat16, and from "avx2" on products with weights of [PackQ8].
func Level() string { return level.String() }

// Levels names the levels that this build has on this CPU, "generic" first. The build tag purego leaves only that.
func Levels() []string {
	var names []string
	for _, l := range detect() {
		names = append(names, l.String())
	}
	return names
}

// LevelError is not nil if DNO_KERNEL names a level that is unknown or that this CPU lacks; the best one is in use
// then. A program reports it at start and stops, so that nobody compares bytes of another level than they asked for.
func LevelError() error { return levelErr }
