package serve

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/http"

	"github.com/dno-project/dno/sdk"
)

// The limits of one request.
const (
	maxChoices = 1024 // completions, of all prompts together
	maxN       = 128
	maxTop     = 20
	maxStops   = 16
	maxStop    = 1024 // bytes
)

// request is what a client asks for, of either endpoint.
type request struct {
	chat    bool
	prompts []prompt
	n       int // completions of each prompt
	seed    uint64
	given   json.RawMessage // seed as the client wrote it
	options sdk.GenerateOptions

	logProbs bool
	top      int
	echo     bool // the prompt's text, and tokens, before the completion
	tokenIDs bool
	stream   bool
	usage    bool // at the stream's end
}

// prompt is a prompt with its text, where it came as one.
type prompt struct {
	ids  []int32
	text string
}

// reader reads the fields of one endpoint.
type reader func(s *Server, f *fields) *request

// read makes a request of a body.
func (s *Server) read(body []byte, read reader) (*request, *apiError) {
	f, err := decodeObject(body)
	if err != nil {
		return nil, err
	}
	// The model comes first: who asks for another one is to learn that.
	switch name, ok := fieldsText(f, "model"); {
	case !ok:
		f.wrong("model", "model is missing: this server has %s", quote(s.o.Name))
	case name != s.o.Name:
		f.err = refusal(http.StatusNotFound, invalid, "model_not_found", "there is no model %s: this server has %s", quote(name), quote(s.o.Name))
	}
	r := read(s, f)
	if f.err == nil {
		s.fit(r, f)
	}
	return r, f.err
}

func fieldsText(f *fields, name string) (string, bool) { return read[string](f, name, "a text") }

// chatFields reads POST /v1/chat/completions.
func chatFields(s *Server, f *fields) *request {
	r := &request{chat: true}
	messages := f.messages()
	r.logProbs = f.boolean("logprobs")
	if r.top = f.integer("top_logprobs", 0, 0, maxTop); r.top > 0 && !r.logProbs {
		f.wrong("top_logprobs", "top_logprobs is %d, and logprobs is not true: set it", r.top)
	}
	// OpenAI has two names for one limit.
	most := f.integer("max_tokens", 0, 1, math.MaxInt32)
	if newer := f.integer("max_completion_tokens", 0, 1, math.MaxInt32); newer > 0 {
		if most > 0 && most != newer {
			f.wrong("max_tokens", "max_tokens is %d and max_completion_tokens %d: give one of them", most, newer)
		}
		most = newer
	}
	if most == 0 {
		most = defaultChatTokens
	}
	s.shared(f, r, most)
	f.rest(chatDefaults)
	if f.err == nil {
		r.prompts = []prompt{{ids: s.model.EncodeChat(messages)}}
	}
	return r
}

// The longest completion of who does not say. OpenAI's chats have no limit; one here would take the memory of many others.
const (
	defaultChatTokens = 1024
	defaultTextTokens = 16 // as OpenAI's
)

// completionFields reads POST /v1/completions.
func completionFields(s *Server, f *fields) *request {
	r := &request{echo: f.boolean("echo")}
	if raw := f.raw["logprobs"]; string(raw) == "false" { // as some clients write none
		f.take("logprobs")
	} else {
		r.top = f.integer("logprobs", -1, 0, maxTop)
		r.logProbs = r.top >= 0
		r.top = max(r.top, 0)
	}
	least := 1
	if r.echo {
		least = 0
	}
	most := f.integer("max_tokens", defaultTextTokens, least, math.MaxInt32)
	s.shared(f, r, most)
	texts, ids := f.prompt(s.model.Vocabulary())
	f.rest(completionDefaults)
	if f.err != nil {
		return r
	}
	for _, text := range texts {
		r.prompts = append(r.prompts, prompt{s.model.EncodeText(text), text})
	}
	for _, p := range ids {
		r.prompts = append(r.prompts, prompt{p, s.model.Decode(p)})
	}
	return r
}

// prompt takes a prompt: a text, ids, or a list of either.
func (f *fields) prompt(vocabulary int) (texts []string, ids [][]int32) {
	raw := f.take("prompt")
	var text string
	var numbers []int32
	var list []json.RawMessage
	bad := func() ([]string, [][]int32) {
		f.wrong("prompt", "prompt must be a text, a list of texts, a list of token ids from 0 to %d, or a list of such lists", vocabulary-1)
		return nil, nil
	}
	switch {
	case raw == nil:
		return bad()
	case json.Unmarshal(raw, &text) == nil:
		return []string{text}, nil
	case json.Unmarshal(raw, &list) != nil || len(list) == 0 || nullIn(raw):
		return bad()
	case json.Unmarshal(list[0], &text) == nil:
		if json.Unmarshal(raw, &texts) != nil {
			return bad()
		}
	case list[0][0] != '[':
		if json.Unmarshal(raw, &numbers) != nil {
			return bad()
		}
		ids = [][]int32{numbers}
	default:
		if json.Unmarshal(raw, &ids) != nil {
			return bad()
		}
		for _, raw := range list {
			if nullIn(raw) {
				return bad()
			}
		}
	}
	for _, p := range ids {
		for _, id := range p {
			if id < 0 || int(id) >= vocabulary {
				return bad()
			}
		}
	}
	return texts, ids
}

// shared reads what both endpoints have.
func (s *Server) shared(f *fields, r *request, maxTokens int) {
	r.n = f.integer("n", 1, 1, maxN)
	r.options = sdk.GenerateOptions{
		Temperature:       f.number("temperature", 1, 0, math.MaxFloat64, false),
		TopP:              f.number("top_p", 1, 0, 1, true),
		TopK:              max(0, f.integer("top_k", 0, -1, math.MaxInt32)), // −1 is how vLLM spells off
		MinP:              f.number("min_p", 0, 0, 1, false),
		RepetitionPenalty: f.number("repetition_penalty", 1, 0, math.MaxFloat64, true),
		MaxTokens:         maxTokens,
		Stop:              f.stops(),
	}
	r.tokenIDs = f.boolean("return_token_ids")
	r.given = f.raw["seed"]
	var ok bool
	if r.seed, ok = f.seed(); !ok {
		r.seed = randomSeed()
		r.given, _ = json.Marshal(r.seed)
	}
	if r.stream = f.boolean("stream"); r.stream {
		if o, ok := read[map[string]json.RawMessage](f, "stream_options", "an object"); ok {
			options := &fields{raw: o}
			r.usage = options.boolean("include_usage")
			options.rest(map[string][]string{"include_obfuscation": {"false"}, "continuous_usage_stats": {"false"}})
			if options.err != nil {
				f.wrong("stream_options", "stream_options: %s", options.err.body.Message)
			}
		}
	} else if f.take("stream_options") != nil {
		f.wrong("stream_options", "stream_options are for streams only: set stream, or remove them")
	}
	fieldsText(f, "user") // who asks is of no account here
	if raw := f.take("response_format"); raw != nil && !sameJSON(raw, []byte(`{"type": "text"}`)) {
		f.wrong("response_format", `response_format is not supported but for {"type": "text"}: a completion is not bound to a grammar or to JSON`)
	}
	if r.logProbs && s.o.NoLogProbs != "" {
		f.wrong("logprobs", "there are no log-probabilities: %s", s.o.NoLogProbs)
	}
}

// randomSeed has 53 bits, which JSON keeps in any language.
func randomSeed() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return binary.LittleEndian.Uint64(b[:]) >> 11
}

// seedOf derives the seed of completion i: that of the first is the request's. The others are spread by SplitMix64's
// finalizer, so that requests with neighbouring seeds share none.
//
// Source: Steele, Lea, Flood 2014, Fast Splittable Pseudorandom Number Generators; constants of Vigna's splitmix64.c.
func seedOf(seed uint64, i int) uint64 {
	if i == 0 {
		return seed
	}
	z := seed + uint64(i)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// fit checks a request's prompts against the model.
func (s *Server) fit(r *request, f *fields) {
	name := "prompt"
	if r.chat {
		name = "messages"
	}
	if total := len(r.prompts) * r.n; total > maxChoices {
		f.wrong("n", "%d prompts with n = %d are %d completions: at most %d a request", len(r.prompts), r.n, total, maxChoices)
	}
	for i, p := range r.prompts {
		most := s.model.Positions() - 1
		if r.options.MaxTokens == 0 {
			most++ // nothing follows it
		}
		switch n := len(p.ids); {
		case n == 0:
			f.wrong(name, "prompt %d has no tokens: a completion needs one before it, such as the model's beginning-of-text token", i)
		case n > most && f.err == nil:
			f.err = wrong(name, "prompt %d has %d tokens, and the model takes %d with one token of a completion at least: shorten it", i, n, s.model.Positions()).
				coded("context_length_exceeded")
		}
	}
}

// What is not built, with the values that say so. null is always one of them.
var (
	bothDefaults = map[string][]string{
		"presence_penalty": {"0"}, "frequency_penalty": {"0"}, "logit_bias": {"{}"}, "metadata": {"{}"}, "store": {"false"},
		"service_tier": {`"auto"`, `"default"`}, "safety_identifier": {}, "prompt_cache_key": {},
		"ignore_eos": {"false"}, "min_tokens": {"0"}, "stop_token_ids": {"[]"}, "bad_words": {"[]"}, "length_penalty": {"1"},
		"use_beam_search": {"false"}, "early_stopping": {"false"}, "skip_special_tokens": {"true"}, "spaces_between_special_tokens": {"true"},
		"include_stop_str_in_output": {"false"}, "prompt_logprobs": {}, "return_tokens_as_token_ids": {"false"}, "priority": {"0"},
		"truncate_prompt_tokens": {}, "guided_json": {}, "guided_regex": {}, "guided_choice": {}, "guided_grammar": {}, "structured_outputs": {},
		"grammar": {}, "json_schema": {},
	}
	chatDefaults = with(bothDefaults, map[string][]string{
		"tools": {"[]"}, "tool_choice": {`"none"`, `"auto"`}, "functions": {"[]"}, "function_call": {`"none"`, `"auto"`}, "parallel_tool_calls": {"true", "false"},
		"modalities": {`["text"]`}, "audio": {}, "prediction": {}, "reasoning_effort": {`"none"`}, "verbosity": {`"medium"`}, "web_search_options": {},
		"echo": {"false"}, "add_generation_prompt": {"true"}, "continue_final_message": {"false"}, "add_special_tokens": {"false"},
		"chat_template": {}, "chat_template_kwargs": {"{}"}, "documents": {"[]"},
	})
	completionDefaults = with(bothDefaults, map[string][]string{"best_of": {"1"}, "suffix": {}, "add_special_tokens": {"true"}})
	messageDefaults    = map[string][]string{"name": {}, "tool_calls": {"[]"}, "tool_call_id": {}, "function_call": {}, "refusal": {}, "audio": {}, "annotations": {"[]"}}
)

func with(a, b map[string][]string) map[string][]string {
	out := map[string][]string{}
	for _, m := range []map[string][]string{a, b} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}
