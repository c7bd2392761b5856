"""One outcome, many observers: metrics, log line, ledger rows, and the sentence for the operator.

Knows what each of them shows. Doesn't know how the outcome came about.
"""

from collections.abc import Sequence

from daemon.house import House
from policies.batches import named
from store.facts import EditState, Outcome, Verdict


def observe(house: House, outcomes: Sequence[Outcome], seconds: float) -> None:
    """Show the outcomes of one try, which took so many seconds, everywhere they are shown."""
    house.unrecorded.extend(outcomes)
    house.metrics.tried(outcomes, seconds)
    for outcome in outcomes:
        _log(house, outcome)
    record_outcomes(house)


def _log(house: House, outcome: Outcome) -> None:
    judged = outcome.judgement
    missed = [s.suite.value for s in judged.suites if s.verdict is not Verdict.PASS] if judged else []
    house.log.info(
        f"edit.{outcome.state}",
        edit=outcome.edit.id,
        subject=outcome.edit.key.subject,
        generation=outcome.generation,
        verdict=judged.verdict.name.lower() if judged else None,
        missed=missed,
        judgement=judged.reason if judged else None,
        reason=outcome.reason,
        before=outcome.before,
        after=outcome.after,
        recipe=outcome.edit.recipe,
        attempt=outcome.edit.attempt,
        seconds=dict(outcome.seconds),
        freshness_seconds=outcome.freshness_seconds,
    )


def record_outcomes(house: House) -> None:
    """Write what isn't in the ledger yet; what finds no room there stays for the next time."""
    while house.unrecorded:
        house.ledger.record_outcome(house.unrecorded[0], now=house.now())
        del house.unrecorded[0]


def sentence(outcomes: Sequence[Outcome]) -> str:
    """What was done, in one sentence without fact text."""
    if len(outcomes) == 1:
        return _sentence(outcomes[0])
    ended: dict[str, list[int]] = {}
    for outcome in outcomes:
        ended.setdefault(_ending(outcome), []).append(outcome.edit.id)
    whose = named(outcome.edit.id for outcome in outcomes)
    return f"{whose} were tried together: " + "; ".join(f"{named(e)}: {how}" for how, e in ended.items())


def _ending(outcome: Outcome) -> str:
    if outcome.state is EditState.LIVE:
        return f"live in generation {outcome.generation}"
    known = outcome.state is EditState.ALREADY_KNOWN
    return "the model already knew it" if known else "to be tried again in a smaller batch"


def _sentence(outcome: Outcome) -> str:
    edit = outcome.edit
    if outcome.state is EditState.LIVE:
        return f"edit {edit.id} is live in generation {outcome.generation}"
    if outcome.state is EditState.ALREADY_KNOWN:
        return f"edit {edit.id} changed no weights: the model already knew it"
    if outcome.state is EditState.PENDING:
        return f"edit {edit.id} will be tried again with recipe {edit.recipe} after attempt {edit.attempt}"
    return f"edit {edit.id} is {outcome.state} after attempt {edit.attempt}"
