package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/sdk"
	"github.com/spf13/cobra"
)

// scaffold holds the projects that `dno plugin new` writes: scaffold/<language>/<kind>, with a folder
// all for what the kinds have in common, and a language shared for what the languages have. NAME in a
// file's name is the plugin's.
//
//go:embed all:scaffold
var scaffold embed.FS

// pluginNew is what `dno plugin new` was asked.
type pluginNew struct {
	kind         sdk.Kind
	name         string
	lang         string
	dir, sources string
}

func (a *app) pluginNewCommand() *cobra.Command {
	var in pluginNew
	c := &cobra.Command{
		Use:   "new KIND NAME",
		Short: "Start a plugin of your own: a project that builds, is tested and runs",
		Long: `Write a project to ./NAME: a small plugin of KIND (oracle, loss or sampler), its test, and an experiment that uses it.

A Go or Python project needs the folder of dno's sources: --sdk, else DNO_SDK, else the one around the new folder
or this one.
With --lang exec it is a program that speaks JSON lines, in sh, and needs nothing; it can be an oracle only.`,
		Example: "  dno plugin new loss mine\n  dno plugin new oracle critic --lang exec\n  dno plugin new sampler ladder --lang python --sdk ../dno",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			in.kind, in.name = sdk.Kind(args[0]), args[1]
			return a.pluginNew(in)
		},
	}
	f := c.Flags()
	f.StringVar(&in.lang, "lang", "go", "go, python or exec")
	f.StringVar(&in.sources, "sdk", "", "folder of dno's sources")
	f.StringVar(&in.dir, "dir", "", "folder to write, ./NAME where not given; it must be empty or not there")
	return c
}

// blanks are what templates fill in.
type blanks struct {
	Name, Title, SDK string // "my-loss", "My loss", the folder of dno's sources
	Kind, Func       string // "loss", "Loss"
	Article, File    string // "A loss"; the name as that of a Go file
}

func (a *app) pluginNew(in pluginNew) error {
	if err := in.check(); err != nil {
		return err
	}
	if in.dir == "" {
		in.dir = in.name
	}
	if entries, err := os.ReadDir(in.dir); err == nil && len(entries) > 0 {
		return sdk.Errorf(sdk.CodeUsage, "write the plugin to %s: the folder is not empty", in.dir).WithHint("--dir names another one")
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return sdk.Errorf(sdk.CodeUsage, "write the plugin to %s: %w", in.dir, err)
	}
	b := blanks{Name: in.name, Title: title(in.name), Kind: string(in.kind), Func: title(string(in.kind)), File: fileBase(in.name)}
	b.Article = "A " + b.Kind
	if in.kind == sdk.KindOracle {
		b.Article = "An " + b.Kind
	}
	if in.lang != "exec" {
		found, err := in.findSDK()
		if err != nil {
			return err
		}
		b.SDK = found
	}
	files, err := render(in.lang, b)
	if err != nil {
		return err
	}
	written := []string{}
	for name, data := range files {
		file, mode := filepath.Join(in.dir, filepath.FromSlash(name)), fs.FileMode(0o644)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o755
		}
		err := os.MkdirAll(filepath.Dir(file), 0o755)
		if err == nil {
			err = fsx.WriteFile(file, data, mode)
		}
		if err != nil {
			return sdk.Errorf(sdk.CodeIO, "write %s: %w", file, err)
		}
		written = append(written, name)
	}
	slices.Sort(written)
	next := nextCommands(in)
	if a.json {
		return a.printJSON(map[string]any{"plugin": b.Kind + "/" + b.Name, "dir": in.dir, "files": written, "next": next})
	}
	fmt.Fprintf(a.stdout, "%s/%s is in %s: %s\n\nNext:\n", b.Kind, b.Name, in.dir, strings.Join(written, ", "))
	for _, line := range next {
		fmt.Fprintf(a.stdout, "  %s\n", line)
	}
	return nil
}

func (in pluginNew) check() error {
	switch {
	case !slices.Contains(kinds, in.kind):
		return sdk.Errorf(sdk.CodeUsage, "there is no kind %q of plugin: want oracle, loss or sampler", in.kind)
	case !sdk.IsName(in.name) || strings.Trim(in.name[:1], "-_") == "":
		return sdk.Errorf(sdk.CodeUsage, "a plugin cannot be named %q: want lower-case letters, digits, '-' and '_', a letter or digit first", in.name)
	case isBundled(in.kind, in.name):
		return sdk.Errorf(sdk.CodeUsage, "there is a bundled %s %q, which would be taken instead", in.kind, in.name).WithHint("choose another name")
	case !slices.Contains([]string{"go", "python", "exec"}, in.lang):
		return sdk.Errorf(sdk.CodeUsage, "--lang %s: want go, python or exec", in.lang)
	case in.lang == "exec" && in.kind != sdk.KindOracle:
		return sdk.Errorf(sdk.CodeUsage, "--lang exec: only an oracle can be a program that speaks JSON lines, for a %s is called with numbers or calls back", in.kind).
			WithHint("--lang go or --lang python makes a %s", in.kind)
	}
	return nil
}

// title is a name as a title: "my-loss" is "My loss".
func title(name string) string {
	words := strings.Join(strings.FieldsFunc(name, func(r rune) bool { return r == '-' || r == '_' }), " ")
	return strings.ToUpper(words[:1]) + words[1:]
}

// fileBase is a name for a Go file: to the go command an underscore may mean a test or a system.
func fileBase(name string) string {
	name = strings.ReplaceAll(name, "_", "-")
	if name == "main" {
		return "main-plugin"
	}
	return name
}

const sdkModule = "github.com/dno-project/dno"

// findSDK returns the folder of dno's sources as a project names it: from the project's folder if that
// lies within, else absolute.
func (in pluginNew) findSDK() (string, error) {
	target := locate(in.dir, ".")
	root := ""
	if in.sources == "" {
		in.sources = os.Getenv("DNO_SDK")
	}
	if in.sources != "" {
		if root = locate(in.sources, "."); !isSDK(root) {
			return "", sdk.Errorf(sdk.CodeUsage, "--sdk %s: it has no go.mod of the module %s", in.sources, sdkModule)
		}
	} else if root = above(target); root == "" {
		root = above(locate(".", "."))
	}
	if root != "" {
		if inside, err := filepath.Rel(root, target); err == nil && filepath.IsLocal(inside) {
			root, err = filepath.Rel(target, root)
			return filepath.ToSlash(root), err
		}
		return filepath.ToSlash(root), nil
	}
	return "", sdk.Errorf(sdk.CodeUsage, "the project needs the folder of dno's sources, and there is none around %s or the current folder", in.dir).
		WithHint("git clone https://%s, then --sdk dno; an oracle with --lang exec needs none", sdkModule)
}

// above returns the nearest folder of dno's sources from dir upwards, "" where there is none.
func above(dir string) string {
	for !isSDK(dir) {
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
	return dir
}

func isSDK(dir string) bool {
	data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "module" {
			return f[1] == sdkModule
		}
	}
	return false
}

// render fills in the templates of a language and kind.
func render(lang string, b blanks) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, of := range []string{"shared", lang} { // what a language has of its own takes the shared one's place
		for _, kind := range []string{"all", b.Kind} {
			if err := fill(out, path.Join(of, kind), b); err != nil {
				return nil, sdk.Errorf(sdk.CodeInternal, "write a plugin in %s: %w", lang, err)
			}
		}
	}
	return out, nil
}

// fill renders a folder of the scaffold; one that is not there has no files.
func fill(out map[string][]byte, folder string, b blanks) error {
	root := path.Join("scaffold", folder)
	err := fs.WalkDir(scaffold, root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := scaffold.ReadFile(file)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(file, root+"/"), ".tmpl")
		name = strings.ReplaceAll(name, "NAME", b.File)
		blanks := b
		if name == "go.mod" {
			blanks.SDK = moduleText(b.SDK)
		}
		t, err := template.New(file).Parse(string(text))
		if err != nil {
			return err
		}
		var filled bytes.Buffer
		err = t.Execute(&filled, blanks)
		out[name] = filled.Bytes()
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// moduleText is a path as go.mod takes it: in quotes where it needs them.
func moduleText(path string) string {
	if strings.ContainsAny(path, " \t\"'`,()[]{}") || strings.Contains(path, "//") {
		return strconv.Quote(path)
	}
	return path
}

// nextCommands are what to do with a new project, at most six.
func nextCommands(in pluginNew) []string {
	built := "plugins/dno-" + string(in.kind) + "-" + in.name
	use := []string{"dno plugin check " + built, "dno plugin install " + built, "dno run experiment.lua"}
	var make []string
	switch {
	case in.lang == "exec":
		make, use = []string{"./test.sh"}, []string{"dno plugin check judge.sh --exec", "dno run experiment.lua"}
	case in.lang == "go":
		make = []string{"go test ./...", "go build -o " + built + " ."}
	default:
		make = []string{"./build.sh"}
	}
	return slices.Concat([]string{"cd " + in.dir}, make, use)
}
