package sdk

import "context"

// Sampler decides how completions are drawn: from the policy in training through the host's
// Generator, from a file, from a server, from anywhere. In the role of teacher it is the same.
//
// The host never calls Sample concurrently.
type Sampler interface {
	Plugin
	// Sample returns, for each prompt in order, its completions: at most K. A prompt for which the
	// sampler has nothing gets an empty list. The generator is nil unless the manifest says
	// UsesGenerator.
	Sample(ctx context.Context, req SampleRequest, generator Generator) (SampleResponse, error)
}

// SampleRequest asks for K completions of each prompt.
type SampleRequest struct {
	Prompts []Prompt
	K       int
	Seeds   [][]uint64 // Seeds[i][k] fixes completion k of prompt i: the same seed gives the same completion
}

// SampleResponse holds the completions of each prompt, in the prompts' order.
type SampleResponse struct {
	Completions [][]Completion
}

// Generator draws from the policy in training. Templates, tokens and weights are the host's.
type Generator interface {
	// Generate returns one completion for each of the request's seeds, in order. A completion
	// depends on its prompt, its seed and the options, never on what else is in the request.
	Generate(ctx context.Context, req GenerateRequest) (GenerateResponse, error)
}

// GenerateRequest asks for len(Seeds[i]) completions of prompt i.
type GenerateRequest struct {
	Prompts [][]Message
	Seeds   [][]uint64
	Options GenerateOptions
}

// GenerateOptions say how tokens are drawn. The order of the filters is: repetition penalty,
// temperature, top-k, top-p, min-p.
type GenerateOptions struct {
	Temperature       float64  // 0 is greedy
	TopK              int      // keep the k most probable tokens, ties of the last all kept; 0 is off
	TopP              float64  // keep tokens while the mass before them is below it; 1 (or 0) is off
	MinP              float64  // keep tokens at least this fraction of the most probable one's; 0 is off
	RepetitionPenalty float64  // divides a seen token's positive logit, multiplies a negative one; 1 (or 0) is off
	MaxTokens         int      // at least 1
	Stop              []string // the text ends before the first of these
}

// GenerateResponse holds Completions[i][k] for Seeds[i][k].
type GenerateResponse struct {
	Completions [][]Completion
}
