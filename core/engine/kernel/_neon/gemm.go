package main

import "fmt"

// most is the number of rows of the highest tile. 6×16 holds 24 sums, 4 vectors of B and 4 numbers of A: all 32
// registers, and 10 loads for 24 multiplications.
const most = 6

// tiles makes a kernel for each number of rows, of one column, of up to two and of up to four vectors.
func tiles() {
	for m := 1; m <= most; m++ {
		column(m)
		tile(m, 2)
		tile(m, 4)
	}
}

const tileArgs = "func(k int, a *float32, rs, ks int, b *float32, bs int, c *float32, ldc, n int, acc bool)"

func tileText(m, width int, n string) {
	text(fmt.Sprintf("tile%dx%d", m, width), tileArgs,
		fmt.Sprintf("tileGeneric for m = %d with fused sums; strides are in bytes, n is %s.", m, n))
}

// rowsOfA points to the m rows of A.
func rowsOfA(m int) (a []string) {
	a, rs := []string{arg("a")}, arg("rs")
	for i := 1; i < m; i++ {
		a = append(a, register())
		line("ADD %s, %s, %s", rs, a[i-1], a[i])
	}
	return a
}

// tile is m rows by 4·vectors columns. Where n is less, vectors overlap: vector j begins at column min(4·j, n−4), so
// nothing outside the n columns is read or written, and a column that is computed twice is the same twice.
func tile(m, vectors int) {
	tileText(m, 4*vectors, fmt.Sprintf("4 … %d", 4*vectors))
	sum := func(i, j int) int { return vectors*i + j }
	b := func(j int) int { return 24 + j }
	number := func(i int) int { return 28 + i%4 }

	last := arg("n") // where the last vector begins, in bytes
	line("LSL $2, %s", last)
	line("SUB $16, %s", last)
	var p []string
	for range vectors {
		p = append(p, register())
	}
	columns := func(name string) {
		load(name, p[0])
		for j := 1; j < vectors; j++ {
			line("MOVD $%d, %s", 16*j, p[j])
			line("CMP %s, %s", p[j], last)
			line("CSEL LT, %s, %s, %[2]s", last, p[j])
			line("ADD %s, %s", p[0], p[j])
		}
	}

	acc, ldc := arg("acc"), arg("ldc")
	for i := range m * vectors {
		zero(i)
	}
	line("CBZ %s, start", acc)
	columns("c")
	for i := range m {
		for j := range vectors {
			line("VLD1.P (%s)(%s), [V%d.S4]", p[j], ldc, sum(i, j))
		}
	}
	mark("start")
	a := rowsOfA(m)
	k, ks, bs, at := arg("k"), arg("ks"), arg("bs"), register()
	columns("b")
	line("MOVD $0, %s", at)
	mark("loop")
	for j := range vectors {
		line("VLD1.P (%s)(%s), [V%d.S4]", p[j], bs, b(j))
	}
	for i := range m {
		line("FMOVS (%s)(%s), F%d", a[i], at, number(i))
		for j := range vectors {
			fmla0(sum(i, j), b(j), number(i))
		}
	}
	line("ADD %s, %s", ks, at)
	line("SUBS $1, %s", k)
	line("BNE loop")
	columns("c")
	for i := range m {
		for j := range vectors {
			line("VST1.P [V%d.S4], (%s)(%s)", sum(i, j), p[j], ldc)
		}
	}
	line("RET")
}

// column is m rows by one column, for what is narrower than a vector.
func column(m int) {
	tileText(m, 1, "1")
	acc, c, ldc := arg("acc"), arg("c"), arg("ldc")
	for i := range m {
		zero(i)
	}
	line("CBZ %s, start", acc)
	for i := range m {
		line("FMOVS (%s), F%d", c, i)
		line("ADD %s, %s", ldc, c)
	}
	mark("start")
	a := rowsOfA(m)
	k, ks, b, bs, at := arg("k"), arg("ks"), arg("b"), arg("bs"), register()
	line("MOVD $0, %s", at)
	mark("loop")
	line("FMOVS (%s), F24", b)
	line("ADD %s, %s", bs, b)
	for i := range m {
		line("FMOVS (%s)(%s), F%d", a[i], at, 28+i%4)
		line("FMADDS F24, F%d, F%d, F%[1]d", i, 28+i%4)
	}
	line("ADD %s, %s", ks, at)
	line("SUBS $1, %s", k)
	line("BNE loop")
	load("c", c)
	for i := range m {
		line("FMOVS F%d, (%s)", i, c)
		line("ADD %s, %s", ldc, c)
	}
	line("RET")
}

// packTransposed works on blocks of 4 rows by 4 columns; 4 rows by 1 column are left over. For rows that do not
// exist it reads the same four zeros again and again.
func packTransposed() {
	text("packTransposed", "func(dst, src *float32, ld, n, kc int)", "packTransposedGeneric; ld is in bytes.")
	dst, src, ld, n, kc := arg("dst"), arg("src"), arg("ld"), arg("n"), arg("kc")
	zeros, blocks, to, k := register(), register(), register(), register()
	var p, step []string
	for range 4 {
		p, step = append(p, register()), append(step, register())
	}
	line("MOVD $zeros<>(SB), %s", zeros)
	line("MOVD $8, %s", blocks)
	mark("rows")
	for i := range 4 {
		line("CMP $%d, %s", i, n)
		line("CSEL GT, %s, %s, %s", src, zeros, p[i])
		line("CSET GT, %s", step[i])
		line("LSL $2, %s", step[i])
		line("ADD %s, %s", ld, src)
	}
	line("MOVD %s, %s", dst, to)
	line("MOVD %s, %s", kc, k)
	mark("four")
	line("CMP $4, %s", k)
	line("BLT one")
	for i := range 4 {
		line("VLD1 (%s), [V%d.S4]", p[i], i)
		line("ADD %s<<2, %s", step[i], p[i])
	}
	for i := 0; i < 4; i += 2 { // pairs of rows
		line("VTRN1 V%d.S4, V%d.S4, V%d.S4", i+1, i, 4+i)
		line("VTRN2 V%d.S4, V%d.S4, V%d.S4", i+1, i, 5+i)
	}
	for i := range 2 { // pairs of pairs
		line("VZIP1 V%d.D2, V%d.D2, V%d.D2", 6+i, 4+i, i)
		line("VZIP2 V%d.D2, V%d.D2, V%d.D2", 6+i, 4+i, 2+i)
	}
	for i := range 4 {
		line("FMOVQ F%d, %d(%s)", i, 128*i, to)
	}
	line("ADD $512, %s", to)
	line("SUB $4, %s", k)
	line("B four")
	mark("one")
	line("CBZ %s, end", k)
	for i := range 4 {
		line("VLD1.P (%s)(%s), V0.S[%d]", p[i], step[i], i)
	}
	line("FMOVQ F0, (%s)", to)
	line("ADD $128, %s", to)
	line("SUB $1, %s", k)
	line("B one")
	mark("end")
	line("ADD $16, %s", dst)
	line("SUB $4, %s", n)
	line("SUBS $1, %s", blocks)
	line("BNE rows")
	line("RET")
}
