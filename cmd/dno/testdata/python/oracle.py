"""An oracle that does what its first candidate says: what may go wrong in a plugin's process."""

import sys
import threading

import dno_sdk as dno

both = threading.Barrier(2)


class Oracle(dno.Oracle):
    manifest = dno.Manifest("edges", "1", "does what it is told", form="pairwise", concurrency=2)

    def judge(self, batch):
        what = batch[0].candidates[0]
        if what == "coded":
            raise dno.Error(dno.USAGE, "no key", "set one")
        if what == "fault":
            return [1 / 0]
        if what == "exit":
            sys.exit("enough")
        if what == "print":
            print("said on standard output")
        if what == "together":
            both.wait(60)  # ends only if two calls run at once
        if what == "nonsense":
            return [dno.Verdicts("c", cost="much")]
        return [dno.Verdicts(c.id, [dno.Verdict(0.25, reason=f"{len(what)}") for _ in c.pairs]) for c in batch]

    def close(self):
        print("said at the end")
        raise RuntimeError("a fault at the end")


dno.serve(Oracle())
