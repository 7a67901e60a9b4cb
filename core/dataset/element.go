package dataset

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/dno-project/dno/sdk"
)

var errLongElement = fmt.Errorf("the record is longer than %d MiB", maxLine>>20)

// eachElement calls f with each element of the file's one JSON list, and the line on which it begins. No
// more than one element is held. Whether an element is valid is f's matter.
func eachElement(r io.Reader, name string, f func(line int, text []byte) error) error {
	in := elements{in: bufio.NewReaderSize(r, 64<<10), line: 1}
	err := in.each(f)
	if errors.Is(err, errRead) {
		return sdk.Errorf(sdk.CodeIO, "read %s, line %d: %w", name, in.line, in.failed)
	}
	if err != nil {
		return sdk.Errorf(sdk.CodeUsage, "%s:%d: %w", name, in.at, err)
	}
	return nil
}

var errRead = errors.New("reading failed")

// elements cuts a JSON list into its elements.
type elements struct {
	in     *bufio.Reader
	line   int   // that is being read
	at     int   // that an error is about
	failed error // of the reader
}

const end = -1 // no byte: the file's end, or reading failed

func (e *elements) next() int {
	c, err := e.in.ReadByte()
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		e.failed = err
		return end
	case err != nil:
		return end
	}
	if c == '\n' {
		e.line++
	}
	return int(c)
}

// solid is the next byte that is not white space.
func (e *elements) solid() int {
	for {
		c := e.next()
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			e.at = e.line
			return c
		}
	}
}

func (e *elements) each(f func(line int, text []byte) error) error {
	if bom, _ := e.in.Peek(3); bytes.Equal(bom, []byte("\ufeff")) {
		_, _ = e.in.Discard(3) // they are in the buffer
	}
	c := e.solid()
	if c == end && e.failed == nil {
		return nil // an empty file has no elements
	}
	if c != '[' {
		return e.wrong("the file is no JSON list: want [{...}, ...]")
	}
	if c = e.solid(); c != ']' {
		for more := true; more; {
			text, last, err := e.element(c)
			if err != nil {
				return err
			}
			if err := f(e.at, text); err != nil {
				return err
			}
			if more = last == ','; more {
				c = e.solid()
			}
		}
	}
	if c := e.solid(); c != end || e.failed != nil {
		return e.wrong("something follows the list's end")
	}
	return nil
}

// element reads the rest of the element that begins with c, up to the comma or the bracket behind it.
func (e *elements) element(c int) (text []byte, last int, err error) {
	depth, quoted, escaped := 0, false, false
	for ; ; c = e.next() {
		switch {
		case c == end:
			return nil, 0, e.wrong("the file ends within the list: it is cut off")
		case quoted:
			quoted, escaped = escaped || c != '"', !escaped && c == '\\'
		case c == '"':
			quoted = true
		case depth <= 0 && (c == ',' || c == ']'):
			if text = bytes.TrimSpace(text); len(text) == 0 {
				return nil, 0, e.wrong("an element of the list is missing")
			}
			return text, c, nil
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		if text = append(text, byte(c)); len(text) > maxLine {
			return nil, 0, errLongElement
		}
	}
}

// wrong is the error that words say, unless what is wrong is that reading failed.
func (e *elements) wrong(words string) error {
	if e.failed != nil {
		return errRead
	}
	return errors.New(words)
}
