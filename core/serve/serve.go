// Package serve puts a model behind the OpenAI API over HTTP: chats, completions, log-probabilities and streams, for
// official clients, and for a judge or a sampler that dno itself asks.
//
// Files call downhill: serve.go runs the server, guard.go lets requests in, handle.go answers one from what queue.go draws;
// decode.go and fields.go read it, render.go and answer.go write it.
package serve

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/dno-project/dno/core/telemetry"
	"github.com/dno-project/dno/sdk"
)

// Model is what is served. Serve is called by one goroutine, the others by several at a time.
type Model interface {
	Positions() int  // most tokens of a prompt and its completion
	Vocabulary() int // ids are below it
	// EncodeChat returns the ids of a chat up to where the answer begins, EncodeText those of a text that is continued.
	EncodeChat(messages []sdk.Message) []int32
	EncodeText(text string) []int32
	// Decode returns the text of ids without special tokens.
	Decode(ids []int32) string
	// Stream returns what decodes ids one by one, to the same text.
	Stream() TextStream
	// Bytes is what a token stands for amid others.
	Bytes(id int32) []byte
	// Serve draws completions, and asks next for those that wait, at most free, between any two tokens; it returns when
	// none is left. A completion depends on its Draw alone. Not every Draw is told its end if Serve returns an error.
	Serve(ctx context.Context, next func(free int) []Draw) error
}

// TextStream decodes ids one by one: Next returns the text that is certain with one more, End what was held back.
type TextStream interface {
	Next(id int32) string
	End() string
}

// Draw is one completion to be drawn.
type Draw struct {
	Prompt  []int32
	Given   []int32 // how the completion begins: told as if they were drawn
	Seed    uint64
	Options sdk.GenerateOptions // MaxTokens, which are those that are drawn, may be 0 after Given
	Top     int                 // how many of the most probable tokens are told with each
	Token   func(Token) bool    // told each token at once; false: nobody waits for more, and Done is not told
	Done    func(Result, error) // told the end
}

// Token is a token of a completion, with its log-probability in nats at temperature 1. Top is good until the call that
// tells it returns.
type Token struct {
	ID      int32
	LogProb float64
	Top     []Alternative // the most probable first
}

// Alternative is a token that could have been drawn.
type Alternative struct {
	ID      int32
	LogProb float64
}

// Result is what was drawn, without what was given.
type Result struct {
	Text   string // cut before a stop text
	Finish sdk.Finish
}

// Options say what is served, and to whom. The limits' zero values are their defaults.
type Options struct {
	Name        string // of the model; requests must ask for it
	Fingerprint string // of what decides its answers
	// NoLogProbs says why there are no log-probabilities: what draws is not quite the model. "" where there are.
	NoLogProbs string
	// Key is what clients must show as "Authorization: Bearer KEY"; "" lets everybody in.
	Key string
	// Local says that only this machine can connect. Requests that a browser sends for a page from elsewhere are refused
	// in any case, and then those with a foreign Host too, which is how such a page would rebind a name of its own.
	Local    bool
	Requests int           // at a time, be they read, waiting or drawn; by default 128
	Timeout  time.Duration // of a request, with its waiting; by default 10 minutes
	Log      telemetry.Logger

	patience time.Duration // until headers, a body and a write must be done; by default 30 seconds
}

// Server answers requests. [New] makes one.
type Server struct {
	o       Options
	model   Model
	key     [sha256.Size]byte
	queue   *queue
	created time.Time
	open    atomic.Int64 // requests that are let in
}

// New returns a server, which has begun nothing yet.
func New(m Model, o Options) *Server {
	if o.Requests == 0 {
		o.Requests = 128
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Minute
	}
	if o.patience == 0 {
		o.patience = 30 * time.Second
	}
	return &Server{o: o, model: m, key: sha256.Sum256([]byte(o.Key)), queue: newQueue(), created: time.Now()}
}

// Run answers what comes to a listener, which it closes. When ctx ends it takes nothing new, finishes what it has let in,
// and returns ctx's cause. Any other return is a fault of the listener.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: s.o.patience,
		IdleTimeout:       4 * s.o.patience,
		MaxHeaderBytes:    1 << 16,
		ErrorLog:          nil, // the standard logger, which tells those who look for a fault
	}
	drawing, stop := context.WithCancel(context.WithoutCancel(ctx))
	drawn := make(chan struct{})
	go func() {
		defer close(drawn)
		s.queue.work(drawing, s.model, s.o.Log)
	}()
	defer func() {
		stop()
		<-drawn
	}()
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve at %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	if n := s.open.Load(); n > 0 {
		s.o.Log.Info("stopping when what runs is answered; a second signal stops at once", telemetry.Count.Of(n))
	}
	// Every request ends by its timeout.
	last, cancel := context.WithTimeout(drawing, s.o.Timeout+2*s.o.patience)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		return errors.Join(context.Cause(ctx), fmt.Errorf("finish the requests that run: %w", err), srv.Close())
	}
	return context.Cause(ctx)
}
