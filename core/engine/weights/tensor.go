package weights

import (
	"encoding/binary"
	"fmt"
	"math"
)

// DType is the type of a tensor's numbers, spelled as safetensors does.
type DType string

// The types that are read. Only F32, F16 and BF16 are written.
const (
	F64  DType = "F64"
	F32  DType = "F32"
	F16  DType = "F16"
	BF16 DType = "BF16"
	I64  DType = "I64"
	I32  DType = "I32"
	I16  DType = "I16"
	I8   DType = "I8"
	U8   DType = "U8"
	Bool DType = "BOOL"
)

// Size returns the bytes of one number, 0 for a type that is not read.
func (t DType) Size() int {
	switch t {
	case F64, I64:
		return 8
	case F32, I32:
		return 4
	case F16, BF16, I16:
		return 2
	case I8, U8, Bool:
		return 1
	}
	return 0
}

// Tensor is a named array of an open [File], row-major. A shape without dimensions is one number; a
// dimension of 0 is a tensor without any.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	data  []byte // little endian, in the file's own memory
}

// Len returns how many numbers the tensor has.
func (t Tensor) Len() int {
	if t.DType.Size() == 0 {
		return 0 // the zero Tensor
	}
	return len(t.data) / t.DType.Size()
}

// Float32s converts the tensor to float32 in dst, or in a new slice where dst is too short, and
// returns the slice of [Tensor.Len] numbers. F16 and BF16 convert exactly, F64 to the nearest.
//
// Errors: the tensor holds integers; use [Tensor.Int64s].
func (t Tensor) Float32s(dst []float32) ([]float32, error) {
	n := t.Len()
	if cap(dst) < n {
		dst = make([]float32, n)
	}
	dst = dst[:n]
	b := t.data
	switch t.DType {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16)
		}
	case F16:
		for i := range dst {
			dst[i] = fromHalf(binary.LittleEndian.Uint16(b[2*i:]))
		}
	case F64:
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:])))
		}
	default:
		return nil, fmt.Errorf("read tensor %q as float32: it holds %s", t.Name, t.DType)
	}
	return dst, nil
}

// Int64s converts a tensor of integers, with true as 1, to int64 in dst, or in a new slice where dst
// is too short, and returns the slice of [Tensor.Len] numbers.
//
// Errors: the tensor holds floating-point numbers; use [Tensor.Float32s].
func (t Tensor) Int64s(dst []int64) ([]int64, error) {
	n := t.Len()
	if cap(dst) < n {
		dst = make([]int64, n)
	}
	dst = dst[:n]
	b := t.data
	switch t.DType {
	case I64:
		for i := range dst {
			dst[i] = int64(binary.LittleEndian.Uint64(b[8*i:]))
		}
	case I32:
		for i := range dst {
			dst[i] = int64(int32(binary.LittleEndian.Uint32(b[4*i:])))
		}
	case I16:
		for i := range dst {
			dst[i] = int64(int16(binary.LittleEndian.Uint16(b[2*i:])))
		}
	case I8:
		for i := range dst {
			dst[i] = int64(int8(b[i]))
		}
	case U8:
		for i := range dst {
			dst[i] = int64(b[i])
		}
	case Bool:
		for i := range dst {
			dst[i] = int64(min(b[i], 1))
		}
	default:
		return nil, fmt.Errorf("read tensor %q as integers: it holds %s", t.Name, t.DType)
	}
	return dst, nil
}

// fromHalf widens an IEEE 754 half: 1 bit of sign, 5 of exponent (bias 15), 10 of fraction.
func fromHalf(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exponent, fraction := uint32(h>>10)&0x1f, uint32(h)&0x3ff
	switch exponent {
	case 0: // zero, or fraction·2⁻²⁴: exact in float32
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*0x1p-24))
	case 0x1f: // infinity, or not a number with its payload
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

// toHalf rounds to the nearest half, ties to even; from 65520 on that is infinity.
func toHalf(x float32) uint16 {
	b := math.Float32bits(x)
	sign, abs := uint16(b>>16)&0x8000, b&0x7fffffff
	switch {
	case abs > 0x7f800000: // not a number: quiet, upper payload kept
		return sign | 0x7e00 | uint16(abs>>13)&0x3ff
	case abs >= 0x477ff000: // 65520 = 65504 + half a unit in the last place
		return sign | 0x7c00
	case abs < 0x38800000: // below 2⁻¹⁴: a multiple of 2⁻²⁴, which the addition rounds to
		const magic = 0.5 // its unit in the last place is 2⁻²⁴
		return sign | uint16(math.Float32bits(math.Float32frombits(abs)+magic)-math.Float32bits(magic))
	}
	abs -= (127 - 15) << 23
	return sign | uint16(roundShift(abs, 13))
}

// toBrain rounds to the nearest bfloat16, the upper half of a float32, ties to even.
func toBrain(x float32) uint16 {
	b := math.Float32bits(x)
	if b&0x7fffffff > 0x7f800000 {
		return uint16(b>>16) | 0x40 // quiet, or a payload in the lower half would turn into infinity
	}
	return uint16(roundShift(b, 16))
}

// roundShift is b/2ⁿ, to the nearest, ties to even.
func roundShift(b uint32, n uint) uint32 {
	return (b + 1<<(n-1) - 1 + b>>n&1) >> n
}
