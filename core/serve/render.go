package serve

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// A rendering makes text and log-probabilities of a choice's tokens, as they come. All its parts together are what a
// rendering of all tokens at once gives.
type rendering struct {
	model  Model
	req    *request
	choice *choice

	stream TextStream // of what is drawn
	text   string     // that is certain
	sent   int        // bytes of it
	tokens int        // that were rendered
	begun  bool       // the client has got a part

	// For completions' text_offset, in code points.
	offset int
	before TextStream // of the prompt's tokens, where they are told
}

// part is what came of a choice since the part before.
type part struct {
	text     string
	tokens   []int32 // that were drawn
	told     int     // tokens that logProbs are of, those of the prompt too
	logProbs any     // *chatLogProbs or *textLogProbs; nil where none are asked for
	done     bool
	result   Result // where it is done
}

func newRendering(m Model, r *request, c *choice) *rendering {
	return &rendering{model: m, req: r, choice: c, stream: m.Stream()}
}

// next renders tokens that came since the last part; done says that they are the last ones.
func (r *rendering) next(tokens []Token, done bool) part {
	p := part{done: done}
	var chat *chatLogProbs
	var text *textLogProbs
	if r.req.logProbs {
		if r.req.chat {
			chat = &chatLogProbs{Content: []chatToken{}}
			p.logProbs = chat
		} else {
			text = &textLogProbs{Tokens: []string{}, LogProbs: []*float64{}, Offsets: []int{}}
			if r.req.top > 0 {
				text.Top = &[]map[string]float64{}
			}
			p.logProbs = text
		}
	}
	if r.before == nil && r.req.echo {
		r.before = r.model.Stream()
		prompt := r.req.prompts[r.choice.prompt]
		p.text = prompt.text
		if text != nil { // nothing stands before the first token, so it has no log-probability
			p.told++
			text.add(r, prompt.ids[0], nil)
			r.offset += utf8.RuneCountInString(r.before.Next(prompt.ids[0]))
		}
		if text == nil || len(r.choice.draw.Given) == 0 {
			r.offset = utf8.RuneCountInString(prompt.text)
		}
	}
	for _, t := range tokens {
		if chat != nil {
			chat.Content = append(chat.Content, r.chatToken(t))
		}
		if text != nil {
			text.add(r, t.ID, &t)
		}
		p.told++
		if r.tokens++; r.tokens <= len(r.choice.draw.Given) {
			r.offset += utf8.RuneCountInString(r.before.Next(t.ID))
			if r.tokens == len(r.choice.draw.Given) {
				r.offset = utf8.RuneCountInString(r.req.prompts[r.choice.prompt].text)
			}
			continue
		}
		p.tokens = append(p.tokens, t.ID)
		more := r.stream.Next(t.ID)
		r.text += more
		r.offset += utf8.RuneCountInString(more)
	}
	if done {
		p.result = r.choice.result
		p.text += strings.TrimPrefix(p.result.Text, r.text[:r.sent])
		r.sent = len(r.text)
		return p
	}
	safe := certain(r.text, r.req.options.Stop)
	p.text += r.text[r.sent:safe]
	r.sent = safe
	return p
}

// certain returns how much of a text is before any stop text, and before what may become one with what follows.
func certain(text string, stops []string) int {
	end := len(text)
	for _, stop := range stops {
		if i := strings.Index(text, stop); i >= 0 {
			end = min(end, i)
			continue
		}
		for n := min(len(stop)-1, len(text)); n > 0; n-- {
			if strings.HasSuffix(text, stop[:n]) {
				end = min(end, len(text)-n)
				break
			}
		}
	}
	for end > 0 && end < len(text) && !utf8.RuneStart(text[end]) { // a stop text may begin in a character
		end--
	}
	return end
}

// chatLogProbs are log-probabilities as chats tell them.
type chatLogProbs struct {
	Content []chatToken `json:"content"`
	Refusal *string     `json:"refusal"`
}

type chatToken struct {
	spelledToken
	Top []spelledToken `json:"top_logprobs"`
}

type spelledToken struct {
	Token   string  `json:"token"`
	LogProb float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

// textLogProbs are log-probabilities as completions tell them.
type textLogProbs struct {
	Tokens   []string              `json:"tokens"`
	LogProbs []*float64            `json:"token_logprobs"`
	Top      *[]map[string]float64 `json:"top_logprobs"`
	Offsets  []int                 `json:"text_offset"`
}

func (r *rendering) chatToken(t Token) chatToken {
	out := chatToken{r.spelled(t.ID, t.LogProb), []spelledToken{}}
	for _, a := range t.Top {
		out.Top = append(out.Top, r.spelled(a.ID, a.LogProb))
	}
	return out
}

func (r *rendering) spelled(id int32, logProb float64) spelledToken {
	b := r.model.Bytes(id)
	out := spelledToken{spell(b, ""), finite(logProb), make([]int, len(b))}
	for i, v := range b {
		out.Bytes[i] = int(v)
	}
	return out
}

// add adds a token; nil is the first of all.
func (l *textLogProbs) add(r *rendering, id int32, t *Token) {
	l.Tokens, l.Offsets = append(l.Tokens, spell(r.model.Bytes(id), "bytes:")), append(l.Offsets, r.offset)
	if t == nil {
		l.LogProbs = append(l.LogProbs, nil)
		if l.Top != nil {
			*l.Top = append(*l.Top, nil)
		}
		return
	}
	p := finite(t.LogProb)
	l.LogProbs = append(l.LogProbs, &p)
	if l.Top == nil {
		return
	}
	top := map[string]float64{l.Tokens[len(l.Tokens)-1]: p} // as OpenAI's: also where it is not among the most probable
	for i := len(t.Top) - 1; i >= 0; i-- {                  // of those that are spelled alike the most probable stays
		if a := t.Top[i]; a.ID != id {
			if name := spell(r.model.Bytes(a.ID), "bytes:"); name != l.Tokens[len(l.Tokens)-1] {
				top[name] = finite(a.LogProb)
			}
		}
	}
	*l.Top = append(*l.Top, top)
}

// finite is a log-probability that JSON can hold: OpenAI's −9999 is one of a token that cannot be.
func finite(p float64) float64 { return math.Max(p, -9999) }

// spell is a token's text. One that is a part of a character is spelled byte by byte, as OpenAI does, after a prefix.
func spell(b []byte, prefix string) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	out.WriteString(prefix)
	for _, c := range b {
		fmt.Fprintf(&out, `\x%02x`, c)
	}
	return out.String()
}
