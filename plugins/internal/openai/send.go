package openai

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	firstBackoff = 500 * time.Millisecond
	lastBackoff  = 30 * time.Second
)

// do sends a request until it is answered, fails for good, or the tries or the time are used up.
func (c *Client) do(ctx context.Context, method, path string, body []byte, tokens int) ([]byte, error) {
	var deadline time.Time // from the first try on: to wait for one's turn is no failure
	for try := 1; ; try++ {
		if err := c.limits.enter(ctx, tokens); err != nil {
			return nil, err
		}
		if broken := c.limits.broken.Load(); broken != nil {
			c.limits.leave()
			return nil, broken
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(c.deadline)
		}
		raw, failed := c.try(ctx, deadline, method, path, body)
		if failed != nil && failed.retryable() && failed.retryAfter > 0 {
			c.limits.pause(min(failed.retryAfter, c.maxWait)) // before the slot is free for the next one
		}
		c.limits.leave()
		if failed == nil {
			return raw, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		failed.Tries = try
		failed = c.fail(path, failed)
		if failed.Kind == KindKey || failed.Kind == KindQuota {
			c.limits.broken.Store(failed)
		}
		if !failed.retryable() || try > c.retries {
			return nil, failed
		}
		wait := time.Duration(c.random() * float64(min(lastBackoff, firstBackoff<<min(try-1, 16))))
		if failed.Kind == KindBusy && failed.retryAfter <= 0 {
			c.limits.pause(wait)
		}
		if time.Now().Add(max(wait, min(failed.retryAfter, c.maxWait))).After(deadline) {
			failed.Message += fmt.Sprintf("; given up, for another try would end after more than %v", c.deadline)
			return nil, failed
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// try sends a request once.
func (c *Client) try(ctx context.Context, deadline time.Time, method, path string, body []byte) ([]byte, *Error) {
	limit := min(c.tryTimeout, time.Until(deadline))
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base.JoinPath(path).String(), bytes.NewReader(body))
	if err != nil {
		return nil, &Error{Kind: KindAddress, Message: err.Error(), retryAfter: -1}
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, broken(ctx, err, limit)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, broken(ctx, err, limit)
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return nil, redirected(res)
	case len(raw) > maxBody:
		return nil, &Error{Kind: KindReply, Message: fmt.Sprintf("the reply has more than %d bytes", maxBody), retryAfter: -1}
	case res.StatusCode == http.StatusOK:
		return raw, errorWithin(raw)
	}
	e := classify(res.StatusCode, raw)
	e.retryAfter = retryAfter(res.Header, time.Now())
	return nil, e
}

// errorWithin finds the error in a reply of status 200: gateways answer so when what is behind them fails.
func errorWithin(raw []byte) *Error {
	var reply struct {
		Error   jsonPresent `json:"error"`
		Choices jsonPresent `json:"choices"`
		Data    jsonPresent `json:"data"`
	}
	if decode(raw, &reply) != nil || !reply.Error || reply.Choices || reply.Data {
		return nil
	}
	status := readError(raw).status
	if status < 400 || status > 599 {
		status = http.StatusInternalServerError
	}
	return classify(status, raw)
}

// jsonPresent is whether a key is there and not null.
type jsonPresent bool

// UnmarshalJSON takes any value.
func (p *jsonPresent) UnmarshalJSON(raw []byte) error {
	*p = jsonPresent(present(raw))
	return nil
}

// broken says what a failed connection means.
func broken(ctx context.Context, err error, limit time.Duration) *Error {
	if ctx.Err() != nil {
		return &Error{Kind: KindTimeout, Message: fmt.Sprintf("no whole reply within %v", limit.Round(time.Millisecond)), retryAfter: -1}
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	e := &Error{Kind: KindConnection, Message: err.Error(), retryAfter: -1}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		e.Kind = KindAddress
	}
	return e
}

// redirected refuses a redirect, naming where it leads: the host alone, for the rest may hold anything.
func redirected(res *http.Response) *Error {
	to := "nowhere"
	if u, err := res.Location(); err == nil {
		to = u.Scheme + "://" + u.Host
	}
	return &Error{Kind: KindAddress, Status: res.StatusCode, retryAfter: -1,
		Message: fmt.Sprintf("the server redirects to %s, where neither the key nor the texts are sent", to)}
}

// retryAfter is how long a server wants to be left alone: retry-after-ms in milliseconds; Retry-After in
// seconds, as a date, or as a duration like 1m30s. It is negative where there is neither or it cannot be
// read, and of a date that is past.
//
// Source: RFC 9110, Section 10.2.3; fractions, durations and milliseconds are what servers write beyond it.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if ms, ok := number(h.Get("Retry-After-Ms")); ok {
		return seconds(ms / 1000)
	}
	value := strings.TrimSpace(h.Get("Retry-After"))
	if s, ok := number(value); ok {
		return seconds(s)
	}
	if d, err := time.ParseDuration(value); err == nil && d >= 0 {
		return d
	}
	if at, err := http.ParseTime(value); err == nil {
		if sent, err := http.ParseTime(h.Get("Date")); err == nil {
			now = sent // its clock and ours may differ
		}
		return max(-1, at.Sub(now))
	}
	return -1
}

func number(text string) (float64, bool) {
	x, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if errors.Is(err, strconv.ErrRange) {
		err = nil // as large as it gets
	}
	return x, err == nil && x >= 0
}

func seconds(s float64) time.Duration {
	if s >= float64(math.MaxInt64)/float64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(s * float64(time.Second))
}
