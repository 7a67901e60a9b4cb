package rundir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/sdk"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Line is a record as it is written: see [Log].
func Line(v any) ([]byte, error) { return seal(v) }

// seal returns v as one JSON line whose last key is crc: the CRC-32C, in hex, of all bytes before
// `,"crc":`. v must be a JSON object with at least one key.
func seal(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode a record: %w", err)
	}
	if len(text) < 3 || text[len(text)-1] != '}' {
		return nil, fmt.Errorf("encode a record: %T is not an object with keys", v)
	}
	body := text[:len(text)-1]
	return fmt.Appendf(bytes.Clone(body), ",\"crc\":\"%08x\"}\n", crc32.Checksum(body, castagnoli)), nil
}

// unseal checks the line's crc and decodes it into v.
func unseal(line []byte, v any) error {
	const tail = len(`,"crc":"00000000"}`)
	line = bytes.TrimSuffix(line, []byte("\n"))
	if len(line) < tail+2 {
		return errors.New("the line is too short to be a record")
	}
	body, end := line[:len(line)-tail], string(line[len(line)-tail:])
	if want := fmt.Sprintf(",\"crc\":\"%08x\"}", crc32.Checksum(body, castagnoli)); end != want {
		return fmt.Errorf("the checksum does not match: the line ends with %q, its content asks for %q", end, want)
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("decode a record: %w", err)
	}
	return nil
}

// Log is an append-only file of records of one type, a JSON line each. It is not safe for
// concurrent use.
type Log[T any] struct {
	file *fsx.Appender
}

// OpenLog opens the log at path for appending, making it where it is missing, and returns the
// records that it holds. A torn last line, what a crash leaves, is cut; damage anywhere else is an
// error with [sdk.CodeCorrupt] that names file and line.
func OpenLog[T any](path string) (*Log[T], []T, error) {
	var records []T
	log, err := openLog(path, func(r T) error { records = append(records, r); return nil })
	return log, records, err
}

// openLog is OpenLog that hands the records to take, one after another.
func openLog[T any](path string, take func(T) error) (*Log[T], error) {
	// Read first: a file that is damaged is left as it is, torn end and all.
	if err := eachRecord(path, take); err != nil {
		return nil, err
	}
	file, err := fsx.OpenAppend(path)
	if err != nil {
		return nil, ioError(err)
	}
	return &Log[T]{file: file}, nil
}

// Append writes the records and makes them durable.
func (l *Log[T]) Append(records ...T) error {
	var text []byte // one write: all of them or none, but for a crash
	for _, r := range records {
		line, err := seal(r)
		if err != nil {
			return err
		}
		text = append(text, line...)
	}
	if len(text) == 0 {
		return nil
	}
	if err := l.file.Write(text); err != nil {
		return ioError(err)
	}
	if err := l.file.Sync(); err != nil {
		return ioError(err)
	}
	return nil
}

// Torn is the length in bytes of the torn last line that was cut; 0 if there was none.
func (l *Log[T]) Torn() int64 { return l.file.Dropped() }

// Close closes the file.
func (l *Log[T]) Close() error { return l.file.Close() }

// ReadLog returns the records of the log at path, none where there is no such file. A last line
// without its newline is being written or was torn by a crash: it is not read.
func ReadLog[T any](path string) ([]T, error) {
	var records []T
	if err := eachRecord(path, func(r T) error { records = append(records, r); return nil }); err != nil {
		return nil, err
	}
	return records, nil
}

// eachRecord reads a log and hands over its records; an error of take is damage too.
func eachRecord[T any](path string, take func(T) error) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return ioError(fmt.Errorf("read %s: %w", filepath.Base(path), err))
	}
	for n := 1; len(text) > 0; n++ {
		end := bytes.IndexByte(text, '\n')
		if end < 0 {
			break
		}
		var r T
		err := unseal(text[:end], &r)
		if err == nil {
			err = take(r)
		}
		if err != nil {
			return sdk.Errorf(sdk.CodeCorrupt, "read %s:%d: %w", path, n, err)
		}
		text = text[end+1:]
	}
	return nil
}

// WriteLog replaces the log at path by the records, all or nothing.
func WriteLog[T any](path string, records []T) error {
	var text []byte
	for _, r := range records {
		line, err := seal(r)
		if err != nil {
			return err
		}
		text = append(text, line...)
	}
	return ioError(fsx.WriteFile(path, text, 0o644))
}

func writeRecord(path string, v any) error { return WriteLog(path, []any{v}) }

func readRecord(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return ioError(err)
	}
	if err := unseal(text, v); err != nil {
		return sdk.Errorf(sdk.CodeCorrupt, "read %s: %w", path, err)
	}
	return nil
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func ioError(err error) error {
	if err == nil {
		return nil
	}
	e := sdk.Errorf(sdk.CodeIO, "%w", err)
	if fsx.IsNoSpace(err) {
		return e.WithHint("free some space, then go on with: dno resume")
	}
	return e
}
