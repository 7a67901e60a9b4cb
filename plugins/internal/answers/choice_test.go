package answers

import (
	"strings"
	"testing"
)

func TestChoice(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"a letter alone":                    {"B", "B"},
		"a small letter alone":              {"b", "B"},
		"in brackets":                       {"(B)", "B"},
		"in bold":                           {"**B**", "B"},
		"in bold brackets":                  {"**(B)**", "B"},
		"with a full stop":                  {"B.", "B"},
		"with its text":                     {"B. Paris", "B"},
		"with a bracket and its text":       {"B) Paris", "B"},
		"with a colon and its text":         {"B: Paris", "B"},
		"in brackets with its text":         {"(B) Paris", "B"},
		"in brackets in a sentence":         {"I think that (B) fits best.", "B"},
		"the answer is":                     {"The answer is B.", "B"},
		"the answer is, in brackets":        {"The answer is (B).", "B"},
		"the answer is, small in brackets":  {"the answer is (b)", "B"},
		"the answer is, small at the end":   {"the answer is b", "B"},
		"the answer is, small and a stop":   {"the answer is b.", "B"},
		"the answer is, in bold":            {"The answer is **B**.", "B"},
		"the answer is, in quotes":          {`The answer is "B".`, "B"},
		"the answer is, with a reason":      {"The answer is B because it is so", "B"},
		"the correct answer is option":      {"The correct answer is option B.", "B"},
		"the answer is the letter":          {"The answer is the letter B", "B"},
		"answer":                            {"Answer: B", "B"},
		"answer in bold":                    {"**Answer:** B", "B"},
		"answer on the next line":           {"Answer:\nB", "B"},
		"####":                              {"#### B", "B"},
		"a box":                             {`so \boxed{B}`, "B"},
		"a box with text":                   {`\boxed{\text{B}}`, "B"},
		"a box with brackets":               {`\boxed{(B)}`, "B"},
		"a box in a phrase":                 {`The answer is $\boxed{B}$.`, "B"},
		"option":                            {"I choose option B", "B"},
		"choice":                            {"Choice C it is", "C"},
		"J is a choice":                     {"The answer is J", "J"},
		"I with a reason":                   {"The answer is I because of it", "I"},
		"I at the end":                      {"The answer is I.", "I"},
		"lines before":                      {"A is wrong.\nC is wrong.\nSo:\nB", "B"},
		"lines behind a phrase":             {"The answer is B.\nHope that helps!", "B"},
		"the last phrase":                   {"The answer is A.\nNo, the answer is B.", "B"},
		"the last line of letters":          {"A\nB", "B"},
		"the same letter twice":             {"(B), yes, (B)", "B"},
		"an article behind it is no letter": {"The answer is B, A dog", ""},
		"an apostrophe":                     {"The answer is B, as A's are wrong", "B"},
		// Ambiguous, or none.
		"two letters":                  {"The answer is A or B", ""},
		"two letters with and":         {"The answer is A and C.", ""},
		"two letters with a comma":     {"The answer is A, C", ""},
		"two letters with a stroke":    {"The answer is A/C", ""},
		"two letters in brackets":      {"(A) or (B)", ""},
		"two letters in a sentence":    {"It is (A), not (B)", ""},
		"two in a phrase, in brackets": {"The answer is (A) or (B)", ""},
		"an article":                   {"The answer is a dog", ""},
		"a pronoun":                    {"The answer is I think B", ""},
		"an article in a sentence":     {"A dog barks", ""},
		"a pronoun in a sentence":      {"I do not know", ""},
		"a word":                       {"The answer is Berlin", ""},
		"beyond J":                     {"The answer is K", ""},
		"words in a box":               {`\boxed{Paris}`, ""},
		"the phrase alone":             {"The answer is", ""},
		"nothing":                      {"", ""},
		"white space":                  {" \n ", ""},
		"a letter of a word":           {"ABBA", ""},
		"digits":                       {"42", ""},
		"bytes that are no text":       {"\xff\xfe", ""},
		"a letter beside such bytes":   {"The answer is B\xff", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if l := Choice(c.text); l != 0 {
				got = string(l)
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestReferenceChoice(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"B": "B", "b": "B", "(B)": "B", "B.": "B", "B)": "B", "(b)": "B", "B. Paris": "B", "B: Paris": "B", " B\n": "B",
		"": "", "A dog": "", "Paris": "", "K": "", "1": "", "AB": "",
	} {
		got := ""
		if l := ReferenceChoice(text); l != 0 {
			got = string(l)
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// A choice is a letter A to J that the text has, and the same each time.
func FuzzChoice(f *testing.F) {
	for _, seed := range []string{"The answer is (B).", "Answer: A or C", `\boxed{\text{J}}`, "I think option D", "B. x", "**b**", "#### \n c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c := Choice(text)
		if c != Choice(text) || c != 0 && (c < 'A' || c > 'J' || !strings.ContainsAny(text, string([]byte{c, c + 'a' - 'A'}))) {
			t.Errorf("%q chooses %q", text, c)
		}
		if r := ReferenceChoice(text); r != 0 && !strings.ContainsAny(text, string([]byte{r, r + 'a' - 'A'})) {
			t.Errorf("%q refers to %q", text, r)
		}
	})
}
