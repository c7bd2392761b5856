"""A fact's walk from the queue to the served weights, written once.

Knows the order and what ends the walk early. Doesn't know how any step is done. The edits of a batch (one
by default) are one worker job and one candidate generation; `step` returns a sentence that says what it did.

    pending -> editing -> judged -> live              the candidate passed its gates
                                 -> pending | held    it didn't: next recipe, then a human
            -> already_known                          no weights change
            -> pending | failed                       the machinery broke: later, then a human
            -> pending                                either, in a batch: smaller batches, no try counted

An edit that waits (for room on the disk, the model's capacity, approval, its source's rate, another hour or
damaged vectors to be restored) stays pending: why is worked out each time, so that nobody has to set it going
again. One that was begun when the machine failed it (`store.trouble`) is put back by `daemon.recovery`.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from daemon import capacity, waits
from daemon.batches import put_again
from daemon.commit import Passed, commit_candidate
from daemon.house import House, scratch
from daemon.jobs import FIRST_RECIPE, Candidate, Edited, edit_job, read_candidate, theta_of
from daemon.report import observe, sentence
from daemon.runner import WorkerError, WorkerStopped, never
from policies.batches import Batch, named, sort_out, split, together
from policies.gates import gates_for, judge
from policies.retries import Breakdown, Decision, Limits, after_breakdown, after_judgement
from store.blobs import BlobError
from store.facts import Edit, EditState, Judgement, Outcome, Verdict
from store.failpoints import reach
from store.results import Move

_BREAKDOWNS = {
    "died": Breakdown.CRASHED,
    "deadline": Breakdown.DEADLINE,
    "heartbeat": Breakdown.SILENT,
    "memory": Breakdown.MEMORY,
}


def step(house: House, idle: Callable[[str], str | None] = never) -> str:
    """Walk the next due edits all the way; `idle` is called meanwhile and may cut the walk off."""
    left = capacity.note(house)
    batch = next_batch(house)
    if not batch:
        return _why_none(house)
    if why := left.waits or waits.by_hours(house, batch[0]) or _lacks(house):
        return f"edit {batch[0].id} waits: {why}"
    began = house.now()
    batch = _take(house, batch)
    reach("edit.taken")
    try:
        with house.models.staging(uuid.uuid4().hex) as staging, scratch(house.layout) as out:
            result = house.runner.run(edit_job(house, batch, staging, out), idle)
            outcomes = conclude(house, batch, read_candidate(result, out, len(batch)), staging)
    except WorkerStopped as stop:
        return put_back(house, batch, stop.cause)
    except WorkerError as error:
        outcomes = break_down(house, batch, batch, error)
    reach("edit.concluded")
    observe(house, outcomes, max((house.now() - began).total_seconds(), 0.0))
    return sentence(outcomes)


def _take(house: House, batch: Sequence[Edit]) -> list[Edit]:
    """All in one transaction: recovery takes those that it finds in work for the whole batch. Only an edit by
    itself is charged with a try, so that no way out of a batch has to give one back."""
    alone = len(batch) == 1
    reason = "taken from the queue" + ("" if alone else f" as one of {named(_ids(batch))}")
    moves = [Move(edit.id, reason, {"attempt": edit.attempt + alone}) for edit in batch]
    return house.ledger.transition_all(EditState.EDITING, moves, now=house.now())


def _ids(edits: Sequence[Edit]) -> Batch:
    return tuple(edit.id for edit in edits)


def _lacks(house: House) -> str:
    """What an edit needs and can't get now: room, or the vectors that it starts from."""
    if not house.models.has_room():
        return "the disk has no room for two more models"
    try:
        theta_of(house, house.live_number)
    except BlobError as error:
        return str(error)
    return ""


def next_batch(house: House) -> list[Edit]:
    """The first due edit that neither waits out a breakdown nor for approval or its source's rate, and those
    that are tried with it; empty when there is none. No breakdown is waited out for longer than the
    longest wait: the clock was set back then."""
    now, longest, waiting = house.now(), _limits(house).longest_wait, waits.current(house).edits
    broken = {edit for edit, until in house.not_before.items() if now < until <= now + longest}
    size, left = house.config.editing.batch_size, capacity.current(house).edits_left
    most = size if left is None else min(size, max(left, 1))

    def due(count: int, like: Edit | None = None) -> list[Edit]:
        found = house.ledger.due_edits(now, len(house.not_before) + count, waiting, like)
        return [edit for edit in found if edit.id not in broken]

    first = due(1)[:1]
    # Twice as many, as some that were charged with a try or are of the same fact may be among them.
    batch = first and together(due(2 * most, first[0]), most)
    allowed = waits.begun_together(house, batch)
    return [e for e in batch if e in first or (e in allowed and not waits.by_hours(house, e))]


def _why_none(house: House) -> str:
    waiting = waits.current(house).edits
    due = house.ledger.due_edits(house.now(), limit=len(house.not_before) + 1)
    first = next((edit.id for edit in due if edit.id in waiting), None)
    return "nothing is due" if first is None else f"edit {first} waits: {waiting[first]}"


def conclude(house: House, batch: Sequence[Edit], candidate: Candidate, staging: Path) -> list[Outcome]:
    """Judge what the worker made, then serve it or leave it."""
    made = dict(zip(_ids(batch), candidate.edits, strict=True))
    known = [edit for edit in batch if made[edit.id].status == "already_known"]
    judged = {edit.id: _judge(house, edit, made[edit.id], candidate) for edit in batch if edit not in known}
    found = sort_out(judged)
    refused = [edit for edit in batch if edit.id in judged and edit.id not in found.serve]
    ended = [_know(house, edit, made[edit.id]) for edit in known]
    ended += _refuse(house, batch, refused, made, judged, found.again)
    outcomes = {edit.id: _outcome(house, edit, made[edit.id], judged.get(edit.id)) for edit in ended}
    served = [edit for edit in batch if edit.id in found.serve]
    try:
        passed = [Passed(edit, made[edit.id], judged[edit.id].reason) for edit in served]
        live = commit_candidate(house, passed, candidate.theta, staging) if passed else []
        outcomes |= {edit.id: _outcome(house, edit, made[edit.id], judged[edit.id]) for edit in live}
    except WorkerError as error:
        outcomes |= {outcome.edit.id: outcome for outcome in break_down(house, batch, served, error)}
    return [outcomes[edit.id] for edit in batch]


def _judge(house: House, edit: Edit, edited: Edited, candidate: Candidate) -> Judgement:
    if edited.status == "failed":
        judgement = Judgement(Verdict.FAIL, edited.reason or "the editor gave up", ())
    else:
        judgement = judge(edited.readings, gates_for(edit.op, house.config.gates), edit.op)
    return replace(judgement, reason="; ".join((judgement.reason, *candidate.unmeasured)))


def _know(house: House, edit: Edit, edited: Edited) -> Edit:
    reason = edited.reason or "the model already answers the new object"
    return house.ledger.transition(edit.id, EditState.ALREADY_KNOWN, reason=reason, now=house.now())


def _refuse(
    house: House,
    batch: Sequence[Edit],
    refused: Sequence[Edit],
    made: Mapping[int, Edited],
    judged: Mapping[int, Judgement],
    again: Sequence[Batch],
) -> list[Edit]:
    """Those of `batch` that aren't served: one edit climbs its ladder, several are tried `again` in fewer."""
    if not refused:
        return []
    moves = [
        Move(edit.id, judged[edit.id].reason, {"old": made[edit.id].old or edit.old}) for edit in refused
    ]
    refused = house.ledger.transition_all(EditState.JUDGED, moves, now=house.now())
    reach("edit.refused")
    if len(batch) > 1:
        together_with = f"refused as one of {named(_ids(batch))}"
        why = {edit.id: f"{judged[edit.id].reason}; {together_with}" for edit in refused}
        return put_again(house.ledger, again, why, house.now())
    (edit,) = refused
    decision = after_judgement(
        judged[edit.id],
        recipe=edit.recipe,
        attempts=edit.attempt,
        now=house.now(),
        ladder=_ladder(house),
        limits=_limits(house),
    )
    return [_turn_back(house, edit, decision)]


def put_back(house: House, batch: Sequence[Edit], reason: str) -> str:
    """Undo the taking: the edits weren't tried, so the attempt doesn't count."""
    for_all = [Move(edit.id, reason, {"attempt": max(edit.attempt - 1, 0)}) for edit in batch]
    house.ledger.transition_all(EditState.PENDING, for_all, now=house.now())
    house.log.info("edit.put_back", edits=_ids(batch), cause=reason)
    return f"{named(_ids(batch))} {'was' if len(batch) == 1 else 'were'} put back: {reason}"


def break_down(
    house: House, batch: Sequence[Edit], left: Sequence[Edit], error: WorkerError
) -> list[Outcome]:
    """`left` are those of `batch` that are still in work."""
    kind = _BREAKDOWNS.get(error.kind, Breakdown.REPORTED)
    if len(batch) > 1:
        why = f"{kind.value}: {error}; it was making {named(_ids(batch))}"
        ended = put_again(house.ledger, split(_ids(left)), dict.fromkeys(_ids(left), why), house.now())
    else:
        (edit,) = left
        decision = after_breakdown(
            kind,
            detail=str(error),
            recipe=edit.recipe,
            attempts=edit.attempt,
            now=house.now(),
            limits=_limits(house),
        )
        ended = [_turn_back(house, edit, decision)]
    for edit in ended:
        see = f"palimpsest explain {edit.id}"
        house.log.warning("edit.broke_down", edit=edit.id, kind=error.kind, see=see)
    return [Outcome(edit, edit.state, edit.reason, None, None, before="", after="") for edit in ended]


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
