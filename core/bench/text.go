package bench

import (
	"fmt"
	"io"

	"github.com/dno-project/dno/core/engine/generate"
	"github.com/dno-project/dno/core/telemetry"
)

// Write draws the result as text of at most 80 columns (a model's name may be longer).
func Write(w io.Writer, r Result) error {
	p := &printer{telemetry.Lines{To: w}}
	p.Line("kernels %s, %s", r.Kernel, threads(r.Threads))
	if m := r.Machine; m != nil {
		p.Line("")
		p.Line("%-8s %9s %10s", "machine", "1 thread", threads(r.Threads))
		p.Line("%-8s %9.1f %10.1f GFLOP/s", "peak", m.PeakOneThread, m.PeakGFLOPS)
		p.Line("%-8s %9s %10.1f GFLOP/s, factors of bfloat16", "", "", m.PeakBF16GFLOPS)
		p.Line("%-8s %9.1f %10.1f GB/s, of an array of %d MB", "read", m.ReadOneThread, m.ReadGBs, 4*arenaFloats>>20)
		p.Line("%-8s %9.1f %10.1f GB/s, of the same, read and written", "update", m.UpdateOneThread, m.UpdateGBs)
	}
	if len(r.Kernels) > 0 {
		p.Line("")
		p.Line("%-18s %-14s %8s %7s %6s  %-7s %4s %7s", "", "", "", "", "flop/", "roof:", "share", "")
		p.Line("%-18s %-14s %8s %7s %6s  %-7s %5s %6s", "kernel", "shape", "GFLOP/s", "GB/s", "byte", "", "best", "median")
		for _, k := range r.Kernels {
			p.Line("%-18s %-14s %8.1f %7.1f %6.1f  %-7s %4.0f%% %5.0f%%", k.Name, k.Shape, k.GFLOPS, k.GBs, k.Intensity, k.Bound,
				100*k.Share, 100*k.ShareMedian)
		}
		p.Line("Shares are of min(peak, flop/byte × bandwidth); the roof says which it is.")
	}
	if m := r.Model; m != nil {
		p.Line("")
		p.Line("%s, %d parameters, products of %s", m.Name, m.Parameters, m.Precision)
		if m.Weights != string(generate.SameWeights) {
			p.Line("sampling with weights of %s", m.Weights)
		}
		p.Line("%-8s %10s %10s %8s %12s %7s", "", "tokens/s", "median", "GFLOP/s", "utilisation", "median")
		p.speed("train", m.Train)
		p.speed("sample", m.Sample)
		p.Line("train: updates on %d pairs of %d+%d tokens; sample: %d completions of %d prompts,",
			m.Train.Pairs, m.Train.PromptTokens, m.Train.CompletionTokens, m.Sample.Sequences, m.Sample.Prompts)
		p.Line("%d+%d tokens, of which those drawn count.", m.Sample.PromptTokens, m.Sample.CompletionTokens)
	}
	if it := r.Iteration; it != nil {
		p.Line("")
		p.Line("an iteration of %s, model %s:", it.Script, it.Model)
		p.Line("%d prompts, %d completions, %d steps", it.Prompts, it.Completions, it.Steps)
		for _, stage := range []string{"sample", "pair", "train", "evaluate"} {
			note := ""
			if stage == "sample" {
				note = ", with judging"
			}
			p.Line("%-9s %8.1f s%s", stage, it.Seconds[stage], note)
		}
		p.Line("%-9s %8.1f s", "together", it.TotalSeconds)
	}
	return p.Err
}

func threads(n int) string {
	if n == 1 {
		return "1 thread"
	}
	return fmt.Sprintf("%d threads", n)
}

type printer struct{ telemetry.Lines }

func (p *printer) speed(name string, s Speed) {
	p.Line("%-8s %10.0f %10.0f %8.1f %11.1f%% %6.1f%%", name, s.TokensPerSecond, s.TokensPerSecondMedian, s.GFLOPS,
		100*s.Utilisation, 100*s.UtilisationMedian)
}
