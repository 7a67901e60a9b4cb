package judge

import (
	"crypto/hmac"
	"crypto/sha256"
	"embed"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/dno-project/dno/plugins/internal/openai"
	"github.com/dno-project/dno/sdk"
)

//go:embed templates
var builtIn embed.FS

// prompts write the requests.
type prompts struct {
	config   config
	template *template.Template
}

// view is what a template sees.
type view struct {
	Question   string      // the prompt's turns, between lines with the tag
	Reference  string      // the reference answer, likewise; "" where there is none or it is not to be shown
	Candidates []candidate // in the order in which they are shown
	Tag        string      // a word that none of the texts contains
	Verdict    string      // pairwise: what the reply's last line begins with, as in "Verdict k7q2xx:"
	Reasons    string      // pairwise: the field of a JSON reply that has the reasons
	Field      string      // and the one that has the verdict
	Opening    string      // of a JSON reply, for the end of a prompt of the completions API; "" with a grammar
	LogProbs   bool        // only the reply's first token is looked at: A or B
	Bare       bool        // a grammar leaves room for the verdict alone
	JSON       bool        // pairwise: the reply is to be a JSON object
}

// candidate is one text that is judged.
type candidate struct {
	ID            string // "A" and "B" of a pair; in a list a word with the tag
	Text          string // between lines with the tag and the ID
	Justification string // the field of a JSON reply with the reasons for the score
	Score         string // the field with the score
}

// newPrompts reads the template and tries it on a question.
func newPrompts(c config) (*prompts, error) {
	name, text := c.templatePath, c.template
	if name == "" {
		name = "templates/" + c.mode + "-" + c.api + ".tmpl"
		raw, err := builtIn.ReadFile(name)
		if err != nil {
			return nil, err
		}
		text = string(raw)
	}
	fail := func(format string, args ...any) error {
		return sdk.Errorf(sdk.CodeUsage, "prompt template %s: %w", name, fmt.Errorf(format, args...)).
			WithHint("start from a copy of plugins/oracle/judge/templates/%s-%s.tmpl; its head lists the fields", c.mode, c.api)
	}
	t, err := template.New("judge").Parse(text)
	if err != nil {
		return nil, fail("%w", err)
	}
	p := &prompts{config: c, template: t}
	texts := []string{"first text", "second text"}
	if c.mode == modePointwise {
		texts = texts[:1]
	}
	prompt := sdk.Prompt{Messages: []sdk.Message{{Role: "user", Content: "a question"}}, Answer: "an answer"}
	q, err := p.question(prompt, texts)
	if err != nil {
		return nil, fail("%w", err)
	}
	whole := q.whole()
	for _, shown := range q.view.Candidates {
		if !strings.Contains(whole, shown.Text) {
			return nil, fail("it leaves out .Text of a candidate, or changes it")
		}
		if !c.pairs() && !strings.Contains(whole, shown.Score) {
			return nil, fail("it does not name the field .Score of each candidate")
		}
	}
	switch {
	case !strings.Contains(whole, q.view.Question):
		return nil, fail("it leaves out .Question, or changes it")
	case q.view.JSON && !strings.Contains(whole, q.view.Field):
		return nil, fail("it does not name .Field, which has the verdict in a JSON reply")
	case c.pairs() && !q.view.JSON && !q.view.LogProbs && !strings.Contains(whole, q.view.Verdict):
		return nil, fail("it does not say .Verdict, with which the reply's last line begins")
	}
	return p, nil
}

func (c config) pairs() bool { return c.mode == modePairwise }

// question is one request to the judge.
type question struct {
	view     view
	messages []openai.Message // of a chat
	prompt   string           // else
}

// whole is all that is shown to the judge.
func (q question) whole() string {
	out := q.prompt
	for _, m := range q.messages {
		out += m.Content + "\n"
	}
	return out
}

// question writes the request about some texts, in that order.
func (p *prompts) question(prompt sdk.Prompt, texts []string) (question, error) {
	v := p.view(prompt, texts)
	q := question{view: v}
	block := func(name string) (string, error) {
		if p.template.Lookup(name) == nil {
			return "", fmt.Errorf("it defines no block %q, which api = %q needs", name, p.config.api)
		}
		var b strings.Builder
		if err := p.template.ExecuteTemplate(limited{&b}, name, v); err != nil {
			return "", err
		}
		return strings.TrimSpace(b.String()), nil
	}
	if p.config.api == apiCompletions {
		var err error
		q.prompt, err = block("prompt")
		return q, err
	}
	if p.template.Lookup("system") != nil {
		system, err := block("system")
		if err != nil {
			return q, err
		}
		if system != "" {
			q.messages = append(q.messages, openai.Message{Role: "system", Content: system})
		}
	}
	user, err := block("user")
	q.messages = append(q.messages, openai.Message{Role: "user", Content: user})
	return q, err
}

// limited keeps a template that loops from eating all memory.
type limited struct{ *strings.Builder }

func (l limited) Write(b []byte) (int, error) {
	const most = 64 << 20
	if l.Len()+len(b) > most {
		return 0, fmt.Errorf("it writes more than %d bytes", most)
	}
	return l.Builder.Write(b)
}

var _ io.Writer = limited{}

func (p *prompts) view(prompt sdk.Prompt, texts []string) view {
	c := p.config
	asked := prompt.Text()
	if len(prompt.Messages) > 1 {
		var b strings.Builder
		for _, m := range prompt.Messages {
			fmt.Fprintf(&b, "%s: %s\n", m.Role, m.Content)
		}
		asked = strings.TrimSuffix(b.String(), "\n")
	}
	tag := p.tag(prompt, asked, texts)
	v := view{Tag: tag, Question: fenced("question", tag, asked),
		LogProbs: c.verdict == verdictLogProbs,
		JSON:     c.pairs() && c.grammar == grammarResponseFormat,
		Bare:     c.pairs() && c.grammar != grammarOff && c.grammar != grammarResponseFormat,
	}
	if c.reference && prompt.Answer != "" {
		v.Reference = fenced("reference", tag, prompt.Answer)
	}
	width := len(strconv.Itoa(len(texts)))
	for i, text := range texts {
		id := fmt.Sprintf("%s_%0*d", tag, width, i+1) // digits of equal number: fields sort as they are shown
		one := candidate{ID: id, Justification: id + "_justification", Score: id + "_score"}
		if c.pairs() {
			one.ID = string(rune('A' + i))
		}
		one.Text = fenced(one.ID, tag, text)
		v.Candidates = append(v.Candidates, one)
	}
	// All names bear the tag, also of what is not read: where the object begins is known by its first one.
	v.Verdict, v.Reasons, v.Field = "Verdict "+tag+":", "justification_"+tag, "verdict_"+tag
	if !c.pairs() && c.grammar == grammarOff && c.api == apiCompletions {
		v.Opening = `{"` + v.Candidates[0].Justification + `": "`
	}
	return v
}

// fenced puts a text between two lines that no text can contain.
func fenced(name, tag, text string) string {
	if !strings.Contains(name, tag) {
		name += " " + tag
	}
	return "[begin " + name + "]\n" + text + "\n[end " + name + "]"
}

// hash is a keyed hash of a question's content.
func (p *prompts) hash(prompt sdk.Prompt, texts []string) [sha256.Size]byte {
	h := hmac.New(sha256.New, []byte("dno judge "+strconv.Itoa(p.config.seed)))
	write := func(s string) {
		_ = binary.Write(h, binary.LittleEndian, uint64(len(s))) // a hash takes all
		_, _ = io.WriteString(h, s)
	}
	write(prompt.Hash())
	write(prompt.Answer)
	for _, text := range texts {
		write(text)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// words is base 32 in letters and digits that are hard to confuse.
var words = base32.NewEncoding("abcdefghjkmnpqrstuvwxyz023456789").WithPadding(base32.NoPadding)

// tag returns a word that none of a question's texts contains.
func (p *prompts) tag(prompt sdk.Prompt, asked string, texts []string) string {
	return foreign(p.hash(prompt, texts), append([]string{asked, prompt.Answer}, texts...))
}

// foreign returns a word of six letters and digits that none of the texts contains, in small letters or
// capitals: the first such of a chain of hashes.
func foreign(sum [sha256.Size]byte, texts []string) string {
	for {
		word := words.EncodeToString(sum[:])[:6]
		if !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(strings.ToLower(text), word) }) {
			return word
		}
		sum = sha256.Sum256(sum[:])
	}
}

// shuffled returns the distinct texts in an order that depends on them and the seed alone, so that no
// place of a list (a teacher's comes last) is always shown at the same one.
func (p *prompts) shuffled(prompt sdk.Prompt, texts []string) []string {
	type ranked struct {
		text string
		rank [sha256.Size]byte
	}
	var all []ranked
	for _, text := range texts {
		all = append(all, ranked{text, p.hash(prompt, []string{text})})
	}
	slices.SortFunc(all, func(a, b ranked) int { return slices.Compare(a.rank[:], b.rank[:]) })
	var out []string
	for _, r := range all {
		out = append(out, r.text)
	}
	return slices.Compact(out)
}
