package sdk

import (
	"context"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
)

// Kind is what a plugin is.
type Kind string

const (
	KindOracle  Kind = "oracle"
	KindLoss    Kind = "loss"
	KindSampler Kind = "sampler"
)

// Manifest declares what a plugin is and needs. Capabilities are declared here, never guessed
// from the Go type: they have to cross a process.
type Manifest struct {
	Kind     Kind      // set by the plugin's kind of server; the host refuses another
	Name     string    // "dpo"; lower-case letters, digits, '-' and '_'
	Version  string    // changes whenever results may change: part of a judgment's key
	Help     string    // one line
	Settings []Setting // every setting that the script may give

	Oracle  OracleTraits  // read for oracles only
	Loss    LossTraits    // read for losses only
	Sampler SamplerTraits // read for samplers only
}

// OracleTraits are an oracle's capabilities.
type OracleTraits struct {
	Form         OracleForm
	OrderMatters bool // P(a≻b) + P(b≻a) may differ from 1 for the same texts: the host then asks both orders
	Concurrency  int  // how many calls of Judge the host may run at once; 0 means 1
}

// OracleForm is the shape of an oracle's answer.
type OracleForm string

const (
	FormPairwise  OracleForm = "pairwise"  // each asked pair is answered by itself
	FormListwise  OracleForm = "listwise"  // all candidates are seen side by side
	FormPointwise OracleForm = "pointwise" // candidates are scored; the host prefers the higher score, equal scores tie
)

// Unit is what a loss is a sum over; an optimizer batch's size counts units.
type Unit string

const (
	UnitPair       Unit = "pair"
	UnitCompletion Unit = "completion"
	UnitGroup      Unit = "group"
)

// LossTraits are what a loss counts and needs.
type LossTraits struct {
	Unit        Unit // UnitPair where empty
	TokenLevel  bool // needs per-token log-probabilities, and returns derivatives per token
	NoReference bool // does not read the reference policy's log-probabilities
	SoftTarget  bool // regresses onto Target: its setting beta over the host's c is then the η of the paper's bound
	Mismatched  bool // needs log-probabilities of completions given another completion's prompt (KTO's baseline)
	Surrogate   bool // its derivatives hold some function of the policy's log-probabilities fixed (a running mean, an importance weight): they are not the slope of Loss, and are not checked against it
}

// SamplerTraits are what a sampler needs.
type SamplerTraits struct {
	UsesGenerator bool // draws from the policy in training through the host's Generator
}

// SettingType is the type of a setting's value.
type SettingType string

const (
	TypeNumber SettingType = "number"
	TypeBool   SettingType = "bool"
	TypeString SettingType = "string"
	TypeList   SettingType = "list"
	TypePath   SettingType = "path" // text naming a file: the host makes it absolute, starting from the script's folder
)

// Setting declares one setting of a plugin.
type Setting struct {
	Name    string
	Type    SettingType
	Default any      // nil: the setting has no default; with Required, it must be given
	Help    string   // one line, with the unit
	Min     *float64 // least and greatest value of a number, both legal; nil: no limit
	Max     *float64
	OneOf   []string // the legal values of a string; empty: any
	// Required settings must be given by the script.
	Required bool
}

// Between returns the limits of a number, for Setting literals: Min, Max = Between(0, 1).
func Between(min, max float64) (lo, hi *float64) { return &min, &max }

// AtLeast returns the lower limit of a number, for Setting literals.
func AtLeast(min float64) *float64 { return &min }

// Plugin is what all three kinds have in common.
//
// Lifecycle, as the host drives it: 1. Manifest, once after the start; 2. Configure, at each
// iteration's start and before any other call; 3. the kind's own method, any number of times;
// 4. the process is told to stop, and a plugin that is an io.Closer is closed. Configure is never
// called while another call runs.
type Plugin interface {
	Manifest() Manifest
	// Configure takes the settings of the iteration that begins. The host has checked them against
	// the manifest and filled in defaults. An error ends the run with the plugin's words.
	Configure(ctx context.Context, settings Settings) error
}

// Resolve checks given settings, and the defaults of the others, against the manifest and returns
// them all. A number may be any Go number and comes out as a float64. The error names the setting,
// what is legal, and for an unknown name the nearest valid one; it is of [CodeUsage], or of
// [CodePlugin] where a default is at fault.
func (m Manifest) Resolve(given Settings) (Settings, error) {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.ContainsFunc(m.Settings, func(s Setting) bool { return s.Name == name }) {
			return nil, Errorf(CodeUsage, "%s %q has no setting %q%s", m.Kind, m.Name, name, m.suggest(name))
		}
	}
	out := Settings{}
	for _, s := range m.Settings {
		v, ok := given[s.Name]
		switch {
		case !ok && s.Default == nil && s.Required:
			return nil, Errorf(CodeUsage, "%s %q needs the setting %q: %s", m.Kind, m.Name, s.Name, s.Help)
		case !ok && s.Default == nil:
			continue
		}
		code, whose := CodeUsage, ""
		if !ok {
			v, code, whose = s.Default, CodePlugin, "its default: "
		}
		checked, err := s.check(v)
		if err != nil {
			return nil, Errorf(code, "%s %q, setting %q: %s%w", m.Kind, m.Name, s.Name, whose, err)
		}
		out[s.Name] = checked
	}
	return out, nil
}

func (m Manifest) suggest(name string) string {
	names := make([]string, len(m.Settings))
	for i, s := range m.Settings {
		names[i] = s.Name
	}
	if near := Nearest(name, names); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	if len(names) == 0 {
		return " (it has none)"
	}
	return " (it has " + strings.Join(names, ", ") + ")"
}

func (s Setting) check(v any) (any, error) {
	switch s.Type {
	case TypeNumber:
		f, ok := toFloat(v)
		switch {
		case !ok:
			return nil, fmt.Errorf("want a number, have %v", v)
		case math.IsNaN(f) || math.IsInf(f, 0):
			return nil, fmt.Errorf("want a finite number, have %v", f)
		case s.Min != nil && f < *s.Min:
			return nil, fmt.Errorf("want at least %v, have %v", *s.Min, f)
		case s.Max != nil && f > *s.Max:
			return nil, fmt.Errorf("want at most %v, have %v", *s.Max, f)
		}
		return f, nil
	case TypeBool:
		if b, ok := v.(bool); ok {
			return b, nil
		}
		return nil, fmt.Errorf("want true or false, have %v", v)
	case TypeList:
		if l, ok := v.([]any); ok {
			return l, nil
		}
		return nil, fmt.Errorf("want a list, have %v", v)
	default:
		t, ok := v.(string)
		if !ok {
			return nil, fmt.Errorf("want text, have %v", v)
		}
		if len(s.OneOf) > 0 && !slices.Contains(s.OneOf, t) {
			return nil, fmt.Errorf("want one of %s, have %q", strings.Join(s.OneOf, ", "), t)
		}
		return t, nil
	}
}

func toFloat(v any) (float64, bool) {
	switch r := reflect.ValueOf(v); {
	case r.CanFloat():
		return r.Float(), true
	case r.CanInt():
		return float64(r.Int()), true
	case r.CanUint():
		return float64(r.Uint()), true
	}
	return 0, false
}

// Nearest returns the candidate that is fewest edits from name, or "" where none is near: more
// than a third of the letters, and more than two, would have to change. Ties go to the first.
func Nearest(name string, candidates []string) string {
	best, bestAt := "", max(2, len(name)/3)+1
	for _, c := range candidates {
		if d := edits(name, c); d < bestAt {
			best, bestAt = c, d
		}
	}
	return best
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diag
			if a[i-1] != b[j-1] {
				cost++
			}
			diag = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
