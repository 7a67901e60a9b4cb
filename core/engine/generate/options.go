package generate

import (
	"fmt"
	"math"
	"slices"
)

// Options say how each token is chosen and when a completion ends. They hold for every request of
// one call. [DefaultOptions] is the model's own distribution; the zero value is not legal.
//
// The filters apply in the order of the fields, each to the distribution that the one before left.
type Options struct {
	// RepetitionPenalty divides positive logits, and multiplies negative ones, of every id that stands
	// in the prompt or in the completion so far. Above 0; 1 is off.
	RepetitionPenalty float64
	// Temperature divides the logits. At least 0; 1 is the model's own distribution and 0 is greedy:
	// the largest logit, the lowest id among equals, and no other filter matters.
	Temperature float64
	// TopK keeps the k largest logits, and all that equal the k-th. At least 0; 0 is off.
	TopK int
	// TopP keeps, from the most probable id down (the lower id first among equals), each id while the
	// mass before it is below TopP. In [0, 1]; at least one id is kept; 1 is off.
	TopP float64
	// MinP keeps the ids of at least MinP times the largest probability. In [0, 1]; 0 is off.
	MinP float64

	// MaxTokens is the most tokens that a completion may have, the end-of-sequence token included.
	// At least 1.
	MaxTokens int
	// Stop lists texts that end a completion as soon as it holds one of them. None may be empty.
	Stop []string
}

// DefaultOptions returns the options that draw at most maxTokens tokens from the model's own
// distribution: temperature 1 and no filter.
func DefaultOptions(maxTokens int) Options {
	return Options{RepetitionPenalty: 1, Temperature: 1, TopP: 1, MaxTokens: maxTokens}
}

// Validate reports the first field outside its legal range, by name.
func (o *Options) Validate() error {
	switch {
	case !(o.RepetitionPenalty > 0) || math.IsInf(o.RepetitionPenalty, 1):
		return fmt.Errorf("repetition penalty %v: must be finite and above 0; 1 turns it off", o.RepetitionPenalty)
	case !(o.Temperature >= 0) || math.IsInf(o.Temperature, 1):
		return fmt.Errorf("temperature %v: must be finite and at least 0; 0 is greedy", o.Temperature)
	case o.TopK < 0:
		return fmt.Errorf("top-k %d: must be at least 0; 0 turns it off", o.TopK)
	case !(o.TopP >= 0 && o.TopP <= 1):
		return fmt.Errorf("top-p %v: must be in [0, 1]; 1 turns it off", o.TopP)
	case !(o.MinP >= 0 && o.MinP <= 1):
		return fmt.Errorf("min-p %v: must be in [0, 1]; 0 turns it off", o.MinP)
	case o.MaxTokens < 1:
		return fmt.Errorf("max tokens %d: must be at least 1", o.MaxTokens)
	}
	if i := slices.Index(o.Stop, ""); i >= 0 {
		return fmt.Errorf("stop text %d is empty: it would end every completion at once; remove it", i+1)
	}
	return nil
}
