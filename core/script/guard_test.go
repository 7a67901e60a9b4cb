package script

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	lua "github.com/yuin/gopher-lua"
)

// programs print what they do; the guard must not change it.
var programs = map[string]string{
	"a field is assigned": `
		local t = {} t.a = 1 t["b"] = 2 t[3] = "c" t[1.5] = true
		print(t.a, t.b, t[3], t[1.5])`,
	"a field of a field is assigned": `
		local t = { u = { v = {} } } t.u.v.w = 7 t["u"]["v"].x = t.u.v.w + 1
		print(t.u.v.w, t.u.v.x)`,
	"several targets are assigned after all values are known": `
		local a, t = 1, { 10, 20 }
		t[1], t[2], a = t[2], t[1], t
		print(t[1], t[2], a == t)
		local i = 1
		i, t[i] = i + 1, 99
		print(i, t[1], t[2])`,
	"several targets take what a call returns": `
		local function three() return 1, 2, 3 end
		local t, x = {}
		t.a, x, t.c, t.d = three()
		print(t.a, x, t.c, t.d)
		t.a, t.b = three(), 5
		print(t.a, t.b)
		t.a, t.b = (three())
		print(t.a, t.b)`,
	"the table and the key are read before the value": `
		local log = {}
		local function say(x) log[#log + 1] = x return x end
		local t = {}
		local function table_() say("table") return t end
		table_()[say("key")] = say("value")
		print(table.concat(log, " "), t.key)`,
	"one value of a call is assigned": `
		local function two() return 1, 2 end
		local t = {} t.x = two() print(t.x)`,
	"methods are defined and called": `
		local Account = {} Account.__index = Account
		function Account.new(n) return setmetatable({ n = n }, Account) end
		function Account:add(k, ...) self.n = self.n + k return self, ... end
		local a = Account.new(5)
		print(a:add(3).n, select("#", a:add(1, "x", "y")), a.n)`,
	"functions are defined in nested tables": `
		local m = { a = { b = {} } }
		function m.a.b.f(x) return x * 2 end
		function m.a.b:g(x) return self == m.a.b, x end
		print(m.a.b.f(4), m.a.b:g(5))`,
	"globals are written and read": `
		x = 1 function f() x = x + 1 return x end
		print(f(), f(), x, undefined)`,
	"local functions call themselves": `
		local function fact(n) if n <= 1 then return 1 end return n * fact(n - 1) end
		local fib = function(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end
		print(fact(10), fib(15))`,
	"closures share and own their locals": `
		local made = {}
		for i = 1, 3 do local n = i * 10 made[i] = function() n = n + 1 return n end end
		print(made[1](), made[1](), made[2](), made[3](), made[1]())`,
	"text is joined": `
		local a, b = "x", 1
		print(a .. b .. 2.5 .. "", "a" .. "b" == "ab", (a .. b) .. (b .. a), ("p"):rep(3) .. "q")`,
	"joining takes one value of a call": `
		local function two() return "a", "b" end
		print("x" .. two(), two() .. "y", ("z" .. two()) .. two())
		local function all(...) return "n" .. ... end
		print(all(1, 2, 3))`,
	"a long chain is joined": "local x = '.' print(" + strings.Repeat("x .. ", 100) + "'end')",
	"joining is evaluated from left to right and joined from the right": `
		local log = ""
		local mt = { __concat = function(a, b)
			local l = type(a) == "table" and a.n or a
			local r = type(b) == "table" and b.n or b
			log = log .. "(" .. l .. "," .. r .. ")"
			return l .. r
		end }
		local function t(n) return setmetatable({ n = n }, mt) end
		print(t("a") .. "b" .. t("c") .. "d" .. "e" .. 6, log)
		print("p" .. t("q"), t("r") .. t("s"), 1 .. t("u"))`,
	"tables are built": `
		local function two() return 7, 8 end
		local t = { 1, 2, x = 3, [4] = "four", two(), ["y z"] = 5, two() }
		print(#t, t[1], t[3], t[4], t[5], t.x, t["y z"])
		local u = { two(), (two()) } print(#u, u[1], u[2])
		local v = { [1 + 1] = "b", [true] = "t" } print(v[2], v[true])
		print(#{ ... }, #{ n = 1 }, next({}))`,
	"varargs are passed on": `
		local function count(...) return select("#", ...) end
		local function pass(...) local t = { ... } return count(...), #t, ... end
		print(pass(1, nil, 3), (pass(1, 2)))
		print(select(2, "a", "b", "c"))
		local function first(a, ...) return a, ... end
		print(first(1, 2, 3), (first(4, 5)))`,
	"loops of every kind end": `
		local out = {}
		for i = 10, 1, -3 do out[#out + 1] = i end
		local i = 0 while true do i = i + 1 if i > 3 then break end out[#out + 1] = i end
		repeat local done = i > 5 i = i + 1 until done
		for k, v in pairs({ a = 1 }) do out[#out + 1] = k .. v end
		for k, v in ipairs({ "p", "q", nil, "r" }) do out[#out + 1] = k .. v end
		print(table.concat(out, ","), i)`,
	"goto continues": `
		for i = 1, 5 do
			if i % 2 == 0 then goto continue end
			local f = function() return i end
			print(f())
			::continue::
		end`,
	"an if has many branches": `
		for i = 1, 4 do
			if i == 1 then print("a") elseif i == 2 then print("b") elseif i == 3 then print("c") else print("d") end
		end`,
	"metatables answer": `
		local seen = {}
		local t = setmetatable({ has = 1 }, {
			__index = function(t, k) return k .. "?" end,
			__newindex = function(t, k, v) seen[#seen + 1] = k .. "=" .. tostring(v) rawset(t, k, v) end,
			__call = function(self, a) return a + 1 end,
			__len = function() return 42 end, __unm = function() return "neg" end,
			__eq = function() return true end, __lt = function() return true end, __le = function() return false end,
			__add = function(a, b) return "sum" end, __tostring = function() return "T" end,
		})
		t.new = 2 t.new = 3 t.has = 4
		print(t.missing, t(1), #t, -t, t + 1, 1 + t, tostring(t), t.new, t.has, table.concat(seen, " "))
		local u = setmetatable({}, getmetatable(t)) print(t == u, t < u, t <= u, t ~= u)`,
	"__newindex leads to another table": `
		local store = {}
		local t = setmetatable({}, { __newindex = store })
		t.a = 1 t[1] = "one"
		print(rawget(t, "a"), store.a, store[1])`,
	"errors are caught": `
		print(pcall(error, "plain", 0))
		print(pcall(function() error({ code = 3 }) end) )
		print(select(2, pcall(function() local x = nil; return x.y end)) ~= nil)
		print(xpcall(function() error("e", 0) end, function(m) return "handled " .. m end))
		print(pcall(function(...) return select("#", ...) end, 1, 2, 3))`,
	"numbers are computed": `
		print(7 % 3, -7 % 3, 7 % -3, 2 ^ 10, 7 / 2, 1e3, 0x10, 10 == "10", "10" + 5, -2 ^ 2)
		print(1 < 2, "a" < "b", not nil, nil == false, 1 and 2, nil or "x", false and error("no"))`,
	"nested functions keep their self": `
		local o = { n = 1 }
		function o:outer() local function inner() return self.n end return inner() end
		print(o:outer())`,
	"shadowing": `
		local x = 1 do local x = 2 print(x) end print(x)
		local function f(x) x = x + 1 return x end print(f(5), x)`,
}

func TestGuardKeepsTheMeaning(t *testing.T) {
	for name, source := range programs {
		t.Run(name, func(t *testing.T) {
			want := plainOutput(t, source)
			var have []string
			box := newSandbox(nil, func(line string) { have = append(have, line) })
			fn, err := box.compile("<string>", []byte(source))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := box.run(context.Background(), request{steps: promptSteps, fn: fn}); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, have); diff != "" {
				t.Errorf("without (-) and with (+) the guard:\n%s", diff)
			}
		})
	}
}

// plainOutput runs a program in the interpreter as it comes.
func plainOutput(t *testing.T, source string) (lines []string) {
	t.Helper()
	L := lua.NewState()
	defer L.Close()
	L.SetGlobal("print", L.NewFunction(func(L *lua.LState) int {
		parts := make([]string, L.GetTop())
		for i := range parts {
			v := L.ToStringMeta(L.Get(i + 1)).String()
			if before, _, isAddress := strings.Cut(v, ": 0x"); isAddress {
				v = before // the sandbox shows no addresses
			}
			parts[i] = v
		}
		lines = append(lines, strings.Join(parts, "\t"))
		return 0
	}))
	if err := L.DoString(source); err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestGuardRefuses(t *testing.T) {
	cases := map[string]struct{ source, want string }{
		"a syntax error, with its line":    {"local a = 1\nlocal = 2", "s.lua:2: syntax error near '='"},
		"an unfinished file":               {"return {\n  a = 1,\n", "s.lua:2: syntax error: the file ends too early"},
		"a break without a loop":           {"local a\nbreak", "s.lua:2: no loop to break"},
		"an unknown label":                 {"goto nowhere", "no visible label 'nowhere'"},
		"deeply nested parentheses":        {"return " + strings.Repeat("-(", 5000) + "1" + strings.Repeat(")", 5000), "nested too deeply"},
		"deeply nested tables":             {"return " + strings.Repeat("{", 5000) + strings.Repeat("}", 5000), "nested too deeply"},
		"deeply nested blocks":             {strings.Repeat("do ", 5000) + strings.Repeat("end ", 5000), "nested too deeply"},
		"a table of too many fields":       {"return {" + strings.Repeat("1,", 20001) + "}", "too many fields"},
		"a file that is too large":         {strings.Repeat("-", 256<<10) + "\n", "the limit is 262144"},
		"bytes that are no Lua":            {"\x1bLua\x00\x01", "s.lua:1:"},
		"varargs outside their function":   {"function f() return ... end", "cannot use '...' outside"},
		"a name of the guard's own makes":  {"(concat)('a')", ""},
		"joining what is no text":          {"return 'a' .. {}", "s.lua:1: attempt to concatenate a table value"},
		"writing a field of nothing":       {"local t\nt.x = 1", `s.lua:2: attempt to index a nil value (field "x")`},
		"a key that is nil":                {"local t = {}\nt[nil] = 1", "s.lua:2: table index is nil"},
		"a key that is not a number":       {"local t = {} t[0/0] = 1", "table index is NaN"},
		"an endless chain of __newindex":   {"local t = {} setmetatable(t, {__newindex = t}) t.x = 1", "chain of __newindex is too long"},
		"replacing the guard from outside": {`_G["(concat)"] = nil`, "attempt to index a nil value"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := newSandbox(nil, nil).file("s.lua", []byte(c.source))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want an error with %q, have %v", c.want, err)
			}
		})
	}
}
