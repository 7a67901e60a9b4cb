package engine

import (
	"math/rand/v2"
	"os"
	"testing"

	"github.com/dno-project/dno/core/engine/kernel"
)

// BenchmarkDefaultStep is an update like those of the default experiment: 7 prompts of some 50 tokens with 5
// completions of some 40 each, on the embedded model.
func BenchmarkDefaultStep(b *testing.B) {
	e, err := Load(os.DirFS("../../scripts/geometry/files"), "model")
	must(b, err)
	rng := rand.New(rand.NewPCG(1, 2))
	ids := func(n int) []int32 {
		out := make([]int32, n)
		for i := range out {
			out[i] = int32(rng.IntN(e.model.Config.Vocab))
		}
		return out
	}
	var seqs []Sequence
	for range 7 {
		prompt := ids(40 + rng.IntN(20))
		for range 5 {
			seqs = append(seqs, Sequence{prompt, ids(30 + rng.IntN(20))})
		}
	}
	for _, p := range []kernel.Precision{kernel.Float32, kernel.BFloat16} {
		b.Run(p.String(), func(b *testing.B) {
			e.SetPrecision(p)
			must(b, e.StartOptimizer(adam))
			b.ReportAllocs()
			for b.Loop() {
				_, err := e.Step(ctx, seqs, 1e-6, coupled)
				must(b, err)
			}
			b.ReportMetric(float64(e.batch.Rows())*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
