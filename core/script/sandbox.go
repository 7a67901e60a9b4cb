package script

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/dno-project/dno/scripts"
	"github.com/dno-project/dno/sdk"
)

// A call's budget is counted in steps, so that it is the same on every machine: a step is an
// instruction, an attempt of a pattern to match, or about 32 bytes of memory asked for. One counter
// bounds a call's time and its memory.
const (
	loadSteps     = 10_000_000 // running the file itself, once
	scheduleSteps = 10_000_000 // once an iteration
	promptSteps   = 1_000_000  // mix and pairs, once a prompt

	maxString = 1 << 20 // bytes of one string

	tableSteps = 20 // a table with a few named fields: about 700 bytes
	entrySteps = 6  // one more entry in a table
)

// sandbox is a Lua state that can reach nothing but itself: no file, no network, no clock, no
// memory of earlier calls.
type sandbox struct {
	L       *lua.LState
	globals *lua.LTable // what global names stand for
	env     *lua.LTable // the functions' environment: always empty, so that every write to it is seen
	dir     fs.FS       // the script's neighbours; nil: none
	log     func(line string)

	steps  budget
	random splitmix
	lines  int // printed in this call

	places  []*place               // every table constructor of the source
	origin  map[*lua.LTable]*place // those that ran in this call
	modules map[string]lua.LValue  // what require returned; nil while loading
	sources map[string][]byte      // the neighbours that were required, by file name

	library  map[*lua.LFunction]bool // the host's own functions: they keep no state
	frozen   map[*lua.LTable]bool    // tables that cannot be written any more
	readonly *lua.LTable             // the metatable of proxies that cannot be written
	sealed   bool                    // loading is over; callbacks are running
}

func newSandbox(dir fs.FS, log func(string)) *sandbox {
	s := &sandbox{
		L:       lua.NewState(lua.Options{SkipOpenLibs: true, CallStackSize: 200, RegistrySize: 8192}),
		dir:     dir,
		log:     log,
		origin:  map[*lua.LTable]*place{},
		modules: map[string]lua.LValue{},
		sources: map[string][]byte{},
		library: map[*lua.LFunction]bool{},
		frozen:  map[*lua.LTable]bool{},
	}
	s.globals, s.env, s.readonly = s.L.NewTable(), s.L.NewTable(), s.L.NewTable()
	s.readonly.RawSetString("__metatable", lua.LFalse)
	meta := s.L.NewTable()
	meta.RawSetString("__index", s.globals)
	meta.RawSetString("__newindex", s.function(s.setGlobal))
	s.env.Metatable = meta
	s.L.SetContext(&s.steps)
	s.openGuard()
	s.openBase()
	s.openTable()
	s.openString()
	s.openMath()
	return s
}

// function makes one of the host's functions.
func (s *sandbox) function(f lua.LGFunction) *lua.LFunction {
	fn := s.L.NewFunction(f)
	s.library[fn] = true
	return fn
}

// module makes a library table. It is read-only from the start.
func (s *sandbox) module(functions map[string]lua.LGFunction) *lua.LTable {
	t := s.L.NewTable()
	for _, name := range sortedKeys(functions) {
		t.RawSetString(name, s.function(functions[name]))
	}
	s.frozen[t] = true
	return t
}

// budget is the context of a call: the interpreter asks it before each instruction.
type budget struct {
	context.Context
	left, limit int64
	cancelled   bool
}

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Done counts one instruction. It is closed once the budget is used up, and stays so: a script
// cannot catch that and go on.
func (b *budget) Done() <-chan struct{} {
	b.left--
	if b.left >= 0 && (b.left&1023 != 0 || b.Context.Err() == nil) {
		return nil
	}
	if b.left >= 0 {
		b.cancelled, b.left = true, -1
	}
	return closed
}

func (b *budget) Err() error {
	if b.cancelled {
		return b.Context.Err()
	}
	return fmt.Errorf("used more than %d instructions, or the memory of as many: is there a loop without end?", b.limit)
}

// charge takes steps for work that is not counted by instructions.
func (s *sandbox) charge(L *lua.LState, steps int) {
	s.steps.left -= int64(steps)
	if s.steps.left < 0 {
		L.RaiseError("%s", s.steps.Err().Error())
	}
}

// text makes a string for the script, if it is not too long.
func (s *sandbox) text(L *lua.LState, v string) lua.LString {
	s.checkLength(L, len(v))
	return lua.LString(v)
}

// checkLength is asked before a string of n bytes is made.
func (s *sandbox) checkLength(L *lua.LState, n int) {
	if n > maxString {
		L.RaiseError("a string of %d bytes is too long: the limit is %d", n, maxString)
	}
	s.charge(L, 1+n/32)
}

// request is one call into Lua.
type request struct {
	what  string // "mix (iteration 3, prompt abc)", for messages; "" while loading
	steps int64
	seed  uint64
	fn    *lua.LFunction
	args  []lua.LValue
}

// run makes a call and returns its first result. Nothing that a script does panics beyond here.
func (s *sandbox) run(ctx context.Context, r request) (result lua.LValue, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.steps = budget{Context: ctx, left: r.steps, limit: r.steps}
	s.random = splitmix(r.seed)
	s.lines = 0
	if s.sealed {
		clear(s.origin)
	}
	defer func() {
		if p := recover(); p != nil {
			err = sdk.Errorf(sdk.CodeScript, "%sthe interpreter failed: %v", r.prefix(), p)
		}
		s.L.SetTop(0)
	}()
	if err := s.L.CallByParam(lua.P{Fn: r.fn, NRet: 1, Protect: true}, r.args...); err != nil {
		return nil, s.failure(r, err)
	}
	return s.L.Get(-1), nil
}

func (r request) prefix() string {
	if r.what == "" {
		return ""
	}
	return r.what + ": "
}

// failure says what an error of a call means.
func (s *sandbox) failure(r request, err error) error {
	if s.steps.cancelled {
		return s.steps.Context.Err()
	}
	var api *lua.ApiError
	if !errors.As(err, &api) {
		return sdk.Errorf(sdk.CodeScript, "%s%w", r.prefix(), err)
	}
	if thrown, ok := api.Object.(lua.LString); ok && api.Type != lua.ApiErrorPanic {
		return sdk.Errorf(sdk.CodeScript, "%s%s", r.prefix(), clip(string(thrown), 1000))
	} else if ok {
		return sdk.Errorf(sdk.CodeScript, "%sthe interpreter failed: %s", r.prefix(), clip(string(thrown), 1000))
	}
	return sdk.Errorf(sdk.CodeScript, "%san error was thrown that is no text: %s", r.prefix(), describe(api.Object, 2))
}

// describe shows a value as Lua would write it.
func describe(v lua.LValue, depth int) string {
	switch v := v.(type) {
	case lua.LString:
		return fmt.Sprintf("%q", clip(string(v), 200))
	case *lua.LTable:
		if depth == 0 {
			return "{...}"
		}
		var parts []string
		each(v, func(key, value lua.LValue) bool {
			name := ""
			if k, ok := key.(lua.LString); ok {
				name = string(k) + " = "
			}
			parts = append(parts, name+describe(value, depth-1))
			return len(parts) < 10
		})
		if len(parts) == 0 {
			return "{}"
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	case lua.LNumber, lua.LBool, *lua.LNilType:
		return v.String()
	}
	return "a " + v.Type().String()
}

// each walks a table in the order of Lua's pairs until f returns false.
func each(t *lua.LTable, f func(key, value lua.LValue) bool) {
	for key, value := t.Next(lua.LNil); key != lua.LNil; key, value = t.Next(key) {
		if !f(key, value) {
			return
		}
	}
}

func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return text[:n] + "..."
}

// Modules.

var moduleName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]*$`)

// require loads a helper of dno, or a file beside the script. A name is not a path: there is no way
// out of the folder.
func (s *sandbox) require(L *lua.LState) int {
	name := L.CheckString(1)
	value, known := s.modules[name]
	switch {
	case known && value == nil:
		L.RaiseError("require %q: the files require each other", name)
	case !known && s.sealed:
		L.RaiseError("require %q: only while the file is loaded, not in a callback", name)
	case !known:
		value = s.load(L, name)
	}
	L.Push(value)
	return 1
}

func (s *sandbox) load(L *lua.LState, name string) lua.LValue {
	if !moduleName.MatchString(name) {
		L.RaiseError("require %q: want the name of a file beside the script, without .lua and without a folder", name)
	}
	file := name + ".lua"
	source, err := fs.ReadFile(scripts.Lib, path.Join("lib", file))
	if errors.Is(err, fs.ErrNotExist) && s.dir != nil {
		if source, err = readFile(s.dir, file); err == nil {
			s.sources[file] = source
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		L.RaiseError("require %q: there is neither a helper of dno with this name nor %s beside the script", name, file)
	} else if err != nil {
		L.RaiseError("require %q: %s", name, err.Error())
	}
	fn, err := s.compile(file, source)
	if err != nil {
		L.RaiseError("require %q: %s", name, err.Error())
	}
	s.modules[name] = nil
	L.Push(fn)
	L.Push(lua.LString(name))
	L.Call(1, 1)
	value := L.Get(-1)
	L.Pop(1)
	if value == lua.LNil {
		value = lua.LTrue
	}
	s.modules[name] = value
	return value
}

// readFile reads at most a little more than the compiler takes.
func readFile(dir fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(dir, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSource {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", name, maxSource)
	}
	return fs.ReadFile(dir, name)
}
