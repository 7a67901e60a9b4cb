// Package instructions says which of a prompt's verifiable instructions a text follows: so many words, no comma, a title.
package instructions

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/dno-project/dno/sdk"
)

// Instruction is one instruction of a prompt with its arguments.
//
// Source: Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models (arXiv 2311.07911),
// Table 1. The ids and the names of arguments are those of its data, so that its prompts can be read as
// they are. The checks here are written anew.
//
// Differs: keywords are texts, not regular expressions. Sentences and words are told apart by this package's
// own rules ([sentences], words are runs of letters, digits, marks, underscores). The language of a text is
// told by its letters' script alone, so that "english_lowercase" wants Latin letters, and
// "response_language" of a language that shares its script with others cannot be checked.
type Instruction struct {
	ID      string
	follows func(text string) bool
}

// Follows says whether the text follows the instruction. A text of white space follows none.
func (i Instruction) Follows(text string) bool {
	return strings.TrimSpace(text) != "" && i.follows(text)
}

// kinds has each instruction's reader by id. A reader returns the check, or why it cannot be made.
var kinds = map[string]func(*arguments) (check func(text string) bool, abstain string){
	"keywords:existence":                            existence,
	"keywords:frequency":                            frequency,
	"keywords:forbidden_words":                      forbidden,
	"keywords:letter_frequency":                     letterFrequency,
	"language:response_language":                    language,
	"length_constraints:number_words":               numberWords,
	"length_constraints:number_sentences":           numberSentences,
	"length_constraints:number_paragraphs":          numberParagraphs,
	"length_constraints:nth_paragraph_first_word":   firstWord,
	"detectable_content:postscript":                 postscript,
	"detectable_content:number_placeholders":        placeholders,
	"detectable_format:number_bullet_lists":         bullets,
	"detectable_format:constrained_response":        constrained,
	"detectable_format:number_highlighted_sections": highlights,
	"detectable_format:multiple_sections":           sections,
	"detectable_format:json_format":                 jsonFormat,
	"detectable_format:title":                       title,
	"combination:two_responses":                     twoResponses,
	"combination:repeat_prompt":                     repeatPrompt,
	"startend:end_checker":                          endChecker,
	"startend:quotation":                            quotation,
	"change_case:capital_word_frequency":            capitalWords,
	"change_case:english_capital":                   englishCapital,
	"change_case:english_lowercase":                 englishLowercase,
	"punctuation:no_comma":                          noComma,
}

// maxInstructions is how many instructions one prompt may have.
const maxInstructions = 100

// Read reads a prompt's metadata: "instruction_id_list", a list of ids, and "kwargs", a list of as many
// objects with each instruction's arguments; arguments that are null, and those of other instructions, are
// not read.
//
// abstain says why the instructions cannot be checked: there are none, or one is of a kind that a text
// alone does not tell. The error, of [sdk.CodeUsage], names the id that is not known, or the argument that
// is missing or of another type.
func Read(metadata map[string]any) (list []Instruction, abstain string, err error) {
	ids, ok := metadata["instruction_id_list"].([]any)
	if !ok || len(ids) == 0 {
		return nil, `the prompt has no instructions in its metadata "instruction_id_list"`, nil
	}
	if len(ids) > maxInstructions {
		return nil, "", sdk.Errorf(sdk.CodeUsage, "instruction_id_list: %d instructions, at most %d are read", len(ids), maxInstructions)
	}
	kwargs, _ := metadata["kwargs"].([]any)
	if len(kwargs) != len(ids) {
		return nil, "", sdk.Errorf(sdk.CodeUsage, "kwargs: %d entries for %d instructions", len(kwargs), len(ids)).
			WithHint("give a list with one object for each id, {} where it takes no argument")
	}
	for i, entry := range ids {
		id, _ := entry.(string)
		read, ok := kinds[id]
		if !ok {
			e := sdk.Errorf(sdk.CodeUsage, "instruction_id_list: there is no instruction %q", fmt.Sprint(entry))
			if near := sdk.Nearest(id, slices.Collect(maps.Keys(kinds))); near != "" {
				return nil, "", e.WithHint("did you mean %q?", near)
			}
			return nil, "", e.WithHint("docs/howto/verify-answers.md lists them")
		}
		given, _ := kwargs[i].(map[string]any)
		a := &arguments{id: id, given: given}
		check, why := read(a)
		if a.err != nil {
			return nil, "", a.err
		}
		if why != "" {
			abstain = why
			continue // what is wrong with the others is an error all the same
		}
		list = append(list, Instruction{id, check})
	}
	if abstain != "" {
		return nil, abstain, nil
	}
	return list, "", nil
}

// arguments are one instruction's; the first that is not as it should be is kept in err.
type arguments struct {
	id    string
	given map[string]any
	err   error
}

func (a *arguments) wrong(name, want string) {
	if a.err == nil {
		a.err = sdk.Errorf(sdk.CodeUsage, "instruction %q: argument %q is %.40q, want %s", a.id, name, fmt.Sprint(a.given[name]), want)
	}
}

// text is an argument that must not be empty.
func (a *arguments) text(name string) string {
	s, _ := a.given[name].(string)
	if s == "" {
		a.wrong(name, "a text")
	}
	return s
}

// texts is a list of at least one text; one text alone is such a list.
func (a *arguments) texts(name string) []string {
	if s, ok := a.given[name].(string); ok && s != "" {
		return []string{s}
	}
	var out []string
	list, _ := a.given[name].([]any)
	for _, v := range list {
		s, _ := v.(string)
		if s == "" {
			a.wrong(name, "a list of texts")
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		a.wrong(name, "a list of texts")
	}
	return out
}

// count is a whole number, at least 0.
func (a *arguments) count(name string) int {
	f, ok := a.given[name].(float64)
	if !ok || f < 0 || f != math.Trunc(f) || f > 1e9 {
		a.wrong(name, "a whole number")
		return 0
	}
	return int(f)
}

// relation compares a count with the number called name, as the argument called how says.
func (a *arguments) relation(name, how string) func(n int) bool {
	limit := a.count(name)
	switch a.given[how] {
	case "at least":
		return func(n int) bool { return n >= limit }
	case "less than":
		return func(n int) bool { return n < limit }
	}
	a.wrong(how, `"at least" or "less than"`)
	return func(int) bool { return false }
}
