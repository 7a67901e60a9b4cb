package script

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dno-project/dno/core/loop"
	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/scripts"
)

// TestEverySettingHasALimit walks the loop's types: a new field needs its line in limits.
func TestEverySettingHasALimit(t *testing.T) {
	want := []string{"c", "memory", "timeout"} // of plugins
	var walk func(typ reflect.Type, prefix string)
	walk = func(typ reflect.Type, prefix string) {
		for name, i := range keysOf(typ) {
			field := typ.Field(i).Type
			switch {
			case field == reflect.TypeFor[loop.Plugin](), field == reflect.TypeFor[*loop.Plugin](), field == reflect.TypeFor[loop.Plan]():
			case field == reflect.TypeFor[loop.Files]():
				walk(field, "prompts.")
			case field.Kind() == reflect.Struct:
				walk(field, prefix+name+".")
			case field.Kind() == reflect.Pointer:
				walk(field.Elem(), prefix+name+".")
			default:
				want = append(want, prefix+name)
			}
		}
	}
	walk(reflect.TypeFor[loop.Experiment](), "")
	walk(reflect.TypeFor[loop.Plan](), "")
	slices.Sort(want)
	if have := sortedKeys(limits); !slices.Equal(want, have) {
		t.Errorf("settings %v\nlimits   %v", want, have)
	}
	for _, name := range append(later, sortedKeys(elsewhere)...) {
		if slices.Contains(experimentKeys(), name) {
			t.Errorf("%q is a setting now: it does not come later, nor belong elsewhere", name)
		}
	}
}

func TestDefaultsAreLegal(t *testing.T) {
	plan := reflect.ValueOf(loop.DefaultPlan())
	for name, i := range keysOf(plan.Type()) {
		l, value := limits[name], plan.Field(i)
		problem := ""
		switch value.Kind() {
		case reflect.String:
			problem = l.word(name, value.String())
		case reflect.Int:
			problem = l.number(float64(value.Int()))
		case reflect.Float64:
			problem = l.number(value.Float())
		}
		if problem != "" {
			t.Errorf("%s: %s", name, problem)
		}
	}
}

func TestRecipesLoad(t *testing.T) {
	recipes := scripts.Recipes()
	if len(recipes) == 0 {
		t.Fatal("there are no recipes")
	}
	for _, r := range recipes {
		t.Run(r.Name, func(t *testing.T) {
			source, err := scripts.Recipe(r.Name)
			if err != nil {
				t.Fatal(err)
			}
			if lines := strings.Count(string(source), "\n"); lines > 80 {
				t.Errorf("%d lines: a recipe has at most 80", lines)
			}
			if len(r.Help) < 20 || strings.Contains(r.Help, "--") || !strings.Contains(string(source), "Source:") {
				t.Errorf("the comment does not say what it is, and from where: %q", r.Help)
			}
			s, err := Load(Options{Name: r.Name + ".lua", Source: source})
			if err != nil {
				t.Fatal(err)
			}
			for i := 1; i <= s.Experiment().Iterations; i++ {
				if p, err := s.Plan(t.Context(), i, nil); p == nil || err != nil {
					t.Errorf("iteration %d: %v, %v", i, p, err)
				}
			}
			if _, err := s.Mix(t.Context(), 1, prompt("p"), completions(5), completions(1)); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := scripts.Recipe(scripts.Default); err != nil {
		t.Error(err)
	}
	if _, err := scripts.Recipe("../lib/dno"); err == nil || !strings.Contains(err.Error(), "dno-prct") {
		t.Errorf("want an error that names the recipes, have %v", err)
	}
}

// TestTeacherIsInHalfOfTheGroups: of 1000 prompts 500 are expected, with a standard deviation of 15.8.
func TestTeacherIsInHalfOfTheGroups(t *testing.T) {
	source, err := scripts.Recipe("dno-prct")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(Options{Name: "dno-prct.lua", Source: source})
	if err != nil {
		t.Fatal(err)
	}
	with := 0
	for i := range 1000 {
		mixed, err := s.Mix(t.Context(), 1, prompt(strings.Repeat("x", i)), completions(5), completions(1))
		if err != nil {
			t.Fatal(err)
		}
		with += len(mixed) - 5
	}
	if with < 437 || with > 563 { // four standard deviations
		t.Errorf("the teacher is in %d of 1000 groups", with)
	}
}

func FuzzLoad(f *testing.F) {
	for _, r := range scripts.Recipes() {
		source, err := scripts.Recipe(r.Name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(source, "lr=1")
	}
	for _, program := range programs {
		f.Add([]byte(program), `loss={"dno", beta=1}`)
	}
	f.Add([]byte(script(`mix = function(p, own) return own end`)), "evaluate.oracle.x={{{}}}")
	f.Fuzz(func(t *testing.T, source []byte, set string) {
		s, err := Load(Options{Name: "f.lua", Source: source, Sets: []string{set}})
		if err == nil {
			_, err = s.Plan(t.Context(), 1, nil)
		}
		if err == nil {
			_, err = s.Mix(t.Context(), 1, prompt("p"), completions(2), nil)
		}
		if err == nil {
			_, err = s.Pairs(t.Context(), 1, prompt("p"), game(t, nil), preference.Rule{})
		}
		if err != nil && strings.Contains(err.Error(), "interpreter failed") {
			t.Error(err)
		}
	})
}

func BenchmarkMix(b *testing.B) {
	source := script(`mix = function(prompt, own, teacher, t) return own .. dno.when(dno.chance(0.5), teacher) end`)
	s, err := Load(Options{Name: "s.lua", Source: []byte(source)})
	if err != nil {
		b.Fatal(err)
	}
	p, own, teacher := prompt("p"), completions(5), completions(1)
	for b.Loop() {
		if _, err := s.Mix(b.Context(), 1, p, own, teacher); err != nil {
			b.Fatal(err)
		}
	}
}
