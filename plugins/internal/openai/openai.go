// Package openai is a client of servers that speak OpenAI's HTTP interface, with limits, retries and errors that say what to do.
package openai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Options are what a client is made of. Zero values mean what the comments say.
type Options struct {
	// URL is the server's address. Without a path "/v1" is added, any other path is taken as it is:
	// requests go to URL/chat/completions, URL/completions and URL/models.
	URL string
	// Key is sent as "Authorization: Bearer KEY"; "": no such header. It is in no error and no reply.
	Key string
	// Insecure allows http:// to a host that is not this machine.
	Insecure bool
	// ExtraBody is merged into the body of every request but GET: its keys win, a null takes a key out.
	// "messages", "prompt", "n" and "stream" are the client's own.
	ExtraBody map[string]any

	Concurrency       int     // requests under way at once; 0: 1
	RequestsPerMinute float64 // sent evenly spaced, retries too; 0: no limit
	TokensPerMinute   float64 // of prompt and reply, evenly spaced, so at most one request's above; 0: no limit

	TryTimeout time.Duration // of one try, to the last byte of its reply; 0: 2 minutes
	Deadline   time.Duration // of a request with its retries, from the first try on; 0: 8 minutes
	Retries    int           // tries after the first one
	MaxWait    time.Duration // the longest wait that a server's Retry-After is granted; 0: 2 minutes

	Transport http.RoundTripper // nil: one of its own
	Random    func() float64    // in [0, 1), for the jitter of waits; nil: math/rand/v2
}

// Client asks one server. It may be used by many goroutines, which share its limits: what one is told
// by a 429 slows all of them.
//
// Tried again are 408, 409, 429, 5xx and failures of the connection, after what Retry-After says
// (granted up to Options.MaxWait) or an exponential backoff with full jitter (0.5 s doubled each time,
// at most 30 s). Everything else fails at once, and so does a 429 that says that a quota is used up.
// After a key that is refused or a quota that is used up every later request fails without being sent.
//
// Redirects are not followed, wherever they lead: the key and the texts are for the host that was named.
// A reply is read up to 8 MiB and 64 levels of nesting.
type Client struct {
	base   *url.URL
	key    string
	extra  map[string]any
	http   *http.Client
	limits *limits

	tryTimeout, deadline, maxWait time.Duration
	retries                       int
	random                        func() float64
}

const (
	maxBody  = 8 << 20 // bytes of a reply
	maxDepth = 64      // levels of nesting of a reply
)

// New returns a client. It sends nothing. The error says which option is wrong.
func New(o Options) (*Client, error) {
	base, err := parseURL(o.URL, o.Insecure)
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"messages", "prompt", "n", "stream"} {
		if _, given := o.ExtraBody[key]; given {
			return nil, fmt.Errorf("extra_body has %q, which is not yours to set", key)
		}
	}
	if strings.ContainsFunc(o.Key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the key has characters that a header cannot hold: is there a space or a newline in it?")
	}
	c := &Client{
		base: base, key: o.Key, extra: o.ExtraBody, retries: o.Retries, random: o.Random,
		tryTimeout: or(o.TryTimeout, 2*time.Minute), deadline: or(o.Deadline, 8*time.Minute), maxWait: or(o.MaxWait, 2*time.Minute),
	}
	if c.random == nil {
		c.random = rand.Float64
	}
	c.limits = newLimits(max(1, o.Concurrency), o.RequestsPerMinute, o.TokensPerMinute, c.random)
	transport := o.Transport
	if transport == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = max(1, o.Concurrency)
		transport = t
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c, nil
}

func or(d, fallback time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return fallback
}

func parseURL(text string, insecure bool) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil: // its text repeats the URL, in which there may be a key
		return nil, errors.New("the url cannot be read: want one like http://127.0.0.1:8000/v1")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, errors.New("the url has to begin with http:// or https:// and a host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the url has a user, a query or a fragment: a key does not belong there")
	case u.Scheme == "http" && !insecure && !loopback(u.Hostname()):
		return nil, fmt.Errorf("http://%s would send the key and all texts unencrypted: use https, or insecure = true", u.Host)
	}
	path := strings.TrimRight(u.Path, "/")
	for _, end := range []string{"/chat/completions", "/completions", "/models"} {
		if strings.HasSuffix(path, end) {
			return nil, fmt.Errorf("the url ends in %s: leave that out, it is added", end)
		}
	}
	if path == "" {
		path = "/v1"
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: path}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Close ends connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Message is one turn of a chat.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Request is one question. With Messages it is a chat, without them Prompt is continued.
type Request struct {
	Model       string
	Messages    []Message
	Prompt      string
	MaxTokens   int
	Temperature float64
	Seed        int64
	LogProbs    int            // how many alternatives to each token are asked for; 0: none
	Extra       map[string]any // further keys of the body, before Options.ExtraBody
}

// body returns the path of the request and its body. Keys are in order: equal requests are equal bytes.
func (c *Client) body(r Request) (path string, body []byte, err error) {
	b := map[string]any{"model": r.Model, "max_tokens": r.MaxTokens, "temperature": r.Temperature, "seed": r.Seed}
	if r.Messages != nil {
		path, b["messages"] = "chat/completions", r.Messages
		if r.LogProbs > 0 {
			b["logprobs"], b["top_logprobs"] = true, r.LogProbs
		}
	} else {
		path, b["prompt"] = "completions", r.Prompt
		if r.LogProbs > 0 {
			b["logprobs"] = r.LogProbs
		}
	}
	maps.Copy(b, r.Extra)
	maps.Copy(b, c.extra)
	maps.DeleteFunc(b, func(_ string, v any) bool { return v == nil })
	body, err = json.Marshal(b)
	return path, body, err
}

// tokens is a guess at how many tokens a request takes, for the limit and where a server does not tell:
// four bytes of text a token, as for English with the usual vocabularies.
func (r Request) tokens() (prompt int) {
	prompt = len(r.Prompt)
	for _, m := range r.Messages {
		prompt += len(m.Content)
	}
	return (prompt + 3) / 4
}

// Ask sends a request and returns the first choice of its reply. Errors are an [*Error], or that of ctx.
func (c *Client) Ask(ctx context.Context, r Request) (Reply, error) {
	path, body, err := c.body(r)
	if err != nil {
		return Reply{}, err
	}
	guess := r.tokens()
	raw, err := c.do(ctx, http.MethodPost, path, body, guess+r.MaxTokens)
	if err != nil {
		return Reply{}, err
	}
	reply, err := parseReply(raw)
	if err != nil {
		return Reply{}, c.fail(path, &Error{Kind: KindReply, Message: err.Error()})
	}
	reply.clean(c.redact)
	if !reply.Usage.Known {
		reply.Usage.Prompt, reply.Usage.Reply = guess, (len(reply.Text)+3)/4
	}
	c.limits.correct(reply.Usage.Prompt + reply.Usage.Reply - guess - r.MaxTokens)
	return reply, nil
}

// Models returns the names of the models that the server has, in its order.
func (c *Client) Models(ctx context.Context) ([]string, error) {
	raw, err := c.do(ctx, http.MethodGet, "models", nil, 0)
	if err != nil {
		return nil, err
	}
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := decode(raw, &list); err != nil {
		return nil, c.fail("models", &Error{Kind: KindReply, Message: err.Error()})
	}
	var names []string
	for _, m := range list.Data {
		names = append(names, c.redact(m.ID))
	}
	return names, nil
}

// redact takes the key out of a text, in the forms in which a server may repeat it.
func (c *Client) redact(text string) string {
	if len(c.key) < shortestKey {
		return text
	}
	quoted, _ := json.Marshal(c.key) // a text can always be encoded
	for _, form := range []string{c.key, string(bytes.Trim(quoted, `"`)), url.QueryEscape(c.key), url.PathEscape(c.key)} {
		text = strings.ReplaceAll(text, form, "***")
	}
	return text
}

// shortestKey is the length in bytes below which a key is none: local servers take any word, and a
// text without the letter "x" would be of no use.
const shortestKey = 5

// printable makes a server's text fit into a sentence: one line, at most 300 characters.
func printable(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }), " ")
	if runes := []rune(text); len(runes) > 300 {
		text = string(slices.Concat(runes[:300], []rune("…")))
	}
	return text
}
