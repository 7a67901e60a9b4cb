package sdk_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/dno-project/dno/sdk/pluginpb"
)

var update = flag.Bool("update", false, "add what is new to testdata/api.txt")

const frozen = "testdata/api.txt"

// What plugins are written against is frozen: a line of the file may not go away, for a plugin somewhere
// may need it. New lines are added with -update.
func TestTheAPIOnlyGrows(t *testing.T) {
	have := wire()
	for _, pkg := range []string{".", "serve", "sdktest"} {
		have = append(have, exported(t, pkg)...)
	}
	slices.Sort(have)
	data, err := os.ReadFile(frozen)
	if err != nil && !*update {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(data)), "\n")
	for _, line := range want {
		if line != "" && !slices.Contains(have, line) {
			t.Errorf("removed from the frozen API, or changed: %s", line)
		}
	}
	var fresh []string
	for _, line := range have {
		if !slices.Contains(want, line) {
			fresh = append(fresh, line)
			// Whoever implements an interface breaks when it grows; a new one may have any methods.
			if grown, isMethod := interfaceOf(line); isMethod && slices.Contains(want, grown) {
				t.Errorf("a frozen interface got a method: %s", line)
			}
		}
	}
	if !*update {
		for _, line := range fresh {
			t.Errorf("not in %s: %s\n(if it shall be frozen: go test ./sdk -run TestTheAPIOnlyGrows -update)", frozen, line)
		}
		return
	}
	all := slices.DeleteFunc(append(want, fresh...), func(s string) bool { return s == "" })
	slices.Sort(all)
	if err := os.WriteFile(frozen, []byte(strings.Join(all, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// interfaceOf returns the line that declares the interface whose method a line is.
func interfaceOf(line string) (declaration string, isMethod bool) {
	pkg, method, isMethod := strings.Cut(line, ": method ")
	name, _, _ := strings.Cut(method, ".")
	return pkg + ": type " + name + " interface", isMethod
}

// wire lists the messages' fields and the services' methods.
func wire() (lines []string) {
	file := pluginpb.File_plugin_proto
	for i := range file.Messages().Len() {
		m := file.Messages().Get(i)
		lines = append(lines, fmt.Sprintf("wire: message %s", m.FullName()))
		for k := range m.Fields().Len() {
			f := m.Fields().Get(k)
			kind := f.Kind().String()
			switch {
			case f.IsMap():
				kind = fmt.Sprintf("map<%v, %v>", f.MapKey().Kind(), f.MapValue().Kind())
			case f.Kind() == protoreflect.MessageKind:
				kind = string(f.Message().Name())
			}
			label := ""
			if f.IsList() {
				label = "repeated "
			} else if f.HasOptionalKeyword() {
				label = "optional "
			}
			lines = append(lines, fmt.Sprintf("wire: %s.%s = %d %s%s", m.Name(), f.Name(), f.Number(), label, kind))
		}
	}
	for i := range file.Services().Len() {
		s := file.Services().Get(i)
		for k := range s.Methods().Len() {
			m := s.Methods().Get(k)
			in, out := string(m.Input().Name()), string(m.Output().Name())
			if m.IsStreamingClient() {
				in = "stream " + in
			}
			if m.IsStreamingServer() {
				out = "stream " + out
			}
			lines = append(lines, fmt.Sprintf("wire: rpc %s.%s(%s) returns (%s)", s.FullName(), m.Name(), in, out))
		}
	}
	return lines
}

// exported lists what a package exports, a line a declaration, a field, a method of an interface.
func exported(t *testing.T, dir string) (lines []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s has no files: %v", dir, err)
	}
	fset, name := token.NewFileSet(), filepath.Base(dir)
	if dir == "." {
		name = "sdk"
	}
	add := func(format string, args ...any) { lines = append(lines, name+": "+fmt.Sprintf(format, args...)) }
	text := func(node any) string {
		var b bytes.Buffer
		if err := printer.Fprint(&b, fset, node); err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(b.String()), " ")
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && (d.Recv == nil || ast.IsExported(strings.TrimLeft(text(d.Recv.List[0].Type), "*"))) {
					f := *d
					f.Doc, f.Body = nil, nil
					add("%s", text(&f))
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.ValueSpec:
						for i, n := range s.Names {
							if n.IsExported() {
								value := ""
								if s.Type != nil {
									value = " " + text(s.Type)
								}
								if d.Tok == token.CONST && i < len(s.Values) {
									value += " = " + text(s.Values[i])
								}
								add("%s %s%s", d.Tok, n.Name, value)
							}
						}
					case *ast.TypeSpec:
						if s.Name.IsExported() {
							addType(add, text, s)
						}
					}
				}
			}
		}
	}
	return lines
}

func addType(add func(string, ...any), text func(any) string, s *ast.TypeSpec) {
	switch x := s.Type.(type) {
	case *ast.StructType:
		add("type %s struct", s.Name.Name)
		for _, f := range x.Fields.List {
			if len(f.Names) == 0 && ast.IsExported(strings.TrimLeft(text(f.Type), "*")) {
				add("embeds %s.%s", s.Name.Name, text(f.Type))
			}
			for _, n := range f.Names {
				if n.IsExported() {
					add("field %s.%s %s", s.Name.Name, n.Name, text(f.Type))
				}
			}
		}
	case *ast.InterfaceType:
		add("type %s interface", s.Name.Name)
		for _, m := range x.Methods.List {
			names := []string{text(m.Type)} // embedded
			for _, n := range m.Names {
				names = []string{n.Name + strings.TrimPrefix(text(m.Type), "func")}
			}
			add("method %s.%s", s.Name.Name, names[0])
		}
	default:
		add("type %s %s", s.Name.Name, text(s.Type))
	}
}
