// Package pairs is what oracles share that judge each comparison by itself.
package pairs

import (
	"context"

	"github.com/dno-project/dno/sdk"
)

// Judge answers a batch by judging each comparison that passes [Check]. The error is that of the
// first one that does not, or ctx's, which is looked at before each.
func Judge(ctx context.Context, batch []sdk.Comparison, judge func(sdk.Comparison) sdk.Verdicts) ([]sdk.Verdicts, error) {
	out := make([]sdk.Verdicts, len(batch))
	for i, c := range batch {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := Check(c); err != nil {
			return nil, err
		}
		out[i] = judge(c)
	}
	return out, nil
}

// Check returns an error naming the comparison and the pair if an index is not a candidate's.
func Check(c sdk.Comparison) error {
	for _, p := range c.Pairs {
		for _, i := range []int{p.A, p.B} {
			if i < 0 || i >= len(c.Candidates) {
				return sdk.Errorf(sdk.CodePlugin, "comparison %q asks for pair (%d, %d) of %d candidates",
					c.ID, p.A, p.B, len(c.Candidates))
			}
		}
	}
	return nil
}
