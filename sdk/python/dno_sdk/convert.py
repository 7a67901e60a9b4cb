"""Between the messages of wire.py and the types of types.py."""

import json
import sys
from array import array

from . import types, wire

_COLUMNS = {
    "group": "i", "policy": "d", "reference": "d", "tokens": "i", "win_rate": "d", "win_rate_se": "d",
    "mismatched_policy": "d", "mismatched_reference": "d", "chosen": "i", "rejected": "i", "chosen_win_rate": "d",
    "rejected_win_rate": "d", "target": "d", "preference": "d", "weight": "d", "unit_weight": "d",
}
_PER_COMPLETION = ("group", "tokens", "win_rate", "win_rate_se", "teacher")
_IF_ANY = ("reference", "policy_tokens", "reference_tokens", "mismatched_policy", "mismatched_reference")
_PER_PAIR = ("rejected", "chosen_win_rate", "rejected_win_rate", "target", "preference", "weight")


def column(name, kind, data):
    """Returns an array of little-endian bytes."""
    out = array(kind)
    if len(data) % out.itemsize:
        raise wire.WireError(f"field {name}: {len(data)} bytes are no whole number of {'float64' if kind == 'd' else 'int32'}")
    out.frombytes(data)
    if sys.byteorder == "big":
        out.byteswap()
    return out


def floats(values):
    """Returns the little-endian bytes of float64 values: of an array('d'), of a numpy array, of a list."""
    out = array("d", values)
    if sys.byteorder == "big":
        out.byteswap()
    return out.tobytes()


def loss_batch(m):
    """Decodes a batch and checks that its columns fit together, so that a loss may index them."""
    columns = {name: column(name, kind, m[name]) for name, kind in _COLUMNS.items()}
    for name in ("policy_tokens", "reference_tokens"):
        columns[name] = [column(name, "d", row) for row in m[name]]
    for i, x in enumerate(m["teacher"]):
        if x > 1:
            raise wire.WireError(f"field teacher: byte {i} is {x}: want 0 or 1")
    b = types.LossBatch(teacher=[x == 1 for x in m["teacher"]], state=m["state"], **columns)
    for names, want in ((_PER_COMPLETION + _IF_ANY, len(b.policy)), (_PER_PAIR, len(b.chosen))):
        for name in names:
            have = len(getattr(b, name))
            if have != want and (have or name not in _IF_ANY):
                raise wire.WireError(f"field {name} has {have} values: want {want}")
    for name in ("policy_tokens", "reference_tokens"):
        for i, row in enumerate(getattr(b, name)):
            if len(row) != b.tokens[i]:
                raise wire.WireError(f"field {name}[{i}] has {len(row)} values: want {b.tokens[i]}")
    for k, pair in enumerate(zip(b.chosen, b.rejected)):
        if not all(0 <= i < len(b.policy) for i in pair):
            raise wire.WireError(f"pair {k} is of the completions {pair[0]} and {pair[1]}: have {len(b.policy)}")
    return b


def from_loss_result(r):
    return {
        "loss": r.loss, "gradient": floats(r.gradient), "token_gradients": [floats(row) for row in r.token_gradients],
        "metrics": r.metrics, "state": bytes(r.state),
    }


def from_manifest(kind, m):
    out = {"kind": kind, "name": m.name, "version": m.version, "help": m.help, "settings": []}
    for s in m.settings:
        default = b"" if s.default is None else json.dumps(s.default).encode()
        out["settings"].append({
            "name": s.name, "type": s.type, "help": s.help, "default_json": default, "min": s.min, "max": s.max,
            "one_of": s.one_of, "required": s.required,
        })
    out[kind] = {name: getattr(m, name) for name, _ in wire.MESSAGES[kind.capitalize() + "Traits"].values()}
    return out


def _object(field, data):
    try:
        out = json.loads(data) if data else {}
    except (ValueError, RecursionError) as e:
        raise wire.WireError(f"field {field}: {e}") from e
    if not isinstance(out, dict):
        raise wire.WireError(f"field {field}: want a JSON object")
    return out


def settings(m):
    """Returns the settings. A whole number is an int, however the script wrote it."""
    return _object("settings_json", m["settings_json"])


def prompt(m):
    m = m or wire.new("Prompt")
    return types.Prompt(m["id"], [types.Message(**x) for x in m["messages"]], m["answer"], _object("metadata_json", m["metadata_json"]))


def comparisons(m):
    return [
        types.Comparison(c["id"], prompt(c["prompt"]), c["candidates"], [(o["a"], o["b"]) for o in c["pairs"]])
        for c in m["comparisons"]
    ]


def from_verdicts(verdicts):
    return {"verdicts": [{
        "id": v.id, "cost": v.cost, "model": v.model, "tokens": v.tokens,
        "pairs": [{"p": p.p, "abstain": p.abstain, "reason": p.reason} for p in v.pairs],
        "assessed": [{"score": a.score, "labels": a.labels, "abstain": a.abstain} for a in v.assessed],
    } for v in verdicts]}


def sample_request(m):
    return types.SampleRequest([prompt(p) for p in m["prompts"]], m["k"], [s["values"] for s in m["seeds"]])


def from_completions(rows):
    return {"completions": [{"values": [vars(c) for c in row]} for row in rows]}


def completions(m):
    return [[types.Completion(**c) for c in row["values"]] for row in m["completions"]]


def from_generate(prompts, seeds, options):
    return {
        "prompts": [{"values": [vars(x) for x in messages]} for messages in prompts],
        "seeds": [{"values": row} for row in seeds], "options": vars(options),
    }
