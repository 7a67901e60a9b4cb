package script

import (
	"errors"
	"math"
	"sort"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// openBase defines the global functions. From the interpreter's own library come those that can
// neither leave the sandbox nor work for long.
func (s *sandbox) openBase() {
	original := s.borrow(lua.OpenBase)
	for _, name := range []string{
		"assert", "ipairs", "next", "pairs", "rawequal", "rawget", "select", "type",
	} {
		fn := original.RawGetString(name).(*lua.LFunction)
		s.library[fn] = true
		for _, cell := range fn.Upvalues { // the stateless iterators of pairs and ipairs
			s.library[cell.Value().(*lua.LFunction)] = true
		}
		s.globals.RawSetString(name, fn)
	}
	for name, f := range map[string]lua.LGFunction{
		"error":        s.raise,
		"getmetatable": s.getMetatable,
		"setmetatable": s.setMetatable,
		"pcall":        s.pcall,
		"print":        s.print,
		"rawset":       s.rawSet,
		"require":      s.require,
		"tonumber":     s.toNumber,
		"tostring":     s.toString,
		"unpack":       s.unpack,
		"xpcall":       s.xpcall,
	} {
		s.globals.RawSetString(name, s.function(f))
	}
	s.globals.RawSetString("_VERSION", lua.LString(lua.LuaVersion))
}

// borrow opens one of the interpreter's libraries where no script can see it.
func (s *sandbox) borrow(open lua.LGFunction) *lua.LTable {
	s.L.Push(s.L.NewFunction(open))
	s.L.Call(0, 1)
	t := s.L.Get(-1).(*lua.LTable)
	s.L.Pop(1)
	return t
}

// raise is error(value, level). The interpreter's own counts levels above 1 wrongly.
func (s *sandbox) raise(L *lua.LState) int {
	value, level := L.Get(1), L.OptInt(2, 1)
	if text, ok := value.(lua.LString); ok && level > 0 {
		if where := L.Where(min(level, 100)); where != "" && where != "[G]:" {
			value = s.text(L, where+" "+string(text))
		}
	}
	L.Error(value, 0)
	return 0
}

func (s *sandbox) getMetatable(L *lua.LState) int {
	L.Push(L.GetMetatable(L.CheckAny(1)))
	return 1
}

func (s *sandbox) setMetatable(L *lua.LState) int {
	t := L.CheckTable(1)
	meta := L.Get(2)
	if meta.Type() != lua.LTTable && meta != lua.LNil || L.GetTop() < 2 {
		L.ArgError(2, "nil or table expected")
	}
	s.checkWritable(L, t)
	if old, ok := t.Metatable.(*lua.LTable); ok && old.RawGetString("__metatable") != lua.LNil {
		L.RaiseError("cannot change a protected metatable")
	}
	t.Metatable = meta
	L.SetTop(1)
	return 1
}

func (s *sandbox) rawSet(L *lua.LState) int {
	t := L.CheckTable(1)
	s.set(L, t, L.Get(2), L.Get(3))
	L.SetTop(1)
	return 1
}

// Catching an error takes the interpreter far longer than an instruction, most of all where the
// stack was full: it describes the whole of it.
const (
	caughtSteps   = 500
	overflowSteps = 20_000
)

func (s *sandbox) pcall(L *lua.LState) int {
	L.CheckAny(1)
	err := L.PCall(L.GetTop()-1, lua.MultRet, nil)
	if err == nil {
		L.Insert(lua.LTrue, 1)
		return L.GetTop()
	}
	return s.caught(L, err)
}

func (s *sandbox) xpcall(L *lua.LState) int {
	fn, handler := L.CheckAny(1), L.CheckFunction(2)
	L.SetTop(0)
	L.Push(fn)
	err := L.PCall(0, lua.MultRet, handler)
	if err == nil {
		L.Insert(lua.LTrue, 1)
		return L.GetTop()
	}
	return s.caught(L, err)
}

func (s *sandbox) caught(L *lua.LState, err error) int {
	var thrown lua.LValue = lua.LString(err.Error())
	var api *lua.ApiError
	if errors.As(err, &api) {
		thrown = api.Object
	}
	steps := caughtSteps
	if text, ok := thrown.(lua.LString); ok && strings.Contains(string(text), "overflow") {
		steps = overflowSteps
	}
	s.charge(L, steps)
	L.SetTop(0)
	L.Push(lua.LFalse)
	L.Push(thrown)
	return 2
}

// argumentSteps is how many arguments, handed on by "..." or unpack, are one step.
const argumentSteps = 4

func (s *sandbox) unpack(L *lua.LState) int {
	t := L.CheckTable(1)
	from, to := L.OptInt(2, 1), L.OptInt(3, t.Len())
	if from > to {
		return 0
	}
	n := to - from + 1
	if n <= 0 || n > maxUnpack {
		L.RaiseError("too many values to unpack: the limit is %d", maxUnpack)
	}
	s.charge(L, n/argumentSteps)
	for i := range n {
		L.Push(t.RawGetInt(from + i))
	}
	return n
}

const maxUnpack = 4000 // a part of the interpreter's stack

const (
	printedLength = 500 // bytes of a line
	printedLines  = 100 // of a call
)

// print writes a line to the log.
func (s *sandbox) print(L *lua.LState) int {
	var line strings.Builder
	for i := 1; i <= L.GetTop(); i++ {
		if i > 1 {
			line.WriteByte('\t')
		}
		line.WriteString(clip(s.show(L, L.Get(i)), printedLength))
	}
	s.charge(L, 10)
	s.lines++
	if s.log == nil || s.lines > printedLines {
		return 0
	}
	s.log(clip(line.String(), printedLength))
	if s.lines == printedLines {
		s.log("... (what else this call prints is left out)")
	}
	return 0
}

func (s *sandbox) toString(L *lua.LState) int {
	L.Push(s.text(L, s.show(L, L.CheckAny(1))))
	return 1
}

// show is tostring, without the addresses that would differ from run to run.
func (s *sandbox) show(L *lua.LState, v lua.LValue) string {
	if fn := L.GetMetaField(v, "__tostring"); fn.Type() == lua.LTFunction {
		L.Push(fn)
		L.Push(v)
		L.Call(1, 1)
		out := L.Get(-1)
		L.Pop(1)
		if !lua.LVCanConvToString(out) {
			L.RaiseError("'__tostring' must return text")
		}
		return out.String()
	}
	switch v.(type) {
	case lua.LString, lua.LNumber, lua.LBool, *lua.LNilType:
		return v.String()
	}
	return v.Type().String()
}

func (s *sandbox) toNumber(L *lua.LState) int {
	base := L.OptInt(2, 10)
	if base < 2 || base > 36 {
		L.ArgError(2, "base out of range")
	}
	switch v := L.CheckAny(1).(type) {
	case lua.LNumber:
		L.Push(v)
		return 1
	case lua.LString:
		s.charge(L, len(v)/32)
		if n, ok := number(string(v), base); ok {
			L.Push(lua.LNumber(n))
			return 1
		}
	}
	L.Push(lua.LNil)
	return 1
}

// number reads a numeral as Lua writes it: decimal with an exponent, or 0x.
func number(text string, base int) (float64, bool) {
	text = strings.Trim(text, " \t\n\r\f\v")
	digits, negative := strings.CutPrefix(text, "-")
	hex := strings.HasPrefix(digits, "0x") || strings.HasPrefix(digits, "0X")
	if base != 10 || hex {
		if hex && (base == 10 || base == 16) {
			digits, base = digits[2:], 16
		}
		n, err := strconv.ParseUint(digits, base, 64)
		if negative {
			return -float64(n), err == nil
		}
		return float64(n), err == nil
	}
	if strings.Trim(text, "0123456789.eE+-") != "" { // "inf", "1_000" and "0x1p4" are Go's
		return 0, false
	}
	n, err := strconv.ParseFloat(text, 64)
	return n, err == nil || math.IsInf(n, 0)
}

// openTable defines the table library.
func (s *sandbox) openTable() {
	s.globals.RawSetString("table", s.module(map[string]lua.LGFunction{
		"concat": s.tableConcat,
		"insert": s.tableInsert,
		"remove": s.tableRemove,
		"sort":   s.tableSort,
	}))
}

func (s *sandbox) tableConcat(L *lua.LState) int {
	t, separator := L.CheckTable(1), L.OptString(2, "")
	from, to := L.OptInt(3, 1), L.OptInt(4, t.Len())
	var out []byte
	for i := from; i <= to; i++ {
		v := t.RawGetInt(i)
		if !lua.LVCanConvToString(v) {
			L.RaiseError("invalid value (a %s) at index %d for concat", v.Type(), i)
		}
		piece := v.String()
		if i < to {
			piece += separator
		}
		s.charge(L, 1+len(piece)/32)
		if len(out)+len(piece) > maxString {
			s.checkLength(L, len(out)+len(piece))
		}
		out = append(out, piece...)
	}
	L.Push(s.text(L, string(out)))
	return 1
}

func (s *sandbox) tableInsert(L *lua.LState) int {
	t := L.CheckTable(1)
	n := t.Len()
	switch L.GetTop() {
	case 2:
		s.set(L, t, lua.LNumber(n+1), L.Get(2))
	case 3:
		at := L.CheckInt(2)
		if at < 1 || at > n+1 {
			L.ArgError(2, "position out of bounds")
		}
		if at == n+1 || L.Get(3) == lua.LNil {
			s.set(L, t, lua.LNumber(at), L.Get(3))
			return 0
		}
		s.checkWritable(L, t)
		s.charge(L, entrySteps+(n-at)/16)
		t.Insert(at, L.Get(3))
	default:
		L.RaiseError("wrong number of arguments to insert")
	}
	return 0
}

func (s *sandbox) tableRemove(L *lua.LState) int {
	t := L.CheckTable(1)
	n := t.Len()
	at := L.OptInt(2, n)
	if at < 1 || at > n {
		L.Push(lua.LNil)
		return 1
	}
	s.checkWritable(L, t)
	s.charge(L, 1+(n-at)/16)
	L.Push(t.Remove(at))
	shrink(t, n-1)
	return 1
}

// tableSort sorts a copy, since the comparison may do as it likes with the table. It is stable, so
// that the order does not depend on the sorting algorithm of a Go version.
func (s *sandbox) tableSort(L *lua.LState) int {
	t := L.CheckTable(1)
	s.checkWritable(L, t)
	values := make([]lua.LValue, t.Len())
	s.charge(L, len(values))
	for i := range values {
		values[i] = t.RawGetInt(i + 1)
	}
	less := func(a, b lua.LValue) bool { return L.LessThan(a, b) }
	if fn := L.OptFunction(2, nil); fn != nil {
		less = func(a, b lua.LValue) bool {
			L.Push(fn)
			L.Push(a)
			L.Push(b)
			L.Call(2, 1)
			answer := L.Get(-1)
			L.Pop(1)
			return lua.LVAsBool(answer)
		}
	}
	sort.SliceStable(values, func(i, j int) bool {
		s.charge(L, 1)
		return less(values[i], values[j])
	})
	for i, v := range values {
		s.set(L, t, lua.LNumber(i+1), v)
	}
	return 0
}

// openMath defines the math library.
func (s *sandbox) openMath() {
	original := s.borrow(lua.OpenMath)
	m := s.module(map[string]lua.LGFunction{"random": s.mathRandom})
	for _, name := range []string{
		"abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp", "ldexp",
		"log", "log10", "max", "min", "modf", "pow", "rad", "sin", "sinh", "sqrt", "tan", "tanh",
	} {
		fn := original.RawGetString(name).(*lua.LFunction)
		s.library[fn] = true
		m.RawSetString(name, fn)
	}
	m.RawSetString("pi", lua.LNumber(math.Pi))
	m.RawSetString("huge", lua.LNumber(math.Inf(1)))
	s.globals.RawSetString("math", m)
}

// mathRandom is Lua's, over the call's own stream: [0, 1), 1 to m, or m to n.
func (s *sandbox) mathRandom(L *lua.LState) int {
	r := s.random.float()
	low, high := 1.0, 1.0
	switch L.GetTop() {
	case 0:
		L.Push(lua.LNumber(r))
		return 1
	case 1:
		high = float64(L.CheckNumber(1))
	default:
		low, high = float64(L.CheckNumber(1)), float64(L.CheckNumber(2))
	}
	low, high = math.Floor(low), math.Floor(high)
	if !(low <= high) || high-low >= 1<<53 {
		L.RaiseError("bad arguments to random: the interval from %v to %v has no numbers, or too many", low, high)
	}
	L.Push(lua.LNumber(low + math.Floor(r*(high-low+1))))
	return 1
}

// splitmix is the generator SplitMix64: a counter, and a mixing of its bits.
//
// Source: Steele, Lea, Flood 2014, Fast Splittable Pseudorandom Number Generators, Fig. 16-17, with
// the constants of mix13.
type splitmix uint64

func (r *splitmix) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// float is uniform on the multiples of 2⁻⁵³ in [0, 1).
func (r *splitmix) float() float64 { return float64(r.next()>>11) / (1 << 53) }

// seedOf makes the seed of one call out of all that names it, so that randomness depends neither on
// the order of calls nor on a resume.
func seedOf(seed uint64, iteration int, function, prompt string) uint64 {
	r := splitmix(seed)
	fold := func(v uint64) { r = splitmix(r.next() ^ v) }
	fold(uint64(iteration))
	for _, text := range []string{function, prompt} {
		fold(uint64(len(text)))
		for _, b := range []byte(text) {
			fold(uint64(b))
		}
	}
	return r.next()
}
