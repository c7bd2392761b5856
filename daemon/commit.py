"""A judged candidate becomes the generation that is served: bytes first, row last.

Knows the order that a crash at any point leaves recoverable (`daemon.recovery`): blobs, intent row,
files and manifest, rename, symlink, live row, hooks. Doesn't judge.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.house import House
from daemon.jobs import Edited
from daemon.publish import announce
from daemon.runner import WorkerError
from policies.keep import plan_keep
from store.errors import GenerationError, PalimpsestError
from store.facts import Edit, EditState, Generation, Reading
from store.failpoints import reach
from store.generations import ModelStore
from store.queries import LedgerQueries
from store.trouble import trouble_of
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
    reach("commit.delta")
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
    reach("commit.judged")
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
    reach("commit.intent")
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
    reach("commit.built")


def serve(
    house: House,
    number: int,
    reason: str,
    *,
    rolled_back: bool = False,
    order: int | None = None,
    measured: Sequence[Reading] = (),
) -> None:
    """Point `current` at a built generation, make its row live, tell the engines, tidy up."""
    before = house.live_number
    house.models.promote(number)
    reach("serve.swapped")
    house.ledger.promote(number, now=house.now(), reason=reason, rolled_back=rolled_back, order=order)
    reach("serve.live")
    announce(house, number, before, reason, measured=measured)
    reach("serve.announced")
    tidy(house)


def tidy(house: House) -> list[int]:
    """Delete the directories that the keep policy lets go; their vectors stay in the blob store."""
    gone = removable(house.config, house.ledger, house.models)
    for number in gone:
        try:
            house.models.delete(number)
        except (PalimpsestError, OSError) as error:
            if trouble_of(error):
                raise
            house.log.warning("generation.not_deleted", generation=number, cause=str(error))
    return gone


def removable(config: Config, ledger: LedgerQueries, models: ModelStore) -> list[int]:
    """The generations whose directories the keep policy lets go."""
    on_disk, live = set(models.numbers()), ledger.live_generation()
    plan = plan_keep(
        [row for row in ledger.generations() if row.number in on_disk],
        newest=config.generations.keep,
        live=live.number if live is not None else 0,
        previous=models.previous_number(),
    )
    return [choice.generation for choice in plan.remove]
