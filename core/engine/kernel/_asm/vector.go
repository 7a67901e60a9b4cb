package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func pause() {
	TEXT("pauseAsm", NOSPLIT, "func(n int)")
	Doc("pauseAsm is for range n { PAUSE }: it gives the other half of the core, and the bus, a rest.")
	n := arg("n")
	Label("loop")
	PAUSE()
	SUBQ(Imm(1), n)
	JNZ(LabelRef("loop"))
	RET()
}

func vendor() {
	TEXT("vendorAsm", NOSPLIT, "func() (b, d, c uint32)")
	Doc("vendorAsm is what CPUID's leaf 0 has of the maker's name.")
	XORL(reg.EAX, reg.EAX)
	XORL(reg.ECX, reg.ECX)
	CPUID()
	for i, r := range []reg.Register{reg.EBX, reg.EDX, reg.ECX} {
		Store(r, ReturnIndex(i))
	}
	RET()
}

func (v isa) dot() {
	v.text("dot", "func(x, y *float32, n int) float32", "for i := range n { sum += x[i]*y[i] }; return sum.")
	x, y, n := arg("x"), arg("y"), arg("n")
	for k := range 4 {
		v.zero(4 + k)
	}
	v.each(n, 4, func(at row, k int, tail bool) {
		at.load(x, k, tail, 0)
		at.load(y, k, tail, 1)
		VFMADD231PS(v.r(1), v.r(0), v.r(4+k))
	})
	v.across(VADDPS, 4, 4, 0)
	Store(reg.X4, ReturnIndex(0))
	done()
}

func (v isa) axpy() {
	v.text("axpy", "func(a float32, x, y *float32, n int)", "for i := range n { y[i] += a*x[i] }.")
	x, y, n := arg("x"), arg("y"), arg("n")
	v.spread("a", 2)
	v.each(n, 4, func(at row, k int, tail bool) {
		at.load(x, k, tail, 0)
		at.load(y, k, tail, 1)
		VFMADD231PS(v.r(0), v.r(2), v.r(1))
		at.store(1, y, k, tail)
	})
	done()
}

func (v isa) scale() {
	v.text("scale", "func(x *float32, n int, a float32)", "for i := range n { x[i] *= a }.")
	x, n := arg("x"), arg("n")
	v.spread("a", 1)
	v.each(n, 4, func(at row, k int, tail bool) {
		at.load(x, k, tail, 0)
		VMULPS(v.r(1), v.r(0), v.r(0))
		at.store(0, x, k, tail)
	})
	done()
}

func (v isa) add() {
	v.text("add", "func(dst, x, y *float32, n int)", "for i := range n { dst[i] = x[i] + y[i] }.")
	dst, x, y, n := arg("dst"), arg("x"), arg("y"), arg("n")
	v.each(n, 4, func(at row, k int, tail bool) {
		at.load(x, k, tail, 0)
		at.load(y, k, tail, 1)
		VADDPS(v.r(1), v.r(0), v.r(0))
		at.store(0, dst, k, tail)
	})
	done()
}

func (v isa) sumSquares() {
	v.text("sumSquares", "func(x *float32, n int) float64", "for i := range n { sum += float64(x[i])*float64(x[i]) }; return sum.")
	x, n := arg("x"), arg("n")
	for k := range 8 {
		v.zero(4 + k)
	}
	v.each(n, 4, func(at row, k int, tail bool) {
		at.load(x, k, tail, 0)
		if v.wide() {
			VEXTRACTF32X8(Imm(1), reg.Z0, reg.Y1)
			VCVTPS2PD(reg.Y0, reg.Z0)
			VCVTPS2PD(reg.Y1, reg.Z1)
		} else {
			VEXTRACTF128(Imm(1), reg.Y0, reg.X1)
			VCVTPS2PD(reg.X0, reg.Y0)
			VCVTPS2PD(reg.X1, reg.Y1)
		}
		VFMADD231PD(v.r(0), v.r(0), v.r(4+2*k))
		VFMADD231PD(v.r(1), v.r(1), v.r(5+2*k))
	})
	for u := 4; u > 0; u /= 2 {
		for k := range u {
			VADDPD(v.r(4+u+k), v.r(4+k), v.r(4+k))
		}
	}
	if v.wide() {
		VEXTRACTF64X4(Imm(1), reg.Z4, reg.Y0)
		VADDPD(reg.Y0, reg.Y4, reg.Y4)
	}
	VEXTRACTF128(Imm(1), reg.Y4, reg.X0)
	VADDPD(reg.X0, reg.X4, reg.X4)
	VPERMILPD(Imm(1), reg.X4, reg.X0)
	VADDPD(reg.X0, reg.X4, reg.X4)
	Store(reg.X4, ReturnIndex(0))
	done()
}

func (v isa) rmsNorm() {
	v.text("rmsNorm", "func(y, rstd, x, w *float32, rows, d int, eps float32)", "rmsNormGeneric.")
	y, rstd, x, w, rows, d := arg("y"), arg("rstd"), arg("x"), arg("w"), arg("rows"), arg("d")
	eps := Load(Param("eps"), XMM()).(reg.VecVirtual)
	VMOVSS(eps, eps, reg.X13)
	Label("row")
	for k := range 4 {
		v.zero(4 + k)
	}
	v.each(d, 4, func(at row, k int, tail bool) {
		at.load(x, k, tail, 0)
		VFMADD231PS(v.r(0), v.r(0), v.r(4+k))
	})
	v.across(VADDPS, 4, 4, 0)
	VCVTSI2SSQ(d, reg.X0, reg.X0)
	VDIVSS(reg.X0, reg.X4, reg.X4)
	VADDSS(reg.X13, reg.X4, reg.X4)
	VSQRTSS(reg.X4, reg.X4, reg.X4)
	v.one(0)
	VDIVSS(reg.X4, reg.X0, reg.X4)
	VMOVSS(reg.X4, Mem{Base: rstd})
	VBROADCASTSS(reg.X4, v.r(4))
	v.each(d, 4, func(at row, k int, tail bool) {
		at.load(x, k, tail, 0)
		at.load(w, k, tail, 1)
		VMULPS(v.r(4), v.r(0), v.r(0))
		VMULPS(v.r(1), v.r(0), v.r(0))
		at.store(0, y, k, tail)
	})
	LEAQ(Mem{Base: x, Index: d, Scale: 4}, x)
	LEAQ(Mem{Base: y, Index: d, Scale: 4}, y)
	ADDQ(Imm(4), rstd)
	SUBQ(Imm(1), rows)
	JNZ(LabelRef("row"))
	done()
}

func (v isa) rmsNormBackward() {
	v.text("rmsNormBackward", "func(dx, dw, dy, x, w, rstd *float32, rows, d int, addDX bool)", "rmsNormBackwardGeneric.")
	dx, dw, dy, x, w, rstd, d := arg("dx"), arg("dw"), arg("dy"), arg("x"), arg("w"), arg("rstd"), arg("d")
	rows := arg("rows")
	Label("row")
	for k := range 4 {
		v.zero(4 + k)
	}
	v.each(d, 4, func(at row, k int, tail bool) {
		at.load(x, k, tail, 0)
		at.load(dy, k, tail, 1)
		at.load(w, k, tail, 2)
		VMULPS(v.r(2), v.r(1), v.r(1))
		VFMADD231PS(v.r(1), v.r(0), v.r(4+k))
	})
	v.across(VADDPS, 4, 4, 0)
	VMOVSS(Mem{Base: rstd}, reg.X0)
	VMULSS(reg.X0, reg.X0, reg.X1)
	VMULSS(reg.X0, reg.X1, reg.X1)
	VMULSS(reg.X4, reg.X1, reg.X1)
	VCVTSI2SSQ(d, reg.X2, reg.X2)
	VDIVSS(reg.X2, reg.X1, reg.X1)
	VBROADCASTSS(reg.X0, v.r(4)) // rstd
	VBROADCASTSS(reg.X1, v.r(5)) // rstd³·Σ/d
	v.each(d, 1, func(at row, k int, tail bool) {
		frozen, set := label("frozen"), label("set")
		at.load(x, k, tail, 0)
		at.load(dy, k, tail, 1)
		at.load(w, k, tail, 2)
		TESTQ(dw, dw)
		JZ(LabelRef(frozen))
		VMULPS(v.r(4), v.r(0), v.r(6))
		at.load(dw, k, tail, 7)
		VFMADD231PS(v.r(6), v.r(1), v.r(7))
		at.store(7, dw, k, tail)
		Label(frozen)
		VMULPS(v.r(2), v.r(1), v.r(1))
		VMULPS(v.r(4), v.r(1), v.r(1))
		VFNMADD231PS(v.r(5), v.r(0), v.r(1))
		a, err := Param("addDX").Resolve()
		if err != nil {
			panic(err)
		}
		CMPB(a.Addr, Imm(0))
		JEQ(LabelRef(set))
		at.load(dx, k, tail, 7)
		VADDPS(v.r(7), v.r(1), v.r(1))
		Label(set)
		at.store(1, dx, k, tail)
	})
	for _, p := range []reg.GPVirtual{dx, dy, x} {
		LEAQ(Mem{Base: p, Index: d, Scale: 4}, p)
	}
	ADDQ(Imm(4), rstd)
	SUBQ(Imm(1), rows)
	JNZ(LabelRef("row"))
	done()
}

// sigmoid puts 1/(1+exp(−register z)) into register s; 8 … 10 are overwritten.
func (v isa) sigmoid(z, s int) {
	v.zero(s)
	VSUBPS(v.r(z), v.r(s), v.r(s))
	v.exp(s, 8, 9, 10)
	VADDPS(c(1), v.r(s), v.r(s))
	VMOVUPS(c(1), v.r(8))
	VDIVPS(v.r(s), v.r(8), v.r(s))
}

// u(z) = z·(gelu1 + gelu3·z²) and z·u'(z) = z·(gelu1 + 3·gelu3·z²), as in gated.go.
const (
	gelu1 = 1.5957691216057308
	gelu3 = 0.07135481627260025
)

// cubic puts z·(gelu1 + a·z²) into register u; square holds z².
func (v isa) cubic(z, square, u int, a float64) {
	VMOVUPS(c(a), v.r(u))
	VFMADD213PS(c(gelu1), v.r(square), v.r(u))
	VMULPS(v.r(z), v.r(u), v.r(u))
}

func (v isa) swiGLU() { v.gated("swiGLU", false) }
func (v isa) geGLU()  { v.gated("geGLU", true) }

func (v isa) gated(name string, gelu bool) {
	v.text(name, "func(y, gate, up *float32, n int)", name+"Generic.")
	y, gate, up, n := arg("y"), arg("gate"), arg("up"), arg("n")
	v.keepExp()
	z := 0 // the register of the sigmoid's argument
	if gelu {
		v.keep(gelu1, gelu3)
		z = 4
	}
	v.each(n, 2, func(at row, k int, tail bool) {
		at.load(gate, k, tail, 0)
		at.load(up, k, tail, 1)
		if gelu {
			VMULPS(v.r(0), v.r(0), v.r(3))
			v.cubic(0, 3, 4, gelu3)
		}
		v.sigmoid(z, 2)
		VMULPS(v.r(2), v.r(0), v.r(0))
		VMULPS(v.r(1), v.r(0), v.r(0))
		at.store(0, y, k, tail)
	})
	done()
}

func (v isa) swiGLUBackward() { v.gatedBackward("swiGLUBackward", false) }
func (v isa) geGLUBackward()  { v.gatedBackward("geGLUBackward", true) }

func (v isa) gatedBackward(name string, gelu bool) {
	v.text(name, "func(dgate, dup, dy, gate, up *float32, n int)", name+"Generic.")
	dgate, dup, dy, gate, up, n := arg("dgate"), arg("dup"), arg("dy"), arg("gate"), arg("up"), arg("n")
	v.keepExp()
	z, by := 0, 0 // the registers of the sigmoid's argument u, and of gate·u'
	if gelu {
		v.keep(gelu1, gelu3, 3*gelu3)
		z, by = 11, 7
	}
	v.each(n, 2, func(at row, k int, tail bool) {
		at.load(gate, k, tail, 0)
		at.load(up, k, tail, 1)
		at.load(dy, k, tail, 3)
		if gelu {
			VMULPS(v.r(0), v.r(0), v.r(4))
			v.cubic(0, 4, z, gelu3)
			v.cubic(0, 4, by, 3*gelu3)
		}
		v.sigmoid(z, 2)
		VMULPS(v.r(2), v.r(0), v.r(4)) // z·σ
		VMULPS(v.r(3), v.r(4), v.r(4))
		VMULPS(v.r(3), v.r(1), v.r(1)) // dy·up
		VMOVUPS(c(1), v.r(5))
		VSUBPS(v.r(2), v.r(5), v.r(6))       // 1−σ
		VFMADD213PS(v.r(5), v.r(by), v.r(6)) // 1 + gate·u'·(1−σ)
		VMULPS(v.r(2), v.r(6), v.r(6))
		VMULPS(v.r(6), v.r(1), v.r(1))
		at.store(4, dup, k, tail)
		at.store(1, dgate, k, tail)
	})
	done()
}

func (v isa) rotate() {
	v.text("rotate", "func(x, cos, sin *float32, heads, half int, sign float32)", "rotateGeneric; sign is −1 for the inverse.")
	x, cos, sin, heads, half := arg("x"), arg("cos"), arg("sin"), arg("heads"), arg("half")
	v.spread("sign", 6)
	y := GP64()
	LEAQ(Mem{Base: x, Index: half, Scale: 4}, y)
	Label("head")
	v.each(half, 1, func(at row, k int, tail bool) {
		at.load(x, k, tail, 0)
		at.load(y, k, tail, 1)
		at.load(cos, k, tail, 2)
		at.load(sin, k, tail, 3)
		VMULPS(v.r(6), v.r(3), v.r(3))
		VMULPS(v.r(1), v.r(3), v.r(4))
		VFMSUB231PS(v.r(0), v.r(2), v.r(4)) // x·cos − y·sin
		VMULPS(v.r(0), v.r(3), v.r(5))
		VFMADD231PS(v.r(1), v.r(2), v.r(5)) // y·cos + x·sin
		at.store(4, x, k, tail)
		at.store(5, y, k, tail)
	})
	LEAQ(Mem{Base: x, Index: half, Scale: 8}, x)
	LEAQ(Mem{Base: y, Index: half, Scale: 8}, y)
	SUBQ(Imm(1), heads)
	JNZ(LabelRef("head"))
	done()
}

func (v isa) adamW() {
	v.text("adamW", "func(w, grad, m, v *float32, n int, c *float32)", "adamWGeneric; c are the fields of adamConstants.")
	w, g, m, u, n, cp := arg("w"), arg("grad"), arg("m"), arg("v"), arg("n"), arg("c")
	const gradScale, beta1, rest1, beta2, rest2, keep, step, root2, eps = 0, 4, 8, 12, 16, 20, 24, 28, 32
	for i, disp := range []int{gradScale, beta1, rest1, beta2, rest2, keep, step, root2, eps} {
		VBROADCASTSS(Mem{Base: cp, Disp: disp}, v.r(6+i))
	}
	v.each(n, 2, func(at row, k int, tail bool) {
		at.load(g, k, tail, 0)
		VMULPS(v.r(6), v.r(0), v.r(0))
		at.load(m, k, tail, 1)
		VMULPS(v.r(7), v.r(1), v.r(1))
		VFMADD231PS(v.r(8), v.r(0), v.r(1))
		at.store(1, m, k, tail)
		VMULPS(v.r(0), v.r(0), v.r(0))
		at.load(u, k, tail, 2)
		VMULPS(v.r(9), v.r(2), v.r(2))
		VFMADD231PS(v.r(10), v.r(0), v.r(2))
		at.store(2, u, k, tail)
		VSQRTPS(v.r(2), v.r(2))
		VFMADD213PS(v.r(14), v.r(13), v.r(2)) // sqrt(v)·root2 + eps
		VMULPS(v.r(12), v.r(1), v.r(1))
		VDIVPS(v.r(2), v.r(1), v.r(1))
		at.load(w, k, tail, 0)
		VFMSUB132PS(v.r(11), v.r(1), v.r(0)) // w·keep − …
		at.store(0, w, k, tail)
		v.zero(0)
		at.store(0, g, k, tail)
	})
	done()
}

func (v isa) peak() {
	v.text("peak", "func(n int)", "for range n { 48 independent vector FMAs }: what the core can do at most.")
	n := arg("n")
	for i := range 14 {
		v.zero(i)
	}
	Label("loop")
	for i := range 48 {
		if v.pairs {
			VDPBF16PS(v.r(13), v.r(12), v.r(i%12))
		} else {
			VFMADD231PS(v.r(13), v.r(12), v.r(i%12))
		}
	}
	SUBQ(Imm(1), n)
	JNZ(LabelRef("loop"))
	done()
}
