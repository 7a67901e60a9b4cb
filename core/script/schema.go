package script

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/sdk"
)

// The names and types of all settings come from the Go types by their JSON names; here is only what
// types cannot say.

// callbacks are the script's functions.
var callbacks = []string{"mix", "pairs", "schedule"}

// limit is what is legal for a number, or for a text.
type limit struct {
	min, max float64
	above    bool     // min itself is not legal
	below    bool     // max itself is not legal
	oneOf    []string // of a text; empty: any that is not empty
}

var infinite = math.Inf(1)

// limits are those of every setting that is no plugin, by its path.
var limits = map[string]limit{
	"model":              {},
	"seed":               {max: 1 << 53},
	"iterations":         {min: 1, max: 1000},
	"checkpoint_every":   {max: math.MaxInt32},
	"precision":          {oneOf: []string{loop.DefaultPrecision, "float32", "bfloat16"}},
	"lora.r":             {min: 1, max: 8192},
	"lora.alpha":         {min: 1e-9, max: 1e9},
	"lora.targets":       {oneOf: []string{loop.AllLinear, "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}},
	"lora.rslora":        {},
	"lora.base":          {oneOf: []string{"float32", "bfloat16", "q8_0"}},
	"sampling_weights":   {oneOf: []string{loop.DefaultSamplingWeights, "float32", "bfloat16", "q8_0"}},
	"prompts.train":      {},
	"prompts.validation": {},
	"prompts.test":       {},
	"prompts.split":      {min: 1, max: math.MaxInt32},
	"prompts.of":         {min: 1, max: math.MaxInt32},
	"prompts.count":      {min: 1, max: math.MaxInt32},

	"samples":      {min: 1, max: 64},
	"opponents":    {oneOf: []string{preference.OpponentsOwn, preference.OpponentsAll}},
	"estimator":    {oneOf: []string{preference.LeavePairOut, preference.LeaveSelfOut}},
	"min_margin":   {max: 1},
	"max_pairs":    {max: math.MaxInt32},
	"max_abstain":  {max: 1},
	"reference":    {oneOf: []string{"previous", "initial"}},
	"lr":           {max: infinite, below: true},
	"lr_schedule":  {oneOf: []string{"constant", "linear", "cosine"}},
	"warmup":       {max: math.MaxInt32},
	"epochs":       {min: 1, max: 1000},
	"batch_size":   {min: 1, max: math.MaxInt32},
	"batch_by":     {oneOf: []string{loop.ByPrompt, loop.ByUnit}},
	"clip":         {max: infinite, below: true},
	"weight_decay": {max: infinite, below: true},
	"adam_beta1":   {max: 1, below: true},
	"adam_beta2":   {max: 1, below: true},
	"adam_epsilon": {max: 1, above: true},

	"budget.money":  {max: infinite, below: true},
	"budget.tokens": {max: infinite, below: true},
	"budget.calls":  {max: infinite, below: true},
	"budget.wall":   {max: infinite, below: true},

	"evaluate.temperature": {max: infinite, below: true},
	"evaluate.max_tokens":  {max: math.MaxInt32},

	"memory":  {min: 1, max: 1 << 30},                    // of a plugin
	"timeout": {max: infinite, above: true, below: true}, // of a plugin
	"c":       {max: infinite, above: true, below: true}, // of a loss
}

// later are keys that the design knows and nothing builds yet.
var later = []string{
	"best_of", "dropout", "early_stop", "ema", "gate", "kl_limit", "length_limit", "limits", "mixture", "opponent_mix",
	"patience", "replay", "rollback", "stop",
}

// laterReferences are reference policies that nothing builds yet; an iteration's number is another.
var laterReferences = []string{"ema", "last-good", "mixture"}

// elsewhere are settings that people look for at the top level and that belong to a plugin.
var elsewhere = map[string]string{
	"beta":        `it is a setting of the loss: loss = { "dno", beta = ... }`,
	"c":           `it is a setting of the loss: loss = { "dno", c = ... }`,
	"temperature": `it is a setting of the sampler: sampler = { "nucleus", temperature = ... }`,
	"top_p":       `it is a setting of the sampler: sampler = { "nucleus", top_p = ... }`,
	"top_k":       `it is a setting of the sampler: sampler = { "nucleus", top_k = ... }`,
	"max_tokens":  `it is a setting of the sampler: sampler = { "nucleus", max_tokens = ... }`,
}

// keysOf returns a struct's keys and where its fields are.
func keysOf(t reflect.Type) map[string]int {
	keys := map[string]int{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		keys[name] = i
	}
	return keys
}

// planKeys are what schedule may return.
func planKeys() []string { return sortedKeys(keysOf(reflect.TypeFor[loop.Plan]())) }

// experimentKeys are what may stand at the top level: the experiment's own settings and those of
// the plan; "prompts" is files there, and a selection in a plan.
func experimentKeys() []string {
	keys := planKeys()
	for name := range keysOf(reflect.TypeFor[loop.Experiment]()) {
		if name != "files" && name != "plan" {
			keys = append(keys, name)
		}
	}
	slices.Sort(keys)
	return keys
}

// unknown says what is wrong with a key that is not among the valid ones.
func unknown(key string, valid []string, inPlan bool) string {
	switch {
	case slices.Contains(later, key):
		return fmt.Sprintf("%q is not built yet", key)
	case inPlan && (slices.Contains(callbacks, key) || slices.Contains(experimentKeys(), key)):
		return fmt.Sprintf("%q is of the whole experiment: a plan cannot change it", key)
	}
	if near := sdk.Nearest(key, valid); near != "" {
		return fmt.Sprintf("there is no setting %q; did you mean %q?", key, near)
	}
	if hint := elsewhere[key]; hint != "" {
		return fmt.Sprintf("there is no setting %q here: %s", key, hint)
	}
	return fmt.Sprintf("there is no setting %q (there are %s)", key, strings.Join(valid, ", "))
}

// number says what is wrong with a number, or "".
func (l limit) number(n float64) string {
	switch {
	case math.IsNaN(n), n < l.min, l.above && n == l.min, n > l.max, l.below && n == l.max:
		return fmt.Sprintf("want a number %s, have %v", l.describe(), n)
	}
	return ""
}

func (l limit) describe() string {
	low, high := "from "+plain(l.min), " to "+plain(l.max)
	if l.above {
		low = "above " + plain(l.min)
	}
	switch {
	case l.max == infinite, l.max >= math.MaxInt32:
		high = ""
		if !l.above {
			low = "of at least " + plain(l.min)
		}
	case l.below:
		high = " and below " + plain(l.max)
	}
	return low + high
}

func plain(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// word says what is wrong with a text, or "".
func (l limit) word(path, text string) string {
	if text == "" {
		return "want a text, have none"
	}
	if len(l.oneOf) == 0 || slices.Contains(l.oneOf, text) {
		return ""
	}
	if path == "reference" {
		for _, name := range laterReferences {
			if strings.HasPrefix(text, name) {
				return fmt.Sprintf("%q is not built yet", text)
			}
		}
	}
	if near := sdk.Nearest(text, l.oneOf); near != "" {
		return fmt.Sprintf("want one of %s, have %q; did you mean %q?", strings.Join(l.oneOf, ", "), text, near)
	}
	return fmt.Sprintf("want one of %s, have %q", strings.Join(l.oneOf, ", "), text)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
