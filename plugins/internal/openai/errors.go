package openai

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is what went wrong.
type Kind int

const (
	KindKey        Kind = iota + 1 // the key is missing, wrong, or not allowed what was asked (401, 403)
	KindQuota                      // a quota is used up or a bill not paid: waiting does not help
	KindAddress                    // the address is wrong: it redirects, or its certificate is not valid
	KindRequest                    // the server does not take such requests (400, 404, 422, ...)
	KindTooLong                    // the texts are longer than the model's context
	KindRefused                    // a filter of the server's does not let the texts through
	KindReply                      // a reply that cannot be read: no JSON, too large, too deep
	KindBusy                       // too many requests, after all retries (429, 503, 529)
	KindServer                     // a fault of the server's, after all retries (408, 409, other 5xx)
	KindTimeout                    // no reply in time, after all retries
	KindConnection                 // no connection, or one that broke, after all retries
)

// Action is what an error asks of the caller.
type Action int

const (
	GiveUp  Action = iota // every other request will fail as well
	Abstain               // this request cannot be answered, others can
	Later                 // the server may be well again later
)

// Error is a failed request.
type Error struct {
	Kind    Kind
	Status  int    // of HTTP; 0 where there was no reply
	Code    string // the server's own word for it; ""
	Message string // one line, without the key
	Path    string // what was asked, "http://host/v1/models"
	Tries   int    // how often; 0 where a whole reply came that could not be read

	retryAfter time.Duration // as the server says; negative: it does not
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "ask %s", e.Path)
	if e.Tries > 1 {
		fmt.Fprintf(&b, " (%d tries)", e.Tries)
	}
	b.WriteString(": ")
	if e.Status != 0 {
		fmt.Fprintf(&b, "HTTP %d", e.Status)
		if e.Code != "" {
			fmt.Fprintf(&b, " %s", e.Code)
		}
		if e.Message != "" {
			b.WriteString(": ")
		}
	}
	b.WriteString(e.Message)
	return b.String()
}

// Action says what to do.
func (e *Error) Action() Action {
	switch e.Kind {
	case KindTooLong, KindRefused, KindReply:
		return Abstain
	case KindBusy, KindServer, KindTimeout, KindConnection:
		return Later
	}
	return GiveUp
}

// retryable says whether another try may do better.
func (e *Error) retryable() bool { return e.Action() == Later }

// fail completes an error: with the address, and without the key.
func (c *Client) fail(path string, e *Error) *Error {
	e.Path = c.base.JoinPath(path).String()
	e.Message, e.Code = printable(c.redact(e.Message)), printable(c.redact(e.Code))
	return e
}

// Words by which servers name what they mean. A code or a type is compared as a whole.
var (
	quotaCodes = []string{"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error",
		"account_deactivated", "access_terminated", "exceeded_current_quota_error", "insufficient_balance", "insufficient_credits"}
	// Read only where the status is none that means "slow down": some servers write so of the minute's quota.
	quotaWords = []string{"insufficient balance", "insufficient credit", "credit balance is too low", "exceeded your current quota"}

	tooLongCodes = []string{"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
	tooLongWords = []string{"maximum context length", "available context size", "context window", "context length",
		"prompt is too long", "input is too long", "`inputs` tokens", "reduce the length"}

	filterCodes = []string{"content_filter", "content_policy_violation", "responsibleaipolicyviolation"}
)

// classify says what a reply with an error status means, by its status and its body.
func classify(status int, body []byte) *Error {
	said := readError(body)
	e := &Error{Status: status, Code: said.code, Message: said.message, retryAfter: -1}
	coded := func(codes []string) bool {
		return slices.Contains(codes, strings.ToLower(said.code)) || slices.Contains(codes, strings.ToLower(said.kind))
	}
	text := strings.ToLower(said.message)
	worded := func(words []string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
	}
	refusesRequest := status == 400 || status == 413 || status == 422
	switch {
	case coded(quotaCodes), status == 402, status != 429 && status < 500 && worded(quotaWords):
		e.Kind = KindQuota
	case coded(tooLongCodes), status == 413, refusesRequest && worded(tooLongWords):
		e.Kind = KindTooLong
	case refusesRequest && coded(filterCodes):
		e.Kind = KindRefused
	case status == 401 || status == 403:
		e.Kind = KindKey
	case status == 429 || status == 503 || status == 529:
		e.Kind = KindBusy
	case status == 408 || status == 409 || status >= 500:
		e.Kind = KindServer
	default:
		e.Kind = KindRequest
	}
	return e
}

// said is what the body of an error says.
type said struct {
	code, kind, message string
	status              int // a number as code, which may be a status of HTTP; 0: none
}

// readError reads {"error": {"code", "type", "message"}}, {"error": text} or the same at the top level.
// Of a body that is none of these the message is its text.
func readError(body []byte) (out said) {
	var outer struct {
		Error   json.RawMessage `json:"error"`
		Message json.RawMessage `json:"message"`
		Detail  json.RawMessage `json:"detail"`
	}
	if decode(body, &outer) != nil {
		return said{message: string(body)}
	}
	inner := body
	if present(outer.Error) {
		inner = outer.Error
	}
	var fields struct {
		Code    json.RawMessage `json:"code"`
		Type    json.RawMessage `json:"type"`
		Message json.RawMessage `json:"message"`
	}
	if json.Unmarshal(inner, &fields) == nil {
		out = said{code: text(fields.Code), kind: text(fields.Type), message: text(fields.Message)}
	}
	for _, raw := range []json.RawMessage{outer.Error, outer.Message, outer.Detail, body} {
		if out.message == "" && present(raw) {
			out.message = text(raw)
		}
	}
	if n, err := strconv.Atoi(out.code); err == nil {
		out.status = n
	}
	if out.code == "" || out.status != 0 {
		out.code = out.kind
	}
	return out
}

func present(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// text is a JSON text's content, "" of null, and of anything else what is written.
func text(raw json.RawMessage) string {
	var s string
	if !present(raw) || json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}
