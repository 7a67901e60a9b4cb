package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// scripted is a server without a network: it notes when it is asked, in the bubble's time.
type scripted struct {
	mu     sync.Mutex
	start  time.Time
	at     []time.Duration
	answer func(n int) (status int, retryAfter string)
}

func (s *scripted) RoundTrip(*http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.at = append(s.at, time.Since(s.start))
	status, wait := s.answer(len(s.at))
	s.mu.Unlock()
	header := http.Header{}
	if wait != "" {
		header.Set("Retry-After", wait)
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(""))}, nil
}

// bubbled returns a client of the scripted server; to be called within a bubble.
func bubbled(t *testing.T, retries int, answer func(n int) (int, string)) (*Client, *scripted) {
	t.Helper()
	c, err := New(Options{Timeout: time.Second, Retries: retries})
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{start: time.Now(), answer: answer}
	c.http.Transport = s
	return c, s
}

func TestF9PausesDoubleWithJitterUpToALimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, s := bubbled(t, 9, func(int) (int, string) { return 503, "" })
		_, err := post(c, "https://judge.example")
		if len(s.at) != 10 || asError(t, err).Attempts != 10 {
			t.Fatalf("%d requests, %v", len(s.at), err)
		}
		// ½, 1, 2, … seconds, 30 at most; each between its half and itself.
		for i, full := 1, firstPause; i < len(s.at); i, full = i+1, min(2*full, maxPause) {
			if pause := s.at[i] - s.at[i-1]; pause < full/2 || pause > full+time.Millisecond {
				t.Errorf("pause %d is %v, want %v to %v", i, pause, full/2, full)
			}
		}
	})
}

func TestF8RetryAfterIsObeyedUpToAMinute(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header   func(now time.Time) string
		min, max time.Duration
	}{
		"seconds":               {func(time.Time) string { return "7" }, 7 * time.Second, 8 * time.Second},
		"a date":                {func(now time.Time) string { return now.Add(9 * time.Second).UTC().Format(http.TimeFormat) }, 8 * time.Second, 10 * time.Second},
		"a date that is past":   {func(now time.Time) string { return now.Add(-time.Hour).UTC().Format(http.TimeFormat) }, 250 * time.Millisecond, time.Second},
		"thirty years":          {func(time.Time) string { return "1000000000" }, time.Minute, 61 * time.Second},
		"more than a number is": {func(time.Time) string { return "99999999999999999999999" }, time.Minute, 61 * time.Second},
		"a day, as a date":      {func(now time.Time) string { return now.Add(24 * time.Hour).UTC().Format(http.TimeFormat) }, time.Minute, 61 * time.Second},
		"less than nothing":     {func(time.Time) string { return "-5" }, 250 * time.Millisecond, time.Second},
		"words":                 {func(time.Time) string { return "later" }, 250 * time.Millisecond, time.Second},
		"nothing":               {func(time.Time) string { return "" }, 250 * time.Millisecond, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, s := bubbled(t, 1, func(n int) (int, string) {
					if n == 1 {
						return 429, c.header(time.Now())
					}
					return 200, ""
				})
				if _, err := post(client, "https://judge.example"); err != nil {
					t.Fatal(err)
				}
				if s.at[1] < c.min || s.at[1] > c.max {
					t.Errorf("asked again after %v, want %v to %v", s.at[1], c.min, c.max)
				}
			})
		})
	}
}

// One request is told to wait: all others of the client wait too, and not all begin at once.
func TestF8EverybodyWaitsForTheServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, s := bubbled(t, 1, func(n int) (int, string) {
			if n == 1 {
				return 429, "5"
			}
			return 200, ""
		})
		ask := func() {
			if _, err := post(c, "https://judge.example"); err != nil {
				t.Error(err)
			}
		}
		var wg sync.WaitGroup
		wg.Go(ask)
		synctest.Wait() // the first one is told
		for range 63 {
			wg.Go(ask)
		}
		wg.Wait()
		if len(s.at) != 65 {
			t.Fatalf("%d requests for 64 answers and one refusal", len(s.at))
		}
		moments := map[time.Duration]int{}
		for _, at := range s.at[1:] {
			if at < 5*time.Second || at > 6*time.Second {
				t.Errorf("a request began after %v, the server wants 5 s", at)
			}
			moments[at]++
			if moments[at] > 8 {
				t.Errorf("%d requests begin at %v", moments[at], at)
			}
		}
	})
}

func TestNoTimeIsWastedOnAPauseThatCtxDoesNotOutlast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, s := bubbled(t, 9, func(int) (int, string) { return 503, "50" })
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, err := c.Do(ctx, http.MethodPost, "https://judge.example", nil)
		if e := asError(t, err); e.Status != 503 || len(s.at) != 1 || time.Since(s.start) != 0 {
			t.Errorf("after %v: %v", time.Since(s.start), err)
		}
		// The next one is told so without being sent.
		if _, err := c.Do(ctx, http.MethodPost, "https://judge.example", nil); err == nil || !strings.Contains(err.Error(), "longer than there is time") || len(s.at) != 1 {
			t.Errorf("%d requests, %v", len(s.at), err)
		}
	})
}

func TestCancelledWithinAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, s := bubbled(t, 9, func(int) (int, string) { return 503, "50" })
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(10*time.Second, cancel)
		_, err := c.Do(ctx, http.MethodPost, "https://judge.example", nil)
		if !errors.Is(err, context.Canceled) || len(s.at) != 1 || time.Since(s.start) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(s.start), err)
		}
	})
}
