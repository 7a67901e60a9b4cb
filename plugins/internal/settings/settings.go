// Package settings reads settings that need more than their declared type: whole numbers,
// numbers above zero, lists of texts.
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
