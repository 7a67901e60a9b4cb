package host

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/dno-project/dno/sdk"
)

// reportP50 adds the median, which one slow start of a busy machine does not move.
func reportP50(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2]), "p50-ns")
}

// trainingBatch is what a step of the default experiment sends: 64 completions in 13 groups, 40 pairs.
func trainingBatch() sdk.LossBatch {
	const completions, pairs = 64, 40
	var b sdk.LossBatch
	for i := range completions {
		b.Group = append(b.Group, int32(i/5))
		b.Policy = append(b.Policy, -10-float64(i)/7)
		b.Reference = append(b.Reference, -10-float64(i)/9)
		b.Tokens = append(b.Tokens, int32(30+i%20))
		b.WinRate = append(b.WinRate, float64(i%5)/4)
		b.WinRateSE = append(b.WinRateSE, 0.1)
		b.Teacher = append(b.Teacher, false)
	}
	for i := range pairs {
		b.Chosen = append(b.Chosen, int32(i))
		b.Rejected = append(b.Rejected, int32(i/5*5+(i+1)%5))
		b.ChosenWinRate = append(b.ChosenWinRate, 0.9)
		b.RejectedWinRate = append(b.RejectedWinRate, 0.1)
		b.Target = append(b.Target, 0.96)
		b.Preference = append(b.Preference, 1)
		b.Weight = append(b.Weight, 1)
	}
	return b
}

// BenchmarkLossCall is one call of a loss in its process: what a step of training adds to its own work.
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
	batch := trainingBatch()
	var times []time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := l.Evaluate(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	reportP50(b, times)
}

// BenchmarkLaunch is the start of a plugin, until it is configured: of this binary, and of an executable
// of its size that is pinned, copied and verified.
func BenchmarkLaunch(b *testing.B) {
	dir, _, sum := thirdParty(b, sdk.KindLoss, "good")
	for name, c := range map[string]struct {
		options Options
		spec    Spec
	}{
		"bundled":     {bundled(), Spec{Name: "good"}},
		"third party": {Options{SearchDirs: []string{dir}, Lock: pinned("loss/good", sum)}, Spec{Name: "good"}},
	} {
		b.Run(name, func(b *testing.B) {
			var times []time.Duration
			for b.Loop() {
				b.StopTimer()
				h, err := New(c.options)
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				start := time.Now()
				if _, _, err := h.Loss(context.Background(), c.spec); err != nil {
					b.Fatal(err)
				}
				times = append(times, time.Since(start))
				b.StopTimer()
				h.Close()
				b.StartTimer()
			}
			reportP50(b, times)
		})
	}
}
