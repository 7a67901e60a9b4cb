// Package script is the user's Lua: sandbox, API, conversion, schema.
//
// A script is one file that returns one experiment. It runs where it can reach nothing but itself;
// it is the same on every machine and in every order of calls.
package script

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"sync"

	lua "github.com/yuin/gopher-lua"

	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// Options say what to load.
type Options struct {
	Name   string   // the file's name, for messages
	Source []byte   // what is in it
	Dir    fs.FS    // its own folder, for require; nil: none. A root that symbolic links cannot leave is the caller's care
	Sets   []string // "key=value", in order; they win over everything in the script
	Seed   *uint64  // wins over the script's seed and over Sets; nil: none

	Log func(line string) // takes what the script prints; nil: nobody
}

// Script is a loaded script: its experiment, and its decisions. It is safe for concurrent use; calls
// wait for each other.
type Script struct {
	experiment loop.Experiment
	overrides  []override
	hash       string

	mu                   sync.Mutex
	box                  *sandbox
	list                 *lua.LTable // the metatable of lists of completions: they can be joined with ..
	game                 *gameAPI
	schedule, mix, pairs *lua.LFunction // nil where the script has none
}

var _ loop.Script = (*Script)(nil)

// Load runs a script's file once and reads the experiment that it returns.
//
// Errors: sdk.CodeScript for the script's, with file:line where it is known; sdk.CodeUsage for those
// of Sets.
func Load(o Options) (*Script, error) {
	overrides, err := parseOverrides(o.Sets)
	if err != nil {
		return nil, err
	}
	s := &Script{overrides: overrides, box: newSandbox(o.Dir, o.Log)}
	if err := s.openLists(); err != nil {
		return nil, err
	}
	table, err := s.box.file(o.Name, o.Source)
	if err != nil {
		return nil, err
	}
	if err := s.read(table); err != nil {
		return nil, err
	}
	if o.Seed != nil {
		s.experiment.Seed = *o.Seed
	}
	s.game = s.box.newGameAPI()
	if err := s.box.seal(s.roots()); err != nil {
		return nil, err
	}
	s.hash = s.hashSources(o.Source)
	return s, nil
}

// Experiment returns the script's settings.
func (s *Script) Experiment() loop.Experiment { return s.experiment }

// Hash returns the hex sha256 of the script and of the files beside it that it requires: with the
// same hash, settings and seed it decides the same.
func (s *Script) Hash() string { return s.hash }

func (s *Script) hashSources(source []byte) string {
	h := sha256.New()
	add := func(name string, data []byte) { fmt.Fprintf(h, "%d:%s%d:%s", len(name), name, len(data), data) }
	add("", source)
	for _, name := range sortedKeys(s.box.sources) {
		add(name, s.box.sources[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// file runs the script itself and returns the table that it returns.
func (s *sandbox) file(name string, source []byte) (*lua.LTable, error) {
	fn, err := s.compile(name, source)
	if err != nil {
		return nil, err
	}
	v, err := s.run(context.Background(), request{steps: loadSteps, seed: seedOf(0, 0, "load", ""), fn: fn})
	if err != nil {
		return nil, err
	}
	t, ok := v.(*lua.LTable)
	if !ok {
		return nil, sdk.Errorf(sdk.CodeScript, "%s returned %s, no experiment", name, describe(v, 1)).
			WithHint("end it with: return dno.experiment { ... }")
	}
	return t, nil
}

// openLists loads dno's helpers and takes the metatable of lists from them.
func (s *Script) openLists() error {
	fn, err := s.box.compile("dno", []byte(`return require("dno").list({})`))
	if err != nil {
		return err
	}
	v, err := s.box.run(context.Background(), request{steps: loadSteps, fn: fn})
	if err != nil {
		return err
	}
	s.list = v.(*lua.LTable).Metatable.(*lua.LTable)
	return nil
}

// read checks the table against the schema, applies the overrides and the defaults.
func (s *Script) read(table *lua.LTable) error {
	e := &s.experiment
	e.Iterations, e.CheckpointEvery, e.Precision = defaultIterations, loop.DefaultCheckpointEvery, loop.DefaultPrecision
	e.SamplingWeights = loop.DefaultSamplingWeights
	e.Plan = loop.DefaultPlan()
	d := decoder{code: sdk.CodeScript, at: s.box.where}
	if err := d.experiment(table, e); err != nil {
		return err
	}
	for name, fn := range map[string]**lua.LFunction{"schedule": &s.schedule, "mix": &s.mix, "pairs": &s.pairs} {
		*fn, _ = table.RawGetString(name).(*lua.LFunction)
	}
	if err := apply(s.overrides, topLevel{e}, false, s.schedule != nil); err != nil {
		return err
	}
	missing := func(what, example string) error {
		return d.fail(table, "", "%s", what).(*sdk.Error).WithHint("%s", "for example "+example)
	}
	switch {
	case e.Model == "":
		return missing("name a model", `model = "embedded:geometry"`)
	case e.Files.Train == "" || e.Files.Validation == "" || e.Files.Test == "":
		return missing("name all three files of prompts", `prompts = { train = "train.jsonl", validation = "validation.jsonl", test = "test.jsonl" }`)
	case e.Plan.Oracle.Name == "":
		return missing("name an oracle", `oracle = { "verifier" }`)
	}
	if e.Evaluate.Oracle.Name == "" {
		e.Evaluate.Oracle = e.Plan.Oracle
		return apply(s.overrides, topLevel{e}, false, true) // for those of evaluate.oracle's settings
	}
	return nil
}

const defaultIterations = 4

// where is the decoder's: "file:line: " of a key.
func (s *sandbox) where(t *lua.LTable, key string) string {
	p := s.origin[t]
	if p == nil {
		return ""
	}
	line := p.line
	if at := p.keys[key]; at > 0 {
		line = at
	}
	return fmt.Sprintf("%s:%d: ", p.file, line)
}

func (s *Script) roots() []root {
	roots := []root{{"dno", s.list}, {"dno", s.game.methods}}
	for _, r := range []struct {
		name string
		fn   *lua.LFunction
	}{{"schedule", s.schedule}, {"mix", s.mix}, {"pairs", s.pairs}} {
		if r.fn != nil {
			roots = append(roots, root{r.name, r.fn})
		}
	}
	return roots
}

// request makes a callback's request; prompt is "" for schedule.
func (s *Script) request(name string, t int, prompt string, steps int64, fn *lua.LFunction, args ...lua.LValue) request {
	what := fmt.Sprintf("%s (iteration %d)", name, t)
	if prompt != "" {
		what = fmt.Sprintf("%s (iteration %d, prompt %s)", name, t, clip(prompt, 80))
	}
	return request{what: what, steps: steps, seed: seedOf(s.experiment.Seed, t, name, prompt), fn: fn, args: args}
}

// Plan returns the plan of iteration t: the settings of the top level, over them what schedule
// returns, over that the overrides. It is nil beyond the experiment's iterations, and where schedule
// returns nil.
//
// Errors: sdk.CodeScript for what schedule does or returns.
func (s *Script) Plan(ctx context.Context, t int, history []rundir.IterationRecord) (*loop.Plan, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t > s.experiment.Iterations {
		return nil, nil
	}
	plan := s.experiment.Plan
	plan.Prompts = loop.Selection{Split: t, Of: s.experiment.Iterations}
	if s.schedule != nil {
		r := s.request("schedule", t, "", scheduleSteps, s.schedule, lua.LNumber(t), s.box.history(history))
		v, err := s.box.run(ctx, r)
		if err != nil {
			return nil, err
		}
		d := decoder{code: sdk.CodeScript, prefix: r.prefix(), at: s.box.where}
		switch v := v.(type) {
		case *lua.LNilType:
			return nil, nil
		case *lua.LTable:
			if err := d.plan(v, &plan); err != nil {
				return nil, err
			}
		default:
			return nil, d.fail(nil, "", "it returned %s: want a table of settings, or nil to end the run", describe(v, 1))
		}
	}
	if err := apply(s.overrides, planLevel(&plan), true, true); err != nil {
		return nil, err
	}
	return &plan, nil
}

// Mix returns which completions may be paired, as indices into own followed by teacher, in the
// script's order and each once; never nil. Without mix they are all of them.
//
// Errors: sdk.CodeScript for what mix does, and for anything but completions that it was given.
func (s *Script) Mix(ctx context.Context, t int, prompt sdk.Prompt, own, teacher []sdk.Completion) ([]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mixed := make([]int, 0, len(own)+len(teacher))
	if s.mix == nil {
		for i := range len(own) + len(teacher) {
			mixed = append(mixed, i)
		}
		return mixed, nil
	}
	index := map[*lua.LTable]int{}
	list := func(completions []sdk.Completion) *lua.LTable {
		l := s.box.L.CreateTable(len(completions), 0)
		l.Metatable = s.list
		for i, c := range completions {
			entry := s.box.completion(c, len(index)+1)
			index[entry] = len(index)
			l.RawSetInt(i+1, entry)
		}
		return l
	}
	r := s.request("mix", t, prompt.ID, promptSteps, s.mix,
		s.box.prompt(prompt), list(own), list(teacher), lua.LNumber(t))
	v, err := s.box.run(ctx, r)
	if err != nil {
		return nil, err
	}
	fail := func(v lua.LValue) error {
		return sdk.Errorf(sdk.CodeScript, "%sit returned %s: want a list of completions out of own and teacher", r.prefix(), describe(v, 1))
	}
	if v == lua.LNil {
		return mixed, nil
	}
	returned, ok := v.(*lua.LTable)
	if !ok {
		return nil, fail(v)
	}
	err = nil
	each(returned, func(key, v lua.LValue) bool {
		entry, isTable := v.(*lua.LTable)
		at, known := index[entry]
		if _, isNumber := key.(lua.LNumber); !isNumber || !isTable || !known {
			err = fail(v)
			return false
		}
		if !slices.Contains(mixed, at) {
			mixed = append(mixed, at)
		}
		return true
	})
	return mixed, err
}

// Pairs returns the pairs of a judged game; without pairs, those of the plan's rule.
//
// Errors: sdk.CodeScript for what pairs does, and for pairs that the game does not bear.
func (s *Script) Pairs(ctx context.Context, t int, prompt sdk.Prompt, game *preference.Game, rule preference.Rule) ([]preference.Pair, error) {
	if s.pairs == nil {
		return game.Pairs(rule)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.request("pairs", t, prompt.ID, promptSteps, s.pairs, s.game.table(prompt, game, rule), lua.LNumber(t))
	v, err := s.box.run(ctx, r)
	if err != nil {
		return nil, err
	}
	return s.readPairs(r, game, v)
}
