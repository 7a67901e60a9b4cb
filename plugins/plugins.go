// Package plugins is the list of what ships inside the binary.
package plugins

import (
	"cmp"
	"slices"

	"github.com/dno-project/dno/plugins/loss/dno"
	"github.com/dno-project/dno/plugins/loss/dpo"
	"github.com/dno-project/dno/plugins/loss/ipo"
	"github.com/dno-project/dno/plugins/oracle/command"
	"github.com/dno-project/dno/plugins/oracle/cyclic"
	"github.com/dno-project/dno/plugins/oracle/http"
	"github.com/dno-project/dno/plugins/oracle/judge"
	"github.com/dno-project/dno/plugins/oracle/length"
	"github.com/dno-project/dno/plugins/oracle/verifier"
	samplercommand "github.com/dno-project/dno/plugins/sampler/command"
	"github.com/dno-project/dno/plugins/sampler/file"
	"github.com/dno-project/dno/plugins/sampler/nucleus"
	"github.com/dno-project/dno/sdk"
)

// Entry is one bundled plugin.
type Entry struct {
	Kind sdk.Kind
	Name string
	Help string // one line, the manifest's
	New  func() sdk.Plugin
}

// List returns every bundled plugin, sorted by kind and name. A new one is a package in the folder
// of its kind and a line here.
func List() []Entry {
	list := []Entry{
		{sdk.KindLoss, "dno", "cross-entropy against the soft label that the win rates give (DNO, Eq. 8)", plugin(dno.New)},
		{sdk.KindLoss, "dpo", "sigmoid loss of the chosen over the rejected completion (DPO; cDPO with label smoothing)", plugin(dpo.New)},
		{sdk.KindLoss, "ipo", "squared distance of the log-ratio margin from 1/(2·beta) (IPO)", plugin(ipo.New)},
		{sdk.KindOracle, "command", "asks any program: a JSON line in for each question, a JSON line out", plugin(command.New)},
		{sdk.KindOracle, "cyclic", "rock, paper, scissors of three traits of a text: a preference that is no score", plugin(cyclic.New)},
		{sdk.KindOracle, "http", "asks any service: a POST of JSON for some questions, their answers back", plugin(http.New)},
		{sdk.KindOracle, "judge", "asks a language model behind any OpenAI-compatible server: pairwise, listwise or pointwise", plugin(judge.New)},
		{sdk.KindOracle, "length", "prefers the longer text, or the shorter one", plugin(length.New)},
		{sdk.KindOracle, "verifier", "verifies answers: arithmetic with its steps, numbers, LaTeX, choices, texts, JSON, instructions", plugin(verifier.New)},
		{sdk.KindSampler, "command", "asks any program: a JSON line in for each prompt, a JSON line with its completions out", plugin(samplercommand.New)},
		{sdk.KindSampler, "file", "looks completions up in a JSONL file of prompt and completion, such as a teacher's answers", plugin(file.New)},
		{sdk.KindSampler, "nucleus", "draws from the policy in training: temperature, top-k, top-p, min-p", plugin(nucleus.New)},
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return list
}

// New returns a new plugin of that kind and name. The error names the nearest one that there is.
func New(kind sdk.Kind, name string) (sdk.Plugin, error) {
	var names []string
	for _, e := range List() {
		if e.Kind == kind && e.Name == name {
			return e.New(), nil
		}
		if e.Kind == kind {
			names = append(names, e.Name)
		}
	}
	err := sdk.Errorf(sdk.CodeUsage, "there is no bundled %s %q", kind, name)
	if near := sdk.Nearest(name, names); near != "" {
		return nil, err.WithHint("did you mean %q?", near)
	}
	return nil, err
}

// plugin turns a constructor of one kind into a constructor of any.
func plugin[P sdk.Plugin](construct func() P) func() sdk.Plugin {
	return func() sdk.Plugin { return construct() }
}
