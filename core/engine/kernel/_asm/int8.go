package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
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
// a whole tile is 6×32, or 2×16 with AVX2.
func (v isa) quantizedTiles() {
	for m := 1; m <= v.mostQuantized(); m++ {
		for vectors := 1; vectors <= 2; vectors++ {
			v.quantizedTile(m, vectors)
		}
	}
}

func (v isa) mostQuantized() int {
	if v.wide() {
		return 6
	}
	return 2
}

func (v isa) quantizedTile(m, vectors int) {
	v.text(fmt.Sprintf("tileQ8%dx%d", m, vectors*v.w), "func(k int, a *float32, rs, ks int, b, d *float32, bs int, c *float32, ldc, n, acc int)",
		fmt.Sprintf("tileQ8Generic for m = %d with fused sums; d are b's scales, strides are in bytes, n is at most %d.", m, vectors*v.w))
	most, size := v.mostQuantized(), 4*v.w
	sum := func(i, j int) reg.VecPhysical { return v.r(2*i + j) }
	dots := func(i, j int) reg.VecPhysical { return v.r(2*most + 2*i + j) }
	next := 4 * most
	two := func() []reg.VecPhysical { next += 2; return []reg.VecPhysical{v.r(next - 2), v.r(next - 1)} }
	bv, odd, av := two(), two(), two() // odd is of no use to VPDPBUSD
	ks := []reg.Register{reg.K1, reg.K2}

	n, mask := arg("n"), GP64()
	if v.wide() {
		MOVL(I32(-1), mask.As32())
		BZHIL(n.As32(), mask.As32(), mask.As32())
		columns(mask)
	} else {
		LEAQ(masks().Offset(4*32), mask)
		SHLQ(Imm(2), n)
		SUBQ(n, mask)
	}
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
			from := Mem{Base: cp, Disp: size * j}
			if v.wide() {
				VMOVUPS_Z(from, ks[j], sum(i, j))
			} else {
				VMOVUPS(Mem{Base: mask, Disp: size * j}, av[j])
				VMASKMOVPS(from, av[j], sum(i, j))
			}
		}
		if i < m-1 {
			ADDQ(ldc, cp)
		}
	}
	Label("start")
	k, rs, step, b, d, bs := arg("k"), arg("rs"), arg("ks"), arg("b"), arg("d"), arg("bs")
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
			VMOVUPS(Mem{Base: b, Disp: 128*s + size*j}, bv[j])
		}
		if v.dots {
			for i := range m {
				VPBROADCASTD(at(i, 4*s), av[i%2])
				for j := range vectors {
					VPDPBUSD(av[i%2], bv[j], dots(i, j))
				}
			}
			continue
		}
		// Bytes become words, those of even and of odd places by themselves, whose products in pairs are exact. (The
		// instruction for bytes, VPMADDUBSW, saturates.)
		for j := range vectors {
			VPSRLW(Imm(8), bv[j], odd[j])
			v.and(bits(0x00ff00ff), bv[j])
		}
		for i := range m {
			VPBROADCASTD(at(i, 4*s), av[0])
			for _, words := range [][]reg.VecPhysical{odd, bv} {
				VPSRAW(Imm(8), av[0], av[1])
				for j := range vectors {
					VPMADDWD(words[j], av[1], v.r(next))
					VPADDD(v.r(next), dots(i, j), dots(i, j))
				}
				if &words[0] == &odd[0] {
					VPSLLW(Imm(8), av[0], av[0])
				}
			}
		}
	}
	for j := range vectors {
		VCVTPH2PS(Mem{Base: d, Disp: size / 2 * j}, bv[j])
	}
	for i := range m {
		VBROADCASTSS(at(i, scaleA), av[0])
		for j := range vectors {
			VMULPS(bv[j], av[0], odd[j])
			VCVTDQ2PS(dots(i, j), dots(i, j))
			VFMADD231PS(odd[j], dots(i, j), sum(i, j))
		}
	}
	for _, p := range a {
		ADDQ(step, p)
	}
	ADDQ(bs, b)
	ADDQ(bs, d)
	SUBQ(Imm(1), k)
	JNZ(LabelRef("loop"))

	cp, ldc = arg("c"), arg("ldc")
	for j := range vectors {
		if !v.wide() {
			VMOVUPS(Mem{Base: mask, Disp: size * j}, av[j])
		}
	}
	for i := range m {
		for j := range vectors {
			to := Mem{Base: cp, Disp: size * j}
			if v.wide() {
				VMOVUPS(sum(i, j), ks[j], to)
			} else {
				VMASKMOVPS(sum(i, j), av[j], to)
			}
		}
		if i < m-1 {
			ADDQ(ldc, cp)
		}
	}
	done()
}

// and is x &= mask.
func (v isa) and(mask Mem, x reg.VecPhysical) {
	if v.wide() {
		VPANDD(mask, x, x)
	} else {
		VPAND(mask, x, x)
	}
}

// quantize holds a block in registers 0 …, two or four of them.
func (v isa) quantize() {
	v.text("quantize", "func(dst, x *float32, n int)", "quantizeGeneric.")
	dst, x, n := arg("dst"), arg("x"), arg("n")
	largest, t := GP32(), GP32()
	vectors, size := 32/v.w, 4*v.w
	const one, other, factor = 4, 5, 6
	lanes := func(op func(...Op)) { // to lane 0 of register one
		if v.wide() {
			VEXTRACTI64X4(Imm(1), zs[one], ys[other])
			op(ys[other], ys[one], ys[one])
		}
		VEXTRACTI128(Imm(1), ys[one], xs[other])
		op(xs[other], xs[one], xs[one])
		VPSHUFD(Imm(0x4e), xs[one], xs[other])
		op(xs[other], xs[one], xs[one])
		VPSHUFD(Imm(0xb1), xs[one], xs[other])
		op(xs[other], xs[one], xs[one])
	}
	Label("loop")
	mask := GP64()
	if v.wide() {
		MOVL(I32(-1), mask.As32())
		CMPQ(n, Imm(32))
		JGE(LabelRef("whole"))
		BZHIL(n.As32(), mask.As32(), mask.As32())
		Label("whole")
		columns(mask)
		VMOVUPS_Z(Mem{Base: x}, reg.K1, zs[0])
		VMOVUPS_Z(Mem{Base: x, Disp: 64}, reg.K2, zs[1])
	} else {
		use := GP64()
		MOVQ(U32(32), use)
		CMPQ(n, Imm(32))
		CMOVQLT(n, use)
		SHLQ(Imm(2), use)
		LEAQ(masks().Offset(4*32), mask)
		SUBQ(use, mask)
		for i := range vectors {
			VMOVUPS(Mem{Base: mask, Disp: size * i}, ys[other])
			VMASKMOVPS(Mem{Base: x, Disp: size * i}, ys[other], ys[i])
		}
	}
	for i := range vectors {
		to := v.r(one)
		if i > 0 {
			to = v.r(other)
		}
		VMOVUPS(v.r(i), to)
		v.and(bits(0x7fffffff), to)
		if i > 0 {
			VPMAXUD(to, v.r(one), v.r(one))
		}
	}
	lanes(VPMAXUD)
	VMOVD(xs[one], largest)
	CMPL(largest, U32(0x7f800000))
	JCC(LabelRef("infinite"))
	CMPL(largest, U32(0x03fe0000)) // 127·2⁻¹²⁶
	JCS(LabelRef("zeros"))
	VMOVSS(bits(0x42fe0000), xs[factor]) // 127
	VDIVSS(xs[factor], xs[one], xs[other])
	VMOVSS(xs[other], Mem{Base: dst, Disp: scaleA})
	VDIVSS(xs[one], xs[factor], xs[factor])
	VBROADCASTSS(xs[factor], v.r(factor))
	for i := range vectors {
		VMULPS(v.r(factor), v.r(i), v.r(i))
		VCVTPS2DQ(v.r(i), v.r(i))
	}
	VPADDD(v.r(1), v.r(0), v.r(one))
	for i := 2; i < vectors; i++ {
		VPADDD(v.r(i), v.r(one), v.r(one))
	}
	lanes(VPADDD)
	VPSLLD(Imm(7), xs[one], xs[one])
	VPXOR(xs[other], xs[other], xs[other])
	VPSUBD(xs[one], xs[other], xs[one])
	VMOVD(xs[one], Mem{Base: dst, Disp: minusA})
	if v.wide() {
		for i := range vectors {
			VPMOVSDB(zs[i], Mem{Base: dst, Disp: 16 * i})
		}
	} else { // packing keeps to the halves of registers; their parts are put in order after
		VPACKSSDW(ys[1], ys[0], ys[0])
		VPACKSSDW(ys[3], ys[2], ys[2])
		VPACKSSWB(ys[2], ys[0], ys[0])
		VMOVDQU(packedOrder(), ys[1])
		VPERMD(ys[0], ys[1], ys[0])
		VMOVDQU(ys[0], Mem{Base: dst})
	}
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

// packedOrder is where VPERMD finds the parts of four vectors whose halves were packed by themselves.
func packedOrder() Mem {
	m, ok := globals["packed_order"]
	if !ok {
		m = GLOBL("packed_order", attr.RODATA|attr.NOPTR)
		for i, from := range []uint32{0, 4, 1, 5, 2, 6, 3, 7} {
			DATA(4*i, U32(from))
		}
		globals["packed_order"] = m
	}
	return m
}

func (v isa) quantizedPeak() {
	v.text("peak", "func(n int)", "peakAVX512 for products of int8 by VPDPBUSD.")
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
