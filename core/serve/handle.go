package serve

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

// errTimeout is the cause of a request's context that took too long.
var errTimeout = errors.New("the request took too long")

// complete answers a request for completions.
func (s *Server) complete(w http.ResponseWriter, r *http.Request, read reader) {
	ctx, cancel := context.WithTimeoutCause(r.Context(), s.o.Timeout, errTimeout)
	defer cancel() // what is still drawn is not wanted any more
	body, failed := s.readBody(w, r)
	if failed != nil {
		writeError(w, failed)
		return
	}
	req, failed := s.read(body, read)
	if failed != nil {
		writeError(w, failed)
		return
	}
	a := &answering{s: s, w: w, req: req, job: newJob(ctx, req), head: answer{
		ID: newID(req.chat), Object: "text_completion", Created: time.Now().Unix(),
		Model: s.o.Name, Fingerprint: s.o.Fingerprint, Seed: req.given, Choices: []answerChoice{},
	}}
	if req.chat {
		a.head.Object = "chat.completion"
		if req.stream {
			a.head.Object = "chat.completion.chunk"
		}
	}
	for _, c := range a.job.choices {
		a.renderings = append(a.renderings, newRendering(s.model, req, c))
	}
	w.Header().Set("X-Request-Id", a.head.ID) // which official clients show with an answer
	s.queue.add(a.job)
	if failed := a.run(); failed != nil {
		a.fail(failed)
	}
	w.(*recorder).tokens = a.drawn
}

func newID(chat bool) string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // it never fails
	if chat {
		return "chatcmpl-" + hex.EncodeToString(b[:])
	}
	return "cmpl-" + hex.EncodeToString(b[:])
}

// answering is one request being answered.
type answering struct {
	s          *Server
	w          http.ResponseWriter
	req        *request
	job        *job
	head       answer // what all events of a stream have
	renderings []*rendering
	ended      []bool // of choices
	drawn      int    // tokens
	streaming  bool   // the header is out
}

// errGone says that the client does not listen any more.
var errGone = errors.New("the client is gone")

// run answers until all choices are done.
func (a *answering) run() error {
	a.ended = make([]bool, len(a.renderings))
	for left := len(a.renderings); ; {
		events, failed := a.parts()
		if failed != nil {
			return failed
		}
		for _, c := range events {
			if c.Finish != nil {
				left--
			}
		}
		switch {
		case a.req.stream:
			if err := a.tell(events, left == 0); err != nil {
				return err
			}
		case left == 0:
			a.deadline()
			out := a.head
			out.Choices, out.Usage = events, usageOf(a.req, a.drawn)
			if a.req.chat && a.req.tokenIDs {
				out.PromptIDs = a.req.prompts[0].ids
			}
			writeJSON(a.w, http.StatusOK, out)
		}
		if left == 0 {
			return nil
		}
		select {
		case <-a.job.changed:
		case <-a.job.ctx.Done():
			return context.Cause(a.job.ctx)
		}
	}
}

// parts returns what is new of each choice: in a stream all of it, else all choices when the last one is done.
func (a *answering) parts() ([]answerChoice, error) {
	type news struct {
		tokens []Token
		done   bool
	}
	a.job.mu.Lock()
	all := make([]news, len(a.job.choices))
	ready := true
	for i, c := range a.job.choices {
		if c.err != nil {
			a.job.mu.Unlock()
			return nil, c.err
		}
		all[i] = news{c.tokens[a.renderings[i].tokens:], c.done}
		ready = ready && c.done
	}
	a.job.mu.Unlock() // what was told does not change
	if !a.req.stream && !ready {
		return nil, nil
	}
	var out []answerChoice
	for i, r := range a.renderings {
		if a.ended[i] {
			continue
		}
		p := r.next(all[i].tokens, all[i].done)
		a.drawn += len(p.tokens)
		a.ended[i] = p.done
		if p.done || p.text != "" || p.told > 0 && (a.req.logProbs || a.req.tokenIDs) {
			out = append(out, choiceOf(a.req, r.choice, p, !r.begun))
			r.begun = true
		}
	}
	return out, nil
}

// tell sends events of a stream.
func (a *answering) tell(choices []answerChoice, last bool) error {
	if len(choices) == 0 {
		return nil
	}
	a.begin()
	for i := range choices {
		out := a.head
		if out.Choices = choices[i : i+1]; a.req.usage {
			out.Usage = json.RawMessage("null")
		}
		if a.req.chat && a.req.tokenIDs && choices[i].Delta.Role != "" {
			out.PromptIDs = a.req.prompts[0].ids
		}
		if err := a.event(out); err != nil {
			return err
		}
	}
	if last {
		if a.req.usage {
			out := a.head
			out.Usage = usageOf(a.req, a.drawn)
			if err := a.event(out); err != nil {
				return err
			}
		}
		if err := a.send([]byte("[DONE]")); err != nil {
			return err
		}
	}
	if err := http.NewResponseController(a.w).Flush(); err != nil {
		return errGone
	}
	return nil
}

// begin sends a stream's header, which waits until there is something to say: an error has a status until then.
func (a *answering) begin() {
	if a.streaming {
		return
	}
	a.streaming = true
	a.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	a.w.WriteHeader(http.StatusOK)
}

// deadline gives the next write its time: a client that does not read ends its request.
func (a *answering) deadline() {
	if err := http.NewResponseController(a.w).SetWriteDeadline(time.Now().Add(a.s.o.patience)); err != nil {
		panic(err) // the server's connections have deadlines
	}
}

func (a *answering) event(v answer) error {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // all that is answered encodes
	}
	return a.send(data)
}

func (a *answering) send(data []byte) error {
	a.deadline()
	if _, err := a.w.Write([]byte("data: " + string(data) + "\n\n")); err != nil {
		return errGone
	}
	return nil
}

// fail ends a request that was not answered whole.
func (a *answering) fail(err error) {
	var e *apiError
	switch {
	case errors.Is(err, errTimeout):
		e = refusal(http.StatusGatewayTimeout, fault, "timeout", "the request was not done within %v: ask for fewer or shorter completions", a.s.o.Timeout)
	case errors.Is(err, errStopped):
		e = refusal(http.StatusServiceUnavailable, fault, "shutting_down", "the server stops: ask again when it is back")
	case a.job.ctx.Err() != nil || errors.Is(err, errGone):
		return // nobody listens
	default:
		e = refusal(http.StatusInternalServerError, fault, "internal_error", "the completion failed: %v", err)
	}
	a.deadline()
	if !a.streaming {
		writeError(a.w, e)
		return
	}
	_ = a.send(e.json()) // without [DONE], so that nobody takes the stream for whole
	_ = http.NewResponseController(a.w).Flush()
}
