package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// Error is a request that failed for good. The key stands in none of its fields, nor does what an URL has
// behind the path.
//
// Err is of [ErrRefused], [ErrRedirect] or [ErrTooLarge], or ctx's error, or that of the connection;
// nil where an answer came whose status is not 2xx.
type Error struct {
	Method, URL string
	Attempts    int
	Status      int    // of the last attempt's answer; 0 where there was none
	Body        []byte // of that answer, its first 4 KiB, for error objects of an API
	Err         error
}

func (e *Error) Error() string {
	text := e.Method + " " + e.URL
	if e.Attempts > 1 {
		text += fmt.Sprintf(", %d attempts", e.Attempts)
	}
	if e.Err != nil {
		return text + ": " + e.Err.Error()
	}
	text += fmt.Sprintf(": status %d %s", e.Status, http.StatusText(e.Status))
	if len(e.Body) > 0 {
		text += fmt.Sprintf(": %.200q", e.Body)
	}
	return text
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Hint returns what to do about the error; "" where there is nothing to add.
func (e *Error) Hint() string {
	var refused *net.OpError
	switch {
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		return `check the key: setting key = "env:NAME", and env = { "NAME" } beside it`
	case e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed:
		return "check the path of the URL"
	case e.Status == http.StatusTooManyRequests:
		return "ask less at once, or try more often: settings concurrency and retries"
	case errors.As(e.Err, &refused) && refused.Op == "dial":
		return "is the server running, and is the URL its own?"
	}
	return ""
}

// shortestSecret is the length in bytes below which a key is no secret: taking out every "1" would
// spoil an error and hide nothing.
const shortestSecret = 5

// cleaner replaces the key, in the forms in which it may be written.
func cleaner(key string) *strings.Replacer {
	if len(key) < shortestSecret {
		return strings.NewReplacer()
	}
	forms := []string{key, url.QueryEscape(key), url.PathEscape(key)}
	if quoted, err := json.Marshal(key); err == nil {
		forms = append(forms, string(quoted[1:len(quoted)-1]))
	}
	var pairs []string
	for _, form := range forms {
		pairs = append(pairs, form, "***")
	}
	return strings.NewReplacer(pairs...)
}

// cleaned is err unless its words have the key in them: then only its words are left.
func (c *Client) cleaned(err error) error {
	if err == nil {
		return nil
	}
	if text := c.clean.Replace(err.Error()); text != err.Error() {
		return errors.New(text)
	}
	return err
}

// shown is what errors show of an URL.
func shown(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "(an URL that cannot be read)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
