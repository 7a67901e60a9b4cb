package rundir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/sdk"
)

// row is a record with all that JSON makes difficult.
type row struct {
	N    int      `json:"n"`
	Text string   `json:"text"`
	X    *float64 `json:"x"`
}

func rows() []row {
	half := 0.5
	return []row{{1, "a plain one", &half}, {2, `a "quote", a \, a crc":"00000000"}`, nil}, {3, "two\nlines, π_1 and \u2028", &half}}
}

// logOf writes the rows to a fresh file.
func logOf(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	log, old, err := OpenLog[row](path)
	if err != nil || len(old) != 0 {
		t.Fatalf("a new log holds %d records: %v", len(old), err)
	}
	if err := log.Append(rows()...); err != nil {
		t.Fatal(err)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustWrite(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestALineEndsWithTheChecksumOfWhatIsBeforeIt(t *testing.T) {
	// CRC-32C of `{"a":1`, by its polynomial 0x1EDC6F41 bit by bit, here reflected.
	crc := ^uint32(0)
	for _, b := range []byte(`{"a":1`) {
		crc ^= uint32(b)
		for range 8 {
			crc = crc>>1 ^ 0x82F63B78*(crc&1)
		}
	}
	line, err := seal(map[string]int{"a": 1})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("{\"a\":1,\"crc\":\"%08x\"}\n", ^crc); string(line) != want {
		t.Errorf("the line is %q, want %q", line, want)
	}
	if !json.Valid(line) {
		t.Error("the line is not JSON")
	}
	var got map[string]any
	if err := unseal(line, &got); err != nil || got["a"] != 1.0 {
		t.Errorf("it reads back as %v: %v", got, err)
	}
}

func TestWhatCannotBeSealedIsAnError(t *testing.T) {
	for name, v := range map[string]any{
		"a list": []int{1}, "a number": 1, "a text": "{}", "an object without keys": struct{}{}, "nothing": nil,
		"NaN": map[string]float64{"x": math.NaN()},
	} {
		if line, err := seal(v); err == nil {
			t.Errorf("%s became %q", name, line)
		}
	}
	path := filepath.Join(t.TempDir(), "log")
	log, _, err := OpenLog[float64](path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Append(1); err == nil || len(mustRead(t, path)) != 0 {
		t.Errorf("a number was appended as a record: %v", err)
	}
}

func TestALogReadsBackWhatWasAppended(t *testing.T) {
	path := logOf(t)
	got, err := ReadLog[row](path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rows(), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	log, got, err := OpenLog[row](path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if diff := cmp.Diff(rows(), got); diff != "" {
		t.Errorf("opened (-want +got):\n%s", diff)
	}
	if err := log.Append(row{N: 4}); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadLog[row](path); err != nil || len(got) != 4 || got[3].N != 4 {
		t.Errorf("after one more: %v, %v", got, err)
	}
	if err := WriteLog(path, rows()[:1]); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadLog[row](path); err != nil || len(got) != 1 {
		t.Errorf("after it was replaced: %v, %v", got, err)
	}
}

func TestAMissingLogHoldsNothing(t *testing.T) {
	got, err := ReadLog[row](filepath.Join(t.TempDir(), "none"))
	if len(got) != 0 || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := ReadLog[row](t.TempDir()); sdk.CodeOf(err) != sdk.CodeIO {
		t.Errorf("a folder was read as a log: %v", err)
	}
}

// A crash may leave any part of the last line. What is before it is kept; what is torn is cut and
// may be written again.
func TestF5ALogTornAtAnyByteKeepsTheLinesBefore(t *testing.T) {
	path := logOf(t)
	whole := mustRead(t, path)
	start := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for end := start; end < len(whole); end++ {
		mustWrite(t, path, whole[:end])
		if got, err := ReadLog[row](path); err != nil || len(got) != 2 {
			t.Fatalf("cut at byte %d of the last line: read %d records, %v", end-start, len(got), err)
		}
		if !bytes.Equal(mustRead(t, path), whole[:end]) {
			t.Fatalf("cut at byte %d: reading has changed the file", end-start)
		}
		log, got, err := OpenLog[row](path)
		if err != nil || len(got) != 2 {
			t.Fatalf("cut at byte %d of the last line: opened with %d records, %v", end-start, len(got), err)
		}
		if err := log.Append(rows()[2]); err != nil {
			t.Fatal(err)
		}
		log.Close()
		if !bytes.Equal(mustRead(t, path), whole) {
			t.Fatalf("cut at byte %d: the file is not as it was before the crash", end-start)
		}
	}
}

// Whatever bit of a line flips, reading names the file and the line, or the one after where the
// line was broken in two. Only at the very end is there no telling a damaged newline from a torn line.
func TestF5AFlippedBitIsFoundAndNamed(t *testing.T) {
	path := logOf(t)
	whole := mustRead(t, path)
	line := 1
	for at := range whole[:len(whole)-1] {
		for bit := range 8 {
			damaged := bytes.Clone(whole)
			damaged[at] ^= 1 << bit
			mustWrite(t, path, damaged)
			for name, read := range map[string]func() error{
				"read": func() error { _, err := ReadLog[row](path); return err },
				"open": func() error { _, _, err := OpenLog[row](path); return err },
			} {
				err := read()
				if sdk.CodeOf(err) != sdk.CodeCorrupt || !strings.Contains(err.Error(), fmt.Sprintf("%s:%d: ", path, line)) {
					t.Fatalf("%s with bit %d of byte %d flipped, in line %d: %v", name, bit, at, line, err)
				}
			}
			if !bytes.Equal(mustRead(t, path), damaged) {
				t.Fatalf("bit %d of byte %d: the damaged file was changed", bit, at)
			}
		}
		if whole[at] == '\n' {
			line++
		}
	}
}

func TestADamagedSingleRecordIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "one.json")
	if err := writeRecord(path, rows()[1]); err != nil {
		t.Fatal(err)
	}
	var got row
	if err := readRecord(path, &got); err != nil || got.N != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	whole := mustRead(t, path)
	for at := range whole[:len(whole)-1] {
		damaged := bytes.Clone(whole)
		damaged[at] ^= 4
		mustWrite(t, path, damaged)
		if err := readRecord(path, &got); sdk.CodeOf(err) != sdk.CodeCorrupt || !strings.Contains(err.Error(), path) {
			t.Fatalf("byte %d changed: %v", at, err)
		}
		mustWrite(t, path, whole[:at])
		if err := readRecord(path, &got); sdk.CodeOf(err) != sdk.CodeCorrupt {
			t.Fatalf("cut at byte %d: %v", at, err)
		}
	}
	if err := readRecord(path+"x", &got); sdk.CodeOf(err) != sdk.CodeIO || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing record: %v", err)
	}
}

// unseal takes bytes of any origin: it never panics, and takes only what seal could have written.
func FuzzUnseal(f *testing.F) {
	for _, r := range rows() {
		line, err := seal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
		f.Add(line[:len(line)/2])
	}
	for _, text := range []string{"", "{}", "\n", `,"crc":"00000000"}`, `{"n":1,"crc":"00000000"}`, `[1,"crc":"2a5a7e2b"}`, "\xff\x00"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var v map[string]any
		if unseal(line, &v) != nil {
			return
		}
		if _, ok := v["crc"].(string); !ok {
			t.Fatalf("%q was taken without a checksum: %v", line, v)
		}
		bad := bytes.Clone(line)
		bad[0] ^= 1
		if unseal(bad, &v) == nil {
			t.Fatalf("%q was taken as well as %q", bad, line)
		}
	})
}
