package script

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/pm"
)

// findAll returns the first match and its captures, as string.find does: positions from 0.
func findFirst(source, text string, steps int64) (found []string, err error) {
	p, err := compilePattern(source, true)
	if err != nil {
		return nil, err
	}
	for at := 0; at <= len(text); at++ {
		m := matcher{pattern: p, text: text, steps: steps}
		end := m.match(at, 0)
		steps = m.steps
		if m.problem != "" {
			return nil, fmt.Errorf("%s", m.problem)
		}
		if end >= 0 {
			found = append(found, fmt.Sprint(at), fmt.Sprint(end))
			for _, c := range m.captures {
				if c.to == position {
					found = append(found, fmt.Sprint("@", c.from+1))
				} else {
					found = append(found, text[c.from:c.to])
				}
			}
			return found, nil
		}
		if p.anchored {
			break
		}
	}
	return nil, nil
}

func TestPatternFinds(t *testing.T) {
	cases := map[string]struct {
		pattern, text string
		want          string // "from to captures...", or ""
	}{
		"a plain text":                       {"llo", "hello", "2 5"},
		"any byte":                           {"h.l", "hello", "0 3"},
		"the longest repetition":             {"l*o", "hello", "2 5"},
		"at least one":                       {"l+", "heo", ""},
		"the shortest repetition":            {"<(.-)>", "a<b>c>", "1 4 b"},
		"an optional byte":                   {"colou?r", "color", "0 5"},
		"an optional byte that is given up":  {"a?ab", "ab", "0 2"},
		"the start only":                     {"^b", "ab", ""},
		"the end only":                       {"a$", "aba", "2 3"},
		"a dollar that is not at the end":    {"a$b", "a$b", "0 3"},
		"classes":                            {"%a+%s%d+", "x abc 12", "2 8"},
		"complements of classes":             {"%S+%W", "ab cd", "0 3"},
		"punctuation, hex and control bytes": {"%p%x%c", "a!f\n", "1 4"},
		"upper and lower case":               {"%u%l", "aBc", "1 3"},
		"an escaped special":                 {"%.%*", "a.*", "1 3"},
		"a set with ranges":                  {"[a-cx]+", "zabxcq", "1 5"},
		"a set's complement":                 {"[^a-c]+", "abzzc", "2 4"},
		"a bracket in a set":                 {"[]]", "a]", "1 2"},
		"a dash in a set":                    {"[a-]+", "b-a", "1 3"},
		"a class in a set":                   {"[%d_]+", "a1_2", "1 4"},
		"nested captures":                    {"((%a)%d)", "--x7", "2 4 x7 x"},
		"a position":                         {"()b()", "ab", "1 2 @2 @3"},
		"what a capture held":                {`(["'])(.-)%1`, `say "it's"`, `4 10 " it's`},
		"balanced brackets":                  {"%b()", "f(a(b)c)d", "1 8"},
		"unbalanced brackets":                {"%b()", "f(a(b", ""},
		"a frontier":                         {"%f[%a]%a+", "12ab", "2 4"},
		"a frontier at the end":              {"%a+%f[%z]", "ab cd", "3 5"},
		"an empty text":                      {".*", "", "0 0"},
		"bytes above 127":                    {"[\xc0-\xff]+", "a\xc3\xa9", "1 2"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			have, err := findFirst(c.pattern, c.text, 10000)
			if err != nil || strings.Join(have, " ") != c.want {
				t.Errorf("%q in %q: want %q, have %q, %v", c.pattern, c.text, c.want, strings.Join(have, " "), err)
			}
		})
	}
}

func TestPatternErrors(t *testing.T) {
	for source, want := range map[string]string{
		"(a":                      "'(' without ')'",
		"a)":                      "')' without '('",
		"[a":                      "']' is missing",
		"[":                       "']' is missing",
		"[%":                      "']' is missing",
		"a%":                      "it ends with '%'",
		"%1":                      "does not exist",
		"(a)%2":                   "does not exist",
		"(a%1)":                   "has no text",
		"()%1":                    "has no text",
		"%b(":                     "must follow %b",
		"%fa":                     "must follow %f",
		strings.Repeat("a", 1001): "too long",
		strings.Repeat("()", 33):  "too many captures",
	} {
		if _, err := findFirst(source, "aaa", 10000); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want an error with %q, have %v", source, want, err)
		}
	}
}

// TestPatternAgainstReference compares with the interpreter's own matcher on random patterns.
func TestPatternAgainstReference(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	var piece func(depth int) string
	piece = func(depth int) string {
		if depth < 2 && random.IntN(5) == 0 {
			inner := ""
			for range random.IntN(3) {
				inner += piece(depth + 1)
			}
			return "(" + inner + ")" // "()" too
		}
		return pick("a", "b", ".", "%a", "%d", "%s", "%w", "[ab]", "[^a]", "[a-c1]", "%b()", "[%d ]") + pick("", "", "", "*", "+", "-", "?")
	}
	matched := 0
	for range 20000 {
		source := pick("", "", "^")
		for range 1 + random.IntN(4) {
			source += piece(0)
		}
		source += pick("", "", "$")
		text := ""
		for range random.IntN(9) {
			text += pick("a", "b", "c", "1", " ", "(", ")")
		}
		// The reference repeats only single bytes: after "%b()" it reads the sign as a byte, and so do we.
		have, err := findFirst(source, text, 1e6)
		if err != nil {
			t.Fatalf("%q: %v", source, err)
		}
		matches, err := pm.Find(source, []byte(text), 0, 1)
		if err != nil {
			t.Fatalf("%q: the reference says %v", source, err)
		}
		var want []string
		if len(matches) > 0 {
			m := matches[0]
			want = append(want, fmt.Sprint(m.Capture(0)), fmt.Sprint(m.Capture(1)))
			for i := 2; i < m.CaptureLength(); i += 2 {
				if m.IsPosCapture(i) {
					want = append(want, fmt.Sprint("@", m.Capture(i)))
				} else {
					want = append(want, text[m.Capture(i):m.Capture(i+1)])
				}
			}
			matched++
		}
		if diff := cmp.Diff(want, have); diff != "" {
			t.Fatalf("%q in %q, reference (-) and ours (+):\n%s", source, text, diff)
		}
	}
	if matched < 5000 {
		t.Errorf("only %d of 20000 patterns matched: the test says too little", matched)
	}
}

func TestF22PatternBombsUseUpTheBudget(t *testing.T) {
	// Backtracking over 28 optional letters takes 2^28 attempts; ".*" eight times over 200 bytes takes
	// 200^8/8! or 6e13.
	for name, source := range map[string]string{
		"optional letters":  `return string.find(('a'):rep(28), ('a?'):rep(28) .. ('a'):rep(28))`,
		"repeated any byte": `return ('a'):rep(200):match(('.*'):rep(8) .. 'b')`,
		"lazy repetition":   `return ('a'):rep(500):gsub(('.-'):rep(20) .. 'b', '')`,
		"an iterator":       `for _ in ('a'):rep(500):gmatch(('a*'):rep(10) .. 'b') do end`,
		"a balance":         `return ('('):rep(1000000):gsub('%b()', '')`,
		"caught each time":  `while true do pcall(string.find, ('a'):rep(28), ('a?'):rep(28) .. ('a'):rep(28)) end`,
	} {
		t.Run(name, func(t *testing.T) {
			box := newSandbox(nil, nil)
			fn, err := box.compile("bomb.lua", []byte(source))
			if err != nil {
				t.Fatal(err)
			}
			_, err = box.run(context.Background(), request{steps: promptSteps, fn: fn})
			if err == nil || !strings.Contains(err.Error(), "bomb.lua:1: used more than 1000000 instructions") {
				t.Errorf("want the budget's error, have %v", err)
			}
		})
	}
}

func TestStringLibrary(t *testing.T) {
	for expression, want := range map[string]string{
		`("hello"):sub(2, 3)`:                            "el",
		`("hello"):sub(-3)`:                              "llo",
		`("hello"):sub(0, 2)`:                            "he",
		`("hello"):sub(4, 2) == ""`:                      "true",
		`("hello"):sub(-100, 100)`:                       "hello",
		`("AbC\xc4"):lower() == "abc\xc4"`:               "true",
		`("aBc"):upper()`:                                "ABC",
		`("abc"):reverse()`:                              "cba",
		`("ab"):rep(3) .. ("x"):rep(0) .. ("x"):rep(-1)`: "ababab",
		`#"abc" + ("abc"):len()`:                         "6",
		`("abc"):byte()`:                                 "97",
		`select("#", ("abc"):byte(1, -1))`:               "3",
		`string.char(72, 105)`:                           "Hi",
		`("a.b"):find(".", 1, true)`:                     "2",
		`("a.b"):find("%.")`:                             "2",
		`("abc"):find("b", -1) == nil`:                   "true",
		`("abc"):find("")`:                               "1",
		`("abc"):find("", 10)`:                           "4",
		`("key = value"):match("(%w+) = (%w+)")`:         "key",
		`("abc"):match("()b")`:                           "2",
		`("hello world"):gsub("o", "0")`:                 "hell0 w0rld",
		`select(2, ("hello world"):gsub("o", "0"))`:      "2",
		`("hello"):gsub("l", "L", 1)`:                    "heLlo",
		`("hello"):gsub("", "-")`:                        "-h-e-l-l-o-",
		`("abc"):gsub("%w", "%0%0")`:                     "aabbcc",
		`("a=1"):gsub("(%w)=(%w)", "%2=%1")`:             "1=a",
		`("$a $b"):gsub("%$(%w)", { a = "x" })`:          "x $b",
		`("abc"):gsub("%w", function(c) if c == "b" then return "B" end end)`:                      "aBc",
		`("50%"):gsub("%%", "%%%%")`:                                                               "50%%",
		`("aaa"):gsub("^a", "b")`:                                                                  "baa",
		`string.format("%d %5d|%-5d|%05d", 3, 4, 5, 6)`:                                            "3     4|5    |00006",
		`string.format("%.2f %5.1f %g %g", 1.005, 2, 1e20, 0.1)`:                                   "1.00   2.0 1e+20 0.1",
		`string.format("%s %10s %-4s| %.2s", 1, "a", "b", "xyz")`:                                  "1          a b   | xy",
		`string.format("%x %X %o %c %%", 255, 255, 8, 65)`:                                         "ff FF 10 A %",
		`string.format("%q", 'a "b"\n')`:                                                           "\"a \\\"b\\\"\\\n\"",
		`string.format("%s %s", nil, true)`:                                                        "nil true",
		`string.format("%s", {})`:                                                                  "table",
		`tostring(print)`:                                                                          "function",
		`tonumber("0x1F") + tonumber("1e2") + tonumber(" 5 ")`:                                     "136",
		`tonumber("ff", 16) + tonumber("-101", 2)`:                                                 "250",
		`tostring(tonumber("1_0")) .. tostring(tonumber("inf")) .. tostring(tonumber(""))`:         "nilnilnil",
		`table.concat({ 1, 2, "x" }, ", ", 2)`:                                                     "2, x",
		`table.remove({ 1, 2, 3 }) + table.remove({ 5, 6 }, 1)`:                                    "8",
		`#(function() local t = { 1, 3 } table.insert(t, 2, 2) table.insert(t, 4) return t end)()`: "4",
		`table.concat((function() local t = { 3, 1, 2 } table.sort(t) return t end)(), "")`:        "123",
		`table.concat((function() local t = { 3, 1, 2 } table.sort(t, function(a, b) return a > b end) return t end)(), "")`: "321",
		`math.floor(2.7) + math.max(1, 5, 3)`: "7",
		`1 / math.huge`:                       "0",
		`getmetatable("")`:                    "false",
	} {
		box := newSandbox(nil, nil)
		fn, err := box.compile("s.lua", []byte("return "+expression))
		if err != nil {
			t.Fatal(err)
		}
		have, err := box.run(context.Background(), request{steps: promptSteps, fn: fn})
		if err != nil || have.String() != want {
			t.Errorf("%s: want %q, have %q, %v", expression, want, have, err)
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("(a*(.)%w(%s*))", "THE (quick) fox")
	f.Add("%f[%w]%b()[^]-a]$", "a(b)")
	f.Fuzz(func(t *testing.T, source, text string) {
		if len(text) > 1000 {
			return
		}
		found, err := findFirst(source, text, 100000)
		if err == nil && found == nil {
			return
		}
		box := newSandbox(nil, nil)
		box.globals.RawSetString("p", lua.LString(source))
		box.globals.RawSetString("s", lua.LString(text))
		fn, compileErr := box.compile("f.lua", []byte(`s:find(p) s:match(p) s:gsub(p, "%0") for _ in s:gmatch(p) do end`))
		if compileErr != nil {
			t.Fatal(compileErr)
		}
		_, runErr := box.run(context.Background(), request{steps: promptSteps, fn: fn})
		if err != nil && runErr == nil && strings.ContainsAny(source, `^$*+?.([%-`) {
			t.Errorf("%q: the pattern is wrong (%v), and no function says so", source, err)
		}
		if runErr != nil && strings.Contains(runErr.Error(), "interpreter failed") {
			t.Error(runErr)
		}
	})
}
