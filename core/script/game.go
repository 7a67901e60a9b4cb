package script

import (
	"fmt"
	"slices"

	lua "github.com/yuin/gopher-lua"

	"github.com/dno-project/dno/core/preference"
	"github.com/dno-project/dno/sdk"
)

// gameAPI is the game that pairs is handed: a table of what is known, and methods. Completions are
// counted from 1, the policy's own first, as in mix.
type gameAPI struct {
	box     *sandbox
	methods *lua.LTable // its metatable

	// Of the call that runs.
	self *lua.LTable
	game *preference.Game
	rule preference.Rule
}

func (s *sandbox) newGameAPI() *gameAPI {
	g := &gameAPI{box: s, methods: s.L.NewTable()}
	g.methods.RawSetString("__index", s.module(map[string]lua.LGFunction{
		"p":        g.p,
		"win_rate": g.winRate,
		"pairs":    g.pairs,
	}))
	g.methods.RawSetString("__metatable", lua.LFalse)
	return g
}

// table makes the game's table.
func (g *gameAPI) table(prompt sdk.Prompt, game *preference.Game, rule preference.Rule) *lua.LTable {
	n := game.N()
	completions := g.box.L.CreateTable(n, 0)
	for i := range n {
		completions.RawSetInt(i+1, g.box.completion(game.Completion(i), i+1))
	}
	allowed := game.Pairable()
	pairable := g.box.L.CreateTable(len(allowed), 0)
	for k, i := range allowed {
		pairable.RawSetInt(k+1, lua.LNumber(i+1))
	}
	t := g.box.record("n", n, "completions", completions, "pairable", pairable, "prompt", g.box.prompt(prompt))
	t.Metatable = g.methods
	g.self, g.game, g.rule = t, game, rule
	return t
}

// index reads a completion's number in argument i.
func (g *gameAPI) index(L *lua.LState, i int) int {
	n := float64(L.CheckNumber(i))
	if at := int(n); float64(at) == n && at >= 1 && at <= g.game.N() {
		return at - 1
	}
	L.RaiseError("there is no completion %s: the game has 1 to %d", describe(L.Get(i), 0), g.game.N())
	return 0
}

func (g *gameAPI) checkSelf(L *lua.LState, usage string) {
	if t, ok := L.Get(1).(*lua.LTable); !ok || t != g.self {
		L.RaiseError("call it as game:%s", usage)
	}
}

// p is game:p(i, j), the symmetrised preference for i over j; nil where the two were not compared.
func (g *gameAPI) p(L *lua.LState) int {
	g.checkSelf(L, "p(i, j)")
	L.Push(g.box.fromGo(g.game.Preference(g.index(L, 2), g.index(L, 3))))
	return 1
}

// winRate is game:win_rate(i): the win rate, its standard error, and the number of opponents; nil for
// what has too few opponents.
func (g *gameAPI) winRate(L *lua.LState) int {
	g.checkSelf(L, "win_rate(i)")
	e := g.game.WinRate(g.index(L, 2))
	L.Push(g.box.fromGo(e.Rate))
	L.Push(g.box.fromGo(e.SE))
	L.Push(lua.LNumber(e.Opponents))
	return 3
}

// rules are what game:pairs takes.
var rules = []string{"max_pairs", "min_margin", "select"}

// pairs is game:pairs{ min_margin =, max_pairs =, select = }: the rule's pairs; what is not given is
// the plan's.
func (g *gameAPI) pairs(L *lua.LState) int {
	g.checkSelf(L, "pairs{ min_margin = ... }")
	rule := g.rule
	options := L.OptTable(2, L.CreateTable(0, 0))
	each(options, func(key, v lua.LValue) bool {
		name := key.String()
		switch n, isNumber := v.(lua.LNumber); {
		case !slices.Contains(rules, name):
			L.RaiseError("game:pairs: %s", unknown(name, rules, false))
		case name == "select":
			rule.Select = lua.LVAsString(v)
		case !isNumber:
			L.RaiseError("game:pairs: %s: want a number, have %s", name, describe(v, 1))
		case name == "min_margin":
			rule.MinMargin = float64(n)
		case float64(n) != float64(int(n)):
			L.RaiseError("game:pairs: %s: want a whole number, have %v", name, float64(n))
		default:
			rule.MaxPairs = int(n)
		}
		return true
	})
	pairs, err := g.game.Pairs(rule)
	if err != nil {
		L.RaiseError("game:%s", err.Error())
	}
	g.box.charge(L, len(pairs)*(tableSteps+10*entrySteps))
	list := L.CreateTable(len(pairs), 0)
	for i, p := range pairs {
		list.RawSetInt(i+1, g.box.record(
			"chosen", p.Chosen+1, "rejected", p.Rejected+1, "weight", p.Weight,
			"margin", p.Margin, "preference", p.Preference,
			"chosen_win_rate", p.ChosenWinRate, "rejected_win_rate", p.RejectedWinRate,
			"chosen_se", p.ChosenSE, "rejected_se", p.RejectedSE, "opponents", p.Opponents, "class", string(p.Class),
		))
	}
	L.Push(list)
	return 1
}

// What an entry of the returned list may say, and what game:pairs adds for reading.
var (
	pairKeys  = []string{"chosen", "rejected", "weight"}
	pairFacts = []string{"margin", "preference", "chosen_win_rate", "rejected_win_rate", "chosen_se", "rejected_se", "opponents", "class"}
)

// readPairs checks what pairs returned. Completions with the same text are one: of several pairs of
// the same two texts the first counts.
func (s *Script) readPairs(r request, game *preference.Game, v lua.LValue) ([]preference.Pair, error) {
	d := decoder{code: sdk.CodeScript, prefix: r.prefix(), at: s.box.where}
	list, ok := v.(*lua.LTable)
	if v == lua.LNil {
		return nil, nil
	}
	if !ok {
		return nil, d.fail(nil, "", "it returned %s: want a list of { chosen = i, rejected = j }", describe(v, 1))
	}
	var out []preference.Pair
	seen := map[[2]int]bool{}
	var err error
	each(list, func(key, v lua.LValue) bool {
		entry, isTable := v.(*lua.LTable)
		if _, isNumber := key.(lua.LNumber); !isNumber || !isTable {
			err = d.fail(list, "", "it returned %s in its list: want { chosen = i, rejected = j }", describe(v, 1))
			return false
		}
		var p preference.Pair
		if p, err = readPair(d, entry, game); err != nil {
			return false
		}
		if both := [2]int{p.Chosen, p.Rejected}; !seen[both] {
			seen[both] = true
			out = append(out, p)
		}
		return true
	})
	return out, err
}

func readPair(d decoder, entry *lua.LTable, game *preference.Game) (preference.Pair, error) {
	given := map[string]float64{"weight": 1}
	err := d.keys(entry, func(key string, v lua.LValue) error {
		if slices.Contains(pairFacts, key) {
			return nil
		}
		if !slices.Contains(pairKeys, key) {
			return d.fail(entry, key, "a pair: %s", unknown(key, pairKeys, false))
		}
		n, ok := v.(lua.LNumber)
		if !ok {
			return d.fail(entry, key, "a pair's %s: want a number, have %s", key, describe(v, 1))
		}
		given[key] = float64(n)
		return nil
	})
	if err != nil {
		return preference.Pair{}, err
	}
	what := fmt.Sprintf("the pair of %v over %v", given["chosen"], given["rejected"])
	index := [2]int{}
	for k, key := range []string{"chosen", "rejected"} {
		n, ok := given[key]
		if !ok {
			return preference.Pair{}, d.fail(entry, "", "a pair lacks %s: want { chosen = i, rejected = j }", key)
		}
		i := int(n) - 1
		if float64(i+1) != n || i < 0 || i >= game.N() {
			return preference.Pair{}, d.fail(entry, key, "%s: the game has completions 1 to %d", what, game.N())
		}
		pairable := game.Pairable()
		at := slices.IndexFunc(pairable, func(k int) bool { return game.FirstOf(k) == game.FirstOf(i) })
		if at < 0 {
			return preference.Pair{}, d.fail(entry, key, "%s: %v is not among what mix returned", what, n)
		}
		index[k] = pairable[at]
	}
	if index[0] == index[1] {
		return preference.Pair{}, d.fail(entry, "", "%s: both have the same text", what)
	}
	switch p := game.Preference(index[0], index[1]); {
	case p != p:
		return preference.Pair{}, d.fail(entry, "", "%s: the oracle did not compare the two", what)
	case p <= 0.5:
		return preference.Pair{}, d.fail(entry, "", "%s: the chosen one is not preferred: P is %v, and must be above 1/2", what, p)
	}
	if problem := (limit{max: infinite, above: true, below: true}).number(given["weight"]); problem != "" {
		return preference.Pair{}, d.fail(entry, "weight", "%s: weight: %s", what, problem)
	}
	pair, err := game.Pair(index[0], index[1], given["weight"])
	if err != nil {
		return preference.Pair{}, d.fail(entry, "", "%s: %s", what, err)
	}
	return pair, nil
}
