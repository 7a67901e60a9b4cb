package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dno-project/dno/sdk"
)

const (
	maxBody  = 4 << 20 // bytes
	maxDepth = 16      // of lists and objects in one another; an honest request has 5
)

// readBody reads a request's body, of a size and in a time that are bounded.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *apiError) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, refusal(http.StatusUnsupportedMediaType, invalid, "unsupported_media_type", "the body must be JSON: send the header Content-Type: application/json")
	}
	// A deadline that stays would end the connection while the answer is drawn.
	deadline := http.NewResponseController(w)
	if err := deadline.SetReadDeadline(time.Now().Add(s.o.patience)); err != nil {
		panic(err) // the server's connections have deadlines
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, refusal(http.StatusRequestEntityTooLarge, invalid, "request_too_large", "the body has more than %d bytes: ask for fewer prompts at a time", maxBody)
	case err != nil:
		return nil, refusal(http.StatusRequestTimeout, invalid, "request_timeout", "the body did not come whole within %v: send it again", s.o.patience)
	}
	if err := deadline.SetReadDeadline(time.Time{}); err != nil {
		panic(err)
	}
	return data, nil
}

// fields are those of a JSON object that are not read yet. The first mistake stays.
type fields struct {
	raw map[string]json.RawMessage
	err *apiError
}

// decodeObject reads a body that is one JSON object.
func decodeObject(data []byte) (*fields, *apiError) {
	fail := func(format string, args ...any) (*fields, *apiError) {
		what := fmt.Sprintf(format, args...)
		if len(what) > 200 { // it may hold a number of the body's
			what = strings.ToValidUTF8(what[:200], "") + "…"
		}
		return nil, refusal(http.StatusBadRequest, invalid, "invalid_json", "the body is no request: %s", what)
	}
	if !utf8.Valid(data) {
		return fail("it is not valid UTF-8")
	}
	if depth(data) > maxDepth {
		return fail("its lists and objects stand more than %d deep in one another", maxDepth)
	}
	in := json.NewDecoder(bytes.NewReader(data))
	if open, err := in.Token(); err != nil {
		return fail("%v", err)
	} else if open != json.Delim('{') {
		return fail("it is not a JSON object")
	}
	f := &fields{raw: map[string]json.RawMessage{}}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return fail("%v", err)
		}
		name := key.(string) // of an object the decoder takes no other key
		var value json.RawMessage
		if err := in.Decode(&value); err != nil {
			return fail("%v", err)
		}
		if _, twice := f.raw[name]; twice {
			return fail("it has the field %s twice", quote(name))
		}
		f.raw[name] = value
	}
	if _, err := in.Token(); err != nil {
		return fail("%v", err)
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return fail("something follows the object")
	}
	return f, nil
}

// depth returns how deep lists and objects stand in one another, of any bytes.
func depth(data []byte) (most int) {
	now, text := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			now++
			most = max(most, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return most
}

// quote is a client's text in a message, short and without control characters.
func quote(s string) string {
	if len(s) > 60 {
		s = s[:60] + "…"
	}
	return fmt.Sprintf("%+q", s)
}

// wrong notes a mistake in a field.
func (f *fields) wrong(param, format string, args ...any) {
	if f.err == nil {
		f.err = wrong(param, format, args...)
	}
}

// take takes a field; nil where it is not there or null.
func (f *fields) take(name string) json.RawMessage {
	raw := f.raw[name]
	delete(f.raw, name)
	if string(raw) == "null" {
		return nil
	}
	return raw
}

// read takes a field of a type that its JSON must have. It reports false where it is not there.
func read[T any](f *fields, name, want string) (v T, ok bool) {
	raw := f.take(name)
	if raw == nil {
		return v, false
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		f.wrong(name, "%s must be %s", name, want)
		return v, false
	}
	return v, true
}

func (f *fields) boolean(name string) bool {
	v, _ := read[bool](f, name, "true or false")
	return v
}

// integer takes a whole number within limits.
func (f *fields) integer(name string, or, least, most int) int {
	want := fmt.Sprintf("a whole number from %d to %d", least, most)
	v, ok := read[int](f, name, want)
	if !ok {
		return or
	}
	if v < least || v > most {
		f.wrong(name, "%s is %d: it must be %s", name, v, want)
	}
	return v
}

// number takes a number within limits; above says that the lower one is not legal itself.
func (f *fields) number(name string, or, least, most float64, above bool) float64 {
	want := fmt.Sprintf("a number from %v to %v", least, most)
	if above {
		want = fmt.Sprintf("a number above %v, at most %v", least, most)
	}
	v, ok := read[float64](f, name, want)
	if !ok {
		return or
	}
	if v < least || v > most || above && v == least {
		f.wrong(name, "%s is %v: it must be %s", name, v, want)
	}
	return v
}

// seed takes a seed: any whole number of 64 bits, with a sign or without. What the client wrote goes back to it.
func (f *fields) seed() (value uint64, ok bool) {
	raw := f.take("seed")
	if raw == nil {
		return 0, false
	}
	var signed int64
	if json.Unmarshal(raw, &value) != nil {
		if json.Unmarshal(raw, &signed) != nil {
			f.wrong("seed", "seed must be a whole number of 64 bits")
			return 0, false
		}
		value = uint64(signed)
	}
	return value, true
}

// stops takes a text or a list of them.
func (f *fields) stops() []string {
	raw := f.take("stop")
	if raw == nil {
		return nil
	}
	var list []string
	var one string
	if json.Unmarshal(raw, &one) == nil {
		list = []string{one}
	} else if json.Unmarshal(raw, &list) != nil || bytes.Contains(raw, []byte("null")) && nullIn(raw) {
		f.wrong("stop", "stop must be a text or a list of texts")
		return nil
	}
	if len(list) > maxStops {
		f.wrong("stop", "stop has %d texts: at most %d are looked for", len(list), maxStops)
	}
	for _, s := range list {
		if s == "" || len(s) > maxStop {
			f.wrong("stop", "a stop text has %d bytes: it must have 1 to %d", len(s), maxStop)
		}
	}
	return list
}

// nullIn reports whether an element of a list is null, which Go would read as "".
func nullIn(raw []byte) bool {
	var list []any
	return json.Unmarshal(raw, &list) == nil && slices.Contains(list, any(nil))
}

// rest refuses what no field of the API is left to read. Fields that dno knows of and does not have are ignored where
// they say what is done anyway.
func (f *fields) rest(known map[string][]string) {
	names := make([]string, 0, len(f.raw))
	for name := range f.raw {
		names = append(names, name)
	}
	slices.Sort(names) // the same request, the same error
	for _, name := range names {
		raw := f.take(name)
		if raw == nil {
			continue
		}
		values, ok := known[name]
		if !ok {
			f.wrong(name, "the field %s is not known: remove it", quote(name))
			continue
		}
		if !slices.ContainsFunc(values, func(v string) bool { return sameJSON(raw, []byte(v)) }) {
			f.wrong(name, "%s is not supported: remove it", name)
		}
	}
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// messages takes a chat.
func (f *fields) messages() []sdk.Message {
	list, ok := read[[]map[string]json.RawMessage](f, "messages", "a list of objects with role and content")
	if !ok || len(list) == 0 {
		f.wrong("messages", "messages must have one message at least, such as {\"role\": \"user\", \"content\": \"…\"}")
		return nil
	}
	out := make([]sdk.Message, len(list))
	for i, raw := range list {
		at := fmt.Sprintf("messages[%d]", i)
		m := &fields{raw: raw}
		role, _ := read[string](m, "role", "a text")
		switch role {
		case "system", "user", "assistant":
		case "developer":
			role = "system"
		default:
			m.wrong("role", "role is %s: it must be system, developer, user or assistant", quote(role))
		}
		out[i] = sdk.Message{Role: role, Content: m.content()}
		m.rest(messageDefaults)
		if m.err != nil {
			f.wrong(at+"."+*m.err.body.Param, "%s: %s", at, m.err.body.Message)
			return nil
		}
	}
	return out
}

// content takes a message's text, whole or in parts.
func (f *fields) content() string {
	raw := f.take("content")
	var text string
	if raw != nil && json.Unmarshal(raw, &text) == nil {
		return text
	}
	var parts []map[string]json.RawMessage
	if raw == nil || json.Unmarshal(raw, &parts) != nil {
		f.wrong("content", "content must be a text or a list of text parts")
		return ""
	}
	for _, raw := range parts {
		p := &fields{raw: raw}
		kind, _ := read[string](p, "type", "a text")
		more, ok := read[string](p, "text", "a text")
		if p.rest(nil); kind != "text" || !ok || p.err != nil {
			f.wrong("content", `content has a part of the type %s: only {"type": "text", "text": "…"} is supported`, quote(kind))
			return ""
		}
		text += more
	}
	return text
}
