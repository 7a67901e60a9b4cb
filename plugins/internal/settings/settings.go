// Package settings declares settings that several plugins have, and reads those that need more than
// their declared type: whole numbers, numbers above zero, lists of texts, programs.
package settings

import (
	"math"

	"github.com/dno-project/dno/sdk"
)

// Positive returns the number called name, which has to be above 0: a manifest's limits are
// themselves legal values and cannot say so.
func Positive(s sdk.Settings, name string, fallback float64) (float64, error) {
	v := s.Number(name, fallback)
	if !(v > 0) {
		return 0, sdk.Errorf(sdk.CodeUsage, "setting %q: want a number above 0, have %v", name, v)
	}
	return v, nil
}

// Whole returns the number called name, which has to be whole and of at most 31 bits.
func Whole(s sdk.Settings, name string, fallback int) (int, error) {
	v := s.Number(name, float64(fallback))
	if v != math.Trunc(v) || math.Abs(v) > math.MaxInt32 {
		return 0, sdk.Errorf(sdk.CodeUsage, "setting %q: want a whole number, have %v", name, v)
	}
	return int(v), nil
}

// Number declares a number that may be left out; nil is no limit.
func Number(name string, fallback float64, least, most *float64, help string) sdk.Setting {
	return sdk.Setting{Name: name, Type: sdk.TypeNumber, Default: fallback, Min: least, Max: most, Help: help}
}

// Program declares the settings that name a program; [ReadProgram] reads them.
func Program() []sdk.Setting {
	return []sdk.Setting{
		{Name: "path", Type: sdk.TypePath, Required: true,
			Help: "the program; a name without a slash is looked up in PATH"},
		{Name: "args", Type: sdk.TypeList, Default: []any{}, Help: "its arguments, texts"},
	}
}

// ReadProgram returns the program's path, which has to be given, and its arguments.
func ReadProgram(s sdk.Settings) (path string, args []string, err error) {
	if args, err = Texts(s, "args"); err != nil {
		return "", nil, err
	}
	if path = s.String("path", ""); path == "" {
		return "", nil, sdk.Errorf(sdk.CodeUsage, "setting \"path\": want the path of a program")
	}
	return path, args, nil
}

// Texts returns the list of texts called name; nil where it is not given.
func Texts(s sdk.Settings, name string) ([]string, error) {
	list, _ := s[name].([]any)
	var out []string
	for i, v := range list {
		text, ok := v.(string)
		if !ok {
			return nil, sdk.Errorf(sdk.CodeUsage, "setting %q: entry %d: want text, have %v", name, i+1, v)
		}
		out = append(out, text)
	}
	return out, nil
}
