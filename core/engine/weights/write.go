package weights

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/dno-project/dno/core/fsx"
)

// Out is a tensor to be written. Data is row-major and has as many numbers as Shape says; they
// are rounded to DType (F32, F16 or BF16), ties to even.
type Out struct {
	Name  string
	Shape []int
	DType DType
	Data  []float32
}

// Write writes one safetensors file, whole or not at all; equal tensors give equal bytes. metadata
// may be nil; "format" is "pt" unless it says otherwise, without which transformers refuses the file.
//
// The tensors come in the order of their names, those of four bytes a number before those of two,
// so that each is aligned. The data follow a header padded with spaces to a multiple of 8 bytes.
func Write(path string, tensors []Out, metadata map[string]string) error {
	tensors = slices.Clone(tensors)
	slices.SortFunc(tensors, func(a, b Out) int {
		return cmp.Or(cmp.Compare(b.DType.Size(), a.DType.Size()), cmp.Compare(a.Name, b.Name))
	})
	header, err := formatHeader(tensors, metadata)
	if err != nil {
		return fmt.Errorf("write weights %s: %w", path, err)
	}
	f, err := fsx.Create(path, 0o644)
	if err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	defer f.Abort()
	w := bufio.NewWriterSize(f, 1<<20)
	_, _ = w.Write(header) // bufio keeps the first error for Flush
	for _, t := range tensors {
		writeNumbers(w, t)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	if err := f.Commit(); err != nil {
		return fmt.Errorf("write weights: %w", err)
	}
	return nil
}

func formatHeader(tensors []Out, metadata map[string]string) ([]byte, error) {
	all := map[string]string{"format": "pt"}
	maps.Copy(all, metadata)
	b := []byte{'{'}
	b = appendEntry(b, metadataKey, all)
	seen := map[string]bool{metadataKey: true}
	end := 0
	for _, t := range tensors {
		if seen[t.Name] || !utf8.ValidString(t.Name) {
			return nil, fmt.Errorf("tensor %q: the name is taken or not UTF-8", t.Name)
		}
		seen[t.Name] = true
		if t.DType != F32 && t.DType != F16 && t.DType != BF16 {
			return nil, fmt.Errorf("tensor %q: dtype %q is not written; choose F32, F16 or BF16", t.Name, t.DType)
		}
		width := t.DType.Size()
		if n, ok := count(t.Shape, width); !ok || len(t.Shape) > maxDimensions || n != uint64(len(t.Data)*width) {
			return nil, fmt.Errorf("tensor %q: shape %v does not fit its %d numbers", t.Name, t.Shape, len(t.Data))
		}
		begin := end
		end += len(t.Data) * width
		b = appendEntry(append(b, ','), t.Name, struct {
			DType   DType  `json:"dtype"`
			Shape   []int  `json:"shape"`
			Offsets [2]int `json:"data_offsets"`
		}{t.DType, append([]int{}, t.Shape...), [2]int{begin, end}})
	}
	b = append(b, '}')
	b = append(b, bytes.Repeat([]byte{' '}, -len(b)&7)...)
	if len(b) > maxHeader {
		return nil, fmt.Errorf("the header would have %d bytes, more than the %d allowed; write several files", len(b), int64(maxHeader))
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(b))), b...), nil
}

// appendEntry appends "key":value. Neither can fail to marshal: strings and numbers only.
func appendEntry(b []byte, key string, value any) []byte {
	k, _ := json.Marshal(key)
	v, _ := json.Marshal(value)
	return append(append(append(b, k...), ':'), v...)
}

func writeNumbers(w *bufio.Writer, t Out) {
	var b [4]byte
	for _, x := range t.Data {
		switch t.DType {
		case F32:
			binary.LittleEndian.PutUint32(b[:], math.Float32bits(x))
		case F16:
			binary.LittleEndian.PutUint16(b[:], toHalf(x))
		case BF16:
			binary.LittleEndian.PutUint16(b[:], toBrain(x))
		}
		_, _ = w.Write(b[:t.DType.Size()])
	}
}
