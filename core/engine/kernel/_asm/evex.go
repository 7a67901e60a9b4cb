package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// evex writes an instruction that neither avo nor Go's assembler knows as its bytes: a 512-bit one of the opcode map
// 0F38 on three registers, named in Go's order (the destination last). prefix is 2 for F3, 3 for F2.
// Source: Intel's Software Developer's Manual, volume 2, section 2.7, "Intel AVX-512 encoding".
func evex(name string, prefix, opcode byte, rm, vvvv, dst reg.VecPhysical) {
	number := func(r reg.VecPhysical) byte { return byte(r.PhysicalIndex()) }
	m, v, d := number(rm), number(vvvv), number(dst)
	not := func(x byte, bit int) byte { return ^x >> bit & 1 } // the prefix holds these bits inverted
	p0 := not(d, 3)<<7 | not(m, 4)<<6 | not(m, 3)<<5 | not(d, 4)<<4 | 2
	p1 := (^v&15)<<3 | 1<<2 | prefix
	p2 := byte(2<<5) | not(v, 4)<<3
	modrm := 3<<6 | d&7<<3 | m&7
	Comment(fmt.Sprintf("%s %s, %s, %s", name, rm.Asm(), vvvv.Asm(), dst.Asm()))
	Instruction(&ir.Instruction{Opcode: "LONG", Operands: []Op{U32(0x62 | uint32(p0)<<8 | uint32(p1)<<16 | uint32(p2)<<24)}})
	Instruction(&ir.Instruction{Opcode: "WORD", Operands: []Op{U16(uint16(opcode) | uint16(modrm)<<8)}})
}

// VDPBF16PS adds to each lane of d the two products of the pairs of bfloat16 in a and b.
func VDPBF16PS(b, a, d reg.VecPhysical) { evex("VDPBF16PS", 2, 0x52, b, a, d) }

// VCVTNE2PS2BF16 rounds the 32 numbers of low and high to bfloat16, those of low first.
func VCVTNE2PS2BF16(low, high, d reg.VecPhysical) { evex("VCVTNE2PS2BF16", 3, 0x72, low, high, d) }
