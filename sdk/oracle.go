package sdk

import "context"

// Oracle says how probably one completion is preferred to another.
//
// The host may call Judge from several goroutines at once, up to the manifest's Concurrency.
// A comparison may be sent again after a crash: judging must not depend on what was asked before.
type Oracle interface {
	Plugin
	// Judge answers each comparison of the batch, in order. An oracle that cannot decide abstains
	// with a reason; it never answers with a default number. An error fails the whole batch.
	Judge(ctx context.Context, batch []Comparison) ([]Verdicts, error)
}

// Comparison is one question: a prompt, its candidates, and the ordered pairs of them to compare.
type Comparison struct {
	ID         string // returned with the verdicts
	Prompt     Prompt
	Candidates []string  // completions' texts, at least one
	Pairs      []Ordered // which to compare, perhaps none: then only assessments are asked for
}

// Ordered is an ordered pair of candidates, by index: A is shown first.
type Ordered struct{ A, B int }

// Verdicts are the answers to one comparison.
type Verdicts struct {
	ID       string
	Pairs    []Verdict    // one for each of the comparison's Pairs, in order; empty from a pointwise oracle
	Assessed []Assessment // one for each candidate, or empty; a pointwise oracle must give them
	Cost     float64      // what the answer cost, in the currency of the oracle's bill; 0 where it is free
	Tokens   int          // that the answer took, read and written; 0 where nobody counts them
	Model    string       // the model that answered, as its server names it; "" where there is none. A run holds the oracle to it
}

// Verdict is the answer for one ordered pair.
type Verdict struct {
	P       float64 // probability in [0, 1] that A is preferred to B; ½ is a tie. Not read where Abstain is set
	Abstain string  // why there is no verdict; "" where there is one
	Reason  string  // the oracle's words, for people
}

// Assessment is what an oracle says of one candidate by itself.
type Assessment struct {
	Score   *float64           // higher is better; nil where the oracle has none
	Labels  map[string]float64 // named measurements: "correct" 0 or 1, ...
	Abstain string             // why there is no score, from a pointwise oracle
}

// LabelCorrect is the label from which accuracy is computed: 1 where the completion's final
// answer is right, 0 where it is wrong.
const LabelCorrect = "correct"
