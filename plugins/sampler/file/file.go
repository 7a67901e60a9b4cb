// Package file is the sampler that reads completions from a file: a teacher's worked answers.
package file

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/dno-project/dno/sdk"
)

// MaxLine is the length of the longest legal line, in bytes.
const MaxLine = 8 << 20

// Sampler looks completions up in a JSONL file, a line each:
//
//	{"prompt": "17 45 8", "completion": "17+45=62;62+8=70"}
//	{"prompt": [{"role": "user", "content": "17 45 8"}], "completion": "62;70"}
//
// The prompt is a text, which means one user turn, or a list of turns; other keys are not read.
// A prompt is found by its content hash, whatever its id, so the two lines above are for the same
// one. Several completions of a prompt are given in the file's order, K at most; seeds do not
// matter. A prompt that is not in the file gets none.
type Sampler struct {
	byHash map[string][]string // completions by [sdk.Prompt.Hash]
}

// New returns the sampler.
func New() sdk.Sampler { return &Sampler{} }

// Manifest declares a sampler that needs no generator.
func (*Sampler) Manifest() sdk.Manifest {
	return sdk.Manifest{
		Kind:    sdk.KindSampler,
		Name:    "file",
		Version: "1",
		Help:    "looks completions up in a JSONL file of prompt and completion, such as a teacher's answers",
		Settings: []sdk.Setting{
			{Name: "path", Type: sdk.TypePath, Required: true, Help: "the JSONL file"},
		},
	}
}

// Configure reads the whole file into memory. An error names the file and the line.
func (s *Sampler) Configure(_ context.Context, given sdk.Settings) error {
	path := given.String("path", "")
	f, err := os.Open(path)
	if err != nil {
		return sdk.Errorf(sdk.CodeUsage, "read completions: %w", err)
	}
	defer f.Close()
	byHash, err := read(f, path)
	if err != nil {
		return err
	}
	s.byHash = byHash
	return nil
}

// Sample looks the prompts up.
func (s *Sampler) Sample(_ context.Context, req sdk.SampleRequest, _ sdk.Generator) (sdk.SampleResponse, error) {
	out := sdk.SampleResponse{Completions: make([][]sdk.Completion, len(req.Prompts))}
	for i, p := range req.Prompts {
		texts := s.byHash[p.Hash()]
		for _, text := range texts[:min(len(texts), max(0, req.K))] {
			out.Completions[i] = append(out.Completions[i], sdk.Completion{Text: text, Finish: sdk.FinishStop})
		}
	}
	return out, nil
}

// read indexes the lines of r by prompt; name is the file's name in errors. Blank lines, carriage
// returns at a line's end and a byte order mark at the start are skipped.
func read(r io.Reader, name string) (map[string][]string, error) {
	byHash := map[string][]string{}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, MaxLine+2) // and the line's end
	number := 0
	for scanner.Scan() {
		number++
		line := scanner.Bytes()
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		prompt, completion, err := parseLine(line)
		if err != nil {
			return nil, sdk.Errorf(sdk.CodeUsage, "%s:%d: %w", name, number, err)
		}
		hash := prompt.Hash()
		byHash[hash] = append(byHash[hash], completion)
	}
	switch err := scanner.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, sdk.Errorf(sdk.CodeUsage, "%s:%d: the line is longer than %d bytes", name, number+1, MaxLine)
	case err != nil:
		return nil, sdk.Errorf(sdk.CodeIO, "%s:%d: %w", name, number+1, err)
	}
	return byHash, nil
}

// parseLine reads one line of the file.
func parseLine(line []byte) (sdk.Prompt, string, error) {
	if !utf8.Valid(line) {
		return sdk.Prompt{}, "", errors.New("the line is not UTF-8")
	}
	var record struct {
		Prompt     json.RawMessage `json:"prompt"`
		Completion *string         `json:"completion"`
	}
	if err := json.Unmarshal(line, &record); err != nil {
		return sdk.Prompt{}, "", fmt.Errorf("want a line {\"prompt\": ..., \"completion\": \"...\"}: %w", err)
	}
	if record.Completion == nil || *record.Completion == "" {
		return sdk.Prompt{}, "", errors.New(`want a text in "completion"`)
	}
	messages, err := parsePrompt(record.Prompt)
	return sdk.Prompt{Messages: messages}, *record.Completion, err
}

// parsePrompt reads a text or a list of turns.
func parsePrompt(raw json.RawMessage) ([]sdk.Message, error) {
	var text string
	if json.Unmarshal(raw, &text) == nil && text != "" {
		return []sdk.Message{{Role: "user", Content: text}}, nil
	}
	var messages []sdk.Message
	if err := json.Unmarshal(raw, &messages); err != nil || len(messages) == 0 {
		return nil, errors.New(`want a text or a list of {"role", "content"} in "prompt"`)
	}
	for i, m := range messages {
		if m.Role == "" || m.Content == "" {
			return nil, fmt.Errorf(`turn %d of the prompt: want a "role" and a "content"`, i+1)
		}
	}
	return messages, nil
}

var _ sdk.Sampler = (*Sampler)(nil)
