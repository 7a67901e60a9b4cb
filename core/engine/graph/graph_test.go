package graph_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
)

// tiny is the smallest configuration with grouped heads and a tail in every block size.
func tiny(tied bool) model.Config {
	return model.Config{Vocab: 37, Width: 20, FFN: 28, Layers: 2, Heads: 4, KVHeads: 2, HeadDim: 6, MaxPositions: 256,
		NormEps: 1e-5, Rope: model.Rope{Theta: 10000, Type: "default"}, Tied: tied, InitStd: 0.4, BOS: -1, Pad: -1}
}

// configs are tiny ones of each family. A window of five is shorter than prompts, and than what follows them.
func configs() map[string]model.Config {
	all := map[string]model.Config{"tied": tiny(true), "untied": tiny(false)}
	sliced := tiny(true) // its vocabulary has three slices
	sliced.Vocab = 2*kernel.SumBlock + 29
	all["a large vocabulary"] = sliced
	local := model.Rope{Theta: 100, Type: "default"}
	for f, sliding := range map[model.Family][]bool{model.Mistral: {true, true}, model.Qwen3: nil, model.Gemma3: {true, false}} {
		c := tiny(f == model.Gemma3)
		c.Family = f
		if c.Sliding = sliding; sliding != nil {
			c.Window, c.LocalRope = 5, local
		}
		if f == model.Gemma3 {
			c.QueryScalar = 11
		}
		all[f.String()] = c
	}
	return all
}

// newModel is a model with fresh weights, but for the norms: these are all kinds of numbers.
func newModel(t *testing.T, c model.Config) *model.Model {
	t.Helper()
	m, err := model.New(c, 3)
	must(t, err)
	rng := rand.New(rand.NewPCG(7, 8))
	for _, p := range m.Params().All {
		for i := range p.W {
			if len(p.Shape) == 1 {
				p.W[i] += float32(rng.NormFloat64()) / 4
			}
		}
	}
	return m
}

type sequence struct{ prompt, completion []int32 }

// ragged draws sequences of the given lengths, a third of each being the prompt.
func ragged(vocab int, lengths ...int) []sequence {
	rng := rand.New(rand.NewPCG(1, 2))
	var out []sequence
	for _, n := range lengths {
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(rng.IntN(vocab))
		}
		p := max(1, n/3)
		out = append(out, sequence{ids[:p], ids[p:]})
	}
	return out
}

func pack(seqs ...sequence) *graph.Batch {
	b := &graph.Batch{}
	for _, s := range seqs {
		b.Add(s.prompt, s.completion)
	}
	return b
}

// mixed is a loss that is curved in its inputs and couples the sequences.
func mixed(logps []float64) (float64, []float64, error) {
	loss, grad := 0.0, make([]float64, len(logps))
	for i, lp := range logps {
		w := 1 + 0.1*float64(i)
		loss += w * math.Tanh(lp/40)
		grad[i] = w * (1 - math.Pow(math.Tanh(lp/40), 2)) / 40
	}
	return loss, grad, nil
}

func TestGorgoniaStarts(t *testing.T) {
	// Without this pin the process panics before main on a Go that is newer than the package.
	data, err := os.ReadFile("../../../go.mod")
	must(t, err)
	pin := regexp.MustCompile(`go4\.org/unsafe/assume-no-moving-gc v0\.0\.0-20231121144256-b99613f794b6\b`)
	if !pin.Match(data) {
		t.Error("go.mod does not pin go4.org/unsafe/assume-no-moving-gc at v0.0.0-20231121144256-b99613f794b6")
	}
	m := newModel(t, tiny(false))
	score, err := m.Score()
	must(t, err)
	must(t, score.Run(context.Background(), pack(ragged(37, 5)...)))
	if lp := score.LogProbs()[0]; !(lp < 0) {
		t.Errorf("the log-probability of a sequence is %v, want less than 0", lp)
	}
}

func TestGradientsAgainstFiniteDifferences(t *testing.T) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			m := newModel(t, c)
			train, err := m.Train()
			must(t, err)
			score, err := m.Score()
			must(t, err)
			b := pack(ragged(37, 9, 1+1, 14, 5)...)
			b.Add([]int32{7, 1, 30}, []int32{4, 9, 9}, []int32{36}, []int32{4, 0, 2, 11, 9})
			b.Add([]int32{11, 5}, alike()...)
			loss, err := train.Run(context.Background(), b, mixed)
			must(t, err)
			at := func() float64 {
				must(t, score.Run(context.Background(), b))
				l, _, _ := mixed(score.LogProbs())
				return l
			}
			if got := at(); got != loss {
				t.Fatalf("the loss is %v on the score graph, %v on the train graph", got, loss)
			}
			rng := rand.New(rand.NewPCG(5, 6))
			for _, p := range m.Params().All {
				// A direction that is half random, half the gradient's own, so that the derivative is not near 0.
				dir, n := make([]float64, len(p.W)), norm(p.Grad)
				length := 0.0
				for i := range dir {
					dir[i] = rng.NormFloat64()/math.Sqrt(float64(len(dir))) + float64(p.Grad[i])/n
					length += dir[i] * dir[i]
				}
				want := 0.0
				for i := range dir {
					dir[i] /= math.Sqrt(length)
					want += dir[i] * float64(p.Grad[i])
				}
				old := slices.Clone(p.W)
				move := func(h float64) float64 {
					for i := range p.W {
						p.W[i] = old[i] + float32(h*dir[i])
					}
					l := at()
					copy(p.W, old)
					return l
				}
				const h = 0.005 // the fourth-order stencil: error of order h⁴ by truncation, 1e-6/h by rounding
				got := (8*(move(h)-move(-h)) - (move(2*h) - move(-2*h))) / (12 * h)
				near(t, "derivative by "+p.Name, want, got, 2e-3*math.Abs(got)+2e-4)
			}
		})
	}
}

// train runs the model's train graph and returns the log-probabilities, and the bytes of the gradients.
func gradients(t *testing.T, m *model.Model, b *graph.Batch) ([]float64, []float32) {
	t.Helper()
	g, err := m.Train()
	must(t, err)
	m.Params().ZeroGrad()
	_, err = g.Run(context.Background(), b, mixed)
	must(t, err)
	return slices.Clone(g.LogProbs()), slices.Clone(m.Params().Grad)
}

// The backward pass takes the logits that were kept, and computes the others again: the same bytes.
func TestKeptLogitsChangeNothing(t *testing.T) {
	c := configs()["a large vocabulary"]
	m := newModel(t, c)
	b := pack(ragged(c.Vocab, 37, 9, 2, 14, 5)...)
	scored := len(b.Scored)
	var wantLogPs []float64
	var want []float32
	for most, ids := range map[int]int{
		scored * c.Vocab: c.Vocab, scored*c.Vocab - 1: 2 * kernel.SumBlock, scored*2*kernel.SumBlock - 1: kernel.SumBlock, scored*kernel.SumBlock - 1: 0,
	} {
		func() {
			defer graph.KeepLogits(most)()
			if got := graph.KeptLogits(scored, c.Vocab); got != ids {
				t.Errorf("of %d ids are kept if there may be %d logits, want %d", got, most, ids)
			}
			logPs, grads := gradients(t, m, b)
			if want == nil {
				wantLogPs, want = logPs, grads
			}
			if !slices.Equal(logPs, wantLogPs) || !slices.Equal(grads, want) {
				t.Errorf("results differ where the logits of %d ids are kept", ids)
			}
		}()
	}
}

func TestLogProbsAreTheSameBytesInAnyBatch(t *testing.T) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			m := newModel(t, c)
			score, err := m.Score()
			must(t, err)
			train, err := m.Train()
			must(t, err)
			seqs := ragged(37, 33, 2, 70, 15, 64, 3, 129)
			var alone []float64
			var tokens [][]float64
			for _, s := range seqs {
				must(t, score.Run(context.Background(), pack(s)))
				alone = append(alone, score.LogProbs()[0])
				tokens = append(tokens, slices.Clone(score.TokenLogProbs()))
			}
			backwards := slices.Clone(seqs)
			slices.Reverse(backwards)
			for _, order := range [][]sequence{seqs, backwards, seqs[2:5], append(slices.Clone(seqs), seqs...)} {
				b := pack(order...)
				must(t, score.Run(context.Background(), b))
				scored := slices.Clone(score.LogProbs())
				_, err := train.Run(context.Background(), b, mixed)
				must(t, err)
				for i, s := range order {
					j := slices.IndexFunc(seqs, func(o sequence) bool { return &o.prompt[0] == &s.prompt[0] })
					if scored[i] != alone[j] || train.LogProbs()[i] != alone[j] {
						t.Errorf("sequence %d of %d: %v scored, %v trained, %v alone", j, len(order), scored[i], train.LogProbs()[i], alone[j])
					}
					if got := train.TokenLogProbs()[b.ScoredCu[i]:b.ScoredCu[i+1]]; !slices.Equal(got, tokens[j]) {
						t.Errorf("sequence %d of %d: its token log-probs differ from those alone", j, len(order))
					}
				}
			}
			// A prompt that completions share.
			prompt := seqs[4].prompt
			b := pack(seqs[0])
			b.Add(prompt, seqs[0].completion, seqs[4].completion, seqs[1].completion)
			must(t, score.Run(context.Background(), b))
			shared := slices.Clone(score.LogProbs()[1:])
			for i, of := range []sequence{seqs[0], seqs[4], seqs[1]} {
				must(t, score.Run(context.Background(), pack(sequence{prompt, of.completion})))
				if got := score.LogProbs()[0]; got != shared[i] {
					t.Errorf("completion %d: %v after a prompt that is shared, %v alone", i, shared[i], got)
				}
			}
		})
	}
}

// alike are completions of which some begin alike.
func alike() [][]int32 {
	rng := rand.New(rand.NewPCG(3, 4))
	var one, other []int32
	for range 40 {
		one, other = append(one, int32(rng.IntN(37))), append(other, int32(rng.IntN(37)))
	}
	other[0], other[4] = one[20]^1, one[30]^1
	return [][]int32{
		one,
		slices.Concat(one[:20], other[:9]),
		slices.Concat(one[:3], other[:30]), // too little to share
		one,
		slices.Concat(one[:30], other[4:8]),
		one[:25], // what others go on with
		slices.Concat(one[:20], other[:12]),
		one[:1], one[:2],
	}
}

// What completions begin with alike stands once. The log-probabilities are those of each alone, to the bit, and the gradient is
// that of each alone.
func TestCompletionsThatBeginAlikeShareRows(t *testing.T) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			m := newModel(t, c)
			prompt := []int32{3, 1, 4}
			var together, apart graph.Batch
			together.Add(prompt, alike()...)
			for _, completion := range alike() {
				apart.Add(prompt, completion)
			}
			// The prompt; of the first completion 39 rows, of the others what they do not share with those before: of the
			// one of 25 tokens four, fewer than are worth it, behind the 20 that most begin with.
			if want := 3 + 39 + 8 + 32 + 0 + 3 + 4 + 3 + 0 + 1; together.Rows() != want {
				t.Errorf("%d rows, want %d", together.Rows(), want)
			}
			got, dw := gradients(t, m, &together)
			want, each := gradients(t, m, &apart)
			if !slices.Equal(got, want) {
				t.Errorf("log-probabilities %v with shared rows, %v alone", got, want)
			}
			largest := 0.0
			for _, g := range each {
				largest = max(largest, math.Abs(float64(g)))
			}
			for i := range each {
				near(t, fmt.Sprintf("gradient %d", i), float64(dw[i]), float64(each[i]), 1e-5*largest)
			}
		})
	}
}

func TestResultsDoNotDependOnThreads(t *testing.T) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			m := newModel(t, c)
			seqs := ragged(37, 90, 2, 250, 31, 64, 200, 120, 17, 100, 30)
			b := pack(seqs...)
			for _, s := range seqs[2:5] {
				b.Add(s.prompt, seqs[0].completion, s.completion, seqs[8].completion, seqs[9].completion)
			}
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			logps, grads := gradients(t, m, b)
			for _, n := range []int{2, 7} {
				runtime.GOMAXPROCS(n)
				l, g := gradients(t, m, b)
				if !slices.Equal(l, logps) || !slices.Equal(g, grads) {
					t.Errorf("with %d threads log-probs or gradients are other bytes than with 1", n)
				}
			}
		})
	}
}

func TestAGraphTakesAnyShape(t *testing.T) {
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) {
			m := newModel(t, c)
			reused, err := m.Train()
			must(t, err)
			for _, lengths := range [][]int{{10, 3}, {64, 64, 64, 64}, {100, 7, 33, 2}, {2}, {10, 3}} {
				seqs := ragged(37, lengths...)
				b := pack(seqs...)
				b.Add(seqs[0].prompt, seqs[0].completion, seqs[len(seqs)-1].completion)
				wantLogps, want := gradients(t, m, b)
				m.Params().ZeroGrad()
				_, err := reused.Run(context.Background(), b, mixed)
				must(t, err)
				if !slices.Equal(reused.LogProbs(), wantLogps) || !slices.Equal(m.Params().Grad, want) {
					t.Errorf("lengths %v: a graph that has run on other shapes and a new one differ", lengths)
				}
			}
		})
	}
}

func TestGradientsAddUpOverBatches(t *testing.T) {
	m := newModel(t, tiny(true))
	train, err := m.Train()
	must(t, err)
	seqs := ragged(37, 20, 30, 12, 40)
	sum := func(logps []float64) (float64, []float64, error) {
		grad := make([]float64, len(logps))
		for i := range grad {
			grad[i] = 1
		}
		return 0, grad, nil
	}
	_, err = train.Run(context.Background(), pack(seqs...), sum)
	must(t, err)
	whole := slices.Clone(m.Params().Grad)
	m.Params().ZeroGrad()
	for _, part := range [][]sequence{seqs[:1], seqs[1:]} {
		_, err = train.Run(context.Background(), pack(part...), sum)
		must(t, err)
	}
	scale := norm(whole)
	for i, g := range m.Params().Grad {
		if math.Abs(float64(g-whole[i])) > 1e-6*scale {
			t.Fatalf("gradient %d is %v in two batches, %v in one", i, g, whole[i])
		}
	}
}

func TestAFrozenParameterGetsNoGradient(t *testing.T) {
	m := newModel(t, tiny(false))
	b := pack(ragged(37, 20, 30)...)
	_, free := gradients(t, m, b)
	if norm(m.Layers[0].Q.Grad) == 0 || norm(m.Embed.Grad) == 0 {
		t.Fatal("the gradients to be frozen are zero before")
	}
	frozen := []*graph.Param{m.Embed, m.Layers[0].Q, m.Layers[1].MLPNorm, m.Head}
	for _, p := range frozen {
		p.Frozen = true
	}
	gradients(t, m, b)
	for _, p := range frozen {
		if norm(p.Grad) != 0 {
			t.Errorf("%s is frozen and has a gradient", p.Name)
		}
	}
	for i, p := range m.Params().All {
		if !p.Frozen && norm(p.Grad) == 0 {
			t.Errorf("parameter %d, %s, has no gradient", i, p.Name)
		}
	}
	for _, p := range frozen {
		p.Frozen = false
	}
	if _, again := gradients(t, m, b); !slices.Equal(free, again) {
		t.Error("after thawing the gradients are not what they were")
	}
}

func TestF44FailuresAreErrorsAndTheGraphGoesOn(t *testing.T) {
	m := newModel(t, tiny(false))
	train, err := m.Train()
	must(t, err)
	good := pack(ragged(37, 12, 20)...)
	want, err := train.Run(context.Background(), good, mixed)
	must(t, err)

	errPlugin := errors.New("the plugin is gone")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	outside := pack(sequence{[]int32{1, 99}, []int32{2}})
	for name, c := range map[string]struct {
		ctx   context.Context
		batch *graph.Batch
		loss  graph.LossFunc
		is    error
		text  string
	}{
		"the loss fails":              {context.Background(), good, func([]float64) (float64, []float64, error) { return 0, nil, errPlugin }, errPlugin, "compute the loss"},
		"the loss panics":             {context.Background(), good, func([]float64) (float64, []float64, error) { panic("boom") }, nil, "boom"},
		"a derivative is missing":     {context.Background(), good, func([]float64) (float64, []float64, error) { return 0, []float64{1}, nil }, nil, "1 derivatives for 2"},
		"the context is done":         {cancelled, good, mixed, context.Canceled, ""},
		"a token is outside of V":     {context.Background(), outside, mixed, nil, "token id 99"},
		"a target is outside of V":    {context.Background(), pack(sequence{[]int32{1}, []int32{99}}), mixed, nil, "head log-probs"},
		"the batch has no sequence":   {context.Background(), &graph.Batch{}, mixed, nil, "empty"},
		"the context ends in a step":  {nil, good, nil, context.Canceled, ""},
		"a batch that was only reset": {context.Background(), func() *graph.Batch { b := &graph.Batch{}; b.Reset(); return b }(), mixed, nil, "empty"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, loss := c.ctx, c.loss
			if ctx == nil {
				var stop context.CancelFunc
				ctx, stop = context.WithCancel(context.Background())
				loss = func(lp []float64) (float64, []float64, error) { stop(); return mixed(lp) }
			}
			_, err := train.Run(ctx, c.batch, loss)
			if err == nil || (c.is != nil && !errors.Is(err, c.is)) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("the error is %v, want one that is %v and says %q", err, c.is, c.text)
			}
			got, err := train.Run(context.Background(), good, mixed)
			must(t, err)
			if got != want {
				t.Errorf("the loss afterwards is %v, was %v", got, want)
			}
		})
	}
}

func TestAWrongShapeIsRefused(t *testing.T) {
	m := newModel(t, tiny(false))
	dims := graph.Dims{Width: 20, FFN: 28, Heads: 4, KVHeads: 2, HeadDim: 6, Eps: 1e-5, Scale: 1}
	l := m.Layers[0]
	for name, wire := range map[string]func(b *graph.Builder){
		"gate and down swapped": func(b *graph.Builder) {
			b.HeadLogProbs(b.MLP(b.Embed(m.Embed, 1), graph.MLPParams{Norm: l.MLPNorm, Gate: l.Down, Up: l.Up, Down: l.Gate}), m.Norm, m.Head)
		},
		"a head's norm without the other": func(b *graph.Builder) {
			b.HeadLogProbs(b.Attention(b.Embed(m.Embed, 1), graph.AttentionParams{Norm: l.AttnNorm, Q: l.Q, K: l.K, V: l.V, O: l.O, QNorm: l.AttnNorm},
				m.Reach(0)), m.Norm, m.Head)
		},
		"a missing parameter": func(b *graph.Builder) {
			b.HeadLogProbs(b.Attention(b.Embed(m.Embed, 1), graph.AttentionParams{Norm: l.AttnNorm, Q: l.Q, K: l.K, V: l.V}, m.Reach(0)), m.Norm, m.Head)
		},
		"no head": func(b *graph.Builder) { b.Embed(m.Embed, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			b := graph.NewBuilder(m.Params(), dims)
			wire(b)
			if _, err := b.Train(); err == nil {
				t.Error("the graph was built")
			}
		})
	}
}

func TestGraphsBuiltTogetherAgree(t *testing.T) {
	c := tiny(true)
	b := pack(ragged(37, 12, 20)...)
	logps, grads := gradients(t, newModel(t, c), b)
	var wg sync.WaitGroup
	for range 4 {
		m := newModel(t, c)
		wg.Go(func() {
			g, err := m.Train()
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := g.Run(context.Background(), b, mixed); err != nil {
				t.Error(err)
				return
			}
			if !slices.Equal(g.LogProbs(), logps) || !slices.Equal(m.Params().Grad, grads) {
				t.Error("a graph built beside others gives other bytes")
			}
		})
	}
	wg.Wait()
}

func TestF44GraphsAreFreed(t *testing.T) {
	b := pack(ragged(37, 60, 60)...)
	build := func() {
		m := newModel(t, tiny(true))
		gradients(t, m, b)
	}
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	build()
	before := heap()
	for range 40 {
		build()
	}
	// One engine's arenas and activations are over 100 kB: 40 that stayed would be over 4 MB.
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("40 graphs that nobody holds left %d bytes behind", grown)
	}
}

func TestARunAllocatesLittle(t *testing.T) {
	// With two, a second task's memory may be made in the first run or in any later one.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for name, c := range configs() {
		t.Run(name, func(t *testing.T) { runAllocatesLittle(t, newModel(t, c)) })
	}
}

func runAllocatesLittle(t *testing.T, m *model.Model) {
	train, err := m.Train()
	must(t, err)
	b := pack(ragged(37, 60, 60, 100, 200)...)
	run := func() {
		_, err := train.Run(context.Background(), b, mixed)
		must(t, err)
	}
	run()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 10 {
		run()
	}
	runtime.ReadMemStats(&after)
	// The activations alone are over 500 kB; what a run may allocate is the machine's small change.
	if bytes := (after.TotalAlloc - before.TotalAlloc) / 10; bytes > 24_000 {
		t.Errorf("a run allocates %d bytes", bytes)
	}
}

// A token's derivative is that of a sequence that ends with it and scores nothing else.
func TestTokensHaveDerivativesOfTheirOwn(t *testing.T) {
	m := newModel(t, tiny(true))
	train, err := m.Train()
	must(t, err)
	seqs := ragged(37, 20, 9)
	weight := func(i int) float64 { return math.Sin(float64(3 * i)) }
	_, err = train.RunTokens(context.Background(), pack(seqs...), func(tokens []float64) (float64, []float64, error) {
		grad := make([]float64, len(tokens))
		for i := range grad {
			grad[i] = weight(i)
		}
		return 0, grad, nil
	})
	must(t, err)
	whole := slices.Clone(m.Params().Grad)
	m.Params().ZeroGrad()
	var each []sequence
	for _, s := range seqs {
		all := slices.Concat(s.prompt, s.completion)
		for i := range s.completion {
			at := len(s.prompt) + i
			each = append(each, sequence{all[:at], all[at : at+1]})
		}
	}
	_, err = train.Run(context.Background(), pack(each...), func(logps []float64) (float64, []float64, error) {
		grad := make([]float64, len(logps))
		for i := range grad {
			grad[i] = weight(i)
		}
		return 0, grad, nil
	})
	must(t, err)
	scale := norm(whole)
	for i, g := range m.Params().Grad {
		if math.Abs(float64(g-whole[i])) > 1e-6*scale {
			t.Fatalf("gradient %d is %v from the tokens' own sequences, %v from one", i, g, whole[i])
		}
	}
}
