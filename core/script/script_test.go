package script

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// script is a whole script around some settings.
func script(settings string) string {
	return `local dno = require "dno"
return dno.experiment {
  model = "m", oracle = "verifier", iterations = 3,
  prompts = { train = "a", validation = "b", test = "c" },
  ` + settings + `
}`
}

func load(t *testing.T, source string, sets ...string) *Script {
	t.Helper()
	s, err := Load(Options{Name: "s.lua", Source: []byte(source), Sets: sets, Dir: neighbours, Log: func(line string) { t.Log(line) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantError checks text, code, and that the error is one sentence.
func wantError(t *testing.T, err error, code sdk.Code, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("want an error with %q, have %v", want, err)
	} else if sdk.CodeOf(err) != code {
		t.Errorf("want code %d, have %d: %v", code, sdk.CodeOf(err), err)
	}
}

func TestDefaults(t *testing.T) {
	e := load(t, `return { model = "m", oracle = { "verifier", tolerance = 0.5 }, prompts = { train = "a", validation = "b", test = "c" } }`).Experiment()
	plan := loop.DefaultPlan()
	plan.Oracle = loop.Plugin{Name: "verifier", Settings: sdk.Settings{"tolerance": 0.5}}
	want := loop.Experiment{
		Model: "m", Files: loop.Files{Train: "a", Validation: "b", Test: "c"}, Iterations: 4, CheckpointEvery: 20, Precision: "auto", SamplingWeights: "same",
		Evaluate: loop.Evaluate{Oracle: plan.Oracle}, Plan: plan,
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("want (-), have (+):\n%s", diff)
	}
}

func TestEverySettingIsRead(t *testing.T) {
	e := load(t, `return {
		model = "dir/model", seed = 7, iterations = 6, prompts = { train = "a", validation = "b", test = "c" },
		samples = 8, sampler = { "./my-sampler", temperature = 0.7, stop = { "\n", "###" }, nested = { a = { b = true } } },
		teacher = { "file", path = "t.jsonl", env = { "TOKEN", "HOME" }, timeout = 30, memory = 512 },
		oracle = { "command", path = "x.sh" }, opponents = "all", estimator = "leave-self-out",
		min_margin = 0.1, max_pairs = 3, max_abstain = 0.2,
		loss = { "dpo", beta = 0.5, c = 2, label = "x" }, reference = "initial",
		lr = 5e-5, lr_schedule = "cosine", warmup = 10, epochs = 2, batch_size = 64, batch_by = "unit", precision = "bfloat16", sampling_weights = "q8_0", clip = 0, weight_decay = 0.01,
		adam_beta1 = 0.8, adam_beta2 = 0.99, adam_epsilon = 1e-6,
		evaluate = { oracle = { "length" }, temperature = 0.5, max_tokens = 99 },
		lora = { r = 4, alpha = 3.5, targets = { "q_proj", "v_proj" }, rslora = true, base = "bfloat16" },
	}`).Experiment()
	want := loop.Experiment{
		Model: "dir/model", Seed: 7, Iterations: 6, CheckpointEvery: 20, Precision: "bfloat16", SamplingWeights: "q8_0",
		LoRA: &loop.LoRA{Rank: 4, Alpha: 3.5, Targets: []string{"q_proj", "v_proj"}, RankStabilized: true, Base: "bfloat16"}, Files: loop.Files{Train: "a", Validation: "b", Test: "c"},
		Evaluate: loop.Evaluate{Oracle: loop.Plugin{Name: "length"}, Temperature: 0.5, MaxTokens: 99},
		Plan: loop.Plan{
			Samples: 8,
			Sampler: loop.Plugin{Name: "./my-sampler", Settings: sdk.Settings{
				"temperature": 0.7, "stop": []any{"\n", "###"}, "nested": map[string]any{"a": map[string]any{"b": true}},
			}},
			Teacher:   &loop.Plugin{Name: "file", Settings: sdk.Settings{"path": "t.jsonl"}, Env: []string{"TOKEN", "HOME"}, Timeout: 30, Memory: 512},
			Oracle:    loop.Plugin{Name: "command", Settings: sdk.Settings{"path": "x.sh"}},
			Opponents: "all", Estimator: "leave-self-out", MinMargin: 0.1, MaxPairs: 3, MaxAbstain: 0.2,
			Loss:      loop.Plugin{Name: "dpo", Settings: sdk.Settings{"beta": 0.5, "label": "x"}, C: 2},
			Reference: "initial", LR: 5e-5, LRSchedule: "cosine", Warmup: 10, Epochs: 2, BatchSize: 64, BatchBy: "unit", WeightDecay: 0.01,
			AdamBeta1: 0.8, AdamBeta2: 0.99, AdamEpsilon: 1e-6,
		},
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Errorf("want (-), have (+):\n%s", diff)
	}
}

func TestOneSettingSwitchesAnAdapterOn(t *testing.T) {
	r4, off := loop.DefaultLoRA(), (*loop.LoRA)(nil)
	r4.Rank = 4
	stable := r4
	stable.Targets, stable.RankStabilized = []string{"q_proj"}, true
	for name, c := range map[string]struct {
		source string
		sets   []string
		want   *loop.LoRA
	}{
		"no script has it":        {"", nil, off},
		"one setting":             {"", []string{"lora.r=4"}, &r4},
		"one with a schedule":     {"schedule = function() return {} end", []string{"lora.r=4"}, &r4},
		"a table":                 {"", []string{"lora={ r = 4 }"}, &r4},
		"over the script's":       {`lora = { r = 2, rslora = true }`, []string{"lora.r=4", "lora.targets=q_proj"}, &stable},
		"it is switched off":      {`lora = { r = 2 }`, []string{"lora=false"}, off},
		"a table replaces it all": {`lora = { r = 2, rslora = true }`, []string{"lora={ r = 4 }"}, &r4},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, load(t, script(c.source), c.sets...).Experiment().LoRA); diff != "" {
				t.Errorf("want (-), have (+):\n%s", diff)
			}
		})
	}
	_, err := load(t, script(`schedule = function() return { lora = { r = 4 } } end`)).Plan(t.Context(), 1, nil)
	if err == nil || !strings.Contains(err.Error(), `"lora" is of the whole experiment`) {
		t.Errorf("a plan changes the adapter: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	cases := map[string]struct{ source, want string }{
		"no experiment":                   {`local x = 1`, "s.lua returned nil, no experiment"},
		"no model":                        {`return { oracle = "o", prompts = { train = "a", validation = "b", test = "c" } }`, "s.lua:1: name a model"},
		"no oracle":                       {`return { model = "m", prompts = { train = "a", validation = "b", test = "c" } }`, "s.lua:1: name an oracle"},
		"a missing file":                  {`return { model = "m", oracle = "o", prompts = { train = "a", test = "c" } }`, "name all three files"},
		"an unknown key, with its line":   {script("lrr = 1"), `s.lua:5: there is no setting "lrr"; did you mean "lr"?`},
		"a key like nothing":              {script("zzzzzz = 1"), `there is no setting "zzzzzz" (there are adam_beta1,`},
		"a key of the loss":               {script("beta = 0.1"), `loss = { "dno", beta = ... }`},
		"a key of the sampler":            {script("temperature = 0.1"), `sampler = { "nucleus", temperature = ... }`},
		"an unknown key further in":       {script(`evaluate = { temprature = 0 }`), `s.lua:5: evaluate: there is no setting "temprature"; did you mean "temperature"?`},
		"a value without a name":          {script(`"lonely"`), `want names of settings, have the value "lonely"`},
		"an adapter that is true":         {script(`lora = true`), `lora: want a table, have true`},
		"an adapter's dropout":            {script(`lora = { dropout = 0.1 }`), `lora: "dropout" is not built yet`},
		"an adapter's unknown key":        {script(`lora = { aplha = 3 }`), `lora: there is no setting "aplha"; did you mean "alpha"?`},
		"an adapter without rank":         {script(`lora = { r = 0 }`), `lora.r: want a number from 1 to 8192, have 0`},
		"an adapter on the head":          {script(`lora = { targets = { "lm_head" } }`), `lora.targets: want one of all-linear, q_proj`},
		"an adapter on nothing":           {script(`lora = { targets = {} }`), `lora.targets: want a list of texts`},
		"an adapter's targets by name":    {script(`lora = { targets = { q_proj = true } }`), `lora.targets: want a list of texts`},
		"an adapter's rslora as text":     {script(`lora = { rslora = "yes" }`), `lora.rslora: want true or false, have "yes"`},
		"an adapter over an unknown base": {script(`lora = { base = "int4" }`), `lora.base: want one of float32, bfloat16, q8_0`},
		"a key that is later":             {script("replay = { share = 0.3 }"), `s.lua:5: "replay" is not built yet`},
		"a limit that is later":           {script("kl_limit = 3"), `"kl_limit" is not built yet`},
		"a reference that is later":       {script(`reference = "ema"`), `reference: "ema" is not built yet`},
		"a mixture as reference":          {script(`reference = "mixture(0.1)"`), `"mixture(0.1)" is not built yet`},
		"an iteration as reference":       {script(`reference = 2`), `the policy of iteration 2 is not built yet`},
		"a wrong reference":               {script(`reference = "previus"`), `have "previus"; did you mean "previous"?`},
		"several losses":                  {script(`loss = { { "dno" }, { "sft" } }`), `loss: a list of several is not built yet`},
		"a plugin's memory":               {script(`oracle = { "o", memory = 0 }`), `s.lua:5: oracle.memory: want a number from 1 to`},
		"a number that is text":           {script(`lr = "1e-4"`), `s.lua:5: lr: want a number, have "1e-4"`},
		"a text that is a number":         {script(`lr_schedule = 1`), `lr_schedule: want a text, have 1`},
		"a negative lr":                   {script(`lr = -1`), `lr: want a number of at least 0, have -1`},
		"an lr that is no number":         {script(`lr = 0/0`), `lr: want a number of at least 0, have NaN`},
		"an infinite lr":                  {script(`lr = math.huge`), `lr: want a number of at least 0, have +Inf`},
		"half a sample":                   {script(`samples = 2.5`), `samples: want a whole number, have 2.5`},
		"no samples":                      {script(`samples = 0`), `samples: want a number from 1 to 64, have 0`},
		"too many samples":                {script(`samples = 65`), `samples: want a number from 1 to 64, have 65`},
		"no epochs":                       {script(`epochs = 0`), `epochs: want`},
		"no batch":                        {script(`batch_size = 0`), `batch_size: want a number of at least 1, have 0`},
		"too many iterations":             {script(`iterations = 1001`), `iterations: want a number from 1 to 1000`},
		"an impossible share":             {script(`max_abstain = 1.1`), `max_abstain: want a number from 0 to 1`},
		"a beta of Adam of 1":             {script(`adam_beta1 = 1`), `adam_beta1: want a number from 0 and below 1, have 1`},
		"a negative temperature":          {script(`evaluate = { temperature = -1 }`), `evaluate.temperature: want a number of at least 0`},
		"a seed that is no whole number":  {script(`seed = 1.5`), `seed: want a whole number`},
		"a seed below 0":                  {script(`seed = -1`), `seed: want a number of at least 0`},
		"a word that is not among them":   {script(`opponents = "everybody"`), `opponents: want one of own, all, have "everybody"`},
		"an empty text":                   {script(`lr_schedule = ""`), `lr_schedule: want a text, have none`},
		"files that are no table":         {script(`prompts = "train.jsonl"`), `prompts: want a table, have "train.jsonl"`},
		"an unknown set of prompts":       {script(`prompts = { valid = "x" }`), `prompts: there is no setting "valid"`},
		"a plugin without a name":         {script(`oracle = { tolerance = 1 }`), `oracle: its first entry must be its name`},
		"a plugin that is a number":       {script(`oracle = 5`), `oracle: want { "name", setting = value }, have 5`},
		"a plugin with a second name":     {script(`oracle = { "a", "b" }`), `oracle: after the name "a" come settings with names, have "b"`},
		"a setting that is a function":    {script(`oracle = { "a", f = print }`), `oracle.f: want a number, text, true, false or a table of them, have a function`},
		"a setting that is infinite":      {script(`oracle = { "a", n = 1/0 }`), `oracle.n: want a finite number`},
		"a setting that holds itself":     {"local t = {} t.t = t\n" + script(`oracle = { "a", t = t }`), `oracle.t: the table is too large, or holds itself`},
		"a setting that is both":          {script(`oracle = { "a", t = { 1, x = 2 } }`), `oracle.t: want a list or names, have both`},
		"an environment that is no list":  {script(`oracle = { "a", env = "TOKEN" }`), `oracle.env: want a list of variables' names`},
		"an environment with values":      {script(`oracle = { "a", env = { TOKEN = "x" } }`), `oracle.env: want a list of variables' names`},
		"a timeout of 0":                  {script(`oracle = { "a", timeout = 0 }`), `oracle.timeout: want a number above 0`},
		"a c of 0":                        {script(`loss = { "dno", c = 0 }`), `loss.c: want a number above 0`},
		"a callback that is no function":  {script(`mix = true`), `s.lua:5: mix: want a function, have true`},
		"an error while loading":          {"local x = nil\nreturn x.y", "s.lua:2: attempt to index a non-table object(nil) with key 'y'"},
		"a teacher that is true":          {script(`teacher = true`), `teacher: want { "name", setting = value }, have true`},
		"dno.experiment without a table":  {`return require("dno").experiment("x")`, `s.lua returned "x", no experiment`},
		"a state that is a local":         {"local n = 0\n" + script("mix = function() n = n + 1\n end"), `s.lua:6: mix writes n, a local outside of it: a script keeps no state`},
		"a state in a function's local":   {"local function counter() local c = 0\nreturn function() c = c + 1 return c end end local next = counter()\n" + script("schedule = function() next() end"), `s.lua:2: schedule writes c, a local outside of it`},
		"a state in a nested function":    {"local n = 0\n" + script("mix = function() return (function() n = 1 end)() end"), `mix writes n, a local outside of it`},
		"a state in a table's function":   {"local n = 0 local m = { f = { function() n = 1 end } }\n" + script("pairs = function() m.f[1]() end"), `pairs writes n, a local outside of it`},
		"a state in a metatable":          {"local n = 0 local m = setmetatable({}, { __index = function() n = 1 end })\n" + script("pairs = function() return m.x end"), `pairs writes n, a local outside of it`},
		"a state in a global function":    {"local n = 0 function add() n = n + 1 end\n" + script("mix = function() add() end"), `s.lua:1: a global writes n, a local outside of it`},
		"a state in an iterator":          {"local words = ('a b'):gmatch('%a')\n" + script("mix = function() words() end"), `mix keeps an iterator of string.gmatch`},
		"a state in a neighbour":          {"local m = require 'stateful'\n" + script(""), `stateful.lua:1: module stateful writes n`},
		"a syntax error":                  {"return {", "s.lua:1: syntax error"},
		"an endless file":                 {"while true do end", "s.lua:1: used more than 10000000 instructions"},
		"a module that is not there":      {`require "nowhere"`, `s.lua:1: require "nowhere": there is neither`},
		"a key by index, further in":      {script("evaluate = {\n  [\"orracle\"] = 1,\n}"), `s.lua:6: evaluate: there is no setting "orracle"; did you mean "oracle"?`},
		"a nested plugin, with its line":  {script("evaluate = {\n  oracle = {\n  },\n}"), `s.lua:6: evaluate.oracle: its first entry must be its name`},
		"a selection at the top level":    {script("prompts = dno.split(1, 2)"), `prompts: there is no setting "split"`},
		"something else than a host does": {script("memory = 1"), `there is no setting "memory"`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := Load(Options{Name: "s.lua", Source: []byte(c.source), Dir: stateful})
			wantError(t, err, sdk.CodeScript, c.want)
		})
	}
}

func TestSetWinsOverTheScript(t *testing.T) {
	s := load(t, script(`lr = 1, loss = { "dpo", beta = 1, label = "x" }, evaluate = { temperature = 1 },
		teacher = { "file", path = "t" },
		schedule = function() return { lr = 2, epochs = 5, loss = { "ipo", beta = 3 }, teacher = { "file" } } end`),
		"lr=3", "loss.beta=0.05", "loss.c=9", "prompts.test=other.jsonl", "evaluate.temperature=0.7", `oracle={"command", path="x.sh"}`,
		"sampler=greedy", "seed=5", " samples = 7 ", "model=dir/my model", "teacher=false", "evaluate.oracle.tolerance=-1")
	e := s.Experiment()
	if e.Files.Test != "other.jsonl" || e.Files.Train != "a" || e.Evaluate.Temperature != 0.7 || e.Seed != 5 || e.Model != "dir/my model" {
		t.Errorf("have %+v", e)
	}
	inherited := loop.Plugin{Name: "command", Settings: sdk.Settings{"path": "x.sh", "tolerance": -1.0}}
	if diff := cmp.Diff(inherited, e.Evaluate.Oracle); diff != "" {
		t.Errorf("the oracle of evaluations is the training's, with its own settings:\n%s", diff)
	}
	if e.Plan.Loss.Settings["beta"] != 0.05 || e.Plan.Loss.Settings["label"] != "x" || e.Plan.Loss.C != 9 {
		t.Errorf("have %+v", e.Plan.Loss)
	}
	p, err := s.Plan(t.Context(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := loop.Plugin{Name: "ipo", Settings: sdk.Settings{"beta": 0.05}, C: 9}
	if diff := cmp.Diff(want, p.Loss); diff != "" || p.LR != 3 || p.Epochs != 5 || p.Samples != 7 || p.Teacher != nil {
		t.Errorf("have %+v\n%s", p, diff)
	}
	if diff := cmp.Diff(loop.Plugin{Name: "command", Settings: sdk.Settings{"path": "x.sh"}}, p.Oracle); diff != "" {
		t.Error(diff)
	}
	if p.Sampler.Name != "greedy" || p.Sampler.Settings != nil {
		t.Errorf("a plugin that is set brings no old settings: %+v", p.Sampler)
	}
	if e.Plan.Loss.Name != "dpo" {
		t.Error("a plan changed the experiment")
	}
}

func TestSeedOptionWins(t *testing.T) {
	seed := uint64(11)
	s, err := Load(Options{Name: "s.lua", Source: []byte(script("seed = 1")), Sets: []string{"seed=2"}, Seed: &seed})
	if err != nil || s.Experiment().Seed != 11 {
		t.Errorf("have %+v, %v", s.Experiment().Seed, err)
	}
}

func TestSetRefuses(t *testing.T) {
	for set, want := range map[string]string{
		"lr":                    "--set lr: want key=value",
		"=3":                    "want key=value",
		"loss..beta=3":          "want key=value",
		"lrr=3":                 `--set lrr=3: there is no setting "lrr"; did you mean "lr"?`,
		"replay=1":              `"replay" is not built yet`,
		"lr=fast":               `lr: want a number, have "fast"`,
		"lr=2*3":                `lr: want a number, have "2*3"`,
		"lr=-1":                 "lr: want a number of at least 0, have -1",
		"lr.x=1":                `lr is one value: it has no setting "x"`,
		"samples=1.5":           "want a whole number",
		"loss.a.b=1":            "loss.a is one setting: it has none of its own",
		"loss.c=0":              "loss.c: want a number above 0",
		"evaluate.tmperature=1": `evaluate: there is no setting "tmperature"; did you mean "temperature"?`,
		"evaluate.oracle={}":    "evaluate.oracle: its first entry must be its name",
		"oracle={":              "{ is not written as in Lua",
		`oracle="a`:             `"a is not written as in Lua`,
		"oracle={print}":        "want only numbers, texts in quotes, true, false and tables",
		"oracle={[1+1]=2}":      "want only numbers, texts in quotes, true, false and tables",
		"schedule=1":            "schedule is a function: it can only be written in the script",
		"teacher.path=x":        "teacher.path: there is no teacher",
		"teacher=true":          "teacher: want",
		"model=":                "model: want a text, have none",
		"prompts.tset=x":        `prompts: there is no setting "tset"; did you mean "test"?`,
	} {
		_, err := Load(Options{Name: "s.lua", Source: []byte(script("")), Sets: []string{set}})
		wantError(t, err, sdk.CodeUsage, want)
	}
}

func TestSetTakesLuaLiterals(t *testing.T) {
	for text, want := range map[string]string{
		"5": "5", "-1e-4": "-0.0001", "0x10": "16", "true": "true", "false": "false", `"a b"`: `"a b"`, "'c'": `"c"`,
		"word": `"word"`, "dir/file.jsonl": `"dir/file.jsonl"`, "7b-model": `"7b-model"`, "nil": `"nil"`, "a, b": `"a, b"`,
		"{ 1, 'x', k = { true } }": `{ 1, "x", k = { true } }`, "--x": `"--x"`, "": `""`,
		"- -1": "1", "print(1)": `"print(1)"`, "x = 1": `"x = 1"`,
	} {
		v, err := parseLiteral(text)
		if err != nil || describe(v, 5) != want {
			t.Errorf("%s: want %s, have %v, %v", text, want, v, err)
		}
	}
}

func TestPlanWithoutASchedule(t *testing.T) {
	s := load(t, script(`lr = 0.5`))
	for i := 1; i <= 3; i++ {
		p, err := s.Plan(t.Context(), i, nil)
		if err != nil || p.LR != 0.5 || p.Prompts != (loop.Selection{Split: i, Of: 3}) {
			t.Errorf("iteration %d: %+v, %v", i, p, err)
		}
	}
	if p, err := s.Plan(t.Context(), 4, nil); p != nil || err != nil {
		t.Errorf("beyond the iterations: %+v, %v", p, err)
	}
}

func TestScheduleDecides(t *testing.T) {
	s := load(t, script(`lr = 0.1, teacher = { "file", path = "t" },
	schedule = function(t, history)
		if t == 3 then return nil end
		if t == 2 then return {} end
		return { prompts = dno.split(2, 8, 50), lr = 0.1 * 0.5 ^ t, teacher = false, oracle = "other", reference = "initial" }
	end`))
	p, err := s.Plan(t.Context(), 1, nil)
	if err != nil || p.LR != 0.05 || p.Teacher != nil || p.Oracle.Name != "other" || p.Reference != "initial" ||
		p.Prompts != (loop.Selection{Split: 2, Of: 8, Count: 50}) {
		t.Errorf("have %+v, %v", p, err)
	}
	p, err = s.Plan(t.Context(), 2, nil)
	if err != nil || p.LR != 0.1 || p.Teacher == nil || p.Oracle.Name != "verifier" || p.Prompts != (loop.Selection{Split: 2, Of: 3}) {
		t.Errorf("an empty plan is the defaults: have %+v, %v", p, err)
	}
	if p, err := s.Plan(t.Context(), 3, nil); p != nil || err != nil {
		t.Errorf("nil ends the run: have %+v, %v", p, err)
	}
}

func TestF25ScheduleMistakes(t *testing.T) {
	for body, want := range map[string]string{
		`return 5`:                                      "schedule (iteration 2): it returned 5: want a table of settings, or nil",
		`return { lrr = 1 }`:                            `schedule (iteration 2): s.lua:5: there is no setting "lrr"; did you mean "lr"?`,
		`return { model = "x" }`:                        `s.lua:5: "model" is of the whole experiment: a plan cannot change it`,
		`return { mix = print }`:                        `"mix" is of the whole experiment`,
		`return { lr = 0/0 }`:                           "lr: want a number of at least 0, have NaN",
		`return { prompts = dno.split(5, 4) }`:          "prompts: there is no split 5 of 4",
		`return { prompts = { split = 1 } }`:            "prompts: split and of belong together",
		`return { prompts = dno.split(0, 4) }`:          "prompts.split: want a number of at least 1, have 0",
		`return { prompts = dno.take(0) }`:              "prompts.count: want a number of at least 1",
		`return { prompts = { train = "x" } }`:          `prompts: there is no setting "train"`,
		`return { prompts = "x" }`:                      `prompts: want a table, have "x"`,
		`error("no")`:                                   "schedule (iteration 2): s.lua:5: no",
		`error({ code = 1 })`:                           "schedule (iteration 2): an error was thrown that is no text: { code = 1 }",
		`while true do end`:                             "schedule (iteration 2): s.lua:5: used more than 10000000 instructions",
		`x = 1`:                                         `schedule (iteration 2): s.lua:5: a callback must not write the global "x"`,
		`local p = dno.plateau(history, "a", 1)`:        "schedule (iteration 2): s.lua:5: dno.plateau: iteration 1 has no figure 'a'",
		`history[1].win_rate = 1`:                       "what the host hands to a callback is read-only",
		`require "tools"`:                               "only while the file is loaded",
		`settings.lr = 1`:                               "s.lua:5: a callback must not change a table of the file",
		`table.insert(settings, 1)`:                     "a callback must not change a table of the file",
		`table.remove(settings)`:                        "a callback must not change a table of the file",
		`table.sort(settings)`:                          "a callback must not change a table of the file",
		`rawset(settings, 1, 1)`:                        "a callback must not change a table of the file",
		`setmetatable(settings, nil)`:                   "a callback must not change a table of the file",
		`settings.inner.x = 1`:                          "a callback must not change a table of the file",
		`shared.x = 1`:                                  "a callback must not change a table of the file",
		`dno.split = nil`:                               "a callback must not change a table of the file",
		`getmetatable(classy).__index = nil`:            "a callback must not change a table of the file",
		`pcall(rawset, settings, 1, 1) return "caught"`: `it returned "caught"`,
	} {
		s := load(t, `local settings = { 1, inner = {} } shared = {} local classy = setmetatable({}, { __index = {} }) `+
			script("schedule = function(t, history) local _ = settings, classy; "+body+" end"))
		_, err := s.Plan(t.Context(), 2, []rundir.IterationRecord{{}, {Iteration: 1}})
		wantError(t, err, sdk.CodeScript, want)
	}
}

func TestWritableInACall(t *testing.T) {
	s := load(t, `local add = function(list, x) list[#list + 1] = x end
`+script(`mix = function(prompt, own, teacher, t)
		local sum, list = 0, {}
		local function count(x) sum = sum + x end
		for i = 1, 3 do count(i) add(list, i) end
		table.insert(own, teacher[1]) own.note = nil
		return sum == 6 and #list == 3 and own or nil
	end`))
	have, err := s.Mix(t.Context(), 1, prompt("p"), completions(2), completions(1))
	if diff := cmp.Diff([]int{0, 1, 2}, have); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func estimate(mean float64) *rundir.Estimate {
	low, high := mean-0.125, mean+0.125
	return &rundir.Estimate{Mean: mean, Low: &low, High: &high, N: 10}
}

func TestHistoryShowsValidationOnly(t *testing.T) {
	records := []rundir.IterationRecord{
		{Evaluation: rundir.Evaluation{Validation: rundir.Figures{Accuracy: estimate(0.25), MeanTokens: *estimate(12)}}},
		{
			Iteration: 1, Prompts: 10, Completions: 50, Asked: 100, Abstained: 2, Flipped: 0.5, Cost: 1.5, Cycles: 3, Steps: 7, Loss: 0.5,
			MeanMargin: 0.4, LR: 1e-4, Oracle: "verifier", LossName: "dno", Reference: "previous",
			Pairs:   map[string]int{"student_student": 5, "teacher_student": 4},
			Seconds: map[string]float64{"train": 12345},
			Evaluation: rundir.Evaluation{
				Validation: rundir.Figures{Accuracy: estimate(0.5), AccuracySampled: estimate(0.375), WinRate: estimate(0.75), KLParent: estimate(2), KLInitial: estimate(3)},
				Test:       rundir.Figures{Accuracy: estimate(0.98765)},
			},
		},
	}
	s := load(t, script(`schedule = function(t, history)
		local h, start = history[1], history[0]
		print(#history, start.iteration, start.accuracy, start.win_rate, start.mean_tokens)
		print(h.iteration, h.accuracy, h.accuracy_sampled, h.win_rate, h.win_rate_low, h.win_rate_high, h.kl, h.kl_initial)
		print(h.pairs.student_student, h.pairs.teacher_student, h.pair_count, h.steps, h.loss, h.mean_margin, h.cycles, h.lr)
		print(h.prompts, h.completions, h.asked, h.abstained, h.flip_rate, h.cost, h.oracle, h.loss_name, h.reference)
		local keys = {}
		for k in pairs(h) do keys[#keys + 1] = k end
		print(table.concat(keys, " "))
		return {}
	end`))
	var lines []string
	s.box.log = func(line string) { lines = append(lines, line) }
	if _, err := s.Plan(t.Context(), 2, records); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"1\t0\t0.25\tnil\t12",
		"1\t0.5\t0.375\t0.75\t0.625\t0.875\t2\t3",
		"5\t4\t9\t7\t0.5\t0.4\t3\t0.0001",
		"10\t50\t100\t2\t0.5\t1.5\tverifier\tdno\tprevious",
	}
	if diff := cmp.Diff(want, lines[:4]); diff != "" {
		t.Errorf("want (-), have (+):\n%s", diff)
	}
	if all := strings.Join(lines, " "); strings.Contains(all, "98765") || strings.Contains(all, "test") || strings.Contains(all, "seconds") || strings.Contains(all, "12345") {
		t.Errorf("the script sees what it must not: %s", all)
	}
}

// TestCallsDoNotDependOnTheirOrder: the same prompts in another order, by another script, after a
// failed call, and from several goroutines.
func TestCallsDoNotDependOnTheirOrder(t *testing.T) {
	source := script(`mix = function(prompt, own, teacher, t)
		local out = {}
		for _, c in ipairs(own) do
			if prompt.id == "bad" then error("bad") end
			if math.random() < 0.5 and math.random(3) > 1 then out[#out + 1] = c end
		end
		return out
	end`)
	mix := func(s *Script, iteration int, id string) string {
		have, err := s.Mix(context.Background(), iteration, prompt(id), completions(20), nil)
		return fmt.Sprint(have, err)
	}
	forward, backward := load(t, source), load(t, source)
	want := make([]string, 50)
	for i := range want {
		want[i] = mix(forward, 1+i%2, fmt.Sprint("p", i))
	}
	distinct := map[string]bool{}
	for i := len(want) - 1; i >= 0; i-- {
		mix(backward, 1, "bad")
		if have := mix(backward, 1+i%2, fmt.Sprint("p", i)); have != want[i] {
			t.Errorf("prompt %d: want %s, have %s", i, want[i], have)
		}
		distinct[want[i]] = true
	}
	if len(distinct) < 45 { // of 50 draws out of 2^20 or so
		t.Errorf("only %d of 50 draws are distinct", len(distinct))
	}
	if mix(forward, 1, "p") == mix(forward, 2, "p") || mix(forward, 1, "p") == mix(load(t, source, "seed=1"), 1, "p") {
		t.Error("randomness does not depend on the iteration or the seed")
	}
	var group sync.WaitGroup
	for i := range want {
		group.Add(1)
		go func() {
			defer group.Done()
			if have := mix(forward, 1+i%2, fmt.Sprint("p", i)); have != want[i] {
				t.Errorf("prompt %d at once: want %s, have %s", i, want[i], have)
			}
		}()
	}
	group.Wait()
}

func TestRandomIsTheSameEverywhere(t *testing.T) {
	// From the reference implementation of SplitMix64, seed 1234567.
	r := splitmix(1234567)
	for _, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423} {
		if have := r.next(); have != want {
			t.Errorf("want %d, have %d", want, have)
		}
	}
	if a, b := seedOf(1, 2, "mix", "p"), seedOf(1, 2, "pairs", "p"); a == b {
		t.Error("two functions have the same seed")
	}
	if a, b := seedOf(1, 2, "a", "bc"), seedOf(1, 2, "ab", "c"); a == b {
		t.Error("two names have the same seed")
	}
}

func TestCancelledCallsEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := load(t, script(`schedule = function() return {} end`))
	if _, err := s.Plan(ctx, 1, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("want the context's error, have %v", err)
	}
}

func TestHashNamesAllSources(t *testing.T) {
	plain, spaced := load(t, script("")), load(t, script(" "))
	with := load(t, `require "tools" `+script(""))
	again := load(t, `require "tools" `+script(""))
	if plain.Hash() == spaced.Hash() || with.Hash() != again.Hash() || len(plain.Hash()) != 64 {
		t.Errorf("hashes %s %s %s", plain.Hash(), spaced.Hash(), with.Hash())
	}
	s, err := Load(Options{Name: "s.lua", Source: []byte(`require "tools" ` + script("")), Dir: changed})
	if err != nil || s.Hash() == with.Hash() {
		t.Errorf("a changed neighbour leaves the hash as it was: %v", err)
	}
}
