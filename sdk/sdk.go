// Package sdk is the ground: the data that flows through dno and the three interfaces
// ([Oracle], [Loss], [Sampler]) that plugins implement. It needs the standard library only.
//
// A plugin is one of the interfaces plus a main of one call (package serve). The host calls a
// plugin over gRPC, so what crosses is data: structs in, structs out, fields are only ever added.
package sdk

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// Message is one chat turn.
type Message struct {
	Role    string `json:"role"` // "user", "assistant" or "system"
	Content string `json:"content"`
}

// Prompt is what is asked: one or more chat turns, with the record's reference answer and metadata.
type Prompt struct {
	ID       string         `json:"id"`                 // unique within its file; the content hash where the record names none
	Messages []Message      `json:"messages"`           // at least one
	Answer   string         `json:"answer,omitempty"`   // reference answer; "" where there is none
	Metadata map[string]any `json:"metadata,omitempty"` // the record's other keys, as JSON values
}

// Text returns the content of the prompt's turns joined by newlines; of a single turn, its content.
func (p Prompt) Text() string {
	if len(p.Messages) == 1 {
		return p.Messages[0].Content
	}
	parts := make([]string, len(p.Messages))
	for i, m := range p.Messages {
		parts[i] = m.Content
	}
	return strings.Join(parts, "\n")
}

// Hash returns the prompt's content hash: hex sha256 of its turns, whatever its ID, answer or
// metadata are. It matches teacher completions to prompts and keeps the splits apart.
func (p Prompt) Hash() string {
	h := sha256.New()
	for _, m := range p.Messages {
		// Lengths in front make the encoding unambiguous.
		for _, s := range []string{m.Role, m.Content} {
			h.Write([]byte(strconv.Itoa(len(s))))
			h.Write([]byte{':'})
			h.Write([]byte(s))
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Source says who wrote a completion.
type Source string

const (
	FromPolicy  Source = "policy"  // drawn by the policy at this iteration's start
	FromTeacher Source = "teacher" // drawn by the sampler in the role of teacher
)

// Finish says why a completion ended.
type Finish string

const (
	FinishStop   Finish = "stop"   // an end-of-sequence token or a stop string
	FinishLength Finish = "length" // the token limit: the text is cut
)

// Completion is one answer to a prompt.
type Completion struct {
	Text    string   `json:"text"`
	Tokens  []int32  `json:"tokens,omitempty"`  // ids including the end-of-sequence token; nil where unknown
	LogProb *float64 `json:"logprob,omitempty"` // of the whole completion at temperature 1 under the model that drew it, nats; nil where unknown
	Finish  Finish   `json:"finish,omitempty"`
	Source  Source   `json:"source,omitempty"`
	Seed    uint64   `json:"seed,omitempty"` // what it was drawn with; 0 where it was not drawn
}

// Group is a prompt with all its completions, the policy's own first, then the teacher's.
type Group struct {
	Prompt      Prompt       `json:"prompt"`
	Completions []Completion `json:"completions"`
}

// Settings are a plugin's own settings as the script gave them: JSON values (bool, float64,
// string, []any, map[string]any), with the manifest's defaults filled in by the host.
type Settings map[string]any

// Number returns the setting as a number, or fallback where it is not there.
func (s Settings) Number(name string, fallback float64) float64 {
	if v, ok := s[name].(float64); ok {
		return v
	}
	return fallback
}

// String returns the setting as text, or fallback where it is not there.
func (s Settings) String(name, fallback string) string {
	if v, ok := s[name].(string); ok {
		return v
	}
	return fallback
}

// Bool returns the setting as a truth value, or fallback where it is not there.
func (s Settings) Bool(name string, fallback bool) bool {
	if v, ok := s[name].(bool); ok {
		return v
	}
	return fallback
}
