// Command _asm writes the assembly of package kernel and its Go declarations:
//
//	go generate ./core/engine/kernel
package main

import (
	. "github.com/mmcloughlin/avo/build"
)

func main() {
	ConstraintExpr("!purego")
	pause()
	vendor()
	for _, v := range []isa{{name: "AVX2", w: 8}, {name: "AVX512", w: 16}} {
		v.tiles()
		v.packTransposed()
		v.packRows()
		v.expShift()
		v.sumExp()
		v.maximum()
		v.softmaxRows()
		v.softmaxBackwardRows()
		v.scaleRows()
		v.dot()
		v.axpy()
		v.scale()
		v.add()
		v.sumSquares()
		v.rmsNorm()
		v.rmsNormBackward()
		v.swiGLU()
		v.swiGLUBackward()
		v.geGLU()
		v.geGLUBackward()
		v.rotate()
		v.adamW()
		v.round()
		v.quantizedTiles()
		v.quantize()
		v.peak()
	}
	isa{name: "AVX512", w: 16}.headsTiles()
	v := isa{name: "BF16", w: 16, pairs: true}
	v.tiles()
	v.packTransposed()
	v.pairRow()
	v.pairRows()
	v.peak()
	v = isa{name: "VNNI", w: 16, dots: true}
	v.quantizedTiles()
	v.quantizedPeak()
	Generate()
}
