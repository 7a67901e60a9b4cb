// Command generate writes the embedded experiment's prompts, and what a model is trained on.
//
//	go run ./scripts/geometry/generate -files scripts/geometry/files
//	go run ./scripts/geometry/generate -model DIR -corpus FILE [-seed N] [-slips P] [-words P] [-size N]
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dno-project/dno/scripts/geometry"
)

func main() {
	var (
		files  = flag.String("files", "", "write the prompts and the teacher's answers into this folder")
		model  = flag.String("model", "", "write an untrained model's config.json and tokenizer into this folder")
		corpus = flag.String("corpus", "", "write a corpus for supervised fine-tuning to this file")
		seed   = flag.Uint64("seed", 0, "draws another corpus")
		slips  = flag.Float64("slips", geometry.Slips, "probability that a chance for a slip is taken in the corpus")
		words  = flag.Float64("words", geometry.Words, "probability that a step in the corpus begins with a word")
		size   = flag.Int("size", geometry.CorpusSize, "problems in the corpus")
	)
	flag.Parse()
	if err := run(*files, *model, *corpus, *seed, *size, geometry.Habits{Slips: *slips, Words: *words}); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(files, model, corpus string, seed uint64, size int, habits geometry.Habits) error {
	if files != "" {
		if err := writeAll(files, geometry.PromptFiles); err != nil {
			return err
		}
	}
	if model != "" {
		if err := writeAll(model, geometry.ModelFiles); err != nil {
			return err
		}
	}
	if corpus == "" {
		return nil
	}
	text, err := geometry.Demonstrations(seed, size, habits)
	if err != nil {
		return err
	}
	return os.WriteFile(corpus, text, 0o644)
}

func writeAll(dir string, make func() (map[string][]byte, error)) error {
	all, err := make()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
