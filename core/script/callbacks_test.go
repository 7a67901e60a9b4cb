package script

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/sdk"
)

func prompt(id string) sdk.Prompt {
	return sdk.Prompt{ID: id, Messages: []sdk.Message{{Role: "system", Content: "be brief"}, {Role: "user", Content: "1+1"}}, Answer: "2",
		Metadata: map[string]any{"level": 3.0, "tags": []any{"sum", true}, "nothing": nil}}
}

func completions(n int) []sdk.Completion {
	list := make([]sdk.Completion, n)
	for i := range list {
		logp := -float64(i)
		list[i] = sdk.Completion{Text: fmt.Sprint("text ", i), Tokens: make([]int32, i+2), LogProb: &logp, Finish: sdk.FinishStop, Source: sdk.FromPolicy}
	}
	return list
}

func TestMixDecides(t *testing.T) {
	for body, want := range map[string][]int{
		`return own .. teacher`:                   {0, 1, 2, 3},
		`return teacher .. own`:                   {3, 0, 1, 2},
		`return own`:                              {0, 1, 2},
		`return nil`:                              {},
		`return {}`:                               {},
		`return { own[3], teacher[1], own[3] }`:   {2, 3},
		`return own .. dno.when(t == 1, teacher)`: {0, 1, 2},
		`return dno.when(t == 2, teacher) .. dno.when(false, own)`:                                                               {3},
		`local out = {} for _, c in ipairs(own) do if c.tokens > 2 and c.logprob < -1 then out[#out + 1] = c end end return out`: {2},
		`return dno.list { own[teacher[1].index - 2] }`:                                                                          {1},
		`return prompt.id == "p" and prompt.text == "be brief\n1+1" and prompt.answer == "2" and prompt.messages[2].content == "1+1" and
			prompt.metadata.level == 3 and prompt.metadata.tags[1] == "sum" and prompt.metadata.nothing == nil and own or nil`: {0, 1, 2},
		`return own[1].text == "text 0" and own[1].finish == "stop" and own[1].source == "policy" and t == 2 and own or nil`: {0, 1, 2},
	} {
		s := load(t, script("mix = function(prompt, own, teacher, t) "+body+" end"))
		have, err := s.Mix(t.Context(), 2, prompt("p"), completions(3), completions(1))
		if diff := cmp.Diff(want, have); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", body, err, diff)
		}
	}
	have, err := load(t, script("")).Mix(t.Context(), 1, prompt("p"), completions(2), completions(2))
	if diff := cmp.Diff([]int{0, 1, 2, 3}, have); diff != "" || err != nil {
		t.Errorf("without mix: %v\n%s", err, diff)
	}
}

func TestF25MixMistakes(t *testing.T) {
	for body, want := range map[string]string{
		`return 5`:                        "mix (iteration 2, prompt p): it returned 5: want a list of completions",
		`return { { text = "made up" } }`: `it returned { text = "made up" }: want a list of completions out of own and teacher`,
		`return { 1 }`:                    "it returned 1: want a list of completions",
		`return own[1]`:                   "want a list of completions",
		`return { own }`:                  "want a list of completions",
		`own[1].text = "better"`:          "mix (iteration 2, prompt p): s.lua:5: what the host hands to a callback is read-only",
		`prompt.answer = "3"`:             "what the host hands to a callback is read-only",
		`setmetatable(own[1], {})`:        "what the host hands to a callback is read-only",
		`setmetatable(own, {})`:           "cannot change a protected metatable",
		`return own .. "x"`:               "only lists of completions can be joined",
		`return own.x.y`:                  "mix (iteration 2, prompt p): s.lua:5: attempt to index",
		`while true do end`:               "used more than 1000000 instructions",
	} {
		s := load(t, script("mix = function(prompt, own, teacher, t) "+body+" end"))
		_, err := s.Mix(t.Context(), 2, prompt("p"), completions(3), completions(1))
		wantError(t, err, sdk.CodeScript, want)
	}
}

// game has four completions of the policy's and one of a teacher's; of the policy's the last two have
// the same text. 0 beats 1, 1 beats 2 (and 3), 2 beats 0: a cycle; the teacher beats all but 0, with
// which it was not compared.
func game(t *testing.T, allowed []int) *preference.Game {
	t.Helper()
	list := completions(5)
	list[3].Text = list[2].Text
	list[4].Source = sdk.FromTeacher
	raw := make([]float64, 25)
	for i := range raw {
		raw[i] = math.NaN()
	}
	beat := func(i, j int, p float64) { raw[i*5+j], raw[j*5+i] = p, 1-p }
	beat(0, 1, 1)
	beat(1, 2, 0.75)
	beat(2, 0, 1)
	beat(4, 1, 1)
	beat(4, 2, 0.875)
	g, err := preference.NewGame(list, raw, preference.Options{Allowed: allowed})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestPairsDecides(t *testing.T) {
	rule := preference.Rule{MinMargin: -1}
	type pair struct {
		Chosen, Rejected int
		Weight           float64
	}
	for body, want := range map[string][]pair{
		`return nil`: nil,
		`return {}`:  nil,
		`return { { chosen = 1, rejected = 2 } }`:                                                           {{0, 1, 1}},
		`return { { chosen = 5, rejected = 3, weight = 2.5 } }`:                                             {{4, 2, 2.5}},
		`return { { chosen = 2, rejected = 4 } }`:                                                           {{1, 2, 1}}, // 4 has the text of 3
		`return { { chosen = 2, rejected = 3 }, { chosen = 2, rejected = 4 } }`:                             {{1, 2, 1}},
		`return game:pairs()`:                                                                               {{0, 1, 1}, {1, 2, 1}, {2, 0, 1}, {4, 1, 1}, {4, 2, 1}},
		`return game:pairs { max_pairs = 1, min_margin = -1 }`:                                              {{4, 1, 1}},
		`local out = game:pairs() for _, p in ipairs(out) do p.weight = p.preference end return { out[2] }`: {{1, 2, 0.75}},
		`local out = {} for _, p in ipairs(game:pairs {}) do if p.class == "teacher_student" then out[#out + 1] = p end end return out`: {{4, 1, 1}, {4, 2, 1}},
		`local out = {}
		 for i = 1, game.n do for j = 1, game.n do
			if (game:p(i, j) or 0) > 0.9 then out[#out + 1] = { chosen = i, rejected = j } end
		 end end
		 return out`: {{0, 1, 1}, {2, 0, 1}, {4, 1, 1}},
		`local r, se, n = game:win_rate(5)
		 return r > 0.9 and se > 0 and n == 3 and game.completions[5].source == "teacher" and game.prompt.id == "p" and t == 2 and
			#game.pairable == 4 and game.pairable[3] == 3 and game:p(1, 5) == nil and { { chosen = 1, rejected = 2 } } or nil`: {{0, 1, 1}},
	} {
		s := load(t, script("pairs = function(game, t) "+body+" end"))
		pairs, err := s.Pairs(t.Context(), 2, prompt("p"), game(t, nil), rule)
		var have []pair
		for _, p := range pairs {
			have = append(have, pair{p.Chosen, p.Rejected, p.Weight})
		}
		if diff := cmp.Diff(want, have); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", body, err, diff)
		}
	}
}

func TestPairsOfTheRuleAreTheGames(t *testing.T) {
	rule := preference.Rule{MinMargin: 0.3, MaxPairs: 2}
	want, err := game(t, nil).Pairs(rule)
	if err != nil {
		t.Fatal(err)
	}
	for name, settings := range map[string]string{
		"without pairs":   "",
		"with game:pairs": "pairs = function(game) return game:pairs() end",
	} {
		have, err := load(t, script(settings)).Pairs(t.Context(), 1, prompt("p"), game(t, nil), rule)
		if diff := cmp.Diff(want, have); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func TestF25PairsMistakes(t *testing.T) {
	for body, want := range map[string]string{
		`return 5`:                                              "pairs (iteration 2, prompt p): it returned 5: want a list of { chosen = i, rejected = j }",
		`return { 1 }`:                                          "it returned 1 in its list",
		`return { chosen = 1, rejected = 2 }`:                   "it returned 1 in its list",
		`return { { chosen = 1 } }`:                             "pairs (iteration 2, prompt p): s.lua:5: a pair lacks rejected",
		`return { { chosen = 1, rejeced = 2 } }`:                `a pair: there is no setting "rejeced"; did you mean "rejected"?`,
		`return { { chosen = "1", rejected = 2 } }`:             `a pair's chosen: want a number, have "1"`,
		`return { { chosen = 1.5, rejected = 2 } }`:             "the pair of 1.5 over 2: the game has completions 1 to 5",
		`return { { chosen = 0, rejected = 2 } }`:               "the game has completions 1 to 5",
		`return { { chosen = 1, rejected = 6 } }`:               "the game has completions 1 to 5",
		`return { { chosen = 0/0, rejected = 1 } }`:             "the game has completions 1 to 5",
		`return { { chosen = 2, rejected = 2 } }`:               "both have the same text",
		`return { { chosen = 3, rejected = 4 } }`:               "the pair of 3 over 4: both have the same text",
		`return { { chosen = 2, rejected = 1 } }`:               "the pair of 2 over 1: the chosen one is not preferred: P is 0",
		`return { { chosen = 5, rejected = 2 } }`:               "the pair of 5 over 2: 5 is not among what mix returned",
		`return { { chosen = 1, rejected = 2, weight = 0 } }`:   "the pair of 1 over 2: weight: want a number above 0, have 0",
		`return { { chosen = 1, rejected = 2, weight = -1 } }`:  "weight: want a number above 0, have -1",
		`return { { chosen = 1, rejected = 2, weight = 1/0 } }`: "weight: want a number above 0, have +Inf",
		`return { { chosen = 1, rejected = 2, weight = 0/0 } }`: "weight: want a number above 0, have NaN",
		`return game.pairs { }`:                                 "s.lua:5: call it as game:pairs{ min_margin = ... }",
		`return game.p(1, 2)`:                                   "call it as game:p(i, j)",
		`return game:p(1, 9)`:                                   "there is no completion 9: the game has 1 to 5",
		`return game:win_rate("x")`:                             "number expected, got string",
		`return game:win_rate(1.5)`:                             "there is no completion 1.5",
		`return game:pairs { margin = 1 }`:                      `game:pairs: there is no setting "margin"`,
		`return game:pairs { max_pair = 1 }`:                    `did you mean "max_pairs"?`,
		`return game:pairs { min_margin = "x" }`:                `game:pairs: min_margin: want a number, have "x"`,
		`return game:pairs { min_margin = 5 }`:                  "want -1 to 1, have 5",
		`return game:pairs { max_pairs = 1.5 }`:                 "max_pairs: want a whole number",
		`return game:pairs { select = "best" }`:                 `select: want "all" or "best_worst", have "best"`,
		`return game:pairs { select = 5 }`:                      `select: want`,
		`game.completions[1].text = "x"`:                        "what the host hands to a callback is read-only",
		`game.p = nil getmetatable(game).__index = nil`:         "attempt to index a boolean value",
	} {
		s := load(t, script("pairs = function(game, t) "+body+" end"))
		_, err := s.Pairs(t.Context(), 2, prompt("p"), game(t, []int{0, 1, 2, 3}), preference.Rule{})
		wantError(t, err, sdk.CodeScript, want)
	}
	s := load(t, script("pairs = function(game, t) return { { chosen = 5, rejected = 1 } } end"))
	_, err := s.Pairs(t.Context(), 2, prompt("p"), game(t, nil), preference.Rule{})
	wantError(t, err, sdk.CodeScript, "the pair of 5 over 1: the oracle did not compare the two")
}
