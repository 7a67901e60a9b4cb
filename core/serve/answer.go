package serve

import (
	"encoding/json"
	"net/http"

	"github.com/dno-project/dno/sdk"
)

// answer is the body of an answer, or of one event of a stream.
type answer struct {
	ID          string          `json:"id"`
	Object      string          `json:"object"`
	Created     int64           `json:"created"`
	Model       string          `json:"model"`
	Fingerprint string          `json:"system_fingerprint"`
	Seed        json.RawMessage `json:"seed"`
	Choices     []answerChoice  `json:"choices"`
	Usage       any             `json:"usage,omitempty"` // usage, or null before a stream's end
	PromptIDs   []int32         `json:"prompt_token_ids,omitempty"`
}

type usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}

// answerChoice has a message, a delta or a text.
type answerChoice struct {
	Index     int         `json:"index"`
	Message   *message    `json:"message,omitempty"`
	Delta     *delta      `json:"delta,omitempty"`
	Text      *string     `json:"text,omitempty"`
	LogProbs  any         `json:"logprobs"`
	Finish    *sdk.Finish `json:"finish_reason"`
	PromptIDs []int32     `json:"prompt_token_ids,omitempty"`
	TokenIDs  *[]int32    `json:"token_ids,omitempty"`
}

type message struct {
	Role    string  `json:"role"`
	Content string  `json:"content"`
	Refusal *string `json:"refusal"`
}

type delta struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

// choiceOf is a part of a choice, as the request wants it; first says that it is the choice's first.
func choiceOf(r *request, c *choice, p part, first bool) answerChoice {
	out := answerChoice{Index: c.index, LogProbs: p.logProbs}
	switch {
	case !r.chat:
		out.Text = &p.text
	case r.stream:
		out.Delta = &delta{Content: &p.text}
		if first {
			out.Delta.Role = "assistant"
		}
	default:
		out.Message = &message{Role: "assistant", Content: p.text}
	}
	if p.done {
		out.Finish = &p.result.Finish
	}
	if r.tokenIDs {
		ids := append([]int32{}, p.tokens...)
		out.TokenIDs = &ids
		if !r.chat && first {
			out.PromptIDs = r.prompts[c.prompt].ids
		}
	}
	return out
}

// usageOf counts a job that is done.
func usageOf(r *request, drawn int) usage {
	u := usage{Completion: drawn}
	for _, p := range r.prompts {
		u.Prompt += len(p.ids)
	}
	u.Total = u.Prompt + u.Completion
	return u
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // all that is answered encodes
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a client that is gone is no error
}

func writeError(w http.ResponseWriter, e *apiError) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	_, _ = w.Write(append(e.json(), '\n'))
}

// modelInfo is a model as /v1/models tells it.
type modelInfo struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Longest int    `json:"max_model_len"` // as vLLM's: tokens of prompt and completion
}

func (s *Server) info() modelInfo {
	return modelInfo{s.o.Name, "model", s.created.Unix(), "dno", s.model.Positions()}
}

func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []modelInfo{s.info()}})
}

func (s *Server) showModel(w http.ResponseWriter, r *http.Request) {
	if id := r.PathValue("id"); id != s.o.Name {
		writeError(w, refusal(http.StatusNotFound, invalid, "model_not_found", "there is no model %s: this server has %s", quote(id), quote(s.o.Name)))
		return
	}
	writeJSON(w, http.StatusOK, s.info())
}
