package model

import (
	"math"
	"sync"
)

// Frequencies returns the D/2 angles a position in radians by which the pairs of a head turn,
//
//	f[i] = theta^(-2i/D)
//
// scaled for the type linear: all wavelengths are stretched by factor; and for the type llama3: wavelengths above
// original/low are stretched by factor, those below original/high are kept, and those between are blended.
//
// The arithmetic is float32 where transformers has float32, since its rounding decides the
// angle at high positions.
//
// Source: Su et al. 2021 (arXiv 2104.09864), Eq. 15. Checked against: transformers 5.23.
func (r Rope) Frequencies(headDim int) []float32 {
	f := make([]float32, headDim/2)
	for i := range f {
		f[i] = 1 / float32(math.Pow(r.Theta, float64(float32(2*i)/float32(headDim))))
		switch r.Type {
		case "linear":
			f[i] /= float32(r.Factor)
		case "llama3":
			f[i] = r.stretch(f[i])
		}
	}
	return f
}

func (r Rope) stretch(f float32) float32 {
	original := float64(r.OriginalMaxPositions)
	wavelength := 2 * math.Pi / float64(f)
	switch {
	case wavelength > original/r.LowFreqFactor:
		return float32(float64(f) / r.Factor)
	case wavelength < original/r.HighFreqFactor:
		return f
	}
	s := (original/wavelength - r.LowFreqFactor) / (r.HighFreqFactor - r.LowFreqFactor)
	return float32((1-s)*float64(f)/r.Factor + s*float64(f))
}

// ropeTable grows on demand, so that a model that could take 131072 positions does not pay for
// them before it meets one.
type ropeTable struct {
	mu       sync.Mutex
	freqs    []float32
	cos, sin []float32
}

// upTo returns tables of n positions or more. A table that was handed out stays valid: growth
// makes a new one.
func (t *ropeTable) upTo(n int) (cos, sin []float32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	half := len(t.freqs)
	have := len(t.cos) / half
	if n <= have {
		return t.cos, t.sin
	}
	n = max(n, 2*have, 64)
	cos, sin = make([]float32, n*half), make([]float32, n*half)
	copy(cos, t.cos)
	copy(sin, t.sin)
	for p := have; p < n; p++ {
		for i, f := range t.freqs {
			s, c := math.Sincos(float64(float32(p) * f))
			cos[p*half+i], sin[p*half+i] = float32(c), float32(s)
		}
	}
	t.cos, t.sin = cos, sin
	return cos, sin
}
