package verifier

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dno-project/dno/sdk"
)

// configured returns an oracle with these settings, as the host would give them.
func configured(t testing.TB, given sdk.Settings) sdk.Oracle {
	t.Helper()
	o := New()
	s, err := o.Manifest().Resolve(given)
	if err == nil {
		err = o.Configure(context.Background(), s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// assessOne judges one completion against an empty one, and returns its assessment and why the oracle abstains.
func assessOne(t testing.TB, o sdk.Oracle, p sdk.Prompt, text string) (sdk.Assessment, string) {
	t.Helper()
	out, err := o.Judge(context.Background(), []sdk.Comparison{{ID: "q", Prompt: p, Candidates: []string{text, ""}, Pairs: []sdk.Ordered{{A: 0, B: 1}}}})
	if err != nil {
		t.Fatal(err)
	}
	if why := out[0].Pairs[0].Abstain; why != "" {
		if len(out[0].Assessed) != 0 {
			t.Errorf("abstains, and assesses %+v", out[0].Assessed)
		}
		return sdk.Assessment{}, why
	}
	return out[0].Assessed[0], ""
}

func TestChecks(t *testing.T) {
	t.Parallel()
	steps := map[string]any{"instruction_id_list": []any{"punctuation:no_comma", "startend:quotation"}, "kwargs": []any{map[string]any{}, nil}}
	schema := map[string]any{"type": "object", "required": []any{"a"}, "properties": map[string]any{"a": map[string]any{"type": "integer"}}}
	for name, c := range map[string]struct {
		given    sdk.Settings
		answer   string
		metadata map[string]any
		text     string
		score    float64
		abstain  string // the beginning
	}{
		"arithmetic is the default":          {nil, "70", nil, "62+8=70 cm", 10, ""}, // the prompt has no numbers, so no step earns credit
		"arithmetic by name":                 {sdk.Settings{"check": "arithmetic"}, "70", nil, "70", 10, ""},
		"number, right":                      {sdk.Settings{"check": "number"}, "1,200 m", nil, "The answer is 1.2 km.", 1, ""},
		"number, wrong":                      {sdk.Settings{"check": "number"}, "1,200 m", nil, "The answer is 1.3 km.", 0, ""},
		"number, none":                       {sdk.Settings{"check": "number"}, "1,200", nil, "many", 0, ""},
		"number, no reference":               {sdk.Settings{"check": "number"}, "", nil, "5", 0, "the prompt has no reference answer"},
		"number, another reference":          {sdk.Settings{"check": "number"}, "a dozen", nil, "5", 0, `the prompt's reference answer "a dozen" is not a number`},
		"number, the tolerance as written":   {sdk.Settings{"check": "number", "abs_tol": 0.1}, "10", nil, "10.1", 1, ""},
		"number, beyond the tolerance":       {sdk.Settings{"check": "number", "abs_tol": 0.1}, "10", nil, "10.11", 0, ""},
		"number, relative":                   {sdk.Settings{"check": "number", "rel_tol": 0.01}, "200", nil, "202", 1, ""},
		"boxed, right":                       {sdk.Settings{"check": "boxed"}, `\frac{1}{2}`, nil, `so \boxed{0.5}`, 1, ""},
		"boxed, no box":                      {sdk.Settings{"check": "boxed"}, `\frac{1}{2}`, nil, "0.5", 0, ""},
		"boxed, no reference":                {sdk.Settings{"check": "boxed"}, " ", nil, `\boxed{}`, 0, "the prompt has no reference answer"},
		"boxed, an empty box":                {sdk.Settings{"check": "boxed"}, "0", nil, `\boxed{}`, 0, ""},
		"choice, right":                      {sdk.Settings{"check": "choice"}, "(B)", nil, "The answer is B.", 1, ""},
		"choice, ambiguous":                  {sdk.Settings{"check": "choice"}, "B", nil, "The answer is A or B.", 0, ""},
		"choice, another reference":          {sdk.Settings{"check": "choice"}, "Paris", nil, "B", 0, `the prompt's reference answer "Paris" is not a choice`},
		"exact":                              {sdk.Settings{"check": "exact"}, "Paris", nil, "Paris", 1, ""},
		"exact, a newline":                   {sdk.Settings{"check": "exact"}, "Paris", nil, "Paris\n", 0, ""},
		"exact, another case":                {sdk.Settings{"check": "exact"}, "Paris", nil, "paris", 0, ""},
		"exact, case ignored":                {sdk.Settings{"check": "exact", "ignore_case": true}, "Été", nil, "éTÉ", 1, ""},
		"exact, space ignored":               {sdk.Settings{"check": "exact", "ignore_space": true}, "New York", nil, "\n New \t York ", 1, ""},
		"exact, space between is space":      {sdk.Settings{"check": "exact", "ignore_space": true}, "New York", nil, "NewYork", 0, ""},
		"exact, both":                        {sdk.Settings{"check": "exact", "ignore_case": true, "ignore_space": true}, "New York", nil, "NEW  YORK", 1, ""},
		"exact, no reference":                {sdk.Settings{"check": "exact"}, "", nil, "", 0, "the prompt has no reference answer"},
		"regex of the setting":               {sdk.Settings{"check": "regex", "pattern": `^[a-z]+\d$`}, "", nil, "abc7", 1, ""},
		"regex of the setting, not found":    {sdk.Settings{"check": "regex", "pattern": `^[a-z]+\d$`}, "", nil, "abc", 0, ""},
		"regex, anywhere":                    {sdk.Settings{"check": "regex", "pattern": "b+"}, "", nil, "abbc", 1, ""},
		"regex of the reference":             {sdk.Settings{"check": "regex"}, `(?i)\bparis\b`, nil, "In PARIS.", 1, ""},
		"regex, no reference":                {sdk.Settings{"check": "regex"}, "", nil, "x", 0, "the prompt has no reference answer"},
		"regex, a broken reference":          {sdk.Settings{"check": "regex"}, "(", nil, "(", 0, `the prompt's reference answer "(" is not a pattern: error parsing regexp`},
		"regex, a back reference":            {sdk.Settings{"check": "regex"}, `(a)\1`, nil, "aa", 0, `the prompt's reference answer "(a)\\1" is not a pattern`},
		"regex, repeated too often":          {sdk.Settings{"check": "regex"}, "a{1001}", nil, "aa", 0, `the prompt's reference answer "a{1001}" is not a pattern`},
		"regex, repeated repetitions":        {sdk.Settings{"check": "regex"}, "((a{100}){100}){100}", nil, "aa", 0, "the prompt's reference answer"},
		"regex, a long pattern":              {sdk.Settings{"check": "regex"}, strings.Repeat("a", 4<<10+1), nil, "aa", 0, "the prompt's reference answer"},
		"regex, a text too long for it":      {sdk.Settings{"check": "regex", "pattern": "(a|b|c){1000}|a"}, "", nil, strings.Repeat("a", 1<<20), 0, ""},
		"schema of the prompt":               {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": schema}, ` {"a": 3} `, 1, ""},
		"schema, another type":               {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": schema}, `{"a": "3"}`, 0, ""},
		"schema, a whole number":             {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": schema}, `{"a": 3.0}`, 1, ""},
		"schema, missing":                    {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": schema}, `{}`, 0, ""},
		"schema, no JSON":                    {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": schema}, `{"a": 3`, 0, ""},
		"schema, two values":                 {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": true}, `{} {}`, 0, ""},
		"schema, a value and words":          {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": true}, `{} so`, 0, ""},
		"schema, a fence":                    {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": true}, "```json\n{}\n```", 0, ""},
		"schema, a member twice":             {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": true}, `{"a": 1, "a": 2}`, 0, ""},
		"schema, the same name deeper":       {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": true}, `{"a": {"a": 2}, "b": ["a", "a"]}`, 1, ""},
		"schema, 64 deep":                    {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": true}, strings.Repeat("[", 64) + strings.Repeat("]", 64), 1, ""},
		"schema, 65 deep":                    {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": true}, strings.Repeat("[", 65) + strings.Repeat("]", 65), 0, ""},
		"schema, a large exponent":           {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": schema}, `{"a": 1e401}`, 0, ""},
		"schema, a huge exponent":            {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": schema}, `{"a": 1e99999999999999999999}`, 0, ""},
		"schema as text":                     {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": `{"type": "null"}`}, "null", 1, ""},
		"schema that is false":               {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": false}, "null", 0, ""},
		"schema, none":                       {sdk.Settings{"check": "json_schema"}, "", nil, "null", 0, `the prompt has no metadata "schema"`},
		"schema that is none":                {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": map[string]any{"type": "text"}}, "null", 0, `the prompt's metadata "schema" is not a JSON Schema`},
		"schema with a reference elsewhere":  {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": map[string]any{"$ref": "http://127.0.0.1:1/x.json"}}, "null", 0, `the prompt's metadata "schema" is not a JSON Schema`},
		"schema with a reference to a file":  {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": map[string]any{"$ref": "file:///etc/hostname"}}, "null", 0, `the prompt's metadata "schema" is not a JSON Schema`},
		"schema with a reference to itself":  {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": `{"type": "array", "items": {"$ref": "#"}}`}, "[[],[[]]]", 1, ""},
		"schema that refers to nothing else": {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": `{"$ref": "#"}`}, "[]", 0, ""},
		"schema of draft 7 with a format":    {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": `{"$schema": "http://json-schema.org/draft-07/schema#", "format": "date"}`}, `"today"`, 0, ""},
		"schema of 2020-12 with a format":    {sdk.Settings{"check": "json_schema"}, "", map[string]any{"schema": `{"format": "date"}`}, `"today"`, 1, ""},
		"instructions, all":                  {sdk.Settings{"check": "instructions"}, "", steps, `"Yes."`, 1, ""},
		"instructions, half":                 {sdk.Settings{"check": "instructions"}, "", steps, `"Well, yes."`, 0.5, ""},
		"instructions, none of them":         {sdk.Settings{"check": "instructions"}, "", steps, "Well, yes.", 0, ""},
		"instructions, none given":           {sdk.Settings{"check": "instructions"}, "", nil, "x", 0, "the prompt has no instructions"},
		"more than a megabyte":               {sdk.Settings{"check": "number"}, "5", nil, "5" + strings.Repeat(" ", 1<<20), 0, ""},
		"a megabyte":                         {sdk.Settings{"check": "number"}, "5", nil, "5" + strings.Repeat(" ", 1<<20-1), 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, why := assessOne(t, configured(t, c.given), sdk.Prompt{Answer: c.answer, Metadata: c.metadata}, c.text)
			if !strings.HasPrefix(why, c.abstain) || (why == "") != (c.abstain == "") {
				t.Fatalf("abstains: %q", why)
			}
			if why != "" {
				return
			}
			correct := 0.0
			if c.score >= 1 {
				correct = 1
			}
			if got.Score == nil || *got.Score != c.score || got.Labels[sdk.LabelCorrect] != correct {
				t.Errorf("got %v, %v", *got.Score, got.Labels)
			}
		})
	}
}

// A higher score wins, the same score ties, whatever the check.
func TestTheHigherScoreWins(t *testing.T) {
	t.Parallel()
	p := sdk.Prompt{Metadata: map[string]any{
		"instruction_id_list": []any{"punctuation:no_comma", "startend:quotation", "change_case:english_lowercase"}, "kwargs": []any{nil, nil, nil}}}
	texts := []string{`"all of it"`, `"All of it"`, `"All, all"`, "Oh, no", `"Other"`}
	pairs := []sdk.Ordered{{A: 0, B: 1}, {A: 1, B: 0}, {A: 1, B: 2}, {A: 2, B: 3}, {A: 1, B: 4}, {A: 0, B: 0}, {A: 3, B: 3}}
	out, err := configured(t, sdk.Settings{"check": "instructions"}).Judge(context.Background(), []sdk.Comparison{{Prompt: p, Candidates: texts, Pairs: pairs}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []sdk.Verdict{
		{P: 1, Reason: "only the first answer is right"}, {P: 0, Reason: "only the second answer is right"},
		{P: 1, Reason: "both answers are wrong, by score 0.667 to 0.333"}, {P: 1, Reason: "both answers are wrong, by score 0.333 to 0"},
		{P: 0.5, Reason: "both answers are wrong, by score 0.667 to 0.667"}, {P: 0.5, Reason: "both answers are right"}, {P: 0.5, Reason: "both answers are wrong"},
	} {
		if out[0].Pairs[i] != want {
			t.Errorf("pair %d: got %+v, want %+v", i, out[0].Pairs[i], want)
		}
	}
	if l := out[0].Assessed[1].Labels; l[LabelFollowed] != 2 || l[LabelInstructions] != 3 {
		t.Errorf("labels %v", l)
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.json")
	if err := os.WriteFile(broken, []byte(`{"$ref": "other.json"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(dir, "large.json")
	if err := os.WriteFile(large, []byte(`"`+strings.Repeat("a", maxSchema)+`"`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		settings   sdk.Settings
		want, hint string
	}{
		"an unknown check":           {sdk.Settings{"check": "numbers"}, `setting "check": want one of arithmetic, boxed,`, ""},
		"a setting of another check": {sdk.Settings{"check": "exact", "abs_tol": 0.1}, `setting "abs_tol": the check "exact" does not read it`, `set check = "number"`},
		"a setting of no check":      {sdk.Settings{"ignore_case": true}, `setting "ignore_case": the check "arithmetic" does not read it`, `set check = "exact"`},
		"a pattern that is none":     {sdk.Settings{"check": "regex", "pattern": "a{2,1}"}, `setting "pattern": error parsing regexp`, "RE2"},
		"no such schema":             {sdk.Settings{"check": "json_schema", "schema": filepath.Join(dir, "none")}, `setting "schema": open `, ""},
		"a schema of another file":   {sdk.Settings{"check": "json_schema", "schema": broken}, "nothing is loaded from outside of the schema", "$ref"},
		"a schema that is too large": {sdk.Settings{"check": "json_schema", "schema": large}, "at most 262144 are read", "$ref"},
	} {
		t.Run(name, func(t *testing.T) {
			err := New().Configure(context.Background(), c.settings)
			var e *sdk.Error
			if !errors.As(err, &e) || e.Code != sdk.CodeUsage || !strings.Contains(err.Error(), c.want) || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestASchemaFileIsRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(path, []byte(`{"type": "array", "uniqueItems": true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	o := configured(t, sdk.Settings{"check": "json_schema", "schema": path})
	for text, want := range map[string]float64{"[1, 2]": 1, "[1, 1.0]": 0, "3": 0} {
		if got, why := assessOne(t, o, sdk.Prompt{Metadata: map[string]any{"schema": false}}, text); why != "" || *got.Score != want {
			t.Errorf("%s: score %v, %q", text, got.Score, why)
		}
	}
}

func TestAnUnknownInstructionFails(t *testing.T) {
	t.Parallel()
	p := sdk.Prompt{ID: "seven", Metadata: map[string]any{"instruction_id_list": []any{"punctuation:no_coma"}, "kwargs": []any{nil}}}
	_, err := configured(t, sdk.Settings{"check": "instructions"}).Judge(context.Background(), []sdk.Comparison{{Prompt: p, Candidates: []string{"x"}}})
	var e *sdk.Error
	if !errors.As(err, &e) || e.Code != sdk.CodeUsage || !strings.Contains(e.Hint, "punctuation:no_comma") ||
		err.Error() != `read the instructions of prompt "seven": instruction_id_list: there is no instruction "punctuation:no_coma"` {
		t.Errorf("got %v", err)
	}
}

// The settings are part of a judgment's key: without any, the key is that of runs from before there were settings.
func TestDefaultsAreNoSettings(t *testing.T) {
	t.Parallel()
	s, err := New().Manifest().Resolve(nil)
	if err != nil || len(s) != 0 || New().Manifest().Version != "1" {
		t.Errorf("settings %v, version %s, %v", s, New().Manifest().Version, err)
	}
}

// An oracle that was configured otherwise goes back to arithmetic.
func TestConfiguredAgain(t *testing.T) {
	t.Parallel()
	o := configured(t, sdk.Settings{"check": "exact"})
	if err := o.Configure(context.Background(), sdk.Settings{}); err != nil {
		t.Fatal(err)
	}
	if got, _ := assessOne(t, o, ask("3 4", "12", nil), "3*4=12"); *got.Score != 11 {
		t.Errorf("score %v", *got.Score)
	}
}

// Each check answers for a megabyte, in time.
func TestAMegabyteIsChecked(t *testing.T) {
	t.Parallel()
	all := map[string]any{"schema": `{"type": "array", "uniqueItems": true, "items": {"type": ["integer", "array"]}}`,
		"instruction_id_list": []any{"length_constraints:number_sentences"}, "kwargs": []any{map[string]any{"num_sentences": 3.0, "relation": "at least"}}}
	for check, answer := range map[string]string{"arithmetic": "5", "number": "5", "boxed": "5", "choice": "A", "exact": "5", "regex": "(a+)+$", "json_schema": "", "instructions": ""} {
		o := configured(t, sdk.Settings{"check": check})
		for _, piece := range []string{"a", "1,", "[", "{\"a\":"} {
			text := strings.Repeat(piece, (1<<20)/len(piece))
			start := time.Now()
			if _, why := assessOne(t, o, sdk.Prompt{Answer: answer, Metadata: all}, text); why != "" {
				t.Fatal(why)
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("%s: %q many times takes %v", check, piece, took)
			}
		}
	}
	// A long array is valid, and none of its pairs is compared twice.
	numbers := make([]int, 100_000)
	for i := range numbers {
		numbers[i] = i
	}
	text, err := json.Marshal(numbers)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := assessOne(t, configured(t, sdk.Settings{"check": "json_schema"}), sdk.Prompt{Metadata: all}, string(text)); *got.Score != 1 {
		t.Error("it is not valid")
	}
}

// Nothing panics, and the same text is graded the same by every check.
func FuzzText(f *testing.F) {
	for _, seed := range []string{`{"a": [1, 2.5e3, "x", null]}`, "[[[[]]]]", "Paris", `\bParis\b`, "a{3}|b*", `{"type": "object"}`, `{"$ref": "#/$defs/a", "$defs": {"a": {"pattern": "^a"}}}`} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, answer, text string) {
		p := sdk.Prompt{Answer: answer, Metadata: map[string]any{"schema": answer}}
		for _, given := range []sdk.Settings{
			{"check": "exact"}, {"check": "exact", "ignore_case": true, "ignore_space": true}, {"check": "regex"}, {"check": "json_schema"},
		} {
			o := configured(t, given)
			a, why := assessOne(t, o, p, text)
			b, again := assessOne(t, o, p, text)
			if why != again || why == "" && *a.Score != *b.Score {
				t.Errorf("%v: %+v %q, then %+v %q", given, a, why, b, again)
			}
			if given["check"] == "exact" && answer == text && why == "" && *a.Score != 1 {
				t.Errorf("%v: a text is not itself", given)
			}
		}
	})
}
