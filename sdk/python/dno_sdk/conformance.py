"""Checks a plugin's class against the contract, in this process: check(MyLoss) in a test, or
`python -m dno_sdk.conformance plugin.py`. `dno plugin check` asks the built program more.

Each check returns the list of faults, each a sentence; check() raises an AssertionError that lists them.
"""

import importlib.util
import json
import math
import os
import random
import re
import sys
from array import array

from . import convert, types, wire


def check(make, settings=None):
    """Checks the plugin that make() returns, a new one each time, with settings beyond the defaults."""
    faults = faults_of(make, settings)
    if faults:
        raise AssertionError("the plugin breaks the contract:\n  " + "\n  ".join(faults))


def faults_of(make, settings=None):
    plugin = make()
    faults = _manifest(plugin)
    if faults:
        return faults

    def fresh():
        p = make()
        values = {s.name: s.default for s in p.manifest.settings if s.default is not None}
        p.configure({**values, **(settings or {})})
        return p

    return {"oracle": _oracle, "loss": _loss, "sampler": _sampler}[plugin.kind](fresh)


def _manifest(plugin):
    m, faults = plugin.manifest, []
    if not re.fullmatch(r"[a-z0-9_-]+", m.name):
        faults.append(f"the name is {m.name!r}: want lower-case letters, digits, '-' and '_'")
    if not m.version:
        faults.append("there is no version: it changes whenever results may change")
    for what, text in [("the manifest", m.help)] + [(f"setting {s.name!r}", s.help) for s in m.settings]:
        if not text or "\n" in text:
            faults.append(f"help of {what}: want one line")
    if plugin.kind == "oracle" and m.form not in ("pairwise", "listwise", "pointwise"):
        faults.append(f"form is {m.form!r}: want pairwise, listwise or pointwise")
    if plugin.kind == "loss" and m.unit not in ("", "pair", "completion", "group"):
        faults.append(f"unit is {m.unit!r}: want pair, completion or group")
    for s in m.settings:
        if s.type not in ("number", "bool", "string", "list", "path"):
            faults.append(f"setting {s.name!r}: type {s.type!r} is none")
        if s.default is not None and json.loads(json.dumps(s.default)) != s.default:
            faults.append(f"setting {s.name!r}: its default is no JSON value")
    return faults


# Losses.


def _loss(fresh):
    faults = []
    for name, batch in _batches(fresh().manifest):
        faults += [f"{name}: {f}" for f in _derivatives(fresh(), batch)]
    if faults:
        return faults
    loss, batch = fresh(), _typical(fresh().manifest)
    once = loss.evaluate(batch)
    double = _copy(batch, weight=array("d", [2 * w for w in batch.weight]), unit_weight=array("d", [2 * w for w in batch.unit_weight]))
    twice = loss.evaluate(double)
    if not math.isclose(twice.loss, 2 * once.loss, rel_tol=1e-9, abs_tol=1e-9):
        faults.append(f"with weights doubled the loss is {twice.loss} instead of twice {once.loss}: return plain weighted sums")
    after = _copy(batch, state=once.state)
    if loss.evaluate(after).loss != fresh().evaluate(after).loss or loss.evaluate(batch).loss != once.loss:
        faults.append("a call depends on earlier ones beyond the state bytes: keep what is remembered in state")
    return faults


def _derivatives(loss, batch):
    m, out = loss.manifest, loss.evaluate(batch)
    rows = [list(r) for r in out.token_gradients] if m.token_level else [[g] for g in out.gradient]
    want = [batch.tokens[i] if m.token_level else 1 for i in range(len(batch.policy))]
    if [len(r) for r in rows] != want:
        return [f"the gradient has {sum(map(len, rows))} values in {len(rows)} rows: want {sum(want)} in {len(want)}"]
    for i, row in enumerate(rows):
        for g in row:
            if not math.isfinite(g):
                return [f"the derivative of completion {i} is {g}: a naive log(sigmoid(x))?"]
    if not math.isfinite(out.loss):
        return [f"the loss is {out.loss}"]
    if m.surrogate:
        return []
    for i, row in enumerate(rows):
        for k, g in enumerate(row):
            x = batch.policy[i]
            h = min(1e-4 * max(1, -x / 100), -x / 100)
            up, down = (loss.evaluate(_moved(batch, i, k, s * h)).loss for s in (1, -1))
            right, left = (up - out.loss) / h, (out.loss - down) / h
            rounding = 8 * 2**-52 * (abs(up) + abs(down) + abs(out.loss)) / h
            if not abs(g - (right + left) / 2) <= 1e-4 * abs(g) + rounding + abs(right - left) / 2 + 1e-9:
                return [f"derivative {k} of completion {i} is {g}, the slope is {(right + left) / 2}"]
    return []


def _moved(batch, i, k, h):
    policy = array("d", batch.policy)
    policy[i] += h
    tokens = [array("d", row) for row in batch.policy_tokens]
    if tokens:
        tokens[i][k] += h
    return _copy(batch, policy=policy, policy_tokens=tokens)


def _copy(batch, **changes):
    return types.LossBatch(**{**vars(batch), **changes})


def _typical(m):
    r, rows = random.Random(1), []
    for group in range(4):
        for _ in range(3):
            p = r.uniform(-80, -5)
            rows.append((group, p, min(p + r.uniform(-4, 4), -1e-3), r.randrange(1, 60)))
    pairs = [(3 * g + a, 3 * g + b, r.random(), r.uniform(0.5, 2)) for g in range(4) for a, b in ((0, 1), (0, 2), (1, 2))]
    return _batch(m, rows, pairs)


def _batches(m):
    yield "a typical batch", _typical(m)
    for name, chosen, rejected, ref_chosen, ref_rejected, target in (
        ("a policy that is its reference", -20, -30, -20, -30, 0.7),
        ("a margin of 1e-9 nats", -25, -25, -25 - 1e-9, -25, 0.5),
        ("a chosen completion far above", -1, -10001, -10001, -1, 1),
        ("a chosen completion far below", -10001, -1, -1, -10001, 1),
        ("a label of 0", -12, -9, -11, -10, 0),
    ):
        yield name, _batch(m, [(0, chosen, ref_chosen, 8), (0, rejected, ref_rejected, 12)], [(0, 1, target, 1.0)])


def _batch(m, rows, pairs):
    def column(values):
        return array("d", values)

    groups, n = [r[0] for r in rows], len(rows)
    policy, reference = column(r[1] for r in rows), column([] if m.no_reference else [r[2] for r in rows])
    tokens = array("i", [r[3] for r in rows])
    spread = [array("d", [p / t] * t) for p, t in zip(policy, tokens)] if m.token_level else []
    ref_spread = [array("d", [p / t] * t) for p, t in zip(reference, tokens)] if m.token_level else []
    others = m.mismatched and len(set(groups)) > 1
    unit = {"completion": n, "group": len(set(groups))}.get(m.unit, 0)
    if unit:
        pairs = []
    return types.LossBatch(
        group=array("i", groups), policy=policy, reference=reference, tokens=tokens,
        win_rate=column((i % 5) / 4 for i in range(n)), win_rate_se=column([math.nan] * n), teacher=[i % 3 == 2 for i in range(n)],
        policy_tokens=spread, reference_tokens=ref_spread,
        mismatched_policy=column(p - 1 for p in policy) if others else column([]),
        mismatched_reference=column(p - 2 for p in reference) if others else column([]),
        chosen=array("i", [p[0] for p in pairs]), rejected=array("i", [p[1] for p in pairs]),
        chosen_win_rate=column(p[2] for p in pairs), rejected_win_rate=column(1 - p[2] for p in pairs),
        target=column(p[2] for p in pairs), preference=column(p[2] for p in pairs), weight=column(p[3] for p in pairs),
        unit_weight=column([1.5] * unit), state=b"")


# Oracles.


def _oracle(fresh):
    oracle, batch = fresh(), _questions()
    m, out, faults = oracle.manifest, oracle.judge(batch), []
    if [v.id for v in out] != [c.id for c in batch]:
        return [f"the verdicts are of {[v.id for v in out]}: want one for each comparison, in order: {[c.id for c in batch]}"]
    for c, v in zip(batch, out):
        want = 0 if m.form == "pointwise" else len(c.pairs)
        if len(v.pairs) != want:
            faults.append(f"{c.id}: {len(v.pairs)} verdicts for {len(c.pairs)} pairs, want {want}")
            continue
        if len(v.assessed) != len(c.candidates) and (v.assessed or m.form == "pointwise"):
            faults.append(f"{c.id}: {len(v.assessed)} assessments for {len(c.candidates)} candidates")
        known = {}
        for k, (pair, verdict) in enumerate(zip(c.pairs, v.pairs)):
            if verdict.abstain:
                continue
            if not 0 <= verdict.p <= 1:
                faults.append(f"{c.id}: p of pair {k} is {verdict.p}: want a probability, or a reason to abstain")
            texts = (c.candidates[pair[0]], c.candidates[pair[1]])
            back = known.get(texts[::-1], verdict.p if texts[0] == texts[1] else None)
            if not m.order_matters and back is not None and abs(verdict.p + back - 1) > 1e-9:
                faults.append(f"{c.id}: pair {k} has P = {verdict.p}, the other order {back}: the manifest says that order does not matter")
            known[texts] = verdict.p
    if not faults and oracle.judge([]) != []:
        faults.append("no question gives an answer")
    return faults


def _questions():
    out = []
    for i, candidates in enumerate((["2+2 = 4", "2+2 = 5"], ["The answer is 4."] * 2, ["4", "", "Vier: 四 \u202e"], ["five", "[[A]] 4", "4\n\n4"])):
        pairs = [(a, b) for a in range(len(candidates)) for b in range(len(candidates)) if a != b]
        prompt = types.Prompt(f"sum-{i}", [types.Message("user", "What is 2+2?")], "4", {"level": 1.0})
        out.append(types.Comparison(f"question-{i}", prompt, candidates, pairs))
    return out


# Samplers.


class _Writer:
    """A generator whose completions are made of prompt and seed."""

    def generate(self, prompts, seeds, options):
        wire.encode("GenerateRequest", convert.from_generate(prompts, seeds, options))  # it can be sent
        if options.max_tokens < 1:
            raise types.Error(types.USAGE, f"max_tokens is {options.max_tokens}: want at least 1")
        return [[types.Completion(f"{p[-1].content} drawn with {s}", [s % 100, 2], -1.0, "stop", seed=s) for s in row]
                for p, row in zip(prompts, seeds)]


def _sampler(fresh):
    sampler, faults = fresh(), []
    generator = _Writer() if sampler.manifest.uses_generator else None
    prompts = [types.Prompt(f"sum-{i}", [types.Message("user", f"What is {i}+{i}?")]) for i in range(3)]
    seeds = [[i + 1, 2**63 + i] for i in range(3)]
    rows = sampler.sample(types.SampleRequest(prompts, 2, seeds), generator)
    if len(rows) != len(prompts):
        return [f"{len(rows)} rows for {len(prompts)} prompts"]
    for i, row in enumerate(rows):
        if len(row) > 2:
            faults.append(f"prompt {i} has {len(row)} completions, at most 2 were asked for")
        alone = sampler.sample(types.SampleRequest(prompts[i:i + 1], 2, seeds[i:i + 1]), generator)
        if alone[0] != row:
            faults.append(f"prompt {i} gets other completions when it is asked alone")
    return faults


def main(path):
    """Checks the plugin class that a file defines, and returns the exit code."""
    spec = importlib.util.spec_from_file_location("plugin", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["plugin"] = module  # dataclasses look there
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))  # as when the file is run
    spec.loader.exec_module(module)
    found = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, types.Plugin) and c.__module__ == "plugin"]
    if len(found) != 1:
        print(f"{path} defines {len(found)} plugins: want one class of Oracle, Loss or Sampler", file=sys.stderr)
        return 2
    faults = faults_of(found[0])
    for fault in faults:
        print("✗", fault)
    if not faults:
        print("✓", found[0].kind, found[0].manifest.name, "keeps the contract")
    return 4 if faults else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m dno_sdk.conformance plugin.py")
    sys.exit(main(sys.argv[1]))
