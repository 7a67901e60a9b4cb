package main

import (
	"context"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/dno-project/dno/sdk"
	"github.com/dno-project/dno/sdk/serve"
)

// serveThirdParty serves the plugin that an executable's name asks for, and says whether there is one.
func serveThirdParty(executable string) bool {
	var err error
	switch strings.TrimSuffix(executable, ".exe") {
	case "dno-loss-good", "dno-loss-another":
		err = serve.Plugin(thirdLoss("good", func(*sdk.LossResult) {}))
	case "dno-loss-wrong":
		err = serve.Plugin(thirdLoss("wrong", func(r *sdk.LossResult) {
			for i := range r.Gradient {
				r.Gradient[i] = -r.Gradient[i]
			}
		}))
	case "dno-loss-nan":
		err = serve.Plugin(thirdLoss("nan", func(r *sdk.LossResult) {
			if r.Loss > 1000 {
				r.Loss = math.NaN()
			}
		}))
	case "dno-loss-short":
		err = serve.Plugin(thirdLoss("short", func(r *sdk.LossResult) { r.Gradient = r.Gradient[1:] }))
	case "dno-loss-memory":
		calls := 0.0
		err = serve.Plugin(thirdLoss("memory", func(r *sdk.LossResult) {
			calls++
			r.Metrics = map[string]float64{"calls": calls}
		}))
	case "dno-loss-dies":
		err = serve.Plugin(thirdLoss("dies", func(r *sdk.LossResult) {
			if r.Loss > 1000 {
				os.Exit(3)
			}
		}))
	case "dno-loss-hangs":
		err = serve.Plugin(thirdLoss("hangs", func(*sdk.LossResult) { select {} }))
	case "dno-oracle-first":
		err = serve.Plugin(firstOracle{})
	case "dno-oracle-rude":
		err = serve.Plugin(rudeOracle{})
	default:
		return false
	}
	if err != nil {
		panic(err)
	}
	return true
}

// spoiltLoss is the logistic loss of the margin, its results changed.
type spoiltLoss struct {
	sdk.Loss
	change func(*sdk.LossResult)
}

func (l spoiltLoss) Evaluate(ctx context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	out, err := l.Loss.Evaluate(ctx, b)
	if err == nil {
		l.change(&out)
	}
	return out, err
}

func thirdLoss(name string, change func(*sdk.LossResult)) sdk.Loss {
	return spoiltLoss{sdk.Pairwise(sdk.Manifest{
		Name: name, Version: "1.2.0", Help: "a third party's",
		Settings: []sdk.Setting{{Name: "beta", Type: sdk.TypeNumber, Default: 0.1, Min: sdk.AtLeast(0), Help: "per nat"}},
	}, func(s sdk.Settings) (sdk.PairFunc, error) {
		beta := s.Number("beta", 0.1)
		return func(p sdk.PairTerm) (float64, float64, float64) {
			z := beta * (p.Chosen - p.Rejected)
			e := math.Exp(-math.Abs(z))
			if z < 0 {
				return math.Log1p(e) - z, -beta / (1 + e), beta / (1 + e)
			}
			return math.Log1p(e), -beta * e / (1 + e), beta * e / (1 + e)
		}, nil
	}), change}
}

// firstOracle prefers what is shown first, and declares that the order does not matter.
type firstOracle struct{}

func (firstOracle) Manifest() sdk.Manifest {
	return sdk.Manifest{Kind: sdk.KindOracle, Name: "first", Version: "1", Help: "prefers the first",
		Oracle: sdk.OracleTraits{Form: sdk.FormPairwise}}
}
func (firstOracle) Configure(context.Context, sdk.Settings) error { return nil }
func (firstOracle) Judge(_ context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	out := make([]sdk.Verdicts, len(batch))
	for i, c := range batch {
		out[i].ID = c.ID
		for range c.Pairs {
			out[i].Pairs = append(out[i].Pairs, sdk.Verdict{P: 0.9})
		}
	}
	return out, nil
}

// rudeOracle writes to the terminal, and tells the key that it was given, wherever it has a say.
type rudeOracle struct{ firstOracle }

const clears = "\x1b[2J"

func (rudeOracle) Manifest() sdk.Manifest {
	m := firstOracle{}.Manifest()
	m.Name, m.Version = "rude", "1"+clears+os.Getenv("RUDE_KEY")
	return m
}
func (rudeOracle) Judge(context.Context, []sdk.Comparison) ([]sdk.Verdicts, error) {
	return nil, sdk.Errorf(sdk.CodePlugin, "no%s idea\n\x1b]0;%s\a", clears, os.Getenv("RUDE_KEY"))
}

// thirdparty FILE...: makes each file, under the name of which this binary is that plugin.
func cmdThirdParty(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: thirdparty FILE...")
	}
	self, err := os.Executable()
	ts.Check(err)
	for _, arg := range args {
		path := ts.MkAbs(arg)
		ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
		ts.Check(copyExecutable(self, path))
	}
}

func copyExecutable(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
