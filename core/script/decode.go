package script

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/sdk"
)

// decoder turns tables into the loop's types, by the schema.
type decoder struct {
	code   sdk.Code
	prefix string                                 // in front of every message, perhaps with file:line
	at     func(t *lua.LTable, key string) string // "file:line: " of a key; nil where nothing is known
}

func (d *decoder) fail(t *lua.LTable, key, format string, args ...any) error {
	where := ""
	if d.at != nil && t != nil {
		where = d.at(t, key)
	}
	return sdk.Errorf(d.code, "%s%s%s", d.prefix, where, fmt.Sprintf(format, args...))
}

// experiment reads the table that the script returns; functions are left to the caller.
func (d *decoder) experiment(t *lua.LTable, out *loop.Experiment) error {
	return d.keys(t, func(key string, v lua.LValue) error {
		if slices.Contains(callbacks, key) {
			if v.Type() != lua.LTFunction {
				return d.fail(t, key, "%s: want a function, have %s", key, describe(v, 1))
			}
			return nil
		}
		return d.setting(t, topLevel{out}, []string{key}, v)
	})
}

// plan reads what schedule returns, over what the plan holds already.
func (d *decoder) plan(t *lua.LTable, out *loop.Plan) error {
	return d.keys(t, func(key string, v lua.LValue) error {
		return d.setting(t, planLevel(out), []string{key}, v)
	})
}

// keys calls f for each key of a table, in its order. Keys that are no names are refused.
func (d *decoder) keys(t *lua.LTable, f func(key string, v lua.LValue) error) (err error) {
	each(t, func(key, v lua.LValue) bool {
		if name, ok := key.(lua.LString); ok {
			err = f(string(name), v)
		} else {
			err = d.fail(t, "", "want names of settings, have the value %s without a name", describe(v, 1))
		}
		return err == nil
	})
	return err
}

// planLevel is a plan as a target of settings.
func planLevel(p *loop.Plan) reflect.Value { return reflect.ValueOf(p).Elem() }

// topLevel shows an experiment as scripts write it: the plan's settings beside its own.
type topLevel struct{ *loop.Experiment }

// field finds the setting called name in a struct, or at a script's top level.
func field(target any, name string) (v reflect.Value, valid []string, inPlan bool) {
	if top, ok := target.(topLevel); ok {
		valid = append(experimentKeys(), callbacks...)
		experiment := reflect.ValueOf(top.Experiment).Elem()
		keys := keysOf(experiment.Type())
		switch i, ok := keys[name]; {
		case name == "prompts":
			return experiment.Field(keys["files"]), valid, false
		case ok && name != "files" && name != "plan":
			return experiment.Field(i), valid, false
		}
		v, _, _ = field(experiment.Field(keys["plan"]), name)
		return v, valid, false
	}
	s := target.(reflect.Value)
	keys := keysOf(s.Type())
	if i, ok := keys[name]; ok {
		v = s.Field(i)
	}
	return v, sortedKeys(keys), s.Type() == reflect.TypeFor[loop.Plan]()
}

// setting gives the setting at path the value v; t is the table in which it stands, if any.
func (d *decoder) setting(t *lua.LTable, target any, path []string, v lua.LValue) error {
	f, valid, inPlan := field(target, path[0])
	if !f.IsValid() {
		return d.fail(t, path[0], "%s", unknown(path[0], valid, inPlan))
	}
	return d.value(t, f, path[0], path[1:], v)
}

// value decodes v into f. name is the setting's name in messages and limits; rest leads further in.
func (d *decoder) value(t *lua.LTable, f reflect.Value, name string, rest []string, v lua.LValue) error {
	last := lastPart(name)
	switch out := f.Addr().Interface().(type) {
	case *loop.Plugin:
		return d.plugin(t, out, name, rest, v)
	case **loop.Plugin: // teacher: may be switched off
		if v == lua.LFalse && len(rest) == 0 {
			*out = nil
			return nil
		}
		var p loop.Plugin
		if *out != nil {
			p = **out
		} else if len(rest) > 0 {
			return d.fail(t, last, "%s.%s: there is no %s that it could be a setting of", name, rest[0], name)
		}
		if err := d.plugin(t, &p, name, rest, v); err != nil {
			return err
		}
		*out = &p
		return nil
	case **loop.LoRA: // may be switched off; one setting of it switches it on
		if v == lua.LFalse && len(rest) == 0 {
			*out = nil
			return nil
		}
		c := loop.DefaultLoRA()
		if *out != nil && len(rest) > 0 {
			c = **out
		}
		if err := d.group(t, reflect.ValueOf(&c).Elem(), name, rest, v); err != nil {
			return err
		}
		*out = &c
		return nil
	case *[]string:
		return d.words(t, out, name, rest, v)
	}
	if f.Kind() == reflect.Struct {
		return d.group(t, f, name, rest, v)
	}
	if len(rest) > 0 {
		return d.fail(t, last, "%s is one value: it has no setting %q", name, rest[0])
	}
	l := limits[name]
	problem := ""
	switch f.Kind() {
	case reflect.String:
		text, ok := v.(lua.LString)
		if !ok {
			if n, isNumber := v.(lua.LNumber); isNumber && name == "reference" {
				return d.fail(t, last, "%s: the policy of iteration %s is not built yet", name, n)
			}
			return d.fail(t, last, "%s: want a text, have %s", name, describe(v, 1))
		}
		if problem = l.word(name, string(text)); problem == "" {
			f.SetString(string(text))
		}
	case reflect.Bool:
		b, ok := v.(lua.LBool)
		if !ok {
			return d.fail(t, last, "%s: want true or false, have %s", name, describe(v, 1))
		}
		f.SetBool(bool(b))
	default:
		n, ok := v.(lua.LNumber)
		if !ok {
			return d.fail(t, last, "%s: want a number, have %s", name, describe(v, 1))
		}
		whole := f.Kind() != reflect.Float64
		if problem = l.number(float64(n)); problem == "" && whole && float64(n) != math.Trunc(float64(n)) {
			problem = fmt.Sprintf("want a whole number, have %v", float64(n))
		}
		switch {
		case problem != "":
		case f.Kind() == reflect.Float64:
			f.SetFloat(float64(n))
		case f.Kind() == reflect.Uint64:
			f.SetUint(uint64(n))
		default:
			f.SetInt(int64(n))
		}
	}
	if problem != "" {
		return d.fail(t, last, "%s: %s", name, problem)
	}
	return nil
}

// words reads a list of texts, or one text as a list of it alone.
func (d *decoder) words(t *lua.LTable, out *[]string, name string, rest []string, v lua.LValue) error {
	last := lastPart(name)
	if len(rest) > 0 {
		return d.fail(t, last, "%s is a list: it has no setting %q", name, rest[0])
	}
	list := []lua.LValue{v}
	if table, ok := v.(*lua.LTable); ok {
		list = nil
		named := false
		each(table, func(key, item lua.LValue) bool {
			n, isNumber := key.(lua.LNumber)
			named = !isNumber || int(n) != len(list)+1
			list = append(list, item)
			return !named
		})
		if named || len(list) == 0 {
			return d.fail(t, last, "%s: want a list of texts, have %s", name, describe(v, 1))
		}
	}
	var words []string
	for _, item := range list {
		text, ok := item.(lua.LString)
		if !ok {
			return d.fail(t, last, "%s: want a list of texts, have %s", name, describe(v, 1))
		}
		if problem := limits[name].word(name, string(text)); problem != "" {
			return d.fail(t, last, "%s: %s", name, problem)
		}
		words = append(words, string(text))
	}
	*out = words
	return nil
}

func lastPart(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// group decodes a table of settings into a struct: evaluate, files, a selection. Files and evaluate
// keep what the table does not name; a selection is replaced.
func (d *decoder) group(t *lua.LTable, f reflect.Value, name string, rest []string, v lua.LValue) error {
	inner := func(in *lua.LTable, key string, rest []string, v lua.LValue) error {
		g, valid, _ := field(f, key)
		if !g.IsValid() {
			return d.fail(in, key, "%s: %s", name, unknown(key, valid, false))
		}
		return d.value(in, g, name+"."+key, rest, v)
	}
	if len(rest) > 0 {
		return inner(t, rest[0], rest[1:], v)
	}
	table, ok := v.(*lua.LTable)
	if !ok {
		return d.fail(t, name, "%s: want a table, have %s", name, describe(v, 1))
	}
	selection, isSelection := f.Addr().Interface().(*loop.Selection)
	if isSelection {
		*selection = loop.Selection{}
	}
	if err := d.keys(table, func(key string, v lua.LValue) error { return inner(table, key, nil, v) }); err != nil {
		return err
	}
	if isSelection && (selection.Split == 0) != (selection.Of == 0) {
		return d.fail(t, name, "%s: split and of belong together: dno.split(t, 4) is split t of 4", name)
	}
	if isSelection && selection.Split > selection.Of {
		return d.fail(t, name, "%s: there is no split %d of %d", name, selection.Split, selection.Of)
	}
	return nil
}

// plugin decodes { "name", setting = value, ... }, or the name alone; with rest, one setting of the
// plugin that is there.
func (d *decoder) plugin(t *lua.LTable, out *loop.Plugin, name string, rest []string, v lua.LValue) error {
	kind := lastPart(name)
	if len(rest) > 1 {
		return d.fail(t, kind, "%s.%s is one setting: it has none of its own", name, rest[0])
	}
	if len(rest) == 1 {
		settings := sdk.Settings{}
		for k, old := range out.Settings { // shared with other plans
			settings[k] = old
		}
		out.Settings = settings
		return d.pluginSetting(t, out, name, rest[0], v)
	}
	*out = loop.Plugin{}
	if kind == "loss" {
		out.C = loop.DefaultC
	}
	if text, ok := v.(lua.LString); ok && text != "" {
		out.Name = string(text)
		return nil
	}
	table, ok := v.(*lua.LTable)
	if !ok {
		return d.fail(t, kind, "%s: want { \"name\", setting = value }, have %s", name, describe(v, 1))
	}
	switch first := table.RawGetInt(1).(type) {
	case lua.LString:
		out.Name = string(first)
	case *lua.LTable:
		return d.fail(table, "", "%s: a list of several is not built yet", name)
	}
	if out.Name == "" {
		return d.fail(table, "", "%s: its first entry must be its name: %s = { \"name\", setting = value }", name, kind)
	}
	err := error(nil)
	each(table, func(key, v lua.LValue) bool {
		switch key := key.(type) {
		case lua.LString:
			err = d.pluginSetting(table, out, name, string(key), v)
		case lua.LNumber:
			if key != 1 {
				err = d.fail(table, "", "%s: after the name %q come settings with names, have %s", name, out.Name, describe(v, 1))
			}
		default:
			err = d.fail(table, "", "%s: want names of settings, have %s", name, describe(key, 1))
		}
		return err == nil
	})
	return err
}

// pluginSetting reads one setting: those of the host are checked here, the plugin's own later,
// against its manifest.
func (d *decoder) pluginSetting(t *lua.LTable, out *loop.Plugin, name, key string, v lua.LValue) error {
	positive := func(to *float64) error {
		n, ok := v.(lua.LNumber)
		if !ok {
			return d.fail(t, key, "%s.%s: want a number, have %s", name, key, describe(v, 1))
		}
		if problem := limits[key].number(float64(n)); problem != "" {
			return d.fail(t, key, "%s.%s: %s", name, key, problem)
		}
		*to = float64(n)
		return nil
	}
	switch {
	case key == "memory":
		return positive(&out.Memory)
	case key == "timeout":
		return positive(&out.Timeout)
	case key == "c" && lastPart(name) == "loss":
		return positive(&out.C)
	case key == "env":
		list, ok := v.(*lua.LTable)
		if !ok {
			return d.fail(t, key, "%s.env: want a list of variables' names, have %s", name, describe(v, 1))
		}
		out.Env = nil
		var err error
		each(list, func(k, v lua.LValue) bool {
			text, isText := v.(lua.LString)
			if _, isNumber := k.(lua.LNumber); !isNumber || !isText || text == "" {
				err = d.fail(t, key, "%s.env: want a list of variables' names, have %s", name, describe(list, 1))
				return false
			}
			out.Env = append(out.Env, string(text))
			return true
		})
		return err
	}
	value, err := toJSON(v)
	if err != nil {
		return d.fail(t, key, "%s.%s: %s", name, key, err)
	}
	if out.Settings == nil {
		out.Settings = sdk.Settings{}
	}
	out.Settings[key] = value
	return nil
}

// toJSON turns a value into what JSON can hold. A table is a list, or has names only.
func toJSON(v lua.LValue) (any, error) {
	left := 10000 // values: a table may hold itself
	return appendJSON(v, &left)
}

func appendJSON(v lua.LValue, left *int) (any, error) {
	if *left--; *left < 0 {
		return nil, fmt.Errorf("the table is too large, or holds itself")
	}
	switch v := v.(type) {
	case lua.LBool:
		return bool(v), nil
	case lua.LString:
		return string(v), nil
	case lua.LNumber:
		if n := float64(v); math.IsNaN(n) || math.IsInf(n, 0) {
			return nil, fmt.Errorf("want a finite number, have %v", n)
		}
		return float64(v), nil
	case *lua.LTable:
		return tableJSON(v, left)
	}
	return nil, fmt.Errorf("want a number, text, true, false or a table of them, have a %s", v.Type())
}

func tableJSON(t *lua.LTable, left *int) (any, error) {
	list, named := []any{}, map[string]any{}
	var err error
	each(t, func(key, value lua.LValue) bool {
		var item any
		if item, err = appendJSON(value, left); err != nil {
			return false
		}
		switch key := key.(type) {
		case lua.LString:
			named[string(key)] = item
		case lua.LNumber:
			if int(key) != len(list)+1 {
				err = fmt.Errorf("the list has a hole before index %s", key)
			}
			list = append(list, item)
		default:
			err = fmt.Errorf("want names or a list, have the key %s", describe(key, 0))
		}
		return err == nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(list) > 0 && len(named) > 0:
		return nil, fmt.Errorf("want a list or names, have both")
	case len(named) > 0:
		return named, nil
	}
	return list, nil
}
