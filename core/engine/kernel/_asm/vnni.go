package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The layout of package kernel's file q8.go, in bytes.
const (
	scaleA, minusA = 32, 36 // in a block of a row
	scalesB        = 1024   // in a block of a panel
)

// VPDPBUSD adds to each lane of d the four products of the signed bytes of b and the unsigned ones of a. Go's assembler
// knows it, avo does not.
func VPDPBUSD(b, a, d reg.VecPhysical) {
	Instruction(&ir.Instruction{Opcode: "VPDPBUSD", Operands: []Op{b, a, d}})
}

// quantizedTiles has two registers for each vector of the result, the block's integer sum and the sum of all blocks:
// a whole tile is 6×32.
func (v isa) quantizedTiles() {
	for m := 1; m <= 6; m++ {
		for vectors := 1; vectors <= 2; vectors++ {
			v.quantizedTile(m, vectors)
		}
	}
}

func (v isa) quantizedTile(m, vectors int) {
	v.text(fmt.Sprintf("tile%dx%d", m, vectors*v.w), "func(k int, a *float32, rs, ks int, b *float32, bs int, c *float32, ldc, n, acc int)",
		fmt.Sprintf("tileQ8Generic for m = %d with fused sums; strides are in bytes, n is at most %d.", m, vectors*v.w))
	sum := func(i, j int) reg.VecPhysical { return zs[2*i+j] }
	dots := func(i, j int) reg.VecPhysical { return zs[12+2*i+j] }
	bv := []reg.VecPhysical{reg.Z24, reg.Z25}
	av := []reg.VecPhysical{reg.Z26, reg.Z27}
	dv := []reg.VecPhysical{reg.Z28, reg.Z29}
	ks := []reg.Register{reg.K1, reg.K2}

	n, mask := arg("n"), GP64()
	MOVL(I32(-1), mask.As32())
	BZHIL(n.As32(), mask.As32(), mask.As32())
	columns(mask)
	acc := arg("acc")
	for i := range m {
		for j := range vectors {
			v.zero(2*i + j)
		}
	}
	TESTQ(acc, acc)
	JZ(LabelRef("start"))
	cp, ldc := arg("c"), arg("ldc")
	for i := range m {
		for j := range vectors {
			VMOVUPS_Z(Mem{Base: cp, Disp: 64 * j}, ks[j], sum(i, j))
		}
		if i < m-1 {
			ADDQ(ldc, cp)
		}
	}
	Label("start")
	k, rs, step, b, bs := arg("k"), arg("rs"), arg("ks"), arg("b"), arg("bs")
	a := []reg.GPVirtual{arg("a")} // one pointer for three rows
	if m > 3 {
		a = append(a, GP64())
		LEAQ(Mem{Base: a[0], Index: rs, Scale: 2}, a[1])
		ADDQ(rs, a[1])
	}
	at := func(i, disp int) Mem {
		from := Mem{Base: a[i/3], Disp: disp}
		if i%3 > 0 {
			from.Index, from.Scale = rs, uint8(i%3)
		}
		return from
	}
	Label("loop")
	for i := range m {
		for j := range vectors {
			VPBROADCASTD(at(i, minusA), dots(i, j))
		}
	}
	for s := range 8 {
		for j := range vectors {
			VMOVUPS(Mem{Base: b, Disp: 128*s + 64*j}, bv[j])
		}
		for i := range m {
			VPBROADCASTD(at(i, 4*s), av[i%2])
			for j := range vectors {
				VPDPBUSD(av[i%2], bv[j], dots(i, j))
			}
		}
	}
	for j := range vectors {
		VCVTPH2PS(Mem{Base: b, Disp: scalesB + 32*j}, dv[j])
	}
	for i := range m {
		VBROADCASTSS(at(i, scaleA), av[i%2])
		for j := range vectors {
			VMULPS(dv[j], av[i%2], bv[j])
			VCVTDQ2PS(dots(i, j), dots(i, j))
			VFMADD231PS(bv[j], dots(i, j), sum(i, j))
		}
	}
	for _, p := range a {
		ADDQ(step, p)
	}
	ADDQ(bs, b)
	SUBQ(Imm(1), k)
	JNZ(LabelRef("loop"))

	cp, ldc = arg("c"), arg("ldc")
	for i := range m {
		for j := range vectors {
			VMOVUPS(sum(i, j), ks[j], Mem{Base: cp, Disp: 64 * j})
		}
		if i < m-1 {
			ADDQ(ldc, cp)
		}
	}
	done()
}

func (v isa) quantize() {
	v.text("quantize", "func(dst, x *float32, n int)", "quantizeGeneric.")
	dst, x, n := arg("dst"), arg("x"), arg("n")
	largest, t := GP32(), GP32()
	lanes := func(op func(...Op)) { // to lane 0 of register 2
		VEXTRACTI64X4(Imm(1), zs[2], ys[3])
		op(ys[3], ys[2], ys[2])
		VEXTRACTI128(Imm(1), ys[2], xs[3])
		op(xs[3], xs[2], xs[2])
		VPSHUFD(Imm(0x4e), xs[2], xs[3])
		op(xs[3], xs[2], xs[2])
		VPSHUFD(Imm(0xb1), xs[2], xs[3])
		op(xs[3], xs[2], xs[2])
	}
	Label("loop")
	mask := GP64()
	MOVL(I32(-1), mask.As32())
	CMPQ(n, Imm(32))
	JGE(LabelRef("whole"))
	BZHIL(n.As32(), mask.As32(), mask.As32())
	Label("whole")
	columns(mask)
	VMOVUPS_Z(Mem{Base: x}, reg.K1, zs[0])
	VMOVUPS_Z(Mem{Base: x, Disp: 64}, reg.K2, zs[1])
	VPANDD(bits(0x7fffffff), zs[0], zs[2])
	VPANDD(bits(0x7fffffff), zs[1], zs[3])
	VPMAXUD(zs[3], zs[2], zs[2])
	lanes(VPMAXUD)
	VMOVD(xs[2], largest)
	CMPL(largest, U32(0x7f800000))
	JCC(LabelRef("infinite"))
	CMPL(largest, U32(0x03fe0000)) // 127·2⁻¹²⁶
	JCS(LabelRef("zeros"))
	VMOVSS(bits(0x42fe0000), xs[4]) // 127
	VDIVSS(xs[4], xs[2], xs[5])
	VMOVSS(xs[5], Mem{Base: dst, Disp: scaleA})
	VDIVSS(xs[2], xs[4], xs[4])
	VBROADCASTSS(xs[4], zs[4])
	for i := range 2 {
		VMULPS(zs[4], zs[i], zs[i])
		VCVTPS2DQ(zs[i], zs[i])
		VPMOVSDB(zs[i], Mem{Base: dst, Disp: 16 * i})
	}
	VPADDD(zs[1], zs[0], zs[2])
	lanes(VPADDD)
	VPSLLD(Imm(7), xs[2], xs[2])
	VPXOR(xs[3], xs[3], xs[3])
	VPSUBD(xs[2], xs[3], xs[2])
	VMOVD(xs[2], Mem{Base: dst, Disp: minusA})
	Label("next")
	ADDQ(U32(128), x)
	ADDQ(Imm(40), dst)
	SUBQ(Imm(32), n)
	JG(LabelRef("loop"))
	JMP(LabelRef("end"))
	Label("infinite")
	MOVL(U32(0x7fc00000), t)
	JMP(LabelRef("clear"))
	Label("zeros")
	XORL(t, t)
	Label("clear")
	VPXOR(ys[0], ys[0], ys[0])
	VMOVDQU(ys[0], Mem{Base: dst})
	MOVL(t, Mem{Base: dst, Disp: scaleA})
	MOVL(U32(0), Mem{Base: dst, Disp: minusA})
	JMP(LabelRef("next"))
	Label("end")
	done()
}

func (v isa) quantizedPeak() {
	v.text("peak", "func(n int)", "peakAVX512 for products of int8.")
	n := arg("n")
	for i := range 14 {
		v.zero(i)
	}
	Label("loop")
	for i := range 48 {
		VPDPBUSD(v.r(13), v.r(12), v.r(i%12))
	}
	SUBQ(Imm(1), n)
	JNZ(LabelRef("loop"))
	done()
}
