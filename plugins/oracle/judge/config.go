package judge

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"
	"time"

	"github.com/dno-project/dno/plugins/internal/openai"
	"github.com/dno-project/dno/plugins/internal/settings"
	"github.com/dno-project/dno/sdk"
)

const (
	modePairwise  = "pairwise"
	modeListwise  = "listwise"
	modePointwise = "pointwise"

	apiChat        = "chat"
	apiCompletions = "completions"

	verdictText     = "text"
	verdictLogProbs = "logprobs"

	grammarOff               = "off"
	grammarResponseFormat    = "response_format"
	grammarStructuredOutputs = "structured_outputs"
	grammarGuidedChoice      = "guided_choice"
	grammarGBNF              = "gbnf"
)

// Manifest declares a listwise oracle for which the order matters, whatever the mode: a manifest is read
// before the settings are, and only of a list does the host keep judgments together with all candidates.
// Pairs are asked for in both orders; scores answer both without another request.
func (*Oracle) Manifest() sdk.Manifest {
	number := settings.Number
	text := func(name, fallback, help string, oneOf ...string) sdk.Setting {
		return sdk.Setting{Name: name, Type: sdk.TypeString, Default: fallback, OneOf: oneOf, Help: help}
	}
	flag := func(name string, fallback bool, help string) sdk.Setting {
		return sdk.Setting{Name: name, Type: sdk.TypeBool, Default: fallback, Help: help}
	}
	zero := sdk.AtLeast(0)
	return sdk.Manifest{
		Kind:    sdk.KindOracle,
		Name:    "judge",
		Version: "1",
		Help:    "asks a language model behind any OpenAI-compatible server: pairwise, listwise or pointwise",
		Settings: []sdk.Setting{
			text("url", "http://127.0.0.1:8000/v1", "address of the server; /v1 is added where it has no path"),
			text("model", "", "name of the model; empty: the server's only one"),
			text("key", "", "env:NAME, the variable that holds the key, which env = { \"NAME\" } has to allow; empty: none"),
			flag("insecure", false, "allow http:// to another machine"),
			text("extra_body", "", "JSON object merged into each request; a null takes a key out"),
			text("mode", modePairwise, "what is asked: a pair, all candidates side by side, or each one alone",
				modePairwise, modeListwise, modePointwise),
			text("api", apiChat, "chat/completions, or completions for a model without a chat template", apiChat, apiCompletions),
			text("verdict", verdictText, "what is read: the model's words, or (pairwise) the log-probabilities of A and B",
				verdictText, verdictLogProbs),
			text("grammar", grammarOff, "how the server is told to write nothing else: response_format (OpenAI, vLLM, llama.cpp), "+
				"structured_outputs or guided_choice (vLLM, newer or older), gbnf (llama.cpp)",
				grammarOff, grammarResponseFormat, grammarStructuredOutputs, grammarGuidedChoice, grammarGBNF),
			{Name: "template", Type: sdk.TypePath, Help: "file of a prompt template; not given: the built-in one of mode and api"},
			flag("reference_answer", true, "show the judge the prompt's reference answer, where there is one"),
			number("max_tokens", 0, zero, nil, "longest reply, in tokens; 0: as the mode needs, but thinking models need more"),
			number("temperature", 0, zero, nil, "of the judge's sampling"),
			number("seed", 0, nil, nil, "of the judge's sampling, and of the tags around completions"),
			number("concurrency", 8, sdk.AtLeast(1), nil, "requests under way at once"),
			number("requests_per_minute", 0, zero, nil, "most requests a minute, evenly spaced; 0: no limit"),
			number("tokens_per_minute", 0, zero, nil, "most tokens of prompts and replies a minute; 0: no limit"),
			number("request_timeout", 120, zero, nil, "seconds for one try of a request"),
			number("give_up_after", 480, zero, nil, "seconds for a request with its retries"),
			number("retries", 6, zero, nil, "further tries after 408, 409, 429, 5xx and broken connections"),
			number("price_in", 0, zero, nil, "money for a million tokens of prompts"),
			number("price_out", 0, zero, nil, "money for a million tokens of replies"),
			number("canary_every", 100, zero, nil, "one question in so many is followed by a pair with a known verdict; 0: none, also at the start"),
			flag("fingerprint", false, "the server's fingerprint is part of the model's name, to which a run is held"),
		},
		// A call a comparison: what one call has answered is kept before another one fails.
		Oracle: sdk.OracleTraits{Form: sdk.FormListwise, OrderMatters: true, Concurrency: 64},
	}
}

// config is the settings, read. It is comparable: equal ones are the same oracle.
type config struct {
	url, model, key, keyName, extraBody string
	insecure                            bool
	mode, api, verdict, grammar         string
	template, templatePath              string // its text, "" for the built-in one
	reference, fingerprint              bool
	maxTokens, seed                     int
	temperature, priceIn, priceOut      float64
	concurrency, retries, canaryEvery   int
	requestsPerMinute, tokensPerMinute  float64
	requestTimeout, giveUpAfter         time.Duration
}

func readConfig(s sdk.Settings, getenv func(string) (string, bool)) (config, error) {
	c := config{
		url: s.String("url", ""), model: s.String("model", ""), extraBody: s.String("extra_body", ""), insecure: s.Bool("insecure", false),
		mode: s.String("mode", modePairwise), api: s.String("api", apiChat), verdict: s.String("verdict", verdictText), grammar: s.String("grammar", grammarOff),
		templatePath: s.String("template", ""), reference: s.Bool("reference_answer", true), fingerprint: s.Bool("fingerprint", false),
		temperature: s.Number("temperature", 0), priceIn: s.Number("price_in", 0), priceOut: s.Number("price_out", 0),
		requestsPerMinute: s.Number("requests_per_minute", 0), tokensPerMinute: s.Number("tokens_per_minute", 0),
	}
	for _, w := range []struct {
		name string
		to   *int
	}{{"max_tokens", &c.maxTokens}, {"seed", &c.seed}, {"concurrency", &c.concurrency}, {"retries", &c.retries}, {"canary_every", &c.canaryEvery}} {
		var err error
		if *w.to, err = settings.Whole(s, w.name, 0); err != nil {
			return c, err
		}
	}
	for _, d := range []struct {
		name string
		to   *time.Duration
	}{{"request_timeout", &c.requestTimeout}, {"give_up_after", &c.giveUpAfter}} {
		seconds, err := settings.Positive(s, d.name, 0)
		if err != nil {
			return c, err
		}
		const most = 1e6 // seconds: a time.Duration holds more, and nobody waits so long
		*d.to = time.Duration(min(seconds, most) * float64(time.Second))
	}
	switch {
	case c.verdict == verdictLogProbs && c.mode != modePairwise:
		return c, sdk.Errorf(sdk.CodeUsage, "setting \"verdict\": log-probabilities are of A and B, which mode = %q does not have", c.mode).
			WithHint("use verdict = \"text\", or mode = \"pairwise\"")
	case c.grammar == grammarGuidedChoice && c.mode != modePairwise:
		return c, sdk.Errorf(sdk.CodeUsage, "setting \"grammar\": guided_choice cannot describe the scores of mode = %q", c.mode).
			WithHint("use response_format or structured_outputs")
	case c.grammar == grammarResponseFormat && c.verdict == verdictLogProbs:
		return c, sdk.Errorf(sdk.CodeUsage, "setting \"grammar\": response_format asks for JSON, verdict = \"logprobs\" for one token").
			WithHint("leave grammar out; A and B then need no grammar")
	}
	if err := c.readKey(s.String("key", ""), getenv); err != nil {
		return c, err
	}
	if c.templatePath != "" {
		text, err := readTemplate(c.templatePath)
		if err != nil {
			return c, err
		}
		c.template = text
	}
	return c, nil
}

// readKey reads the key from the environment. A key that stands in the script itself is not repeated.
func (c *config) readKey(setting string, getenv func(string) (string, bool)) error {
	if setting == "" {
		return nil
	}
	name, ok := strings.CutPrefix(setting, "env:")
	if !ok || name == "" || strings.ContainsAny(name, "= ") {
		return sdk.Errorf(sdk.CodeUsage, "setting \"key\": want env:NAME, the name of the variable that holds the key").
			WithHint("a key in a script ends up in records: put it into a variable, and allow it with env = { \"NAME\" }")
	}
	key, _ := getenv(name)
	if key = strings.TrimSpace(key); key == "" {
		return sdk.Errorf(sdk.CodeUsage, "setting \"key\": the variable %s is not set, or the oracle may not see it", name).
			WithHint("set it, and add env = { %q } to the oracle's table", name)
	}
	c.key, c.keyName = key, name
	return nil
}

// maxTemplate is the most that a template's file may have, in bytes.
const maxTemplate = 1 << 20

func readTemplate(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", sdk.Errorf(sdk.CodeUsage, "read the judge's prompt template: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTemplate+1))
	if err != nil {
		return "", sdk.Errorf(sdk.CodeUsage, "read the judge's prompt template: %w", err)
	}
	if len(text) == 0 || len(text) > maxTemplate {
		return "", sdk.Errorf(sdk.CodeUsage, "read the judge's prompt template %s: want 1 to %d bytes", path, maxTemplate)
	}
	return string(text), nil
}

// client makes the client. The key may be in no error, and openai's have none.
func (c config) client() (*openai.Client, error) {
	extra := map[string]any{}
	if c.extraBody != "" {
		d := json.NewDecoder(bytes.NewReader([]byte(c.extraBody)))
		d.UseNumber() // 1 stays 1
		if err := d.Decode(&extra); err != nil || d.More() || extra == nil {
			return nil, sdk.Errorf(sdk.CodeUsage, "extra_body is no JSON object like {\"top_k\": 1}")
		}
	}
	return openai.New(openai.Options{
		URL: c.url, Key: c.key, Insecure: c.insecure, ExtraBody: extra,
		Concurrency: c.concurrency, RequestsPerMinute: c.requestsPerMinute, TokensPerMinute: c.tokensPerMinute,
		TryTimeout: c.requestTimeout, Deadline: c.giveUpAfter, Retries: c.retries,
	})
}

// bill is what replies took: money in the currency of the prices, and tokens read and written.
type bill struct {
	money  float64
	tokens int
}

func (c config) bill(u openai.Usage) bill {
	return bill{(float64(u.Prompt)*c.priceIn + float64(u.Reply)*c.priceOut) / 1e6, u.Prompt + u.Reply}
}

func (b *bill) add(other bill) {
	b.money += other.money
	b.tokens += other.tokens
}

func (b bill) onto(v *sdk.Verdicts) {
	v.Cost += b.money
	v.Tokens += b.tokens
}
