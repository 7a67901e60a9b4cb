package sdktest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dno-project/dno/sdk"
)

// recorder is a T that keeps what a check says, so that a check that must fail can be tested. It
// also shows what a command has to bring to use the kit without package testing.
type recorder struct {
	mu      *sync.Mutex
	failed  *[]string
	skipped *[]string
	logged  *[]string
	name    string
	cleanup []func()
}

func newRecorder() *recorder {
	return &recorder{mu: &sync.Mutex{}, failed: &[]string{}, skipped: &[]string{}, logged: &[]string{}}
}

func (r *recorder) Helper() {}
func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*r.logged = append(*r.logged, r.name+": "+fmt.Sprintf(format, args...))
}
func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*r.failed = append(*r.failed, r.name+": "+fmt.Sprintf(format, args...))
}
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	panic(stopped{})
}
func (r *recorder) Skipf(format string, args ...any) {
	*r.skipped = append(*r.skipped, r.name+": "+fmt.Sprintf(format, args...))
	panic(stopped{})
}
func (r *recorder) Cleanup(f func()) { r.cleanup = append(r.cleanup, f) }

type stopped struct{}

func (r *recorder) Run(name string, f func(*recorder)) bool {
	sub := &recorder{mu: r.mu, failed: r.failed, skipped: r.skipped, logged: r.logged, name: name}
	defer func() {
		for i := len(sub.cleanup) - 1; i >= 0; i-- {
			sub.cleanup[i]()
		}
	}()
	func() {
		defer func() {
			if p := recover(); p != nil && p != (stopped{}) {
				panic(p)
			}
		}()
		f(sub)
	}()
	return len(*r.failed) == 0
}

func (r *recorder) wants(t *testing.T, words string) {
	t.Helper()
	all := strings.Join(*r.failed, "\n")
	if !strings.Contains(all, words) {
		t.Errorf("want a failure with %q, have\n%s", words, all)
	}
}

func betaManifest() sdk.Manifest {
	return sdk.Manifest{Name: "test", Version: "1", Help: "a loss", Settings: []sdk.Setting{
		{Name: "beta", Type: sdk.TypeNumber, Default: 0.1, Help: "strength, per nat"},
	}}
}

// logistic is −log σ(z), z = β·(w − l), stable at both ends.
func logistic(beta float64) sdk.PairFunc {
	return func(p sdk.PairTerm) (float64, float64, float64) {
		z := beta * (p.Chosen - p.Rejected)
		if z > 0 {
			e := math.Exp(-z)
			return math.Log1p(e), -beta * e / (1 + e), beta * e / (1 + e)
		}
		e := math.Exp(z)
		return math.Log1p(e) - z, -beta / (1 + e), beta / (1 + e)
	}
}

func pairwise(f func(beta float64) sdk.PairFunc) func() sdk.Loss {
	return func() sdk.Loss {
		return sdk.Pairwise(betaManifest(), func(s sdk.Settings) (sdk.PairFunc, error) {
			return f(s.Number("beta", math.NaN())), nil
		})
	}
}

func TestAGoodPairLossPasses(t *testing.T) {
	Loss(t, pairwise(logistic))
	Loss(t, pairwise(logistic), sdk.Settings{"beta": 3})
}

// A kink is no fault: the derivative there may be any number between the slopes.
func TestAHingePasses(t *testing.T) {
	Loss(t, pairwise(func(beta float64) sdk.PairFunc {
		return func(p sdk.PairTerm) (float64, float64, float64) {
			if z := beta * (p.Chosen - p.Rejected); z < 0 {
				return -z, -beta, beta
			}
			return 0, 0, 0
		}
	}))
}

// baseline is a loss of single completions whose running mean of log-ratios lives in its state:
// Σ w·(r − m)², where m is the mean of the batches before, a number.
type baseline struct {
	beta   float64
	hidden int // counts calls; with leak, it changes the answers
	leak   bool
}

func (l *baseline) Manifest() sdk.Manifest {
	m := betaManifest()
	m.Loss = sdk.LossTraits{Unit: sdk.UnitCompletion}
	return m
}

func (l *baseline) Configure(_ context.Context, s sdk.Settings) error {
	l.beta = s.Number("beta", math.NaN())
	return nil
}

func (l *baseline) Evaluate(_ context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	l.hidden++
	mean := 0.0
	if len(b.State) == 8 {
		mean = math.Float64frombits(binary.LittleEndian.Uint64(b.State))
	}
	if l.leak {
		mean += float64(l.hidden)
	}
	out := sdk.LossResult{Gradient: make([]float64, len(b.Policy))}
	next := 0.0
	for i, p := range b.Policy {
		d := l.beta*(p-b.Reference[i]) - mean
		out.Loss += b.UnitWeight[i] * d * d
		out.Gradient[i] = b.UnitWeight[i] * 2 * l.beta * d
		next += (p - b.Reference[i]) / float64(len(b.Policy))
	}
	out.Metrics = map[string]float64{"baseline": mean}
	out.State = binary.LittleEndian.AppendUint64(nil, math.Float64bits(next))
	return out, nil
}

func TestALossOfCompletionsWithAStatePasses(t *testing.T) {
	Loss(t, func() sdk.Loss { return &baseline{} })
}

func TestALossThatRemembersOutsideItsStateIsCaught(t *testing.T) {
	r := newRecorder()
	Loss(r, func() sdk.Loss { return &baseline{leak: true} })
	r.wants(t, "in process/state: a repeated first call")
	r.wants(t, "over the wire/state: a repeated first call")
}

// perToken is the mean negative log-probability of a completion's tokens, half of it from group weights.
type perToken struct{ wrong bool }

func (l *perToken) Manifest() sdk.Manifest {
	return sdk.Manifest{Name: "tokens", Version: "1", Help: "a loss per token",
		Loss: sdk.LossTraits{Unit: sdk.UnitGroup, TokenLevel: true, NoReference: true}}
}
func (l *perToken) Configure(context.Context, sdk.Settings) error { return nil }
func (l *perToken) Evaluate(_ context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	var out sdk.LossResult
	for i, row := range b.PolicyTokens {
		w := b.UnitWeight[b.Group[i]] / float64(b.Tokens[i])
		g := make([]float64, len(row))
		for k, p := range row {
			out.Loss += w * p * p
			g[k] = w * 2 * p
		}
		if l.wrong {
			g[len(g)-1] *= 1.01
		}
		out.TokenGradients = append(out.TokenGradients, g)
	}
	return out, nil
}

func TestALossPerTokenPasses(t *testing.T) {
	Loss(t, func() sdk.Loss { return &perToken{} })
}

func TestFaultyLossesAreCaught(t *testing.T) {
	for name, c := range map[string]struct {
		loss func() sdk.Loss
		want string
	}{
		"a derivative of the wrong sign": {pairwise(func(beta float64) sdk.PairFunc {
			return func(p sdk.PairTerm) (float64, float64, float64) {
				l, c, r := logistic(beta)(p)
				return l, c, -r
			}
		}), "in process/derivatives of a typical batch: derivative 0 of completion 1"},
		"a derivative that is 1 % too large": {pairwise(func(beta float64) sdk.PairFunc {
			return func(p sdk.PairTerm) (float64, float64, float64) {
				l, c, r := logistic(beta)(p)
				return l, 1.01 * c, r
			}
		}), "derivative 0 of completion 0"},
		"a derivative per token that is 1 % too large": {func() sdk.Loss { return &perToken{wrong: true} },
			"derivatives of a typical batch: derivative"},
		"an overflow at extremes": {pairwise(func(beta float64) sdk.PairFunc {
			return func(p sdk.PairTerm) (float64, float64, float64) {
				z := beta * (p.Chosen - p.Rejected)
				s := 1 / (1 + math.Exp(-z)) // log of it is −Inf far below
				return -math.Log(s), -beta * (1 - s), beta * (1 - s)
			}
		}), "derivatives of a chosen completion far below: loss is +Inf"},
		"a loss that ignores its weights": {func() sdk.Loss {
			return &wrapped{pairwise(logistic)(), func(b *sdk.LossBatch) {
				b.Weight = make([]float64, len(b.Weight))
				for i := range b.Weight {
					b.Weight[i] = 1
				}
			}, nil}
		}, "weights: with weights doubled"},
		"a loss that depends on the order": {func() sdk.Loss {
			return &wrapped{pairwise(logistic)(), func(b *sdk.LossBatch) {
				b.Weight = append([]float64{2 * b.Weight[0]}, b.Weight[1:]...)
			}, nil}
		}, "order dependent: in the other order"},
		"a loss that writes into its batch": {func() sdk.Loss {
			return &wrapped{pairwise(logistic)(), func(b *sdk.LossBatch) { b.Policy[0]-- }, nil}
		}, "wrote into its batch"},
		"a gradient that is too short": {func() sdk.Loss {
			return &wrapped{pairwise(logistic)(), nil, func(r *sdk.LossResult) { r.Gradient = r.Gradient[1:] }}
		}, "gradient has 11 values for 12 completions"},
		"a metric that is NaN": {func() sdk.Loss {
			return &wrapped{pairwise(logistic)(), nil, func(r *sdk.LossResult) { r.Metrics = map[string]float64{"x": math.NaN()} }}
		}, `metrics["x"] is NaN`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRecorder()
			Loss(r, c.loss)
			r.wants(t, c.want)
		})
	}
}

// wrapped spoils a loss's batch or result.
type wrapped struct {
	sdk.Loss
	batch  func(*sdk.LossBatch)
	result func(*sdk.LossResult)
}

func (w *wrapped) Evaluate(ctx context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	if w.batch != nil {
		w.batch(&b)
	}
	out, err := w.Loss.Evaluate(ctx, b)
	if w.result != nil {
		w.result(&out)
	}
	return out, err
}

func TestFaultyManifestsAreCaught(t *testing.T) {
	lo, hi := sdk.Between(2, 1)
	for want, change := range map[string]func(*sdk.Manifest){
		`name is "My Loss"`:                      func(m *sdk.Manifest) { m.Name = "My Loss" },
		"it has no version":                      func(m *sdk.Manifest) { m.Version = "" },
		"help is \"two\\nlines\"":                func(m *sdk.Manifest) { m.Help = "two\nlines" },
		`"beta" is a int: write it as 1`:         func(m *sdk.Manifest) { m.Settings[0].Default = 1 },
		`"beta" is declared twice`:               func(m *sdk.Manifest) { m.Settings = append(m.Settings, m.Settings[0]) },
		`"beta": its default: want a number`:     func(m *sdk.Manifest) { m.Settings[0].Default = "much" },
		`"beta" is required and has a default`:   func(m *sdk.Manifest) { m.Settings[0].Required = true },
		`"beta": no number is from 2 to 1`:       func(m *sdk.Manifest) { m.Settings[0].Min, m.Settings[0].Max = lo, hi },
		`"timeout": this name is the host's`:     func(m *sdk.Manifest) { m.Settings[0].Name = "timeout" },
		`"beta": type "float" is none`:           func(m *sdk.Manifest) { m.Settings[0].Type = "float" },
		`"beta": only a string can be one`:       func(m *sdk.Manifest) { m.Settings[0].OneOf = []string{"a"} },
		`help of the setting beta is ""`:         func(m *sdk.Manifest) { m.Settings[0].Help = "" },
		`setting "β": want a name of lower-case`: func(m *sdk.Manifest) { m.Settings[0].Name = "β" },
		`"beta": its default: want at least 1`:   func(m *sdk.Manifest) { m.Settings[0].Min = sdk.AtLeast(1) },
	} {
		m := betaManifest()
		m.Kind = sdk.KindLoss
		change(&m)
		r := newRecorder()
		checkManifest(r, m)
		r.wants(t, want)
	}
}

// longest prefers the longer text; as a pointwise oracle it scores the length.
type longest struct {
	form   sdk.OracleForm
	change func(*sdk.Verdicts)
	traits func(*sdk.OracleTraits)
}

func (o *longest) Manifest() sdk.Manifest {
	m := sdk.Manifest{Name: "longest", Version: "1", Help: "prefers the longer", Oracle: sdk.OracleTraits{Form: o.form, Concurrency: 3}}
	if o.traits != nil {
		o.traits(&m.Oracle)
	}
	return m
}
func (o *longest) Configure(context.Context, sdk.Settings) error { return nil }
func (o *longest) Judge(_ context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	out := make([]sdk.Verdicts, len(batch))
	for i, c := range batch {
		out[i].ID = c.ID
		if o.form == sdk.FormPointwise {
			for _, text := range c.Candidates {
				score := float64(len(text))
				out[i].Assessed = append(out[i].Assessed, sdk.Assessment{Score: &score, Labels: map[string]float64{sdk.LabelCorrect: 1}})
			}
		} else {
			for _, p := range c.Pairs {
				d := float64(len(c.Candidates[p.A]) - len(c.Candidates[p.B]))
				out[i].Pairs = append(out[i].Pairs, sdk.Verdict{P: 1 / (1 + math.Exp(-d))})
			}
		}
		if o.change != nil {
			o.change(&out[i])
		}
	}
	return out, nil
}

func TestGoodOraclesPass(t *testing.T) {
	for _, form := range []sdk.OracleForm{sdk.FormPairwise, sdk.FormListwise, sdk.FormPointwise} {
		t.Run(string(form), func(t *testing.T) { Oracle(t, func() sdk.Oracle { return &longest{form: form} }) })
	}
}

func TestAnOracleThatAbstainsFromAllIsNoted(t *testing.T) {
	r := newRecorder()
	Oracle(r, func() sdk.Oracle {
		return &longest{form: sdk.FormPairwise, change: func(v *sdk.Verdicts) {
			for i := range v.Pairs {
				v.Pairs[i].Abstain = "no idea"
			}
		}}
	})
	if len(*r.failed) > 0 || len(*r.logged) == 0 || !strings.Contains((*r.logged)[0], `NOTHING JUDGED: it abstains from every question, as from the first: "no idea"`) {
		t.Errorf("failed %q, noted %q", *r.failed, *r.logged)
	}
}

// closer is an oracle that counts those of its kind that were configured and not yet closed.
type closer struct {
	longest
	open *atomic.Int32
	fail error
}

func (c *closer) Configure(context.Context, sdk.Settings) error { c.open.Add(1); return nil }
func (c *closer) Close() error                                  { c.open.Add(-1); return c.fail }

func TestPluginsAreClosed(t *testing.T) {
	var open, made atomic.Int32
	r := newRecorder()
	Oracle(r, func() sdk.Oracle {
		made.Add(1)
		return &closer{longest{form: sdk.FormPairwise}, &open, nil}
	})
	// The manifest is asked of one that is never configured, and of another over the wire: both
	// hold nothing, and the second one is closed all the same.
	if len(*r.failed) > 0 || open.Load() != -1 || made.Load() < 4 {
		t.Errorf("of %d, %d are open; failed: %q", made.Load(), open.Load()+1, *r.failed)
	}
	Oracle(r, func() sdk.Oracle { return &closer{longest{form: sdk.FormPairwise}, &open, errors.New("stuck")} })
	r.wants(t, "close: stuck")
}

func TestFaultyOraclesAreCaught(t *testing.T) {
	first := func(v *sdk.Verdicts) { // prefers what is shown first
		for i := range v.Pairs {
			v.Pairs[i].P = 0.9
		}
	}
	percent := func(x []sdk.Verdict) {
		for i := range x {
			x[i].P *= 100
		}
	}
	bias := func(v *sdk.Verdicts) {
		for i := range v.Pairs {
			v.Pairs[i].P = 0.1 + 0.9*v.Pairs[i].P
		}
	}
	for name, c := range map[string]struct {
		oracle longest
		want   string // "" passes
	}{
		"the first one is preferred":               {longest{form: sdk.FormPairwise, change: first}, "position: P is 0.9 for every pair"},
		"a bit more for the first":                 {longest{form: sdk.FormPairwise, change: bias}, "do not add up to 1"},
		"the first one is preferred, and declared": {longest{form: sdk.FormPairwise, change: first, traits: func(t *sdk.OracleTraits) { t.OrderMatters = true }}, ""},
		"a percentage for a probability":           {longest{form: sdk.FormPairwise, change: func(v *sdk.Verdicts) { percent(v.Pairs) }}, "verdicts[0].pairs[0].p is"},
		"an id of its own":                         {longest{form: sdk.FormPairwise, change: func(v *sdk.Verdicts) { v.ID = "x" }}, `verdicts[0].id is "x"`},
		"an answer too few":                        {longest{form: sdk.FormPairwise, change: func(v *sdk.Verdicts) { v.Pairs = v.Pairs[min(1, len(v.Pairs)):] }}, "verdicts[0].pairs has 1 answers for 2 pairs"},
		"no score and no reason":                   {longest{form: sdk.FormPointwise, change: func(v *sdk.Verdicts) { v.Assessed[1].Score = nil }}, "assessed[1] has neither"},
		"no form":                                  {longest{form: "best"}, `form is "best"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRecorder()
			Oracle(r, func() sdk.Oracle { o := c.oracle; return &o })
			if c.want != "" {
				r.wants(t, c.want)
			} else if len(*r.failed) > 0 {
				t.Errorf("refused: %v", *r.failed)
			}
		})
	}
}

// drawer draws through the generator, with ways to go wrong.
type drawer struct{ change func(*sdk.SampleResponse) }

func (d *drawer) Manifest() sdk.Manifest {
	return sdk.Manifest{Name: "drawer", Version: "1", Help: "draws", Sampler: sdk.SamplerTraits{UsesGenerator: true}}
}
func (d *drawer) Configure(context.Context, sdk.Settings) error { return nil }
func (d *drawer) Sample(ctx context.Context, req sdk.SampleRequest, g sdk.Generator) (sdk.SampleResponse, error) {
	in := sdk.GenerateRequest{Seeds: req.Seeds, Options: sdk.GenerateOptions{Temperature: 1, MaxTokens: 4}}
	for _, p := range req.Prompts {
		in.Prompts = append(in.Prompts, p.Messages)
	}
	out, err := g.Generate(ctx, in)
	res := sdk.SampleResponse(out)
	if d.change != nil && err == nil {
		d.change(&res)
	}
	return res, err
}

func TestAGoodSamplerPasses(t *testing.T) {
	Sampler(t, func() sdk.Sampler { return &drawer{} })
}

func TestFaultySamplersAreCaught(t *testing.T) {
	calls := 0
	for want, change := range map[string]func(*sdk.SampleResponse){
		"completions has 2 rows for 3 prompts": func(r *sdk.SampleResponse) { r.Completions = r.Completions[1:] },
		"completions[0] has 4 completions, at most 2 were asked for": func(r *sdk.SampleResponse) {
			r.Completions[0] = append(r.Completions[0], sdk.Completion{}, sdk.Completion{})
		},
		"prompt 0 gets other completions when it is asked alone: it depends on the other prompts of the request: completions[0][0] is": func(r *sdk.SampleResponse) {
			r.Completions[0][0].Text += fmt.Sprint(len(r.Completions))
		},
		"prompt 0 gets other completions when it is asked alone: transposed: they are in completions[2]": func(r *sdk.SampleResponse) {
			slices.Reverse(r.Completions)
		},
		"not fixed by its seeds: asked again, completions[0][0] is": func(r *sdk.SampleResponse) {
			calls++
			r.Completions[0][0].Text += fmt.Sprint(calls)
		},
		"completions[0][0].log_prob is 3": func(r *sdk.SampleResponse) {
			three := 3.0
			r.Completions[0][0].LogProb = &three
		},
		`completions[0][0].finish is "eos"`: func(r *sdk.SampleResponse) { r.Completions[0][0].Finish = "eos" },
	} {
		r := newRecorder()
		Sampler(r, func() sdk.Sampler { return &drawer{change: change} })
		r.wants(t, want)
	}
}

// TestTheSigmoidLossOfThisFilePassesTheGoldenCases runs the golden losses on this file's own sigmoid loss, and on one that is wrong.
func TestTheSigmoidLossOfThisFilePassesTheGoldenCases(t *testing.T) {
	dir := GoldenDir(t, "losses")
	built := false
	build := func(spoil float64) func(string, map[string]float64) (sdk.Loss, bool) {
		return func(name string, params map[string]float64) (sdk.Loss, bool) {
			if name != "sigmoid" || params["label_smoothing"] != 0 {
				return nil, false
			}
			built = true
			l := pairwise(func(beta float64) sdk.PairFunc {
				f := logistic(beta)
				return func(p sdk.PairTerm) (float64, float64, float64) {
					l, c, r := f(p)
					return l * spoil, c, r
				}
			})()
			if err := l.Configure(context.Background(), sdk.Settings{"beta": params["beta"]}); err != nil {
				t.Fatal(err)
			}
			return l, true
		}
	}
	LossCases(t, dir, build(1))
	r := newRecorder()
	LossCases(r, dir, build(1+1e-8))
	if len(*r.failed) == 0 && built {
		t.Error("a loss that is 1e-8 too large passes")
	}
}

// The numbers of this case: z = β·(c − r) with β = 1, c = −1 − (−2) = 1, r = −2 − (−1) = −1, so z = 2;
// loss log(1 + e⁻²) = 0.1269280110429726, derivative by the chosen −1/(1 + e²) = −0.11920292202211755.
func TestGoldenCasesAreReadAndCompared(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, x any) {
		data, err := json.Marshal(x)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("inputs.json", map[string]any{
		"policy_chosen_logps": []any{-1}, "policy_rejected_logps": []any{-2}, "ref_chosen_logps": []any{-2}, "ref_rejected_logps": []any{-1},
		"chosen_len": []int{3}, "rejected_len": []int{4}, "p_target": []any{1},
	})
	one := func(loss any) map[string]any {
		return map[string]any{"cases": []any{map[string]any{
			"loss": "mine", "params": map[string]any{"beta": 1}, "per_pair": []any{loss},
			"grad_chosen": []any{-0.11920292202211755}, "grad_rejected": []any{0.11920292202211755},
		}}}
	}
	build := func(_ string, params map[string]float64) (sdk.Loss, bool) {
		l := pairwise(logistic)()
		return l, l.Configure(context.Background(), sdk.Settings{"beta": params["beta"]}) == nil
	}
	write("losses.json", one(0.1269280110429726))
	LossCases(t, dir, build)
	write("losses.json", one("inf"))
	r := newRecorder()
	LossCases(r, dir, build)
	r.wants(t, "want +Inf")
	write("losses.json", one(0.1269280110429726*(1+1e-8)))
	r = newRecorder()
	LossCases(r, dir, build)
	r.wants(t, "the loss of the batch is")
	r.wants(t, "pair 0: loss is")
	r = newRecorder()
	LossCases(r, dir, func(string, map[string]float64) (sdk.Loss, bool) { return nil, false })
	if len(*r.skipped) != 1 || !strings.Contains((*r.skipped)[0], `no plugin for the loss "mine"`) {
		t.Errorf("a case without a plugin: skipped %q", *r.skipped)
	}
}
