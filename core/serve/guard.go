package serve

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/dno-project/dno/core/telemetry"
)

// Handler returns the API: /v1/models, /v1/chat/completions, /v1/completions and /health. Nothing is drawn unless
// [Server.Run] runs.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /v1/models", s.listModels)
	mux.HandleFunc("GET /v1/models/{id...}", s.showModel)
	mux.HandleFunc("POST /v1/chat/completions", s.limited(chatFields))
	mux.HandleFunc("POST /v1/completions", s.limited(completionFields))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		for _, allowed := range []string{http.MethodGet, http.MethodPost} {
			other := r.Clone(r.Context())
			other.Method = allowed
			if _, pattern := mux.Handler(other); pattern != "/" {
				w.Header().Set("Allow", allowed)
				writeError(w, refusal(http.StatusMethodNotAllowed, invalid, "method_not_allowed", "%s is not for this path: use %s", r.Method, allowed))
				return
			}
		}
		writeError(w, refusal(http.StatusNotFound, invalid, "not_found",
			"there is no such path: the API is /v1/models, /v1/chat/completions, /v1/completions and /health"))
	})
	return s.logged(s.recovered(s.allowed(mux)))
}

// recorder notes the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int // 0 before the header
	tokens int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap is for [http.ResponseController].
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// logged writes a line for each request. It has neither texts nor what a client may choose.
func (s *Server) logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, rec := time.Now(), &recorder{ResponseWriter: w}
		// Whatever the request before on this connection was given to be written in.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil {
			panic(err) // the server's connections have deadlines
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		defer func() {
			s.o.Log.Debug("request", telemetry.Route.Of(r.Pattern), telemetry.Status.Of(rec.status),
				telemetry.Count.Of(rec.tokens), telemetry.Seconds.Of(time.Since(began).Seconds()))
		}()
		next.ServeHTTP(rec, r)
	})
}

// recovered makes a panic the end of its request alone.
func (s *Server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			s.o.Log.Error("a request failed by a fault of dno", telemetry.Cause.Of(fmt.Sprintf("%v\n%s", v, debug.Stack())))
			if w.(*recorder).status != 0 {
				panic(http.ErrAbortHandler) // the client sees that the answer is cut
			}
			writeError(w, refusal(http.StatusInternalServerError, fault, "internal_error", "a fault of dno; its log says more"))
		}()
		next.ServeHTTP(w, r)
	})
}

// allowed lets in who may ask.
func (s *Server) allowed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.o.Local && !isLoopback(r.Host) {
			writeError(w, refusal(http.StatusForbidden, invalid, "host_not_allowed",
				"the Host header does not name this machine's loopback address: ask for http://127.0.0.1 or http://localhost, or start dno serve with another --addr and a --key"))
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && !sameHost(origin, r.Host) {
			writeError(w, refusal(http.StatusForbidden, invalid, "origin_not_allowed",
				"the request comes from a web page of another origin: call the API from a program, or put a proxy of your own before it"))
			return
		}
		if s.o.Key != "" && r.URL.Path != "/health" && !s.shows(r.Header.Get("Authorization")) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			writeError(w, refusal(http.StatusUnauthorized, invalid, "invalid_api_key", "the key is missing or wrong: send the header Authorization: Bearer KEY"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// shows reports whether a header has the key, in a time that does not tell how much of it is right.
func (s *Server) shows(header string) bool {
	scheme, key, _ := strings.Cut(header, " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(key)))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], s.key[:]) == 1
}

// isLoopback reports whether a Host header names this machine's loopback address.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.IsLoopback()
}

func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// limited lets in as many requests at a time as there is memory for.
func (s *Server) limited(read reader) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.open.Add(1) > int64(s.o.Requests) {
			s.open.Add(-1)
			w.Header().Set("Retry-After", "1")
			writeError(w, refusal(http.StatusTooManyRequests, busy, "rate_limit_exceeded",
				"%d requests are being answered, which is all that this server takes at a time: try again in a second", s.o.Requests))
			return
		}
		defer s.open.Add(-1)
		s.complete(w, r, read)
	}
}
