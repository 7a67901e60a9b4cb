"""Plugins for dno in Python: a class, and serve(it).

    import dno_sdk as dno

    class Shorter(dno.Oracle):
        manifest = dno.Manifest("shorter", "1", "prefers the shorter text", form="pairwise")

        def judge(self, batch):
            ...

    if __name__ == "__main__":
        dno.serve(Shorter())
"""

from .server import serve
from .types import (
    BUDGET, CORRUPT, INTERNAL, IO, NUMERIC, ORACLE, PLUGIN, SCRIPT, USAGE,
    Assessment, Comparison, Completion, Error, GenerateOptions, Loss, LossBatch, LossResult, Manifest, Message,
    Oracle, Pairwise, PairTerm, Plugin, Prompt, Sampler, SampleRequest, Setting, Verdict, Verdicts,
)

__all__ = [name for name in dir() if not name.startswith("_") and name not in ("convert", "server", "tls", "types", "wire")]
