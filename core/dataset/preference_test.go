package dataset

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/sdk"
)

type readPreferences func(io.Reader, string, ImportOptions, func(Preference) error) (Imported, error)

// collect reads all preferences, a byte at a time.
func collect(read readPreferences, data string, options ImportOptions) ([]Preference, Imported, error) {
	var out []Preference
	found, err := read(iotest.OneByteReader(strings.NewReader(data)), "prefs", options, func(p Preference) error {
		out = append(out, p)
		return nil
	})
	return out, found, err
}

var sky = user("What color is the sky?")

func TestReadTRL(t *testing.T) {
	t.Parallel()
	blue := Preference{Prompt: sky, A: "It is blue.", B: "It is green.", P: 1, Source: SourceTRL, FromLine: 1}
	brief := blue
	brief.Prompt = append([]sdk.Message{{Role: "system", Content: "Be brief."}}, sky...)
	const asked, right, wrong = `{"role":"user","content":"What color is the sky?"}`, `{"role":"assistant","content":"It is blue."}`, `{"role":"assistant","content":"It is green."}`
	text := func(prompt, a, b string) Preference {
		return Preference{Prompt: user(prompt), A: a, B: b, P: 1, Source: SourceTRL, FromLine: 1}
	}
	for name, c := range map[string]struct {
		line string
		want Preference
	}{
		// The examples of TRL's page of formats.
		"text":                   {`{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}`, text("The sky is", " blue.", " green.")},
		"text, implicit":         {`{"chosen": "The sky is blue.", "rejected": "The sky is green."}`, text("The sky is", " blue.", " green.")},
		"conversation":           {`{"prompt": [` + asked + `], "chosen": [` + right + `], "rejected": [` + wrong + `]}`, blue},
		"conversation, implicit": {`{"chosen": [` + asked + `,` + right + `], "rejected": [` + asked + `,` + wrong + `]}`, blue},
		// And those that are met with.
		"a prompt in text, said again":              {`{"prompt": "What color is the sky?", "chosen": [` + asked + `,` + right + `], "rejected": [` + asked + `,` + wrong + `], "score": 1}`, blue},
		"messages, said again":                      {`{"prompt": [` + asked + `], "chosen": [` + asked + `,` + right + `], "rejected": [` + asked + `,` + wrong + `]}`, blue},
		"a prompt in text, completions as messages": {`{"prompt": "What color is the sky?", "chosen": [` + right + `], "rejected": [` + wrong + `]}`, blue},
		"a system's turn":                           {`{"chosen": [{"role":"system","content":"Be brief."},` + asked + `,` + right + `], "rejected": [{"role":"system","content":"Be brief."},` + asked + `,` + wrong + `]}`, brief},
		"an empty completion":                       {`{"prompt": "x", "chosen": "y", "rejected": ""}`, text("x", "y", "")},
		"one begins the other":                      {`{"chosen": "One two", "rejected": "One"}`, text("One", " two", "")},
		"not within a letter":                       {`{"chosen": "Grüße ä", "rejected": "Grüße ö"}`, text("Grüße", " ä", " ö")},
		"null is no prompt":                         {`{"prompt": null, "chosen": "ab", "rejected": "ac"}`, text("a", "b", "c")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, found, err := collect(ReadTRL, c.line, ImportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Preference{c.want}, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(Imported{Preferences: 1}, found); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadAlpacaEval(t *testing.T) {
	t.Parallel()
	got, found, err := collect(ReadAlpacaEval, "\ufeff"+`
[
  {"instruction": "What color is the sky?", "output_1": "It is [\"blue\"]}, {\\", "output_2": "Green.", "preference": 1.0,
   "generator_1": "base", "generator_2": "mine", "annotator": "judge", "price_per_example": 0.01, "raw_completion": {"a": [1, {"b": null}]}},
  {"instruction": "What color is the sky?", "input": "", "output_1": "", "output_2": "Blue.", "preference": 1.75},
  {"instruction": "What color is the sky?", "output_1": "a", "output_2": "b", "preference": null},{"instruction": "What color is the sky?", "output_1": "a", "output_2": "a", "preference": 1.5}
]
`, ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Preference{
		{Prompt: sky, A: `It is ["blue"]}, {\`, B: "Green.", P: 1, Source: SourceAlpacaEval, AuthorA: "base", AuthorB: "mine", FromLine: 3},
		{Prompt: sky, B: "Blue.", P: 0.25, Source: SourceAlpacaEval, FromLine: 5},
		{Prompt: sky, A: "a", B: "a", P: 0.5, Source: SourceAlpacaEval, FromLine: 6},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Imported{Preferences: 3, Unjudged: 1}, found); diff != "" {
		t.Error(diff)
	}
}

func TestReadDistilabel(t *testing.T) {
	t.Parallel()
	pair := func(a, b string, p float64, authors ...string) Preference {
		out := Preference{Prompt: sky, A: a, B: b, P: p, Source: SourceDistilabel, FromLine: 1}
		if len(authors) > 0 {
			out.AuthorA, out.AuthorB = authors[0], authors[1]
		}
		return out
	}
	brief := pair("a", "b", 0)
	brief.Prompt = append([]sdk.Message{{Role: "system", Content: "Be brief."}}, sky...)
	const sky = `"What color is the sky?"`
	for name, c := range map[string]struct {
		line     string
		want     []Preference
		unjudged int
	}{
		"three generations": {`{"instruction": ` + sky + `, "generations": ["a", "b", "c"], "ratings": [4, 5, 4.0], "generation_models": ["m", null, "n"], "rationales": ["x", "y", "z"]}`,
			[]Preference{pair("a", "b", 0, "m", ""), pair("a", "c", 0.5, "m", "n"), pair("b", "c", 1, "", "n")}, 0},
		"a rating and a generation are missing": {`{"instruction": ` + sky + `, "generations": ["a", "b", null, "d"], "ratings": [4, null, 3, 1]}`,
			[]Preference{pair("a", "d", 1)}, 5},
		"a system's prompt": {`{"system_prompt": "Be brief.", "instruction": ` + sky + `, "generations": ["a", "b"], "ratings": [1, 2]}`, []Preference{brief}, 0},
		"a chat":            {`{"messages": [{"role": "user", "content": ` + sky + `}], "generations": ["a", "b"], "ratings": [-1, -1.5]}`, []Preference{pair("a", "b", 1)}, 0},
		"what its step for DPO writes": {`{"prompt": ` + sky + `, "chosen": [{"role":"user","content":` + sky + `},{"role":"assistant","content":"a"}], "chosen_rating": 5, "chosen_model": "m",` +
			`"rejected": [{"role":"user","content":` + sky + `},{"role":"assistant","content":"b"}], "rejected_rating": 1, "rejected_model": "n"}`, []Preference{pair("a", "b", 1, "m", "n")}, 0},
		"and with the generations left in": {`{"instruction": ` + sky + `, "generations": ["b", "a"], "ratings": [1, 5], "prompt": ` + sky + `, "chosen": "a", "rejected": "b"}`,
			[]Preference{pair("b", "a", 0)}, 0},
		"equal ratings choose one and reject it": {`{"prompt": ` + sky + `, "chosen": "a", "rejected": "a", "chosen_rating": 3, "rejected_rating": 3}`, []Preference{pair("a", "a", 0.5)}, 0},
		"scores by their other names":            {`{"prompt": ` + sky + `, "chosen": "a", "rejected": "b", "score_chosen": 8.5, "score_rejected": 8.5}`, []Preference{pair("a", "b", 0.5)}, 0},
		"no ratings":                             {`{"prompt": ` + sky + `, "chosen": "a", "rejected": "b"}`, []Preference{pair("a", "b", 1)}, 0},
		"a rating that is missing":               {`{"prompt": ` + sky + `, "chosen": "a", "rejected": "b", "chosen_rating": 5, "rejected_rating": null}`, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, found, err := collect(ReadDistilabel, c.line, ImportOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(Imported{Preferences: len(c.want), Unjudged: c.unjudged}, found); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestF20ImportsNameTheFault(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		read       readPreferences
		text, want string
	}{
		"TRL, an empty file":               {ReadTRL, "\n\n", "prefs has no preferences: want {"},
		"TRL, no JSON":                     {ReadTRL, "\n{\"chosen\"", "prefs:2: the line is not valid JSON"},
		"TRL, a key misspelt":              {ReadTRL, `{"prompt":"x","choosen":"a","rejected":"b"}`, `prefs:1: the key "chosen" is missing, did you mean it by "choosen"?`},
		"TRL, no rejected":                 {ReadTRL, `{"prompt":"x","chosen":"a","rejected":null}`, `the key "rejected" is missing`},
		"TRL, a key twice":                 {ReadTRL, `{"prompt":"x","chosen":"a","chosen":"b","rejected":"c"}`, `the key "chosen" is there twice`},
		"TRL, one of each kind":            {ReadTRL, `{"prompt":"x","chosen":"a","rejected":[{"role":"assistant","content":"b"}]}`, `"rejected" is not text`},
		"TRL, the other way round":         {ReadTRL, `{"prompt":"x","chosen":[{"role":"assistant","content":"b"}],"rejected":"a"}`, `"rejected" is of the wrong kind`},
		"TRL, the same twice":              {ReadTRL, `{"prompt":"x","chosen":"a","rejected":"a"}`, `the same text`},
		"TRL, nothing in common":           {ReadTRL, `{"chosen":"abc","rejected":"xyz"}`, `do not begin alike`},
		"TRL, white space in common":       {ReadTRL, `{"chosen":" \nabc","rejected":" \nxyz"}`, `do not begin alike`},
		"TRL, half a letter in common":     {ReadTRL, `{"chosen":"ä","rejected":"ö"}`, `do not begin alike`},
		"TRL, messages without a prompt":   {ReadTRL, `{"chosen":[{"role":"assistant","content":"a"}],"rejected":[{"role":"assistant","content":"b"}]}`, `begin with the assistant's turn`},
		"TRL, a turn more":                 {ReadTRL, `{"prompt":"x","chosen":[{"role":"assistant","content":"a"},{"role":"user","content":"b"}],"rejected":[{"role":"assistant","content":"b"}]}`, `one turn of the assistant after`},
		"TRL, the user's turn":             {ReadTRL, `{"prompt":"x","chosen":[{"role":"user","content":"a"}],"rejected":[{"role":"assistant","content":"b"}]}`, `the first the user's`},
		"TRL, a prompt that is another":    {ReadTRL, `{"prompt":[{"role":"user","content":"y"}],"chosen":[{"role":"user","content":"x"},{"role":"assistant","content":"a"}],"rejected":[{"role":"user","content":"x"},{"role":"assistant","content":"b"}]}`, `begin with other messages`},
		"TRL, no user's turn at the end":   {ReadTRL, `{"prompt":[{"role":"system","content":"x"}],"chosen":"a","rejected":"b"}`, `ends with the system's turn`},
		"AlpacaEval, an empty file":        {ReadAlpacaEval, "\n ", "prefs has no preferences: want {"},
		"AlpacaEval, an empty list":        {ReadAlpacaEval, "[ ]", "prefs has no preferences: want {"},
		"AlpacaEval, lines":                {ReadAlpacaEval, "\n{}\n{}", "prefs:2: the file is no JSON list"},
		"AlpacaEval, cut off":              {ReadAlpacaEval, "[\n{\"instruction\": \"x", "prefs:2: the file ends within the list"},
		"AlpacaEval, cut after an element": {ReadAlpacaEval, "[{\"instruction\":\"x\",\"output_1\":\"a\",\"output_2\":\"b\",\"preference\":1}\n,\n", "prefs:3: the file ends within the list"},
		"AlpacaEval, a comma too many":     {ReadAlpacaEval, `[{"instruction":"x","output_1":"a","output_2":"b","preference":1},]`, "an element of the list is missing"},
		"AlpacaEval, more behind it":       {ReadAlpacaEval, "[]\n[]", "prefs:2: something follows the list's end"},
		"AlpacaEval, NUL behind it":        {ReadAlpacaEval, "[]\n\x00", "prefs:2: something follows the list's end"},
		"AlpacaEval, a bracket too many":   {ReadAlpacaEval, `[}]`, "prefs:1: the line is no JSON object"},
		"AlpacaEval, NaN":                  {ReadAlpacaEval, "[\n\n{\"instruction\":\"x\",\n\"output_1\":\"a\",\"output_2\":\"b\",\"preference\":NaN}]", "prefs:3: the line is not valid JSON"},
		"AlpacaEval, 0":                    {ReadAlpacaEval, `[{"instruction":"x","output_1":"a","output_2":"b","preference":0}]`, `"preference" is 0: want 1 (the first) to 2`},
		"AlpacaEval, 2.01":                 {ReadAlpacaEval, `[{"instruction":"x","output_1":"a","output_2":"b","preference":2.01}]`, `"preference" is 2.01`},
		"AlpacaEval, a word":               {ReadAlpacaEval, `[{"instruction":"x","output_1":"a","output_2":"b","preference":"1"}]`, `"preference" is "1": want a number`},
		"AlpacaEval, no preference":        {ReadAlpacaEval, `[{"instruction":"x","output_1":"a","output_2":"b"}]`, `the key "preference" is missing`},
		"AlpacaEval, no output":            {ReadAlpacaEval, `[{"instruction":"x","output_1":"a","output_2":null,"preference":null}]`, `the key "output_2" is missing`},
		"AlpacaEval, an input":             {ReadAlpacaEval, `[{"instruction":"x","input":"y","output_1":"a","output_2":"b","preference":1}]`, `"input" beside its instruction`},
		"distilabel, one generation":       {ReadDistilabel, `{"instruction":"x","generations":["a"],"ratings":[1]}`, `"generations" has 1 entries: want 2 to 64`},
		"distilabel, a crowd":              {ReadDistilabel, `{"instruction":"x","generations":[` + strings.Repeat(`"a",`, 64) + `"a"],"ratings":[]}`, `"generations" has 65 entries`},
		"distilabel, too few ratings":      {ReadDistilabel, `{"instruction":"x","generations":["a","b"],"ratings":[1]}`, `"ratings" has 1 entries for 2 generations`},
		"distilabel, too few models":       {ReadDistilabel, `{"instruction":"x","generations":["a","b"],"ratings":[1,2],"generation_models":["m"]}`, `"generation_models" has 1 entries for 2`},
		"distilabel, no ratings":           {ReadDistilabel, `{"instruction":"x","generations":["a","b"]}`, `the key "ratings" is missing`},
		"distilabel, no prompt":            {ReadDistilabel, `{"generations":["a","b"],"ratings":[1,2]}`, `the key "instruction" is missing`},
		"distilabel, a rating in words":    {ReadDistilabel, `{"instruction":"x","generations":["a","b"],"ratings":[1,"good"]}`, `"ratings[1]" is "good": want a number`},
		"distilabel, a huge rating":        {ReadDistilabel, `{"instruction":"x","generations":["a","b"],"ratings":[1,1e999]}`, `"ratings[1]" is 1e999`},
		"distilabel, a generation":         {ReadDistilabel, `{"instruction":"x","generations":["a",{"text":"b"}],"ratings":[1,2]}`, `"generations[1]" is not text`},
		"distilabel, no list":              {ReadDistilabel, `{"instruction":"x","generations":"a","ratings":[1,2]}`, `"generations" is no list`},
		"distilabel, upside down":          {ReadDistilabel, `{"prompt":"x","chosen":"a","rejected":"b","chosen_rating":1,"rejected_rating":2}`, `the rejected one is rated higher`},
		"distilabel, the answer's turn":    {ReadDistilabel, `{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}],"generations":["a","b"],"ratings":[1,2]}`, `ends with the assistant's turn`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := collect(c.read, c.text, ImportOptions{})
			if sdk.CodeOf(err) != sdk.CodeUsage || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "prefs") {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestF20SoManyBadRecordsAreSkipped(t *testing.T) {
	t.Parallel()
	lines := []string{`{"prompt":"x","chosen":"a","rejected":"b"}`, `no JSON`, `{"prompt":"x"}`, `{"prompt":"x","chosen":"c","rejected":"d"}`, `[]`}
	for name, c := range map[string]struct {
		read readPreferences
		data string
		want int // good ones
		at   [2]string
	}{
		"lines":  {ReadTRL, strings.Join(lines, "\n"), 2, [2]string{"prefs:2: ", "prefs:5: "}},
		"a list": {ReadAlpacaEval, `[{"instruction":"x","output_1":"a","output_2":"b","preference":1},` + "\nno JSON,\n{},\n" + `{"instruction":"x","output_1":"a","output_2":"b","preference":2}` + ",\n[]]", 2, [2]string{"prefs:2: ", "prefs:5: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, found, err := collect(c.read, c.data, ImportOptions{SkipBad: 3})
			if err != nil || len(got) != c.want || found.Preferences != c.want || found.Skipped != 3 || !strings.HasPrefix(found.FirstBad.Error(), c.at[0]) {
				t.Errorf("%d, %+v, %v", len(got), found, err)
			}
			if _, found, err := collect(c.read, c.data, ImportOptions{SkipBad: 2}); err == nil || !strings.HasPrefix(err.Error(), c.at[1]) || found.Skipped != 2 {
				t.Errorf("%+v, %v", found, err)
			}
		})
	}
	// What cannot be cut into records is never skipped.
	for text, read := range map[string]readPreferences{"[{}": ReadAlpacaEval, "{}": ReadAlpacaEval, "[1,,2]": ReadAlpacaEval} {
		if _, _, err := collect(read, text, ImportOptions{SkipBad: 100}); err == nil {
			t.Errorf("%s: skipped", text)
		}
	}
}

func TestF20ARecordOfEightMebibytesIsImported(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		read          readPreferences
		before, after string // the record, around its long text
		list          bool
	}{
		"TRL":        {ReadTRL, `{"prompt":"x","rejected":"","chosen":"`, `"}`, false},
		"AlpacaEval": {ReadAlpacaEval, `{"instruction":"x","output_2":"","preference":1,"output_1":"`, `"}`, true},
		"distilabel": {ReadDistilabel, `{"instruction":"x","ratings":[2,1],"generations":["`, `",""]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, extra := range []int{0, 1} {
				n := maxLine - len(c.before) - len(c.after) + extra
				data := c.before + strings.Repeat("y", n) + c.after
				if c.list {
					data = "[" + data + "]"
				}
				got := 0
				_, err := c.read(strings.NewReader(data), "prefs", ImportOptions{SkipBad: 1}, func(p Preference) error {
					got = len(p.A)
					return nil
				})
				if extra == 0 && (err != nil || got != n) || extra == 1 && (err == nil || !strings.Contains(err.Error(), "prefs:1: the ") || !strings.Contains(err.Error(), "longer than 8 MiB")) {
					t.Errorf("%d bytes more than the limit: read %d, %v", extra, got, err)
				}
			}
		})
	}
}

func TestAnImportEndsWithItsCause(t *testing.T) {
	t.Parallel()
	gone, enough := errors.New("the disk is gone"), errors.New("enough")
	for name, c := range map[string]struct {
		read readPreferences
		data string
	}{
		"TRL":        {ReadTRL, `{"prompt":"x","chosen":"a","rejected":"b"}` + "\n"},
		"AlpacaEval": {ReadAlpacaEval, `[{"instruction":"x","output_1":"a","output_2":"b","preference":1},` + "\n"},
		"distilabel": {ReadDistilabel, `{"instruction":"x","generations":["a","b"],"ratings":[1,2]}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			handed := 0
			found, err := c.read(io.MultiReader(strings.NewReader(c.data), iotest.ErrReader(gone)), "prefs", ImportOptions{SkipBad: 9}, func(Preference) error {
				handed++
				return nil
			})
			if !errors.Is(err, gone) || sdk.CodeOf(err) != sdk.CodeIO || !strings.Contains(err.Error(), "prefs, line 2") || handed != 1 || found.Preferences != 1 {
				t.Errorf("after %d: %v", handed, err)
			}
			if _, err := c.read(strings.NewReader(c.data), "prefs", ImportOptions{SkipBad: 9}, func(Preference) error { return enough }); err != enough {
				t.Errorf("each's own error became %v", err)
			}
		})
	}
}

// What is handed on is a preference, and an error names its place.
func checkImport(t *testing.T, read readPreferences, data []byte) {
	t.Helper()
	n := 0
	found, err := read(bytes.NewReader(data), "fuzz", ImportOptions{SkipBad: 2}, func(p Preference) error {
		n++
		if !(p.P >= 0 && p.P <= 1) || len(p.Prompt) == 0 || p.Prompt[len(p.Prompt)-1].Role != "user" || p.Source == "" || p.FromLine < 1 ||
			!utf8.ValidString(p.A+p.B+p.AuthorA+p.AuthorB) {
			t.Fatalf("%+v", p)
		}
		for _, m := range p.Prompt {
			if strings.TrimSpace(m.Content) == "" || !utf8.ValidString(m.Content) {
				t.Fatalf("%+v", p)
			}
		}
		return nil
	})
	if n != found.Preferences || found.Skipped > 2 || (found.FirstBad == nil) != (found.Skipped == 0) {
		t.Fatalf("%d handed on, %+v", n, found)
	}
	if err != nil && (sdk.CodeOf(err) != sdk.CodeUsage || !strings.HasPrefix(err.Error(), "fuzz")) {
		t.Fatalf("error without its place: %v", err)
	}
}

func FuzzReadTRL(f *testing.F) {
	f.Add([]byte(`{"chosen": "The sky is blue.", "rejected": "The sky is green."}`))
	f.Add([]byte(`{"prompt":"x","chosen":[{"role":"user","content":"x"},{"role":"assistant","content":"a"}],"rejected":[{"role":"user","content":"x"},{"role":"assistant","content":"b"}]}`))
	f.Add([]byte("{\"chosen\":\"a\u00e4\",\"rejected\":\"a\u00f6\"}\nx\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) { checkImport(t, ReadTRL, data) })
}

func FuzzReadDistilabel(f *testing.F) {
	f.Add([]byte(`{"instruction":"x","system_prompt":"s","generations":["a",null,"c"],"ratings":[1,2,null],"generation_models":["m",null,"n"]}`))
	f.Add([]byte(`{"prompt":"x","chosen":"a","rejected":"b","score_chosen":1,"score_rejected":1e3}`))
	f.Fuzz(func(t *testing.T, data []byte) { checkImport(t, ReadDistilabel, data) })
}

// Cut or not, the list is read as encoding/json reads it.
func FuzzReadAlpacaEval(f *testing.F) {
	f.Add([]byte(`[{"instruction":"x","output_1":"a\"]}","output_2":"","preference":1.5,"generator_1":"m"},` + "\n" + `{"instruction":"x","output_1":"a","output_2":"b","preference":null}]`))
	f.Add([]byte("\ufeff[ ]"))
	f.Add([]byte(`[{"a":"\\"},[]]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		checkImport(t, ReadAlpacaEval, data)
		var whole []json.RawMessage
		valid := json.Unmarshal(bytes.TrimPrefix(data, []byte("\ufeff")), &whole) == nil && whole != nil
		var cut []string
		err := eachElement(bytes.NewReader(data), "fuzz", func(_ int, text []byte) error {
			cut = append(cut, string(text))
			return nil
		})
		if !valid {
			return // its elements may look like some
		}
		if err != nil || len(cut) != len(whole) {
			t.Fatalf("%d elements of %d, %v", len(cut), len(whole), err)
		}
		for i, text := range whole {
			if cut[i] != string(text) {
				t.Fatalf("element %d is %q, want %q", i, cut[i], text)
			}
		}
	})
}

// The annotations of AlpacaEval's judge, put into the form of its files: what is read of them gives the win rates of its
// leaderboard. The texts of the models that were judged are not at hand; others of their lengths stand for them.
func TestTheWinRatesOfAlpacaEval(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "..", "shared", "data", "alpaca_eval") // beside the module
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("NOT TESTED against AlpacaEval's annotations: there is no %s", dir)
	}
	instructions, outputs := column(t, filepath.Join(dir, "prompts.jsonl"), "prompt"), column(t, filepath.Join(dir, "teacher_gpt4_1106_preview.jsonl"), "completion")
	models := 0
	for _, row := range table(t, filepath.Join(dir, "leaderboard.csv")) {
		model := row["model"]
		want, err := strconv.ParseFloat(row["win_rate"], 64)
		if err != nil {
			t.Fatal(err)
		}
		judged := table(t, filepath.Join(dir, "annotations", model+".csv"))
		var records []map[string]any
		for _, a := range judged {
			i, err := strconv.Atoi(a["index"])
			if err != nil {
				t.Fatal(err)
			}
			length, err := strconv.Atoi(a["len_2"])
			if err != nil {
				t.Fatal(err)
			}
			if n := utf8.RuneCountInString(outputs[i]); strconv.Itoa(n) != a["len_1"] {
				t.Errorf("%s, row %d: the reference's output has %d characters, its length is %s", model, i, n, a["len_1"])
			}
			records = append(records, map[string]any{"instruction": instructions[i], "output_1": outputs[i], "output_2": strings.Repeat("x", length),
				"generator_1": "gpt4_1106_preview", "generator_2": model, "preference": json.Number(a["preference"]), "annotator": "weighted_alpaca_eval_gpt4_turbo"})
		}
		data, err := json.MarshalIndent(records, "", "    ")
		if err != nil {
			t.Fatal(err)
		}
		wins := 0.0
		found, err := ReadAlpacaEval(bytes.NewReader(data), model, ImportOptions{}, func(p Preference) error {
			if p.AuthorB != model || p.Prompt[0].Content == "" {
				return fmt.Errorf("line %d: %+v", p.FromLine, p)
			}
			wins += 1 - p.P
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got := 100 * wins / float64(found.Preferences)
		if found.Preferences != len(judged) || len(judged) != 805 || math.Abs(got-want) > 1e-6 {
			t.Errorf("%s: the win rate of %d judgments is %v, the leaderboard's %v", model, found.Preferences, got, want)
		}
		models++
	}
	if models < 10 {
		t.Errorf("only %d models", models)
	}
}

// column reads one key of a JSONL file.
func column(t *testing.T, path, key string) (out []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := json.NewDecoder(bufio.NewReader(f))
	for {
		var row map[string]any
		if err := in.Decode(&row); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		out = append(out, row[key].(string))
	}
}

// table reads a CSV file with a header.
func table(t *testing.T, path string) (out []map[string]string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[1:] {
		record := map[string]string{}
		for i, name := range rows[0] {
			record[name] = row[i]
		}
		out = append(out, record)
	}
	return out
}
