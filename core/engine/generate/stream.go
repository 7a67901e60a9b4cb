package generate

import "math/rand/v2"

// A stream is the random numbers of one completion. They are part of a run's record: the same seed
// must give the same completion in every version of dno, so none of this may ever change.
//
//   - The generator is PCG-DXSM with 128 bits of state, math/rand/v2's PCG, whose two seeds are the
//     request's seed and the constant below.
//   - Each token takes exactly one draw, in order of position; a greedy token takes none.
//   - A draw is u = ⌊r/2¹¹⌋·2⁻⁵³ for the generator's next 64 bits r: 53 bits, in [0, 1).
//   - The token is the one at u of the cumulative distribution in id order; see pick.
type stream struct{ pcg rand.PCG }

func (s *stream) seed(seed uint64) { s.pcg.Seed(seed, 0x646e6f2d746f6b73) } // "dno-toks"

func (s *stream) next() float64 { return float64(s.pcg.Uint64()>>11) * 0x1p-53 }
