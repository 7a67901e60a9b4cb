package verifier

import (
	"context"
	"strings"
	"testing"

	"github.com/dno-project/dno/sdk"
)

func ask(text, answer string, steps []any) sdk.Prompt {
	p := sdk.Prompt{Messages: []sdk.Message{{Role: "user", Content: text}}, Answer: answer}
	if steps != nil {
		p.Metadata = map[string]any{"steps": steps}
	}
	return p
}

// verdict judges two completions in both orders, which have to mirror each other.
func verdict(t *testing.T, p sdk.Prompt, a, b string) (sdk.Verdict, []sdk.Assessment) {
	t.Helper()
	out, err := New().Judge(context.Background(), []sdk.Comparison{{ID: "q", Prompt: p, Candidates: []string{a, b},
		Pairs: []sdk.Ordered{{A: 0, B: 1}, {A: 1, B: 0}}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) != 1 || out[0].ID != "q" || len(out[0].Pairs) != 2 {
		t.Fatalf("got %+v", out)
	}
	there, back := out[0].Pairs[0], out[0].Pairs[1]
	if there.Abstain != back.Abstain || there.Abstain == "" && there.P+back.P != 1 {
		t.Fatalf("the orders disagree: %+v, %+v", there, back)
	}
	return there, out[0].Assessed
}

// The prompt asks for 17+45+8+30 = 100: 17+45=62; 62+8=70; 70+30=100.
func TestPreferences(t *testing.T) {
	t.Parallel()
	sum := ask("17 45 8 30", "100", nil)
	const right = "17+45=62;62+8=70;70+30=100"
	for name, c := range map[string]struct {
		a, b string
		p    float64
	}{
		"right beats wrong":                            {right, "17+45=52;52+8=60;60+30=90", 1},
		"two right ones tie, however many steps":       {right, "100", 0.5},
		"right without steps beats wrong with steps":   {"100", "17+45=62;62+8=70;70+30=101", 1},
		"among wrong ones more right steps win":        {"17+45=62;62+8=70;70+30=90", "17+45=52;52+8=50;50+30=90", 1},
		"a slip costs one step, not those that follow": {"17+45=52;52+8=60;60+30=90", "17+45=52;52+8=50;50+30=80", 1},
		"as many right steps tie":                      {"17+45=52;52+8=60;60+30=90", "17+45=62;62+8=60;60+30=90", 0.5},
		"a cut completion counts by its text":          {"17+45=62;62+8=7", "17+45=52;52+8=6", 1},
		"identical wrong ones tie":                     {"5", "5", 0.5},
		"a unit and another spelling are as good":      {"17+45=62;62+8=70;70+30=100.0 cm", right, 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			if v, _ := verdict(t, sum, c.a, c.b); v.P != c.p || v.Abstain != "" || v.Reason == "" {
				t.Errorf("got %+v, want P = %v", v, c.p)
			}
		})
	}
}

func TestCredit(t *testing.T) {
	t.Parallel()
	// With a constant, and with a value that is used twice: 2·(3+4) + (3+4) = 21.
	reuse := []any{"3+4=7", "7*2", "14+7"}
	// The surface of a box: 6 steps from 3 numbers, so 4 operands are used again: each side, and the half.
	box := ask("A box is 18 by 7 by 3 cm.", "402", nil)
	box.Metadata = map[string]any{"steps": 6.0}
	for name, c := range map[string]struct {
		prompt       sdk.Prompt
		text         string
		right, total float64
	}{
		"all steps":                                       {ask("17 45 8", "70", nil), "17+45=62;62+8=70", 2, 2},
		"in another order":                                {ask("17 45 8", "70", nil), "8+17=25;25+45=70", 2, 2},
		"in one long step":                                {ask("17 45 8", "70", nil), "17+45+8=70", 1, 2},
		"with words around":                               {ask("Add 17, 45 and 8.", "70", nil), "First: 17 + 45 = 62 cm\nthen: 62 + 8 = 70 cm", 2, 2},
		"a prompt without numbers has one step":           {ask("seven and five", "12", nil), "7+5=12", 0, 1},
		"an operand from nowhere":                         {ask("17 45 8", "70", nil), "17+54=71;71+8=79", 1, 2},
		"the same number used twice":                      {ask("17 45 8", "70", nil), "17+45=62;62+45=107", 1, 2},
		"a number that the prompt has twice":              {ask("5 5 8", "18", nil), "5+5=10;10+8=18", 2, 2},
		"a value that was never written":                  {ask("17 45 8", "70", nil), "62+8=70", 0, 2},
		"numbers of any turn of the conversation":         {sdk.Prompt{Messages: []sdk.Message{{Role: "user", Content: "17"}, {Role: "user", Content: "45"}}}, "17+45=62", 1, 1},
		"the reference's constant is in stock":            {ask("a 3 by 4 room", "21", reuse), "3+4=7;7*2=14;14+7=21", 3, 3},
		"a slip may be used again as the right value":     {ask("a 3 by 4 room", "21", reuse), "3+4=8;8*2=16;16+8=24", 2, 3},
		"numbers are used again if so many steps need it": {box, "18*7=126;18*3=54;7*3=21;126+54=180;180+21=201;201+201=402", 6, 6},
		"and after a slip too":                            {box, "18*7=76;18*3=54;7*3=21;76+54=130;130+21=151;151+151=302", 5, 6},
		// 18, 7; 18 again, 3; 18 and 7 again; 18 again, and 3 would be the fifth.
		"but not more often":                       {box, "18*7=126;18*3=54;18+7=25;18+3=21;7*3=21;7+3=10", 3, 6},
		"and no other number":                      {box, "18*7=126;18*4=72", 1, 6},
		"without the reference it is from nowhere": {ask("a 3 by 4 room", "21", nil), "3+4=7;7*2=14;14+7=21", 1, 1},
		"a reference that is no list is not used":  {sdk.Prompt{Messages: []sdk.Message{{Role: "user", Content: "17 45 8"}}, Metadata: map[string]any{"steps": 2.0}}, "17+45=62;62+8=70", 2, 2},
		"a reference of words is not used":         {ask("17 45 8", "70", []any{"add them"}), "17+45=62;62+8=70", 2, 2},
		"64 KiB and more is not read":              {ask("17 45 8", "70", nil), "17+45=62;62+8=70" + strings.Repeat(" ", 64<<10), 0, 2},
		// Padding.
		"equations without operator are no steps":      {ask("17 45 8", "70", nil), "1=1;1=1;17=17", 0, 2},
		"true equations about nothing":                 {ask("17 45 8", "70", nil), "1+1=2;2+2=4;3+3=6", 0, 2},
		"a zero from nowhere":                          {ask("17 45 8 9", "79", nil), "0+0=0;0+17=17;0*0=0;17+0=17", 0, 3},
		"a step that is repeated":                      {ask("5 5 5 5", "20", nil), "5+5=10;5+5=10;5+5=10", 1, 3},
		"a repeated step with other spaces":            {ask("5 5 5 5", "20", nil), "5+5=10;5 + 5 = 10", 1, 3},
		"steps beyond the number that there is":        {ask("17 45 8", "70", []any{"17+45"}), "17+45=62;62+8=70", 1, 1},
		"padding displaces the steps that would count": {ask("17 45 8", "70", nil), "1+1=2;2+2=4;17+45=62;62+8=71", 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if c.prompt.Answer == "" {
				c.prompt.Answer = "-1"
			}
			_, assessed := verdict(t, c.prompt, c.text, "")
			got := assessed[0]
			if got.Labels[LabelStepsRight] != c.right || got.Labels[LabelStepsTotal] != c.total {
				t.Errorf("got %v, want %v of %v steps", got.Labels, c.right, c.total)
			}
			if want := 10*got.Labels[sdk.LabelCorrect] + c.right/c.total; got.Score == nil || *got.Score != want {
				t.Errorf("score %v, want %v", got.Score, want)
			}
		})
	}
}

func TestReferenceAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer  string
		correct float64
		abstain string
	}{
		"the same number":                 {"12", 1, ""},
		"another number":                  {"13", 0, ""},
		"compared as a number":            {"12.00", 1, ""},
		"with a unit":                     {" 12 cm2 ", 1, ""},
		"with a currency":                 {"$12", 1, ""},
		"no answer: the oracle abstains":  {"", 0, "the prompt has no reference answer"},
		"words: the oracle says so":       {"a dozen", 0, `the prompt's reference answer "a dozen" is not a number`},
		"arithmetic is not a number here": {"3*4", 0, `the prompt's reference answer "3*4" is not a number`},
	} {
		t.Run(name, func(t *testing.T) {
			v, assessed := verdict(t, ask("3 4", c.answer, nil), "3*4=12", "")
			if v.Abstain != c.abstain {
				t.Fatalf("abstains with %q", v.Abstain)
			}
			if c.abstain != "" {
				if len(assessed) != 0 {
					t.Errorf("assessed all the same: %+v", assessed)
				}
				return
			}
			if got := assessed[0].Labels[sdk.LabelCorrect]; got != c.correct {
				t.Errorf("correct %v", got)
			}
		})
	}
}

func TestAPairOfMissingCandidatesFails(t *testing.T) {
	t.Parallel()
	_, err := New().Judge(context.Background(), []sdk.Comparison{{Prompt: ask("3 4", "12", nil),
		Candidates: []string{"a", "b"}, Pairs: []sdk.Ordered{{A: 0, B: 2}}}})
	if sdk.CodeOf(err) != sdk.CodePlugin {
		t.Errorf("got %v", err)
	}
}
