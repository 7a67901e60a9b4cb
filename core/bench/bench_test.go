package bench

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/model"
)

var ctx = context.Background()

// silent is nobody who looks on.
type silent struct{ done int }

func (*silent) Start(string, int) {}
func (s *silent) Add(n int)       { s.done += n }
func (*silent) Done()             {}

func TestFLOPByHand(t *testing.T) {
	// A layer has 4·(4+2·2) weights to make q, k and v, 4·4 of the output and 3·4·8 of the feed-forward half: 144.
	c := model.Config{Vocab: 10, Width: 4, FFN: 8, Layers: 1, Heads: 2, KVHeads: 1, HeadDim: 2}
	for name, test := range map[string]struct{ got, want FLOP }{
		// Two sequences of 2+3 tokens. Done: 8 rows, two of them without the last 3·4·8 weights, 2·4²/2 pairs, 6 logits. Plainly:
		// 10 rows, 2·5²/2 pairs.
		"a step": {
			stepFLOP(c, Batch{2, 1, 2, 3}, 1),
			FLOP{Executed: 3 * (2*144*8 - 2*96*2 + 16*16 + 80*6), Recomputed: 16 * 8, Skipped: 3 * (2*144*2 + 2*96*2 + 16*9)},
		},
		"a step in two phases": {
			stepFLOP(c, Batch{2, 1, 2, 3}, 2),
			FLOP{Executed: 7968, Recomputed: 128 + 2656, Skipped: 3312},
		},
		// Two sequences of one prompt. Done: 2+2·2 rows, 2²/2 + 2·(2·2+2²/2) pairs, 1+2·2 logits.
		"a step, a prompt shared": {
			stepFLOP(c, Batch{1, 2, 2, 3}, 1),
			FLOP{Executed: 3 * (2*144*6 - 2*96 + 16*14 + 80*5), Recomputed: 16 * 7, Skipped: 3 * (2*144*4 + 2*96 + 16*11 + 80)},
		},
		// Four sequences of two prompts, 2+3 tokens. Done: the prompts' 4 rows, two of them without the last 3·4·8 and 4·4
		// weights, and two tokens of each sequence, which see 3 and 4 keys. Plainly: 4·2 and 4·3 rows; 2, 3 and 4 keys.
		"sampling": {
			sampleFLOP(c, Batch{2, 2, 2, 3}),
			FLOP{Executed: 2*144*12 - 2*112*2 + 16*(4+4*7) + 80*12, Skipped: 2*144*8 + 2*112*2 + 16*(8+4*9) - 16*(4+4*7)},
		},
		"sampling, nothing shared": {
			sampleFLOP(c, Batch{4, 1, 2, 3}),
			FLOP{Executed: 2*144*16 - 2*112*4 + 16*(8+4*7) + 80*12, Skipped: 2*144*4 + 2*112*4 + 16*4*2},
		},
	} {
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// What is executed and what is skipped are together the plain algorithm. Its formulas are those that PyTorch and others
// were measured with, for lin = L·(d·(H+2K)·D + H·D·d + 3·d·F) weights of the layers and att = H·D:
//
//	forward  2·lin·rows·T + 2·d·V·logits + L·rows·2·att·T²
//	update   3·forward of 8 rows, T = 128, 8·64 logits, where the reference's log-probabilities are at hand
//	sampling 40·(2·lin·128 + 2·d·V·64 + L·4·att·(64+65+…+127) + L·2·att·64²)
func TestFLOPOfThePlainAlgorithm(t *testing.T) {
	for name, want := range map[string]struct{ step, sample float64 }{
		"tiny":     {6945767424, 11573657600},
		"small":    {41674604544, 69448826880},
		"small32k": {66362277888, 110594949120},
		// lin = 18·(640·(4+2)·256 + 4·256·640 + 3·640·2048), att = 1024
		"gemma270m": {6*100270080*1024 + 6*640*262144*512 + 3*18*8*2*1024*128*128,
			40 * (2*100270080*128 + 2*640*262144*64 + 18*4*1024*6112 + 18*2*1024*64*64)},
	} {
		c := config(t, name)
		step, sample := stepFLOP(c, DefaultTrain, 1), sampleFLOP(c, DefaultSample)
		if got := step.Executed + step.Skipped; got != want.step {
			t.Errorf("%s: a step is %.0f operations, want %.0f", name, got, want.step)
		}
		if got := sample.Executed + sample.Skipped; got != want.sample {
			t.Errorf("%s: sampling is %.0f operations, want %.0f", name, got, want.sample)
		}
	}
}

// The rows that a step is said to skip are those that a batch does not have: completions of random tokens share none of theirs.
func TestAStepHasTheRowsThatAreCounted(t *testing.T) {
	promptTokens, completionTokens := DefaultTrain.PromptTokens, DefaultTrain.CompletionTokens
	const vocab = 256 // the smallest of a shape
	prompt, completions := draw(vocab, 1, promptTokens)[0], draw(vocab, 2, completionTokens)
	var b graph.Batch
	b.Add(prompt, completions[0])
	if b.Rows() != promptTokens+completionTokens-1 || len(b.Scored) != completionTokens {
		t.Errorf("a sequence has %d rows, %d of them scored", b.Rows(), len(b.Scored))
	}
	b.Reset()
	b.Add(prompt, completions...)
	if b.Rows() != promptTokens+2*(completionTokens-1) || len(b.Scored) != 1+2*(completionTokens-1) {
		t.Errorf("two sequences of a prompt have %d rows, %d of them scored", b.Rows(), len(b.Scored))
	}
}

// config is a shape's, without its weights.
func config(t *testing.T, name string) model.Config {
	t.Helper()
	for _, s := range shapes {
		if s.name == name {
			return s.config
		}
	}
	t.Fatalf("there is no shape %q", name)
	return model.Config{}
}

func TestShapes(t *testing.T) {
	want := map[string]int64{
		"tiny": 1048576 + 2*256*128 + 9*128, "small": 5971968 + 4096*288 + 13*288, "small32k": 5971968 + 32000*288 + 13*288,
		"gemma270m": 268098176, // as transformers counts them
	}
	for _, name := range Shapes() {
		c := config(t, name)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := c.Parameters(); n != want[name] {
			t.Errorf("%s has %d parameters, want %d", name, n, want[name])
		}
		if n := c.Parameters(); n < 1<<25 { // what is larger takes seconds to draw
			if e, err := NewModel(name); err != nil || e.Model().Config.Parameters() != n {
				t.Errorf("%s is made with error %v", name, err)
			}
		}
	}
	if _, err := NewModel("huge"); err == nil {
		t.Error("a shape is made that is none")
	}
}

func TestTheRoofIsTheLowest(t *testing.T) {
	m := Machine{PeakGFLOPS: 200, ReadGBs: 50, UpdateGBs: 80}
	for name, test := range map[string]struct {
		flop, bytes float64
		readOnly    bool
		roof        float64
		bound       string
	}{
		"many operations a byte":           {100, 1, false, 200, "peak"},
		"few, and it writes":               {1, 2, false, 40, "update"},
		"few, and it only reads":           {1, 2, true, 25, "read"},
		"as many as make no difference":    {4, 1, true, 200, "read"},
		"compute-bound where it only read": {5, 1, true, 200, "peak"},
	} {
		k := Kernel{FLOP: test.flop * 1e9, Bytes: test.bytes * 1e9, Timing: Timing{Seconds: 0.5, SecondsMedian: 1}}
		k.under(m, m.PeakGFLOPS, test.readOnly)
		want := Kernel{
			FLOP: k.FLOP, Bytes: k.Bytes, Timing: k.Timing, Intensity: test.flop / test.bytes, RoofGFLOPS: test.roof, Bound: test.bound,
			GFLOPS: 2 * test.flop, GBs: 2 * test.bytes, Share: 2 * test.flop / test.roof, ShareMedian: test.flop / test.roof,
		}
		if diff := cmp.Diff(want, k); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSpeedIsOfTheBestRunAndOfTheMedian(t *testing.T) {
	s := Speed{Tokens: 1000, Timing: Timing{Seconds: 2, SecondsMedian: 4}, FLOP: FLOP{Executed: 40e9, Recomputed: 1e9, Skipped: 1e9}}
	s.under(100)
	if s.TokensPerSecond != 500 || s.TokensPerSecondMedian != 250 || s.GFLOPS != 20 || s.Utilisation != 0.2 || s.UtilisationMedian != 0.1 {
		t.Errorf("it is %+v", s)
	}
}

func TestDPOLossHasItsDerivatives(t *testing.T) {
	reference := []float64{-3, -4, -1, -7, -2, -5}
	for _, n := range []int{2, 3, 6} {
		loss := dpoLoss(0.1, n, reference)
		if value, _, _ := loss(reference); n == 2 && math.Abs(value-math.Ln2) > 1e-12 {
			t.Errorf("where nothing has moved the loss is %v, want log 2", value)
		}
		at := []float64{-2, -6, -3, -5, -4, -1}
		_, grad, _ := loss(at)
		for i := range at {
			const h = 1e-5
			up, down := append([]float64{}, at...), append([]float64{}, at...)
			up[i], down[i] = at[i]+h, at[i]-h
			a, _, _ := loss(up)
			b, _, _ := loss(down)
			if want := (a - b) / (2 * h); math.Abs(grad[i]-want) > 1e-8 {
				t.Errorf("groups of %d: the derivative by log-probability %d is %v, want %v", n, i, grad[i], want)
			}
		}
	}
	// One group of three has the pairs 01, 02 and 12: this is their mean.
	sigma := func(h float64) float64 { return math.Log1p(math.Exp(-0.1 * h)) }
	if value, _, _ := dpoLoss(0.1, 3, []float64{0, 0, 0})([]float64{1, 3, 7}); math.Abs(value-(sigma(-2)+sigma(-6)+sigma(-4))/3) > 1e-12 {
		t.Errorf("the loss of three completions is %v", value)
	}
}

func TestParseBatch(t *testing.T) {
	b, err := ParseBatch("4x5:64+128")
	if want := (Batch{4, 5, 64, 128}); err != nil || b != want || b.Sequences() != 20 || b.Pairs() != 40 || b.String() != "4x5:64+128" {
		t.Errorf("it is %+v, %v", b, err)
	}
	for _, s := range []string{"", "4", "4x5", "4x5:64", "4x5:64+", "4x5:64+64x", "4x5:64+64 1", "0x5:64+64", "4x-5:64+64", "4x5:0+64", "2000x2000:1+1", "99999999999999999999x1:1+1"} {
		if b, err := ParseBatch(s); err == nil {
			t.Errorf("%q is read as %+v", s, b)
		}
	}
}

func TestACaseIsRunOnceUntimedAndOnceAtLeast(t *testing.T) {
	calls, p := 0, &silent{}
	timing, err := Timer{Seconds: 1e-12, Progress: p}.time(ctx, func() error { calls++; return nil })
	if err != nil || calls != 2 || timing.Runs != 1 || p.done != 1 || !(timing.Seconds > 0) || timing.SecondsMedian != timing.Seconds {
		t.Errorf("%d calls, %+v, %d told of, %v", calls, timing, p.done, err)
	}
	broken := errors.New("broken")
	for name, fails := range map[string]int{"at once": 1, "later": 3} {
		calls = 0
		_, err := Timer{Seconds: 1, Progress: p}.time(ctx, func() error {
			if calls++; calls == fails {
				return broken
			}
			return nil
		})
		if !errors.Is(err, broken) || calls != fails {
			t.Errorf("a run that fails %s ends with %v after %d calls", name, err, calls)
		}
	}
	cancelled, cancel := context.WithCancel(ctx)
	calls = 0
	_, err = Timer{Seconds: 1, Progress: p}.time(cancelled, func() error { calls++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || calls != 1 {
		t.Errorf("a case that is cancelled ends with %v after %d calls", err, calls)
	}
}

// Arrays of a case must not overlap, and must all be there.
func TestTheArenaHoldsEveryCase(t *testing.T) {
	a := &arena{all: make([]float32, 3*(100+gap))}
	a.rest = a.all
	x, y := a.take(100), a.take(50)
	for i := range x {
		x[i] = 1
	}
	if len(x) != 100 || len(y) != 50 || cap(x) != 100 || y[0] != 0 {
		t.Errorf("arrays of %d and %d, the second begins with %v", len(x), len(y), y[0])
	}
	for arrays := 1; arrays <= 5; arrays++ {
		if used := arrays * (room(arrays) + 15 + gap); used > arenaFloats {
			t.Errorf("%d arrays take %d numbers of %d", arrays, used, arenaFloats)
		}
	}
}

// widest is a result with figures of a very large machine, and all that can stand in a line.
func widest() Result {
	speed := Speed{
		Sequences: 40, Prompts: 8, PromptTokens: 64, CompletionTokens: 64, TokensPerSecond: 9999999, TokensPerSecondMedian: 9999999,
		GFLOPS: 99999.94, Utilisation: 0.9994, UtilisationMedian: 0.9994,
	}
	r := Result{
		Kernel: "avx512", Threads: 1024,
		Machine: &Machine{99999.94, 9999.94, 99999.94, 9999.94, 999.94, 9999.94, 999.94},
		Model:   &Model{Name: "embedded:geometry", Precision: "bfloat16", Weights: "bfloat16", Parameters: 1 << 34, Train: speed, Sample: speed},
		Iteration: &Iteration{Script: "my-experiment.lua", Model: "embedded:geometry", Prompts: 999999, Completions: 9999999, Steps: 99999,
			Seconds: map[string]float64{"sample": 99999.94}, TotalSeconds: 99999.94},
	}
	for _, c := range kernelCases() {
		r.Kernels = append(r.Kernels, Kernel{Name: c.name, Shape: c.shape, GFLOPS: 99999.94, GBs: 9999.94, Intensity: 999.94,
			Bound: "update", Share: 9.994, ShareMedian: 9.994})
	}
	return r
}

func TestTheTextHas80Columns(t *testing.T) {
	var text strings.Builder
	if err := Write(&text, widest()); err != nil {
		t.Fatal(err)
	}
	table := 0
	for _, line := range strings.Split(text.String(), "\n") {
		if n := utf8.RuneCountInString(line); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
		if strings.TrimRight(line, " ") != line {
			t.Errorf("it ends with white space: %q", line)
		}
		if before, _, ok := strings.Cut(line, " update "); ok {
			if n := utf8.RuneCountInString(before); table != 0 && n != table {
				t.Errorf("the column is at %d, before at %d: %s", n, table, line)
			} else if strings.Contains(line, "x") {
				table = n
			}
		}
	}
}

func TestTheTextShowsWhatWasMeasured(t *testing.T) {
	r := widest()
	r.Threads, r.Kernels, r.Model = 2, r.Kernels[:1], nil
	r.Machine = &Machine{200, 100, 400, 50, 25, 80.25, 40}
	r.Kernels[0].GFLOPS, r.Kernels[0].GBs, r.Kernels[0].Intensity, r.Kernels[0].Bound = 180, 1.5, 128, "peak"
	r.Kernels[0].Share, r.Kernels[0].ShareMedian = 0.9, 0.85
	r.Iteration.Seconds = map[string]float64{"sample": 4, "pair": 0.25, "train": 2, "evaluate": 1.5}
	r.Iteration.TotalSeconds = 7.75
	want := `kernels avx512, 2 threads

machine   1 thread  2 threads
peak         100.0      200.0 GFLOP/s
                        400.0 GFLOP/s, factors of bfloat16
read          25.0       50.0 GB/s, of an array of 512 MB
update        40.0       80.2 GB/s, of the same, read and written

                                                    flop/  roof:   share
kernel             shape           GFLOP/s    GB/s   byte           best median
gemm NN            1024x1024x1024    180.0     1.5  128.0  peak      90%    85%
Shares are of min(peak, flop/byte × bandwidth); the roof says which it is.

an iteration of my-experiment.lua, model embedded:geometry:
999999 prompts, 9999999 completions, 99999 steps
sample         4.0 s, with judging
pair           0.2 s
train          2.0 s
evaluate       1.5 s
together       7.8 s
`
	var text strings.Builder
	if err := Write(&text, r); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, text.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
