package host

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/dno-project/dno/sdk"
)

// quantiles reports the median and the 99th percentile of what each turn took.
func quantiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

// wholeBatch has 64 completions of 13 prompts and 51 pairs, all columns that a loss of pairs gets.
func wholeBatch() sdk.LossBatch {
	var b sdk.LossBatch
	for i := range 64 {
		b.Group = append(b.Group, int32(i/5))
		b.Policy, b.Reference = append(b.Policy, -20-float64(i)/3), append(b.Reference, -21-float64(i)/3)
		b.Tokens = append(b.Tokens, 40)
		b.WinRate, b.WinRateSE = append(b.WinRate, float64(i%5)/4), append(b.WinRateSE, math.NaN())
		b.Teacher = append(b.Teacher, false)
		if i%5 > 0 {
			b.Chosen, b.Rejected = append(b.Chosen, int32(i)), append(b.Rejected, int32(i-1))
			b.ChosenWinRate, b.RejectedWinRate = append(b.ChosenWinRate, 0.75), append(b.RejectedWinRate, 0.25)
			b.Target, b.Preference, b.Weight = append(b.Target, 0.9), append(b.Preference, 1), append(b.Weight, 1)
		}
	}
	return b
}

// BenchmarkLossCall is one call of a loss in a process of its own, as a step of training makes it.
func BenchmarkLossCall(b *testing.B) {
	h, err := New(bundled())
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	l, _, err := h.Loss(context.Background(), Spec{Name: "good"})
	if err != nil {
		b.Fatal(err)
	}
	batch := wholeBatch()
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := l.Evaluate(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	quantiles(b, took)
}

// BenchmarkHealthCheck is the least that a gRPC call costs, on the same connection: what BenchmarkLossCall is
// held against on a machine whose system calls are slow or fast.
func BenchmarkHealthCheck(b *testing.B) {
	h, err := New(bundled())
	if err != nil {
		b.Fatal(err)
	}
	defer h.Close()
	l, _, err := h.Loss(context.Background(), Spec{Name: "good"})
	if err != nil {
		b.Fatal(err)
	}
	p := l.(*loss).proc
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := p.protocol.Ping(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	quantiles(b, took)
}
