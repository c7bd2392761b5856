"""A fact's walk from the queue to the served weights, written once.

Knows the order and what ends the walk early. Doesn't know how any step is done. One edit is one
worker job and one candidate generation; `step` returns a sentence that says what it did.

    pending -> editing -> judged -> live              the candidate passed its gates
                                 -> pending | held    it didn't: next recipe, then a human
            -> already_known                          no weights change
            -> pending | failed                       the machinery broke: later, then a human

An edit that waits (for room on the disk, the model's capacity, approval, its source's rate, another hour or
damaged vectors to be restored) stays pending: why is worked out each time, so that nobody has to set it going
again. One that was begun when the machine failed it (`store.trouble`) is put back by `daemon.recovery`.
"""

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from daemon import capacity, waits
from daemon.commit import commit_edit
from daemon.house import House, scratch
from daemon.jobs import FIRST_RECIPE, Edited, edit_job, read_edited, theta_of
from daemon.report import observe, sentence
from daemon.runner import WorkerError, WorkerStopped, never
from policies.gates import gates_for, judge
from policies.retries import Breakdown, Decision, Limits, after_breakdown, after_judgement
from store.blobs import BlobError
from store.facts import Edit, EditState, Judgement, Outcome, Verdict
from store.failpoints import reach

_BREAKDOWNS = {
    "died": Breakdown.CRASHED,
    "deadline": Breakdown.DEADLINE,
    "heartbeat": Breakdown.SILENT,
    "memory": Breakdown.MEMORY,
}


def step(house: House, idle: Callable[[str], str | None] = never) -> str:
    """Walk the next due edit all the way; `idle` is called meanwhile and may cut the walk off."""
    left = capacity.note(house)
    edit = next_edit(house)
    if edit is None:
        return _why_none(house)
    if why := left.waits or waits.by_hours(house, edit) or _lacks(house):
        return f"edit {edit.id} waits: {why}"
    began = house.now()
    edit = house.ledger.transition(
        edit.id, EditState.EDITING, reason="taken from the queue", now=house.now(), attempt=edit.attempt + 1
    )
    reach("edit.taken")
    try:
        with house.models.staging(uuid.uuid4().hex) as staging, scratch(house.layout) as out:
            edited = read_edited(house.runner.run(edit_job(house, edit, staging, out), idle), out)
            outcome = conclude(house, edit, edited, staging)
    except WorkerStopped as stop:
        return put_back(house, edit, stop.cause)
    except WorkerError as error:
        outcome = break_down(house, edit, error)
    reach("edit.concluded")
    observe(house, outcome)
    house.metrics.edit_seconds.observe(max((house.now() - began).total_seconds(), 0.0))
    return sentence(outcome)


def _lacks(house: House) -> str:
    """What an edit needs and can't get now: room, or the vectors that it starts from."""
    if not house.models.has_room():
        return "the disk has no room for two more models"
    try:
        theta_of(house, house.live_number)
    except BlobError as error:
        return str(error)
    return ""


def next_edit(house: House) -> Edit | None:
    """The first due edit that neither waits out a breakdown nor for approval or its source's rate. No
    breakdown is waited out for longer than the longest wait: the clock was set back then."""
    now, longest = house.now(), _limits(house).longest_wait
    due = house.ledger.due_edits(now, limit=len(house.not_before) + 1, without=waits.current(house).edits)
    broken = {edit for edit, until in house.not_before.items() if now < until <= now + longest}
    return next((edit for edit in due if edit.id not in broken), None)


def _why_none(house: House) -> str:
    waiting = waits.current(house).edits
    due = house.ledger.due_edits(house.now(), limit=len(house.not_before) + 1)
    first = next((edit.id for edit in due if edit.id in waiting), None)
    return "nothing is due" if first is None else f"edit {first} waits: {waiting[first]}"


def conclude(house: House, edit: Edit, edited: Edited, staging: Path) -> Outcome:
    """Judge what the worker made, then serve it or leave it."""
    if edited.status == "already_known":
        reason = edited.reason or "the model already answers the new object"
        edit = house.ledger.transition(edit.id, EditState.ALREADY_KNOWN, reason=reason, now=house.now())
        return _outcome(house, edit, edited, None)
    judgement = (
        Judgement(Verdict.FAIL, edited.reason or "the editor gave up", ())
        if edited.status == "failed"
        else judge(edited.readings, gates_for(edit.op, house.config.gates), edit.op)
    )
    if edited.unmeasured:
        judgement = replace(judgement, reason="; ".join((judgement.reason, *edited.unmeasured)))
    old = edited.old or edit.old
    if judgement.verdict is Verdict.PASS:
        edit = commit_edit(house, edit, edited, staging, judgement.reason, old)
    else:
        edit = house.ledger.transition(
            edit.id, EditState.JUDGED, reason=judgement.reason, now=house.now(), old=old
        )
        reach("edit.refused")
        edit = _turn_back(
            house,
            edit,
            after_judgement(
                judgement,
                recipe=edit.recipe,
                attempts=edit.attempt,
                now=house.now(),
                ladder=_ladder(house),
                limits=_limits(house),
            ),
        )
    return _outcome(house, edit, edited, judgement)


def put_back(house: House, edit: Edit, reason: str) -> str:
    """Undo the taking: the edit wasn't tried, so the attempt doesn't count."""
    house.ledger.requeue(edit.id, reason=reason, now=house.now(), counts=False)
    house.log.info("edit.put_back", edit=edit.id, cause=reason)
    return f"edit {edit.id} was put back: {reason}"


def break_down(house: House, edit: Edit, error: WorkerError) -> Outcome:
    decision = after_breakdown(
        _BREAKDOWNS.get(error.kind, Breakdown.REPORTED),
        detail=str(error),
        recipe=edit.recipe,
        attempts=edit.attempt,
        now=house.now(),
        limits=_limits(house),
    )
    edit = _turn_back(house, edit, decision)
    house.log.warning("edit.broke_down", edit=edit.id, kind=error.kind, see=f"palimpsest explain {edit.id}")
    return Outcome(edit, edit.state, edit.reason, None, None, before="", after="")


def _turn_back(house: House, edit: Edit, decision: Decision) -> Edit:
    now = house.now()
    if decision.not_before is not None and decision.not_before > now:
        house.not_before[edit.id] = decision.not_before
    return house.ledger.transition(
        edit.id, decision.state, reason=decision.reason, now=now, recipe=decision.recipe
    )


def _outcome(house: House, edit: Edit, edited: Edited, judgement: Judgement | None) -> Outcome:
    since = max(filter(None, (edit.dropped_at, edit.effective_at)), default=None)
    return Outcome(
        edit=edit,
        state=edit.state,
        reason=edit.reason,
        generation=edit.generation if edit.state is EditState.LIVE else None,
        judgement=judgement,
        before=edited.before,
        after=edited.after,
        seconds=edited.seconds,
        localisation=edited.localisation,
        freshness_seconds=(house.now() - since).total_seconds() if since else None,
        soft_forgetting=edited.soft_forgetting,
    )


def _limits(house: House) -> Limits:
    given = house.config.retries
    first, longest = given.first_wait_seconds, given.longest_wait_seconds
    return Limits(given.attempts, timedelta(seconds=first), timedelta(seconds=longest))


def _ladder(house: House) -> tuple[str, ...]:
    """The recipes in the order in which they are tried: what the configuration begins with isn't repeated."""
    config = house.config
    return (FIRST_RECIPE, *(name for name in config.retries.recipes if name != config.editing.recipe))
