"""What the plugin owes dno, and what it is meant to do. build.sh runs this."""

import unittest

import dno_sdk as dno
from dno_sdk import conformance

import plugin


def judged(prompt, *candidates):
    oracle = plugin.Oracle()
    oracle.configure({"sharpness": 8.0})
    question = dno.Comparison("c", dno.Prompt("p", [dno.Message("user", prompt)]), list(candidates), [(0, 1)])
    return oracle.judge([question])[0]


class TestPlugin(unittest.TestCase):
    def test_contract(self):
        conformance.check(plugin.Oracle)

    def test_more_right_steps_win(self):
        v = judged("A box is 20 by 7 by 8 cm.", "20*7=140;20*8=160", "20*7=140;20*8=150")
        self.assertEqual([a.labels["right_steps"] for a in v.assessed], [1.0, 0.5])
        self.assertAlmostEqual(v.pairs[0].p, 0.9820, places=4)  # σ(4)

    def test_the_same_share_ties(self):
        self.assertEqual(judged("2 and 3", "2+3=5;9-1=8", "3+2=5").pairs[0].p, 0.5)

    def test_a_text_without_steps_loses(self):
        self.assertLess(judged("2 and 3", "five", "3+2=5").pairs[0].p, 0.001)

    def test_without_any_step_it_abstains(self):
        self.assertEqual(judged("How are you?", "1", "2").pairs[0].abstain, "no text has a step to check")


if __name__ == "__main__":
    unittest.main()
