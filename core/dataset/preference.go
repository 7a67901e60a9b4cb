package dataset

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/dno-project/dno/sdk"
)

// Preference is a pair of completions that somebody has judged, as other projects' files have it.
type Preference struct {
	Prompt   []sdk.Message // ends with the user's turn
	A, B     string        // the completions, perhaps empty
	P        float64       // probability in [0, 1] that A is preferred to B; ½ is a tie
	Source   string        // SourceTRL, SourceAlpacaEval or SourceDistilabel
	AuthorA  string        // the model that wrote A, as the file names it; "" where it does not
	AuthorB  string
	FromLine int // where its record begins in the file, from 1
}

// Where a [Preference] is from.
const (
	SourceTRL        = "trl"
	SourceAlpacaEval = "alpaca_eval"
	SourceDistilabel = "distilabel"
)

// ImportOptions say what is done about a file that is not as it should be.
type ImportOptions struct {
	// SkipBad is how many bad records are passed over; one more is an error. What cannot be cut into
	// records, and a record that is too long, are errors always.
	SkipBad int
}

// Imported is what an import has found.
type Imported struct {
	Preferences int   // that were handed on
	Unjudged    int   // pairs whose judgment is null: the judge had failed
	Skipped     int   // bad records that were passed over
	FirstBad    error // what is wrong with the first of them, and its place; nil where there is none
}

// ReadTRL hands on the preferences of a JSONL file in the form of TRL, one a line:
//
//	{"prompt": text or messages, "chosen": text or messages, "rejected": likewise, ...}
//	{"chosen": text or messages, "rejected": likewise, ...}
//
// A is the chosen completion and P is 1. In the second form the prompt is what the two begin with alike: the
// messages before the last, or of two texts the longest common beginning, without a space at its
// end. Messages that repeat the prompt beside "prompt" are read, too. Of each one turn of the assistant
// has to be left. Other keys are not read.
//
// Records are handed on while the file is read; an error of each's ends the import and is returned
// as it is. All other errors name the file and the line; see [ImportOptions]. A file without records
// is an error.
//
// Source: TRL's dataset formats, type preference, and its function extract_prompt. Differs: of two
// texts one of which begins the other, the whole shorter one is the prompt.
func ReadTRL(r io.Reader, name string, options ImportOptions, each func(Preference) error) (Imported, error) {
	const form = `want {"prompt"?: text or messages, "chosen": text or messages, "rejected": likewise}`
	in := importer{form: form, each: each, options: options, parse: func(o object) ([]Preference, int, error) {
		p, err := o.chosenAndRejected()
		if err == nil && p.A == p.B {
			err = fmt.Errorf("chosen and rejected are the same text")
		}
		p.P, p.Source = 1, SourceTRL
		return []Preference{p}, 0, err
	}}
	return in.run(r, name, eachLine)
}

// ReadAlpacaEval hands on the preferences of AlpacaEval's annotations, which are one JSON list of
//
//	{"instruction": text, "output_1": text, "output_2": text, "preference": 1 to 2 or null,
//	 "generator_1"?: text, "generator_2"?: text, ...}
//
// A is output_1 and P is 2 − preference: 1 prefers the first, 2 the second, 1.5 is a tie. A
// preference of null is that of a judge who failed, and is counted only. Other keys are not read,
// but a record with an "input" is refused: what it means for the prompt is not known.
//
// Each record may be 8 MiB long. Order of calls and errors are as in [ReadTRL]; the line is that on
// which the record begins.
//
// Source: the annotations that alpaca_eval writes (its validate_alpacaeval_preference).
func ReadAlpacaEval(r io.Reader, name string, options ImportOptions, each func(Preference) error) (Imported, error) {
	const form = `want {"instruction", "output_1", "output_2", "preference": 1 to 2}`
	in := importer{form: form, each: each, options: options, parse: object.alpacaEval}
	return in.run(r, name, eachElement)
}

// ReadDistilabel hands on the preferences of a JSONL file in the forms of distilabel, one prompt a line:
//
//	{"instruction": text, "system_prompt"?: text, "generations": [text, ...], "ratings": [number, ...],
//	 "generation_models"?: [text, ...], ...}
//	{"messages": [...], "generations": [...], "ratings": [...], ...}
//	{"prompt"?, "chosen", "rejected", "chosen_rating"?, "rejected_rating"?, "chosen_model"?, "rejected_model"?, ...}
//
// Of generations every pair is handed on, i before k: P is 1 where i is rated higher, 0 where k is, ½ where they
// are equal. A rating or a generation of null is a failure; its pairs are counted only. The third form
// is read as [ReadTRL] does, with ratings (also "score_chosen" and "score_rejected") as above; a
// rejected one that is rated higher is refused. A line with generations and chosen is read by its
// generations. At most 64 generations are read.
//
// Order of calls and errors are as in [ReadTRL].
//
// Source: distilabel's steps FormatTextGenerationDPO and FormatChatGenerationDPO, their columns in and out.
func ReadDistilabel(r io.Reader, name string, options ImportOptions, each func(Preference) error) (Imported, error) {
	const form = `want {"instruction" or "messages", "generations": [...], "ratings": [...]} or {"prompt", "chosen", "rejected", "chosen_rating"?, "rejected_rating"?}`
	in := importer{form: form, each: each, options: options, parse: object.distilabel}
	return in.run(r, name, eachLine)
}

// importer reads records of one form.
type importer struct {
	form    string // what is legal, for errors
	parse   func(object) (preferences []Preference, unjudged int, err error)
	each    func(Preference) error
	options ImportOptions
}

func (in importer) run(r io.Reader, name string, records func(io.Reader, string, func(line int, text []byte) error) error) (found Imported, err error) {
	var stopped error // by each
	any := false
	err = records(r, name, func(line int, text []byte) error {
		any = true
		o, err := parseObject(text, in.form)
		var preferences []Preference
		unjudged := 0
		if err == nil {
			preferences, unjudged, err = in.parse(o)
		}
		if err != nil {
			if found.Skipped >= in.options.SkipBad {
				return err
			}
			if found.Skipped++; found.FirstBad == nil {
				found.FirstBad = sdk.Errorf(sdk.CodeUsage, "%s:%d: %w", name, line, err)
			}
			return nil
		}
		found.Unjudged += unjudged
		for _, p := range preferences {
			p.FromLine = line
			if stopped = in.each(p); stopped != nil {
				return stopped
			}
			found.Preferences++
		}
		return nil
	})
	switch {
	case stopped != nil:
		err = stopped
	case err == nil && !any:
		err = sdk.Errorf(sdk.CodeUsage, "%s has no preferences: %s", name, in.form)
	}
	return found, err
}

// chosenAndRejected reads a prompt and two completions in the form of TRL.
func (o object) chosenAndRejected() (p Preference, err error) {
	for _, key := range []string{"chosen", "rejected"} {
		if !o.has(key) {
			return p, o.missing(key)
		}
	}
	if o.has("prompt") {
		if p.Prompt, err = o.turns("prompt"); err != nil {
			return p, err
		}
	}
	if o.values["chosen"][0] == '"' {
		if p.A, err = completion("chosen", o.values["chosen"]); err != nil {
			return p, err
		}
		if p.B, err = completion("rejected", o.values["rejected"]); err != nil {
			return p, err
		}
		if p.Prompt == nil {
			n := commonBeginning(p.A, p.B)
			if strings.TrimSpace(p.A[:n]) == "" {
				return p, fmt.Errorf(`there is no "prompt", and "chosen" and "rejected" do not begin alike: %s`, o.form)
			}
			p.Prompt = []sdk.Message{{Role: "user", Content: p.A[:n]}}
			p.A, p.B = p.A[n:], p.B[n:]
		}
		return p, endsWithUser(p.Prompt)
	}
	chosen, err := o.turns("chosen")
	if err != nil {
		return p, err
	}
	rejected, err := o.turns("rejected")
	if err != nil {
		return p, err
	}
	shared := 0
	for shared < min(len(chosen), len(rejected))-1 && chosen[shared] == rejected[shared] {
		shared++
	}
	for _, left := range [][]sdk.Message{chosen[shared:], rejected[shared:]} {
		if len(left) != 1 || left[0].Role != "assistant" {
			return p, fmt.Errorf("want one turn of the assistant after what chosen and rejected begin with alike, have %d turns, the first the %s's",
				len(left), left[0].Role)
		}
	}
	if prefix := chosen[:shared]; shared > 0 {
		// Beside a prompt that is text the messages say it in full, perhaps after the system's turn.
		if o.has("prompt") && o.values["prompt"][0] == '[' && !slices.Equal(p.Prompt, prefix) {
			return p, fmt.Errorf(`"chosen" and "rejected" begin with other messages than "prompt" has`)
		}
		p.Prompt = prefix
	}
	if p.Prompt == nil {
		return p, fmt.Errorf(`there is no "prompt", and "chosen" and "rejected" begin with the assistant's turn: %s`, o.form)
	}
	p.A, p.B = chosen[shared].Content, rejected[shared].Content
	return p, endsWithUser(p.Prompt)
}

func endsWithUser(prompt []sdk.Message) error {
	if last := prompt[len(prompt)-1].Role; last != "user" {
		return fmt.Errorf("the prompt ends with the %s's turn: its last turn must be the user's", last)
	}
	return nil
}

// commonBeginning returns the length of what two texts begin with alike, in bytes, without a space at its
// end and without half a character.
func commonBeginning(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	for n > 0 && (n < len(a) && !utf8.RuneStart(a[n]) || n < len(b) && !utf8.RuneStart(b[n])) {
		n--
	}
	return len(strings.TrimSuffix(a[:n], " "))
}

func (o object) alpacaEval() ([]Preference, int, error) {
	for _, key := range []string{"instruction", "output_1", "output_2"} {
		if !o.has(key) {
			return nil, 0, o.missing(key)
		}
	}
	if _, given := o.values["preference"]; !given {
		return nil, 0, o.missing("preference")
	}
	if input := string(o.values["input"]); o.has("input") && input != `""` {
		return nil, 0, fmt.Errorf(`the record has an "input" beside its instruction: put it into the instruction`)
	}
	if !o.has("preference") {
		return nil, 1, nil
	}
	instruction, err := text("instruction", o.values["instruction"])
	if err != nil {
		return nil, 0, err
	}
	p := Preference{Prompt: []sdk.Message{{Role: "user", Content: instruction}}, Source: SourceAlpacaEval}
	if p.A, err = completion("output_1", o.values["output_1"]); err != nil {
		return nil, 0, err
	}
	if p.B, err = completion("output_2", o.values["output_2"]); err != nil {
		return nil, 0, err
	}
	preference, err := number("preference", o.values["preference"])
	if err != nil {
		return nil, 0, err
	}
	if !(preference >= 1 && preference <= 2) {
		return nil, 0, fmt.Errorf(`"preference" is %v: want 1 (the first) to 2 (the second)`, preference)
	}
	p.P = 2 - preference
	if p.AuthorA, err = o.label("generator_1"); err != nil {
		return nil, 0, err
	}
	p.AuthorB, err = o.label("generator_2")
	return []Preference{p}, 0, err
}

// maxGenerations bounds the pairs of one line: they are as many as its square.
const maxGenerations = 64

func (o object) distilabel() ([]Preference, int, error) {
	if o.has("generations") {
		return o.generations()
	}
	p, err := o.chosenAndRejected()
	if err != nil {
		return nil, 0, err
	}
	p.P, p.Source = 1, SourceDistilabel
	if p.AuthorA, err = o.label("chosen_model"); err != nil {
		return nil, 0, err
	}
	if p.AuthorB, err = o.label("rejected_model"); err != nil {
		return nil, 0, err
	}
	for _, keys := range [][2]string{{"chosen_rating", "rejected_rating"}, {"score_chosen", "score_rejected"}} {
		if _, given := o.values[keys[0]]; !given {
			continue
		}
		if !o.has(keys[0]) || !o.has(keys[1]) {
			return nil, 1, nil
		}
		a, err := number(keys[0], o.values[keys[0]])
		if err != nil {
			return nil, 0, err
		}
		b, err := number(keys[1], o.values[keys[1]])
		if err != nil {
			return nil, 0, err
		}
		if p.P = byRating(a, b); p.P < 0.5 {
			return nil, 0, fmt.Errorf("%q is %v and %q is %v: the rejected one is rated higher", keys[0], a, keys[1], b)
		}
		break
	}
	return []Preference{p}, 0, nil
}

func byRating(a, b float64) float64 {
	switch {
	case a > b:
		return 1
	case a < b:
		return 0
	}
	return 0.5
}

// generations reads a line of rated generations.
func (o object) generations() (out []Preference, unjudged int, err error) {
	if !o.has("ratings") {
		return nil, 0, o.missing("ratings")
	}
	var prompt []sdk.Message
	switch {
	case o.has("messages"):
		if prompt, err = o.turns("messages"); err == nil {
			err = endsWithUser(prompt)
		}
	case o.has("instruction"):
		var system, instruction string
		if system, err = o.label("system_prompt"); err != nil {
			return nil, 0, err
		}
		if system != "" {
			prompt = append(prompt, sdk.Message{Role: "system", Content: system})
		}
		instruction, err = text("instruction", o.values["instruction"])
		prompt = append(prompt, sdk.Message{Role: "user", Content: instruction})
	default:
		err = o.missing("instruction")
	}
	if err != nil {
		return nil, 0, err
	}
	generations, err := list("generations", o.values["generations"], completion)
	if err != nil {
		return nil, 0, err
	}
	ratings, err := list("ratings", o.values["ratings"], number)
	if err != nil {
		return nil, 0, err
	}
	var models []*string
	if o.has("generation_models") {
		if models, err = list("generation_models", o.values["generation_models"], label); err != nil {
			return nil, 0, err
		}
	}
	n := len(generations)
	switch {
	case n < 2 || n > maxGenerations:
		return nil, 0, fmt.Errorf(`"generations" has %d entries: want 2 to %d`, n, maxGenerations)
	case len(ratings) != n:
		return nil, 0, fmt.Errorf(`"ratings" has %d entries for %d generations`, len(ratings), n)
	case models != nil && len(models) != n:
		return nil, 0, fmt.Errorf(`"generation_models" has %d entries for %d generations`, len(models), n)
	}
	author := func(i int) string {
		if models == nil || models[i] == nil {
			return ""
		}
		return *models[i]
	}
	for i := range n {
		for k := i + 1; k < n; k++ {
			if generations[i] == nil || generations[k] == nil || ratings[i] == nil || ratings[k] == nil {
				unjudged++
				continue
			}
			out = append(out, Preference{Prompt: prompt, A: *generations[i], B: *generations[k], P: byRating(*ratings[i], *ratings[k]),
				Source: SourceDistilabel, AuthorA: author(i), AuthorB: author(k)})
		}
	}
	return out, unjudged, nil
}

// list reads a list whose entries may be null.
func list[T any](name string, raw json.RawMessage, entry func(string, json.RawMessage) (T, error)) ([]*T, error) {
	var items []json.RawMessage
	if raw[0] != '[' {
		return nil, fmt.Errorf("%q is no list", name)
	}
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	out := make([]*T, len(items))
	for i, item := range items {
		if string(item) == "null" {
			continue
		}
		v, err := entry(fmt.Sprintf("%s[%d]", name, i), item)
		if err != nil {
			return nil, err
		}
		out[i] = &v
	}
	return out, nil
}

// completion reads a string, which may be empty: a policy may say nothing.
func completion(name string, raw json.RawMessage) (string, error) {
	if raw[0] != '"' {
		return "", notText(name)
	}
	return label(name, raw)
}

func number(name string, raw json.RawMessage) (float64, error) {
	var v float64
	if err := json.Unmarshal(raw, &v); err != nil || math.IsInf(v, 0) {
		return 0, fmt.Errorf("%q is %.40s: want a number", name, raw)
	}
	return v, nil
}
