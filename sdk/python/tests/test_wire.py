import random
import unittest
from array import array

from dno_sdk import convert, wire


def random_message(r, name, depth=0):
    out = {}
    for field, kind in wire.MESSAGES[name].values():
        if kind == "map":
            out[field] = {f"k{i}": r.uniform(-1, 1) for i in range(r.randrange(3))}
        elif kind[0] == "*":
            out[field] = [random_value(r, kind[1:], depth) for _ in range(r.randrange(4))] if depth < 4 else []
        elif kind[0] == "?":
            out[field] = None if r.random() < 0.3 else random_value(r, kind[1:], depth)
        else:
            out[field] = random_value(r, kind, depth)
    return out


def random_value(r, kind, depth):
    if kind in wire.MESSAGES:
        return random_message(r, kind, depth + 1)
    return {
        "string": lambda: r.choice(["", "x", "naïve 四 \u202e", "a" * 300]),
        "bytes": lambda: r.randbytes(r.choice([0, 1, 200])),
        "bool": lambda: r.random() < 0.5,
        "int32": lambda: r.choice([0, 1, -1, 2**31 - 1, -(2**31)]),
        "uint32": lambda: r.choice([0, 1, 2**32 - 1]),
        "fixed64": lambda: r.choice([0, 1, 2**64 - 1]),
        "double": lambda: r.choice([0.0, 0.5, -1e300, float("inf")]),
    }[kind]()


class TestWire(unittest.TestCase):
    def test_messages_survive(self):
        r = random.Random(1)
        for name in wire.MESSAGES:
            for _ in range(50):
                message = random_message(r, name)
                data = wire.encode(name, message)
                self.assertEqual(wire.decode(name, data), message, name)
                self.assertEqual(wire.encode(name, wire.decode(name, data)), data, name)

    def test_literal_bytes(self):
        verdict = {"p": 0.75, "abstain": "", "reason": "yes"}
        self.assertEqual(wire.encode("Verdict", verdict).hex(), "09000000000000e83f" + "1a03796573")
        self.assertEqual(wire.encode("Ordered", {"a": 0, "b": 1}).hex(), "1001")
        self.assertEqual(wire.encode("Seeds", {"values": [1]}).hex(), "0a080100000000000000")
        self.assertEqual(wire.encode("Ordered", {"a": -1}).hex(), "08ffffffffffffffffff01")
        self.assertEqual(wire.encode("Verdict", {"p": -0.0}).hex(), "090000000000000080")

    def test_unknown_fields_are_skipped(self):
        more = bytes.fromhex("1001" + "9806" + "ac02" + "a2060161" + "ad0600000000" + "a9060000000000000000")
        self.assertEqual(wire.decode("Ordered", more), {"a": 0, "b": 1})

    def test_unpacked_numbers_are_read(self):
        self.assertEqual(wire.decode("Completion", bytes.fromhex("1005" + "1007"))["tokens"], [5, 7])

    def test_hostile_bytes_are_refused(self):
        for data, words in {
            "08": "cut off", "0aff01": "cut off", "ffffffffffffffffffff01": "more than ten bytes", "0b": "wire type 3",
            "0001": "number 0", "0a01ff": "UTF-8", "0d00000000": "wire type 5 is none of",
        }.items():
            with self.assertRaisesRegex(wire.WireError, words):
                wire.decode("Verdicts", bytes.fromhex(data))

    def test_nothing_else_is_ever_raised(self):
        r = random.Random(2)
        for i in range(20000):
            name = r.choice(list(wire.MESSAGES))
            data = bytearray(wire.encode(name, random_message(r, name)) if i % 2 else r.randbytes(r.randrange(40)))
            for _ in range(r.randrange(1, 4)):
                if data:
                    data[r.randrange(len(data))] = r.randrange(256)
            try:
                message = wire.decode(name, bytes(data[: r.randrange(len(data) + 1)]))
            except wire.WireError:
                continue
            try:
                if name == "EvaluateRequest":
                    convert.loss_batch(message)
                elif name == "JudgeRequest":
                    convert.comparisons(message)
                elif name == "SampleRequest":
                    convert.sample_request(message)
            except wire.WireError:
                pass

    def test_numbers_that_do_not_fit(self):
        for name, message in {
            "Ordered.a": {"a": 2**31}, "Ordered.b": {"b": "x"}, "Verdict.p": {"p": 10**400}, "Verdict.reason": {"reason": 5},
            "Assessment.labels": {"labels": {5: 1.0}}, "Verdicts.pairs": {"pairs": 3}, "EvaluateResponse.state": {"state": "text"},
        }.items():
            with self.assertRaisesRegex(wire.WireError, name):
                wire.encode(name.partition(".")[0], message)
        with self.assertRaisesRegex(wire.WireError, "no field 'c'"):
            wire.encode("Ordered", {"c": 1})


def batch(**changes):
    d, i = convert.floats, lambda *x: array("i", x).tobytes()
    m = wire.new("EvaluateRequest")
    m.update(group=i(0, 0), policy=d([-1, -2]), reference=d([-3, -4]), tokens=i(1, 2), win_rate=d([1, 0]), win_rate_se=d([0, 0]),
             teacher=b"\0\1", chosen=i(0), rejected=i(1), chosen_win_rate=d([1]), rejected_win_rate=d([0]), target=d([1]),
             preference=d([1]), weight=d([1]), state=b"s")
    m.update(changes)
    return m


class TestLossBatch(unittest.TestCase):
    def test_columns(self):
        b = convert.loss_batch(batch(policy_tokens=[convert.floats([-1]), convert.floats([-1, -1])]))
        self.assertEqual(list(b.policy), [-1, -2])
        self.assertEqual((b.teacher, list(b.chosen), b.state), ([False, True], [0], b"s"))
        self.assertEqual([list(r) for r in b.policy_tokens], [[-1], [-1, -1]])

    def test_columns_that_do_not_fit_are_named(self):
        d = convert.floats
        for words, changes in {
            "field policy: 9 bytes are no whole number of float64": {"policy": bytes(9)},
            "field weight has 2 values: want 1": {"weight": d([1, 1])},
            "field win_rate has 0 values: want 2": {"win_rate": b""},
            "field mismatched_policy has 1 values": {"mismatched_policy": d([1])},
            "field teacher: byte 1 is 2: want 0 or 1": {"teacher": b"\0\2"},
            r"field policy_tokens\[1\] has 1 values: want 2": {"policy_tokens": [d([1]), d([1])]},
            "pair 0 is of the completions 7 and 1": {"chosen": array("i", [7]).tobytes()},
        }.items():
            with self.assertRaisesRegex(wire.WireError, words):
                convert.loss_batch(batch(**changes))


if __name__ == "__main__":
    unittest.main()
