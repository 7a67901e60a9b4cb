package wire

import (
	"encoding/binary"
	"math"

	"github.com/dno-project/dno/sdk"
)

// The loss's arrays cross as bytes: little-endian values one after another. An empty array and a
// missing one are the same on the wire and come out as nil.

func putFloats(x []float64) []byte { return new(memory).floats(x) }

// memory is room for many arrays at once: of a whole batch they would be some twenty allocations a call.
type memory struct{ free []byte }

func (m *memory) take(n int) (b []byte) {
	if n > len(m.free) {
		return make([]byte, n)
	}
	b, m.free = m.free[:n:n], m.free[n:]
	return b
}

func (m *memory) floats(x []float64) []byte {
	b := m.take(8 * len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint64(b[8*i:], math.Float64bits(v))
	}
	return b
}

func (m *memory) ints(x []int32) []byte {
	b := m.take(4 * len(x))
	for i, v := range x {
		binary.LittleEndian.PutUint32(b[4*i:], uint32(v))
	}
	return b
}

func (m *memory) bools(x []bool) []byte {
	b := m.take(len(x))
	for i, v := range x {
		b[i] = 0
		if v {
			b[i] = 1
		}
	}
	return b
}

func putRows(x [][]float64) [][]byte {
	b := make([][]byte, len(x))
	for i, row := range x {
		b[i] = putFloats(row)
	}
	return b
}

// arrays decodes fields one after another and keeps the first error.
type arrays struct{ err error }

func (a *arrays) floats(field string, b []byte) []float64 {
	if !a.divides(field, b, 8, "float64") {
		return nil
	}
	x := make([]float64, len(b)/8)
	for i := range x {
		x[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
	}
	return x
}

func (a *arrays) ints(field string, b []byte) []int32 {
	if !a.divides(field, b, 4, "int32") {
		return nil
	}
	x := make([]int32, len(b)/4)
	for i := range x {
		x[i] = int32(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return x
}

func (a *arrays) bools(field string, b []byte) []bool {
	if len(b) == 0 {
		return nil
	}
	x := make([]bool, len(b))
	for i, v := range b {
		if v > 1 {
			a.fail(malformed(field, "byte %d is %d: want 0 or 1", i, v))
			return nil
		}
		x[i] = v == 1
	}
	return x
}

func (a *arrays) rows(field string, b [][]byte) [][]float64 {
	if len(b) == 0 {
		return nil
	}
	x := make([][]float64, len(b))
	for i, row := range b {
		x[i] = a.floats(field, row)
	}
	return x
}

func (a *arrays) divides(field string, b []byte, size int, name string) bool {
	if len(b)%size != 0 {
		a.fail(malformed(field, "%d bytes are no whole number of %s", len(b), name))
		return false
	}
	return len(b) > 0
}

func (a *arrays) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// length refuses an array of another length than want; where optional, an empty one passes.
func (a *arrays) length(field string, have, want int, optional bool) {
	if have != want && !(optional && have == 0) {
		a.fail(sdk.Errorf(sdk.CodePlugin, "field %s has %d values: want %d", field, have, want))
	}
}
