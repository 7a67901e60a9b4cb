// Package engine trains and samples one policy: a facade over tokens, graphs and weights that
// knows nothing of preferences.
//
// Files call downhill: engine.go makes an [Engine], checkpoint.go and step.go are built on logps.go,
// which is built on batch.go and memo.go.
package engine

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"

	"github.com/dno-project/dno/core/engine/generate"
	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/engine/tokenizer"
	"github.com/dno-project/dno/core/engine/weights"
)

// ErrNotFinite says that a logit, a log-probability, a loss, a gradient or a weight is NaN or infinite. The
// call has changed nothing; a lower learning rate is the usual remedy.
var ErrNotFinite = errors.New("not a finite number")

// ErrInput says that a prompt, a completion or an option is none that the model can take.
var ErrInput = generate.ErrInput

// ErrNoModel says that a directory holds no Hugging Face model.
var ErrNoModel = errors.New("no model")

// Engine is one policy: a model with its tokenizer, its graphs and its optimizer. It is safe for
// concurrent use, one call after the other.
type Engine struct {
	mu        sync.Mutex
	model     *model.Model
	tokenizer *tokenizer.Tokenizer
	chat      *tokenizer.Chat
	files     map[string][]byte // of the tokenizer: copied into every checkpoint
	eos       []int32
	memo      memo

	generators map[generate.Weights]*generate.Generator // made on first use; each keeps its packed weights

	score *graph.Score // built on first use, as train
	train *graph.Train
	batch graph.Batch

	derivatives []float64 // of the loss, by each token of the step at work

	solver    *graph.Solver // nil until the optimizer is started
	optimizer OptimizerConfig

	baseSum string // fingerprint of the frozen weights below an adapter; "" without one
	held    string // in which format those are held; "": float32

	trainRows int // rows of a training batch that fit the memory kept for activations
}

// activationBytes is the memory that a training batch may take; it decides whether a step is one
// pass or two phases. It is fixed, since the two differ in the last bits.
const activationBytes = 1 << 31

// The files beside the weights. The first two are required.
var sideFiles = []string{"tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json", "generation_config.json"}

// Load reads a Hugging Face model directory: config.json, *.safetensors, tokenizer.json and
// tokenizer_config.json; chat_template.jinja and generation_config.json are optional.
//
// Errors: [ErrNoModel] where there is no config.json, [model.ErrFamily] for a family that is not
// built, [tokenizer.ErrTemplate]; else one naming the file and what is wrong with it.
func Load(fsys fs.FS, dir string) (*Engine, error) {
	e, err := load(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("load the model at %s: %w", dir, err)
	}
	return e, nil
}

func load(fsys fs.FS, dir string) (*Engine, error) {
	data, err := fs.ReadFile(fsys, path.Join(dir, "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it has no config.json; give a Hugging Face model directory", ErrNoModel)
	} else if err != nil {
		return nil, err
	}
	c, err := model.ParseConfig(data)
	if err != nil {
		return nil, err
	}
	f, err := weights.OpenFS(fsys, dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := model.FromWeights(c, f)
	if err != nil {
		return nil, err
	}
	files, err := fs.Sub(fsys, dir)
	if err != nil {
		return nil, err
	}
	e := newEngine(m)
	return e, e.readSideFiles(files)
}

// New returns an engine with fresh weights drawn from seed, for training from scratch. files holds
// tokenizer.json, tokenizer_config.json and, optionally, chat_template.jinja.
func New(c model.Config, files fs.FS, seed uint64) (*Engine, error) {
	m, err := model.New(c, seed)
	if err != nil {
		return nil, err
	}
	e := newEngine(m)
	if err := e.readSideFiles(files); err != nil {
		return nil, fmt.Errorf("make a model: %w", err)
	}
	if len(c.EOS) == 0 {
		m.Config.EOS = []int32{e.chat.EOS()} // so that whoever loads a checkpoint knows where completions end
	}
	return e, nil
}

// newEngine returns an engine without a tokenizer.
func newEngine(m *model.Model) *Engine {
	return &Engine{model: m, files: map[string][]byte{}, trainRows: max(1, activationBytes/rowBytes(m.Config))}
}

// readSideFiles reads the tokenizer and decides which tokens end a completion.
func (e *Engine) readSideFiles(fsys fs.FS) error {
	for i, name := range sideFiles {
		data, err := fs.ReadFile(fsys, name)
		if err == nil {
			e.files[name] = data
		} else if i < 2 || !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read the tokenizer: %w", err)
		}
	}
	var err error
	if e.tokenizer, err = tokenizer.Load(e.files["tokenizer.json"]); err != nil {
		return fmt.Errorf("read tokenizer.json: %w", err)
	}
	if e.chat, err = tokenizer.NewChat(e.files["tokenizer_config.json"], e.files["chat_template.jinja"], e.tokenizer); err != nil {
		return err
	}
	c := e.model.Config
	if n := e.tokenizer.VocabSize(); n > c.Vocab {
		return fmt.Errorf("the tokenizer has %d tokens, the model only %d: they do not belong together", n, c.Vocab)
	}
	e.eos = slices.Clone(c.EOS)
	if data := e.files["generation_config.json"]; data != nil {
		var file struct {
			EOS model.TokenIDs `json:"eos_token_id"`
		}
		if err := json.Unmarshal(data, &file); err != nil {
			return fmt.Errorf("read generation_config.json: %w", err)
		}
		if len(file.EOS) > 0 {
			e.eos = file.EOS
		}
	}
	e.eos = append(e.eos, e.chat.EOS())
	slices.Sort(e.eos)
	e.eos = slices.Compact(e.eos)
	e.generators = map[generate.Weights]*generate.Generator{}
	return nil
}

// SetPrecision makes all products with weights round their factors as p says, from the next call on. A new engine's are
// float32. Weights, gradients and the optimizer's state are float32 in any precision. Over weights held in bfloat16
// products stay bfloat16; see [Engine.HoldBase].
func (e *Engine) SetPrecision(p kernel.Precision) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.held == HeldBFloat16 {
		return
	}
	e.model.SetPrecision(p)
	e.score, e.train = nil, nil
}

// Model returns the model. Whoever changes its weights calls [model.Model.Changed] and makes no
// other call of the engine at the same time.
func (e *Engine) Model() *model.Model { return e.model }

// Tokenizer returns the tokenizer.
func (e *Engine) Tokenizer() *tokenizer.Tokenizer { return e.tokenizer }

// EOS returns the ids that end a completion: those of generation_config.json, else of config.json,
// and the tokenizer's own.
func (e *Engine) EOS() []int32 { return e.eos }

// EncodePrompt returns the ids of a chat up to where the completion begins. Nothing in a message's
// content becomes a special token.
func (e *Engine) EncodePrompt(messages []tokenizer.Message) []int32 { return e.chat.Prompt(messages) }

// EncodeText returns the ids of a text that a completion continues; see [tokenizer.Chat.EncodeText].
func (e *Engine) EncodeText(text string) []int32 { return e.chat.EncodeText(text) }

// EncodeCompletion returns the ids of a completion that ended by itself: the end-of-sequence token is
// the last. Nothing in the text becomes a special token.
func (e *Engine) EncodeCompletion(text string) []int32 { return e.chat.EncodeCompletion(text) }

// Decode returns the text of ids without special tokens.
func (e *Engine) Decode(ids []int32) string { return e.tokenizer.Decode(ids, true) }

// Generate draws one completion for each request, in their order; see [generate.Generator.Generate].
//
// Errors: [ErrInput], [ErrNotFinite], ctx's.
func (e *Engine) Generate(ctx context.Context, reqs []generate.Request, opt generate.Options, progress func(done int)) ([]generate.Result, error) {
	return e.GenerateWith(ctx, generate.SameWeights, reqs, opt, progress)
}

// GenerateWith is Generate with weights held in another way, and so from another policy, whose log-probabilities are not
// the engine's: see [generate.Result].
func (e *Engine) GenerateWith(ctx context.Context, w generate.Weights, reqs []generate.Request, opt generate.Options, progress func(done int)) ([]generate.Result, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	results, err := e.generator(w).Generate(ctx, reqs, opt, progress)
	if errors.Is(err, generate.ErrNotFinite) {
		err = fmt.Errorf("%w: %w", ErrNotFinite, err)
	}
	if err == nil {
		e.memo.add(e.model.Version(), reqs, results)
	}
	return results, err
}

// Serve draws completions of requests that come while it draws, with weights held in a way; see [generate.Generator.Serve].
// Any other call of the engine waits until it returns.
//
// Errors: ctx's.
func (e *Engine) Serve(ctx context.Context, w generate.Weights, next func(free int) []generate.Served) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.generator(w).Serve(ctx, next)
}

func (e *Engine) generator(w generate.Weights) *generate.Generator {
	g := e.generators[w]
	if g == nil {
		g = generate.New(e.model, e.eos, e.Decode)
		g.SetWeights(w)
		e.generators[w] = g
	}
	return g
}

// Fingerprint returns the sha256, in hex, of every parameter's name, shape and values. With an adapter it is of the
// fingerprint of the frozen weights, as they were read, and then of the adapter's parameters.
func (e *Engine) Fingerprint() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.fingerprint()
}

func (e *Engine) fingerprint() string {
	h := sha256.New()
	var buf []byte
	if e.baseSum != "" {
		fmt.Fprintf(h, "base %s\n", e.baseSum)
	}
	for _, p := range e.model.Trainable().All {
		fmt.Fprintf(h, "%s %v\n", p.Name, p.Shape)
		for at := 0; at < len(p.W); at += 1 << 16 {
			var err error
			if buf, err = binary.Append(buf[:0], binary.LittleEndian, p.W[at:min(at+1<<16, len(p.W))]); err != nil {
				panic(err) // a slice of float32 always encodes
			}
			h.Write(buf)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
