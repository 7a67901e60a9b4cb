package weights

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// bytesOf builds a file from its header and its data.
func bytesOf(header string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func write(t *testing.T, tensors []Out, metadata map[string]string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "w.safetensors")
	if err := Write(path, tensors, metadata); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t *testing.T, path string) *File {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func floats(t *testing.T, f *File, name string) []float32 {
	t.Helper()
	tensor, ok := f.Tensor(name)
	if !ok {
		t.Fatalf("no tensor %q among %q", name, f.Names())
	}
	x, err := tensor.Float32s(nil)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tensors := []Out{
		{"b", []int{2, 3}, F32, []float32{1, -2, float32(math.Inf(1)), 0.1, math.SmallestNonzeroFloat32, float32(math.Copysign(0, -1))}},
		{"odd", []int{3}, BF16, []float32{1, -2, 0.5}},
		{"a", []int{1, 0, 4}, F32, nil},
		{"scalar <é>", nil, F16, []float32{0.25}},
	}
	path := filepath.Join(dir, "model.safetensors")
	if err := Write(path, tensors, map[string]string{"step": "3"}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fromBytes, err := OpenBytes(raw)
	if err != nil {
		t.Fatal(err)
	}
	fromFS, err := OpenFS(fstest.MapFS{"m/model.safetensors": {Data: raw}}, "m")
	if err != nil {
		t.Fatal(err)
	}
	for how, f := range map[string]*File{"file": open(t, path), "directory": open(t, dir), "bytes": fromBytes, "FS": fromFS} {
		if got, want := f.Names(), []string{"a", "b", "odd", "scalar <é>"}; !slices.Equal(got, want) {
			t.Errorf("%s: names %q, want %q", how, got, want)
		}
		if want := map[string]string{"format": "pt", "step": "3"}; !maps.Equal(f.Metadata(), want) {
			t.Errorf("%s: metadata %q, want %q", how, f.Metadata(), want)
		}
		for _, want := range tensors {
			got, ok := f.Tensor(want.Name)
			if !ok || got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) || got.Len() != len(want.Data) {
				t.Errorf("%s: got %v %v of %d for %v", how, got.DType, got.Shape, got.Len(), want)
			}
			x := floats(t, f, want.Name)
			for i := range want.Data {
				if math.Float32bits(x[i]) != math.Float32bits(want.Data[i]) {
					t.Errorf("%s: %s[%d] = %v, want %v", how, want.Name, i, x[i], want.Data[i])
				}
			}
		}
		if _, ok := f.Tensor("c"); ok {
			t.Errorf("%s: found a tensor that is not there", how)
		}
	}
}

func TestFloat32sUsesWhatItIsGiven(t *testing.T) {
	t.Parallel()
	f, err := OpenBytes(write(t, []Out{{"x", []int{2}, F32, []float32{3, 4}}}, nil))
	if err != nil {
		t.Fatal(err)
	}
	x, _ := f.Tensor("x")
	dst := []float32{9, 9, 9}
	got, err := x.Float32s(dst)
	if err != nil || &got[0] != &dst[0] || !slices.Equal(dst, []float32{3, 4, 9}) {
		t.Errorf("got %v in %v, %v", got, dst, err)
	}
	if _, err := x.Int64s(nil); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("floats as integers: %v", err)
	}
}

func TestSameTensorsSameBytes(t *testing.T) {
	t.Parallel()
	a := Out{"a", []int{1}, F32, []float32{1}}
	b := Out{"b", []int{2}, BF16, []float32{2, 3}}
	first, second := write(t, []Out{a, b}, map[string]string{"x": "1", "y": "2"}), write(t, []Out{b, a}, map[string]string{"y": "2", "x": "1"})
	if !bytes.Equal(first, second) {
		t.Error("the order of the arguments shows in the file")
	}
	want := `{"__metadata__":{"format":"pt","x":"1","y":"2"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]}}`
	want += strings.Repeat(" ", 7-(len(want)+7)%8)
	if got := bytesOf(want, 0, 0, 0x80, 0x3f, 0, 0x40, 0x40, 0x40); !bytes.Equal(first, got) {
		t.Errorf("got  %q\nwant %q", first, got)
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		tensors []Out
		want    string
	}{
		"two tensors of one name":  {[]Out{{"a", []int{0}, F32, nil}, {"a", []int{0}, F16, nil}}, `"a"`},
		"the name of the metadata": {[]Out{{"__metadata__", []int{0}, F32, nil}}, "__metadata__"},
		"integers":                 {[]Out{{"n", []int{0}, I64, nil}}, `"I64"`},
		"a shape that is too long": {[]Out{{"n", []int{2}, F32, []float32{1}}}, `"n"`},
		"a negative shape":         {[]Out{{"n", []int{-1, -1}, F32, []float32{1}}}, `"n"`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "x")
			if err := Write(path, c.tensors, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error that names %s", err, c.want)
			}
			if _, err := os.Stat(path); err == nil {
				t.Error("a file was written")
			}
		})
	}
}

// TestHalfIsExact widens every half and compares with its definition, then rounds it back.
func TestHalfIsExact(t *testing.T) {
	t.Parallel()
	for h := range 1 << 16 {
		exponent, fraction := h>>10&31, float64(h&1023)
		var want float64
		switch {
		case exponent == 31 && fraction == 0:
			want = math.Inf(1)
		case exponent == 31:
			want = math.NaN()
		case exponent == 0:
			want = math.Ldexp(fraction, -24) // 0.fraction · 2⁻¹⁴
		default:
			want = math.Ldexp(1024+fraction, exponent-25) // 1.fraction · 2^(exponent-15)
		}
		if h>>15 == 1 {
			want = -want
		}
		got := fromHalf(uint16(h))
		if math.IsNaN(want) {
			if got == got || toHalf(got)&0x7c00 != 0x7c00 || toHalf(got)&0x3ff == 0 {
				t.Fatalf("%#04x: got %v, rounded back %#04x, want not a number", h, got, toHalf(got))
			}
			continue
		}
		if float64(got) != want || math.Signbit(float64(got)) != math.Signbit(want) {
			t.Fatalf("%#04x: got %v, want %v", h, got, want)
		}
		if back := toHalf(got); back != uint16(h) {
			t.Fatalf("%#04x: rounded back to %#04x", h, back)
		}
	}
}

// TestRoundingIsToNearestEven looks between neighbours: below the middle, at it, above it.
func TestRoundingIsToNearestEven(t *testing.T) {
	t.Parallel()
	formats := map[string]struct {
		round     func(float32) uint16
		widen     func(uint16) float32
		infinity  uint16
		firstOver float64 // what the next number after the largest would be
	}{
		"F16":  {toHalf, fromHalf, 0x7c00, 65536},
		"BF16": {toBrain, func(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }, 0x7f80, 0x1p128},
	}
	for name, f := range formats {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for lo := uint16(0); lo < f.infinity; lo++ {
				a, b := float64(f.widen(lo)), f.firstOver
				if lo+1 < f.infinity {
					b = float64(f.widen(lo + 1))
				}
				middle := float32((a + b) / 2) // exact: a float32 has more digits than both
				even := lo + lo&1
				below, above := math.Nextafter32(middle, 0), math.Nextafter32(middle, float32(math.Inf(1)))
				for _, c := range []struct {
					x    float32
					want uint16
				}{{below, lo}, {middle, even}, {above, lo + 1}} {
					if got := f.round(c.x); got != c.want {
						t.Fatalf("%v rounds to %#04x, want %#04x", c.x, got, c.want)
					}
					if got := f.round(-c.x); got != c.want|0x8000 {
						t.Fatalf("%v rounds to %#04x, want %#04x", -c.x, got, c.want|0x8000)
					}
				}
			}
			for _, nan := range []uint32{0x7fc00000, 0x7f800001, 0xffffffff} {
				x := math.Float32frombits(nan)
				if got := f.widen(f.round(x)); got == got {
					t.Errorf("%#08x rounds to %v, want not a number", nan, got)
				}
			}
			if got := f.round(float32(math.Inf(-1))); got != f.infinity|0x8000 {
				t.Errorf("-Inf rounds to %#04x", got)
			}
		})
	}
}

func TestIntegers(t *testing.T) {
	t.Parallel()
	f, err := OpenBytes(bytesOf(
		`{"i64":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},"i32":{"dtype":"I32","shape":[1],"data_offsets":[8,12]},`+
			`"i16":{"dtype":"I16","shape":[1],"data_offsets":[12,14]},"i8":{"dtype":"I8","shape":[1],"data_offsets":[14,15]},`+
			`"u8":{"dtype":"U8","shape":[1],"data_offsets":[15,16]},"bool":{"dtype":"BOOL","shape":[2],"data_offsets":[16,18]},`+
			`"f64":{"dtype":"F64","shape":[],"data_offsets":[18,26]}}`,
		0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // -2
		0xfd, 0xff, 0xff, 0xff, // -3
		0xfc, 0xff, // -4
		0xfb, // -5
		0xfa, // 250
		0, 1, // false, true
		0, 0, 0, 0, 0, 0, 0xf8, 0x3f, // 1.5
	))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]int64{"i64": {-2}, "i32": {-3}, "i16": {-4}, "i8": {-5}, "u8": {250}, "bool": {0, 1}} {
		x, _ := f.Tensor(name)
		if got, err := x.Int64s(nil); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v, %v, want %v", name, got, err, want)
		}
		if _, err := x.Float32s(nil); err == nil {
			t.Errorf("%s: read as floats", name)
		}
	}
	if got := floats(t, f, "f64"); !slices.Equal(got, []float32{1.5}) {
		t.Errorf("f64: got %v", got)
	}
}

// malformed are files that must be refused, with what the error must name.
var malformed = map[string]struct {
	file []byte
	want string
}{
	"nothing":                                {nil, "too few"},
	"seven bytes":                            {make([]byte, 7), "too few"},
	"a header length of 2⁶⁴-1":               {bytes.Repeat([]byte{0xff}, 8), "18446744073709551615"},
	"a header of 100 MB and one byte":        {binary.LittleEndian.AppendUint64(nil, 100_000_001), "100000001"},
	"a header longer than the file":          {bytesOf("{}")[:9], "truncated"},
	"a header length of 0":                   {bytesOf(""), "'{'"},
	"a header that begins with a space":      {bytesOf(" {}"), "'{'"},
	"a header that is a list":                {bytesOf("[]"), "'{'"},
	"a header that ends early":               {bytesOf(`{"a":`), "unexpected EOF"},
	"a header that is not UTF-8":             {bytesOf("{\"\xff\":{}}"), "UTF-8"},
	"a second object after the first":        {bytesOf(`{} {}`), "follows"},
	"a comma too many":                       {bytesOf(`{,}`), "header"},
	"one tensor twice":                       {bytesOf(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}`), `"a" stands there twice`},
	"one key of a tensor twice":              {bytesOf(`{"a":{"dtype":"F32","dtype":"F16","shape":[0],"data_offsets":[0,0]}}`), `"dtype" stands there twice`},
	"one key of the metadata twice":          {bytesOf(`{"__metadata__":{"k":"1","k":"2"}}`), `"k" stands there twice`},
	"metadata that is a number":              {bytesOf(`{"__metadata__":{"k":1}}`), `"k": found 1`},
	"a key in capitals":                      {bytesOf(`{"a":{"DTYPE":"F32","shape":[0],"data_offsets":[0,0]}}`), `"DTYPE"`},
	"an unknown key":                         {bytesOf(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":{"deep":[]}}}`), `tensor "a": unknown key "x"`},
	"no dtype":                               {bytesOf(`{"a":{"shape":[0],"data_offsets":[0,0]}}`), `tensor "a": "dtype" is missing`},
	"no shape":                               {bytesOf(`{"a":{"dtype":"F32","data_offsets":[0,0]}}`), `tensor "a": "shape" is missing`},
	"no offsets":                             {bytesOf(`{"a":{"dtype":"F32","shape":[0]}}`), `tensor "a": "data_offsets" has 0 numbers`},
	"three offsets":                          {bytesOf(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0,0]}}`), `tensor "a"`},
	"an unknown dtype":                       {bytesOf(`{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}`, 0), `tensor "a": dtype "F8_E4M3"`},
	"a dtype that is a number":               {bytesOf(`{"a":{"dtype":4,"shape":[0],"data_offsets":[0,0]}}`), `tensor "a"`},
	"a negative offset":                      {bytesOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}`), `tensor "a": "data_offsets": -4`},
	"an offset with a fraction":              {bytesOf(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0.0]}}`), `0.0 is not a whole number`},
	"an offset of 2⁶⁴":                       {bytesOf(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,18446744073709551616]}}`), `tensor "a"`},
	"an end before the beginning":            {bytesOf(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}`, 0, 0, 0, 0), `tensor "a": data_offsets end at 0`},
	"a shape too large for its bytes":        {bytesOf(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 0, 0, 0, 0), `tensor "a": shape [2] of F32 needs 8 bytes`},
	"a shape whose bytes wrap around to 0":   {bytesOf(`{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}`), `tensor "a"`},
	"a shape whose product wraps around":     {bytesOf(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`), `tensor "a"`},
	"a negative shape":                       {bytesOf(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,0]}}`), `tensor "a": "shape": -1`},
	"a shape of 17 dimensions":               {bytesOf(`{"a":{"dtype":"F32","shape":[0` + strings.Repeat(",1", 16) + `],"data_offsets":[0,0]}}`), `more than 16`},
	"a tensor that is a string":              {bytesOf(`{"a":"b"}`), `tensor "a"`},
	"a tensor beyond the end":                {bytesOf(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 0), `tensor "a" ends at byte 2, but there are 1`},
	"a hole at the beginning":                {bytesOf(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 0, 0), `tensor "a" begins at byte 1 of the data and leaves a hole`},
	"a hole between tensors":                 {bytesOf(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 0, 0, 0), `tensor "b"`},
	"two tensors on the same bytes":          {bytesOf(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 0, 0, 0), `tensor "b" begins at byte 1`},
	"an empty tensor inside another":         {bytesOf(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}`, 0, 0), `tensor "b"`},
	"data that belong to no tensor":          {bytesOf(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 0, 0), "1 bytes of data follow"},
	"a header of brackets nested a lot":      {bytesOf(`{"a":` + strings.Repeat("[", 100000)), `tensor "a"`},
	"a shape of brackets nested a lot":       {bytesOf(`{"a":{"shape":` + strings.Repeat("[", 100000)), `tensor "a"`},
	"a number that goes on for ever":         {bytesOf(`{"a":{"shape":[` + strings.Repeat("9", 100000) + `]}}`), `tensor "a"`},
	"a shape written with an exponent":       {bytesOf(`{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}`, 0), `1e0`},
	"two spellings of the same tensor's key": {bytesOf(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`), `"a" stands there twice`},
}

func TestF17Malformed(t *testing.T) {
	t.Parallel()
	for name, c := range malformed {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check := func(how string, err error) {
				t.Helper()
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: got %v, want an error that says %q", how, err, c.want)
				}
			}
			_, err := OpenBytes(c.file)
			check("bytes", err)
			_, err = OpenFS(fstest.MapFS{"model.safetensors": {Data: c.file}}, ".")
			check("FS", err)
			path := filepath.Join(t.TempDir(), "x.safetensors")
			if err := os.WriteFile(path, c.file, 0o644); err != nil {
				t.Fatal(err)
			}
			_, err = Open(path)
			check("file", err)
			if !strings.Contains(err.Error(), "x.safetensors") {
				t.Errorf("%v does not name the file", err)
			}
		})
	}
}

func TestMissingModel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "model.safetensors") || !strings.Contains(err.Error(), dir) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "none")); err == nil {
		t.Error("opened what is not there")
	}
	if _, err := OpenFS(fstest.MapFS{}, "../x"); err == nil {
		t.Error("opened a directory outside")
	}
}

// FuzzOpenBytes: any bytes give tensors that can be read, or an error; memory in proportion to the bytes.
func FuzzOpenBytes(f *testing.F) {
	for _, c := range malformed {
		f.Add(c.file)
	}
	f.Add(bytesOf(`{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}  `, 1, 2, 3, 4))
	f.Fuzz(func(t *testing.T, data []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		file, err := OpenBytes(data)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20+1000*uint64(len(data)) {
			t.Errorf("%d bytes of input took %d bytes of memory", len(data), used)
		}
		if err != nil {
			return
		}
		numbers := 0
		for _, name := range file.Names() {
			x, _ := file.Tensor(name)
			n := 1
			for _, d := range x.Shape {
				n *= d
			}
			floats, errF := x.Float32s(nil)
			ints, errI := x.Int64s(nil)
			if (errF == nil) == (errI == nil) || len(floats)+len(ints) != n {
				t.Errorf("%q of shape %v has %d floats and %d integers", name, x.Shape, len(floats), len(ints))
			}
			numbers += n
		}
		if numbers > len(data) {
			t.Errorf("%d numbers in %d bytes", numbers, len(data))
		}
	})
}

func ExampleOpenBytes() {
	f, err := OpenBytes(bytesOf(`{"bias":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}`, 0x80, 0x3f, 0x20, 0xc0))
	if err != nil {
		fmt.Println(err)
		return
	}
	bias, _ := f.Tensor("bias")
	fmt.Println(bias.Float32s(nil))
	// Output: [1 -2.5] <nil>
}
