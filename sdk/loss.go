package sdk

import "context"

// Loss is a contrastive loss. It sees log-probabilities and never the model, so it can run in
// another process and be written in any language.
//
// The host calls Evaluate once for each optimizer step with the whole optimizer batch, never
// concurrently. It divides the returned loss and derivatives by the batch's total weight, so an
// implementation returns plain weighted sums. For a loss that is a function of one pair,
// [Pairwise] is all that has to be written.
type Loss interface {
	Plugin
	Evaluate(ctx context.Context, batch LossBatch) (LossResult, error)
}

// LossBatch is one optimizer batch of C completions and B pairs, in columns: index i is the same
// completion (or pair) in each column of its kind.
//
// Log-probabilities are of a whole completion given its prompt, summed over its tokens including
// the end-of-sequence token, in nats, at temperature 1; they are at most 0.
type LossBatch struct {
	// For each completion, length C. Every completion stands here once, however many pairs it is in.
	Group     []int32   // which group (prompt) it belongs to, numbered from 0 within the batch
	Policy    []float64 // log π(y|x), of the policy in training
	Reference []float64 // log π_ref(y|x), fixed for the iteration; empty if the manifest says NoReference
	Tokens    []int32   // |y| in tokens, at least 1
	WinRate   []float64 // expected win rate against the policy's own completions; NaN without an opponent
	WinRateSE []float64 // its standard error; NaN below two opponents
	Teacher   []bool    // written by the teacher

	// Per-token log-probabilities, each row of length Tokens[i]; only if the manifest says TokenLevel.
	PolicyTokens    [][]float64
	ReferenceTokens [][]float64

	// For each pair, length B; empty for a loss whose unit is not the pair.
	Chosen          []int32   // index into the completions
	Rejected        []int32   //
	ChosenWinRate   []float64 // leave-pair-out win rate r₁ of the chosen completion
	RejectedWinRate []float64 // r₂
	Target          []float64 // σ(c·(r₁ − r₂)), the soft label of Eq. 8
	Preference      []float64 // symmetrised P̃(chosen ≻ rejected)
	Weight          []float64 // the script's weight, > 0

	// For each completion, length C: the log-probability of a completion to another prompt of the
	// batch, given completion i's prompt (KTO's baseline); only if the manifest says Mismatched, and
	// empty where the batch has a single prompt. They are constants: nothing is trained through them.
	MismatchedPolicy    []float64
	MismatchedReference []float64 // empty if the manifest says NoReference

	// UnitWeight are the weights of completions or groups for a loss of that unit, else empty.
	UnitWeight []float64

	State []byte // what the last call returned; nil at the run's first call
}

// LossResult is the loss of a batch: sums over its units, each times its weight.
type LossResult struct {
	Loss           float64            // Σ weight · loss
	Gradient       []float64          // dLoss/dPolicy[i], length C; empty from a TokenLevel loss
	TokenGradients [][]float64        // dLoss/dPolicyTokens[i][t]; only from a TokenLevel loss
	Metrics        map[string]float64 // named means for the record, e.g. "rewards/margins"
	State          []byte             // handed back with the next call and saved in checkpoints
}

// PairTerm is what a pairwise loss sees of one pair.
type PairTerm struct {
	Chosen, Rejected               float64 // log π/π_ref of each, nats: w and l
	ChosenPolicy, RejectedPolicy   float64 // log π of each, nats
	ChosenTokens, RejectedTokens   float64 // lengths in tokens
	Target, Preference             float64 // see LossBatch
	ChosenWinRate, RejectedWinRate float64
}

// PairFunc is the loss of one pair and its derivatives by the log-probabilities of the chosen and
// of the rejected completion.
type PairFunc func(PairTerm) (loss, dChosen, dRejected float64)

// Pairwise is a whole [Loss] made of a manifest and a function of one pair: configure takes the
// resolved settings at each iteration's start and returns that function.
func Pairwise(m Manifest, configure func(Settings) (PairFunc, error)) Loss {
	m.Kind, m.Loss.Unit = KindLoss, UnitPair
	return &pairwise{manifest: m, configure: configure}
}

type pairwise struct {
	manifest  Manifest
	configure func(Settings) (PairFunc, error)
	f         PairFunc
}

func (p *pairwise) Manifest() Manifest { return p.manifest }

func (p *pairwise) Configure(_ context.Context, s Settings) (err error) {
	p.f, err = p.configure(s)
	return err
}

func (p *pairwise) Evaluate(_ context.Context, b LossBatch) (LossResult, error) {
	if p.f == nil {
		return LossResult{}, Errorf(CodePlugin, "loss %q was asked to evaluate before it was configured", p.manifest.Name)
	}
	return SumPairs(b, p.f), nil
}

// SumPairs evaluates f over the batch's pairs: the weighted sum and its derivative for each
// completion, summed where a completion stands in several pairs.
func SumPairs(b LossBatch, f PairFunc) LossResult {
	out := LossResult{Gradient: make([]float64, len(b.Policy))}
	for k := range b.Chosen {
		i, j := b.Chosen[k], b.Rejected[k]
		t := PairTerm{
			Chosen: b.Policy[i], Rejected: b.Policy[j],
			ChosenPolicy: b.Policy[i], RejectedPolicy: b.Policy[j],
			ChosenTokens: float64(b.Tokens[i]), RejectedTokens: float64(b.Tokens[j]),
			Target: b.Target[k], Preference: b.Preference[k],
			ChosenWinRate: b.ChosenWinRate[k], RejectedWinRate: b.RejectedWinRate[k],
		}
		if len(b.Reference) > 0 {
			t.Chosen -= b.Reference[i]
			t.Rejected -= b.Reference[j]
		}
		loss, dc, dr := f(t)
		w := b.Weight[k]
		out.Loss += w * loss
		out.Gradient[i] += w * dc
		out.Gradient[j] += w * dr
	}
	return out
}
