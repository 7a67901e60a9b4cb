package script

import (
	"fmt"

	lua "github.com/yuin/gopher-lua"

	"github.com/dno-project/dno/sdk"
)

// Callbacks keep no state: after loading, everything that a callback can reach is frozen. Its own
// locals, and the tables that it makes, are as free as ever.

// openGuard defines the functions that guarded code calls; see guard.go.
func (s *sandbox) openGuard() {
	for name, f := range map[string]lua.LGFunction{
		guardConcat:  s.guardConcat,
		guardSet:     s.guardSet,
		guardTable:   s.guardTable,
		guardKey:     s.guardKey,
		guardClosure: s.guardClosure,
		guardCharge:  func(L *lua.LState) int { s.charge(L, entrySteps); return 0 },
		guardVarargs: func(L *lua.LState) int { s.charge(L, L.GetTop()/argumentSteps); return 0 },
	} {
		s.globals.RawSetString(name, s.function(f))
	}
}

// guardConcat is a .. b .. c, from the right as in Lua.
func (s *sandbox) guardConcat(L *lua.LState) int {
	right := L.Get(-1)
	for i := L.GetTop() - 1; i >= 1; i-- {
		left := L.Get(i)
		if lua.LVCanConvToString(left) && lua.LVCanConvToString(right) {
			// All neighbours that are text are joined at once.
			first := i
			for first > 1 && lua.LVCanConvToString(L.Get(first-1)) {
				first--
			}
			parts, size := make([]string, 0, i-first+2), 0
			for k := first; k <= i; k++ {
				parts = append(parts, L.Get(k).String())
			}
			parts = append(parts, right.String())
			for _, p := range parts {
				size += len(p)
			}
			s.checkLength(L, size)
			buffer := make([]byte, 0, size)
			for _, p := range parts {
				buffer = append(buffer, p...)
			}
			right, i = lua.LString(buffer), first
			continue
		}
		meta := L.GetMetaField(left, "__concat")
		if meta == lua.LNil {
			meta = L.GetMetaField(right, "__concat")
		}
		if meta.Type() != lua.LTFunction {
			bad := left
			if lua.LVCanConvToString(left) {
				bad = right
			}
			L.RaiseError("attempt to concatenate a %s value", bad.Type())
		}
		L.Push(meta)
		L.Push(left)
		L.Push(right)
		L.Call(2, 1)
		right = L.Get(-1)
		L.Pop(1)
	}
	L.Push(right)
	return 1
}

// guardSet is t[k] = v, with metatables.
func (s *sandbox) guardSet(L *lua.LState) int {
	target, key, value := L.Get(1), L.Get(2), L.Get(3)
	for range 100 {
		t, isTable := target.(*lua.LTable)
		if isTable && t.RawGet(key) != lua.LNil {
			s.set(L, t, key, value)
			return 0
		}
		meta := L.GetMetaField(target, "__newindex")
		switch {
		case meta == lua.LNil && isTable:
			s.set(L, t, key, value)
			return 0
		case meta == lua.LNil:
			L.RaiseError("attempt to index a %s value (field %s)", target.Type(), describe(key, 0))
		case meta.Type() == lua.LTFunction:
			L.Push(meta)
			L.Push(target)
			L.Push(key)
			L.Push(value)
			L.Call(3, 0)
			return 0
		}
		target = meta
	}
	L.RaiseError("a chain of __newindex is too long")
	return 0
}

// set is the one way to write into a table that exists.
func (s *sandbox) set(L *lua.LState, t *lua.LTable, key, value lua.LValue) {
	s.checkWritable(L, t)
	n, isNumber := key.(lua.LNumber)
	switch {
	case key == lua.LNil:
		L.RaiseError("table index is nil")
	case isNumber && n != n:
		L.RaiseError("table index is NaN")
	case value == lua.LNil:
		if t.RawGet(key) == lua.LNil {
			return // the interpreter would fill a list with nil up to the index
		}
		last := t.Len()
		t.RawSet(key, value)
		shrink(t, last)
		return
	case t.RawGet(key) == lua.LNil:
		s.charge(L, entrySteps)
		if isIndex(n) {
			// The interpreter fills a list with holes up to the index, and grows it as it goes.
			s.charge(L, 2*max(0, int(n)-t.Len()))
		}
	}
	t.RawSet(key, value)
}

// isIndex reports a key that the interpreter keeps in a table's list.
func isIndex(n lua.LNumber) bool { return n > 1 && n < lua.LNumber(lua.MaxArrayIndex) }

// shrink ends a list of once n entries at its last one: the interpreter looks for the end from behind
// each time that it is asked for the length.
func shrink(t *lua.LTable, n int) {
	for range n - t.Len() {
		t.Remove(-1)
	}
}

func (s *sandbox) checkWritable(L *lua.LState, t *lua.LTable) {
	switch {
	case t.Metatable == s.readonly:
		L.RaiseError("what the host hands to a callback is read-only")
	case s.frozen[t] && s.sealed:
		L.RaiseError("a callback must not change a table of the file: a script keeps no state between calls")
	case s.frozen[t]:
		L.RaiseError("the libraries are read-only")
	}
}

// setGlobal is the __newindex of the environment.
func (s *sandbox) setGlobal(L *lua.LState) int {
	if s.sealed {
		L.RaiseError("a callback must not write the global %s: a script keeps no state between calls; declare it local", describe(L.Get(2), 0))
	}
	s.set(L, s.globals, L.Get(2), L.Get(3))
	return 0
}

// guardTable counts a new table and remembers where it was made.
func (s *sandbox) guardTable(L *lua.LState) int {
	t, p := L.CheckTable(1), s.places[L.CheckInt(2)]
	s.charge(L, tableSteps+entrySteps*p.keyed+t.Len())
	s.origin[t] = p
	L.Push(t)
	return 1
}

// guardKey counts the key of a table that is being made.
func (s *sandbox) guardKey(L *lua.LState) int {
	key := L.Get(1)
	if n, ok := key.(lua.LNumber); ok && isIndex(n) {
		s.charge(L, 2*int(n))
	}
	L.Push(key)
	return 1
}

// guardClosure counts a new function.
func (s *sandbox) guardClosure(L *lua.LState) int {
	fn := L.CheckFunction(1)
	s.charge(L, entrySteps+len(fn.Upvalues)/4)
	L.Push(fn)
	return 1
}

// root is where the search for what callbacks can reach begins.
type root struct {
	name string // for messages
	v    lua.LValue
}

// seal freezes all that the roots can reach, and all globals and modules. It refuses functions that
// write a local of the file, and iterators of the host that remember where they are.
func (s *sandbox) seal(roots []root) error {
	s.sealed = true
	f := freezer{sandbox: s, seen: map[*lua.LFunction]bool{}}
	f.todo = append(f.todo, root{"a global", s.globals})
	for _, name := range sortedKeys(s.modules) {
		f.todo = append(f.todo, root{"module " + name, s.modules[name]})
	}
	f.todo = append(f.todo, roots...)
	for len(f.todo) > 0 && f.err == nil {
		next := f.todo[len(f.todo)-1]
		f.todo = f.todo[:len(f.todo)-1]
		switch v := next.v.(type) {
		case *lua.LTable:
			f.table(v, next.name)
		case *lua.LFunction:
			f.closure(v, next.name)
		}
	}
	return f.err
}

// freezer walks the heap; todo is what it has still to look at.
type freezer struct {
	*sandbox
	todo []root
	seen map[*lua.LFunction]bool
	err  error
}

func (f *freezer) table(t *lua.LTable, from string) {
	if f.frozen[t] {
		return
	}
	f.frozen[t] = true
	each(t, func(key, value lua.LValue) bool {
		f.todo = append(f.todo, root{from, key}, root{from, value})
		return true
	})
	f.todo = append(f.todo, root{from, t.Metatable})
}

func (f *freezer) closure(fn *lua.LFunction, from string) {
	if f.seen[fn] || f.library[fn] {
		return
	}
	f.seen[fn] = true
	if fn.IsG {
		f.refuse(fmt.Errorf("%s keeps an iterator of string.gmatch: a script keeps no state between calls; make it in the callback", from))
		return
	}
	shared := make([]bool, len(fn.Upvalues))
	for i, cell := range fn.Upvalues {
		shared[i] = true
		f.todo = append(f.todo, root{from, cell.Value()})
	}
	f.code(fn.Proto, shared, from)
}

// code looks for instructions that write a shared local: one that exists before the call and after.
// Functions that are made during a call may write the call's own locals.
func (f *freezer) code(p *lua.FunctionProto, shared []bool, from string) {
	for pc := 0; pc < len(p.Code); pc++ {
		instruction := p.Code[pc]
		switch opcode(instruction) {
		case lua.OP_SETUPVAL:
			if b := operandB(instruction); b < len(shared) && shared[b] {
				f.refuse(fmt.Errorf("%s:%d: %s writes %s, a local outside of it: a script keeps no state between calls",
					p.SourceName, p.DbgSourcePositions[pc], from, p.DbgUpvalues[b]))
			}
		case lua.OP_CLOSURE:
			// After it stands, for each upvalue, where it is taken from: a local of p, or an upvalue.
			inner := p.FunctionPrototypes[instruction&0x3ffff]
			passed := make([]bool, inner.NumUpvalues)
			for i := range passed {
				pc++
				if b := operandB(p.Code[pc]); opcode(p.Code[pc]) == lua.OP_GETUPVAL {
					passed[i] = b >= len(shared) || shared[b]
				}
			}
			f.code(inner, passed, from)
		}
	}
}

func (f *freezer) refuse(err error) {
	if f.err == nil {
		f.err = sdk.Errorf(sdk.CodeScript, "%w", err).WithHint("what happened before is in history; randomness is in math.random and dno.chance")
	}
}

func opcode(instruction uint32) int   { return int(instruction >> 26) }
func operandB(instruction uint32) int { return int(instruction & 0x1ff) }
