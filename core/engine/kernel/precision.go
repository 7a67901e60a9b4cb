package kernel

import "fmt"

// Precision says how the factors of a product with weights are rounded. Sums and everything else are float32.
type Precision uint8

const (
	Float32  Precision = iota // not at all
	BFloat16                  // as in [GemmBF16]
)

var precisions = [...]string{"float32", "bfloat16"}

func (p Precision) String() string { return precisions[p] }

// ParsePrecision returns the precision of a name; "auto" is bfloat16 where the CPU has instructions for it that
// are faster than those of float32, and float32 elsewhere.
func ParsePrecision(name string) (Precision, error) {
	if name == "auto" {
		if fastBF16() {
			return BFloat16, nil
		}
		return Float32, nil
	}
	for p, known := range precisions {
		if name == known {
			return Precision(p), nil
		}
	}
	return 0, fmt.Errorf("the precision is %q: want auto, float32 or bfloat16", name)
}

// Level names the first level whose results in this precision are the same bytes as those of [Level].
func (p Precision) Level() string {
	if p == BFloat16 && level >= bf16 {
		return bf16.String()
	}
	return min(level, avx512).String()
}

// Gemm is [Gemm] or [GemmBF16].
func (p Precision) Gemm(tA, tB bool, M, N, K int, a []float32, lda int, b []float32, ldb int, c []float32, ldc int, acc bool) {
	if p == BFloat16 {
		GemmBF16(tA, tB, M, N, K, a, lda, b, ldb, c, ldc, acc)
		return
	}
	Gemm(tA, tB, M, N, K, a, lda, b, ldb, c, ldc, acc)
}

// format is how factors are held.
func (p Precision) format() *format {
	if p == BFloat16 {
		return formatBF16()
	}
	return &float32s
}

// Pack is [Pack] or [PackBF16].
func (p Precision) Pack(to *Packed, b []float32, N, K, ldb int) {
	packAll(p.format(), false, Packing{to, b, N, K, ldb})
}

// PackTransposed is [PackTransposed] or [PackBF16Transposed].
func (p Precision) PackTransposed(to *Packed, b []float32, N, K, ldb int) {
	packAll(p.format(), true, Packing{to, b, N, K, ldb})
}

// PackAll is [Precision.Pack] of some matrices, up to 4, or [Precision.PackTransposed] of them, in one piece of work, so that
// threads meet once.
func (p Precision) PackAll(transposed bool, of ...Packing) { packAll(p.format(), transposed, of...) }
