// Package pairs guards oracles against comparisons that name candidates which are not there.
package pairs

import "github.com/dno-project/dno/sdk"

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
