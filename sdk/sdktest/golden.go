package sdktest

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/dno-project/dno/sdk"
)

// GoldenDir returns a folder, or a file, of the golden data: numbers from other implementations.
//
// The data are in the directory that DNO_GOLDEN names (a relative path counts from the folder of
// go.mod), or else in ../shared/golden from there. Where DNO_GOLDEN is not set and that default is
// absent, the fallback is taken, if there is one: a directory of fewer cases that is the
// package's own. Where there is no data, or no sub in it, the test is skipped; it fails where
// DNO_GOLDEN names no directory.
func GoldenDir(t TB, sub string, fallback ...string) string {
	t.Helper()
	return GoldenCases(t, sub, fallback...)[0]
}

// GoldenCases returns the paths among the golden data that match a pattern of [path.Match], sorted;
// see [GoldenDir]. It never returns none.
func GoldenCases(t TB, pattern string, fallback ...string) []string {
	t.Helper()
	dir := goldenRoot(t, fallback)
	names, err := fs.Glob(os.DirFS(dir), pattern)
	if err != nil {
		t.Fatalf("list the golden data: %v", err)
	}
	if len(names) == 0 {
		t.Skipf("NOT TESTED against other implementations: no %s in the golden data %s; set DNO_GOLDEN to their directory", pattern, dir)
	}
	for i, name := range names {
		names[i] = filepath.Join(dir, filepath.FromSlash(name))
	}
	return names
}

func goldenRoot(t TB, fallback []string) string {
	t.Helper()
	module, err := moduleRoot()
	if err != nil {
		t.Fatalf("find the golden data: %v", err)
	}
	if dir := os.Getenv("DNO_GOLDEN"); dir != "" {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(module, dir)
		}
		if !isDir(dir) {
			t.Fatalf("DNO_GOLDEN names %s, which is no directory: unset it, or set it to that of the golden data", dir)
		}
		return dir
	}
	dir := filepath.Join(module, "..", "shared", "golden")
	for _, f := range fallback {
		if !isDir(dir) && isDir(f) {
			t.Logf("NO GOLDEN DATA in %s: comparing with the few cases in %s only", dir, f)
			return f
		}
	}
	return dir
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
		dir = parent
	}
	return "", err
}

// goldenLosses is losses.json: each case's loss and derivatives on the pairs of inputs.json.
type goldenLosses struct {
	Cases []struct {
		Loss         string            `json:"loss"`
		Params       map[string]number `json:"params"`
		PerPair      []number          `json:"per_pair"`
		GradChosen   []number          `json:"grad_chosen"`
		GradRejected []number          `json:"grad_rejected"`
	} `json:"cases"`
}

type goldenInputs struct {
	PolicyChosen      []number `json:"policy_chosen_logps"`
	PolicyRejected    []number `json:"policy_rejected_logps"`
	ReferenceChosen   []number `json:"ref_chosen_logps"`
	ReferenceRejected []number `json:"ref_rejected_logps"`
	ChosenTokens      []int32  `json:"chosen_len"`
	RejectedTokens    []int32  `json:"rejected_len"`
	Target            []number `json:"p_target"`
}

// number is a float64 that may be written as "inf", "-inf" or "nan".
type number float64

func (n *number) UnmarshalJSON(b []byte) error {
	x, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	*n = number(x)
	return err
}

// LossCases runs every case of the golden losses in dir (inputs.json, losses.json) as a subtest.
// build returns the case's loss, configured, or false where there is no such plugin: the subtest
// is then skipped.
//
// A case goes in as one batch of weights 1 in which no completion stands twice. Its loss and
// derivatives have to agree to 1e-9 relative and 1e-11 absolute; a loss that does not couple its
// pairs is also compared pair by pair, for a sum hides small terms behind great ones. The soft
// label is given as Target, Preference and win rates alike.
func LossCases[S T[S]](t S, dir string, build func(loss string, params map[string]float64) (sdk.Loss, bool)) {
	t.Helper()
	var in goldenInputs
	var golden goldenLosses
	for name, into := range map[string]any{"inputs.json": &in, "losses.json": &golden} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = json.Unmarshal(data, into)
		}
		if err != nil {
			t.Fatalf("read the golden losses: %v", err)
		}
	}
	if len(golden.Cases) == 0 {
		t.Fatalf("no case in %s", dir)
	}
	r := suite(t)
	for _, c := range golden.Cases {
		params := map[string]float64{}
		for k, v := range c.Params {
			params[k] = float64(v)
		}
		r.run(caseName(c.Loss, params), func(t TB) {
			l, ok := build(c.Loss, params)
			if !ok {
				t.Skipf("NOT TESTED: there is no plugin for the loss %q", c.Loss)
			}
			n := len(c.PerPair)
			if n != len(in.Target) || len(c.GradChosen) != n || len(c.GradRejected) != n {
				t.Fatalf("the case has %d pairs, the inputs have %d", n, len(in.Target))
			}
			compareGolden(t, l, in, c.PerPair, c.GradChosen, c.GradRejected)
		})
	}
}

func caseName(loss string, params map[string]float64) string {
	for _, k := range slices.Sorted(maps.Keys(params)) {
		loss += fmt.Sprintf(",%s=%v", k, params[k])
	}
	return loss
}

func compareGolden(t TB, l sdk.Loss, in goldenInputs, perPair, gradChosen, gradRejected []number) {
	t.Helper()
	traits := l.Manifest().Loss
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
	for i := range perPair {
		if want := float64(gradChosen[i]); !agree(out.Gradient[2*i], want, math.Abs(want)) {
			t.Errorf("pair %d: derivative by the chosen is %v, want %v", i, out.Gradient[2*i], want)
		}
		if want := float64(gradRejected[i]); !agree(out.Gradient[2*i+1], want, math.Abs(want)) {
			t.Errorf("pair %d: derivative by the rejected is %v, want %v", i, out.Gradient[2*i+1], want)
		}
	}
	alone, total := make([]float64, len(perPair)), 0.0
	for i := range alone {
		alone[i] = evaluate(t, l, in.batch(traits, i, i+1)).Loss
		total += alone[i]
	}
	if !agree(total, out.Loss, size) {
		t.Logf("this loss couples the pairs of a batch: compared as a whole only")
		return
	}
	for i, x := range perPair {
		if want := float64(x); !agree(alone[i], want, math.Abs(want)) {
			t.Errorf("pair %d: loss is %v, want %v", i, alone[i], want)
		}
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
		b.Tokens = append(b.Tokens, in.ChosenTokens[i], in.RejectedTokens[i])
		b.WinRate, b.WinRateSE = append(b.WinRate, p, 1-p), append(b.WinRateSE, math.NaN(), math.NaN())
		b.Teacher = append(b.Teacher, false, false)
		b.ChosenWinRate, b.RejectedWinRate = append(b.ChosenWinRate, p), append(b.RejectedWinRate, 1-p)
		b.Target, b.Preference, b.Weight = append(b.Target, p), append(b.Preference, p), append(b.Weight, 1)
	}
	return b
}
