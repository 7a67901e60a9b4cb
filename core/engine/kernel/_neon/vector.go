package main

import (
	"fmt"
	"math"
)

// The polynomial of the Cephes library, as in _asm: exp(x) = 2ⁿ·(1 + r + r²·P(r)), n = round(x·log₂e),
// r = x − n·ln 2 in two parts. Above 89.5 it is +Inf, below −104.5 it is 0.
var expConstants = [12]float64{
	1.44269504088896341, -0.693359375, 2.12194440e-4, 89.5, -104.5, 1,
	1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
}

// The registers of the constants.
const (
	log2e = 20 + iota
	ln2hi
	ln2lo
	expMax
	expMin
	one
	poly // to the last
)

// constants are data, each in all four lanes.
func constants() {
	fmt.Fprintln(asm)
	data := func(name string, values ...float64) {
		for i, x := range values {
			for lane := range 4 {
				fmt.Fprintf(asm, "DATA %s<>+%d(SB)/4, $0x%08x\n", name, 16*i+4*lane, math.Float32bits(float32(x)))
			}
		}
		fmt.Fprintf(asm, "GLOBL %s<>(SB), RODATA|NOPTR, $%d\n", name, 16*len(values))
	}
	data("zeros", 0)
	data("exp", expConstants[:]...)
	data("gelu", geluConstants[:]...)
}

// keepExp loads the constants of exp into registers 20 … 31.
func keepExp() {
	p := register()
	line("MOVD $exp<>(SB), %s", p)
	for i := log2e; i <= 31; i += 4 {
		line("VLD1.P 64(%s), [V%d.S4, V%d.S4, V%d.S4, V%d.S4]", p, i, i+1, i+2, i+3)
	}
}

// exp replaces register x by its exponential, in the steps of _asm. n, p and t are overwritten.
func exp(x, n, p, t int) {
	fmin(x, x, expMax) // a NaN stays
	fmax(x, x, expMin)
	fmul(n, x, log2e)
	frintn(n, n)
	fmla(x, n, ln2hi)
	fmla(x, n, ln2lo)
	move(p, poly)
	for a := poly + 1; a <= 31; a++ {
		move(t, a)
		fmla(t, p, x)
		p, t = t, p
	}
	fmul(p, p, x)
	move(t, x)
	fmla(t, p, x)
	fadd(x, t, one)
	// 2ⁿ in two factors that are both normal, so that the result is rounded once.
	fcvtns(n, n)
	half(t, n)
	line("VSUB V%d.S4, V%d.S4, V%[2]d.S4", t, n)
	for _, i := range []int{t, n} {
		line("VSHL $23, V%d.S4, V%[1]d.S4", i)
		line("VADD V%d.S4, V%d.S4, V%[2]d.S4", one, i) // the exponent of 1 is 0
		fmul(x, x, i)
	}
}

func expShift() {
	text("expShift", "func(dst, x *float32, n int, sub, scale float32) float32",
		"for i := range n { dst[i] = exp((x[i]-sub)*scale); sum += dst[i] }; return sum.")
	dst, x, n := arg("dst"), arg("x"), arg("n")
	keepExp()
	spread("sub", 8)
	spread("scale", 9)
	zero(4)
	each(n, 2, func(at row) {
		at.load(x, 0)
		fsub(0, 0, 8)
		fmul(0, 0, 9)
		exp(0, 1, 2, 3)
		at.store(0, dst)
		at.only(0)
		fadd(4, 4, 0)
	})
	across(faddp, 4)
	result("FMOVS", 4)
	line("RET")
}

func sumExp() {
	text("sumExp", "func(x *float32, n int, sub float32) float32", "for i := range n { sum += exp(x[i]-sub) }; return sum.")
	x, n := arg("x"), arg("n")
	keepExp()
	spread("sub", 8)
	zero(4)
	each(n, 2, func(at row) {
		at.load(x, 0)
		fsub(0, 0, 8)
		exp(0, 1, 2, 3)
		at.only(0)
		fadd(4, 4, 0)
	})
	across(faddp, 4)
	result("FMOVS", 4)
	line("RET")
}

// across adds the lanes of register i by pairs, to lane 0.
func across(faddp func(d, n, m int), i int) {
	faddp(i, i, i)
	faddp(i, i, i)
}

// four adds the registers 5 … 7 to register 4.
func four(op func(d, n, m int)) {
	op(4, 4, 6)
	op(5, 5, 7)
	op(4, 4, 5)
}

func maximum() {
	text("maximum", "func(x *float32, n int) float32", "m = x[0]; for i := range n { m = max(m, x[i]) }; return m: NaN if one is.")
	x, n := arg("x"), arg("n")
	line("VLD1R (%s), [V4.S4]", x)
	for k := 5; k < 8; k++ {
		move(k, 4)
	}
	each(n, 4, func(at row) {
		at.load(x, 0)
		if at.last {
			lanes(0, 0, 0)
		}
		fmax(4+at.k, 4+at.k, 0)
	})
	four(fmax)
	fmaxv(4, 4)
	result("FMOVS", 4)
	line("RET")
}

// sigmoid puts 1/(1+exp(−register z)) into register s; 8 … 10 are overwritten.
func sigmoid(z, s int) {
	fneg(s, z)
	exp(s, 8, 9, 10)
	fadd(s, s, one)
	fdiv(s, one, s)
}

// The registers of GELU's constants.
const (
	gelu1 = 16 + iota // u(z) = z·(gelu1 + gelu3·z²), as in gated.go
	gelu3
	gelu9 // 3·gelu3: z·u'(z) = z·(gelu1 + gelu9·z²)
)

var geluConstants = [3]float64{1.5957691216057308, 0.07135481627260025, 3 * 0.07135481627260025}

func keepGELU() {
	p := register()
	line("MOVD $gelu<>(SB), %s", p)
	line("VLD1 (%s), [V%d.S4, V%d.S4, V%d.S4]", p, gelu1, gelu3, gelu9)
}

// cubic puts z·(gelu1 + a·z²) into register u; square holds z².
func cubic(z, square, u, a int) {
	move(u, gelu1)
	fmla(u, square, a)
	fmul(u, u, z)
}

func swiGLU() { gated("swiGLU", false) }
func geGLU()  { gated("geGLU", true) }

func gated(name string, gelu bool) {
	text(name, "func(y, gate, up *float32, n int)", name+"Generic.")
	y, gate, up, n := arg("y"), arg("gate"), arg("up"), arg("n")
	keepExp()
	z := 0 // the register of the sigmoid's argument
	if gelu {
		keepGELU()
		z = 4
	}
	each(n, 2, func(at row) {
		at.load(gate, 0)
		at.load(up, 1)
		if gelu {
			fmul(3, 0, 0)
			cubic(0, 3, z, gelu3)
		}
		sigmoid(z, 2)
		fmul(0, 0, 2)
		fmul(0, 0, 1)
		at.store(0, y)
	})
	line("RET")
}

func swiGLUBackward() { gatedBackward("swiGLUBackward", false) }
func geGLUBackward()  { gatedBackward("geGLUBackward", true) }

func gatedBackward(name string, gelu bool) {
	text(name, "func(dgate, dup, dy, gate, up *float32, n int)", name+"Generic.")
	dgate, dup, dy, gate, up, n := arg("dgate"), arg("dup"), arg("dy"), arg("gate"), arg("up"), arg("n")
	keepExp()
	z, by := 0, 0 // the registers of the sigmoid's argument u, and of gate·u'
	if gelu {
		keepGELU()
		z, by = 11, 7
	}
	each(n, 2, func(at row) {
		at.load(gate, 0)
		at.load(up, 1)
		at.load(dy, 3)
		if gelu {
			fmul(4, 0, 0)
			cubic(0, 4, z, gelu3)
			cubic(0, 4, by, gelu9)
		}
		sigmoid(z, 2)
		fmul(4, 0, 2) // z·σ
		fmul(4, 4, 3)
		fmul(1, 1, 3) // dy·up
		fsub(6, one, 2)
		move(5, one)
		fmla(5, by, 6) // 1 + gate·u'·(1−σ)
		fmul(5, 5, 2)
		fmul(1, 1, 5)
		at.store(4, dup)
		at.store(1, dgate)
	})
	line("RET")
}

func dot() {
	text("dot", "func(x, y *float32, n int) float32", "for i := range n { sum += x[i]*y[i] }; return sum.")
	x, y, n := arg("x"), arg("y"), arg("n")
	for k := range 4 {
		zero(4 + k)
	}
	each(n, 4, func(at row) {
		at.load(x, 0)
		at.load(y, 1)
		fmla(4+at.k, 0, 1)
	})
	four(fadd)
	across(faddp, 4)
	result("FMOVS", 4)
	line("RET")
}

func axpy() {
	text("axpy", "func(a float32, x, y *float32, n int)", "for i := range n { y[i] += a*x[i] }.")
	x, y, n := arg("x"), arg("y"), arg("n")
	spread("a", 2)
	each(n, 4, func(at row) {
		at.load(x, 0)
		at.load(y, 1)
		fmla(1, 0, 2)
		at.store(1, y)
	})
	line("RET")
}

func scale() {
	text("scale", "func(x *float32, n int, a float32)", "for i := range n { x[i] *= a }.")
	x, n := arg("x"), arg("n")
	spread("a", 1)
	each(n, 4, func(at row) {
		at.load(x, 0)
		fmul(0, 0, 1)
		at.store(0, x)
	})
	line("RET")
}

func add() {
	text("add", "func(dst, x, y *float32, n int)", "for i := range n { dst[i] = x[i] + y[i] }.")
	dst, x, y, n := arg("dst"), arg("x"), arg("y"), arg("n")
	each(n, 4, func(at row) {
		at.load(x, 0)
		at.load(y, 1)
		fadd(0, 0, 1)
		at.store(0, dst)
	})
	line("RET")
}

func sumSquares() {
	text("sumSquares", "func(x *float32, n int) float64", "for i := range n { sum += float64(x[i])*float64(x[i]) }; return sum.")
	x, n := arg("x"), arg("n")
	for k := range 8 {
		zero(4 + k)
	}
	each(n, 4, func(at row) {
		at.load(x, 0)
		fcvtl2(1, 0)
		fcvtl(0, 0)
		fmla64(4+2*at.k, 0, 0)
		fmla64(5+2*at.k, 1, 1)
	})
	for k := range 4 {
		fadd64(4+k, 4+k, 8+k)
	}
	four(fadd64)
	faddp64(4, 4, 4)
	result("FMOVD", 4)
	line("RET")
}

func peak() {
	text("peak", "func(n int)", "for range n { 48 independent vector FMAs }: what the core can do at most.")
	n := arg("n")
	for i := range 26 {
		zero(i)
	}
	mark("loop")
	for i := range 48 {
		fmla(i%24, 24, 25)
	}
	line("SUBS $1, %s", n)
	line("BNE loop")
	line("RET")
}
