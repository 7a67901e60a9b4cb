//go:build !race

package sdktest

import (
	"context"
	"sync"
	"testing"

	"github.com/dno-project/dno/sdk"
)

// The fault of this file is a data race, which the race detector would report as one of the test's.

// sharing is an oracle that writes the answers of all its calls into one slice.
type sharing struct {
	longest
	mu  sync.Mutex
	out []sdk.Verdicts
}

func (s *sharing) Judge(ctx context.Context, batch []sdk.Comparison) ([]sdk.Verdicts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out, err := s.longest.Judge(ctx, batch)
	s.out = append(s.out[:0], out...)
	return s.out, err
}

func TestAnOracleWhoseCallsShareTheirAnswersIsCaught(t *testing.T) {
	r := newRecorder()
	Oracle(r, func() sdk.Oracle { return &sharing{longest: longest{form: sdk.FormPairwise}} })
	r.wants(t, "in process/at once: asked 3 times at once: verdicts[0].id is")
}
