package main

// The vector instructions on floating-point numbers that Go's assembler lacks, by their encodings in the Arm
// Architecture Reference Manual (DDI 0487, C7.2). Here the destination d comes first, as in the comments that stand
// beside the words; a test decodes the words and compares.

// word writes an instruction of registers d, n and m (in the bits 0, 5 and 16) whose other bits are code.
func word(code uint32, d, n, m int, comment string, args ...any) {
	line("WORD $0x%08x // "+comment, append([]any{code | uint32(m)<<16 | uint32(n)<<5 | uint32(d)}, args...)...)
}

func three(name, shape string, code uint32, d, n, m int) {
	word(code, d, n, m, "%s V%d.%s, V%d.%s, V%d.%s", name, d, shape, n, shape, m, shape)
}

func two(name, shape string, code uint32, d, n int) {
	word(code, d, n, 0, "%s V%d.%s, V%d.%s", name, d, shape, n, shape)
}

func fadd(d, n, m int)  { three("FADD", "4S", 0x4e20d400, d, n, m) }
func fsub(d, n, m int)  { three("FSUB", "4S", 0x4ea0d400, d, n, m) }
func fmul(d, n, m int)  { three("FMUL", "4S", 0x6e20dc00, d, n, m) }
func fdiv(d, n, m int)  { three("FDIV", "4S", 0x6e20fc00, d, n, m) }
func fmax(d, n, m int)  { three("FMAX", "4S", 0x4e20f400, d, n, m) } // NaN if one is
func fmin(d, n, m int)  { three("FMIN", "4S", 0x4ea0f400, d, n, m) } // NaN if one is
func faddp(d, n, m int) { three("FADDP", "4S", 0x6e20d400, d, n, m) }

// fmla0 is d += n·m[0], rounded once.
func fmla0(d, n, m int) { word(0x4f801000, d, n, m, "FMLA V%d.4S, V%d.4S, V%d.S[0]", d, n, m) }

func fneg(d, n int)   { two("FNEG", "4S", 0x6ea0f800, d, n) }
func frintn(d, n int) { two("FRINTN", "4S", 0x4e218800, d, n) }
func fcvtns(d, n int) { two("FCVTNS", "4S", 0x4e21a800, d, n) }

// fmaxv is the largest lane.
func fmaxv(d, n int) { word(0x6e30f800, d, n, 0, "FMAXV S%d, V%d.4S", d, n) }

// half is n/2 of integers, rounded down.
func half(d, n int) { word(0x4f3f0400, d, n, 0, "SSHR V%d.4S, V%d.4S, #1", d, n) }

// In float64: the lower and the upper two lanes of float32, sums.
func fcvtl(d, n int)      { word(0x0e617800, d, n, 0, "FCVTL V%d.2D, V%d.2S", d, n) }
func fcvtl2(d, n int)     { word(0x4e617800, d, n, 0, "FCVTL2 V%d.2D, V%d.4S", d, n) }
func fadd64(d, n, m int)  { three("FADD", "2D", 0x4e60d400, d, n, m) }
func faddp64(d, n, m int) { three("FADDP", "2D", 0x6e60d400, d, n, m) }

// Instructions that Go's assembler has, destination first as well.

// fmla and fmla64 are d += n·m, rounded once.
func fmla(d, n, m int)   { line("VFMLA V%d.S4, V%d.S4, V%d.S4", m, n, d) }
func fmla64(d, n, m int) { line("VFMLA V%d.D2, V%d.D2, V%d.D2", m, n, d) }

func move(d, n int)        { line("VMOV V%d.B16, V%d.B16", n, d) }
func zero(i int)           { line("VEOR V%d.B16, V%[1]d.B16, V%[1]d.B16", i) }
func lanes(d, n, lane int) { line("VDUP V%d.S[%d], V%d.S4", n, lane, d) }
