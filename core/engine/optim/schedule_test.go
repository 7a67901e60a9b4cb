package optim

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/dno-project/dno/sdk/sdktest"
)

func TestSchedules(t *testing.T) {
	tests := map[string]struct {
		schedule Schedule
		s        int
		want     float64
	}{
		"the first warm-up step has the rate 0":     {Constant(8, 4), 0, 0},
		"warm-up is linear: 8·3/4":                  {Constant(8, 4), 3, 6},
		"warm-up ends at the full rate":             {Constant(8, 4), 4, 8},
		"constant stays":                            {Constant(8, 4), 1e6, 8},
		"without warm-up step 0 has the full rate":  {Constant(8, 0), 0, 8},
		"cosine warms up like constant: 8·1/4":      {Cosine(8, 4, 16), 1, 2},
		"cosine begins at the full rate":            {Cosine(8, 4, 16), 4, 8},
		"a third on the cosine is 3/4: x=4/12, π/3": {Cosine(8, 4, 16), 8, 6}, // (1 + 1/2)/2
		"half way the cosine is half":               {Cosine(8, 4, 16), 10, 4},
		"the cosine ends at 0":                      {Cosine(8, 4, 16), 16, 0},
		"and stays there":                           {Cosine(8, 4, 16), 99, 0},
		"linear warms up: 8·2/4":                    {Linear(8, 4, 16), 2, 4},
		"linear falls by a twelfth a step: 8·9/12":  {Linear(8, 4, 16), 7, 6},
		"linear ends at 0":                          {Linear(8, 4, 16), 16, 0},
		"a run shorter than its warm-up: 8·2/4":     {Cosine(8, 4, 3), 2, 4},
		"a run as long as its warm-up ends at 0":    {Linear(8, 4, 4), 4, 0},
		"a run of one step without warm-up is at 8": {Cosine(8, 0, 1), 0, 8},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			if got := c.schedule(c.s); math.Abs(got-c.want) > 1e-14*8 {
				t.Errorf("rate %v, want %v", got, c.want)
			}
		})
	}
}

// The golden trajectories log PyTorch's learning rate at each step.
func TestGoldenSchedule(t *testing.T) {
	for _, file := range sdktest.GoldenCases(t, "traj/*/trajectory.json", "../testdata/golden") {
		t.Run(filepath.Base(filepath.Dir(file)), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var trajectory struct {
				Run struct {
					LR            float64
					Warmup, Steps int
				}
				Log []struct {
					Step int
					LR   float64
				}
			}
			if err := json.Unmarshal(text, &trajectory); err != nil {
				t.Fatal(err)
			}
			run := trajectory.Run
			rate := Cosine(run.LR, run.Warmup, run.Steps)
			if len(trajectory.Log) == 0 {
				t.Fatal("the log is empty")
			}
			for _, l := range trajectory.Log {
				if got := rate(l.Step); math.Abs(got-l.LR) > 1e-15 {
					t.Errorf("rate at step %d = %v, want %v", l.Step, got, l.LR)
				}
			}
		})
	}
}
