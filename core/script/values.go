package script

import (
	"math"

	lua "github.com/yuin/gopher-lua"

	"github.com/dno-project/dno/core/rundir"
	"github.com/dno-project/dno/sdk"
)

// What callbacks are handed: tables made for one call.

// record is a table of names and values. Values that are unknown (nil, NaN, a nil pointer) are left
// out, so that they read as nil.
func (s *sandbox) record(pairs ...any) *lua.LTable {
	t := s.L.CreateTable(0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		if v := s.fromGo(pairs[i+1]); v != lua.LNil {
			t.RawSetString(pairs[i].(string), v)
		}
	}
	return t
}

// fromGo turns a number, text or JSON value into a Lua value.
func (s *sandbox) fromGo(v any) lua.LValue {
	switch v := v.(type) {
	case lua.LValue:
		return v
	case string:
		return lua.LString(v)
	case bool:
		return lua.LBool(v)
	case int:
		return lua.LNumber(v)
	case float64:
		if math.IsNaN(v) {
			return lua.LNil
		}
		return lua.LNumber(v)
	case *float64:
		if v != nil {
			return s.fromGo(*v)
		}
	case []any:
		t := s.L.CreateTable(len(v), 0)
		for i, item := range v {
			t.RawSetInt(i+1, s.fromGo(item))
		}
		return t
	case map[string]any:
		t := s.L.CreateTable(0, len(v))
		for _, key := range sortedKeys(v) {
			t.RawSetString(key, s.fromGo(v[key]))
		}
		return t
	}
	return lua.LNil
}

// prompt is what mix and pairs see of a prompt.
func (s *sandbox) prompt(p sdk.Prompt) *lua.LTable {
	messages := s.L.CreateTable(len(p.Messages), 0)
	for i, m := range p.Messages {
		messages.RawSetInt(i+1, s.record("role", m.Role, "content", m.Content))
	}
	t := s.record("id", p.ID, "text", p.Text(), "messages", messages, "metadata", s.fromGo(map[string]any(p.Metadata)))
	if p.Answer != "" {
		t.RawSetString("answer", lua.LString(p.Answer))
	}
	t.Metatable = s.readonly
	return t
}

// completion is what they see of a completion; index counts from 1, the policy's own first.
func (s *sandbox) completion(c sdk.Completion, index int) *lua.LTable {
	t := s.record("index", index, "text", c.Text, "logprob", c.LogProb)
	if c.Tokens != nil {
		t.RawSetString("tokens", lua.LNumber(len(c.Tokens)))
	}
	if c.Source != "" {
		t.RawSetString("source", lua.LString(c.Source))
	}
	if c.Finish != "" {
		t.RawSetString("finish", lua.LString(c.Finish))
	}
	t.Metatable = s.readonly
	return t
}

// history is a list of the finished iterations' figures, measured on validation; history[0] is the
// start policy. The test set is not in it, nor is the time that anything took.
func (s *sandbox) history(records []rundir.IterationRecord) *lua.LTable {
	t := s.L.NewTable()
	for _, r := range records {
		f := r.Evaluation.Validation
		classes, total := s.L.NewTable(), 0
		for _, class := range sortedKeys(r.Pairs) {
			classes.RawSetString(class, lua.LNumber(r.Pairs[class]))
			total += r.Pairs[class]
		}
		entry := s.record(
			"iteration", r.Iteration,
			"mean_tokens", f.MeanTokens.Mean,
			"prompts", r.Prompts, "completions", r.Completions, "asked", r.Asked, "abstained", r.Abstained,
			"flip_rate", r.Flipped, "cost", r.Cost, "cycles", r.Cycles,
			"pairs", classes, "pair_count", total, "mean_margin", r.MeanMargin,
			"steps", r.Steps, "loss", r.Loss, "lr", r.LR,
			"oracle", r.Oracle, "loss_name", r.LossName, "beta", r.Beta, "reference", r.Reference,
		)
		for _, figure := range []struct {
			name string
			*rundir.Estimate
		}{
			{"accuracy", f.Accuracy},
			{"accuracy_sampled", f.AccuracySampled},
			{"win_rate", f.WinRate},
			{"win_rate_parent", f.WinRateParent},
			{"win_rate_sampled", f.WinRateSampled},
			{"kl", f.KLParent},
			{"kl_initial", f.KLInitial},
		} {
			if figure.Estimate != nil {
				entry.RawSetString(figure.name, s.fromGo(figure.Mean))
				entry.RawSetString(figure.name+"_low", s.fromGo(figure.Low))
				entry.RawSetString(figure.name+"_high", s.fromGo(figure.High))
			}
		}
		entry.Metatable = s.readonly
		t.RawSet(lua.LNumber(r.Iteration), entry)
	}
	return t
}
