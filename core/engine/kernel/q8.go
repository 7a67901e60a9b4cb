package kernel

import "math"

// Q8_0, as in llama.cpp: blocks of 32 numbers along k, each an int8 times the block's scale. In a product both sides are
// so; a block's sum of products is an integer, exact, and the sums of the blocks are float32, added in the order of k.
const (
	blockQ8    = 32
	perSlot    = 4                  // int8 in the room of a float32
	slotsQ8    = blockQ8 / perSlot  // of a block
	rowQ8      = slotsQ8 + 2        // a block of A: the numbers, the scale, and minus 128 times the sum of the numbers
	panelQ8    = slotsQ8*panel + 16 // a block of 32 rows of B: the numbers plus 128, unsigned; 32 scales, float16
	smallestQ8 = 127 * 0x1p-126     // below, a block's scale would be denormal: it is all zeros
)

// quantized is blocks of int8. The instruction VPDPBUSD multiplies unsigned by signed bytes: B is stored plus 128, and A
// brings what is to be taken away again.
var quantized = format{group: blockQ8, stepA: rowQ8, stepB: panelQ8, tileRows: tileRowsQ8, tile: tileQ8,
	packTransposed: func(dst, src []float32, ld, n, kc int) {
		s := borrow()
		defer s.giveBack()
		blocks := (kc + blockQ8 - 1) / blockQ8
		row := s.part(0, blocks*rowQ8)
		clear(dst)
		for j := range n {
			quantize(row, src[j*ld:j*ld+kc])
			for z := range blocks {
				from, to := row[z*rowQ8:], dst[z*panelQ8:(z+1)*panelQ8]
				for p := range slotsQ8 {
					to[p*panel+j] = math.Float32frombits(math.Float32bits(from[p]) ^ 0x80808080)
				}
				half := &to[slotsQ8*panel+j/2]
				*half = math.Float32frombits(math.Float32bits(*half) | uint32(float16(from[slotsQ8]))<<(j%2*16))
			}
		}
	},
	copyRows: func(dst []float32, ds int, src []float32, ld, rows, kc int) {
		for i := range rows {
			quantize(dst[i*ds:], src[i*ld:i*ld+kc])
		}
	},
}

// PackQ8 is [Pack] for weights held as Q8_0: each block of 32 along k becomes int8, round(x·127/max|x|) with halves to
// the even one, and the scale max|x|/127, rounded to float16. That is 1/4 of Pack's memory and a little. K need not be a
// multiple of 32.
//
// [GemmPacked] on p makes the same of the rows of A, but for the scale, which stays float32. It then is, with
// q the int8 and d the scales,
//
//	for z := range (K+31)/32 {
//		s = fma(float32(Σ qA(i,k)·qB(k,j) over the block), dA(i,z)*dB(z,j), s)
//	}
//
// and promises what Gemm does. The sums in a block are exact and the others fused and in one order, so that all levels from
// "avx2" on give the same bytes; the Go loop, which "generic" and "neon" have, is slow and differs seldom, in the last bits.
// With AVX-512 VNNI the instruction VPDPBUSD makes the sums of a block, without it VPMADDWD of the numbers as int16, which
// takes three to four times as long unless the weights come from memory.
//
// The scale's range is that of float16: weights above 8.3e6 become infinite, blocks of weights below 3.8e-6 become 0, and
// those below 0.0078 lose accuracy. A number that is not finite makes its row of A, or of the weights, NaN.
func PackQ8(p *Packed, b []float32, N, K, ldb int) {
	packAll(&quantized, false, Packing{p, b, N, K, ldb})
}

// quantizeGeneric is one row: for each block the numbers, the scale and minus 128 times the sum of the numbers.
func quantizeGeneric(dst, x []float32) {
	for z := 0; len(x) > 0; z++ {
		block := x[:min(blockQ8, len(x))]
		x = x[len(block):]
		to := dst[z*rowQ8 : (z+1)*rowQ8]
		clear(to)
		var top uint32 // the bits of a positive float32 are in its order, and those of NaN are above all
		for _, v := range block {
			top = max(top, math.Float32bits(v)&^(1<<31))
		}
		largest := math.Float32frombits(top)
		if top >= 0x7f800000 {
			to[slotsQ8] = float32(math.NaN())
			continue
		}
		if largest < smallestQ8 {
			continue
		}
		inverse, sum := 127/largest, 0
		for i, v := range block {
			q := int(math.RoundToEven(float64(v * inverse)))
			sum += q
			slot := &to[i/perSlot]
			*slot = math.Float32frombits(math.Float32bits(*slot) | uint32(uint8(q))<<(i%perSlot*8))
		}
		to[slotsQ8] = largest / 127
		to[slotsQ8+1] = math.Float32frombits(uint32(int32(-128 * sum)))
	}
}

func tileQ8Generic(m, n, steps int, a []float32, rs, ks int, b []float32, bs int, c []float32, ldc int, acc bool) {
	for i := range m {
		ci := c[i*ldc : i*ldc+n]
		if !acc {
			clear(ci)
		}
		for z := range steps {
			block, weights := a[i*rs+z*ks:], b[z*bs:]
			for j := range ci {
				sum := int32(math.Float32bits(block[slotsQ8+1]))
				for p := range slotsQ8 {
					u, v := math.Float32bits(block[p]), math.Float32bits(weights[p*panel+j])
					for range perSlot {
						sum += int32(int8(u)) * int32(uint8(v))
						u, v = u>>8, v>>8
					}
				}
				// The product is exact in float64, the sum is rounded to it and again: nearly a fused one.
				d := block[slotsQ8] * scaleQ8(weights, j)
				ci[j] = float32(float64(sum)*float64(d) + float64(ci[j]))
			}
		}
	}
}

// scaleQ8 is the scale of row j in a block of a panel.
func scaleQ8(weights []float32, j int) float32 {
	return fromFloat16(uint16(math.Float32bits(weights[slotsQ8*panel+j/2]) >> (j % 2 * 16)))
}

// float16 rounds to the nearest number of 11 significant bits, to the even one of two.
func float16(x float32) uint16 {
	u := math.Float32bits(x)
	sign, u := uint16(u>>16)&0x8000, u&^(1<<31)
	switch {
	case u > 0x7f800000:
		return sign | 0x7e00 // NaN
	case u >= 0x477ff000:
		return sign | 0x7c00 // 65520 and more: Inf
	case u < 0x38800000: // below 2⁻¹⁴ it is denormal, a multiple of 2⁻²⁴, as are float32 from 1/2 to 1
		return sign | uint16(math.Float32bits(math.Float32frombits(u)+0.5)-math.Float32bits(0.5))
	}
	return sign | uint16((u+0xfff+u>>13&1-112<<23)>>13)
}

func fromFloat16(h uint16) float32 {
	sign, exponent, fraction := uint32(h&0x8000)<<16, uint32(h>>10&31), uint32(h&0x3ff)
	switch exponent {
	case 0:
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*0x1p-24))
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}
