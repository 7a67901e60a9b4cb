import math
import os
import subprocess
import sys
import tempfile
import unittest

import dno_sdk as dno
from dno_sdk import conformance


class Square(dno.Pairwise):
    """½·(chosen − rejected)², times what a fault makes of it."""

    manifest = dno.Manifest("square", "1", "half the square of the margin")
    sign, wrong = 1.0, None

    def pair(self, term):
        d = term.chosen - term.rejected
        if self.wrong == "nan" and abs(d) > 1000:
            return d * d / 2, math.nan, -d
        return d * d / 2, self.sign * d, -self.sign * d


class Mean(Square):
    def evaluate(self, batch):
        out = super().evaluate(batch)
        n = len(batch.chosen)
        return dno.LossResult(out.loss / n / sum(batch.weight), [g / n / sum(batch.weight) for g in out.gradient])


class Remembers(Square):
    calls = 0

    def evaluate(self, batch):
        self.calls += 1
        out = super().evaluate(batch)
        return dno.LossResult(out.loss * self.calls, [g * self.calls for g in out.gradient])


class Tokens(dno.Loss):
    manifest = dno.Manifest("tokens", "1", "half the square of each token", unit="completion", token_level=True, mismatched=True)

    def evaluate(self, batch):
        loss = sum(w * x * x / 2 for w, row in zip(batch.unit_weight, batch.policy_tokens) for x in row)
        return dno.LossResult(loss, token_gradients=[[w * x for x in row] for w, row in zip(batch.unit_weight, batch.policy_tokens)])


class Judge(dno.Oracle):
    manifest = dno.Manifest("judge", "1", "says the same of all", form="pairwise")
    p = 0.5

    def judge(self, batch):
        return [dno.Verdicts(c.id, [dno.Verdict(p=self.p) for _ in c.pairs]) for c in batch]


class Draw(dno.Sampler):
    manifest = dno.Manifest("draw", "1", "draws", uses_generator=True)
    more = 0

    def sample(self, request, generator):
        seeds = [row + [9] * self.more for row in request.seeds]
        return generator.generate([p.messages for p in request.prompts], seeds, dno.GenerateOptions())


def changed(base, **attributes):
    return type(base.__name__, (base,), attributes)


class TestConformance(unittest.TestCase):
    def test_good_plugins_pass(self):
        for plugin in (Square, Tokens, Judge, Draw):
            conformance.check(plugin)

    def test_faults_are_named(self):
        for words, plugin in {
            "the slope is": changed(Square, sign=-1.0),
            "is nan": changed(Square, wrong="nan"),
            "with weights doubled": Mean,
            "the slope is|beyond the state bytes": Remembers,
            "want lower-case": changed(Square, manifest=dno.Manifest("A b", "1", "x")),
            "there is no version": changed(Square, manifest=dno.Manifest("a", "", "x")),
            "form is ''": changed(Judge, manifest=dno.Manifest("a", "1", "x")),
            "want a probability": changed(Judge, p=50.0),
            "order does not matter": changed(Judge, p=0.7),
            "at most 2 were asked for": changed(Draw, more=1),
        }.items():
            with self.assertRaisesRegex(AssertionError, words):
                conformance.check(plugin)


    def test_a_file_is_loaded_as_if_it_were_run(self):
        text = """
from __future__ import annotations
import dataclasses, dno_sdk, helper

@dataclasses.dataclass
class Kept:
    x: int

class Judge(dno_sdk.Oracle):
    manifest = dno_sdk.Manifest("judge", "1", "ties all", form="pairwise")

    def judge(self, batch):
        return [dno_sdk.Verdicts(c.id, [dno_sdk.Verdict(p=helper.P) for _ in c.pairs]) for c in batch]
"""
        for p, code in ((0.5, 0), (2, 4)):
            with tempfile.TemporaryDirectory() as folder:
                for name, body in {"mine.py": text, "helper.py": f"P = {p}"}.items():
                    with open(os.path.join(folder, name), "w") as f:
                        f.write(body)
                done = subprocess.run([sys.executable, "-m", "dno_sdk.conformance", os.path.join(folder, "mine.py")], capture_output=True, text=True)
                self.assertEqual(done.returncode, code, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
