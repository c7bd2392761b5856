"""What becomes of an edit that didn't make it: another recipe, another try later, or a human.

Knows the ladder of recipes, how often and how long to wait. Doesn't know what a recipe holds, runs
nothing and reads no clock. Two kinds of failure are kept apart: the candidate was measured and isn't
good enough (another recipe may do better; else held for a human), and the machinery broke (the same
again, later; else failed).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from store.facts import EditState, Judgement, Verdict

LADDER = ("default", "gentle")


class Breakdown(StrEnum):
    """How the machinery broke; the values are what the operator reads."""

    CRASHED = "the worker died"
    DEADLINE = "the worker ran past its deadline"
    SILENT = "the worker's heartbeat stopped"
    MEMORY = "the worker ran out of memory"
    REPORTED = "the worker reported a failure"
    UNMEASURED = "the measurement itself failed"


@dataclass(frozen=True, slots=True)
class Limits:
    """`attempts` counts every try of an edit; waits double from `first_wait` up to `longest_wait`."""

    attempts: int = 3
    first_wait: timedelta = timedelta(seconds=30)
    longest_wait: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Decision:
    """`state` is PENDING (try again with `recipe`, not before `not_before`), HELD or FAILED."""

    state: EditState
    recipe: str
    not_before: datetime | None
    reason: str


DEFAULT_LIMITS = Limits()


def after_judgement(
    judgement: Judgement,
    *,
    recipe: str,
    attempts: int,
    now: datetime,
    ladder: Sequence[str] = LADDER,
    limits: Limits = DEFAULT_LIMITS,
) -> Decision:
    """What to do with a candidate that didn't pass. `attempts` were made, this one included.

    Inconclusive counts as not good enough: what can't be shown to be safe isn't served. An error
    says nothing of the candidate, so the same recipe is tried again. Raises ValueError on a pass.
    """
    if judgement.verdict is Verdict.PASS:
        raise ValueError("after_judgement: a candidate that passed needs no retry")
    if judgement.verdict is Verdict.ERROR:
        return after_breakdown(
            Breakdown.UNMEASURED,
            detail=judgement.reason,
            recipe=recipe,
            attempts=attempts,
            now=now,
            limits=limits,
        )
    following = next_recipe(recipe, ladder)
    if following is None:
        return _hold(recipe, f"{judgement.reason}; {recipe} is the last recipe, a human must look")
    if attempts >= limits.attempts:
        return _hold(recipe, f"{judgement.reason}; all {limits.attempts} attempts are used up")
    return Decision(EditState.PENDING, following, now, f"{judgement.reason}; next recipe: {following}")


def after_breakdown(
    breakdown: Breakdown,
    *,
    recipe: str,
    attempts: int,
    now: datetime,
    detail: str = "",
    limits: Limits = DEFAULT_LIMITS,
) -> Decision:
    """What to do when nothing could be judged. `attempts` were made, this one included."""
    what = f"{breakdown.value}: {detail}" if detail else breakdown.value
    if attempts >= limits.attempts:
        return Decision(EditState.FAILED, recipe, None, f"{what}; gave up after {attempts} attempts")
    wait = backoff(attempts, limits)
    reason = f"{what}; attempt {attempts} of {limits.attempts}, again in {wait.total_seconds():g} s"
    return Decision(EditState.PENDING, recipe, now + wait, reason)


def next_recipe(recipe: str, ladder: Sequence[str] = LADDER) -> str | None:
    """The rung after `recipe`; None on the last one, or for a recipe that isn't on the ladder."""
    if recipe not in ladder:
        return None
    rest = ladder[ladder.index(recipe) + 1 :]
    return rest[0] if rest else None


def backoff(attempts: int, limits: Limits = DEFAULT_LIMITS) -> timedelta:
    """How long to wait after the `attempts`-th try: doubling, capped. Never negative."""
    # The exponent is capped as well: a timedelta can't hold 30 s times 2 to the 60.
    doublings = min(max(attempts - 1, 0), 16)
    return min(limits.first_wait * (1 << doublings), limits.longest_wait)


def _hold(recipe: str, reason: str) -> Decision:
    return Decision(EditState.HELD, recipe, None, reason)
