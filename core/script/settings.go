package script

import (
	"reflect"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/ast"

	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/sdk"
)

// override is one --set key=value: it wins over the script, and over what schedule returns.
type override struct {
	text  string // as given, for messages
	path  []string
	value lua.LValue
}

func parseOverrides(sets []string) ([]override, error) {
	var out []override
	for _, set := range sets {
		key, value, found := strings.Cut(set, "=")
		key = strings.TrimSpace(key)
		o := override{text: set, path: strings.Split(key, ".")}
		for _, part := range o.path {
			if part == "" || !found {
				return nil, sdk.Errorf(sdk.CodeUsage, "--set %s: want key=value", set).
					WithHint("for example --set lr=1e-4 or --set loss.beta=0.05")
			}
		}
		var err error
		if o.value, err = parseLiteral(strings.TrimSpace(value)); err != nil {
			return nil, sdk.Errorf(sdk.CodeUsage, "--set %s: %w", set, err)
		}
		out = append(out, o)
	}
	return out, nil
}

// parseLiteral reads a value as Lua writes it: a number, a text in quotes, true, false, or a table of
// these. Anything else is taken as a text without quotes, unless it begins like a table or a quote.
func parseLiteral(text string) (lua.LValue, error) {
	chunk, err := parseLua("value", []byte("return "+text))
	if err == nil && len(chunk) == 1 {
		if n, ok := chunk[0].(*ast.ReturnStmt); ok && len(n.Exprs) == 1 {
			if v, ok := literal(n.Exprs[0], 0); ok {
				return v, nil
			}
		}
	}
	if strings.HasPrefix(text, "{") || strings.HasPrefix(text, `"`) || strings.HasPrefix(text, "'") {
		if err == nil {
			return nil, sdk.Errorf(sdk.CodeUsage, "want only numbers, texts in quotes, true, false and tables of them in %s", text)
		}
		return nil, sdk.Errorf(sdk.CodeUsage, "%s is not written as in Lua", text)
	}
	return lua.LString(text), nil
}

// literal evaluates a constant expression.
func literal(expr ast.Expr, depth int) (lua.LValue, bool) {
	switch n := expr.(type) {
	case *ast.TrueExpr:
		return lua.LTrue, true
	case *ast.FalseExpr:
		return lua.LFalse, true
	case *ast.StringExpr:
		return lua.LString(n.Value), true
	case *ast.NumberExpr:
		if v, ok := number(n.Value, 10); ok {
			return lua.LNumber(v), true
		}
	case *ast.UnaryMinusOpExpr:
		if v, ok := literal(n.Expr, depth+1); ok && depth < 10 {
			if number, ok := v.(lua.LNumber); ok {
				return -number, true
			}
		}
	case *ast.TableExpr:
		if depth >= 10 {
			return nil, false
		}
		t := &lua.LTable{Metatable: lua.LNil}
		index := 0
		for _, field := range n.Fields {
			v, ok := literal(field.Value, depth+1)
			if !ok {
				return nil, false
			}
			if field.Key == nil {
				index++
				t.RawSetInt(index, v)
				continue
			}
			key, ok := literal(field.Key, depth+1)
			name, isText := key.(lua.LString)
			if !ok || !isText {
				return nil, false
			}
			t.RawSetString(string(name), v)
		}
		return t, true
	}
	return nil, false
}

// apply gives the overrides to an experiment or a plan. In a plan only settings of plans count, and a
// setting of a plugin that the plan does without is left out.
func apply(overrides []override, target any, inPlan, mayComeLater bool) error {
	for _, o := range overrides {
		d := decoder{code: sdk.CodeUsage, prefix: "--set " + o.text + ": "}
		for _, name := range callbacks {
			if o.path[0] == name {
				return d.fail(nil, "", "%s is a function: it can only be written in the script", name)
			}
		}
		f, _, _ := field(target, o.path[0])
		if inPlan && (!f.IsValid() || o.path[0] == "prompts") {
			continue
		}
		if len(o.path) > 1 && f.IsValid() && isAbsent(f) && (inPlan || mayComeLater) {
			continue
		}
		if err := d.setting(nil, target, o.path, o.value); err != nil {
			return err
		}
	}
	return nil
}

// isAbsent reports a plugin that is switched off.
func isAbsent(f reflect.Value) bool { return f.Type() == reflect.TypeFor[*loop.Plugin]() && f.IsNil() }
