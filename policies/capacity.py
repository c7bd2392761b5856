"""How much more one model can take: what its gates leave, what an edit costs, when edits must wait.

Knows readings, thresholds and which edits a generation holds. Doesn't know how anything was measured,
and starts or stops nothing. Headroom is a share: 1 is the base, 0 a model of which the gates would
refuse any more damage.

    measured generation    what its own readings leave, the worst suite counts
    batch of edits         each is taken to have cost the same share of what the batch did
    edit from the middle   nobody measured the rest: what its parent had, and what the edits that are
                           gone were seen to cost; an edit that seemed to do good is credited nothing
    cut off by a crash     what its parent had: the next candidate is measured whole and tells
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from policies.gates import Direction, Gate
from store.facts import Generation, Reading, Suite

BASE = 0
LAST = 5  # live edits whose cost is averaged
_ROUNDING = 1e-9

# What the base itself reads. Only suites that measure the whole model: those of one fact (its wordings,
# its neighbours) say nothing of what the next fact will meet, and how much doubt is allowed depends
# on the kind of edit.
IDEAL: Mapping[Suite, float] = {
    Suite.UNRELATED: 1.0,
    Suite.LIVE_FACTS: 1.0,
    Suite.KL_DRIFT: 0.0,
    Suite.PERPLEXITY: 1.0,
}


@dataclass(frozen=True, slots=True)
class Headroom:
    """`share` in [0, 1] of the loss that the gates allow is left. `suite` is the one that leaves least,
    None when nothing was ever measured; `value` its reading, None when the share is an estimate."""

    share: float
    suite: Suite | None = None
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """The generations of one ledger by number, which of them is live (0: the base), and what was read
    of those that were measured."""

    generations: Mapping[int, Generation]
    live: int
    readings: Mapping[int, Sequence[Reading]]


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the live generation can take. `headroom`, `suite`, `value` and `threshold` as in `Headroom`;
    `cost` is the headroom that one more edit is expected to use, `edits_left` how many may follow
    before they wait (both None: unknown). `waits` says why edits wait, empty when they don't."""

    generation: int
    headroom: float
    suite: Suite | None
    value: float | None
    threshold: float | None
    cost: float | None
    edits_left: int | None
    waits: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """The headroom that one edit was seen to use (below 0: it gave some back), and in which generation."""

    share: float
    made_in: int


_FULL = Headroom(1.0)


def capacity(chain: Chain, gates: Sequence[Gate], *, reserve: float, enforce: bool = True) -> Capacity:
    """What the live generation has left, and whether further edits wait.

    They do when the headroom is below `reserve` or less than one edit is expected to cost; never at
    full headroom, and never when `enforce` is false.
    """
    known, costs = _read(chain, gates)
    left = known.get(chain.live, _FULL)
    cost = expected_cost(_by_edit(costs, _edits(chain, chain.live)))
    edits_left = _edits_left(left.share, cost, reserve)
    found = Capacity(chain.live, left.share, left.suite, left.value, left.threshold, cost, edits_left)
    return replace(found, waits=_why(found, gates)) if enforce and edits_left == 0 else found


def headroom(readings: Iterable[Reading], gates: Sequence[Gate]) -> Headroom | None:
    """What readings of one generation leave; None when no suite of `IDEAL` was measured. A reading of
    nothing (n == 0: no other live fact) leaves everything."""
    by_suite = {gate.suite: gate for gate in gates if gate.suite in IDEAL}
    left = [
        Headroom(share_left(gate, reading.value), gate.suite, reading.value, gate.threshold)
        for reading in readings
        if reading.n > 0 and (gate := by_suite.get(reading.suite)) is not None
    ]
    return min(left, key=lambda each: each.share, default=None)


def share_left(gate: Gate, value: float) -> float:
    """The share in [0, 1] of the way from what the base reads to the gate's threshold that is left. A
    gate that allows no loss leaves all or nothing; what isn't a number leaves nothing."""
    if math.isnan(value) or math.isnan(gate.threshold):
        return 0.0
    sign = 1.0 if gate.direction is Direction.AT_MOST else -1.0
    used, allowed = sign * (value - IDEAL[gate.suite]), sign * (gate.threshold - IDEAL[gate.suite])
    if allowed <= 0:
        return 1.0 if used <= allowed else 0.0
    return min(max(1.0 - used / allowed, 0.0), 1.0)


def expected_cost(costs: Sequence[float]) -> float | None:
    """Headroom that one more edit will use: the mean of the last `LAST` costs, oldest first, but never
    the first edit's: that one breaks the answers that the base hardly holds, which can't break twice
    (ARCHITECTURE.md, "Tried"). None when no other is known or when they come to no loss."""
    last = costs[1:][-LAST:]
    if not last:
        return None
    mean = math.fsum(last) / len(last)
    return mean if mean > _ROUNDING else None


def _edits_left(share: float, cost: float | None, reserve: float) -> int | None:
    if share < reserve:
        return 0
    return None if cost is None else math.floor(share / cost + _ROUNDING)


def _by_edit(costs: Mapping[int, Cost], edits: Iterable[int]) -> list[float]:
    """What `edits` cost, as far as it is known, oldest first. The first batch counts as the first edit: what
    breaks but once broke under one of its edits, and nobody knows under which."""
    known = [costs[edit] for edit in edits if edit in costs]
    return [cost.share for at, cost in enumerate(known) if at == 0 or cost.made_in != known[0].made_in]


def _read(chain: Chain, gates: Sequence[Gate]) -> tuple[dict[int, Headroom], dict[int, Cost]]:
    """The headroom of every generation, and by edit what it was seen to cost.

    Parents have lower numbers, so that one pass in order knows each before it is needed.
    """
    known, costs = {BASE: _FULL}, dict[int, Cost]()
    for number in sorted(n for n in chain.generations if n != BASE):
        row = chain.generations[number]
        before = known.get(BASE if row.parent is None else row.parent, _FULL)
        measured = headroom(chain.readings.get(number, ()), gates)
        if not row.edits:
            known[number] = _FULL
        elif measured is None:
            known[number] = _estimate(chain, row, before, costs)
        else:
            known[number] = measured
            made = set(row.edits) - set(_edits(chain, row.parent)) or {row.edits[-1]}
            share = (before.share - measured.share) / len(made)
            costs |= dict.fromkeys(made, Cost(share, number))
    return known, costs


def _estimate(chain: Chain, row: Generation, before: Headroom, costs: Mapping[int, Cost]) -> Headroom:
    gone = set(_edits(chain, row.parent)) - set(row.edits)
    credit = math.fsum(max(costs[edit].share, 0.0) for edit in sorted(gone) if edit in costs)
    return replace(before, share=min(before.share + credit, 1.0), value=None)


def _edits(chain: Chain, number: int | None) -> tuple[int, ...]:
    row = None if number is None else chain.generations.get(number)
    return row.edits if row else ()


def _why(found: Capacity, gates: Sequence[Gate]) -> str:
    """Why edits wait and what sets them going again, in one sentence without fact text."""
    cost = "" if found.cost is None else f", an edit costs about {found.cost:.2g}"
    return (
        f"capacity: {_limit(found, gates)}; headroom {found.headroom:.2g}{cost}; about 0 edits left; "
        "roll back edits that are no longer needed, "
        f"relax [gates.{found.suite}], set [capacity] enforce = false, or start from a new base"
    )


def _limit(found: Capacity, gates: Sequence[Gate]) -> str:
    if found.value is None or found.threshold is None:
        return f"generation {found.generation} was never measured, {found.suite} is estimated"
    at_most = any(gate.suite is found.suite and gate.direction is Direction.AT_MOST for gate in gates)
    wanted = f"{'at most' if at_most else 'at least'} {found.threshold:g} wanted"
    return f"{found.suite} {found.value:.3g}, {wanted}"
