package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// tiles makes one kernel for each number of rows and of vectors, so that no edge is slow. A whole tile is two vectors
// wide and as many rows high as there are registers: 14×32 or 6×16.
func (v isa) tiles() {
	for m := 1; m <= v.most(); m++ {
		for vectors := 1; vectors <= 2; vectors++ {
			v.tile(m, vectors)
		}
	}
}

// ahead is how many steps of a packed panel are fetched before they are read.
const ahead = 32

func (v isa) tile(m, vectors int) {
	doc := "tileGeneric for m = %d with fused sums; strides are in bytes, n is at most %d."
	if v.pairs {
		doc = "tileGeneric for m = %d on pairs of bfloat16, which k counts; strides are in bytes, n is at most %d."
	}
	v.text(fmt.Sprintf("tile%dx%d", m, vectors*v.w), "func(k int, a *float32, rs, ks int, b *float32, bs int, c *float32, ldc, n, acc int)",
		fmt.Sprintf(doc, m, vectors*v.w))
	size := 4 * v.w
	sum := func(i, j int) reg.VecPhysical { return v.r(2*i + j) }
	bv := []reg.VecPhysical{v.r(2 * v.most()), v.r(2*v.most() + 1)}
	av := []reg.VecPhysical{v.r(2*v.most() + 2), v.r(2*v.most() + 3)}

	// Masks of the columns: K1 and K2, or mask (in memory) for the two vectors.
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
	ks := []reg.Register{reg.K1, reg.K2}
	read := func(from Mem, j int, to reg.VecPhysical) {
		from.Disp += size * j
		if v.wide() {
			VMOVUPS_Z(from, ks[j], to)
		} else {
			VMOVUPS(Mem{Base: mask, Disp: size * j}, av[j])
			VMASKMOVPS(from, av[j], to)
		}
	}

	acc := arg("acc")
	for i := range m {
		for j := range vectors {
			VXORPS(sum(i, j), sum(i, j), sum(i, j))
		}
	}
	TESTQ(acc, acc)
	JZ(LabelRef("start"))
	cp, ldc := arg("c"), arg("ldc")
	for i := range m {
		for j := range vectors {
			read(Mem{Base: cp}, j, sum(i, j))
		}
		if i < m-1 {
			ADDQ(ldc, cp)
		}
	}
	Label("start")
	k, rs, step, b, bs := arg("k"), arg("rs"), arg("ks"), arg("b"), arg("bs")
	a := []reg.GPVirtual{arg("a")} // one pointer for three rows
	for i := 3; i < m; i += 3 {
		p := GP64()
		LEAQ(Mem{Base: a[len(a)-1], Index: rs, Scale: 2}, p)
		ADDQ(rs, p)
		a = append(a, p)
	}
	loop := func(name string, read func(from Mem, j int, to reg.VecPhysical)) {
		Label(name)
		for j := range vectors {
			read(Mem{Base: b}, j, bv[j])
		}
		if v.wide() {
			for j := range vectors {
				PREFETCHT0(Mem{Base: b, Disp: ahead*2*size + size*j})
			}
		}
		ADDQ(bs, b)
		for i := range m {
			from := Mem{Base: a[i/3]}
			if i%3 > 0 {
				from.Index, from.Scale = rs, uint8(i%3)
			}
			VBROADCASTSS(from, av[i%2])
			for j := range vectors {
				if v.pairs {
					VDPBF16PS(bv[j], av[i%2], sum(i, j))
				} else {
					VFMADD231PS(bv[j], av[i%2], sum(i, j))
				}
			}
			if i%3 == 2 || i == m-1 {
				ADDQ(step, a[i/3])
			}
		}
		SUBQ(Imm(1), k)
		JNZ(LabelRef(name))
	}
	if v.wide() { // a mask costs a load one of the two units that multiply
		CMPQ(arg("n"), Imm(uint64(vectors*v.w)))
		JNE(LabelRef("loop"))
		loop("whole", func(from Mem, j int, to reg.VecPhysical) {
			from.Disp += size * j
			VMOVUPS(from, to)
		})
		JMP(LabelRef("store"))
	}
	loop("loop", read)
	Label("store")
	cp, ldc = arg("c"), arg("ldc")
	if !v.wide() {
		for j := range vectors {
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

// mostHeads is how many rows tileHeads has sums for.
const mostHeads = 8

// headsTiles makes a kernel for each number of heads.
func (v isa) headsTiles() {
	for heads := 1; heads <= mostHeads; heads++ {
		v.headsTile(heads)
	}
}

// headsTile multiplies a row of each of some heads with a matrix of its own. One row alone would wait for its sum at each
// step; those of several heads do not wait for one another.
func (v isa) headsTile(heads int) {
	v.text(fmt.Sprintf("heads%dx32", heads), "func(k int, a *float32, ah int, b *float32, bh, bs int, c *float32, ch, n, acc int)",
		fmt.Sprintf("tileHeadsGeneric for %d heads with fused sums; distances are in bytes, n is at most 32.", heads))
	sum := func(i, j int) reg.VecPhysical { return v.r(2*i + j) }
	bv := []reg.VecPhysical{v.r(2 * mostHeads), v.r(2*mostHeads + 1), v.r(2*mostHeads + 2), v.r(2*mostHeads + 3)}
	av := []reg.VecPhysical{v.r(2*mostHeads + 4), v.r(2*mostHeads + 5)}
	n, mask := arg("n"), GP64()
	MOVL(I32(-1), mask.As32())
	BZHIL(n.As32(), mask.As32(), mask.As32())
	columns(mask)
	ks := []reg.Register{reg.K1, reg.K2}
	acc := arg("acc")
	for i := range heads {
		for j := range 2 {
			VXORPS(sum(i, j), sum(i, j), sum(i, j))
		}
	}
	TESTQ(acc, acc)
	JZ(LabelRef("start"))
	cp, ch := arg("c"), arg("ch")
	for i := range heads {
		for j := range 2 {
			VMOVUPS_Z(Mem{Base: cp, Disp: 64 * j}, ks[j], sum(i, j))
		}
		if i < heads-1 {
			ADDQ(ch, cp)
		}
	}
	Label("start")
	// One pointer for three heads.
	threes := func(name, distance string) (p []reg.GPVirtual, each reg.GPVirtual) {
		each = arg(distance)
		p = []reg.GPVirtual{arg(name)}
		for i := 3; i < heads; i += 3 {
			next := GP64()
			LEAQ(Mem{Base: p[len(p)-1], Index: each, Scale: 2}, next)
			ADDQ(each, next)
			p = append(p, next)
		}
		return p, each
	}
	at := func(p []reg.GPVirtual, each reg.GPVirtual, i, disp int) Mem {
		m := Mem{Base: p[i/3], Disp: disp}
		if i%3 > 0 {
			m.Index, m.Scale = each, uint8(i%3)
		}
		return m
	}
	a, ah := threes("a", "ah")
	b, bh := threes("b", "bh")
	k, bs := arg("k"), arg("bs")
	Label("loop")
	for i := range heads {
		VBROADCASTSS(at(a, ah, i, 0), av[i%2])
		for j := range 2 {
			VMOVUPS_Z(at(b, bh, i, 64*j), ks[j], bv[i%2*2+j])
			VFMADD231PS(bv[i%2*2+j], av[i%2], sum(i, j))
		}
	}
	for _, p := range a {
		ADDQ(Imm(4), p)
	}
	for _, p := range b {
		ADDQ(bs, p)
	}
	SUBQ(Imm(1), k)
	JNZ(LabelRef("loop"))
	cp, ch = arg("c"), arg("ch")
	for i := range heads {
		for j := range 2 {
			VMOVUPS(sum(i, j), ks[j], Mem{Base: cp, Disp: 64 * j})
		}
		if i < heads-1 {
			ADDQ(ch, cp)
		}
	}
	done()
}

// columns makes the masks of two vectors, K1 and K2, from 32 bits, which it uses up.
func columns(mask reg.GPVirtual) {
	KMOVW(mask.As32(), reg.K1)
	SHRL(Imm(16), mask.As32())
	KMOVW(mask.As32(), reg.K2)
}

// most is the number of rows of the highest tile.
func (v isa) most() int {
	if v.wide() {
		return 14
	}
	return 6
}

// packTransposed works on blocks of w rows by w lanes. Whole blocks are read as they are; at an edge, masks keep the
// reads inside the matrix, and only the rows of dst that exist are written.
func (v isa) packTransposed() {
	doc := "for k := range kc { for i := range %d { dst[k*32+i] = i < n ? src[i*ld+k] : 0 } }; ld is in bytes, n may be 0 or less."
	each := 1 // numbers in a lane
	if v.pairs {
		doc = "for p := range (kc+1)/2 { for i := range %d { dst[p*32+i] = i < n ? pair(src[i*ld+2*p], src[i*ld+2*p+1]) : 0 } }, where the number after a row's last is 0; ld is in bytes, n may be 0 or less."
		each = 2
	}
	v.text("packTransposed", "func(dst, src *float32, ld, n, kc int)", fmt.Sprintf(doc, v.w))
	dst, src, ld, n, kc := arg("dst"), arg("src"), arg("ld"), arg("n"), arg("kc")
	p := GP64()
	Label("block")
	CMPQ(n, Imm(uint64(v.w)))
	JLT(LabelRef("edge"))
	CMPQ(kc, Imm(uint64(each*v.w)))
	JLT(LabelRef("edge"))
	MOVQ(src, p)
	for i := range v.w {
		if v.pairs {
			VMOVUPS(Mem{Base: p}, zs[16])
			VMOVUPS(Mem{Base: p, Disp: 64}, zs[17])
			VCVTNE2PS2BF16(zs[16], zs[17], zs[i])
		} else {
			VMOVUPS(Mem{Base: p}, v.r(i))
		}
		ADDQ(ld, p)
	}
	to := v.transposed()
	for i := range v.w {
		VMOVUPS(v.r(to[i]), Mem{Base: dst, Disp: 128 * i})
	}
	ADDQ(U32(uint32(128*v.w)), dst)
	ADDQ(U32(uint32(4*each*v.w)), src)
	SUBQ(Imm(uint64(each*v.w)), kc)
	JNZ(LabelRef("block"))
	JMP(LabelRef("end"))

	Label("edge")
	cols, none, use := GP64(), GP64(), GP64()
	if v.wide() {
		MOVL(I32(-1), cols.As32())
		CMPQ(kc, Imm(uint64(each*v.w)))
		JGE(LabelRef("masked"))
		BZHIQ(kc, cols, cols)
		Label("masked")
		XORQ(none, none)
	} else {
		LEAQ(masks().Offset(4*24), cols)
		LEAQ(masks().Offset(4*32), none)
		CMPQ(kc, Imm(8))
		JGE(LabelRef("masked"))
		MOVQ(kc, use)
		SHLQ(Imm(2), use)
		MOVQ(none, cols)
		SUBQ(use, cols)
		Label("masked")
	}
	MOVQ(src, p)
	for i := range v.w {
		MOVQ(cols, use)
		CMPQ(n, Imm(uint64(i)))
		CMOVQLE(none, use)
		switch {
		case v.pairs:
			columns(use)
			VMOVUPS_Z(Mem{Base: p}, reg.K1, zs[16])
			VMOVUPS_Z(Mem{Base: p, Disp: 64}, reg.K2, zs[17])
			VCVTNE2PS2BF16(zs[16], zs[17], zs[i])
		case v.wide():
			KMOVW(use.As32(), reg.K1)
			VMOVUPS_Z(Mem{Base: p}, reg.K1, v.r(i))
		default:
			VMOVUPS(Mem{Base: use}, v.r(i))
			VMASKMOVPS(Mem{Base: p}, v.r(i), v.r(i))
		}
		ADDQ(ld, p)
	}
	to = v.transposed()
	for i := range v.w {
		VMOVUPS(v.r(to[i]), Mem{Base: dst, Disp: 128 * i})
		SUBQ(Imm(uint64(each)), kc)
		JLE(LabelRef("end"))
	}
	ADDQ(U32(uint32(128*v.w)), dst)
	ADDQ(U32(uint32(4*each*v.w)), src)
	JMP(LabelRef("block"))
	Label("end")
	done()
}

// transposed transposes registers 0 … w−1 and returns where each row of the result is.
func (v isa) transposed() []int {
	if !v.wide() {
		for i := 0; i < 8; i += 2 {
			VUNPCKLPS(ys[i+1], ys[i], ys[8+i])
			VUNPCKHPS(ys[i+1], ys[i], ys[9+i])
		}
		for i := 0; i < 8; i += 4 {
			VUNPCKLPD(ys[8+i+2], ys[8+i], ys[i])
			VUNPCKHPD(ys[8+i+2], ys[8+i], ys[i+1])
			VUNPCKLPD(ys[8+i+3], ys[8+i+1], ys[i+2])
			VUNPCKHPD(ys[8+i+3], ys[8+i+1], ys[i+3])
		}
		for i := range 4 {
			VPERM2F128(Imm(0x20), ys[4+i], ys[i], ys[8+i])
			VPERM2F128(Imm(0x31), ys[4+i], ys[i], ys[12+i])
		}
		return []int{8, 9, 10, 11, 12, 13, 14, 15}
	}
	for i := 0; i < 16; i += 2 {
		VUNPCKLPS(zs[i+1], zs[i], zs[16+i])
		VUNPCKHPS(zs[i+1], zs[i], zs[17+i])
	}
	for i := 0; i < 16; i += 4 {
		VUNPCKLPD(zs[16+i+2], zs[16+i], zs[i])
		VUNPCKHPD(zs[16+i+2], zs[16+i], zs[i+1])
		VUNPCKLPD(zs[16+i+3], zs[16+i+1], zs[i+2])
		VUNPCKHPD(zs[16+i+3], zs[16+i+1], zs[i+3])
	}
	for j := range 4 { // 4×4 blocks of 128 bits, twice
		VSHUFF32X4(Imm(0x88), zs[4+j], zs[j], zs[16+4*j])
		VSHUFF32X4(Imm(0xdd), zs[4+j], zs[j], zs[17+4*j])
		VSHUFF32X4(Imm(0x88), zs[12+j], zs[8+j], zs[18+4*j])
		VSHUFF32X4(Imm(0xdd), zs[12+j], zs[8+j], zs[19+4*j])
	}
	for j := range 4 {
		VSHUFF32X4(Imm(0x88), zs[18+4*j], zs[16+4*j], zs[j])
		VSHUFF32X4(Imm(0xdd), zs[18+4*j], zs[16+4*j], zs[8+j])
		VSHUFF32X4(Imm(0x88), zs[19+4*j], zs[17+4*j], zs[4+j])
		VSHUFF32X4(Imm(0xdd), zs[19+4*j], zs[17+4*j], zs[12+j])
	}
	return []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
}

func (v isa) packRows() {
	v.text("packRows", "func(dst, src *float32, ld, n, kc int)", "packRowsGeneric; ld is in bytes.")
	dst, src, ld, n, kc := arg("dst"), arg("src"), arg("ld"), arg("n"), arg("kc")
	mask := GP64()
	if v.wide() {
		MOVL(I32(-1), mask.As32())
		BZHIL(n.As32(), mask.As32(), mask.As32())
		columns(mask)
	} else {
		LEAQ(masks().Offset(4*32), mask)
		SHLQ(Imm(2), n)
		SUBQ(n, mask)
		for i := range 4 {
			VMOVUPS(Mem{Base: mask, Disp: 32 * i}, ys[4+i])
		}
	}
	Label("loop")
	for i := range 32 / v.w {
		from := Mem{Base: src, Disp: 4 * v.w * i}
		if v.wide() {
			VMOVUPS_Z(from, []reg.Register{reg.K1, reg.K2}[i], v.r(i))
		} else {
			VMASKMOVPS(from, ys[4+i], v.r(i))
		}
	}
	for i := range 32 / v.w {
		VMOVUPS(v.r(i), Mem{Base: dst, Disp: 4 * v.w * i})
	}
	ADDQ(ld, src)
	ADDQ(U32(128), dst)
	SUBQ(Imm(1), kc)
	JNZ(LabelRef("loop"))
	done()
}
