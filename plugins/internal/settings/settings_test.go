package settings

import (
	"slices"
	"testing"

	"github.com/dno-project/dno/sdk"
)

func TestPositive(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		given sdk.Settings
		want  float64
		fails bool
	}{
		"a given number is returned":   {given: sdk.Settings{"beta": 0.5}, want: 0.5},
		"a missing one falls back":     {given: sdk.Settings{}, want: 0.1},
		"zero is refused":              {given: sdk.Settings{"beta": 0.0}, fails: true},
		"a negative number is refused": {given: sdk.Settings{"beta": -1.0}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Positive(c.given, "beta", 0.1)
			if (err != nil) != c.fails || got != c.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestWhole(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		given sdk.Settings
		want  int
		fails bool
	}{
		"a whole number is returned": {given: sdk.Settings{"top_k": 40.0}, want: 40},
		"a missing one falls back":   {given: sdk.Settings{}, want: 7},
		"a fraction is refused":      {given: sdk.Settings{"top_k": 1.5}, fails: true},
		"a huge number is refused":   {given: sdk.Settings{"top_k": 1e300}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Whole(c.given, "top_k", 7)
			if (err != nil) != c.fails || got != c.want {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		given sdk.Settings
		want  []string
		fails bool
	}{
		"texts are returned in order":    {given: sdk.Settings{"stop": []any{"b", "a"}}, want: []string{"b", "a"}},
		"a missing list is nil":          {given: sdk.Settings{}},
		"an entry of another type fails": {given: sdk.Settings{"stop": []any{"b", 1.0}}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Texts(c.given, "stop")
			if (err != nil) != c.fails || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}
