// Package geometry is the embedded experiment: word problems of several steps, a generator of
// them, and a small model that was fine-tuned on solutions with deliberate slips.
//
// Why slips: the corpus imitates careless people. At each chance (a carry in a sum or in a product,
// a borrow in a difference) the writer forgets it with probability [Slips]. Both behaviours are
// then in the model: greedy decoding shows the slip, samples show the skill, and preferences can
// bring it out. A model that was merely trained too little has no hidden skill to bring out. With
// probability [Words] a step begins with a word that says nothing: it makes lengths differ, so that a
// preference for length has something to find.
package geometry

import (
	"embed"
	"io/fs"
)

// Slips is the probability that a chance for a slip is taken in the corpus of the embedded model.
const Slips = 0.7

// Words is the probability that a step of the corpus begins with a word.
const Words = 0.3

// CorpusSize is the number of worked problems that the embedded model was fine-tuned on.
const CorpusSize = 40000

// The numbers of prompts in the three sets.
const (
	TrainSize      = 1600
	ValidationSize = 200
	TestSize       = 1000
)

//go:embed files
var files embed.FS

// Files is the embedded experiment: train.jsonl, validation.jsonl, test.jsonl, teacher.jsonl, and
// the folder model in the Hugging Face layout.
func Files() fs.FS {
	sub, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // the name above is the name of the embedded folder
	}
	return sub
}
