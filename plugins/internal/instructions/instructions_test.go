package instructions

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dno-project/dno/sdk"
)

// metadata is one instruction as it stands in a file.
func metadata(t testing.TB, id, kwargs string) map[string]any {
	t.Helper()
	var k any
	if err := json.Unmarshal([]byte(kwargs), &k); err != nil {
		t.Fatal(err)
	}
	return map[string]any{"instruction_id_list": []any{id}, "kwargs": []any{k}}
}

type instructionCase struct {
	id, kwargs, text string
	follows          bool
}

var instructionCases = map[string]instructionCase{
	"keywords, all there":             {"keywords:existence", `{"keywords":["sun","Moon"]}`, "The moonlit SUNset", true},
	"keywords, one missing":           {"keywords:existence", `{"keywords":["sun","moon"]}`, "The sun", false},
	"keywords are no patterns":        {"keywords:existence", `{"keywords":["a.c"]}`, "abc", false},
	"keyword often enough":            {"keywords:frequency", `{"keyword":"la","frequency":3,"relation":"at least"}`, "La la land", true},
	"keyword too rare":                {"keywords:frequency", `{"keyword":"la","frequency":4,"relation":"at least"}`, "La la land", false},
	"keyword less often":              {"keywords:frequency", `{"keyword":"la","frequency":4,"relation":"less than"}`, "La la land", true},
	"keyword as often is not less":    {"keywords:frequency", `{"keyword":"la","frequency":3,"relation":"less than"}`, "La la land", false},
	"forbidden word":                  {"keywords:forbidden_words", `{"forbidden_words":["cat"]}`, "A Cat!", false},
	"forbidden word within another":   {"keywords:forbidden_words", `{"forbidden_words":["cat"]}`, "concatenate, category", true},
	"forbidden word after such a one": {"keywords:forbidden_words", `{"forbidden_words":["cat"]}`, "category cat", false},
	"forbidden words, accents":        {"keywords:forbidden_words", `{"forbidden_words":["été"]}`, "l'ÉTÉ vient", false},
	"forbidden phrase":                {"keywords:forbidden_words", `{"forbidden_words":["of course"]}`, "Well, of course.", false},
	"letter often enough":             {"keywords:letter_frequency", `{"letter":"a","let_frequency":3,"let_relation":"at least"}`, "Abracadabra", true},
	"letter too often":                {"keywords:letter_frequency", `{"letter":"A","let_frequency":5,"let_relation":"less than"}`, "Abracadabra", false},
	"a sign as a letter":              {"keywords:letter_frequency", `{"letter":"!","let_frequency":2,"let_relation":"at least"}`, "Hi!!", true},
	"words, enough":                   {"length_constraints:number_words", `{"num_words":4,"relation":"at least"}`, "One two, don't.", true},
	"words, too few":                  {"length_constraints:number_words", `{"num_words":5,"relation":"at least"}`, "One two, don't.", false},
	"words, fewer":                    {"length_constraints:number_words", `{"num_words":3,"relation":"less than"}`, "… one -- two …", true},
	"sentences, enough":               {"length_constraints:number_sentences", `{"num_sentences":3,"relation":"at least"}`, "One. Two! Three?", true},
	"sentences, abbreviations":        {"length_constraints:number_sentences", `{"num_sentences":2,"relation":"at least"}`, "Dr. Who met J. Smith, e.g. today", false},
	"sentences, decimals":             {"length_constraints:number_sentences", `{"num_sentences":2,"relation":"less than"}`, "Pi is 3.14 or so.", true},
	"sentences, quotes behind":        {"length_constraints:number_sentences", `{"num_sentences":2,"relation":"at least"}`, `He said "no." She left`, true},
	"sentences, dots of thought":      {"length_constraints:number_sentences", `{"num_sentences":2,"relation":"less than"}`, "Well... !", true},
	"sentences, Chinese":              {"length_constraints:number_sentences", `{"num_sentences":2,"relation":"at least"}`, "你好。再见！", true},
	"sentences, only signs":           {"length_constraints:number_sentences", `{"num_sentences":1,"relation":"at least"}`, "... !!! ?", false},
	"sentences, I at the end":         {"length_constraints:number_sentences", `{"num_sentences":2,"relation":"at least"}`, "So do I. Good.", true},
	"paragraphs":                      {"length_constraints:number_paragraphs", `{"num_paragraphs":2}`, "One\n***\nTwo", true},
	"paragraphs, one too many":        {"length_constraints:number_paragraphs", `{"num_paragraphs":2}`, "One\n***\nTwo\n***\nThree", false},
	"paragraphs, lines at the ends":   {"length_constraints:number_paragraphs", `{"num_paragraphs":2}`, "***\nOne\n***\nTwo\n***", true},
	"paragraphs, an empty one":        {"length_constraints:number_paragraphs", `{"num_paragraphs":2}`, "One\n***\n\n***\nTwo", false},
	"first word":                      {"length_constraints:nth_paragraph_first_word", `{"num_paragraphs":2,"nth_paragraph":2,"first_word":"Hello"}`, "One.\n\n\"hello,\" he said", true},
	"first word of another paragraph": {"length_constraints:nth_paragraph_first_word", `{"num_paragraphs":2,"nth_paragraph":1,"first_word":"Hello"}`, "One.\n\nHello", false},
	"first word, too few paragraphs":  {"length_constraints:nth_paragraph_first_word", `{"num_paragraphs":3,"nth_paragraph":2,"first_word":"Hello"}`, "One.\n\nHello", false},
	"first word, empty lines":         {"length_constraints:nth_paragraph_first_word", `{"num_paragraphs":2,"nth_paragraph":2,"first_word":"hello"}`, "One.\n\n\n\n\n\nHello", true},
	"first word, a longer one":        {"length_constraints:nth_paragraph_first_word", `{"num_paragraphs":1,"nth_paragraph":1,"first_word":"he"}`, "Hello", false},
	"postscript":                      {"detectable_content:postscript", `{"postscript_marker":"P.S."}`, "Bye.\n\nP.S. Write soon.", true},
	"postscript, small and spaced":    {"detectable_content:postscript", `{"postscript_marker":"P.S."}`, "Bye.\np. s. Write soon.", true},
	"postscript, empty":               {"detectable_content:postscript", `{"postscript_marker":"P.S."}`, "Bye.\nP.S", false},
	"postscript, missing":             {"detectable_content:postscript", `{"postscript_marker":"P.S."}`, "Bye.", false},
	"postscript, the second":          {"detectable_content:postscript", `{"postscript_marker":"P.P.S"}`, "P.P.S. And again", true},
	"postscript, the first only":      {"detectable_content:postscript", `{"postscript_marker":"P.P.S"}`, "P.S. And again", false},
	"postscript, another marker":      {"detectable_content:postscript", `{"postscript_marker":"NB (1)"}`, "nb (1) this", true},
	"placeholders":                    {"detectable_content:number_placeholders", `{"num_placeholders":2}`, "Dear [name], at [address]", true},
	"placeholders, too few":           {"detectable_content:number_placeholders", `{"num_placeholders":2}`, "Dear [name], at [\n]", false},
	"bullets":                         {"detectable_format:number_bullet_lists", `{"num_bullets":3}`, "* a\n  * b\n- c", true},
	"bullets, one too many":           {"detectable_format:number_bullet_lists", `{"num_bullets":1}`, "* a\n* b", false},
	"bullets, bold is none":           {"detectable_format:number_bullet_lists", `{"num_bullets":1}`, "**a**\n* b", true},
	"constrained":                     {"detectable_format:constrained_response", `{}`, "Well. My answer is maybe.", true},
	"constrained, otherwise":          {"detectable_format:constrained_response", `{}`, "My answer is perhaps.", false},
	"highlights":                      {"detectable_format:number_highlighted_sections", `{"num_highlights":2}`, "*a* and **b**", true},
	"highlights, each counted once":   {"detectable_format:number_highlighted_sections", `{"num_highlights":2}`, "**b**", false},
	"highlights, empty":               {"detectable_format:number_highlighted_sections", `{"num_highlights":1}`, "* * and ** **", false},
	"highlights, over a line":         {"detectable_format:number_highlighted_sections", `{"num_highlights":1}`, "*a\nb*", false},
	"sections":                        {"detectable_format:multiple_sections", `{"section_spliter":"Section","num_sections":2}`, "Section 1\na\nSection 2\nb", true},
	"sections, too few":               {"detectable_format:multiple_sections", `{"section_spliter":"Section","num_sections":3}`, "Section 1\na\nSection 2\nb", false},
	"sections, another word":          {"detectable_format:multiple_sections", `{"section_spliter":"PART (","num_sections":1}`, "PART (1", true},
	"sections, no number":             {"detectable_format:multiple_sections", `{"section_spliter":"Section","num_sections":1}`, "Section one", false},
	"JSON":                            {"detectable_format:json_format", `{}`, ` {"a":[1,2]} `, true},
	"JSON in a fence":                 {"detectable_format:json_format", `{}`, "```json\n{}\n```", true},
	"JSON in a plain fence":           {"detectable_format:json_format", `{}`, "```\n{}\n```", true},
	"JSON, a comma too many":          {"detectable_format:json_format", `{}`, `{"a":1,}`, false},
	"JSON with words around":          {"detectable_format:json_format", `{}`, "Here: {}", false},
	"JSON, an open fence":             {"detectable_format:json_format", `{}`, "```json\n{}", false},
	"title":                           {"detectable_format:title", `{}`, "<<On Cats>>\nText", true},
	"title, empty":                    {"detectable_format:title", `{}`, "<< >>", false},
	"title, single brackets":          {"detectable_format:title", `{}`, "<On Cats>", false},
	"two responses":                   {"combination:two_responses", `{}`, "One\n******\nTwo", true},
	"two responses, the same":         {"combination:two_responses", `{}`, "One\n******\nOne ", false},
	"two responses, three":            {"combination:two_responses", `{}`, "One\n******\nTwo\n******\nThree", false},
	"two responses, one":              {"combination:two_responses", `{}`, "One\n******", false},
	"two responses, an empty one":     {"combination:two_responses", `{}`, "One\n******\n******\nTwo", false},
	"two responses, stars first":      {"combination:two_responses", `{}`, "******\nOne\n******\nTwo", true},
	"repeat the prompt":               {"combination:repeat_prompt", `{"prompt_to_repeat":"Say hello."}`, " say Hello. Hello!", true},
	"repeat the prompt, later":        {"combination:repeat_prompt", `{"prompt_to_repeat":"Say hello."}`, "Well: Say hello.", false},
	"end":                             {"startend:end_checker", `{"end_phrase":"Any questions?"}`, "So.\nAny QUESTIONS? ", true},
	"end in quotes":                   {"startend:end_checker", `{"end_phrase":"Any questions?"}`, `"So. Any questions?"`, true},
	"end, more behind":                {"startend:end_checker", `{"end_phrase":"Any questions?"}`, "Any questions? No.", false},
	"quotation":                       {"startend:quotation", `{}`, `"All of it."`, true},
	"quotation, curly":                {"startend:quotation", `{}`, "“All of it.”", true},
	"quotation, one sign":             {"startend:quotation", `{}`, `"`, false},
	"quotation, open":                 {"startend:quotation", `{}`, `"All of it.`, false},
	"capital words, enough":           {"change_case:capital_word_frequency", `{"capital_frequency":3,"capital_relation":"at least"}`, "NASA AND A dog", true},
	"capital words, fewer":            {"change_case:capital_word_frequency", `{"capital_frequency":2,"capital_relation":"less than"}`, "NASA and Dogs", true},
	"capital words, a hyphen":         {"change_case:capital_word_frequency", `{"capital_frequency":2,"capital_relation":"less than"}`, "STATE-OF-THE-ART", true},
	"capital words, digits":           {"change_case:capital_word_frequency", `{"capital_frequency":1,"capital_relation":"at least"}`, "42 go", false},
	"capitals":                        {"change_case:english_capital", `{}`, "ALL OF IT, 42!", true},
	"capitals, one small":             {"change_case:english_capital", `{}`, "ALL Of IT", false},
	"capitals, no letters":            {"change_case:english_capital", `{}`, "42", false},
	"capitals, Russian":               {"change_case:english_capital", `{}`, "ВСЁ", false},
	"small letters":                   {"change_case:english_lowercase", `{}`, "all of it, 42!", true},
	"small letters, one capital":      {"change_case:english_lowercase", `{}`, "all Of it", false},
	"no comma":                        {"punctuation:no_comma", `{}`, "No. None; at all", true},
	"a comma":                         {"punctuation:no_comma", `{}`, "Well, yes", false},
	"Korean":                          {"language:response_language", `{"language":"ko"}`, "안녕하세요 DNO", true},
	"Korean asked, English given":     {"language:response_language", `{"language":"ko"}`, "Hello, 안녕", false},
	"Japanese":                        {"language:response_language", `{"language":"ja"}`, "日本語です", true},
	"Japanese without kana":           {"language:response_language", `{"language":"ja"}`, "日本語", false},
	"Chinese":                         {"language:response_language", `{"language":"zh"}`, "你好。", true},
	"Chinese asked, Japanese given":   {"language:response_language", `{"language":"zh"}`, "日本語です", false},
	"Tamil":                           {"language:response_language", `{"language":"ta"}`, "வணக்கம்", true},
	"Greek, without letters":          {"language:response_language", `{"language":"el"}`, "42", false},
	"null arguments of others":        {"punctuation:no_comma", `{"num_words":null}`, "x", true},
	"nothing follows nothing":         {"punctuation:no_comma", `{}`, "", false},
	"white space follows nothing":     {"change_case:capital_word_frequency", `{"capital_frequency":3,"capital_relation":"less than"}`, " \n", false},
}

func TestInstructions(t *testing.T) {
	t.Parallel()
	covered := map[string][2]bool{}
	for name, c := range instructionCases {
		both := covered[c.id]
		if both[1] = both[1] || c.follows; !c.follows {
			both[0] = true
		}
		covered[c.id] = both
		t.Run(name, func(t *testing.T) {
			list, abstain, err := Read(metadata(t, c.id, c.kwargs))
			if err != nil || abstain != "" || len(list) != 1 || list[0].ID != c.id {
				t.Fatalf("got %+v, %q, %v", list, abstain, err)
			}
			if got := list[0].Follows(c.text); got != c.follows {
				t.Errorf("follows: %v", got)
			}
		})
	}
	for id := range kinds {
		if covered[id] != [2]bool{true, true} {
			t.Errorf("%s has no case that follows, or none that does not", id)
		}
	}
}

func TestInstructionsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	many := make([]any, maxInstructions+1)
	for name, c := range map[string]struct {
		metadata      map[string]any
		abstain, fail string
		hint          string
	}{
		"no metadata":            {nil, "has no instructions", "", ""},
		"no instruction":         {map[string]any{"instruction_id_list": []any{}, "kwargs": []any{}}, "has no instructions", "", ""},
		"another form":           {map[string]any{"instruction_id_list": "x"}, "has no instructions", "", ""},
		"no kwargs":              {map[string]any{"instruction_id_list": []any{"x"}}, "", "0 entries for 1 instructions", "one object for each id"},
		"too many":               {map[string]any{"instruction_id_list": many, "kwargs": many}, "", "at most 100", ""},
		"an unknown id":          {metadata(t, "punctuation:no_coma", `{}`), "", `no instruction "punctuation:no_coma"`, `did you mean "punctuation:no_comma"?`},
		"an id near to none":     {metadata(t, "sing", `{}`), "", `no instruction "sing"`, "verify-answers.md"},
		"an id that is no text":  {map[string]any{"instruction_id_list": []any{3.0}, "kwargs": []any{nil}}, "", `no instruction "3"`, "verify-answers.md"},
		"a missing argument":     {metadata(t, "keywords:existence", `{}`), "", `"keywords:existence": argument "keywords"`, ""},
		"kwargs that are null":   {metadata(t, "keywords:existence", `null`), "", `argument "keywords" is "<nil>", want a list of texts`, ""},
		"an empty text":          {metadata(t, "startend:end_checker", `{"end_phrase":""}`), "", `argument "end_phrase"`, ""},
		"a list of numbers":      {metadata(t, "keywords:existence", `{"keywords":[3]}`), "", "want a list of texts", ""},
		"a number as text":       {metadata(t, "detectable_format:number_bullet_lists", `{"num_bullets":"3"}`), "", `argument "num_bullets" is "3", want a whole number`, ""},
		"a broken number":        {metadata(t, "detectable_format:number_bullet_lists", `{"num_bullets":1.5}`), "", "want a whole number", ""},
		"a negative number":      {metadata(t, "detectable_format:number_bullet_lists", `{"num_bullets":-1}`), "", "want a whole number", ""},
		"another relation":       {metadata(t, "length_constraints:number_words", `{"num_words":3,"relation":"exactly"}`), "", `argument "relation" is "exactly", want "at least" or "less than"`, ""},
		"two letters":            {metadata(t, "keywords:letter_frequency", `{"letter":"ab","let_frequency":1,"let_relation":"at least"}`), "", "want one character", ""},
		"a paragraph beyond":     {metadata(t, "length_constraints:nth_paragraph_first_word", `{"num_paragraphs":1,"nth_paragraph":2,"first_word":"a"}`), "", `"nth_paragraph" is "2"`, ""},
		"a language of Latin":    {metadata(t, "language:response_language", `{"language":"de"}`), `the language "de" cannot be told by its script`, "", ""},
		"a language of Cyrillic": {metadata(t, "language:response_language", `{"language":"ru"}`), `the language "ru"`, "", ""},
		"no language":            {metadata(t, "language:response_language", `{"language":"xx"}`), "", `argument "language" is "xx"`, ""},
		"an error after an abstention": {map[string]any{"instruction_id_list": []any{"language:response_language", "x"},
			"kwargs": []any{map[string]any{"language": "de"}, nil}}, "", `no instruction "x"`, "verify-answers.md"},
	} {
		t.Run(name, func(t *testing.T) {
			list, abstain, err := Read(c.metadata)
			if len(list) != 0 {
				t.Errorf("read all the same: %+v", list)
			}
			if !strings.Contains(abstain, c.abstain) || (abstain == "") != (c.abstain == "") {
				t.Errorf("abstains: %q", abstain)
			}
			if c.fail == "" {
				if err != nil {
					t.Errorf("fails: %v", err)
				}
				return
			}
			var e *sdk.Error
			if !errors.As(err, &e) || e.Code != sdk.CodeUsage || !strings.Contains(e.Error(), c.fail) || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("got %v, want %q", err, c.fail)
			}
		})
	}
}

// Work that grows with the square of the length would take minutes.
func TestLongTextsAreCheckedInTime(t *testing.T) {
	t.Parallel()
	var all []Instruction
	for _, c := range instructionCases {
		list, _, err := Read(metadata(t, c.id, c.kwargs))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(all, func(i Instruction) bool { return i.ID == c.id }) {
			all = append(all, list...)
		}
	}
	for _, piece := range []string{"* ", "[", "cat", "p.", "******", "\xff"} {
		text := "x" + strings.Repeat(piece, (1<<18)/len(piece))
		start := time.Now()
		for _, i := range all {
			i.Follows(text)
		}
		if took := time.Since(start); took > time.Minute {
			t.Errorf("%q many times takes %v", piece, took)
		}
	}
}

// Nothing panics, whatever the text and the arguments; the same text is judged the same.
func FuzzInstructions(f *testing.F) {
	for _, c := range instructionCases {
		f.Add(c.id, c.kwargs, c.text)
	}
	f.Fuzz(func(t *testing.T, id, kwargs, text string) {
		var k any
		if json.Unmarshal([]byte(kwargs), &k) != nil {
			return
		}
		list, abstain, err := Read(map[string]any{"instruction_id_list": []any{id}, "kwargs": []any{k}})
		said := 0
		for _, is := range []bool{len(list) == 1, abstain != "", err != nil} {
			if is {
				said++
			}
		}
		if said != 1 {
			t.Fatalf("%d instructions, %q, %v", len(list), abstain, err)
		}
		for _, i := range list {
			first := i.Follows(text)
			if again := i.Follows(text); again != first {
				t.Error("judged in two ways")
			}
		}
	})
}
