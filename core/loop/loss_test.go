package loop

import (
	"context"
	"reflect"
	"slices"
	"testing"

	"github.com/dno-project/dno/sdk"
)

// onTokens is dpo as a loss on tokens: each token has the derivative of its completion.
type onTokens struct{ sdk.Loss }

func (l onTokens) Manifest() sdk.Manifest {
	m := l.Loss.Manifest()
	m.Loss.TokenLevel = true
	return m
}

func (l onTokens) Evaluate(ctx context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	for i, row := range b.PolicyTokens {
		b.Policy[i], b.Reference[i] = sum(row), sum(b.ReferenceTokens[i])
	}
	out, err := l.Loss.Evaluate(ctx, b)
	out.Gradient, out.TokenGradients = nil, rows(out.Gradient)
	return out, err
}

func TestALossOnTokensTrainsLikeOneOnSums(t *testing.T) {
	var prints []string
	for _, loss := range []sdk.Loss{newDPO(), onTokens{newDPO()}} {
		l, policy, oracle := newLoop(t, create(t), testPlan())
		l.Plugins = plugins{oracle: oracle, loss: loss}
		start := policy.Fingerprint()
		if err := l.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
		if prints = append(prints, policy.Fingerprint()); prints[0] == start {
			t.Fatal("nothing was trained")
		}
	}
	if prints[0] != prints[1] {
		t.Error("the weights are others than those of the same loss on sums")
	}
}

// watched is dpo and keeps what it saw.
type watched struct {
	sdk.Loss
	traits sdk.LossTraits
	seen   []sdk.LossBatch
}

func (l *watched) Manifest() sdk.Manifest {
	m := l.Loss.Manifest()
	m.Loss = l.traits
	return m
}

func (l *watched) Evaluate(ctx context.Context, b sdk.LossBatch) (sdk.LossResult, error) {
	b.Policy = slices.Clone(b.Policy)
	l.seen = append(l.seen, b)
	return l.Loss.Evaluate(ctx, b)
}

func TestALossOfMismatchedPairsSeesThem(t *testing.T) {
	for _, traits := range []sdk.LossTraits{{Mismatched: true}, {Mismatched: true, NoReference: true}, {}} {
		loss := &watched{Loss: newDPO(), traits: traits}
		l, _, oracle := newLoop(t, create(t), testPlan())
		l.Plugins = plugins{oracle: oracle, loss: loss}
		if err := l.Execute(t.Context()); err != nil {
			t.Fatal(err)
		}
		moved := false
		for i, b := range loss.seen {
			want := len(b.Policy)
			if !traits.Mismatched || slices.Max(b.Group) == 0 {
				want = 0
			}
			reference := want
			if traits.NoReference {
				reference = 0
			}
			if len(b.MismatchedPolicy) != want || len(b.MismatchedReference) != reference {
				t.Fatalf("%+v, step %d: %d mismatched log-probabilities and %d of the reference for %d completions of %d prompts",
					traits, i, len(b.MismatchedPolicy), len(b.MismatchedReference), len(b.Policy), slices.Max(b.Group)+1)
			}
			equal := slices.Equal(b.MismatchedPolicy, b.MismatchedReference)
			if i == 0 && reference > 0 && !equal {
				t.Error("before the first update policy and reference differ")
			}
			moved = moved || !equal
		}
		if traits.Mismatched && !moved {
			t.Error("the policy's log-probabilities of mismatched pairs never move")
		}
	}
}

func TestAMismatchedPairIsOfTwoPrompts(t *testing.T) {
	at := func(game, completion int) place { return place{game, game, completion} }
	for name, c := range map[string]struct{ places, want []place }{
		"the next completion of another prompt, around the end": {
			[]place{at(4, 0), at(4, 2), at(7, 1), at(5, 0)},
			[]place{{4, 7, 1}, {4, 7, 1}, {7, 5, 0}, {5, 4, 0}},
		},
		"a prompt's completions need not stand together": {
			[]place{at(4, 0), at(7, 1), at(4, 2)}, []place{{4, 7, 1}, {7, 4, 2}, {4, 7, 1}},
		},
		"a batch of one prompt has none": {[]place{at(4, 0), at(4, 1)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := mismatch(c.places); !reflect.DeepEqual(got, c.want) {
				t.Errorf("have %v, want %v", got, c.want)
			}
		})
	}
}
