package script

import (
	"bytes"
	"errors"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/ast"
	"github.com/yuin/gopher-lua/parse"

	"github.com/dno-project/dno/sdk"
)

// A handful of Lua's operations can take any amount of memory, or change any table, in a single
// instruction. The guard rewrites them, before compilation, into calls of these functions, which
// count and refuse. No script can name, read or replace them: the names are no identifiers.
const (
	guardConcat  = "(concat)"  // a .. b .. c
	guardSet     = "(set)"     // t[k] = v
	guardTable   = "(table)"   // { ... }, with the constructor's number
	guardKey     = "(key)"     // { [k] = ... }
	guardClosure = "(closure)" // function ... end
	guardCharge  = "(charge)"  // local function ... end
	guardVarargs = "(varargs)" // function(...): once at each call
)

const (
	maxSource = 256 << 10 // bytes a file
	maxDepth  = 200       // of nested expressions and blocks: Lua's own limit
	maxFields = 20000     // of one table constructor
	maxConcat = 40        // operands of one call: registers are few
)

// place is where a table constructor stands, so that a bad key can be pointed at.
type place struct {
	file  string
	line  int
	keyed int            // fields with a key
	keys  map[string]int // line of each named field
}

// compile turns a file into a guarded function. Errors are of CodeScript and begin with file:line.
func (s *sandbox) compile(file string, source []byte) (*lua.LFunction, error) {
	if len(source) > maxSource {
		return nil, sdk.Errorf(sdk.CodeScript, "%s: the file has %d bytes, the limit is %d", file, len(source), maxSource)
	}
	chunk, err := parseLua(file, source)
	if err != nil {
		return nil, err
	}
	g := &guard{file: file, sandbox: s}
	chunk = g.block(chunk)
	if g.problem != "" {
		return nil, sdk.Errorf(sdk.CodeScript, "%s:%d: %s", file, g.line, g.problem)
	}
	proto, err := lua.Compile(chunk, file)
	if err != nil {
		var bad *lua.CompileError
		if errors.As(err, &bad) {
			return nil, sdk.Errorf(sdk.CodeScript, "%s:%d: %s", file, bad.Line, bad.Message)
		}
		return nil, sdk.Errorf(sdk.CodeScript, "%s: %w", file, err)
	}
	fn := s.L.NewFunctionFromProto(proto)
	fn.Env = s.env
	return fn, nil
}

// parseLua parses a file; what the parser panics with is an error like any other.
func parseLua(file string, source []byte) (chunk []ast.Stmt, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = sdk.Errorf(sdk.CodeScript, "%s: cannot be parsed: %v", file, r)
		}
	}()
	if chunk, err = parse.Parse(bytes.NewReader(source), file); err == nil {
		return chunk, nil
	}
	var bad *parse.Error
	switch {
	case !errors.As(err, &bad):
		return nil, sdk.Errorf(sdk.CodeScript, "%s: %w", file, err)
	case bad.Pos.Line == parse.EOF:
		return nil, sdk.Errorf(sdk.CodeScript, "%s:%d: %s: the file ends too early, perhaps an 'end' or '}' is missing",
			file, 1+bytes.Count(bytes.TrimRight(source, "\n"), []byte("\n")), bad.Message)
	}
	return nil, sdk.Errorf(sdk.CodeScript, "%s:%d: %s near '%s'", file, bad.Pos.Line, strings.TrimSpace(bad.Message), bad.Token)
}

// guard rewrites one file's syntax tree in place.
type guard struct {
	file    string
	sandbox *sandbox
	depth   int
	problem string // the first one, at line
	line    int
}

func (g *guard) fail(line int, problem string) {
	if g.problem == "" {
		g.problem, g.line = problem, line
	}
}

// enter counts nesting; false means that the tree is too deep to go on.
func (g *guard) enter(line int) bool {
	if g.depth >= maxDepth {
		g.fail(line, "expressions or blocks are nested too deeply")
	}
	if g.problem != "" {
		return false
	}
	g.depth++
	return true
}

func (g *guard) block(in []ast.Stmt) []ast.Stmt {
	out := make([]ast.Stmt, 0, len(in))
	for _, stmt := range in {
		if !g.enter(stmt.Line()) {
			return out
		}
		out = append(out, g.stmt(stmt)...)
		g.depth--
	}
	return out
}

func (g *guard) stmt(stmt ast.Stmt) []ast.Stmt {
	switch n := stmt.(type) {
	case *ast.AssignStmt:
		return g.assign(n)
	case *ast.LocalAssignStmt:
		// A function that is the only value is in its own scope; a call around it would end that.
		if f, ok := only(n.Exprs).(*ast.FunctionExpr); ok && len(n.Names) == 1 {
			g.function(f)
			return []ast.Stmt{statement(call(n.Line(), guardCharge)), n}
		}
		g.exprs(n.Exprs)
	case *ast.FuncCallStmt:
		n.Expr = g.expr(n.Expr)
	case *ast.DoBlockStmt:
		n.Stmts = g.block(n.Stmts)
	case *ast.WhileStmt:
		n.Condition, n.Stmts = g.expr(n.Condition), g.block(n.Stmts)
	case *ast.RepeatStmt:
		n.Stmts, n.Condition = g.block(n.Stmts), g.expr(n.Condition)
	case *ast.IfStmt:
		n.Condition, n.Then, n.Else = g.expr(n.Condition), g.block(n.Then), g.block(n.Else)
	case *ast.NumberForStmt:
		n.Init, n.Limit = g.expr(n.Init), g.expr(n.Limit)
		if n.Step != nil {
			n.Step = g.expr(n.Step)
		}
		n.Stmts = g.block(n.Stmts)
	case *ast.GenericForStmt:
		g.exprs(n.Exprs)
		n.Stmts = g.block(n.Stmts)
	case *ast.FuncDefStmt:
		return g.assign(definition(n))
	case *ast.ReturnStmt:
		g.exprs(n.Exprs)
	}
	return []ast.Stmt{stmt}
}

// definition writes "function a.b:c() end" as the assignment that it is short for.
func definition(n *ast.FuncDefStmt) *ast.AssignStmt {
	target := n.Name.Func
	if target == nil {
		key := &ast.StringExpr{Value: n.Name.Method}
		key.SetLine(n.Line())
		target = &ast.AttrGetExpr{Object: n.Name.Receiver, Key: key}
		target.SetLine(n.Line())
		n.Func.ParList.Names = append([]string{"self"}, n.Func.ParList.Names...)
	}
	out := &ast.AssignStmt{Lhs: []ast.Expr{target}, Rhs: []ast.Expr{n.Func}}
	out.SetLine(n.Line())
	return out
}

// assign leaves assignments to names alone and turns those to fields into calls. With several
// targets, as in Lua: tables and keys first, then the values, then the assignments from the right.
func (g *guard) assign(n *ast.AssignStmt) []ast.Stmt {
	fields := 0
	for _, target := range n.Lhs {
		if _, ok := target.(*ast.AttrGetExpr); ok {
			fields++
		}
	}
	if fields == 0 {
		g.exprs(n.Rhs)
		return []ast.Stmt{n}
	}
	line := n.Line()
	if len(n.Lhs) == 1 && len(n.Rhs) == 1 {
		target := n.Lhs[0].(*ast.AttrGetExpr)
		return []ast.Stmt{statement(call(line, guardSet, g.expr(target.Object), g.expr(target.Key), single(g.expr(n.Rhs[0]))))}
	}
	block := &ast.DoBlockStmt{}
	block.SetLine(line)
	block.SetLastLine(line)
	let := func(names []string, values []ast.Expr) {
		local := &ast.LocalAssignStmt{Names: names, Exprs: values}
		local.SetLine(line)
		block.Stmts = append(block.Stmts, local)
	}
	temporary := func(kind string, i int) string { return "(" + kind + string(rune('a'+i)) + ")" }
	for i, target := range n.Lhs {
		if field, ok := target.(*ast.AttrGetExpr); ok {
			let([]string{temporary("table ", i), temporary("key ", i)}, []ast.Expr{single(g.expr(field.Object)), single(g.expr(field.Key))})
		}
	}
	g.exprs(n.Rhs)
	names := make([]string, len(n.Lhs))
	for i := range names {
		names[i] = temporary("value ", i)
	}
	let(names, n.Rhs)
	for i := len(n.Lhs) - 1; i >= 0; i-- {
		value := ident(line, names[i])
		if _, ok := n.Lhs[i].(*ast.AttrGetExpr); ok {
			block.Stmts = append(block.Stmts, statement(call(line, guardSet, ident(line, temporary("table ", i)), ident(line, temporary("key ", i)), value)))
			continue
		}
		set := &ast.AssignStmt{Lhs: []ast.Expr{n.Lhs[i]}, Rhs: []ast.Expr{value}}
		set.SetLine(line)
		block.Stmts = append(block.Stmts, set)
	}
	return []ast.Stmt{block}
}

func (g *guard) exprs(list []ast.Expr) {
	for i := range list {
		list[i] = g.expr(list[i])
	}
}

func (g *guard) expr(expr ast.Expr) ast.Expr {
	if !g.enter(expr.Line()) {
		return expr
	}
	defer func() { g.depth-- }()
	switch n := expr.(type) {
	case *ast.AttrGetExpr:
		n.Object, n.Key = g.expr(n.Object), g.expr(n.Key)
	case *ast.TableExpr:
		return g.table(n)
	case *ast.FuncCallExpr:
		if n.Func != nil {
			n.Func = g.expr(n.Func)
		} else {
			n.Receiver = g.expr(n.Receiver)
		}
		g.exprs(n.Args)
	case *ast.LogicalOpExpr:
		n.Lhs, n.Rhs = g.expr(n.Lhs), g.expr(n.Rhs)
	case *ast.RelationalOpExpr:
		n.Lhs, n.Rhs = g.expr(n.Lhs), g.expr(n.Rhs)
	case *ast.ArithmeticOpExpr:
		n.Lhs, n.Rhs = g.expr(n.Lhs), g.expr(n.Rhs)
	case *ast.StringConcatOpExpr:
		return g.concat(n)
	case *ast.UnaryMinusOpExpr:
		n.Expr = g.expr(n.Expr)
	case *ast.UnaryNotOpExpr:
		n.Expr = g.expr(n.Expr)
	case *ast.UnaryLenOpExpr:
		n.Expr = g.expr(n.Expr)
	case *ast.FunctionExpr:
		g.function(n)
		return single(call(n.Line(), guardClosure, n))
	}
	return expr
}

func (g *guard) function(n *ast.FunctionExpr) {
	n.Stmts = g.block(n.Stmts)
	if n.ParList.HasVargs {
		// Besides, naming "..." keeps the interpreter from making Lua 5.0's table "arg" at each call.
		all := &ast.Comma3Expr{}
		all.SetLine(n.Line())
		n.Stmts = append([]ast.Stmt{statement(call(n.Line(), guardVarargs, all))}, n.Stmts...)
	}
}

func (g *guard) table(n *ast.TableExpr) ast.Expr {
	if len(n.Fields) > maxFields {
		g.fail(n.Line(), "the table has too many fields")
	}
	p := &place{file: g.file, line: n.Line(), keys: map[string]int{}}
	for _, field := range n.Fields {
		field.Value = g.expr(field.Value)
		switch key := field.Key.(type) {
		case nil:
			continue
		case *ast.StringExpr:
			p.keys[key.Value] = key.Line()
		default:
			field.Key = single(call(key.Line(), guardKey, g.expr(key)))
		}
		p.keyed++
	}
	number := &ast.NumberExpr{Value: strconv.Itoa(len(g.sandbox.places))}
	number.SetLine(n.Line())
	g.sandbox.places = append(g.sandbox.places, p)
	return single(call(n.Line(), guardTable, n, number))
}

func (g *guard) concat(n *ast.StringConcatOpExpr) ast.Expr {
	var operands []ast.Expr
	var rest ast.Expr = n
	for {
		more, ok := rest.(*ast.StringConcatOpExpr)
		if !ok || len(operands) == maxConcat {
			break
		}
		operands, rest = append(operands, g.expr(more.Lhs)), more.Rhs
	}
	operands = append(operands, single(g.expr(rest)))
	return single(call(n.Line(), guardConcat, operands...))
}

func call(line int, name string, args ...ast.Expr) *ast.FuncCallExpr {
	out := &ast.FuncCallExpr{Func: ident(line, name), Args: args}
	out.SetLine(line)
	return out
}

func ident(line int, name string) ast.Expr {
	out := &ast.IdentExpr{Value: name}
	out.SetLine(line)
	return out
}

func statement(expr *ast.FuncCallExpr) ast.Stmt {
	out := &ast.FuncCallStmt{Expr: expr}
	out.SetLine(expr.Line())
	return out
}

// single puts what may have several values in parentheses.
func single(expr ast.Expr) ast.Expr {
	switch n := expr.(type) {
	case *ast.FuncCallExpr:
		n.AdjustRet = true
	case *ast.Comma3Expr:
		n.AdjustRet = true
	}
	return expr
}

func only(list []ast.Expr) ast.Expr {
	if len(list) == 1 {
		return list[0]
	}
	return nil
}
