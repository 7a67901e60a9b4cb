package main

import (
	"fmt"
	"math"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// isa is what two instruction sets share, so that a kernel's body is written once. Vector registers are physical and
// numbered by the kernel's author, 0 … 14; number 15 holds the tail's mask on AVX2. General registers are virtual.
type isa struct {
	name  string
	w     int  // lanes
	pairs bool // a lane holds two bfloat16, neighbours along k
	dots  bool // has VPDPBUSD
}

var (
	xs = []reg.VecPhysical{reg.X0, reg.X1, reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7, reg.X8, reg.X9, reg.X10, reg.X11, reg.X12, reg.X13, reg.X14, reg.X15}
	ys = []reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3, reg.Y4, reg.Y5, reg.Y6, reg.Y7, reg.Y8, reg.Y9, reg.Y10, reg.Y11, reg.Y12, reg.Y13, reg.Y14, reg.Y15}
	zs = []reg.VecPhysical{reg.Z0, reg.Z1, reg.Z2, reg.Z3, reg.Z4, reg.Z5, reg.Z6, reg.Z7, reg.Z8, reg.Z9, reg.Z10, reg.Z11, reg.Z12, reg.Z13, reg.Z14, reg.Z15, reg.Z16, reg.Z17, reg.Z18, reg.Z19, reg.Z20, reg.Z21, reg.Z22, reg.Z23, reg.Z24, reg.Z25, reg.Z26, reg.Z27, reg.Z28, reg.Z29, reg.Z30, reg.Z31}
)

func (v isa) wide() bool { return v.w == 16 }

func (v isa) r(i int) reg.VecPhysical {
	if v.wide() {
		return zs[i]
	}
	return ys[i]
}

// labels are unique in a function; n counts them.
var labels int

func label(name string) string { labels++; return fmt.Sprintf("%s%d", name, labels) }

// text begins a function whose doc, beside the declaration, is the loop that it equals.
func (v isa) text(name, signature string, doc ...string) {
	kept = map[uint32]reg.VecPhysical{}
	TEXT(name+v.name, NOSPLIT, signature)
	doc[0] = name + v.name + " is " + doc[0]
	Doc(append(doc, "n and rows are at least 1.")...)
	Pragma("noescape")
}

func arg(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

// spread broadcasts a float32 argument into register i.
func (v isa) spread(name string, i int) {
	p, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(p.Addr, v.r(i))
}

func (v isa) zero(i int) { VXORPS(v.r(i), v.r(i), v.r(i)) }

// done ends the function.
func done() { VZEROUPPER(); RET() }

// constants

var globals = map[string]Mem{}

// bits is 64 bytes of the same 32 bits, in memory.
func bits(x uint32) Mem {
	name := fmt.Sprintf("bits_%08x", x)
	m, ok := globals[name]
	if !ok {
		m = GLOBL(name, attr.RODATA|attr.NOPTR)
		for i := range 16 {
			DATA(4*i, U32(x))
		}
		globals[name] = m
	}
	return m
}

// kept are the constants that the function at hand holds in registers.
var kept map[uint32]reg.VecPhysical

// keep holds constants in registers 31, 30, …, if there are so many; else they stay in memory.
func (v isa) keep(constants ...float64) {
	for _, x := range constants {
		if v.wide() {
			b := math.Float32bits(float32(x))
			m := bits(b)
			kept[b] = zs[31-len(kept)]
			VMOVUPS(m, kept[b])
		}
	}
}

// c is the constant x in all lanes, in a register if it is kept and in memory if not: a first operand.
func c(x float64) Op {
	b := math.Float32bits(float32(x))
	if r, ok := kept[b]; ok {
		return r
	}
	return bits(b)
}

// masks is 32 lanes of ones, then 32 of zeros.
func masks() Mem {
	m, ok := globals["masks"]
	if !ok {
		m = GLOBL("masks", attr.RODATA|attr.NOPTR)
		for i := range 64 {
			DATA(4*i, U32(^uint32(0)*uint32((63-i)/32)))
		}
		globals["masks"] = m
	}
	return m
}

// loops over a row

// row is a loop over n elements of rows in memory; i is the index of the vector at hand.
type row struct {
	v isa
	i reg.GPVirtual
}

// each calls body for u vectors at a time, then for one at a time, then for a masked one. k is the vector's number
// among the u: kernels that sum use the k-th accumulator. n is kept.
func (v isa) each(n reg.Register, u int, body func(at row, k int, tail bool)) {
	at := row{v, GP64()}
	rest := GP64()
	XORQ(at.i, at.i)
	MOVQ(n, rest)
	v.steps(at, rest, u, body)
}

// from is each, from index i on; rest elements remain. Both are used up.
func (v isa) steps(at row, rest reg.GPVirtual, u int, body func(at row, k int, tail bool)) {
	counts := []int{u, 1}
	if u == 1 {
		counts = counts[:1]
	}
	for _, c := range counts {
		head, next := label("loop"), label("next")
		Label(head)
		CMPQ(rest, U32(uint32(c*v.w)))
		JLT(LabelRef(next))
		for k := range c {
			body(at, k, false)
		}
		ADDQ(U32(uint32(c*v.w)), at.i)
		SUBQ(U32(uint32(c*v.w)), rest)
		JMP(LabelRef(head))
		Label(next)
	}
	end := label("end")
	TESTQ(rest, rest)
	JLE(LabelRef(end))
	v.mask(rest)
	body(at, 0, true)
	Label(end)
}

// mask makes the tail's mask for n lanes, 0 < n < w.
func (v isa) mask(n reg.GPVirtual) {
	t := GP64()
	if v.wide() {
		MOVQ(U32(0xffff), t)
		BZHIQ(n, t, t)
		KMOVW(t.As32(), reg.K1)
		return
	}
	LEAQ(masks().Offset(4*32), t)
	m := GP64()
	MOVQ(n, m)
	SHLQ(Imm(2), m)
	SUBQ(m, t)
	VMOVUPS(Mem{Base: t}, reg.Y15)
}

func (at row) mem(p reg.Register, k int) Mem {
	return Mem{Base: p, Index: at.i, Scale: 4, Disp: 4 * at.v.w * k}
}

// load reads vector k of p into register i; a tail's other lanes become 0.
func (at row) load(p reg.Register, k int, tail bool, i int) {
	m := at.mem(p, k)
	switch {
	case !tail:
		VMOVUPS(m, at.v.r(i))
	case at.v.wide():
		VMOVUPS_Z(m, reg.K1, at.v.r(i))
	default:
		VMASKMOVPS(m, reg.Y15, at.v.r(i))
	}
}

func (at row) store(i int, p reg.Register, k int, tail bool) {
	m := at.mem(p, k)
	switch {
	case !tail:
		VMOVUPS(at.v.r(i), m)
	case at.v.wide():
		VMOVUPS(at.v.r(i), reg.K1, m)
	default:
		VMASKMOVPS(at.v.r(i), reg.Y15, m)
	}
}

// only zeroes the lanes outside a tail.
func (v isa) only(i int, tail bool) {
	switch {
	case !tail:
	case v.wide():
		VMOVAPS_Z(v.r(i), reg.K1, v.r(i))
	default:
		VANDPS(reg.Y15, v.r(i), v.r(i))
	}
}

// across reduces u neighbouring registers from a on, and then their lanes, to lane 0 of register a. t is overwritten.
func (v isa) across(op func(...Op), a, u, t int) {
	for ; u > 1; u /= 2 {
		for k := range u / 2 {
			op(v.r(a+u/2+k), v.r(a+k), v.r(a+k))
		}
	}
	if v.wide() {
		VEXTRACTF32X8(Imm(1), zs[a], ys[t])
		op(ys[t], ys[a], ys[a])
	}
	VEXTRACTF128(Imm(1), ys[a], xs[t])
	op(xs[t], xs[a], xs[a])
	VPERMILPS(Imm(0x4e), xs[a], xs[t])
	op(xs[t], xs[a], xs[a])
	VPERMILPS(Imm(0xb1), xs[a], xs[t])
	op(xs[t], xs[a], xs[a])
}
