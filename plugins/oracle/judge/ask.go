package judge

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/dno-project/dno/plugins/internal/openai"
	"github.com/dno-project/dno/sdk"
)

// answer is what the judge says to one question.
type answer struct {
	p       float64 // pairwise: the probability that the first text is preferred
	scores  []score // else: one a text
	abstain string  // why there is neither, a code first; ""
	words   string  // the model's
	bill    bill
	model   string // that answered
}

type score struct {
	score float64
	words string
}

// abstention is why a reply has no verdict, a code first.
type abstention struct{ code, why string }

func (a *abstention) String() string { return a.code + ": " + a.why }

// again says whether the same question may be answered by another reply.
func (a *abstention) again() bool {
	switch a.code {
	case "unparsable", "empty", "tool-call":
		return true
	}
	return false
}

// maxStrikes is how many requests in a row may fail by the server's fault before the call fails. Up to
// then it may be the requests: some servers answer 500 to texts that they cannot handle.
const maxStrikes = 3

// ask puts a question to the judge, and once more where the reply has no verdict.
func (o *Oracle) ask(ctx context.Context, prompt sdk.Prompt, texts []string) (answer, error) {
	q, err := o.prompts.question(prompt, texts)
	if err != nil {
		return answer{}, sdk.Errorf(sdk.CodeUsage, "write the judge's prompt: %w", err)
	}
	request := o.request(q)
	var out answer
	for try := 0; ; try++ {
		reply, err := o.client.Ask(ctx, request)
		if err := o.count(err); err != nil {
			return out, err
		}
		var why *abstention
		if err != nil {
			why = unanswered(err)
		} else {
			out.bill.add(o.config.bill(reply.Usage))
			out.model = o.modelName(reply)
			out.words = clip(reply.Text, 2000)
			why = o.config.read(&out, q, reply)
		}
		if why == nil {
			return out, nil
		}
		if !why.again() || try > 0 {
			out.abstain = why.String()
			return out, nil
		}
		request = o.again(request, q, reply)
	}
}

// count keeps the strikes, and returns the error if it is one of more than this request.
func (o *Oracle) count(err error) error {
	var e *openai.Error
	switch {
	case err == nil:
		o.strikes.Store(0)
		return nil
	case !errors.As(err, &e):
		return err
	case e.Action() == openai.Abstain:
		return nil
	case (e.Kind == openai.KindServer || e.Kind == openai.KindTimeout) && o.strikes.Add(1) < maxStrikes:
		return nil
	}
	return e
}

// unanswered says why a request that failed by itself has no verdict.
func unanswered(err error) *abstention {
	var e *openai.Error
	errors.As(err, &e) // count has let no other pass
	code := map[openai.Kind]string{openai.KindTooLong: "too-long", openai.KindRefused: "refused", openai.KindReply: "unparsable"}[e.Kind]
	if code == "" {
		code = "server"
	}
	return &abstention{code, e.Error()}
}

// modelName is what a run is held to.
func (o *Oracle) modelName(r openai.Reply) string {
	name := r.Model
	if name == "" {
		name = o.model
	}
	if o.config.fingerprint && r.Fingerprint != "" {
		name += " " + r.Fingerprint
	}
	return name
}

// request makes the question one to the server.
func (o *Oracle) request(q question) openai.Request {
	c := o.config
	r := openai.Request{Model: o.model, Messages: q.messages, Prompt: q.prompt, MaxTokens: c.maxTokens,
		Temperature: c.temperature, Seed: int64(c.seed), Extra: c.constraint(q.view)}
	if q.view.LogProbs {
		r.LogProbs = 20 // the most that OpenAI's chats and vLLM give
		if c.api == apiCompletions {
			r.LogProbs = 5 // the most of OpenAI's completions
		}
	}
	if r.MaxTokens > 0 {
		return r
	}
	switch {
	case q.view.LogProbs:
		r.MaxTokens = 1
	case q.view.Bare:
		r.MaxTokens = 32
	case c.mode == modeListwise:
		r.MaxTokens = 256 + 256*len(q.view.Candidates) // a hundred words each, and room
	default:
		r.MaxTokens = 1024
	}
	return r
}

// again asks for what a reply lacked. A chat is told what was wrong; a continued text is drawn anew.
func (o *Oracle) again(r openai.Request, q question, reply openai.Reply) openai.Request {
	r.Seed++
	if r.Messages == nil {
		r.Temperature = max(r.Temperature, 0.5)
		return r
	}
	reminder := "Your reply could not be read. Reply again, and "
	switch {
	case q.view.LogProbs:
		reminder += "write nothing but A or B."
	case o.config.pairs() && !q.view.JSON:
		reminder += fmt.Sprintf("end with a line that is exactly one of these three:\n%[1]s A\n%[1]s B\n%[1]s tie", q.view.Verdict)
	default:
		reminder += "write one JSON object with the fields that were named, and nothing else."
	}
	turns := append([]openai.Message{}, r.Messages...)
	if text := strings.TrimSpace(reply.Text); text != "" {
		turns = append(turns, openai.Message{Role: "assistant", Content: clip(text, 4000)})
	} else {
		last := &turns[len(turns)-1] // two turns of a user in a row are not taken everywhere
		last.Content += "\n\n" + reminder
		r.Messages = turns
		return r
	}
	r.Messages = append(turns, openai.Message{Role: "user", Content: reminder})
	return r
}

// constraint tells the server what a reply may be, in its own terms.
func (c config) constraint(v view) map[string]any {
	if c.grammar == grammarOff {
		return nil
	}
	var choices []string
	switch {
	case v.LogProbs:
		choices = []string{"A", "B"}
	case c.pairs():
		choices = []string{v.Verdict + " A", v.Verdict + " B", v.Verdict + " tie"}
	}
	switch {
	case c.grammar == grammarResponseFormat:
		return map[string]any{"response_format": map[string]any{"type": "json_schema",
			"json_schema": map[string]any{"name": "verdict", "strict": true, "schema": schema(v)}}}
	case c.grammar == grammarGuidedChoice:
		return map[string]any{"guided_choice": choices}
	case c.grammar == grammarStructuredOutputs && c.pairs():
		return map[string]any{"structured_outputs": map[string]any{"choice": choices}}
	case c.grammar == grammarStructuredOutputs:
		return map[string]any{"structured_outputs": map[string]any{"json": schema(v)}}
	case c.pairs():
		return map[string]any{"grammar": `root ::= "` + strings.Join(choices, `" | "`) + `"`}
	}
	return map[string]any{"json_schema": schema(v)}
}

// schema is the JSON schema of a reply.
func schema(v view) map[string]any {
	text := map[string]any{"type": "string"}
	properties, required := map[string]any{}, []string{}
	if v.JSON {
		properties[v.Reasons] = text
		properties[v.Field] = map[string]any{"type": "string", "enum": []string{"A", "B", "tie"}}
		required = append(required, v.Reasons, v.Field)
	} else {
		for _, c := range v.Candidates {
			properties[c.Justification] = text
			properties[c.Score] = map[string]any{"type": "integer", "minimum": lowestScore, "maximum": highestScore}
			required = append(required, c.Justification, c.Score)
		}
	}
	return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}
