"""After a crash: what the rows and the disk together say must be done.

Knows the order in which `daemon.commit` writes. `plan_recovery` is a pure function of rows and disk;
`recover` reads both, and does what was planned.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from daemon.batches import put_again
from daemon.commit import serve, tidy
from daemon.house import House, sweep_scratch
from daemon.publish import announce_owed
from daemon.rollback import restore, served, set_aside
from policies.batches import split
from store.facts import Edit, EditState, Generation
from store.failpoints import reach

_IN_WORK = (EditState.EDITING, EditState.JUDGED)


@dataclass(frozen=True, slots=True)
class Disk:
    """What lies in the model's folder. `complete` generations are whole and fit their manifests."""

    complete: frozenset[int]
    present: frozenset[int]
    current: int | None


@dataclass(frozen=True, slots=True)
class Requeue:
    """The edit was cut off: back into the queue."""

    edit: int


@dataclass(frozen=True, slots=True)
class Halve:
    """A batch was cut off, and nobody knows which of it brought the daemon down: back into the queue as
    two batches."""

    edits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The edit was cut off as often as it may be tried: it may be what brings the daemon down."""

    edit: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The candidate had passed and is whole: make it live."""

    generation: int


@dataclass(frozen=True, slots=True)
class Drop:
    """The candidate is incomplete or overtaken: its row is closed, its directory set aside."""

    generation: int
    on_disk: bool


@dataclass(frozen=True, slots=True)
class Rebuild:
    """The live generation isn't whole on disk: write it again from its vectors."""

    generation: int


@dataclass(frozen=True, slots=True)
class Point:
    """`current` doesn't show the live generation."""

    generation: int


Action = Requeue | Halve | GiveUp | Finish | Drop | Rebuild | Point


def plan_recovery(
    cut_off: Iterable[Edit], generations: Sequence[Generation], disk: Disk, max_attempts: int | None
) -> list[Action]:
    """What to do, in order. `cut_off` are the edits found in state editing or judged: one batch, as no two
    are ever in work. Without `max_attempts` none of them is to blame: all go back as they were.

    A candidate can only be finished when it was built on what is still live. Nothing is planned
    when rows and disk agree, so that a second recovery does nothing.
    """
    edits = list(cut_off)
    live = next((row for row in generations if row.state == "live"), None)
    building = [row for row in generations if row.state == "building"]
    finished = None if live is None else _finishable(building, edits, live, disk)
    actions: list[Action] = [
        Drop(row.number, row.number in disk.present) for row in building if row is not finished
    ]
    if finished is not None:
        actions.append(Finish(finished.number))
    elif live is not None:
        if live.number not in disk.complete:
            actions.append(Rebuild(live.number))
        if disk.current != live.number:
            actions.append(Point(live.number))
    saved = set(finished.edits) if finished is not None else set()
    left = [edit for edit in edits if edit.id not in saved]
    if max_attempts is None:
        actions.extend(Requeue(edit.id) for edit in left)
    elif len(left) > 1:
        actions.append(Halve(tuple(edit.id for edit in left)))
    else:
        actions.extend(GiveUp(edit.id) if edit.attempt >= max_attempts else Requeue(edit.id) for edit in left)
    return actions


def _finishable(
    building: Iterable[Generation], edits: Iterable[Edit], live: Generation, disk: Disk
) -> Generation | None:
    """The newest whole candidate on top of the live generation whose own edits had all passed. One that a
    rollback composed has none: its order is still open and builds it again."""
    passed = {(edit.id, edit.generation) for edit in edits if edit.state is EditState.JUDGED}
    whole = [
        row
        for row in building
        if row.number in disk.complete
        and row.parent == live.number
        and row.weights_sha256
        and (own := [edit for edit in row.edits if edit not in live.edits])
        and all((edit, row.number) in passed for edit in own)
    ]
    return max(whole, key=lambda row: row.number, default=None)


def recover(house: House, passed: str = "") -> list[Action]:
    """Put rows and disk in order after any crash; returns what was done.

    `passed` is the trouble that a running daemon went through instead: what it cut off wasn't tried.
    Raises GenerationError when the base is damaged, from which every edit is made.
    """
    house.models.sweep_staging()
    sweep_scratch(house.layout)
    reach("recovery.swept")
    generations = house.ledger.generations()
    disk = look(house, generations)
    if generations and 0 not in disk.complete:
        restore(house, 0)  # refuses, and says what to do
    most = None if passed else house.config.retries.attempts
    actions = plan_recovery(house.ledger.edits(_IN_WORK), generations, disk, most)
    for action in actions:
        house.log.warning("recovery.action", action=str(action))
        _apply(house, action, passed)
        reach("recovery.acted")
    if actions:
        tidy(house)
    announce_owed(house)
    return actions


def is_half_done(house: House) -> bool:
    """Whether rows and links alone tell of work that was cut off; cheap, where `recover` reads models."""
    building = any(row.state == "building" for row in house.ledger.generations())
    return building or served(house) != house.live_number or bool(house.ledger.edits(_IN_WORK))


def look(house: House, generations: Sequence[Generation]) -> Disk:
    """The disk as recovery sees it; only what is live or half built, and the base, is read and checked."""
    present = frozenset(house.models.numbers())
    matter = {0, *(row.number for row in generations if row.state in ("live", "building"))} & present
    complete = frozenset(number for number in matter if not house.models.verify(number))
    return Disk(complete, present, served(house))


def _apply(house: House, action: Action, passed: str) -> None:
    ledger, now = house.ledger, house.now()
    reason = passed or "the daemon had stopped in the middle of it"
    match action:
        case Requeue(edit):
            ledger.requeue(edit, reason=reason, now=now, counts=not passed)
        case Halve(edits):
            put_again(ledger, split(edits), dict.fromkeys(edits, reason), now)
        case GiveUp(edit):
            ledger.transition(edit, EditState.FAILED, reason=f"{reason}, too often", now=now)
        case Drop(number, on_disk):
            if on_disk:
                set_aside(house, number, reason)
            ledger.set_generation_state(number, "quarantined", now, reason)
        case Finish(number):
            serve(house, number, f"{reason}, after it had passed its gates")
        case Rebuild(number):
            restore(house, number)
            house.models.promote(number)  # were it served while it was damaged, the base is by now
        case Point(number):
            house.models.promote(number)
