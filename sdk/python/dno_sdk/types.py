"""The data that flows between dno and a plugin. Names, units and rules are those of dno's Go package sdk."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any, Optional

# Codes of errors: dno's exit codes.
INTERNAL, USAGE, SCRIPT, PLUGIN, ORACLE, IO, NUMERIC, BUDGET, CORRUPT = 1, 2, 3, 4, 5, 6, 7, 9, 10


class Error(Exception):
    """An error for the user: a code, what went wrong, and what to do next."""

    def __init__(self, code: int, text: str, hint: str = ""):
        super().__init__(text)
        self.code, self.hint = code, hint


@dataclass
class Setting:
    """One setting of a plugin. type: "number", "bool", "string", "list", or "path", a file made absolute by the host."""

    name: str
    type: str
    help: str
    default: Any = None  # None: no default
    min: Optional[float] = None  # least and greatest value of a number, both legal
    max: Optional[float] = None
    one_of: list[str] = field(default_factory=list)  # legal values of a string; empty: any
    required: bool = False  # must be given by the script


@dataclass
class Manifest:
    """What a plugin is and needs. Only the fields of its kind are read."""

    name: str  # lower-case letters, digits, '-' and '_'
    version: str  # changes whenever results may change
    help: str  # one line
    settings: list[Setting] = field(default_factory=list)

    # Of an oracle.
    form: str = ""  # "pairwise", "listwise" or "pointwise"
    order_matters: bool = False  # P(a over b) + P(b over a) may differ from 1: the host asks both orders
    concurrency: int = 0  # calls of judge that may run at once; 0 means 1

    # Of a loss.
    unit: str = ""  # what it is a sum over: "pair", "completion" or "group"; "" means "pair"
    token_level: bool = False  # needs log-probabilities per token, returns derivatives per token
    no_reference: bool = False  # does not read the reference policy's log-probabilities
    mismatched: bool = False  # needs log-probabilities of completions given another completion's prompt
    soft_target: bool = False  # regresses onto target
    surrogate: bool = False  # its derivatives hold some function of the log-probabilities fixed

    # Of a sampler.
    uses_generator: bool = False  # draws from the policy in training


@dataclass
class Message:
    role: str  # "user", "assistant" or "system"
    content: str


@dataclass
class Prompt:
    id: str
    messages: list[Message]
    answer: str = ""  # reference answer; "" where there is none
    metadata: dict = field(default_factory=dict)  # the record's other keys

    def text(self) -> str:
        """The turns' content, joined by newlines."""
        return "\n".join(m.content for m in self.messages)


@dataclass
class Completion:
    text: str
    tokens: list[int] = field(default_factory=list)  # ids with the end-of-sequence token; empty where unknown
    log_prob: Optional[float] = None  # of the whole at temperature 1, nats
    finish: str = ""  # "stop", "length" or unknown
    source: str = ""  # "policy" or "teacher"; set by the host
    seed: int = 0


@dataclass
class Comparison:
    """One question: a prompt, its candidates, and the ordered pairs (a, b) of them to compare, by index."""

    id: str
    prompt: Prompt
    candidates: list[str]
    pairs: list[tuple[int, int]]  # perhaps none: then only assessments are asked for


@dataclass
class Verdict:
    """The answer for one pair: a probability that a is preferred to b, or a reason to abstain."""

    p: float = 0.0
    abstain: str = ""
    reason: str = ""


@dataclass
class Assessment:
    score: Optional[float] = None
    labels: dict[str, float] = field(default_factory=dict)  # "correct": 0 or 1, ...
    abstain: str = ""


@dataclass
class Verdicts:
    """The answers to one comparison: one for each pair, in order; assessments of each candidate, or none."""

    id: str
    pairs: list[Verdict] = field(default_factory=list)
    assessed: list[Assessment] = field(default_factory=list)
    cost: float = 0.0
    model: str = ""  # the model that answered, as its server names it; a run holds the oracle to it
    tokens: int = 0  # that the answer took, read and written; 0 where nobody counts them


@dataclass
class LossBatch:
    """One optimizer batch of C completions and B pairs, in columns of array('d') or array('i').

    Log-probabilities are of a whole completion, summed over its tokens, in nats, at temperature 1. Columns
    that the manifest does not ask for are empty; numpy.frombuffer(column) takes one without a copy.
    """

    group: array  # C: the prompt's number within the batch, from 0
    policy: array  # C: under the policy in training
    reference: array  # C: under the reference policy
    tokens: array  # C: lengths in tokens
    win_rate: array  # C: expected win rate; NaN without an opponent
    win_rate_se: array  # C: its standard error; NaN below two opponents
    teacher: list[bool]  # C: written by the teacher
    policy_tokens: list[array]  # C rows of tokens[i]; with token_level
    reference_tokens: list[array]
    mismatched_policy: array  # C or 0, with mismatched: of a completion to another prompt, given this one's prompt
    mismatched_reference: array
    chosen: array  # B: index into the completions
    rejected: array
    chosen_win_rate: array
    rejected_win_rate: array
    target: array  # B: the soft label
    preference: array  # B: symmetrised P(chosen over rejected)
    weight: array  # B: above 0
    unit_weight: array  # weights of completions or groups, for a loss of that unit
    state: bytes  # what the last call returned; empty at the run's first call


@dataclass
class LossResult:
    """Sums over the loss's units, each times its weight."""

    loss: float
    gradient: Any = ()  # C floats: d loss / d policy[i]; empty from a token-level loss
    token_gradients: Any = ()  # C rows; only from a token-level loss
    metrics: dict[str, float] = field(default_factory=dict)
    state: bytes = b""  # handed back with the next call, saved in checkpoints


@dataclass
class SampleRequest:
    """K completions of each prompt; seeds[i][k] fixes completion k of prompt i."""

    prompts: list[Prompt]
    k: int
    seeds: list[list[int]]


@dataclass
class GenerateOptions:
    """How tokens are drawn, in this order: repetition penalty, temperature, top-k, top-p, min-p."""

    temperature: float = 1.0  # 0 is greedy
    max_tokens: int = 64
    top_k: int = 0  # 0 is off
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: list[str] = field(default_factory=list)


class Plugin:
    """What the three kinds have in common. Give the class an attribute `manifest`."""

    kind = ""
    manifest: Manifest

    def configure(self, settings: dict) -> None:
        """Takes the settings of the iteration that begins, checked by the host, defaults filled in."""

    def close(self) -> None:
        """Called when the host tells the plugin to stop."""


class Oracle(Plugin):
    """Says how probably one completion is preferred to another."""

    kind = "oracle"

    def judge(self, batch: list[Comparison]) -> list[Verdicts]:
        """Answers each comparison, in order. May run in several threads at once, up to the manifest's concurrency."""
        raise NotImplementedError


class Loss(Plugin):
    """A contrastive loss: log-probabilities in, derivatives out. Calls never overlap."""

    kind = "loss"

    def evaluate(self, batch: LossBatch) -> LossResult:
        raise NotImplementedError


class Sampler(Plugin):
    """Decides how completions are drawn. Calls never overlap."""

    kind = "sampler"

    def sample(self, request: SampleRequest, generator) -> list[list[Completion]]:
        """Returns at most k completions for each prompt, in order.

        generator.generate(prompts, seeds, options) draws from the policy in training: prompts are lists of
        Message, and there is a completion for each seed. It is None unless the manifest says uses_generator.
        """
        raise NotImplementedError


@dataclass
class PairTerm:
    """What a pairwise loss sees of one pair; chosen and rejected are log-ratios to the reference, nats."""

    chosen: float
    rejected: float
    chosen_policy: float
    rejected_policy: float
    chosen_tokens: int
    rejected_tokens: int
    target: float
    preference: float
    chosen_win_rate: float
    rejected_win_rate: float


class Pairwise(Loss):
    """A loss that is a sum over pairs: implement pair(term), which returns (loss, d/d chosen, d/d rejected)."""

    def pair(self, term: PairTerm) -> tuple[float, float, float]:
        raise NotImplementedError

    def evaluate(self, batch: LossBatch) -> LossResult:
        total, gradient = 0.0, array("d", bytes(8 * len(batch.policy)))
        policy, reference, tokens = batch.policy, batch.reference, batch.tokens
        for k, (i, j) in enumerate(zip(batch.chosen, batch.rejected)):
            at = (reference[i], reference[j]) if reference else (0.0, 0.0)
            loss, d_chosen, d_rejected = self.pair(PairTerm(
                policy[i] - at[0], policy[j] - at[1], policy[i], policy[j], tokens[i], tokens[j],
                batch.target[k], batch.preference[k], batch.chosen_win_rate[k], batch.rejected_win_rate[k]))
            weight = batch.weight[k]
            total += weight * loss
            gradient[i] += weight * d_chosen
            gradient[j] += weight * d_rejected
        return LossResult(total, gradient)
