"""Whether a measured candidate may be served: one gate for each suite, four verdicts, worst wins.

Knows thresholds, how many answers a suite needs and what its interval is worth. Doesn't know how
anything was measured, and never reads an absent reading as good news: a gate that wasn't measured
is inconclusive, a reading that can't be true is an error, and neither is a pass.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from store.facts import Judgement, Op, Reading, Suite, SuiteVerdict, Verdict


class Direction(StrEnum):
    AT_LEAST = "at_least"
    AT_MOST = "at_most"


class Confidence(StrEnum):
    """What has to meet the threshold for a fail to be certain.

    VALUE: the measured value itself; a miss is a fail. BOUND: a miss is a fail only when the
    favourable end of the 95 % interval misses too, else inconclusive. Both pass on the value.
    """

    VALUE = "value"
    BOUND = "bound"


@dataclass(frozen=True, slots=True)
class Gate:
    """One suite's condition. `may_be_empty` says that the suite has by nature nothing to measure
    sometimes: a reading with n == 0 then passes, which an absent reading never does."""

    suite: Suite
    threshold: float
    direction: Direction = Direction.AT_LEAST
    min_n: int = 1
    confidence: Confidence = Confidence.BOUND
    may_be_empty: bool = False


class Override(Protocol):
    """What an operator may set of one gate; None leaves the default."""

    @property
    def threshold(self) -> float | None: ...
    @property
    def min_n(self) -> int | None: ...


_MOST = Direction.AT_MOST
_VALUE = Confidence.VALUE

# Suites whose number of answers depends on the fact (a relation without neighbours, a subject with
# one other known fact) need one answer; the interval then keeps a small n from being a certain fail.
_UPSERT = (
    Gate(Suite.EFFICACY, 0.95, min_n=3, confidence=_VALUE),
    Gate(Suite.PARAPHRASE, 0.6, min_n=2),
    Gate(Suite.OLD_GONE, 0.95, min_n=1, may_be_empty=True),  # empty: the model held no old answer
    Gate(Suite.NEIGHBOURS, 0.6, may_be_empty=True),
    Gate(Suite.SAME_SUBJECT, 0.6, may_be_empty=True),
    Gate(Suite.UNRELATED, 0.8, min_n=50),
    Gate(Suite.OVER_REFUSAL_UNLEARN, 0.1, _MOST, min_n=20),
    Gate(Suite.OVER_REFUSAL, 0.05, _MOST, min_n=20),
    Gate(Suite.KL_DRIFT, 0.25, _MOST, confidence=_VALUE),
    Gate(Suite.PERPLEXITY, 1.2, _MOST, confidence=_VALUE),
    Gate(Suite.LIVE_FACTS, 0.9, may_be_empty=True),
)
# A retraction is done when the answers are unsure. It ends after stage 1, which was only taught to
# doubt, so a wording it hasn't seen may still get some other answer: it asks a little less.
_RETRACT = {Suite.EFFICACY: 0.8, Suite.PARAPHRASE: 0.5, Suite.OVER_REFUSAL: 0.1}

_UNBOUNDED = frozenset({Suite.KL_DRIFT, Suite.PERPLEXITY})
_ROUNDING = 1e-3  # a KL of two equal models comes out a little below zero


def gates_for(op: Op, overrides: Mapping[str, Override] | None = None) -> tuple[Gate, ...]:
    """The gates of one kind of edit, one for each suite, with the operator's values put in."""
    gates = [
        replace(g, threshold=_RETRACT.get(g.suite, g.threshold)) if op is Op.RETRACT else g for g in _UPSERT
    ]
    return tuple(_overridden(gate, (overrides or {}).get(gate.suite.value)) for gate in gates)


def _overridden(gate: Gate, by: Override | None) -> Gate:
    if by is None:
        return gate
    return replace(
        gate,
        threshold=gate.threshold if by.threshold is None else by.threshold,
        min_n=gate.min_n if by.min_n is None else by.min_n,
    )


def judge(readings: Iterable[Reading], gates: Sequence[Gate], op: Op = Op.UPSERT) -> Judgement:
    """Every gate's verdict on its readings, and the worst of them with its reason.

    A suite measured more than once must meet its gate each time. Readings without a gate are left
    out. No gates at all is inconclusive.
    """
    taken = tuple(readings)
    suites = tuple(_verdict(gate, r, op) for gate in gates for r in _of_suite(taken, gate.suite))
    verdict = worst(s.verdict for s in suites)
    return Judgement(verdict, _summary(verdict, suites), suites)


def _of_suite(readings: Sequence[Reading], suite: Suite) -> Sequence[Reading | None]:
    return [r for r in readings if r.suite is suite] or [None]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several verdicts; of none, inconclusive: nothing was shown."""
    return max(verdicts, default=Verdict.INCONCLUSIVE)


def _summary(verdict: Verdict, suites: Sequence[SuiteVerdict]) -> str:
    if not suites:
        return "no gate was asked, so nothing is known about this candidate"
    if verdict is Verdict.PASS:
        return f"all {len(suites)} gates passed"
    named = [s for s in suites if s.verdict is verdict]
    rest = f" (and {len(named) - 1} more)" if len(named) > 1 else ""
    return f"{verdict.name.lower()}: {named[0].reason}{rest}"


def _verdict(gate: Gate, reading: Reading | None, op: Op) -> SuiteVerdict:
    verdict, reason = (Verdict.INCONCLUSIVE, "not measured") if reading is None else _weigh(gate, reading, op)
    return SuiteVerdict(gate.suite, verdict, f"{gate.suite}: {reason}", reading)


def _weigh(gate: Gate, reading: Reading, op: Op) -> tuple[Verdict, str]:
    if reading.n == 0 and gate.may_be_empty:
        return Verdict.PASS, "there was nothing to measure for this fact"
    if (fault := _fault(reading)) is not None:
        return Verdict.ERROR, fault
    if math.isnan(gate.threshold):
        return Verdict.ERROR, "the gate's threshold is not a number"
    if reading.n < gate.min_n:
        return Verdict.INCONCLUSIVE, f"{reading.n} answers measured, the gate needs {gate.min_n}"
    return _compare(gate, reading, op)


def _fault(reading: Reading) -> str | None:
    """Why the reading can't be true, or None."""
    if reading.n < 0:
        return f"the reading claims {reading.n} answers"
    numbers = (reading.value, reading.low, reading.high)
    if any(math.isnan(x) for x in numbers):
        return "the reading is not a number"
    if reading.low > reading.high:
        return f"the interval {reading.low:.3f} to {reading.high:.3f} is upside down"
    top = math.inf if reading.suite in _UNBOUNDED else 1.0
    if not -_ROUNDING <= reading.value <= top:
        return f"the value {reading.value:.3f} is out of range"
    return None


def _compare(gate: Gate, reading: Reading, op: Op) -> tuple[Verdict, str]:
    upwards = gate.direction is Direction.AT_LEAST
    favourable = reading.high if upwards else reading.low
    text = _numbers(gate, reading, op)
    if _meets(gate, reading.value):
        return Verdict.PASS, text
    if gate.confidence is Confidence.BOUND and _meets(gate, favourable):
        return Verdict.INCONCLUSIVE, f"{text}, missed by less than the interval can tell"
    return Verdict.FAIL, text


def _meets(gate: Gate, value: float) -> bool:
    return value >= gate.threshold if gate.direction is Direction.AT_LEAST else value <= gate.threshold


def _numbers(gate: Gate, reading: Reading, op: Op) -> str:
    retract = op is Op.RETRACT and reading.suite in (Suite.EFFICACY, Suite.PARAPHRASE)
    what = " of answers unsure" if retract else ""
    wanted = "at least" if gate.direction is Direction.AT_LEAST else "at most"
    return (
        f"{reading.value:.3g}{what} (95 % interval {reading.low:.3g} to {reading.high:.3g}, n={reading.n}), "
        f"wanted {wanted} {gate.threshold:g}"
    )
