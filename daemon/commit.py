"""A judged candidate becomes the generation that is served: bytes first, row last.

Knows the order that a crash at any point leaves recoverable (`daemon.recovery`): blobs, intent row,
files and manifest, rename, symlink, live row, hooks. Doesn't judge.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daemon.house import House
from daemon.jobs import Edited
from daemon.publish import announce
from daemon.runner import WorkerError
from policies.keep import plan_keep
from store.errors import GenerationError, PalimpsestError
from store.facts import Edit, EditState, Generation, Reading
from store.wire import to_wire


def commit_edit(
    house: House, edit: Edit, edited: Edited, staging: Path, reason: str, old: str | None
) -> Edit:
    """Serve the staged candidate of `edit`, which passed; returns the edit, now live.

    `old` is what the model believed before.
    """
    if edited.delta is None or edited.theta is None:
        raise WorkerError("commit generation", f"edit {edit.id}", "the worker left no vectors")
    delta = house.blobs.put(edited.delta.read_bytes())
    live = house.ledger.live_generation()
    intent = open_intent(house, edited.theta, (*(live.edits if live else ()), edit.id), reason)
    house.ledger.transition(
        edit.id,
        EditState.JUDGED,
        reason=reason,
        now=house.now(),
        old=old,
        generation=intent.number,
        delta_blob=delta,
    )
    readings = [{**to_wire(reading), "answers": []} for reading in edited.readings]
    try:
        complete(house, intent, staging, {"readings": readings})
    except GenerationError as error:
        house.ledger.set_generation_state(intent.number, "quarantined", house.now(), error.cause)
        raise WorkerError("commit generation", f"edit {edit.id}", error.cause, error.hint) from error
    serve(house, intent.number, reason, measured=edited.readings)
    return house.ledger.edit(edit.id)


def open_intent(house: House, theta: Path | None, edits: Sequence[int], reason: str) -> Generation:
    """The intent row of a generation to be: what recovery finds when we get no further."""
    theta_blob = None if theta is None else house.blobs.put(theta.read_bytes())
    number, now = house.ledger.next_generation_number(), house.now()
    intent = Generation(number, house.live_number, "building", "", theta_blob, tuple(edits), now, reason)
    house.ledger.insert_generation(intent, now)
    return intent


def complete(house: House, intent: Generation, staging: Path, fields: Mapping[str, Any]) -> None:
    """Turn the staged directory into the generation of `intent`, not served yet."""
    manifest = house.models.commit(
        staging,
        intent.number,
        {"parent": intent.parent, "edits": list(intent.edits), "theta": intent.theta_blob, **fields},
    )
    house.ledger.set_generation_state(
        intent.number,
        "building",
        house.now(),
        "its files are complete",
        weights_sha256=str(manifest["weights_sha256"]),
    )


def serve(
    house: House, number: int, reason: str, *, rolled_back: bool = False, measured: Sequence[Reading] = ()
) -> None:
    """Point `current` at a built generation, make its row live, tell the engines, tidy up."""
    before = house.live_number
    house.models.promote(number)
    house.ledger.promote(number, now=house.now(), reason=reason, rolled_back=rolled_back)
    announce(house, number, before, reason, measured=measured)
    tidy(house)


def tidy(house: House) -> list[int]:
    """Delete the directories that the keep policy lets go; their vectors stay in the blob store."""
    on_disk = set(house.models.numbers())
    rows = [row for row in house.ledger.generations() if row.number in on_disk]
    plan = plan_keep(
        rows,
        newest=house.config.generations.keep,
        live=house.live_number,
        previous=house.models.previous_number(),
    )
    for choice in plan.remove:
        try:
            house.models.delete(choice.generation)
        except (PalimpsestError, OSError) as error:
            house.log.warning("generation.not_deleted", generation=choice.generation, cause=str(error))
    return [choice.generation for choice in plan.remove]
