package generate

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dno-project/dno/core/engine/kernel"
)

// TestGoldenSampling holds the filters against transformers' logits processors: the same support,
// probabilities to 1e-12.
func TestGoldenSampling(t *testing.T) {
	var file struct {
		Logits    map[string][]number
		Histories map[string][]int32
		Cases     []struct {
			Logits, History string
			Params          map[string]float64
			Kept            int
			Probs           []float64
		}
	}
	readJSON(t, golden(t, "sampling", "sampling.json"), &file)
	if len(file.Cases) == 0 {
		t.Fatal("no cases")
	}
	d := new(distribution) // one for all cases: what a case leaves behind must not matter
	for _, c := range file.Cases {
		t.Run(fmt.Sprint(c.Logits, " ", c.History, " ", c.Params), func(t *testing.T) {
			o := DefaultOptions(1)
			for name, v := range c.Params {
				switch name {
				case "temperature":
					o.Temperature = v
				case "top_k":
					o.TopK = int(v)
				case "top_p":
					o.TopP = v
				case "min_p":
					o.MinP = v
				case "repetition_penalty":
					o.RepetitionPenalty = v
				default:
					t.Fatalf("unknown parameter %q", name)
				}
			}
			if err := o.Validate(); err != nil {
				t.Fatal(err)
			}
			logits := make([]float64, len(file.Logits[c.Logits]))
			for i, v := range file.Logits[c.Logits] {
				logits[i] = float64(v)
			}
			history := file.Histories[c.History] // split in two: where it is cut must not matter
			if !fill(d, logits, [2][]int32{history[:len(history)/2], history[len(history)/2:]}, &o) {
				t.Fatal("fill refused finite logits")
			}
			kept := 0
			for i, want := range c.Probs {
				p := d.w[i] / d.total
				if (p > 0) != (want > 0) || math.Abs(p-want) > 1e-12 {
					t.Errorf("p[%d] = %v, want %v", i, p, want)
				}
				if p > 0 {
					kept++
				}
			}
			if kept != c.Kept {
				t.Errorf("%d ids kept, want %d", kept, c.Kept)
			}
		})
	}
}

func TestFillAtTheEdges(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	tests := map[string]struct {
		logits  []float64
		history []int32
		options func(*Options)
		want    []float64 // weights; nil where the logits are refused
	}{
		"greedy takes the lowest id among the largest": {
			logits: []float64{1, 3, 3}, options: func(o *Options) { o.Temperature = 0 }, want: []float64{0, 1, 0}},
		"greedy comes after the repetition penalty": { // 3/2 < 2
			logits: []float64{2, 3, 1}, history: []int32{1, 1},
			options: func(o *Options) { o.Temperature, o.RepetitionPenalty = 0, 2 }, want: []float64{1, 0, 0}},
		"the penalty makes a negative logit more negative": { // −1·2 = −2, e^(−2−0)
			logits: []float64{0, -1}, history: []int32{1, 1, 1},
			options: func(o *Options) { o.RepetitionPenalty = 2 }, want: []float64{1, math.Exp(-2)}},
		"ties of the k-th are kept": {
			logits: []float64{0, 1, 0, -1}, options: func(o *Options) { o.TopK = 2 }, want: []float64{math.Exp(-1), 1, math.Exp(-1), 0}},
		"the nucleus of equals takes the lowest ids": { // mass before: 0, 1/4, 1/2
			logits: []float64{7, 7, 7, 7}, options: func(o *Options) { o.TopP = 0.5 }, want: []float64{1, 1, 0, 0}},
		"a nucleus of nothing keeps the most probable id": {
			logits: []float64{0, 2, 1}, options: func(o *Options) { o.TopP = 0 }, want: []float64{0, 1, 0}},
		"a nucleus after top-k is of the mass that is left": { // weights 1, 1, 1/2 of mass 5/2: before the third is 0.8 < 0.81
			logits: []float64{0, 0, math.Log(0.5), math.Log(0.25)}, options: func(o *Options) { o.TopK, o.TopP = 3, 0.81 },
			want: []float64{1, 1, math.Exp(math.Log(0.5)), 0}},
		"a temperature near zero is finite": {
			logits: []float64{1, 2}, options: func(o *Options) { o.Temperature = 1e-300 }, want: []float64{0, 1}},
		"a NaN is refused":                    {logits: []float64{0, nan}},
		"a NaN in front is refused":           {logits: []float64{nan, 0}},
		"an infinite logit is refused":        {logits: []float64{0, inf}},
		"no possible id at all is refused":    {logits: []float64{-inf, -inf}},
		"an impossible id has no weight":      {logits: []float64{-inf, 0}, want: []float64{0, 1}},
		"refused logits are so if greedy too": {logits: []float64{nan, 0}, options: func(o *Options) { o.Temperature = 0 }},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			o := DefaultOptions(1)
			if c.options != nil {
				c.options(&o)
			}
			d := new(distribution)
			ok := fill(d, c.logits, [2][]int32{c.history}, &o)
			if ok != (c.want != nil) {
				t.Fatalf("fill reports %v", ok)
			}
			if !ok {
				return
			}
			total := 0.0
			for i, want := range c.want {
				total += want
				if math.Abs(d.w[i]-want) > 1e-15 {
					t.Errorf("w[%d] = %v, want %v", i, d.w[i], want)
				}
			}
			if math.Abs(d.total-total) > 1e-15 {
				t.Errorf("total %v, want %v", d.total, total)
			}
		})
	}
}

// TestNucleusEqualsFullSort holds the shortcut of nucleus against sorting everything.
func TestNucleusEqualsFullSort(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for range 300 {
		n := 1 + r.IntN(200)
		x := make([]float64, n)
		for i := range x {
			x[i] = math.Round(r.NormFloat64()*8) / 2 // many ties
		}
		o := DefaultOptions(1)
		o.TopP = r.Float64()
		all, d := new(distribution), new(distribution)
		full := DefaultOptions(1)
		fill(all, x, [2][]int32{}, &full)
		fill(d, x, [2][]int32{}, &o)

		order := make([]int, n)
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(a, b int) int {
			if all.w[a] > all.w[b] {
				return -1
			} else if all.w[a] < all.w[b] {
				return 1
			}
			return 0
		})
		before := 0.0
		for rank, id := range order {
			want := rank == 0 || before < o.TopP*all.total
			if got := d.w[id] > 0; got != want {
				t.Fatalf("n=%d p=%v: id %d of rank %d kept %v, want %v", n, o.TopP, id, rank, got, want)
			}
			before += all.w[id]
		}
	}
}

func TestPickIsTheInverseOfTheCumulativeDistribution(t *testing.T) {
	d := &distribution{w: []float64{0, 1, 0, 2, 1, 0}, total: 4} // cumulative 0 ¼ ¼ ¾ 1 1
	for u, want := range map[float64]int32{0: 1, 0.2499: 1, 0.25: 3, 0.7499: 3, 0.75: 4, 1 - 0x1p-53: 4} {
		if got := d.pick(u); got != want {
			t.Errorf("pick(%v) = %d, want %d", u, got, want)
		}
	}
	d.total = 5 // no cumulative sum exceeds u·total: the last possible id
	if got := d.pick(0.99); got != 4 {
		t.Errorf("pick beyond the mass = %d, want 4", got)
	}
}

// TestPickFollowsTheDistribution is Pearson's χ² test of 200,000 draws. Under the null hypothesis χ²
// has mean n−1 and variance 2(n−1) for n ids; the seed is fixed, and 4 standard deviations above the
// mean are allowed.
// TestDrawIsFillAndPick holds the shorter ways that some options have against the general one. A token that is 1 in 10⁶
// of the mass away from another may be that one, in float32.
func TestDrawIsFillAndPick(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	greedy := DefaultOptions(1)
	greedy.Temperature = 0
	short, general := new(distribution), new(distribution)
	for name, o := range map[string]Options{"the model's own distribution": DefaultOptions(1), "greedy": greedy} {
		for _, v := range []int{1, 2, 3, 4, 5, 7, 8, 61, 392} {
			for range 50 {
				logits := make([]float32, v)
				for i := range logits {
					logits[i] = float32(math.Round(4*r.NormFloat64())) / 2 // with equal ones
					if i > 0 && r.IntN(5) == 0 {
						logits[i] = float32(math.Inf(-1))
					}
				}
				r.Shuffle(v, func(i, j int) { logits[i], logits[j] = logits[j], logits[i] })
				if !fill(general, logits, [2][]int32{}, &o) {
					t.Fatal("fill refused finite logits")
				}
				for _, u := range []float64{0, 0.1, r.Float64(), r.Float64(), r.Float64(), 0.9, 1 - 0x1p-53} {
					got, _, ok := short.draw(logits, [2][]int32{}, &o, u)
					low, high := general.pick(max(0, u-1e-6)), general.pick(min(1-0x1p-53, u+1e-6))
					if !ok || got < low || got > high || general.w[got] == 0 {
						t.Fatalf("%s: draw(%v, %v) = %d, %v; want %d … %d", name, logits, u, got, ok, low, high)
					}
				}
			}
		}
	}
}

// TestDrawIsOfTheSoftmax pins the draws of the model's own distribution, bit for bit: part of a run's record.
func TestDrawIsOfTheSoftmax(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 2))
	o, d := DefaultOptions(1), new(distribution)
	for _, v := range []int{1, 3, 4, 61, 392, 5000} {
		for range 300 {
			logits := make([]float32, v)
			for i := range logits {
				logits[i] = float32(3 * r.NormFloat64())
			}
			p := slices.Clone(logits)
			kernel.Softmax(p)
			u := r.Float64()
			id, log, ok := d.draw(logits, [2][]int32{}, &o, u)
			if want := at(p, 1, u); id != want || !ok || log != kernel.LogSumExp(logits) {
				t.Fatalf("%d logits, u = %v: id %d, log %v, %v; want id %d, log %v", v, u, id, log, ok, want, kernel.LogSumExp(logits))
			}
		}
	}
}

func TestDrawReportsLogitsThatAreFiniteNoMore(t *testing.T) {
	o := DefaultOptions(1)
	o.RepetitionPenalty = 1e-300 // 1e30/1e-300 = +Inf
	if _, _, ok := new(distribution).draw([]float32{1e30, 0}, [2][]int32{{0}}, &o, 0.5); ok {
		t.Error("a logit of +Inf was drawn from")
	}
}

func TestPickFollowsTheDistribution(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 5))
	logits := make([]float32, 120)
	for i := range logits {
		logits[i] = float32(r.NormFloat64())
	}
	tests := map[string]func(*Options){
		"the model's own distribution": func(*Options) {},
		"temperature, top-k and top-p": func(o *Options) { o.Temperature, o.TopK, o.TopP = 1.4, 60, 0.9 },
		"min-p":                        func(o *Options) { o.MinP = 0.1 },
	}
	for name, set := range tests {
		t.Run(name, func(t *testing.T) {
			o := DefaultOptions(1)
			set(&o)
			d := new(distribution)
			if !fill(d, logits, [2][]int32{}, &o) {
				t.Fatal("fill refused finite logits")
			}
			const draws = 200_000
			count := make([]int, len(logits))
			var s stream
			s.seed(42)
			for range draws {
				count[d.pick(s.next())]++
			}
			chi2, n := 0.0, 0
			for i, c := range count {
				if d.w[i] == 0 {
					if c > 0 {
						t.Fatalf("id %d is filtered out and was drawn %d times", i, c)
					}
					continue
				}
				n++
				want := draws * d.w[i] / d.total
				chi2 += (float64(c) - want) * (float64(c) - want) / want
			}
			mean := float64(n - 1)
			if limit := mean + 4*math.Sqrt(2*mean); chi2 > limit || chi2 < mean-4*math.Sqrt(2*mean) {
				t.Errorf("χ² = %.1f over %d ids, expected %.0f, limit %.1f", chi2, n, mean, limit)
			}
		})
	}
}

// TestStreamNeverChanges pins the random numbers that a seed stands for: recorded runs are replayed
// from their seeds. The second column is PCG-DXSM's own output, shifted as documented.
func TestStreamNeverChanges(t *testing.T) {
	var s stream
	for seed, want := range pinnedDraws {
		s.seed(seed)
		for i, w := range want {
			if got := s.next(); got != w {
				t.Errorf("seed %d, draw %d: %v, want %v", seed, i, got, w)
			}
		}
	}
}

func TestOptionsOutsideTheirRangeAreNamed(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	tests := map[string]struct {
		set  func(*Options)
		want string
	}{
		"zero penalty":         {func(o *Options) { o.RepetitionPenalty = 0 }, "repetition penalty 0: must be finite and above 0; 1 turns it off"},
		"infinite penalty":     {func(o *Options) { o.RepetitionPenalty = inf }, "repetition penalty +Inf: must be finite and above 0; 1 turns it off"},
		"negative temperature": {func(o *Options) { o.Temperature = -1 }, "temperature -1: must be finite and at least 0; 0 is greedy"},
		"NaN temperature":      {func(o *Options) { o.Temperature = nan }, "temperature NaN: must be finite and at least 0; 0 is greedy"},
		"negative top-k":       {func(o *Options) { o.TopK = -1 }, "top-k -1: must be at least 0; 0 turns it off"},
		"top-p above one":      {func(o *Options) { o.TopP = 1.5 }, "top-p 1.5: must be in [0, 1]; 1 turns it off"},
		"NaN min-p":            {func(o *Options) { o.MinP = nan }, "min-p NaN: must be in [0, 1]; 0 turns it off"},
		"no tokens":            {func(o *Options) { o.MaxTokens = 0 }, "max tokens 0: must be at least 1"},
		"an empty stop text":   {func(o *Options) { o.Stop = []string{"a", ""} }, "stop text 2 is empty: it would end every completion at once; remove it"},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			o := DefaultOptions(5)
			if err := o.Validate(); err != nil {
				t.Fatalf("default options: %v", err)
			}
			c.set(&o)
			if err := o.Validate(); err == nil || err.Error() != c.want {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

func BenchmarkDistribution(b *testing.B) {
	for _, v := range []int{200, 262144} {
		logits := make([]float32, v)
		r := rand.New(rand.NewPCG(1, 1))
		for i := range logits {
			logits[i] = float32(r.NormFloat64() * 3)
		}
		for name, set := range map[string]func(*Options){
			"plain": func(*Options) {}, "top-k": func(o *Options) { o.TopK = 50 }, "top-p": func(o *Options) { o.TopP = 0.95 },
		} {
			b.Run(fmt.Sprint(name, "/", v), func(b *testing.B) {
				o := DefaultOptions(1)
				set(&o)
				d := new(distribution)
				b.ReportAllocs()
				for b.Loop() {
					fill(d, logits, [2][]int32{}, &o)
					d.pick(0.5)
				}
			})
		}
	}
}

var pinnedDraws = map[uint64][]float64{
	0:       {0.700549104746375, 0.4335071166113891, 0.5260160172230782},
	7:       {0.7548964324873716, 0.5697546171636284, 0.17285217983136503},
	1 << 63: {0.7163889832598682, 0.936252008429735, 0.38784667538416473},
}

// BenchmarkDraw draws one token of a large vocabulary.
func BenchmarkDraw(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	logits := make([]float32, 262144)
	for i := range logits {
		logits[i] = float32(3 * r.NormFloat64())
	}
	greedy, nucleus := DefaultOptions(1), DefaultOptions(1)
	greedy.Temperature, nucleus.TopP = 0, 0.95
	for name, o := range map[string]Options{"the model's distribution": DefaultOptions(1), "greedy": greedy, "nucleus": nucleus} {
		b.Run(name, func(b *testing.B) {
			d := new(distribution)
			for b.Loop() {
				d.draw(logits, [2][]int32{}, &o, r.Float64())
			}
		})
	}
}
