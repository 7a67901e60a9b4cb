package verifier

import (
	"errors"

	"github.com/dno-project/dno/plugins/internal/instructions"
	"github.com/dno-project/dno/sdk"
)

// Labels of the check "instructions", beside [sdk.LabelCorrect].
const (
	LabelFollowed     = "instructions_followed"
	LabelInstructions = "instructions_total"
)

// instructed is the check "instructions": which of the prompt's instructions the completion follows. The
// score is the share of them; correct is that all are followed, the paper's strict accuracy by prompt.
// The metadata is as [instructions.Read] reads it.
//
// Source: Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models (arXiv 2311.07911).
func instructed(p sdk.Prompt) (grader, string, error) {
	list, why, err := instructions.Read(p.Metadata)
	var fault *sdk.Error
	if errors.As(err, &fault) {
		return nil, "", sdk.Errorf(fault.Code, "read the instructions of prompt %q: %w", p.ID, err).WithHint("%s", fault.Hint)
	}
	if why != "" {
		return nil, why, nil
	}
	return func(text string) grade {
		followed := 0
		for _, i := range list {
			if i.Follows(text) {
				followed++
			}
		}
		return grade{
			score:   float64(followed) / float64(len(list)),
			correct: followed == len(list),
			labels:  map[string]float64{LabelFollowed: float64(followed), LabelInstructions: float64(len(list))},
		}
	}, "", nil
}
