package weights

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"unicode/utf8"
)

const (
	lengthBytes   = 8           // the header's length, little endian, opens the file
	maxHeader     = 100_000_000 // bytes; the format's own limit
	maxDimensions = 16
	metadataKey   = "__metadata__"
)

// parse reads a whole safetensors file: the header's length, the header, the data.
//
// Source: the safetensors format's README, "Format"; the checks are those of its Rust reference.
func parse(file []byte) (map[string]Tensor, map[string]string, error) {
	n, err := headerLength(file, int64(len(file)))
	if err != nil {
		return nil, nil, err
	}
	header, data := file[lengthBytes:lengthBytes+n], file[lengthBytes+n:]
	spans, metadata, err := parseHeader(header, int64(len(data)))
	if err != nil {
		return nil, nil, err
	}
	tensors := make(map[string]Tensor, len(spans))
	for _, s := range spans {
		s.data = data[s.begin:s.end:s.end]
		tensors[s.Name] = s.Tensor
	}
	return tensors, metadata, nil
}

// headerLength reads the header's length and holds it against the size of the file in bytes.
func headerLength(head []byte, size int64) (int, error) {
	if len(head) < lengthBytes {
		return 0, fmt.Errorf("%d bytes are too few for a safetensors file, which begins with 8 bytes of header length", size)
	}
	n := binary.LittleEndian.Uint64(head)
	switch {
	case n > maxHeader:
		return 0, fmt.Errorf("the header claims %d bytes, more than the %d allowed: this is no safetensors file", n, int64(maxHeader))
	case n > uint64(size-lengthBytes):
		return 0, fmt.Errorf("the header claims %d bytes, but only %d follow: the file is truncated", n, size-lengthBytes)
	}
	return int(n), nil
}

// span is a tensor and where its bytes lie in the data.
type span struct {
	Tensor
	begin, end uint64
}

// parseHeader decodes the header token by token (encoding/json would keep the last of two equal
// keys and take "DTYPE" for "dtype") and checks that the tensors fill dataLen bytes, in order,
// without a hole. The spans come in the order of their data.
func parseHeader(header []byte, dataLen int64) ([]span, map[string]string, error) {
	switch {
	case len(header) == 0 || header[0] != '{':
		return nil, nil, errors.New("the header does not begin with '{': this is no safetensors file")
	case !utf8.Valid(header):
		return nil, nil, errors.New("the header is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(header))
	d.UseNumber()
	var spans []span
	var metadata map[string]string
	err := readObject(d, func(name string) error {
		if name == metadataKey {
			var err error
			metadata, err = readStrings(d)
			return inside(metadataKey, err)
		}
		s, err := readSpan(d)
		if err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
		s.Name = name
		spans = append(spans, s)
		return nil
	})
	if err == nil {
		err = expectEnd(d)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the header: %w", err)
	}
	slices.SortFunc(spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.begin, b.begin), cmp.Compare(a.end, b.end), cmp.Compare(a.Name, b.Name))
	})
	var end uint64
	for _, s := range spans {
		switch {
		case s.begin < end:
			return nil, nil, fmt.Errorf("tensor %q begins at byte %d of the data, inside another that ends at %d", s.Name, s.begin, end)
		case s.begin > end:
			return nil, nil, fmt.Errorf("tensor %q begins at byte %d of the data and leaves a hole after %d", s.Name, s.begin, end)
		case s.end > uint64(dataLen):
			return nil, nil, fmt.Errorf("tensor %q ends at byte %d, but there are %d bytes of data: the file is truncated", s.Name, s.end, dataLen)
		}
		end = s.end
	}
	if end != uint64(dataLen) {
		return nil, nil, fmt.Errorf("%d bytes of data follow the last tensor and belong to none", uint64(dataLen)-end)
	}
	return spans, metadata, nil
}

// readSpan reads {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}.
func readSpan(d *json.Decoder) (span, error) {
	var s span
	var dtype string
	var offsets []int
	err := readObject(d, func(key string) (err error) {
		switch key {
		case "dtype":
			dtype, err = readString(d)
		case "shape":
			s.Shape, err = readInts(d, maxDimensions)
		case "data_offsets":
			offsets, err = readInts(d, 2)
		default:
			return fmt.Errorf("unknown key %q", key)
		}
		return inside(key, err)
	})
	if err != nil {
		return s, err
	}
	switch {
	case dtype == "":
		return s, errors.New(`"dtype" is missing`)
	case s.Shape == nil:
		return s, errors.New(`"shape" is missing`)
	case len(offsets) != 2:
		return s, fmt.Errorf(`"data_offsets" has %d numbers, not 2`, len(offsets))
	}
	s.DType = DType(dtype)
	width := s.DType.Size()
	if width == 0 {
		return s, fmt.Errorf("dtype %q is not supported; save the model as F32, F16 or BF16", dtype)
	}
	s.begin, s.end = uint64(offsets[0]), uint64(offsets[1])
	if s.begin > s.end {
		return s, fmt.Errorf("data_offsets end at %d before they begin at %d", s.end, s.begin)
	}
	n, ok := count(s.Shape, width)
	if !ok {
		return s, fmt.Errorf("shape %v of %s has more bytes than can be counted", s.Shape, dtype)
	}
	if n != s.end-s.begin {
		return s, fmt.Errorf("shape %v of %s needs %d bytes, data_offsets hold %d", s.Shape, dtype, n, s.end-s.begin)
	}
	return s, nil
}

// count returns the bytes of a tensor, or false where they overflow.
func count(shape []int, width int) (uint64, bool) {
	n := uint64(width)
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt {
			return 0, false
		}
		n = lo
	}
	return n, true
}

// readObject reads an object, letting value read what follows each key. A key may stand once.
func readObject(d *json.Decoder, value func(key string) error) error {
	if err := expect(d, '{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for d.More() {
		key, err := readString(d)
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("key %q stands there twice", key)
		}
		seen[key] = true
		if err := value(key); err != nil {
			return err
		}
	}
	return expect(d, '}')
}

func readStrings(d *json.Decoder) (map[string]string, error) {
	out := map[string]string{}
	err := readObject(d, func(key string) (err error) {
		out[key], err = readString(d)
		return inside(key, err)
	})
	return out, err
}

func readString(d *json.Decoder) (string, error) {
	t, err := token(d)
	if err != nil {
		return "", err
	}
	s, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("found %v where a string belongs", t)
	}
	return s, nil
}

// readInts reads an array of at most limit numbers from 0 to the largest int; never nil.
func readInts(d *json.Decoder, limit int) ([]int, error) {
	if err := expect(d, '['); err != nil {
		return nil, err
	}
	out := []int{}
	for d.More() {
		t, err := token(d)
		if err != nil {
			return nil, err
		}
		number, ok := t.(json.Number)
		if !ok {
			return nil, fmt.Errorf("found %v where a number belongs", t)
		}
		n, err := strconv.ParseUint(number.String(), 10, strconv.IntSize-1)
		if err != nil {
			return nil, fmt.Errorf("%s is not a whole number from 0 to %d", number, math.MaxInt)
		}
		if len(out) == limit {
			return nil, fmt.Errorf("more than %d numbers", limit)
		}
		out = append(out, int(n))
	}
	return out, expect(d, ']')
}

func expect(d *json.Decoder, want json.Delim) error {
	t, err := token(d)
	if err == nil && t != want {
		err = fmt.Errorf("found %v where %v belongs", t, want)
	}
	return err
}

func expectEnd(d *json.Decoder) error {
	switch t, err := d.Token(); {
	case err == io.EOF:
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%v follows the closing brace", t)
	}
}

func token(d *json.Decoder) (json.Token, error) {
	t, err := d.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return t, err
}

// inside says at which key an error arose.
func inside(key string, err error) error {
	if err != nil {
		return fmt.Errorf("%q: %w", key, err)
	}
	return nil
}
