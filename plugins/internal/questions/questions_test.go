package questions

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/sdk"
)

// batch is one comparison of three texts, all six ordered pairs, the first of them twice.
func batch() []sdk.Comparison {
	c := sdk.Comparison{ID: "x", Candidates: []string{"a", "b", "c"},
		Prompt: sdk.Prompt{Messages: []sdk.Message{{Role: "user", Content: "17 45"}}, Answer: "62"}}
	for i := range 3 {
		for k := range 3 {
			if i != k {
				c.Pairs = append(c.Pairs, sdk.Ordered{A: i, B: k})
			}
		}
	}
	c.Pairs = append(c.Pairs, c.Pairs[0])
	return []sdk.Comparison{c}
}

func TestPartsAreAnsweredByThemselves(t *testing.T) {
	t.Parallel()
	r := NewRound(batch(), 10, true)
	if r.Len() != 6 {
		t.Fatalf("%d questions about 6 different pairs", r.Len())
	}
	parts := r.Parts(4)
	if len(parts) != 2 || len(parts[0].Questions) != 4 || len(parts[1].Questions) != 2 {
		t.Fatalf("parts %+v", parts)
	}
	// In another order, and the second part first.
	for i, body := range []string{`{"answers":[{"id":"16","p":0.16},{"id":"15","p":0.15}]}`,
		`{"answers":[{"id":"14","p":0.14},{"id":"11","p":0.11},{"id":"12","p":0.12},{"id":"13","p":0.13}],"more":[]}`} {
		if err := parts[1-i].TakeAll([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	var got []float64
	for _, v := range r.Verdicts(batch())[0].Pairs {
		got = append(got, v.P)
	}
	if diff := cmp.Diff([]float64{0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.11}, got); diff != "" {
		t.Error(diff)
	}
}

func TestOneOrderIsAsked(t *testing.T) {
	t.Parallel()
	r := NewRound(batch(), 0, false)
	if r.Len() != 3 {
		t.Fatalf("%d questions about 3 pairs", r.Len())
	}
	body := `{"answers":[{"id":"1","p":0.25,"score":{"a":2}},{"id":"2","abstain":"no"},{"id":"3","p":1,"score":{"a":5,"b":1}}]}`
	if err := r.Parts(3)[0].TakeAll([]byte(body)); err != nil {
		t.Fatal(err)
	}
	got := r.Verdicts(batch())[0]
	want := []sdk.Verdict{{P: 0.25}, {Abstain: "no"}, {P: 0.75}, {P: 1}, {Abstain: "no"}, {P: 0}, {P: 0.25}}
	if diff := cmp.Diff(want, got.Pairs); diff != "" {
		t.Error(diff)
	}
	var scores []float64
	for _, a := range got.Assessed {
		scores = append(scores, *a.Score)
	}
	if fmt.Sprint(scores) != "[2 5 1]" {
		t.Errorf("scores %v", scores)
	}
}

func TestF14AnswersThatAreNoneNameTheirIndex(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"one too few":                 {`{"answers":[{"id":"1","p":1}]}`, `questions[1] (id "2") has no answer, 1 of 2 have one`},
		"one too many":                {`{"answers":[{"id":"1","p":1},{"id":"2","p":1},{"id":"3","p":1}]}`, `answers[2], "{\"id\":\"3\",\"p\":1}": no question with the id "3"`},
		"one twice":                   {`{"answers":[{"id":"1","p":1},{"id":"1","p":1}]}`, `answers[1], `},
		"an id that is a number":      {`{"answers":[{"id":1,"p":1}]}`, `answers[0], `},
		"more than sure":              {`{"answers":[{"id":"2","p":1},{"id":"1","p":1.01}]}`, `answers[1], "{\"id\":\"1\",\"p\":1.01}": "p" is 1.01`},
		"less than never":             {`{"answers":[{"id":"1","p":-1e-9}]}`, `"p" is -1e-09`},
		"a number that is none":       {`{"answers":[{"id":"1","p":NaN}]}`, `invalid character 'N'`},
		"a number as text":            {`{"answers":[{"id":"1","p":"0.5"}]}`, `answers[0], `},
		"a huge number":               {`{"answers":[{"id":"1","p":1e999}]}`, `answers[0], `},
		"neither":                     {`{"answers":[{"id":"1","reason":"p is 1"}]}`, `want "p" or "abstain"`},
		"both":                        {`{"answers":[{"id":"1","p":1,"abstain":"x"}]}`, `exclude each other`},
		"two verdicts":                {`{"answers":[{"id":"1","p":1,"p":0}]}`, `the key "p" is there twice`},
		"two verdicts in two letters": {`{"answers":[{"id":"1","p":1,"P":0}]}`, `the key "p" is there twice`},
		"null":                        {`{"answers":[null]}`, `answers[0], "null": want "p" or "abstain"`},
		"answers twice":               {`{"answers":[{"id":"1","p":1}],"answers":[{"id":"1","p":0}]}`, `the key "answers" is there twice`},
		"no answers":                  {`{"error":"overloaded"}`, `"{\"error\":\"overloaded\"}" has no answers: want`},
		"answers that are no list":    {`{"answers":{"id":"1"}}`, `want {"answers"`},
		"a list":                      {`[{"id":"1","p":1}]`, `want {"answers"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			two := batch()
			two[0].Pairs = two[0].Pairs[:2]
			err := NewRound(two, 0, true).Parts(2)[0].TakeAll([]byte(c.body))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestF11F12ABodyThatIsNoJSON(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"nothing":           ``,
		"an HTML page":      `<html><body>502 Bad Gateway</body></html>`,
		"words":             `I prefer the first one, p = 1.`,
		"JSON cut off":      `{"answers":[{"id":"1","p":1},{"id":"2"`,
		"more after it":     `{"answers":[{"id":"1","p":1},{"id":"2","p":1}]} {"id":"3"}`,
		"a byte order mark": "\ufeff" + `{"answers":[{"id":"1","p":1},{"id":"2","p":1}]}`,
		"bytes":             `{"answers":[{"id":"1","p":1,"reason":"` + "\xff" + `"},{"id":"2","p":1}]}`,
		"deep nesting":      `{"answers":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			two := batch()
			two[0].Pairs = two[0].Pairs[:2]
			err := NewRound(two, 0, true).Parts(2)[0].TakeAll([]byte(body))
			if err == nil || !strings.Contains(err.Error(), `want {"answers"`) || len(err.Error()) > 1000 {
				t.Errorf("got %v", err)
			}
		})
	}
}

// An accepted answer is a probability or an abstention, never both and never out of range.
func FuzzAnswer(f *testing.F) {
	for _, line := range []string{
		`{"id":"1","p":0.5}`, `{"id":"1","abstain":"why"}`, `{"id":"1","p":1,"cost":2,"score":{"a":7},"labels":{"b":{"correct":1}}}`,
		`{"p":-0}`, `{"p":1e-400}`, `{"p":null,"abstain":null}`, `[]`, `{"id":1,"p":1}`, "\xff", `{"p":1,"P":0}`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		a, err := parseAnswer(line)
		if err != nil {
			return
		}
		v, turned := a.verdict(false), a.verdict(true)
		if (a.P == nil) != (v.Abstain != "") || !(v.P >= 0 && v.P <= 1) || !(a.Cost >= 0) {
			t.Errorf("%q: accepted as %+v", line, v)
		}
		if v.Abstain == "" && turned.P != 1-v.P {
			t.Errorf("%q: turned round P is %v, not 1-%v", line, turned.P, v.P)
		}
	})
}

// A body that is accepted has answered every question once.
func FuzzAnswers(f *testing.F) {
	for _, body := range []string{
		`{"answers":[{"id":"1","p":0.5},{"id":"2","abstain":"why"}]}`, `{"answers":[{"id":"2","p":1},{"id":"1","p":0}]}`,
		`{"answers":[{"id":"1","p":1},{"id":"1","p":1}]}`, `{"answers":null}`, `null`, `{"answers":[{}]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		two := batch()
		two[0].Pairs = two[0].Pairs[:2]
		r := NewRound(two, 0, true)
		if r.Parts(2)[0].TakeAll(body) != nil {
			return
		}
		traits := sdk.OracleTraits{Form: sdk.FormPairwise}
		if err := traits.CheckVerdicts(two, r.Verdicts(two)); err != nil {
			t.Errorf("%q: accepted, but %v", body, err)
		}
	})
}
