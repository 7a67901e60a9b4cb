// Package client is how plugins ask a server over HTTP: with retries, limits, and a key that stays secret.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dno-project/dno/sdk"
)

const (
	// MaxBody is the longest answer that is read, in bytes, after decompression.
	MaxBody = 8 << 20

	maxHeader    = 1 << 20          // bytes of an answer's header
	maxWait      = 60 * time.Second // that a server's Retry-After is obeyed for
	firstPause   = 500 * time.Millisecond
	maxPause     = 30 * time.Second
	maxRedirects = 5
	maxQuote     = 4 << 10 // bytes of an answer that an error keeps
)

// What a request can fail with at once; see [Error].
var (
	ErrRefused  = errors.New("refused")   // the URL is none that is asked
	ErrRedirect = errors.New("redirect")  // the server sends the request to another server, or turns it into another one
	ErrTooLarge = errors.New("too large") // the answer is longer than MaxBody
)

// Options are what a client is made with.
type Options struct {
	// Key is sent with each request as "Authorization: Bearer KEY"; "" sends none. It goes to the host
	// that is asked, to no other, and stands in no error.
	Key string

	Timeout  time.Duration // of one attempt, to the last byte of its answer; above 0
	Retries  int           // further attempts after the first one
	Insecure bool          // http:// is allowed to other machines too
}

// Client asks servers. It is safe for concurrent use.
type Client struct {
	options Options
	http    *http.Client
	clean   *strings.Replacer // takes the key out
	pause   time.Duration     // before the second attempt

	mu   sync.Mutex
	hold time.Time // no request begins before it: a server has asked for it
}

// New returns a client. The error, of [sdk.CodeUsage], is that of a key which cannot stand in a header.
func New(o Options) (*Client, error) {
	for i, c := range []byte(o.Key) {
		if c <= ' ' || c >= 0x7f {
			return nil, sdk.Errorf(sdk.CodeUsage, "the key has a space, a line's end or another character that is not ASCII as character %d", i+1).
				WithHint("a key is often read from a file together with the line's end")
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = maxHeader
	transport.MaxIdleConnsPerHost = 64 // as many as are asked at once
	return &Client{
		options: o, clean: cleaner(o.Key), pause: firstPause,
		http: &http.Client{Transport: transport, CheckRedirect: checkRedirect},
	}, nil
}

// Key returns the key that a setting names: "env:NAME" is the value of the environment variable
// NAME, "" is no key. The key itself is refused, for settings are recorded. Errors are of
// [sdk.CodeUsage].
func Key(setting string) (string, error) {
	if setting == "" {
		return "", nil
	}
	name, named := strings.CutPrefix(setting, "env:")
	if !named || name == "" {
		return "", sdk.Errorf(sdk.CodeUsage, `setting "key": want "env:NAME", the name of an environment variable: settings are recorded, a key must not be`)
	}
	key := os.Getenv(name)
	if key == "" {
		return "", sdk.Errorf(sdk.CodeUsage, "setting \"key\": the environment variable %s is not set, or not passed on", name).
			WithHint("export it, and let the plugin see it: env = { %q } beside key", name)
	}
	return key, nil
}

// Check returns an error of [ErrRefused] unless rawURL may be asked: an absolute http or https URL without
// user and password; http only to this machine ("localhost" or a loopback address) unless the
// client is insecure.
func (c *Client) Check(rawURL string) error {
	u, err := url.Parse(rawURL)
	if err != nil {
		return fmt.Errorf("%w: the URL cannot be read", ErrRefused) // err quotes all of it
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return fmt.Errorf("%w: want an URL like https://host/path", ErrRefused)
	case u.User != nil:
		return fmt.Errorf("%w: the URL has a user or a password: want the key by itself", ErrRefused)
	case u.Scheme == "http" && !c.options.Insecure && !loopback(u.Hostname()):
		return fmt.Errorf("%w: http:// to %s is neither secret nor safe from changes: want https://, or insecure = true", ErrRefused, u.Hostname())
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// Do sends the request, with body as JSON where there is one, and returns the body of the answer,
// whose status is 2xx. A key of 5 bytes and more that it repeats is replaced by ***, so that nobody
// can quote it. The request may be sent several times: its repetition must do no harm.
//
// A status of 408, 429 or 5xx, a lost or refused connection and a timeout are tried again, after pauses that
// double from half a second to half a minute, with jitter. A server's Retry-After is obeyed, for at most a
// minute, by all requests of the client. All else fails at once, as does what ctx leaves no
// time for. Every error is an [*Error].
func (c *Client) Do(ctx context.Context, method, rawURL string, body []byte) ([]byte, error) {
	failed := &Error{Method: method, URL: shown(rawURL)}
	if err := c.Check(rawURL); err != nil {
		failed.Err = err
		return nil, failed
	}
	var pause time.Duration
	for {
		if err := c.ready(ctx, pause); err != nil {
			if ctx.Err() != nil || failed.Attempts == 0 { // else what it failed with says more
				failed.Err = err
			}
			return nil, failed
		}
		failed.Attempts++
		a := c.once(ctx, method, rawURL, body)
		if a.err == nil && a.status/100 == 2 {
			return []byte(c.clean.Replace(string(a.body))), nil
		}
		failed.Status, failed.Err = a.status, c.cleaned(a.err)
		said := c.clean.Replace(string(a.body))
		failed.Body = []byte(said[:min(len(said), maxQuote)])
		switch {
		case ctx.Err() != nil:
			failed.Err = context.Cause(ctx)
			return nil, failed
		case !a.passes() || failed.Attempts > c.options.Retries:
			return nil, failed
		}
		c.holdFor(min(a.wait, maxWait))
		pause = min(c.pause<<min(failed.Attempts-1, 16), maxPause)
		pause = pause/2 + rand.N(pause/2+1)
	}
}

// attempt is what became of one attempt.
type attempt struct {
	status int
	body   []byte
	wait   time.Duration // that the server asks for
	err    error
}

// passes says whether another attempt may do better.
func (a attempt) passes() bool {
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.Is(a.err, ErrTooLarge), errors.Is(a.err, ErrRedirect), errors.Is(a.err, ErrRefused), errors.As(a.err, &certificate):
		return false
	case a.err != nil:
		return true
	}
	return a.status == http.StatusRequestTimeout || a.status == http.StatusTooManyRequests || a.status/100 == 5
}

func (c *Client) once(ctx context.Context, method, rawURL string, body []byte) attempt {
	within, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	a := c.send(within, method, rawURL, body)
	if a.err != nil && within.Err() != nil && ctx.Err() == nil {
		a.err = fmt.Errorf("no whole answer within %v", c.options.Timeout)
	}
	return a
}

func (c *Client) send(ctx context.Context, method, rawURL string, body []byte) attempt {
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, rawURL, content)
	if err != nil {
		return attempt{err: fmt.Errorf("%w: %w", ErrRefused, err)}
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.options.Key != "" {
		req.Header.Set("Authorization", "Bearer "+c.options.Key)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var outer *url.Error // names the URL with its query
		if errors.As(err, &outer) {
			err = outer.Err
		}
		return attempt{err: err}
	}
	defer res.Body.Close() // opened for reading: closing loses nothing
	a := attempt{status: res.StatusCode, wait: retryAfter(res.Header.Get("Retry-After"), time.Now())}
	a.body, err = io.ReadAll(io.LimitReader(res.Body, MaxBody+1))
	switch {
	case a.status/100 != 2: // that its words are cut off is of no account
	case err != nil:
		a.err = fmt.Errorf("the answer breaks off after %d bytes: %w", len(a.body), err)
	case len(a.body) > MaxBody:
		a.err = fmt.Errorf("%w: the answer is longer than %d MiB", ErrTooLarge, MaxBody>>20)
	}
	return a
}

// checkRedirect follows a redirect only to the same server, and only where the request stays what it is.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case req.URL.Scheme != first.URL.Scheme || !strings.EqualFold(req.URL.Host, first.URL.Host):
		return fmt.Errorf("%w: the server sends the request on to %s://%s, which is not asked", ErrRedirect, req.URL.Scheme, req.URL.Host)
	case req.Method != first.Method:
		return fmt.Errorf("%w: the server's redirect would turn %s into %s: want the URL that it leads to", ErrRedirect, first.Method, req.Method)
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: more than %d in a row", ErrRedirect, maxRedirects)
	}
	return nil
}

// retryAfter reads the header: seconds, or a date; 0 where it is neither or past.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, uint64(maxWait/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// holdFor lets no request of the client begin for so long.
func (c *Client) holdFor(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := time.Now().Add(d); until.After(c.hold) {
		c.hold = until
	}
}

// ready waits for the pause's end and for the client's to be held no longer, which may be put off meanwhile.
// It returns at once why ctx does not last so long.
func (c *Client) ready(ctx context.Context, pause time.Duration) error {
	until := time.Now().Add(pause)
	for {
		c.mu.Lock()
		if c.hold.After(until) {
			until = c.hold.Add(rand.N(c.pause + 1)) // not all at once
		}
		c.mu.Unlock()
		d := time.Until(until)
		if d <= 0 || ctx.Err() != nil {
			return context.Cause(ctx) // nil while ctx lasts
		}
		if deadline, limited := ctx.Deadline(); limited && deadline.Before(until) {
			return errors.New("the server asks to wait for longer than there is time")
		}
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// Close closes the connections that are kept for the next request, which opens its own.
func (c *Client) Close() { c.http.CloseIdleConnections() }
