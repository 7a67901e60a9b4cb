// Package scripts is what ships in Lua: the helpers that scripts require, and recipes to copy and edit.
package scripts

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Lib holds lib/*.lua, what require finds in every script.
//
//go:embed lib/dno.lua
var Lib embed.FS

//go:embed recipes/*.lua
var recipes embed.FS

// Default is the recipe that runs where no script is named.
const Default = "dno"

// Info is a recipe's name and what it is, in a line.
type Info struct {
	Name string // without .lua
	Help string // the first line of its comment
}

// Recipes lists the recipes by name.
func Recipes() []Info {
	files, _ := fs.Glob(recipes, "recipes/*.lua") // the pattern is well formed
	list := make([]Info, len(files))
	for i, file := range files {
		name := strings.TrimSuffix(path.Base(file), ".lua")
		source, _ := Recipe(name)
		first, _, _ := strings.Cut(string(source), "\n")
		list[i] = Info{Name: name, Help: strings.TrimSpace(strings.TrimLeft(first, "- "))}
	}
	return list
}

// Recipe returns a recipe's source. The error names those that there are.
func Recipe(name string) ([]byte, error) {
	source, err := recipes.ReadFile("recipes/" + name + ".lua")
	if err == nil {
		return source, nil
	}
	var names []string
	for _, r := range Recipes() {
		names = append(names, r.Name)
	}
	return nil, fmt.Errorf("there is no recipe %q (there are %s)", name, strings.Join(names, ", "))
}
