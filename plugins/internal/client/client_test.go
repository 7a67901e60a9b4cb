package client

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dno-project/dno/sdk"
)

const secret = "sk-CANARY+7/8=\"x"

// quick returns a client that waits a millisecond where others wait half a second.
func quick(t *testing.T, o Options) *Client {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	c.pause = time.Millisecond
	t.Cleanup(c.Close)
	return c
}

// server answers the n-th request, from 1, with answer; it counts them.
func server(t *testing.T, answer func(n int32, w http.ResponseWriter, r *http.Request)) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	var requests atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(requests.Add(1), w, r)
	}))
	t.Cleanup(s.Close)
	return s, &requests
}

func post(c *Client, url string) ([]byte, error) {
	return c.Do(context.Background(), http.MethodPost, url, []byte(`{"q":1}`))
}

// asError wants the error to be one of the package's.
func asError(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an error of the package's", err)
	}
	return e
}

func TestTheRequestIsJSONWithTheKey(t *testing.T) {
	t.Parallel()
	s, _ := server(t, func(_ int32, w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintln(w, r.Method, r.URL, r.Header.Get("Authorization"), r.Header.Get("Content-Type"), r.Header.Get("Accept"), string(body), err)
	})
	c := quick(t, Options{Key: "sk-1"})
	for want, ask := range map[string]func() ([]byte, error){
		"POST /p?q=1 Bearer sk-1 application/json application/json {\"q\":1} <nil>\n": func() ([]byte, error) { return post(c, s.URL+"/p?q=1") },
		"GET /p Bearer sk-1  application/json  <nil>\n":                               func() ([]byte, error) { return c.Do(context.Background(), http.MethodGet, s.URL+"/p", nil) },
	} {
		if got, err := ask(); err != nil || string(got) != want {
			t.Errorf("the server read %q, %v, want %q", got, err, want)
		}
	}
}

func TestF9F10WhichStatusIsTriedAgain(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int32{
		400: 1, 401: 1, 403: 1, 404: 1, 405: 1, 409: 1, 413: 1, 422: 1, 304: 1, // no repetition makes these better
		408: 3, 429: 3, 500: 3, 502: 3, 503: 3, 504: 3, 529: 3,
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			s, requests := server(t, func(n int32, w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				if status != http.StatusNotModified {
					fmt.Fprintf(w, "no %d", n)
				}
			})
			_, err := post(quick(t, Options{Retries: 2}), s.URL+"/judge?token=1")
			e := asError(t, err)
			if requests.Load() != want || e.Attempts != int(want) || e.Status != status || e.Err != nil {
				t.Errorf("%d requests, %+v, want %d", requests.Load(), e, want)
			}
			if want := fmt.Sprintf("status %d", status); !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "POST "+s.URL+"/judge") || strings.Contains(err.Error(), "token") {
				t.Errorf("the error is %q", err)
			}
		})
	}
}

func TestF9AServerThatRecovers(t *testing.T) {
	t.Parallel()
	s, requests := server(t, func(n int32, w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if n < 3 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, "%d: %s", n, body)
	})
	got, err := post(quick(t, Options{Retries: 2}), s.URL)
	if err != nil || string(got) != `3: {"q":1}` || requests.Load() != 3 {
		t.Errorf("got %q, %v", got, err)
	}
}

// untilGone waits for the client to give up, which a server notices when it has read the request.
func untilGone(r *http.Request) {
	_, _ = io.ReadAll(r.Body)
	<-r.Context().Done()
}

// hijack takes the connection away from the server.
func hijack(t *testing.T, w http.ResponseWriter) net.Conn {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
	}
	return conn
}

func compressed(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(data)
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestF9FaultsOfTheConnection(t *testing.T) {
	t.Parallel()
	bomb := compressed(t, make([]byte, MaxBody+1))
	if len(bomb) > 1<<16 {
		t.Fatalf("zeros compressed to %d bytes", len(bomb))
	}
	for name, c := range map[string]struct {
		timeout  time.Duration
		answer   func(t *testing.T, w http.ResponseWriter, r *http.Request)
		want     string
		requests int32
	}{
		"it is reset": {time.Minute, func(t *testing.T, w http.ResponseWriter, _ *http.Request) {
			conn := hijack(t, w)
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}, "reset by peer", 3},
		"it is closed without an answer": {time.Minute, func(t *testing.T, w http.ResponseWriter, _ *http.Request) {
			hijack(t, w).Close()
		}, "EOF", 3},
		"it is closed within the answer": {time.Minute, func(t *testing.T, w http.ResponseWriter, _ *http.Request) {
			conn := hijack(t, w)
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
			conn.Close()
		}, "the answer breaks off after 4 bytes", 3},
		"it answers in another protocol": {time.Minute, func(t *testing.T, w http.ResponseWriter, _ *http.Request) {
			conn := hijack(t, w)
			fmt.Fprint(conn, "220 mail ready\r\n")
			conn.Close()
		}, "malformed HTTP", 3},
		"silence": {100 * time.Millisecond, func(_ *testing.T, _ http.ResponseWriter, r *http.Request) {
			untilGone(r)
		}, "no whole answer within 100ms", 3},
		"a byte at a time, for ever": {100 * time.Millisecond, func(_ *testing.T, w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			for tick := time.Tick(5 * time.Millisecond); r.Context().Err() == nil; <-tick {
				_, _ = w.Write([]byte{' '})
				_ = http.NewResponseController(w).Flush()
			}
		}, "no whole answer within 100ms", 3},
		"a body without end": {time.Minute, func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			for err := error(nil); err == nil; {
				_, err = w.Write(make([]byte, 1<<20))
			}
		}, "the answer is longer than 8 MiB", 1},
		"a body that is small when compressed": {time.Minute, func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb)
		}, "the answer is longer than 8 MiB", 1},
		"a header without end": {time.Minute, func(t *testing.T, w http.ResponseWriter, _ *http.Request) {
			conn := hijack(t, w)
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n")
			for err := error(nil); err == nil; {
				_, err = fmt.Fprintf(conn, "X: %s\r\n", strings.Repeat("x", 1<<16))
			}
		}, "server response headers exceeded", 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, requests := server(t, func(_ int32, w http.ResponseWriter, r *http.Request) { c.answer(t, w, r) })
			_, err := post(quick(t, Options{Retries: 2, Timeout: c.timeout}), s.URL)
			e := asError(t, err)
			// An attempt may time out on a slow machine before the server has seen it.
			missed := c.timeout < time.Minute && requests.Load() < c.requests
			if !strings.Contains(err.Error(), c.want) || e.Attempts != int(c.requests) || requests.Load() != c.requests && !missed {
				t.Errorf("%d requests, got %v\nwant %d, %s", requests.Load(), err, c.requests, c.want)
			}
			if errors.Is(err, ErrTooLarge) != strings.Contains(c.want, "longer") {
				t.Errorf("what kind of error is %v?", err)
			}
		})
	}
}

func TestAnAnswerOfExactlyTheLimitIsRead(t *testing.T) {
	t.Parallel()
	s, _ := server(t, func(_ int32, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, MaxBody)) })
	if got, err := post(quick(t, Options{}), s.URL); err != nil || len(got) != MaxBody {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

func TestF9NobodyListens(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	l.Close()
	_, err = post(quick(t, Options{Retries: 1}), url)
	e := asError(t, err)
	if e.Attempts != 2 || !strings.Contains(err.Error(), "2 attempts") || !strings.Contains(e.Hint(), "is the server running") {
		t.Errorf("got %v, hint %q", err, e.Hint())
	}
}

func TestACertificateThatIsNotTrustedIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	var requests atomic.Int32
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer s.Close()
	_, err := post(quick(t, Options{Retries: 3}), s.URL)
	var unknown x509.UnknownAuthorityError
	if e := asError(t, err); e.Attempts != 1 || !errors.As(err, &unknown) || requests.Load() != 0 {
		t.Errorf("%d requests, got %v", requests.Load(), err)
	}
}

func TestACancelledRequestEnds(t *testing.T) {
	t.Parallel()
	began := make(chan struct{})
	s, requests := server(t, func(_ int32, _ http.ResponseWriter, r *http.Request) {
		close(began)
		untilGone(r)
	})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-began
		cancel()
	}()
	_, err := quick(t, Options{Retries: 5}).Do(ctx, http.MethodPost, s.URL, nil)
	if e := asError(t, err); !errors.Is(err, context.Canceled) || e.Attempts != 1 || requests.Load() != 1 {
		t.Errorf("got %v", err)
	}
}

func TestF41WhichURLsAreAsked(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		url      string
		insecure bool
		want     string
	}{
		"https":                               {"https://example.com/judge?v=1", false, ""},
		"http to this machine":                {"http://127.0.0.1:8000/", false, ""},
		"http to any loopback address":        {"http://127.8.8.8/", false, ""},
		"http to this machine in IPv6":        {"http://[::1]:8000/", false, ""},
		"http to this machine by name":        {"http://LocalHost:8000/", false, ""},
		"http to another machine":             {"http://example.com/", false, "http:// to example.com is neither secret"},
		"http to another machine, as is said": {"http://example.com/", true, ""},
		"http to an address in the house":     {"http://192.168.1.5/", false, "http:// to 192.168.1.5"},
		"http to a name that begins alike":    {"http://localhost.example.com/", false, "http:// to localhost.example.com"},
		"http to a number":                    {"http://2130706433/", false, "http:// to 2130706433"},
		"http to any address":                 {"http://0.0.0.0/", false, "http:// to 0.0.0.0"},
		"a password":                          {"https://me:" + "hush@example.com/", false, "want the key by itself"},
		"no scheme":                           {"example.com/judge", false, "want an URL like https://"},
		"a file":                              {"file:///etc/passwd", true, "want an URL like https://"},
		"no host":                             {"https:///judge", false, "want an URL like https://"},
		"nothing":                             {"", false, "want an URL like https://"},
		"a control character":                 {"https://example.com/\x7f", false, "cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := quick(t, Options{Insecure: c.insecure})
			err := client.Check(c.url)
			if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush")) {
				t.Errorf("got %v, want %s", err, c.want)
			}
			if err == nil {
				return
			}
			if _, err := post(client, c.url); !errors.Is(err, ErrRefused) || asError(t, err).Attempts != 0 || strings.Contains(err.Error(), "hush") {
				t.Errorf("it was asked: %v", err)
			}
		})
	}
}

// Another server, by another port: it must never be asked, least of all with the key.
func TestF41RedirectToAnotherServerIsNotFollowed(t *testing.T) {
	t.Parallel()
	other, asked := server(t, func(_ int32, _ http.ResponseWriter, r *http.Request) {
		if key := r.Header.Get("Authorization"); key != "" {
			t.Errorf("the key went to another server: %q", key)
		}
	})
	for _, status := range []int{301, 302, 303, 307, 308} {
		s, requests := server(t, func(_ int32, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+"/?key="+r.Header.Get("Authorization"), status)
		})
		_, err := post(quick(t, Options{Key: secret, Retries: 3}), s.URL)
		if !errors.Is(err, ErrRedirect) || !strings.Contains(err.Error(), "on to "+other.URL+", which is not asked") || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%d: got %v", status, err)
		}
		if requests.Load() != 1 || asked.Load() != 0 {
			t.Errorf("%d: %d requests, and %d to the other server", status, requests.Load(), asked.Load())
		}
	}
}

func TestF41RedirectWithinTheServer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		to     string
		want   string
	}{
		"the request stays what it is": {307, "/there", ""},
		"for good":                     {308, "/there", ""},
		"a POST would become a GET":    {302, "/there", "would turn POST into GET"},
		"in a circle":                  {307, "/", "more than 5 in a row"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := server(t, func(_ int32, w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/there" {
					http.Redirect(w, r, c.to, c.status)
					return
				}
				body, _ := io.ReadAll(r.Body)
				fmt.Fprint(w, r.Method, " ", r.Header.Get("Authorization"), " ", string(body))
			})
			got, err := post(quick(t, Options{Key: "sk-1"}), s.URL+"/")
			if c.want != "" {
				if !errors.Is(err, ErrRedirect) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %s", err, c.want)
				}
				return
			}
			if err != nil || string(got) != `POST Bearer sk-1 {"q":1}` {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestF33F41TheKeyStandsInNoError(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(t *testing.T, w http.ResponseWriter, key string){
		"an answer that repeats it": func(_ *testing.T, w http.ResponseWriter, key string) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":"Incorrect API key: %s"}`, key)
		},
		"and as JSON": func(_ *testing.T, w http.ResponseWriter, key string) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"error":%q}`, key)
		},
		"and where the quotation ends": func(_ *testing.T, w http.ResponseWriter, key string) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, strings.Repeat(" ", maxQuote-len(key)/2), key)
		},
		"a status line that repeats it": func(t *testing.T, w http.ResponseWriter, key string) {
			conn := hijack(t, w)
			fmt.Fprintf(conn, "HTTP/1.1 %s\r\n\r\n", key)
			conn.Close()
		},
		"a redirect to a host of its name": func(_ *testing.T, w http.ResponseWriter, _ string) {
			w.Header().Set("Location", "https://sk-canary.example.com/?"+secret)
			w.WriteHeader(http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := server(t, func(_ int32, w http.ResponseWriter, r *http.Request) {
				answer(t, w, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
			})
			_, err := post(quick(t, Options{Key: secret, Retries: 1}), s.URL+"/?key=sk-CANARY")
			e := asError(t, err)
			for e := error(e); e != nil; e = errors.Unwrap(e) {
				if text := fmt.Sprintf("%v %+v", e, e); strings.Contains(text, "CANARY") {
					t.Errorf("the key is there: %s", text)
				}
			}
			if strings.Contains(string(e.Body), "CANARY") {
				t.Errorf("the key is there: %s", e.Body)
			}
		})
	}
}

func TestF33AnAnswerThatRepeatsTheKeyIsCleaned(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{secret: "I know *** and ***, *** too", "sk-1": "I know sk-1 and sk-1, sk-1 too"} { // 4 bytes hide nothing
		s, _ := server(t, func(_ int32, w http.ResponseWriter, _ *http.Request) {
			quoted, err := json.Marshal(key)
			fmt.Fprintf(w, "I know %s and %s, %s too", key, url.QueryEscape(key), quoted[1:len(quoted)-1])
			if err != nil {
				t.Error(err)
			}
		})
		if got, err := post(quick(t, Options{Key: key}), s.URL); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
}

func TestKeys(t *testing.T) {
	t.Setenv("DNO_TEST_KEY", "sk-1")
	t.Setenv("DNO_TEST_EMPTY", "")
	for setting, c := range map[string]struct{ key, want string }{
		"":                   {"", ""},
		"env:DNO_TEST_KEY":   {"sk-1", ""},
		"env:DNO_TEST_EMPTY": {"", "DNO_TEST_EMPTY is not set, or not passed on"},
		"env:":               {"", `want "env:NAME"`},
		"sk-CANARY":          {"", `want "env:NAME"`},
	} {
		key, err := Key(setting)
		if key != c.key || (err == nil) != (c.want == "") || err != nil && (sdk.CodeOf(err) != sdk.CodeUsage || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "CANARY")) {
			t.Errorf("%q: got %q, %v, want %s", setting, key, err, c.want)
		}
	}
	for _, key := range []string{"sk-CANARY\n", "sk CANARY", "sk-CANARÝ"} {
		if _, err := New(Options{Key: key}); sdk.CodeOf(err) != sdk.CodeUsage || strings.Contains(err.Error(), "CANAR") {
			t.Errorf("%q: got %v", key, err)
		}
	}
}
