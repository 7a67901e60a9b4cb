package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/dno-project/dno/core/dataset"
	"github.com/dno-project/dno/core/fsx"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/core/script"
	"github.com/dno-project/dno/scripts"
	"github.com/dno-project/dno/scripts/geometry"
	"github.com/dno-project/dno/sdk"
)

// A file that a script names is a path, from the script's folder, or one of the embedded experiment:
// "embedded:geometry/test.jsonl"; "embedded:geometry" alone is its model.
const (
	embedded      = "embedded:"
	embeddedModel = "embedded:geometry"
)

// openRef returns the file system and the name in it that a reference means.
func openRef(ref, from string) (fs.FS, string, error) {
	name, ok := strings.CutPrefix(ref, embedded)
	if !ok {
		path := locate(ref, from)
		return os.DirFS(filepath.Dir(path)), filepath.Base(path), nil
	}
	if ref == embeddedModel {
		return geometry.Files(), "model", nil
	}
	if name, ok = strings.CutPrefix(name, "geometry/"); !ok || !fs.ValidPath(name) {
		return nil, "", sdk.Errorf(sdk.CodeUsage, "open %q: there is no such embedded file", ref).
			WithHint("the embedded experiment is %q with its files %s/train.jsonl, validation.jsonl, test.jsonl, teacher.jsonl", embeddedModel, embeddedModel)
	}
	return geometry.Files(), name, nil
}

// locate makes a path absolute, starting from a folder.
func locate(path, from string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	if abs, err := filepath.Abs(filepath.Join(from, path)); err == nil {
		return abs
	}
	return filepath.Join(from, path)
}

// readRef returns the content of a file that a script names.
func readRef(ref, from string) ([]byte, error) {
	fsys, name, err := openRef(ref, from)
	if err != nil {
		return nil, err
	}
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		e := sdk.Errorf(sdk.CodeUsage, "read %q: %w", ref, err)
		if !strings.HasPrefix(ref, embedded) {
			e = e.WithHint("it was looked for at %s", locate(ref, from))
		}
		return nil, e
	}
	return text, nil
}

// unpack returns the path of a file that a plugin is to read: an embedded one is written into dir first.
func unpack(ref, from, dir string) (string, error) {
	if !strings.HasPrefix(ref, embedded) {
		return locate(ref, from), nil
	}
	text, err := readRef(ref, from)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, filepath.Base(strings.TrimPrefix(ref, embedded)))
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", sdk.Errorf(sdk.CodeIO, "unpack %q: %w", ref, err)
	}
	if err := fsx.WriteFile(path, text, 0o644); err != nil {
		return "", sdk.Errorf(sdk.CodeIO, "unpack %q: %w", ref, err)
	}
	return path, nil
}

// source is a script as found: a file, or a recipe by its name.
type source struct {
	name string // for messages, and for the run directory's name
	text []byte
	dir  string // where its relative paths start; a recipe's start from the current folder
}

func readScript(args []string) (source, error) {
	name := "dno"
	if len(args) > 0 {
		name = args[0]
	}
	if strings.HasSuffix(name, ".lua") {
		text, err := os.ReadFile(name)
		if err != nil {
			return source{}, sdk.Errorf(sdk.CodeUsage, "read the script: %w", err).WithHint("recipes go by their names: %s", recipeNames())
		}
		return source{name: filepath.Base(name), text: text, dir: filepath.Dir(name)}, nil
	}
	text, err := scripts.Recipe(name)
	if err != nil {
		return source{}, sdk.Errorf(sdk.CodeUsage, "there is no recipe %q; a script's file ends with .lua", name).WithHint("recipes are: %s", recipeNames())
	}
	return source{name: name, text: text, dir: "."}, nil
}

func recipeNames() string {
	var names []string
	for _, r := range scripts.Recipes() {
		names = append(names, r.Name)
	}
	return strings.Join(names, ", ")
}

// load runs the script and applies the settings of the command line.
func (s source) load(sets []string, seed *uint64, print func(string)) (*script.Script, error) {
	root, err := os.OpenRoot(s.dir) // a script reads its neighbours, and no link leads it further
	if err != nil {
		return nil, sdk.Errorf(sdk.CodeUsage, "open the script's folder: %w", err)
	}
	defer root.Close()
	return script.Load(script.Options{Name: s.name, Source: s.text, Dir: root.FS(), Sets: sets, Seed: seed, Log: print})
}

// promptSets are the three sets of a run, read, checked and hashed.
type promptSets struct {
	train, validation, test []sdk.Prompt
	hashes                  map[string]string
}

func readPrompts(files [3]string, from string) (promptSets, error) {
	var out promptSets
	out.hashes = map[string]string{}
	sets := make([]dataset.Set, 3)
	for i, ref := range files {
		text, err := readRef(ref, from)
		if err != nil {
			return out, err
		}
		if sets[i], err = dataset.ReadPrompts(bytes.NewReader(text), ref); err != nil {
			return out, err
		}
		out.hashes[[]string{"train", "validation", "test"}[i]] = hash(text)
	}
	out.train, out.validation, out.test = sets[0].Prompts, sets[1].Prompts, sets[2].Prompts
	return out, dataset.CheckDisjoint(sets...)
}

func hash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// testPrompts reads a run's test prompts again, and refuses a file that has changed since.
func testPrompts(run *rundir.Run) ([]sdk.Prompt, error) {
	h := run.Header()
	text, err := readRef(h.Files["test"], h.ScriptDir)
	if err != nil {
		return nil, err
	}
	pins, err := run.Pins()
	if err != nil {
		return nil, err
	}
	if got := hash(text); got != pins.Values["data.test"] {
		return nil, sdk.Errorf(sdk.CodeUsage, "read the run's test prompts: %s has changed since the run began", h.Files["test"])
	}
	set, err := dataset.ReadPrompts(bytes.NewReader(text), h.Files["test"])
	if err != nil {
		return nil, fmt.Errorf("read the run's test prompts: %w", err)
	}
	return set.Prompts, nil
}
