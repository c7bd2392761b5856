"""A judged candidate becomes the generation that is served: bytes first, row last.

Knows the order that a crash at any point leaves recoverable (`daemon.recovery`): blobs, intent row,
files and manifest, rename, symlink, live row, hooks. Doesn't judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.house import House
from daemon.jobs import Edited
from daemon.publish import announce
from daemon.runner import WorkerError
from policies.batches import named
from policies.keep import plan_keep
from store.errors import GenerationError, PalimpsestError
from store.facts import Edit, EditState, Generation, Reading
from store.failpoints import reach
from store.generations import ModelStore
from store.queries import LedgerQueries
from store.results import Move
from store.trouble import trouble_of
from store.wire import to_wire


@dataclass(frozen=True, slots=True)
class Passed:
    """An edit that is in the candidate, what the worker made of it, and why it passed."""

    edit: Edit
    edited: Edited
    reason: str


def commit_candidate(house: House, passed: Sequence[Passed], theta: Path | None, staging: Path) -> list[Edit]:
    """Serve the staged candidate, whose edits all passed; returns them in order, now live.

    Raises WorkerError, with none of them live, when the worker's files are no generation.
    """
    subject = named(each.edit.id for each in passed)
    moves = []
    for each in passed:
        if each.edited.delta is None or theta is None:
            raise WorkerError("commit generation", subject, "the worker left no vectors")
        delta = house.blobs.put(each.edited.delta.read_bytes())
        old = each.edited.old or each.edit.old
        moves.append(Move(each.edit.id, each.reason, {"old": old, "delta_blob": delta}))
        reach("commit.delta")
    live = house.ledger.live_generation()
    edits = (*(live.edits if live else ()), *(each.edit.id for each in passed))
    reason = passed[0].reason
    intent = open_intent(house, theta, edits, reason)
    for move in moves:
        move.fields["generation"] = intent.number
    house.ledger.transition_all(EditState.JUDGED, moves, now=house.now())
    reach("commit.judged")
    # What was measured of the whole candidate is the same value in each of them.
    measured = list({id(reading): reading for each in passed for reading in each.edited.readings}.values())
    try:
        readings = [{**to_wire(reading), "answers": []} for reading in measured]
        complete(house, intent, staging, {"readings": readings})
    except GenerationError as error:
        house.ledger.set_generation_state(intent.number, "quarantined", house.now(), error.cause)
        raise WorkerError("commit generation", subject, error.cause, error.hint) from error
    serve(house, intent.number, reason, measured=measured)
    return [house.ledger.edit(each.edit.id) for each in passed]


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
