package sdk

import (
	"math"
	"reflect"
	"strings"
	"testing"
)

// everything is a manifest with a setting of every type.
func everything() Manifest {
	least, most := Between(-1, 1)
	return Manifest{Kind: KindOracle, Name: "judge", Settings: []Setting{
		{Name: "level", Type: TypeNumber, Default: 0.5, Min: least, Max: most},
		{Name: "count", Type: TypeNumber, Default: 3, Min: AtLeast(1)}, // an int
		{Name: "strict", Type: TypeBool, Default: true},
		{Name: "style", Type: TypeString, Default: "short", OneOf: []string{"short", "long"}},
		{Name: "note", Type: TypeString},
		{Name: "stop", Type: TypeList, Default: []any{"."}},
		{Name: "file", Type: TypePath, Required: true, Help: "where the rules are"},
	}}
}

func TestResolveReturnsGivenSettingsAndDefaults(t *testing.T) {
	for name, c := range map[string]struct {
		given Settings
		want  Settings // beyond file = "f" and the defaults
	}{
		"the defaults, an int among them as a float64": {Settings{}, Settings{}},
		"every type": {
			Settings{"level": -0.25, "count": 7.0, "strict": false, "style": "long", "note": "", "stop": []any{}},
			Settings{"level": -0.25, "count": 7.0, "strict": false, "style": "long", "note": "", "stop": []any{}},
		},
		"both limits are legal, the least":      {Settings{"level": -1.0}, Settings{"level": -1.0}},
		"both limits are legal, the greatest":   {Settings{"level": 1.0}, Settings{"level": 1.0}},
		"any Go number is a number: int":        {Settings{"count": 9}, Settings{"count": 9.0}},
		"any Go number is a number: int64":      {Settings{"count": int64(9)}, Settings{"count": 9.0}},
		"any Go number is a number: uint8":      {Settings{"count": uint8(9)}, Settings{"count": 9.0}},
		"any Go number is a number: float32":    {Settings{"count": float32(1.5)}, Settings{"count": 1.5}},
		"without an upper limit there is none":  {Settings{"count": 1e300}, Settings{"count": 1e300}},
		"text without a list of values is free": {Settings{"note": "wörtlich"}, Settings{"note": "wörtlich"}},
	} {
		t.Run(name, func(t *testing.T) {
			want := Settings{"level": 0.5, "count": 3.0, "strict": true, "style": "short", "stop": []any{"."}, "file": "f"}
			for k, v := range c.want {
				want[k] = v
			}
			c.given["file"] = "f"
			got, err := everything().Resolve(c.given)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("have %#v, %v\nwant %#v", got, err, want)
			}
		})
	}
}

func TestResolveRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		given Settings
		want  string
	}{
		"a number below its limit":           {Settings{"level": -1.5}, `oracle "judge", setting "level": want at least -1, have -1.5`},
		"a number above its limit":           {Settings{"level": 2}, `setting "level": want at most 1, have 2`},
		"NaN":                                {Settings{"level": math.NaN()}, `setting "level": want a finite number, have NaN`},
		"an infinity where there is no most": {Settings{"count": math.Inf(1)}, `setting "count": want a finite number, have +Inf`},
		"text for a number":                  {Settings{"level": "0.5"}, `setting "level": want a number, have 0.5`},
		"nothing for a number":               {Settings{"level": nil}, `setting "level": want a number`},
		"a number for a truth value":         {Settings{"strict": 1}, `setting "strict": want true or false, have 1`},
		"a truth value for text":             {Settings{"note": true}, `setting "note": want text, have true`},
		"a number for a path":                {Settings{"file": 1}, `setting "file": want text, have 1`},
		"text for a list":                    {Settings{"stop": "."}, `setting "stop": want a list, have .`},
		"a value that is not one of several": {Settings{"style": "Long"}, `setting "style": want one of short, long, have "Long"`},
		"an unknown name, with the nearest":  {Settings{"stric": true}, `oracle "judge" has no setting "stric"; did you mean "strict"?`},
		"an unknown name, with all":          {Settings{"temperature": 1}, `has no setting "temperature" (it has level, count, strict, style, note, stop, file)`},
		"the first unknown name by alphabet": {Settings{"zzzzzz": 1, "aaaaaa": 1, "mmmmmm": 1}, `no setting "aaaaaa"`},
		"a required one that is missing":     {Settings{}, `oracle "judge" needs the setting "file": where the rules are`},
		"a slip before what is then missing": {Settings{"fil": "f"}, `no setting "fil"; did you mean "file"?`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := everything().Resolve(c.given)
			if err == nil || got != nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("have %v, %v\nwant %s", got, err, c.want)
			}
			if CodeOf(err) != CodeUsage {
				t.Errorf("code %d is not the user's", CodeOf(err))
			}
		})
	}
}

func TestAFaultyDefaultIsThePluginsFault(t *testing.T) {
	for name, c := range map[string]struct {
		setting Setting
		want    string
	}{
		"of another type":          {Setting{Name: "x", Type: TypeNumber, Default: "1"}, `loss "l", setting "x": its default: want a number, have 1`},
		"below its own limit":      {Setting{Name: "x", Type: TypeNumber, Default: 0, Min: AtLeast(1)}, "its default: want at least 1, have 0"},
		"not among its own values": {Setting{Name: "x", Type: TypeString, Default: "c", OneOf: []string{"a", "b"}}, "its default: want one of a, b"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Manifest{Kind: KindLoss, Name: "l", Settings: []Setting{c.setting}}.Resolve(nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || CodeOf(err) != CodePlugin {
				t.Errorf("have %v, code %d, want %s", err, CodeOf(err), c.want)
			}
		})
	}
}

func TestAPluginWithoutSettingsSaysSo(t *testing.T) {
	_, err := Manifest{Kind: KindLoss, Name: "plain"}.Resolve(Settings{"beta": 1})
	if err == nil || !strings.Contains(err.Error(), `loss "plain" has no setting "beta" (it has none)`) {
		t.Errorf("have %v", err)
	}
}

func TestNearest(t *testing.T) {
	for name, c := range map[string]struct {
		name       string
		candidates []string
		want       string
	}{
		"itself":                                   {"beta", []string{"alpha", "beta"}, "beta"},
		"a letter too many":                        {"betta", []string{"alpha", "beta"}, "beta"},
		"a letter too few":                         {"bta", []string{"alpha", "beta"}, "beta"},
		"two letters swapped are two edits":        {"lenght", []string{"length"}, "length"},
		"in a short name three edits are too many": {"dpo", []string{"tie"}, ""},
		"in a name of nine, three are allowed":     {"verifixyz", []string{"verifier"}, "verifier"}, // x→e, y→r, −z
		"in a name of eight, they are not":         {"verifxyz", []string{"verifier"}, ""},
		"the nearer of two":                        {"max_token", []string{"max_tokes_", "max_tokens"}, "max_tokens"},
		"of equally near ones the first":           {"bat", []string{"cat", "hat"}, "cat"},
		"none of none":                             {"x", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Nearest(c.name, c.candidates); got != c.want {
				t.Errorf("have %q, want %q", got, c.want)
			}
		})
	}
}
