// Package generate is batched decoding with a key-value cache: prompts of token ids in, sampled
// completions with their log-probabilities out.
//
// A completion depends on the weights, the prompt, the seed and the options, bit for bit, and on nothing
// else: not on the other requests, their order, how many are decoded at once or the number of threads.
package generate

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
)

// ErrNotFinite says that the model gave a logit that is NaN or infinite. Its weights have diverged, and
// the caller stops the run.
var ErrNotFinite = errors.New("the model's logits are not finite")

// ErrInput says that a request or an option is none that the model can take: it is the caller's to change.
var ErrInput = errors.New("wrong input")

// Request asks for one completion.
type Request struct {
	Prompt []int32 // token ids; 1 to the model's MaxPositions − 1 of them
	Seed   uint64  // of this completion's random numbers
	// Options are this completion's; nil: those of the call.
	Options *Options
}

// Finish says why a completion ended.
type Finish string

const (
	Stop   Finish = "stop"   // an end-of-sequence token, or a stop text
	Length Finish = "length" // MaxTokens, or the model's MaxPositions, prompt included
)

// Result is one completion.
type Result struct {
	Tokens []int32 // 1 to MaxTokens ids, with the end-of-sequence token if that ended it
	// Text is the decoded tokens, cut before the first stop text; empty if the Generator has no decoder.
	// Tokens are not cut: they are what was drawn.
	Text string
	// TokenLogProbs has the log-probability of each of Tokens given all before it, in nats: of the model
	// itself at temperature 1, whatever distribution the token was drawn from. It is nil where the tokens were drawn with
	// other weights than the model's own ([Weights]): the model must then be asked by itself.
	TokenLogProbs []float64
	LogProb       float64 // their sum; NaN without them
	// DrawnLogProbs are the same of the weights that drew the tokens, where these are not the model's own; else nil. They
	// are another policy's: no reference, and no part of a ratio with the model's.
	DrawnLogProbs []float64
	Finish        Finish
}

// Generator draws completions from a model. It keeps a copy of the weights packed for decoding, which it
// renews when the model has changed. It is for one goroutine at a time, and the model must not change
// while it draws.
type Generator struct {
	model  *model.Model
	eos    []int32
	decode func([]int32) string

	weights Weights
	packed  packed
	version uint64 // of the weights that are packed; 0 is none

	maxSlots  int    // completions at once, for each thread
	maxServed int    // completions at once that are served
	kept      *batch // that served last: its memory is for the next time

	maxCache  int // numbers in the cache of all threads; one completion each may need more
	maxLogits int // numbers in the logits of the rows whose tokens are chosen at once; one row may need more
	maxShared int // bytes of packed weights up to which each thread has a batch of its own
}

// New returns a generator that ends a completion at any of the ids in eos. The text of completions comes
// from decode, which leaves special tokens out and is called by several goroutines at a time; it may be nil
// if no stop texts are asked for.
func New(m *model.Model, eos []int32, decode func([]int32) string) *Generator {
	return &Generator{model: m, eos: eos, decode: decode, weights: SameWeights,
		// Some begin alike and share rows, so that these are two or three tiles of the kernels. The more rows, the more memory
		// their caches take: with 256 slots, decoding took twice as long.
		maxSlots: 42, maxServed: 32, maxCache: 1 << 27, /* 512 MiB */
		maxLogits: 1 << 24, /* 64 MiB: the head of a large vocabulary is read once for all rows */
		// The cache that processors' cores share is often 16 to 32 MiB. Weights that fit it are read from there by each
		// thread at its own pace; larger ones come from memory, which is as fast for one thread as for all.
		maxShared: 24 << 20}
}

// SetWeights makes g draw with weights held as w says, from the next call on; a new generator's are the model's own.
func (g *Generator) SetWeights(w Weights) { g.weights, g.version, g.kept = w, 0, nil }

// Generate draws one completion for each request, in their order.
//
// Each thread decodes a batch of its own while the packed weights are at most 24 MiB; all threads decode one batch of
// larger ones. Requests of equal prompts stay together in one, which reads the
// prompt once. A completion that ends leaves at once and the next request takes its place. After each step that
// ended any, progress is told how many have ended, by one goroutine at a time; it may be nil.
//
// Errors: [ErrInput] for an option outside its range or a prompt that is empty, too long or has an id beyond
// the vocabulary; ctx's error, which is looked at before every token; [ErrNotFinite]. There are no results then.
func (g *Generator) Generate(ctx context.Context, reqs []Request, opt Options, progress func(done int)) ([]Result, error) {
	if err := g.check(reqs, &opt); err != nil {
		return nil, fmt.Errorf("generate: %w: %w", ErrInput, err)
	}
	if v := g.model.Version(); v != g.version {
		g.packed.pack(g.model, g.weights)
		g.version = v
	}
	q := newQueue(g, reqs, &opt, progress)
	kernel.Parallel(q.batches, func(int) { newBatch(q).work(ctx) })
	if q.err != nil {
		return nil, fmt.Errorf("generate, %d of %d completions done: %w", q.done, len(reqs), q.err)
	}
	return q.results, nil
}

func (g *Generator) checkOptions(opt *Options) error {
	if err := opt.Validate(); err != nil {
		return err
	}
	if len(opt.Stop) > 0 && g.decode == nil {
		return errors.New("stop texts need a decoder, and this generator has none: pass one to New or remove them")
	}
	return nil
}

func (g *Generator) check(reqs []Request, opt *Options) error {
	if err := g.checkOptions(opt); err != nil {
		return err
	}
	c := &g.model.Config
	for i, r := range reqs {
		if r.Options != nil {
			if err := g.checkOptions(r.Options); err != nil {
				return fmt.Errorf("the options of request %d: %w", i, err)
			}
		}
		if n := len(r.Prompt); n == 0 {
			return fmt.Errorf("the prompt of request %d is empty: begin it with the model's bos token", i)
		} else if n >= c.MaxPositions {
			return fmt.Errorf("the prompt of request %d has %d tokens, which leaves no room for a completion in the model's %d positions: shorten it",
				i, n, c.MaxPositions)
		}
		for _, id := range r.Prompt {
			if id < 0 || int(id) >= c.Vocab {
				return fmt.Errorf("the prompt of request %d has the id %d, outside the model's vocabulary of %d: was it made by another tokenizer?",
					i, id, c.Vocab)
			}
		}
	}
	return nil
}

// limit returns the most tokens that the completion of a prompt of n tokens may have.
func (g *Generator) limit(n int, opt *Options) int {
	return min(opt.MaxTokens, g.model.Config.MaxPositions-n)
}

// A job is a request in the order of work.
type job struct{ request, group int }

// inGroups returns the requests in the order of [InGroups].
func inGroups(reqs []Request) []job {
	order, group := InGroups(len(reqs), func(i int) []int32 { return reqs[i].Prompt })
	jobs := make([]job, len(order))
	for k, i := range order {
		jobs[k] = job{i, group[i]}
	}
	return jobs
}

// InGroups returns the indices of n prompts such that equal ones follow one another, in the order in which they come
// first, and for each index the number of its group, from 0.
func InGroups(n int, prompt func(i int) []int32) (order, group []int) {
	order, group = make([]int, n), make([]int, n)
	groups := make(map[string]int)
	var key []byte
	for i := range n {
		key = key[:0]
		for _, id := range prompt(i) {
			key = binary.LittleEndian.AppendUint32(key, uint32(id))
		}
		g, ok := groups[string(key)]
		if !ok {
			g = len(groups)
			groups[string(key)] = g
		}
		order[i], group[i] = i, g
	}
	slices.SortStableFunc(order, func(i, j int) int { return group[i] - group[j] })
	return order, group
}

// ended reports whether the last of tokens ends a completion that may have limit tokens, and why.
func (g *Generator) ended(tokens []int32, limit int, opt *Options) (Finish, bool) {
	if slices.Contains(g.eos, tokens[len(tokens)-1]) {
		return Stop, true
	}
	if len(opt.Stop) > 0 { // a stop text may span tokens, and a token's text may depend on its neighbours
		if text := g.decode(tokens); cut(text, opt.Stop) < len(text) {
			return Stop, true
		}
	}
	return Length, len(tokens) == limit
}

// cut returns where the first of the stop texts begins in text, or len(text).
func cut(text string, stop []string) int {
	at := len(text)
	for _, s := range stop {
		if i := strings.Index(text, s); i >= 0 {
			at = min(at, i)
		}
	}
	return at
}
