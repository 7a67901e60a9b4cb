"""An oracle that checks arithmetic: which text has the greater share of steps like 12*7=84 that are right?

    P(a over b) = σ(sharpness·(share(a) − share(b)))

A text without a step has the share 0. It does not see the reference answer: steps that are right and lead
nowhere please it, so it is an example, and no judge.
"""

import math
import operator
import re

import dno_sdk as dno

STEP = re.compile(r"(\d{1,9})([-+*])(\d{1,9})=(\d{1,18})")
OPERATION = {"+": operator.add, "-": operator.sub, "*": operator.mul}


class Oracle(dno.Oracle):
    manifest = dno.Manifest(
        "arithmetic", "1", "prefers the text with the greater share of right steps",
        settings=[dno.Setting("sharpness", "number", "how sure it is of a whole difference in shares", default=8.0, min=0.0)],
        form="pairwise", concurrency=4,
    )

    def configure(self, settings):
        self.sharpness = settings["sharpness"]

    def judge(self, batch):
        return [self.verdicts(comparison) for comparison in batch]

    def verdicts(self, c):
        steps = [STEP.findall(text) for text in c.candidates]
        if not any(steps):
            return dno.Verdicts(c.id, [dno.Verdict(abstain="no text has a step to check")] * len(c.pairs))
        shares = [share(s) for s in steps]
        return dno.Verdicts(
            c.id,
            [dno.Verdict(p=sigmoid(self.sharpness * (shares[a] - shares[b]))) for a, b in c.pairs],
            [dno.Assessment(labels={"right_steps": x}) for x in shares],
        )


def share(steps):
    right = sum(OPERATION[sign](int(a), int(b)) == int(result) for a, sign, b, result in steps)
    return right / len(steps) if steps else 0.0


def sigmoid(x):
    return (1 + math.tanh(x / 2)) / 2  # does not overflow


if __name__ == "__main__":
    dno.serve(Oracle())
