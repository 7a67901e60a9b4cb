package script

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// openString defines the string library, and makes it the methods of all strings.
func (s *sandbox) openString() {
	m := s.module(map[string]lua.LGFunction{
		"byte":    s.stringByte,
		"char":    s.stringChar,
		"find":    func(L *lua.LState) int { return s.search(L, true) },
		"format":  s.stringFormat,
		"gmatch":  s.stringGmatch,
		"gsub":    s.stringGsub,
		"len":     func(L *lua.LState) int { L.Push(lua.LNumber(len(L.CheckString(1)))); return 1 },
		"lower":   func(L *lua.LState) int { return s.mapBytes(L, 'A', 'Z') },
		"match":   func(L *lua.LState) int { return s.search(L, false) },
		"rep":     s.stringRep,
		"reverse": s.stringReverse,
		"sub":     s.stringSub,
		"upper":   func(L *lua.LState) int { return s.mapBytes(L, 'a', 'z') },
	})
	s.globals.RawSetString("string", m)
	meta := s.L.NewTable()
	meta.RawSetString("__index", m)
	meta.RawSetString("__metatable", lua.LFalse)
	s.L.SetMetatable(lua.LString(""), meta)
}

// span turns Lua's positions, from 1 and negative from the end, into the bounds of a slice.
func span(from, to, n int) (int, int) {
	if from < 0 {
		from = max(n+from+1, 1)
	}
	if to < 0 {
		to = n + to + 1
	}
	from, to = max(from, 1), min(to, n)
	if from > to {
		return 0, 0
	}
	return from - 1, to
}

func (s *sandbox) stringSub(L *lua.LState) int {
	v := L.CheckString(1)
	from, to := span(L.CheckInt(2), L.OptInt(3, -1), len(v))
	L.Push(s.text(L, v[from:to]))
	return 1
}

func (s *sandbox) stringByte(L *lua.LState) int {
	v := L.CheckString(1)
	first := L.OptInt(2, 1)
	from, to := span(first, L.OptInt(3, first), len(v))
	for _, b := range []byte(v[from:to]) {
		s.charge(L, 1)
		L.Push(lua.LNumber(b))
	}
	return to - from
}

func (s *sandbox) stringChar(L *lua.LState) int {
	out := make([]byte, L.GetTop())
	for i := range out {
		n := L.CheckInt(i + 1)
		if n < 0 || n > 255 {
			L.ArgError(i+1, "value out of range")
		}
		out[i] = byte(n)
	}
	L.Push(s.text(L, string(out)))
	return 1
}

func (s *sandbox) stringRep(L *lua.LState) int {
	v, n := L.CheckString(1), L.CheckNumber(2)
	if !(n >= 1) || v == "" {
		L.Push(lua.LString(""))
		return 1
	}
	if float64(len(v))*math.Floor(float64(n)) > maxString {
		L.RaiseError("a string of %d times %.0f bytes is too long: the limit is %d", len(v), float64(n), maxString)
	}
	s.checkLength(L, len(v)*int(n))
	L.Push(lua.LString(strings.Repeat(v, int(n))))
	return 1
}

func (s *sandbox) stringReverse(L *lua.LState) int {
	out := []byte(s.text(L, L.CheckString(1)))
	slices.Reverse(out)
	L.Push(lua.LString(out))
	return 1
}

// mapBytes changes the case of ASCII letters between first and last; other bytes stay, whatever the
// encoding.
func (s *sandbox) mapBytes(L *lua.LState, first, last byte) int {
	out := []byte(s.text(L, L.CheckString(1)))
	for i, b := range out {
		if first <= b && b <= last {
			out[i] = b ^ 0x20
		}
	}
	L.Push(lua.LString(out))
	return 1
}

// stringFormat is C's printf with Lua's %q; widths and precisions have at most two digits.
func (s *sandbox) stringFormat(L *lua.LState) int {
	format := L.CheckString(1)
	var out []byte
	arg := 1
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			out = append(out, format[i])
			continue
		}
		i++
		if i < len(format) && format[i] == '%' {
			out = append(out, '%')
			continue
		}
		start := i
		for i < len(format) && strings.IndexByte("-+ #0123456789.", format[i]) >= 0 {
			i++
		}
		if i == len(format) {
			L.RaiseError("invalid format: it ends after '%%%s'", clip(format[start:], 10))
		}
		spec, ok := parseSpec(format[start:i])
		if !ok {
			L.RaiseError("invalid format: '%%%s'", clip(format[start:i+1], 10))
		}
		arg++
		if arg > L.GetTop() {
			L.ArgError(arg, "no value")
		}
		out = append(out, s.formatOne(L, spec, format[i], arg)...)
		if len(out) > maxString {
			s.checkLength(L, len(out))
		}
	}
	L.Push(s.text(L, string(out)))
	return 1
}

// spec is what stands between '%' and its letter.
type spec struct {
	flags     string
	width     string
	precision int // -1: none
}

func parseSpec(text string) (spec, bool) {
	rest := strings.TrimLeft(text, "-+ #0")
	out := spec{flags: text[:len(text)-len(rest)], precision: -1}
	width, precision, dotted := strings.Cut(rest, ".")
	out.width = width
	if dotted {
		out.precision = 0
		if precision != "" {
			n, err := strconv.Atoi(precision)
			if err != nil {
				return out, false
			}
			out.precision = n
		}
	}
	_, err := strconv.Atoi("0" + width)
	return out, err == nil && len(width) <= 2 && len(precision) <= 2 && len(out.flags) <= 5
}

// verb is the specification in the words of package fmt.
func (f spec) verb(letter byte) string {
	if f.precision >= 0 {
		return "%" + f.flags + f.width + "." + strconv.Itoa(f.precision) + string(letter)
	}
	return "%" + f.flags + f.width + string(letter)
}

func (s *sandbox) formatOne(L *lua.LState, f spec, letter byte, arg int) string {
	switch letter {
	case 'd', 'i', 'u', 'c', 'o', 'x', 'X':
		n := float64(L.CheckNumber(arg))
		if !(math.Abs(n) < 1<<63) {
			L.ArgError(arg, "number has no integer representation")
		}
		switch letter {
		case 'c':
			return f.pad(string([]byte{byte(int64(n))}))
		case 'o', 'x', 'X':
			return fmt.Sprintf(f.verb(letter), uint64(int64(n))) // negative numbers as C shows them
		}
		return fmt.Sprintf(f.verb('d'), int64(n))
	case 'e', 'E', 'f', 'g', 'G':
		if f.precision < 0 {
			f.precision = 6
		}
		return fmt.Sprintf(f.verb(letter), float64(L.CheckNumber(arg)))
	case 'q':
		v := L.CheckString(arg)
		s.checkLength(L, 2*len(v)+2)
		return quote(v)
	case 's':
		text := s.show(L, L.Get(arg))
		if f.precision >= 0 {
			text = text[:min(f.precision, len(text))]
		}
		return f.pad(text)
	}
	L.RaiseError("invalid format: '%%%s'", string(letter))
	return ""
}

// pad counts bytes, as C does.
func (f spec) pad(text string) string {
	width, _ := strconv.Atoi("0" + f.width)
	fill := strings.Repeat(" ", max(0, width-len(text)))
	if strings.Contains(f.flags, "-") {
		return text + fill
	}
	return fill + text
}

// quote writes text so that Lua reads it back.
func quote(text string) string {
	out := []byte{'"'}
	for _, b := range []byte(text) {
		switch b {
		case '"', '\\', '\n':
			out = append(out, '\\', b)
		case '\r':
			out = append(out, `\r`...)
		case 0:
			out = append(out, `\000`...)
		default:
			out = append(out, b)
		}
	}
	return string(append(out, '"'))
}

// pattern compiles the pattern in argument i.
func (s *sandbox) pattern(L *lua.LState, i int, anchors bool) *pattern {
	source := L.CheckString(i)
	s.charge(L, len(source))
	p, err := compilePattern(source, anchors)
	if err != nil {
		L.RaiseError("pattern %q: %s", clip(source, 40), err.Error())
	}
	return p
}

// match tries p at one position; every attempt of a pattern's item is a step of the budget.
func (s *sandbox) match(L *lua.LState, p *pattern, text string, at int) (m matcher, end int) {
	m = matcher{pattern: p, text: text, steps: max(s.steps.left, 0)}
	end = m.match(at, 0)
	s.steps.left = m.steps
	s.charge(L, 1)
	if m.problem != "" {
		L.RaiseError("%s", m.problem)
	}
	return m, end
}

// pushCapture pushes capture i of a match of text[from:to]; without captures, 0 is the whole match.
func (s *sandbox) pushCapture(L *lua.LState, m *matcher, i, from, to int) {
	if i >= len(m.captures) {
		if i > 0 {
			L.RaiseError("invalid capture index")
		}
		L.Push(s.text(L, m.text[from:to]))
		return
	}
	c := m.captures[i]
	if c.to == position {
		L.Push(lua.LNumber(c.from + 1))
		return
	}
	L.Push(s.text(L, m.text[c.from:c.to]))
}

func (s *sandbox) pushCaptures(L *lua.LState, m *matcher, from, to int) int {
	n := max(1, len(m.captures))
	for i := range n {
		s.pushCapture(L, m, i, from, to)
	}
	return n
}

// search is string.find and string.match.
func (s *sandbox) search(L *lua.LState, find bool) int {
	text := L.CheckString(1)
	init := L.OptInt(3, 1)
	if init < 0 {
		init = max(len(text)+init+1, 1)
	}
	at := min(max(init, 1)-1, len(text))
	source := L.CheckString(2)
	if find && (L.ToBool(4) || !strings.ContainsAny(source, `^$*+?.([%-`)) {
		s.charge(L, (len(text)-at)/16)
		found := strings.Index(text[at:], source)
		if found < 0 {
			L.Push(lua.LNil)
			return 1
		}
		L.Push(lua.LNumber(at + found + 1))
		L.Push(lua.LNumber(at + found + len(source)))
		return 2
	}
	p := s.pattern(L, 2, true)
	for ; at <= len(text); at++ {
		m, end := s.match(L, p, text, at)
		if end >= 0 {
			if !find {
				return s.pushCaptures(L, &m, at, end)
			}
			L.Push(lua.LNumber(at + 1))
			L.Push(lua.LNumber(end))
			if len(m.captures) > 0 {
				return 2 + s.pushCaptures(L, &m, at, end)
			}
			return 2
		}
		if p.anchored {
			break
		}
	}
	L.Push(lua.LNil)
	return 1
}

func (s *sandbox) stringGmatch(L *lua.LState) int {
	text, p, at := L.CheckString(1), s.pattern(L, 2, false), 0
	s.charge(L, entrySteps)
	L.Push(L.NewFunction(func(L *lua.LState) int {
		for ; at <= len(text); at++ {
			m, end := s.match(L, p, text, at)
			if end < 0 {
				continue
			}
			from := at
			at = max(end, at+1)
			return s.pushCaptures(L, &m, from, end)
		}
		L.Push(lua.LNil)
		return 1
	}))
	return 1
}

func (s *sandbox) stringGsub(L *lua.LState) int {
	text, p, with := L.CheckString(1), s.pattern(L, 2, true), L.Get(3)
	switch with.Type() {
	case lua.LTString, lua.LTNumber, lua.LTTable, lua.LTFunction:
	default:
		L.ArgError(3, "text, table or function expected")
	}
	limit := L.OptInt(4, math.MaxInt)
	var out []byte
	at, count := 0, 0
	for count < limit {
		m, end := s.match(L, p, text, at)
		if end >= 0 {
			count++
			piece := s.replacement(L, &m, with, at, end)
			s.charge(L, len(piece)/32)
			out = append(out, piece...)
		}
		if end > at {
			at = end
		} else if at < len(text) {
			out = append(out, text[at])
			at++
		} else {
			break
		}
		if len(out) > maxString {
			s.checkLength(L, len(out))
		}
		if p.anchored {
			break
		}
	}
	out = append(out, text[min(at, len(text)):]...)
	L.Push(s.text(L, string(out)))
	L.Push(lua.LNumber(count))
	return 2
}

// replacement is what gsub puts in the place of a match.
func (s *sandbox) replacement(L *lua.LState, m *matcher, with lua.LValue, from, to int) string {
	top := L.GetTop()
	defer func() { L.SetTop(top) }()
	switch with := with.(type) {
	case *lua.LTable:
		s.pushCapture(L, m, 0, from, to)
		L.Push(L.GetTable(with, L.Get(-1)))
	case *lua.LFunction:
		L.Push(with)
		L.Call(s.pushCaptures(L, m, from, to), 1)
	default:
		return s.expand(L, m, with.String(), from, to)
	}
	switch v := L.Get(-1).(type) {
	case lua.LString, lua.LNumber:
		return v.String()
	default:
		if lua.LVAsBool(v) {
			L.RaiseError("invalid replacement value (a %s)", v.Type())
		}
		return m.text[from:to]
	}
}

// expand fills captures into a replacement text: %0 to %9, and %% for a percent sign.
func (s *sandbox) expand(L *lua.LState, m *matcher, with string, from, to int) string {
	var out []byte
	for i := 0; i < len(with); i++ {
		switch {
		case with[i] != '%' || i+1 == len(with):
			out = append(out, with[i])
			continue
		case with[i+1] == '0':
			out = append(out, m.text[from:to]...)
		case with[i+1] >= '1' && with[i+1] <= '9':
			s.pushCapture(L, m, int(with[i+1]-'1'), from, to)
			out = append(out, L.Get(-1).String()...)
			L.Pop(1)
		default:
			out = append(out, with[i+1])
		}
		i++
		if len(out) > maxString {
			s.checkLength(L, len(out))
		}
	}
	return string(out)
}
