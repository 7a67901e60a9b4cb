package judge

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/dno-project/dno/plugins/internal/openai"
)

// The scale of scores.
const (
	lowestScore  = 0
	highestScore = 6
)

// read takes the verdict or the scores out of a reply, or says why there is none.
func (c config) read(out *answer, q question, r openai.Reply) *abstention {
	truncated := strings.EqualFold(r.Finish, "length") || strings.EqualFold(r.Finish, "max_tokens")
	blank := strings.TrimSpace(r.Text) == ""
	switch {
	case r.Choices == 0:
		return &abstention{"empty", "the reply has no choices"}
	case r.Refusal != "":
		return &abstention{"refused", clip(r.Refusal, 300)}
	case r.Finish == "content_filter":
		return &abstention{"refused", "a filter of the server's cut the reply"}
	case r.ToolCall:
		return &abstention{"tool-call", "the model wants to call a tool"}
	case q.view.LogProbs:
		p, words, why := preference(r.Tokens)
		out.p, out.words = p, words
		return why
	case truncated:
		return &abstention{"truncated", "the reply ends at max_tokens"}
	case blank:
		return &abstention{"empty", "the reply has no text"}
	}
	text := r.Text
	if q.view.Opening != "" && strings.HasSuffix(q.prompt, q.view.Opening) {
		text = q.view.Opening + text
	}
	text, thought := thoughtless(text)
	if !thought {
		return &abstention{"unparsable", "the model's thoughts have no end"}
	}
	var why *abstention
	switch {
	case !c.pairs():
		out.scores, why = scores(text, q.view.Candidates)
	case q.view.JSON:
		out.p, why = verdictField(text, q.view.Reasons, q.view.Field)
	default:
		out.p, why = verdictLine(text, q.view.Tag)
	}
	if why != nil && refusal.MatchString(strings.TrimSpace(text)) {
		return &abstention{"refused", clip(text, 300)}
	}
	return why
}

// refusal is how a model's refusal begins.
var refusal = regexp.MustCompile(`(?i)^(i['’]?m (very |so )?sorry|i am (very |so )?sorry|sorry[,.!]|i can['’]?t |i cannot |i can not |i['’]?m (unable|not able) |i am (unable|not able) |i won['’]?t |i will not )`)

// thoughtless takes off what a model thinks before it answers; ok is false where that has no end.
func thoughtless(text string) (rest string, ok bool) {
	text = strings.TrimSpace(text)
	if !strings.HasPrefix(text, "<think>") {
		return text, true
	}
	_, rest, ok = strings.Cut(text, "</think>")
	return strings.TrimSpace(rest), ok
}

// verdictLine reads a verdict from the last line, which has to bear the tag. Another verdict with the
// tag on a line of its own leaves none.
func verdictLine(text, tag string) (p float64, why *abstention) {
	line := regexp.MustCompile("^[\\s*_#>`]*(?i:verdict)\\s+" + tag + "[*_`]*\\s*:\\s*[*_`\\[(\"']*\\s*(?i:(a|b|tie))\\s*[*_`\\])\"'.]*\\s*$")
	said := ""
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, l := range lines {
		m := line.FindStringSubmatch(l)
		switch {
		case m == nil && i == len(lines)-1:
			return 0, &abstention{"unparsable", "the last line is no verdict"}
		case m == nil:
		case said != "" && !strings.EqualFold(said, m[1]):
			return 0, &abstention{"unparsable", "there are two verdicts that differ"}
		default:
			said = m[1]
		}
	}
	return probability(said), nil
}

func probability(said string) float64 {
	switch strings.ToLower(said) {
	case "a":
		return 1
	case "b":
		return 0
	}
	return 0.5
}

// verdictField reads a verdict from a field of the reply's JSON object, whose other field has the reasons.
func verdictField(text, reasons, field string) (p float64, why *abstention) {
	fields, why := object(text, reasons, field)
	if why != nil {
		return 0, why
	}
	switch said, _ := fields[field].(string); strings.ToLower(strings.TrimSpace(said)) {
	case "a", "b", "tie":
		return probability(strings.TrimSpace(said)), nil
	}
	return 0, &abstention{"unparsable", fmt.Sprintf("the verdict is %.40v, none of A, B and tie", fields[field])}
}

// scores reads the candidates' scores from the reply's JSON object.
func scores(text string, candidates []candidate) ([]score, *abstention) {
	var names []string
	for _, c := range candidates {
		names = append(names, c.Justification, c.Score)
	}
	fields, why := object(text, names...)
	if why != nil {
		return nil, why
	}
	var out []score
	for i, c := range candidates {
		n, ok := fields[c.Score].(json.Number)
		x, err := n.Float64()
		if !ok || err != nil || !(x >= lowestScore && x <= highestScore) {
			return nil, &abstention{"unparsable", fmt.Sprintf("the score of candidate %d is %.40v: want a number from %d to %d", i+1, fields[c.Score], lowestScore, highestScore)}
		}
		words, _ := fields[c.Justification].(string)
		out = append(out, score{x, words})
	}
	return out, nil
}

// object reads the one flat JSON object of a reply that has any of the named fields, each of them once.
// Around it there may be words before it and a fence of code; after it there may be nothing.
func object(text string, names ...string) (map[string]any, *abstention) {
	bad := func(format string, args ...any) (map[string]any, *abstention) {
		return nil, &abstention{"unparsable", fmt.Sprintf(format, args...)}
	}
	first := len(text)
	for _, name := range names {
		if at := strings.Index(text, `"`+name+`"`); at >= 0 {
			first = min(first, at)
		}
	}
	start := strings.LastIndex(text[:first], "{")
	if first == len(text) || start < 0 {
		return bad("the reply has no JSON object with the fields that were asked for")
	}
	d := json.NewDecoder(strings.NewReader(text[start:]))
	d.UseNumber()
	if _, err := d.Token(); err != nil { // the bracket
		return bad("the JSON object cannot be read: %v", err)
	}
	fields := map[string]any{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return bad("the JSON object cannot be read: %v", err)
		}
		value, err := d.Token()
		if err != nil {
			return bad("the JSON object cannot be read: %v", err)
		}
		if _, nested := value.(json.Delim); nested {
			return bad("the field %.40q of the JSON object is a list or an object", key)
		}
		name, _ := key.(string)
		if _, again := fields[name]; again {
			return bad("the field %.40q of the JSON object is there twice", name)
		}
		fields[name] = value
	}
	if _, err := d.Token(); err != nil {
		return bad("the JSON object has no end")
	}
	if after := strings.TrimSpace(text[start+int(d.InputOffset()):]); after != "" && after != "```" {
		return bad("something follows the JSON object: %.40q", after)
	}
	return fields, nil
}

// unlikely is the log-probability that servers write where they mean −∞.
const unlikely = -9000

// preference is the probability of A against B from the first token that is not blank.
func preference(tokens []openai.Token) (p float64, words string, why *abstention) {
	if len(tokens) == 0 {
		return 0, "", &abstention{"no-logprobs", `the server gives no log-probabilities: use verdict = "text"`}
	}
	place := 0
	for place < len(tokens)-1 && bare(tokens[place].Text) == "" {
		place++
	}
	a, b := math.Inf(-1), math.Inf(-1)
	for _, t := range tokens[place].Top {
		if t.LogProb <= unlikely {
			continue
		}
		switch bare(t.Text) {
		case "A":
			a = logSumExp(a, t.LogProb)
		case "B":
			b = logSumExp(b, t.LogProb)
		}
	}
	words = fmt.Sprintf("log-probability of A %.4g, of B %.4g", a, b)
	if math.IsInf(a, -1) && math.IsInf(b, -1) {
		return 0, words, &abstention{"no-verdict", fmt.Sprintf("neither A nor B is among the likely tokens in place of %.40q", tokens[place].Text)}
	}
	return math.Exp(a - logSumExp(a, b)), words, nil
}

// bare takes the space off a token, in the letters of tokenizers as well.
func bare(token string) string { return strings.Trim(token, " \t\r\n▁Ġ") }

func logSumExp(a, b float64) float64 {
	hi, lo := max(a, b), min(a, b)
	if math.IsInf(lo, -1) {
		return hi
	}
	return hi + math.Log1p(math.Exp(lo-hi))
}
