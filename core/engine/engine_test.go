package engine

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/dno-project/dno/core/engine/generate"
	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
	"github.com/dno-project/dno/core/engine/tokenizer"
)

var ctx = context.Background()

const tinyDir = "testdata/golden/arch/llama_gqa_untied"

// tinyFiles are a tokenizer of 320 tokens, whose completions end with id 1.
func tinyFiles(t testing.TB) fs.FS { return os.DirFS(filepath.FromSlash(tinyDir)) }

func tiny(tied bool) model.Config {
	return model.Config{Vocab: 320, Width: 24, FFN: 40, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 6, MaxPositions: 128, NormEps: 1e-5,
		Rope: model.Rope{Theta: 10000, Type: "default"}, Tied: tied, InitStd: 0.3, BOS: 2, Pad: 0, EOS: []int32{1}}
}

func fresh(t testing.TB, tied bool) *Engine {
	t.Helper()
	e, err := New(tiny(tied), tinyFiles(t), 5)
	must(t, err)
	return e
}

var adam = OptimizerConfig{Beta1: 0.9, Beta2: 0.95, Eps: 1e-8, WeightDecay: 0.01, Clip: 1}

// draw returns n sequences of 4 to 43 random tokens; some have the prompt of an earlier one.
func draw(n int) []Sequence {
	rng := rand.New(rand.NewPCG(1, 2))
	var out []Sequence
	for range n {
		ids := make([]int32, 4+rng.IntN(40))
		for i := range ids {
			ids[i] = int32(rng.IntN(320))
		}
		p := 1 + rng.IntN(len(ids)-2)
		s := Sequence{ids[:p], ids[p:]}
		if len(out) > 0 && rng.IntN(2) == 0 {
			s.Prompt = out[rng.IntN(len(out))].Prompt
		}
		out = append(out, s)
	}
	return out
}

// coupled is a loss whose derivatives depend on all log-probabilities.
func coupled(logps []float64) (float64, []float64, error) {
	sum := 0.0
	for _, lp := range logps {
		sum += lp / float64(len(logps))
	}
	grad := make([]float64, len(logps))
	for i := range grad {
		grad[i] = sum / 1000 / float64(len(logps)) * float64(1+i%3)
	}
	return sum * sum / 2000, grad, nil
}

func TestLoad(t *testing.T) {
	e, err := Load(os.DirFS("."), tinyDir)
	must(t, err)
	if !slices.Equal(e.EOS(), []int32{1}) {
		t.Errorf("completions end at %v, want 1", e.EOS())
	}
	prompt := e.EncodePrompt([]tokenizer.Message{{Role: "user", Content: "the sum of"}})
	completion := e.EncodeCompletion("two numbers")
	if completion[len(completion)-1] != 1 || e.Decode(completion) != "two numbers" {
		t.Errorf("the completion is %v, which reads %q", completion, e.Decode(completion))
	}
	seqs := []Sequence{{prompt, completion}}
	logps, err := e.LogProbs(ctx, seqs)
	must(t, err)
	tokens, err := e.TokenLogProbs(ctx, seqs)
	must(t, err)
	sum := 0.0
	for _, lp := range tokens[0] {
		sum += lp
	}
	if len(tokens[0]) != len(completion) || sum != logps[0] || !(sum < 0) {
		t.Errorf("%d token log-probs with the sum %v, the completion has %d tokens and %v", len(tokens[0]), sum, len(completion), logps[0])
	}
}

func TestScoringNothingIsNothing(t *testing.T) {
	e := fresh(t, true)
	logps, err := e.LogProbs(ctx, nil)
	must(t, err)
	tokens, err := e.TokenLogProbs(ctx, nil)
	must(t, err)
	if len(logps) != 0 || len(tokens) != 0 {
		t.Errorf("no sequences have the log-probs %v and %v", logps, tokens)
	}
}

func TestLoadFails(t *testing.T) {
	base := fstest.MapFS{}
	for _, name := range []string{"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} {
		data, err := os.ReadFile(filepath.Join(filepath.FromSlash(tinyDir), name))
		must(t, err)
		base["m/"+name] = &fstest.MapFile{Data: data}
	}
	config := string(base["m/config.json"].Data)
	for name, c := range map[string]struct {
		file, data string // "" removes the file
		is         error
		says       string
	}{
		"there is no model":              {"config.json", "", ErrNoModel, "no model"},
		"there are no weights":           {"model.safetensors", "", fs.ErrNotExist, "model.safetensors"},
		"there is no tokenizer":          {"tokenizer.json", "", fs.ErrNotExist, "tokenizer.json"},
		"there is no tokenizer config":   {"tokenizer_config.json", "", fs.ErrNotExist, "tokenizer_config.json"},
		"the weights are cut":            {"model.safetensors", string(base["m/model.safetensors"].Data[:5000]), nil, "model.safetensors"},
		"the weights are noise":          {"model.safetensors", strings.Repeat("noise", 100), nil, "model.safetensors"},
		"the weights are another's":      {"config.json", strings.Replace(config, `"intermediate_size": 128`, `"intermediate_size": 64`, 1), nil, "mlp.gate_proj.weight has shape [128 64], config.json asks for [64 64]"},
		"the config asks for more":       {"config.json", strings.Replace(config, `"num_hidden_layers": 3`, `"num_hidden_layers": 4`, 1), nil, "no tensor model.layers.3.input_layernorm.weight"},
		"the config is of another kind":  {"config.json", `{"model_type": "mamba"}`, model.ErrFamily, "mamba"},
		"the config is half a file":      {"config.json", config[:100], nil, "config.json"},
		"the tokenizer is noise":         {"tokenizer.json", "noise", nil, "tokenizer"},
		"the template is unknown":        {"chat_template.jinja", "{{ 1 }}", tokenizer.ErrTemplate, "template"},
		"the generation config is noise": {"generation_config.json", "noise", nil, "generation_config.json"},
	} {
		t.Run(name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for k, v := range base {
				fsys[k] = v
			}
			if delete(fsys, "m/"+c.file); c.data != "" {
				fsys["m/"+c.file] = &fstest.MapFile{Data: []byte(c.data)}
			}
			_, err := Load(fsys, "m")
			if err == nil || (c.is != nil && !errors.Is(err, c.is)) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the error is %v, want one that is %v and says %q", err, c.is, c.says)
			}
		})
	}
	must(t, func() error { _, err := Load(base, "m"); return err }()) // what the cases begin with is good
}

func TestASmallerModelThanItsTokenizerIsRefused(t *testing.T) {
	c := tiny(false)
	c.Vocab = 300
	if _, err := New(c, tinyFiles(t), 1); err == nil || !strings.Contains(err.Error(), "do not belong together") {
		t.Errorf("the error is %v", err)
	}
}

func TestStepSeesTheScoredLogProbs(t *testing.T) {
	for name, test := range map[string]struct {
		rows, phases int
		precision    kernel.Precision
	}{
		"in one pass":             {1 << 20, 1, kernel.Float32},
		"in two phases":           {200, 2, kernel.Float32},
		"in bfloat16":             {1 << 20, 1, kernel.BFloat16},
		"in bfloat16, two phases": {200, 2, kernel.BFloat16},
	} {
		t.Run(name, func(t *testing.T) {
			e := fresh(t, true)
			e.SetPrecision(test.precision)
			e.trainRows = test.rows
			seqs := draw(40)
			want, err := e.LogProbs(ctx, seqs)
			must(t, err)
			must(t, e.StartOptimizer(adam))
			calls := 0
			result, err := e.Step(ctx, seqs, 1e-3, func(logps []float64) (float64, []float64, error) {
				calls++
				if !slices.Equal(logps, want) {
					t.Error("the loss sees other log-probs than those that were scored")
				}
				return coupled(logps)
			})
			must(t, err)
			tokens := 0
			for _, s := range seqs {
				tokens += len(s.Prompt) + len(s.Completion)
			}
			if calls != 1 || !slices.Equal(result.LogProbs, want) || result.Tokens != tokens || result.Phases != test.phases || !(result.GradNorm > 0) {
				t.Errorf("the loss was called %d times; the result is %+v", calls, result)
			}
			after, err := e.LogProbs(ctx, seqs)
			must(t, err)
			if slices.Equal(after, want) {
				t.Error("the update moved nothing")
			}
		})
	}
}

func TestOnePassAndTwoPhasesAgree(t *testing.T) {
	seqs := draw(40)
	var norms, losses []float64
	var weights [][]float32
	for _, rows := range []int{1 << 20, 200, 50, 1} {
		e := fresh(t, true)
		e.trainRows = rows
		must(t, e.StartOptimizer(adam))
		for range 3 {
			result, err := e.Step(ctx, seqs, 1e-3, coupled)
			must(t, err)
			norms, losses = append(norms, result.GradNorm), append(losses, result.Loss)
		}
		weights = append(weights, e.model.Params().W)
	}
	for i := range norms {
		if math.Abs(norms[i]-norms[i%3]) > 1e-5*norms[i%3] || math.Abs(losses[i]-losses[i%3]) > 1e-6*losses[i%3] {
			t.Errorf("step %d: gradient norm %v and loss %v, in one pass %v and %v", i%3, norms[i], losses[i], norms[i%3], losses[i%3])
		}
	}
	for _, w := range weights[1:] {
		for i := range w {
			// Adam's first steps are of the size lr whatever the gradient's: where that is nearly 0 its sign is noise. The weights
			// move by 3e-3 in all.
			if math.Abs(float64(w[i]-weights[0][i])) > 2e-5 {
				t.Fatalf("weight %d is %v, in one pass %v", i, w[i], weights[0][i])
			}
		}
	}
}

func TestTrainingDoesNotDependOnThreads(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var want string
	for _, precision := range []kernel.Precision{kernel.Float32, kernel.BFloat16} {
		last := want // of another precision
		want = ""
		for _, n := range []int{1, 2, 7} {
			runtime.GOMAXPROCS(n)
			e := fresh(t, false)
			e.SetPrecision(precision)
			e.trainRows = 300
			must(t, e.StartOptimizer(adam))
			for range 2 {
				_, err := e.Step(ctx, draw(40), 1e-3, coupled)
				must(t, err)
			}
			if got := e.Fingerprint(); want == "" {
				want = got
			} else if got != want {
				t.Errorf("%v: with %d threads the weights are other bytes than with 1", precision, n)
			}
		}
		if want == last {
			t.Error("the precision makes no difference")
		}
	}
}

func TestF7AFailedStepChangesNothing(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	errLoss := errors.New("the plugin is gone")
	fill := func(loss, g float64, err error) LossFunc {
		return func(logps []float64) (float64, []float64, error) {
			grad := make([]float64, len(logps))
			for i := range grad {
				grad[i] = g
			}
			return loss, grad, err
		}
	}
	long := make([]int32, 129)
	good := draw(6)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		seqs []Sequence
		lr   float64
		loss LossFunc
		is   error
		says string
	}{
		"the loss is NaN":                   {ctx, good, 1e-3, fill(nan, 1, nil), ErrNotFinite, "the loss is NaN"},
		"the loss is infinite":              {ctx, good, 1e-3, fill(inf, 1, nil), ErrNotFinite, "the loss is +Inf"},
		"a derivative is NaN":               {ctx, good, 1e-3, fill(1, nan, nil), ErrNotFinite, "sequence 0 is NaN"},
		"the gradients overflow":            {ctx, good, 1e-3, fill(1, 1e38, nil), ErrNotFinite, "norm"},
		"the loss fails":                    {ctx, good, 1e-3, fill(1, 1, errLoss), errLoss, "gone"},
		"the loss forgets a derivative":     {ctx, good, 1e-3, func([]float64) (float64, []float64, error) { return 1, []float64{1}, nil }, nil, "1 derivatives for 6"},
		"the context is done":               {cancelled, good, 1e-3, coupled, context.Canceled, ""},
		"the learning rate is NaN":          {ctx, good, nan, coupled, nil, "learning rate"},
		"there are no sequences":            {ctx, nil, 1e-3, coupled, nil, "no sequences"},
		"a prompt is empty":                 {ctx, []Sequence{{nil, []int32{1}}}, 1e-3, coupled, nil, "empty prompt"},
		"a completion is empty":             {ctx, []Sequence{good[0], {[]int32{1}, nil}}, 1e-3, coupled, nil, "sequence 1 has an empty completion"},
		"a sequence is too long":            {ctx, []Sequence{{long[:100], long[100:]}}, 1e-3, coupled, nil, "129 tokens, the model takes 128"},
		"a token is outside the vocabulary": {ctx, []Sequence{{[]int32{1}, []int32{320}}}, 1e-3, coupled, nil, "token id 320"},
	} {
		for phase, rows := range map[string]int{"one pass": 1 << 20, "two phases": 20} {
			t.Run(name+" in "+phase, func(t *testing.T) {
				e, twin := fresh(t, true), fresh(t, true)
				e.trainRows, twin.trainRows = rows, rows
				must(t, e.StartOptimizer(adam))
				must(t, twin.StartOptimizer(adam))
				before := e.Fingerprint()
				_, err := e.Step(c.ctx, c.seqs, c.lr, c.loss)
				if err == nil || (c.is != nil && !errors.Is(err, c.is)) || !strings.Contains(err.Error(), c.says) {
					t.Errorf("the error is %v, want one that is %v and says %q", err, c.is, c.says)
				}
				if e.Fingerprint() != before {
					t.Error("the weights have changed")
				}
				// The optimizer's state and the gradients are as if the step had not been.
				_, err = e.Step(ctx, good, 1e-3, coupled)
				must(t, err)
				_, err = twin.Step(ctx, good, 1e-3, coupled)
				must(t, err)
				if e.Fingerprint() != twin.Fingerprint() {
					t.Error("the next step is not what it would have been")
				}
			})
		}
	}
	if _, err := fresh(t, true).Step(ctx, good, 1e-3, coupled); err == nil || !strings.Contains(err.Error(), "not been started") {
		t.Errorf("without an optimizer the error is %v", err)
	}
	e := fresh(t, true)
	e.model.Norm.W[3] = float32(nan)
	if _, err := e.LogProbs(ctx, good); !errors.Is(err, ErrNotFinite) {
		t.Errorf("with a NaN among the weights the error is %v", err)
	}
}

func TestStartOptimizerRefuses(t *testing.T) {
	for name, change := range map[string]func(*OptimizerConfig){
		"beta1 of 1": func(c *OptimizerConfig) { c.Beta1 = 1 }, "beta2 below 0": func(c *OptimizerConfig) { c.Beta2 = -0.1 },
		"eps of 0": func(c *OptimizerConfig) { c.Eps = 0 }, "a negative decay": func(c *OptimizerConfig) { c.WeightDecay = -1 },
		"a clip that is NaN": func(c *OptimizerConfig) { c.Clip = math.NaN() },
	} {
		t.Run(name, func(t *testing.T) {
			c := adam
			change(&c)
			if err := fresh(t, true).StartOptimizer(c); err == nil {
				t.Errorf("%+v was taken", c)
			}
		})
	}
}

func TestTrainingLearns(t *testing.T) {
	e := fresh(t, true)
	must(t, e.StartOptimizer(OptimizerConfig{Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Clip: 1}))
	seqs := draw(4)
	tokens := make([]int, len(seqs))
	for i, s := range seqs {
		tokens[i] = len(s.Completion)
	}
	var first, last float64
	for i := range 120 {
		r, err := e.Step(ctx, seqs, 1e-2, SFTLoss(tokens))
		must(t, err)
		if last = r.Loss; i == 0 {
			first = r.Loss
		}
	}
	// Uniform guessing among 320 costs ln 320 = 5.8 nats a token; four sequences can be learnt by heart.
	if first < 5 || last > 0.5 {
		t.Errorf("the loss went from %v to %v nats a token", first, last)
	}
}

// TestSharedPromptsChangeNothing: the log-probabilities are those of each sequence alone, to the bit, and the gradient
// is that of sequences with prompts of their own.
func TestSharedPromptsChangeNothing(t *testing.T) {
	for precision, near := range map[kernel.Precision]float32{kernel.Float32: 1e-5, kernel.BFloat16: 0.02} {
		t.Run(precision.String(), func(t *testing.T) { sharedPromptsChangeNothing(t, precision, near) })
	}
}

func sharedPromptsChangeNothing(t *testing.T, precision kernel.Precision, near float32) {
	e, seqs := fresh(t, true), draw(40)
	e.SetPrecision(precision)
	for i, s := range seqs[:12] { // and completions that begin alike, and the same one again
		c := slices.Clone(s.Completion)
		if i%4 > 0 {
			c[len(c)*i/12] ^= 1
		}
		seqs = append(seqs, Sequence{s.Prompt, c})
	}
	got, err := e.TokenLogProbs(ctx, seqs)
	must(t, err)
	for i := range seqs {
		alone, err := e.TokenLogProbs(ctx, seqs[i:i+1])
		must(t, err)
		if !slices.Equal(got[i], alone[0]) {
			t.Errorf("sequence %d has other log-probabilities than alone", i)
		}
	}
	pack(&e.batch, seqs, arrange(seqs))
	sharedRows := e.batch.Rows()
	train, err := e.model.Train()
	must(t, err)
	gradient := func(pack func()) []float32 {
		pack()
		e.model.Params().ZeroGrad()
		_, err := train.Run(ctx, &e.batch, coupled)
		must(t, err)
		return slices.Clone(e.model.Params().Grad)
	}
	together := gradient(func() { pack(&e.batch, seqs, arrange(seqs)) })
	apart := gradient(func() {
		e.batch.Reset()
		for _, i := range arrange(seqs) {
			e.batch.Add(seqs[i].Prompt, seqs[i].Completion)
		}
	})
	if e.batch.Rows() <= sharedRows {
		t.Fatalf("no prompt is shared: %d rows in both", sharedRows)
	}
	largest := float32(0)
	for _, g := range apart {
		largest = max(largest, g, -g)
	}
	for i := range apart {
		if d := together[i] - apart[i]; max(d, -d) > near*largest {
			t.Fatalf("gradient %d is %v with shared prompts, %v without; the largest is %v", i, together[i], apart[i], largest)
		}
	}
}

// TestBFloat16FollowsFloat32: over 300 updates the loss in bfloat16 is within 2 % of the first one of that in float32, on
// average over some sets of sequences, and in none more than 3 % away.
func TestBFloat16FollowsFloat32(t *testing.T) {
	const sets, steps = 4, 300
	all := draw(64 * sets)
	var off [steps]float64 // in each step, summed over the sets
	for set := range sets {
		seqs := all[64*set:][:64]
		var curves [2][]float64
		for precision := range curves {
			e := fresh(t, true)
			e.SetPrecision(kernel.Precision(precision))
			must(t, e.StartOptimizer(adam))
			for step := range steps {
				batch := seqs[step%4*16:][:16]
				result, err := e.Step(ctx, batch, 1e-3, SFTLoss(lengths(batch)))
				must(t, err)
				curves[precision] = append(curves[precision], result.Loss)
			}
		}
		first, last, worst := curves[0][0], curves[0][steps-1], 0.0
		for i, loss := range curves[0] {
			away := math.Abs(loss-curves[1][i]) / first
			worst = max(worst, away)
			off[i] += away
		}
		if worst > 0.03 || last > 0.9*first || worst == 0 {
			t.Errorf("set %d: the loss goes from %v to %v nats a token, and differs by up to %.2f %% of the first in bfloat16", set, first, last, 100*worst)
		}
	}
	if worst := slices.Max(off[:]) / sets; worst > 0.02 {
		t.Errorf("on average the loss differs by up to %.2f %% of the first in bfloat16", 100*worst)
	}
}

func lengths(seqs []Sequence) []int {
	var out []int
	for _, s := range seqs {
		out = append(out, len(s.Completion))
	}
	return out
}

func TestSplitCoversAllWithinTheLimit(t *testing.T) {
	seqs := draw(200)
	order := arrange(seqs)
	for _, limit := range []int{1, 20, 100, 1000, 1 << 20} {
		var covered []int
		for _, run := range split(seqs, order, limit) {
			var b graph.Batch
			pack(&b, seqs, run)
			if len(run) == 0 || (b.Rows() > limit && len(run) > 1) {
				t.Fatalf("limit %d: the run %v has %d rows", limit, run, b.Rows())
			}
			covered = append(covered, run...)
		}
		if !slices.Equal(covered, order) {
			t.Errorf("limit %d: the runs cover %v, want %v", limit, covered, order)
		}
	}
	if n := len(split(seqs, order, 1<<20)); n != 1 {
		t.Errorf("what fits is cut in %d", n)
	}
}

func TestArrangeKeepsEqualPromptsTogether(t *testing.T) {
	a, b := []int32{1, 2}, []int32{1, 2, 3}
	seqs := []Sequence{{a, b}, {b, a}, {[]int32{1, 2}, a}, {b, b}, {[]int32{258}, a}, {a, a}}
	if got, want := arrange(seqs), []int{0, 2, 5, 1, 3, 4}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestStepsAllocateLittle(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // see the graph's TestARunAllocatesLittle
	e := fresh(t, true)
	must(t, e.StartOptimizer(adam))
	seqs := draw(60)
	step := func() {
		_, err := e.Step(ctx, seqs, 1e-3, coupled)
		must(t, err)
	}
	step()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		step()
	}
	runtime.ReadMemStats(&after)
	// The activations of a step are over 1 MB.
	if bytes := (after.TotalAlloc - before.TotalAlloc) / 10; bytes > 60_000 {
		t.Errorf("a step allocates %d bytes", bytes)
	}
}

func TestEnginesAreFreed(t *testing.T) {
	use := func() {
		e := fresh(t, true)
		must(t, e.StartOptimizer(adam))
		_, err := e.Step(ctx, draw(20), 1e-3, coupled)
		must(t, err)
		_, err = e.LogProbs(ctx, draw(20))
		must(t, err)
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	use()
	before := heap()
	for range 30 {
		use()
	}
	// One engine's weights, moments and activations are over 1 MB.
	if grown := heap() - before; grown > 2<<20 {
		t.Errorf("30 engines that nobody holds left %d bytes behind", grown)
	}
}

func TestErrorsSayWhoseFaultItIs(t *testing.T) {
	e := fresh(t, true)
	long := make([]int32, 128) // as many as the model has positions
	one, opt := []int32{3}, generate.DefaultOptions(4)
	_, generated := e.Generate(ctx, []generate.Request{{Prompt: long}}, opt, nil)
	_, scored := e.LogProbs(ctx, []Sequence{{long, one}})
	must(t, e.StartOptimizer(adam))
	_, stepped := e.Step(ctx, []Sequence{{nil, one}}, 1e-3, coupled)
	for what, err := range map[string]error{"generate": generated, "score": scored, "train": stepped} {
		if !errors.Is(err, ErrInput) || errors.Is(err, ErrNotFinite) {
			t.Errorf("%s: error %v, want ErrInput", what, err)
		}
	}
	e.Model().Norm.W[0] = float32(math.NaN())
	e.Model().Changed()
	if _, err := e.Generate(ctx, []generate.Request{{Prompt: one}}, opt, nil); !errors.Is(err, ErrNotFinite) || errors.Is(err, ErrInput) {
		t.Errorf("generate from weights with NaN: error %v, want ErrNotFinite", err)
	}
}

// A loss on tokens whose derivatives are the same over each row is the loss on sums, to the byte; one
// that weighs tokens moves the weights elsewhere, along the slope of its value.
func TestALossOnTokensTrains(t *testing.T) {
	seqs := draw(40)
	onTokens := func(weight func(i int) float64) TokenLossFunc {
		return func(logps [][]float64) (float64, [][]float64, error) {
			value, grad := 0.0, make([][]float64, len(logps))
			for s, row := range logps {
				grad[s] = make([]float64, len(row))
				for i, x := range row {
					value += weight(i) * x * x / 2
					grad[s][i] = weight(i) * x
				}
			}
			return value, grad, nil
		}
	}
	for name, rows := range map[string]int{"in one pass": 1 << 20, "in two phases": 200} {
		t.Run(name, func(t *testing.T) {
			train := func(step func(e *Engine) (StepResult, error)) (*Engine, StepResult) {
				e := fresh(t, true)
				e.trainRows = rows
				must(t, e.StartOptimizer(adam))
				r, err := step(e)
				must(t, err)
				return e, r
			}
			sums, _ := train(func(e *Engine) (StepResult, error) { return e.Step(ctx, seqs, 1e-3, coupled) })
			spread, r := train(func(e *Engine) (StepResult, error) {
				want, err := e.TokenLogProbs(ctx, seqs)
				must(t, err)
				return e.StepTokens(ctx, seqs, 1e-3, func(logps [][]float64) (float64, [][]float64, error) {
					if !slices.EqualFunc(logps, want, slices.Equal[[]float64]) {
						t.Error("the loss sees other log-probs than those that were scored")
					}
					return coupledTokens(logps)
				})
			})
			if sums.Fingerprint() != spread.Fingerprint() || len(r.LogProbs) != len(seqs) {
				t.Error("the same derivatives give other weights on tokens than on sums")
			}

			weigh := onTokens(func(i int) float64 { return float64(i%3) / 100 })
			e, r := train(func(e *Engine) (StepResult, error) { return e.StepTokens(ctx, seqs, 1e-4, weigh) })
			logps, err := e.TokenLogProbs(ctx, seqs)
			must(t, err)
			if after, _, _ := weigh(logps); !(after < r.Loss) {
				t.Errorf("a step along the slope takes the loss from %v to %v", r.Loss, after)
			}
			_, err = e.StepTokens(ctx, seqs, 1e-4, func(logps [][]float64) (float64, [][]float64, error) { return 0, logps[1:], nil })
			if err == nil || !strings.Contains(err.Error(), "39 sequences of 40") {
				t.Errorf("a missing row: %v", err)
			}
			_, err = e.StepTokens(ctx, seqs, 1e-4, func(logps [][]float64) (float64, [][]float64, error) {
				return 0, append([][]float64{{}}, logps[1:]...), nil
			})
			if err == nil || !strings.Contains(err.Error(), "0 derivatives for the") {
				t.Errorf("a short row: %v", err)
			}
		})
	}
}

// coupledTokens is coupled as a loss of tokens.
func coupledTokens(logps [][]float64) (float64, [][]float64, error) {
	sums := make([]float64, len(logps))
	for i, row := range logps {
		for _, x := range row {
			sums[i] += x
		}
	}
	value, grad, err := coupled(sums)
	rows := make([][]float64, len(logps))
	for i, g := range grad {
		rows[i] = slices.Repeat([]float64{g}, len(logps[i]))
	}
	return value, rows, err
}
