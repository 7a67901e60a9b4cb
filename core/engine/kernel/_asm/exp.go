package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The polynomial of the Cephes library: exp(x) = 2ⁿ·(1 + r + r²·P(r)), n = round(x·log₂e), r = x − n·ln 2 in two parts.
const (
	log2e  = 1.44269504088896341
	ln2hi  = -0.693359375
	ln2lo  = 2.12194440e-4
	expMax = 89.5   // above, +Inf
	expMin = -104.5 // below, 0
)

var poly = []float64{1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1}

func (v isa) keepExp() {
	v.keep(append([]float64{log2e, ln2hi, ln2lo, expMax, expMin, 1}, poly...)...)
}

// exp replaces register x by its exponential. n, p and t are overwritten.
func (v isa) exp(x, n, p, t int) {
	rx, rn, rp, rt := v.r(x), v.r(n), v.r(p), v.r(t)
	VMOVUPS(c(expMax), rt)
	VMINPS(rx, rt, rx) // in this order a NaN stays
	VMOVUPS(c(expMin), rt)
	VMAXPS(rx, rt, rx)
	VMULPS(c(log2e), rx, rn)
	if v.wide() {
		VRNDSCALEPS(Imm(8), rn, rn)
	} else {
		VROUNDPS(Imm(8), rn, rn)
	}
	VFMADD231PS(c(ln2hi), rn, rx)
	VFMADD231PS(c(ln2lo), rn, rx)
	VMOVUPS(c(poly[0]), rp)
	for _, a := range poly[1:] {
		VFMADD213PS(c(a), rx, rp)
	}
	VMULPS(rx, rp, rp)
	VFMADD213PS(rx, rx, rp)
	VADDPS(c(1), rp, rx)
	if v.wide() {
		VSCALEFPS(rn, rx, rx)
		return
	}
	// 2ⁿ in two factors that are both normal, so that the result is rounded once.
	VCVTPS2DQ(rn, rn)
	VPSRAD(Imm(1), rn, rt)
	VPSUBD(rt, rn, rn)
	for _, r := range []reg.VecPhysical{rt, rn} {
		VPADDD(bits(127), r, r)
		VPSLLD(Imm(23), r, r)
		VMULPS(r, rx, rx)
	}
}

func (v isa) expShift() {
	v.text("expShift", "func(dst, x *float32, n int, sub, scale float32) float32",
		"for i := range n { dst[i] = exp((x[i]-sub)*scale); sum += dst[i] }; return sum.")
	dst, x, n := arg("dst"), arg("x"), arg("n")
	v.keepExp()
	v.spread("sub", 8)
	v.spread("scale", 9)
	v.zero(4)
	v.expSum(dst, x, n)
	v.across(VADDPS, 4, 1, 0)
	Store(reg.X4, ReturnIndex(0))
	done()
}

// expSum is dst = exp((x − register 8)·register 9), summed by lanes into register 4, which is set by the caller.
func (v isa) expSum(dst, x, n reg.Register) {
	v.each(n, 2, func(at row, k int, tail bool) {
		at.load(x, k, tail, 0)
		VSUBPS(v.r(8), v.r(0), v.r(0))
		VMULPS(v.r(9), v.r(0), v.r(0))
		v.exp(0, 1, 2, 3)
		at.store(0, dst, k, tail)
		v.only(0, tail)
		VADDPS(v.r(0), v.r(4), v.r(4))
	})
}

func (v isa) sumExp() {
	v.text("sumExp", "func(x *float32, n int, sub float32) float32",
		"for i := range n { sum += exp(x[i]-sub) }; return sum.")
	x, n := arg("x"), arg("n")
	v.keepExp()
	v.spread("sub", 8)
	v.zero(4)
	v.each(n, 2, func(at row, k int, tail bool) {
		at.load(x, k, tail, 0)
		VSUBPS(v.r(8), v.r(0), v.r(0))
		v.exp(0, 1, 2, 3)
		v.only(0, tail)
		VADDPS(v.r(0), v.r(4), v.r(4))
	})
	v.across(VADDPS, 4, 1, 0)
	Store(reg.X4, ReturnIndex(0))
	done()
}

func (v isa) maximum() {
	v.text("maximum", "func(x *float32, n int) float32", "m = x[0]; for i := range n { m = max(m, x[i]) }; return m. A NaN may be passed over.")
	x, n := arg("x"), arg("n")
	v.max(x, n)
	Store(reg.X4, ReturnIndex(0))
	done()
}

// max leaves the largest of x in lane 0 of register 4; 0 and 5 … 7 are overwritten.
func (v isa) max(x, n reg.Register) {
	VBROADCASTSS(Mem{Base: x}, v.r(4))
	for k := 5; k < 8; k++ {
		VMOVAPS(v.r(4), v.r(k))
	}
	v.each(n, 4, func(at row, k int, tail bool) {
		switch {
		case !tail:
			VMAXPS(at.mem(x, k), v.r(4+k), v.r(4+k))
		case v.wide():
			VMAXPS(at.mem(x, k), v.r(4), reg.K1, v.r(4))
		default:
			at.load(x, k, true, 0)
			VBLENDVPS(reg.Y15, reg.Y0, reg.Y4, reg.Y0)
			VMAXPS(reg.Y0, reg.Y4, reg.Y4)
		}
	})
	v.across(VMAXPS, 4, 4, 0)
}

func (v isa) softmaxRows() {
	v.text("softmaxRows", "func(p *float32, ld, rows, n0, step, width int, scale float32, stats *float32)", "softmaxRowsGeneric.")
	p, ld, rows, n, stats := arg("p"), arg("ld"), arg("rows"), arg("n0"), arg("stats")
	SHLQ(Imm(2), ld)
	v.keepExp()
	v.spread("scale", 9)
	Label("row")
	v.max(p, n)
	VMOVSS(reg.X4, Mem{Base: stats})
	VBROADCASTSS(reg.X4, v.r(8))
	v.zero(4)
	v.expSum(p, p, n)
	v.across(VADDPS, 4, 1, 0)
	v.one(0)
	VDIVSS(reg.X4, reg.X0, reg.X4)
	VMOVSS(reg.X4, Mem{Base: stats, Disp: 4})
	v.clear(n, p)
	ADDQ(ld, p)
	ADDQ(Imm(8), stats)
	step := arg("step")
	ADDQ(step, n)
	SUBQ(Imm(1), rows)
	JNZ(LabelRef("row"))
	done()
}

// one puts 1 in lane 0 of register i.
func (v isa) one(i int) { VMOVSS(bits(math.Float32bits(1)), xs[i]) }

// clear zeroes each of the rows from element n on to the argument width. Register 0 is overwritten.
func (v isa) clear(n reg.Register, rows ...reg.Register) {
	at, rest := row{v, GP64()}, GP64()
	Load(Param("width"), rest)
	MOVQ(n, at.i)
	SUBQ(n, rest)
	v.zero(0)
	v.steps(at, rest, 1, func(at row, k int, tail bool) {
		for _, r := range rows {
			at.store(0, r, k, tail)
		}
	})
}

func (v isa) softmaxBackwardRows() {
	v.text("softmaxBackwardRows", "func(p, dp *float32, ld, rows, n0, step, width int, scale float32, stats *float32)", "softmaxBackwardRowsGeneric.")
	p, dp, ld, rows, n, stats := arg("p"), arg("dp"), arg("ld"), arg("rows"), arg("n0"), arg("stats")
	SHLQ(Imm(2), ld)
	v.keepExp()
	v.spread("scale", 9)
	Label("row")
	VBROADCASTSS(Mem{Base: stats}, v.r(8))
	VBROADCASTSS(Mem{Base: stats, Disp: 4}, v.r(10))
	v.zero(4)
	v.each(n, 2, func(at row, k int, tail bool) {
		at.load(p, k, tail, 0)
		VSUBPS(v.r(8), v.r(0), v.r(0))
		VMULPS(v.r(9), v.r(0), v.r(0))
		v.exp(0, 1, 2, 3)
		VMULPS(v.r(10), v.r(0), v.r(0))
		at.store(0, p, k, tail)
		at.load(dp, k, tail, 1) // zero outside the tail
		VFMADD231PS(v.r(1), v.r(0), v.r(4))
	})
	v.across(VADDPS, 4, 1, 0)
	VBROADCASTSS(reg.X4, v.r(4))
	v.each(n, 2, func(at row, k int, tail bool) {
		at.load(dp, k, tail, 0)
		at.load(p, k, tail, 1)
		VSUBPS(v.r(4), v.r(0), v.r(0))
		VMULPS(v.r(9), v.r(0), v.r(0))
		VMULPS(v.r(1), v.r(0), v.r(0))
		at.store(0, dp, k, tail)
	})
	v.clear(n, p, dp)
	ADDQ(ld, p)
	ADDQ(ld, dp)
	ADDQ(Imm(8), stats)
	step := arg("step")
	ADDQ(step, n)
	SUBQ(Imm(1), rows)
	JNZ(LabelRef("row"))
	done()
}

func (v isa) scaleRows() {
	v.text("scaleRows", "func(x *float32, ld, rows, n int, stats *float32)", "scaleRowsGeneric.")
	x, ld, rows, n, stats := arg("x"), arg("ld"), arg("rows"), arg("n"), arg("stats")
	SHLQ(Imm(2), ld)
	Label("row")
	VBROADCASTSS(Mem{Base: stats, Disp: 4}, v.r(1))
	v.each(n, 1, func(at row, k int, tail bool) {
		at.load(x, k, tail, 0)
		VMULPS(v.r(1), v.r(0), v.r(0))
		at.store(0, x, k, tail)
	})
	ADDQ(ld, x)
	ADDQ(Imm(8), stats)
	SUBQ(Imm(1), rows)
	JNZ(LabelRef("row"))
	done()
}
