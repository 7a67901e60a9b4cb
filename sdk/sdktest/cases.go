package sdktest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dno-project/dno/sdk"
)

// goldenLoss is a case of losses.json: a loss and its derivatives on the pairs of inputs.json.
type goldenLoss struct {
	Loss         string            `json:"loss"`
	Params       map[string]number `json:"params"`
	PerPair      []number          `json:"per_pair"`
	GradChosen   []number          `json:"grad_chosen"`
	GradRejected []number          `json:"grad_rejected"`
}

type goldenInputs struct {
	PolicyChosen      []number `json:"policy_chosen_logps"`
	PolicyRejected    []number `json:"policy_rejected_logps"`
	ReferenceChosen   []number `json:"ref_chosen_logps"`
	ReferenceRejected []number `json:"ref_rejected_logps"`
	ChosenTokens      []int32  `json:"chosen_len"`
	RejectedTokens    []int32  `json:"rejected_len"`
	Target            []number `json:"p_target"`

	// One a pair; only losses of mismatched pairs need them.
	MismatchedPolicy    []number `json:"kl_policy_logps"`
	MismatchedReference []number `json:"kl_ref_logps"`
}

func (in goldenInputs) check() error {
	n := len(in.Target)
	for _, c := range []struct {
		name string
		len  int
	}{
		{"policy_chosen_logps", len(in.PolicyChosen)}, {"policy_rejected_logps", len(in.PolicyRejected)},
		{"ref_chosen_logps", len(in.ReferenceChosen)}, {"ref_rejected_logps", len(in.ReferenceRejected)},
		{"chosen_len", len(in.ChosenTokens)}, {"rejected_len", len(in.RejectedTokens)},
	} {
		if c.len != n {
			return fmt.Errorf("inputs.json: %s has %d values, p_target %d", c.name, c.len, n)
		}
	}
	if m := len(in.MismatchedPolicy); m != len(in.MismatchedReference) || m != 0 && m != n {
		return fmt.Errorf("inputs.json: kl_policy_logps has %d values and kl_ref_logps %d, p_target %d", m, len(in.MismatchedReference), n)
	}
	return nil
}

// number is a float64 that may be written as "inf", "-inf" or "nan".
type number float64

func (n *number) UnmarshalJSON(b []byte) error {
	x, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	*n = number(x)
	return err
}

// Cases are losses and derivatives that another implementation has computed.
type Cases struct {
	All    []Case
	inputs goldenInputs
}

// Case is one loss with one set of parameters.
type Case struct {
	Loss   string
	Params map[string]float64
	golden goldenLoss
}

// ReadCases reads losses.json, and inputs.json beside it; path is that file or its folder.
func ReadCases(path string) (*Cases, error) {
	if isDir(path) {
		path = filepath.Join(path, "losses.json")
	}
	var out Cases
	var golden struct {
		Cases []goldenLoss `json:"cases"`
	}
	for _, f := range []struct {
		path string
		into any
	}{{path, &golden}, {filepath.Join(filepath.Dir(path), "inputs.json"), &out.inputs}} {
		data, err := os.ReadFile(f.path)
		if err != nil {
			return nil, fmt.Errorf("read the golden losses: %w", err)
		}
		if err := json.Unmarshal(data, f.into); err != nil {
			return nil, fmt.Errorf("read the golden losses: %s: %w", f.path, err)
		}
	}
	if err := out.inputs.check(); err != nil {
		return nil, fmt.Errorf("read the golden losses: %w", err)
	}
	if len(golden.Cases) == 0 {
		return nil, fmt.Errorf("read the golden losses: no case in %s", path)
	}
	for _, g := range golden.Cases {
		c := Case{Loss: g.Loss, Params: map[string]float64{}, golden: g}
		for k, v := range g.Params {
			c.Params[k] = float64(v)
		}
		if n := len(out.inputs.Target); len(g.PerPair) != n || len(g.GradChosen) != n || len(g.GradRejected) != n {
			return nil, fmt.Errorf("read the golden losses: the case %s has %d losses, %d and %d derivatives for %d pairs",
				c, len(g.PerPair), len(g.GradChosen), len(g.GradRejected), n)
		}
		out.All = append(out.All, c)
	}
	return &out, nil
}

// Check compares a configured loss of pairs with the case.
//
// It goes in as one batch of weights 1 in which no completion stands twice. The loss and the
// derivatives have to agree to 1e-9 relative and 1e-11 absolute; a loss that does not couple its
// pairs is also compared pair by pair, for a sum hides small terms behind great ones. The soft
// label is given as Target, Preference and win rates alike; the log-probabilities of a mismatched pair
// as those of both its completions.
func (cs *Cases) Check(t TB, c Case, l sdk.Loss) {
	t.Helper()
	compareGolden(t, l, cs.inputs, c.golden)
}

// String is the case's name: the loss and its parameters.
func (c Case) String() string { return caseName(c.Loss, c.Params) }

// LossCases runs every case of the golden losses in dir (see [ReadCases]) as a subtest, which
// is [Cases.Check]. build returns the case's loss, configured, or false where there is no such plugin:
// the subtest is then skipped.
func LossCases[S T[S]](t S, dir string, build func(loss string, params map[string]float64) (sdk.Loss, bool)) {
	t.Helper()
	cases, err := ReadCases(dir)
	if err != nil {
		t.Fatalf("%v", err)
	}
	r := suite(t)
	for _, c := range cases.All {
		r.run(c.String(), func(t TB) {
			l, ok := build(c.Loss, c.Params)
			if !ok {
				t.Skipf("NOT TESTED: there is no plugin for the loss %q", c.Loss)
			}
			cases.Check(t, c, l)
		})
	}
}

func caseName(loss string, params map[string]float64) string {
	for _, k := range slices.Sorted(maps.Keys(params)) {
		loss += fmt.Sprintf(",%s=%v", k, params[k])
	}
	return loss
}

func compareGolden(t TB, l sdk.Loss, in goldenInputs, golden goldenLoss) {
	t.Helper()
	traits := l.Manifest().Loss
	perPair, gradChosen, gradRejected := golden.PerPair, golden.GradChosen, golden.GradRejected
	switch {
	case traits.TokenLevel:
		t.Skipf("NOT TESTED: the cases are of whole completions, this loss is of tokens")
	case traits.Unit != "" && traits.Unit != sdk.UnitPair:
		t.Skipf("NOT TESTED: the cases are of pairs, this loss is of a %s", traits.Unit)
	case traits.Mismatched && len(in.MismatchedPolicy) == 0:
		t.Skipf("NOT TESTED: inputs.json has no mismatched pairs (kl_policy_logps, kl_ref_logps)")
	}
	out := evaluate(t, l, in.batch(traits, 0, len(perPair)))
	if len(out.Gradient) != 2*len(perPair) {
		t.Fatalf("gradient has %d values for %d completions", len(out.Gradient), 2*len(perPair))
	}
	sum, size := 0.0, 0.0
	for _, x := range perPair {
		sum += float64(x)
		size += math.Abs(float64(x))
	}
	if !agree(out.Loss, sum, size) {
		t.Errorf("the loss of the batch is %v, want %v", out.Loss, sum)
	}
	chosen, rejected := make([]float64, len(perPair)), make([]float64, len(perPair))
	for i := range perPair {
		chosen[i], rejected[i] = out.Gradient[2*i], out.Gradient[2*i+1]
	}
	agreeAll(t, "derivative by the chosen", chosen, gradChosen)
	agreeAll(t, "derivative by the rejected", rejected, gradRejected)
	alone, total := make([]float64, len(perPair)), 0.0
	for i := range alone {
		alone[i] = evaluate(t, l, in.batch(traits, i, i+1)).Loss
		total += alone[i]
	}
	if !agree(total, out.Loss, size) {
		t.Logf("this loss couples the pairs of a batch: compared as a whole only")
		return
	}
	agreeAll(t, "loss", alone, perPair)
}

// agreeAll compares a number of each pair, and shows the first three that differ.
func agreeAll(t TB, what string, have []float64, want []number) {
	t.Helper()
	differ := 0
	for i, x := range want {
		if w := float64(x); !agree(have[i], w, math.Abs(w)) {
			if differ++; differ <= 3 {
				t.Errorf("pair %d: %s is %v, want %v", i, what, have[i], w)
			}
		}
	}
	if differ > 3 {
		t.Errorf("the %s differs in %d of %d pairs", what, differ, len(want))
	}
}

// agree compares with the golden data's tolerance, relative to size.
func agree(have, want, size float64) bool {
	return have == want || !math.IsInf(want, 0) && math.Abs(have-want) <= 1e-9*size+1e-11
}

// batch makes a batch of the pairs from..to: completion 2i is the chosen one of pair i, 2i+1 the rejected.
func (in goldenInputs) batch(traits sdk.LossTraits, from, to int) sdk.LossBatch {
	var b sdk.LossBatch
	for i := from; i < to; i++ {
		p := float64(in.Target[i])
		first := int32(len(b.Policy))
		b.Chosen, b.Rejected = append(b.Chosen, first), append(b.Rejected, first+1)
		b.Group = append(b.Group, int32(i-from), int32(i-from))
		b.Policy = append(b.Policy, float64(in.PolicyChosen[i]), float64(in.PolicyRejected[i]))
		if !traits.NoReference {
			b.Reference = append(b.Reference, float64(in.ReferenceChosen[i]), float64(in.ReferenceRejected[i]))
		}
		if traits.Mismatched {
			b.MismatchedPolicy = append(b.MismatchedPolicy, slices.Repeat([]float64{float64(in.MismatchedPolicy[i])}, 2)...)
			if !traits.NoReference {
				b.MismatchedReference = append(b.MismatchedReference, slices.Repeat([]float64{float64(in.MismatchedReference[i])}, 2)...)
			}
		}
		b.Tokens = append(b.Tokens, in.ChosenTokens[i], in.RejectedTokens[i])
		b.WinRate, b.WinRateSE = append(b.WinRate, p, 1-p), append(b.WinRateSE, math.NaN(), math.NaN())
		b.Teacher = append(b.Teacher, false, false)
		b.ChosenWinRate, b.RejectedWinRate = append(b.ChosenWinRate, p), append(b.RejectedWinRate, 1-p)
		b.Target, b.Preference, b.Weight = append(b.Target, p), append(b.Preference, p), append(b.Weight, 1)
	}
	return b
}
