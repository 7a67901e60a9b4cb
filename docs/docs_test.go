// Package docs_test keeps the documents true: what they say of the code is held against it.
package docs_test

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/bench"
	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/core/report"
	"github.com/dno-project/dno/core/script"
)

const module = "github.com/dno-project/dno/"

// source is what the policy looks at in one package: its imports (tests left out) and its comment.
type source struct {
	imports []string
	comment string
}

// packages parses the module's files in this process. Asking "go list" instead would hide from the
// go command which files the test read, and a cached pass would miss a new import.
func packages(t *testing.T) map[string]*source {
	t.Helper()
	found := map[string]*source{}
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			_, nested := os.Stat(filepath.Join(file, "go.mod"))
			if file != ".." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || nested == nil) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("..", filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := found[filepath.ToSlash(rel)]
		if pkg == nil {
			pkg = &source{}
			found[filepath.ToSlash(rel)] = pkg
		}
		pkg.add(t, parsed)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (s *source) add(t *testing.T, file *ast.File) {
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(s.imports, imported) {
			s.imports = append(s.imports, imported)
		}
	}
	if file.Doc != nil {
		s.comment += file.Doc.Text()
	}
}

// block reads the fenced block of architecture.md with the given language: "from -> to to ...".
func block(t *testing.T, language string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```"+language+"\n")
	body, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatalf("architecture.md has no block %q", language)
	}
	out := map[string][]string{}
	for _, line := range strings.Split(strings.TrimSpace(body), "\n") {
		from, to, ok := strings.Cut(line, "->")
		if !ok {
			t.Fatalf("architecture.md, block %q: %q has no arrow", language, line)
		}
		from = strings.TrimSpace(from)
		out[from] = append(out[from], strings.Fields(to)...)
	}
	return out
}

// matches says whether a package is named by a pattern: itself, or "x/..." for all below x.
func matches(pattern, pkg string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == below || strings.HasPrefix(pkg, below+"/")
	}
	return pattern == pkg
}

func anyMatches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, pkg) })
}

func TestImportsFollowThePolicy(t *testing.T) {
	allowed := block(t, "imports")
	for pkg, src := range packages(t) {
		rules, known := allowed[pkg]
		for pattern, to := range allowed {
			if !known && strings.HasSuffix(pattern, "/...") && matches(pattern, pkg) {
				rules, known = to, true
			}
		}
		if !known {
			t.Errorf("%s: no line in architecture.md says what it may import", pkg)
		}
		for _, imported := range src.imports {
			if own, ok := strings.CutPrefix(imported, module); ok && !anyMatches(rules, own) {
				t.Errorf("%s imports %s: architecture.md draws no such arrow", pkg, own)
			}
		}
	}
}

func TestImportPolicyNamesWhatExists(t *testing.T) {
	found := packages(t)
	for from, tos := range block(t, "imports") {
		for _, pattern := range append(tos, from) {
			exists := false
			for pkg := range found {
				exists = exists || matches(pattern, pkg)
			}
			if !exists {
				t.Errorf("architecture.md names %s, which does not exist", pattern)
			}
		}
	}
}

func TestDependenciesStayAtHome(t *testing.T) {
	homes := block(t, "homes")
	for pkg, src := range packages(t) {
		for _, imported := range src.imports {
			for dependency, at := range homes {
				if (imported == dependency || strings.HasPrefix(imported, dependency+"/")) && !anyMatches(at, pkg) {
					t.Errorf("%s imports %s, whose home is %s", pkg, imported, strings.Join(at, ", "))
				}
			}
		}
	}
}

func TestEveryPackageHasACaption(t *testing.T) {
	for pkg, src := range packages(t) {
		if pkg == "sdk/pluginpb" {
			continue // generated
		}
		name := path.Base(pkg)
		if !strings.HasPrefix(src.comment, "Package "+name+" ") && !strings.HasPrefix(src.comment, "Command "+name+" ") {
			t.Errorf("%s: its comment does not begin with \"Package %s\": %.40q", pkg, name, src.comment)
		}
	}
}

// A released module with a replace directive cannot be installed with "go install".
func TestGoModHasNoReplace(t *testing.T) {
	text, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "replace") {
		t.Error("go.mod has a replace directive")
	}
}

// The longest hand-written file stays readable in one sitting.
func TestFilesStayShort(t *testing.T) {
	err := filepath.WalkDir("..", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && file != ".." {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, ".pb.go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if n := strings.Count(string(text), "\n"); n > 600 && !strings.HasPrefix(string(text), "// Code generated") {
			t.Errorf("%s has %d lines", file, n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// settings.md names every setting that the types have.
func TestSettingsPageIsComplete(t *testing.T) {
	page, err := os.ReadFile("reference/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[loop.Experiment](), reflect.TypeFor[loop.Plan](), reflect.TypeFor[loop.Evaluate]()} {
		for i := range typ.NumField() {
			key, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if key == "files" || key == "plan" {
				continue // spelled prompts.train, ... and one by one
			}
			if !strings.Contains(string(page), "`"+key) && !strings.Contains(string(page), "."+key+"`") {
				t.Errorf("settings.md does not name %q", key)
			}
		}
	}
}

// report.md names every key of the report, and bench.md every key of `dno bench --json`.
func TestPagesOfKeysAreComplete(t *testing.T) {
	for name, types := range map[string][]reflect.Type{
		"reference/report.md": {reflect.TypeFor[report.Report](), reflect.TypeFor[report.Iteration](), reflect.TypeFor[report.Pairs]()},
		"reference/bench.md": {reflect.TypeFor[bench.Result](), reflect.TypeFor[bench.Machine](), reflect.TypeFor[bench.Kernel](),
			reflect.TypeFor[bench.Model](), reflect.TypeFor[bench.Speed](), reflect.TypeFor[bench.Iteration]()},
	} {
		page, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var keys func(reflect.Type)
		keys = func(typ reflect.Type) {
			for i := range typ.NumField() {
				f := typ.Field(i)
				if f.Anonymous {
					keys(f.Type)
					continue
				}
				key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
				base := key
				for _, suffix := range []string{"_low", "_high", "_median", "_one_thread"} {
					base = strings.TrimSuffix(base, suffix)
				}
				if !strings.Contains(string(page), "`"+base) {
					t.Errorf("%s does not name %q", name, key)
				}
			}
		}
		for _, typ := range types {
			keys(typ)
		}
	}
}

// exit-codes.md lists every code of sdk/errors.go, and no other.
func TestExitCodesPageIsComplete(t *testing.T) {
	page, err := os.ReadFile("reference/exit-codes.md")
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "../sdk/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Code") {
			code := v.Values[0].(*ast.BasicLit).Value
			if !strings.Contains(string(page), "| "+code+" |") && !strings.Contains(string(page), code+", ") && !strings.Contains(string(page), ", "+code+" |") {
				t.Errorf("exit-codes.md does not list %s", code)
			}
			codes++
		}
		return true
	})
	if codes < 10 {
		t.Errorf("only %d codes found", codes)
	}
}

// Every file that papers.md names exists.
func TestPapersPageNamesWhatExists(t *testing.T) {
	page, err := os.ReadFile("papers.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:core|plugins|scripts|sdk)/[a-z/]+)`").FindAllStringSubmatch(string(page), -1)
	if len(named) < 8 {
		t.Fatalf("only %d places named", len(named))
	}
	for _, m := range named {
		if _, err := os.Stat("../" + m[1]); err != nil {
			t.Errorf("papers.md names %s: %v", m[1], err)
		}
	}
}

// Links between the pages lead somewhere.
func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)\)`)
	err := filepath.WalkDir(".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(file, ".md") {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", file, m[1], err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The scripts that README and tutorial show are scripts.
func TestShownScriptsLoad(t *testing.T) {
	block := regexp.MustCompile("(?s)```lua[^\n]*\n(.*?)```")
	shown := 0
	for _, file := range []string{"../README.md", "tutorial/first-run.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range block.FindAllStringSubmatch(string(text), -1) {
			shown++
			if _, err := script.Load(script.Options{Name: file, Source: []byte(m[1])}); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			if n := strings.Count(m[1], "\n"); file == "../README.md" && n > 30 {
				t.Errorf("the script in README has %d lines, at most 30", n)
			}
		}
	}
	if shown < 2 {
		t.Errorf("only %d scripts are shown", shown)
	}
}

func TestContributingIsShort(t *testing.T) {
	text, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 150 {
		t.Errorf("CONTRIBUTING.md has %d lines, at most 150", n)
	}
}

// The oracle of README's control answers, and the same whichever text comes first.
func TestHashOracleAnswers(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("NOT TESTED: there is no python3")
	}
	cmd := exec.Command("python3", "examples/hash-oracle.py")
	cmd.Stdin = strings.NewReader(`{"id":"1","prompt":"x","a":"12","b":"34"}` + "\n" + `{"id":"2","prompt":"x","a":"34","b":"12"}` + "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var p [2]struct {
		ID string
		P  float64
	}
	dec := json.NewDecoder(bytes.NewReader(out))
	for i := range p {
		if err := dec.Decode(&p[i]); err != nil {
			t.Fatal(err)
		}
	}
	if p[0].ID != "1" || p[1].ID != "2" || p[0].P+p[1].P != 1 || p[0].P != 0 && p[0].P != 1 {
		t.Errorf("answers %+v", p)
	}
}
