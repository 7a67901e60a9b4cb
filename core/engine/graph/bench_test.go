package graph_test

import (
	"context"
	"testing"

	"github.com/dno-project/dno/core/engine/graph"
	"github.com/dno-project/dno/core/engine/kernel"
	"github.com/dno-project/dno/core/engine/model"
)

// small is about the size of the embedded default: 0.7 M parameters, characters.
var small = model.Config{Vocab: 64, Width: 128, FFN: 384, Layers: 3, Heads: 4, KVHeads: 4, HeadDim: 32, MaxPositions: 256,
	NormEps: 1e-5, Rope: model.Rope{Theta: 10000, Type: "default"}, Tied: true, InitStd: 0.04, BOS: -1, Pad: -1}

func benchBatch() *graph.Batch {
	lengths := make([]int, 128)
	for i := range lengths {
		lengths[i] = 60 + i%41 // 80 on average
	}
	return pack(ragged(small.Vocab, lengths...)...)
}

// matmulFlops counts the multiplications and additions of the weight matrices for one pass forward.
func matmulFlops(c model.Config, b *graph.Batch) float64 {
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	layer := 2*q*c.Width + 2*kv*c.Width + 3*c.FFN*c.Width
	return 2 * (float64(b.Rows()*c.Layers*layer) + float64(len(b.Scored)*c.Vocab*c.Width))
}

func BenchmarkTrain(b *testing.B) {
	m, err := model.New(small, 1)
	if err != nil {
		b.Fatal(err)
	}
	train, err := m.Train()
	if err != nil {
		b.Fatal(err)
	}
	batch := benchBatch()
	if _, err := train.Run(context.Background(), batch, mixed); err != nil { // grows the workspaces
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := train.Run(context.Background(), batch, mixed); err != nil {
			b.Fatal(err)
		}
	}
	report(b, 3*matmulFlops(small, batch), batch)
}

func BenchmarkScore(b *testing.B) {
	m, err := model.New(small, 1)
	if err != nil {
		b.Fatal(err)
	}
	score, err := m.Score()
	if err != nil {
		b.Fatal(err)
	}
	batch := benchBatch()
	for b.Loop() {
		if err := score.Run(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	report(b, matmulFlops(small, batch), batch)
}

// BenchmarkGemm is the ceiling: a square product, in the same process.
func BenchmarkGemm(b *testing.B) {
	const n = 1024
	x, y, z := make([]float32, n*n), make([]float32, n*n), make([]float32, n*n)
	for b.Loop() {
		kernel.Gemm(false, true, n, n, n, x, n, y, n, z, n, false)
	}
	b.ReportMetric(2*n*n*n*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}

func report(b *testing.B, flops float64, batch *graph.Batch) {
	s := b.Elapsed().Seconds() / float64(b.N)
	b.ReportMetric(flops/s/1e9, "GFLOP/s")
	b.ReportMetric(float64(batch.Rows())/s, "tokens/s")
}
