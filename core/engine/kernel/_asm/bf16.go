package main

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// round rounds to bfloat16 and stays in float32, for the levels that have no instruction for it.
func (v isa) round() {
	v.text("round", "func(dst, src *float32, n int)", "for i := range n { dst[i] = RoundBF16(src[i]) }.")
	dst, src, n := arg("dst"), arg("src"), arg("n")
	const exponent, sign, quiet = 0x7f800000, 0x80000000, 0x00400000
	v.each(n, 1, func(at row, k int, tail bool) {
		x, y, t, u := v.r(0), v.r(1), v.r(2), v.r(3)
		at.load(src, k, tail, 0)
		VPSRLD(Imm(16), x, y)
		if v.wide() {
			VPANDD(bits(1), y, y)
			VPADDD(bits(0x7fff), y, y)
			VPADDD(x, y, y)
			VCMPPS(Imm(3), x, x, reg.K2)
			VPORD(bits(quiet), x, reg.K2, y) // NaN
			VPANDD(bits(0xffff0000), y, y)
			VPTESTNMD(bits(exponent), x, reg.K2)
			VPANDD(bits(sign), y, reg.K2, y) // 0 or denormal
		} else {
			VPAND(bits(1), y, y)
			VPADDD(bits(0x7fff), y, y)
			VPADDD(x, y, y)
			VCMPPS(Imm(3), x, x, t)
			VPOR(bits(quiet), x, u)
			VBLENDVPS(t, u, y, y)
			VPAND(bits(0xffff0000), y, y)
			VPAND(bits(exponent), x, t)
			VPXOR(u, u, u)
			VPCMPEQD(u, t, t)
			VPAND(bits(^uint32(sign)), t, t)
			VPANDN(y, t, y)
		}
		at.store(1, dst, k, tail)
	})
	done()
}

// pairRow works on 32 numbers at a time.
func (v isa) pairRow() {
	v.text("pairRow", "func(dst, src *float32, n int)",
		"for i := range (n+1)/2 { dst[i] = pair(src[2*i], src[2*i+1]) }, where the number after the last is 0.")
	dst, src, n := arg("dst"), arg("src"), arg("n")
	Label("loop")
	CMPQ(n, Imm(32))
	JLT(LabelRef("tail"))
	VMOVUPS(Mem{Base: src}, reg.Z0)
	VMOVUPS(Mem{Base: src, Disp: 64}, reg.Z1)
	VCVTNE2PS2BF16(reg.Z0, reg.Z1, reg.Z2)
	VMOVUPS(reg.Z2, Mem{Base: dst})
	ADDQ(U32(128), src)
	ADDQ(Imm(64), dst)
	SUBQ(Imm(32), n)
	JMP(LabelRef("loop"))
	Label("tail")
	TESTQ(n, n)
	JZ(LabelRef("end"))
	mask := GP32()
	MOVL(I32(-1), mask)
	BZHIL(n.As32(), mask, mask)
	columns(mask)
	VMOVUPS_Z(Mem{Base: src}, reg.K1, reg.Z0)
	VMOVUPS_Z(Mem{Base: src, Disp: 64}, reg.K2, reg.Z1)
	VCVTNE2PS2BF16(reg.Z0, reg.Z1, reg.Z2)
	ADDQ(Imm(1), n)
	SHRQ(Imm(1), n)
	MOVL(I32(-1), mask)
	BZHIL(n.As32(), mask, mask)
	KMOVW(mask, reg.K1)
	VMOVUPS(reg.Z2, reg.K1, Mem{Base: dst})
	Label("end")
	done()
}

// pairRows makes pairs of two neighbouring rows.
func (v isa) pairRows() {
	v.text("pairRows", "func(dst *float32, ds int, src *float32, ld, n, kc int)",
		"for p := range (kc+1)/2 { for j := range 32 { dst[p*ds+j] = pair(src[2*p*ld+j], src[(2*p+1)*ld+j]) } }, where the row after",
		"the last and the columns from n on are 0; ds and ld are in bytes.")
	dst, ds, src, ld, n, kc := arg("dst"), arg("ds"), arg("src"), arg("ld"), arg("n"), arg("kc")
	index := GLOBL("interleave", attr.RODATA|attr.NOPTR)
	for i := range 16 {
		DATA(4*i, U32(uint32(16+i)<<16|uint32(i)))
	}
	VMOVUPS(index, reg.Z31)
	mask := GP64()
	MOVL(I32(-1), mask.As32())
	BZHIL(n.As32(), mask.As32(), mask.As32())
	columns(mask)
	Label("loop")
	for row := range 2 {
		if row == 1 {
			v.zero(2)
			v.zero(3)
			CMPQ(kc, Imm(1))
			JEQ(LabelRef("last"))
		}
		VMOVUPS_Z(Mem{Base: src}, reg.K1, v.r(2*row))
		VMOVUPS_Z(Mem{Base: src, Disp: 64}, reg.K2, v.r(2*row+1))
		ADDQ(ld, src)
	}
	Label("last")
	for j := range 2 {
		VCVTNE2PS2BF16(v.r(j), v.r(2+j), v.r(4+j))
		VPERMW(v.r(4+j), reg.Z31, v.r(4+j))
		VMOVUPS(v.r(4+j), Mem{Base: dst, Disp: 64 * j})
	}
	ADDQ(ds, dst)
	SUBQ(Imm(2), kc)
	JG(LabelRef("loop"))
	done()
}
