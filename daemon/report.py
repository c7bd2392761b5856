"""One outcome, many observers: metrics, log line, ledger rows, and the sentence for the operator.

Knows what each of them shows. Doesn't know how the outcome came about.
"""

from daemon.house import House
from store.facts import EditState, Outcome, Verdict


def observe(house: House, outcome: Outcome) -> None:
    """Show the outcome everywhere it is shown."""
    house.unrecorded.append(outcome)
    house.metrics.observe(outcome)
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
    record_outcomes(house)


def record_outcomes(house: House) -> None:
    """Write what isn't in the ledger yet; what finds no room there stays for the next time."""
    while house.unrecorded:
        house.ledger.record_outcome(house.unrecorded[0], now=house.now())
        del house.unrecorded[0]


def sentence(outcome: Outcome) -> str:
    """What was done, in one sentence without fact text."""
    edit = outcome.edit
    if outcome.state is EditState.LIVE:
        return f"edit {edit.id} is live in generation {outcome.generation}"
    if outcome.state is EditState.ALREADY_KNOWN:
        return f"edit {edit.id} changed no weights: the model already knew it"
    if outcome.state is EditState.PENDING:
        return f"edit {edit.id} will be tried again with recipe {edit.recipe} after attempt {edit.attempt}"
    return f"edit {edit.id} is {outcome.state} after attempt {edit.attempt}"
