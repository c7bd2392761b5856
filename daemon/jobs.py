"""What the worker is asked for and what it answers, as files and JSON-able values.

Knows every kind of job. Doesn't know how one is run or what is decided from its result.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.house import House
from daemon.runner import Job, WorkerError
from policies.relations import relation_for, relation_key, request_for
from store.facts import Edit, EditRequest, LatentReading, ModuleScore, Reading, Suite
from store.wire import WireError, from_wire, to_wire

FIRST_RECIPE = "default"  # what the ledger writes into a new edit; the configuration says what it means


@dataclass(frozen=True, slots=True)
class Edited:
    """What an `edit` job made of one edit. `delta` is a file of the job's out folder. Readings are its own
    and those of the whole candidate."""

    status: str  # edited | already_known | failed
    reason: str
    before: str
    after: str
    old: str | None
    delta: Path | None
    readings: tuple[Reading, ...]
    localisation: tuple[ModuleScore, ...]
    seconds: tuple[tuple[str, float], ...]
    soft_forgetting: tuple[LatentReading, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An `edit` job's answer, read strictly: its edits in the order they were asked for. `theta` is a file of
    the job's out folder, None when no edit changed anything."""

    edits: tuple[Edited, ...]
    theta: Path | None
    unmeasured: tuple[str, ...] = ()  # which suites crashed, and how


def read_candidate(result: Mapping[str, Any], out: Path, count: int) -> Candidate:
    """Raises WorkerError when the answer isn't of the agreed form or names files that aren't there."""
    try:
        shared = read_readings(result)
        edits = tuple(_read_edited(each, shared, out) for each in result["edits"])
        unmeasured = tuple(map(str, result.get("unmeasured", ())))
        candidate = Candidate(edits, _file(out, result.get("theta")), unmeasured)
    except (KeyError, TypeError, ValueError, WireError) as error:
        raise WorkerError("read result", "edit", f"not of the agreed form: {error!r}") from error
    if len(edits) != count:
        raise WorkerError("read result", "edit", f"{len(edits)} answers came for {count} edits")
    changed = [edited.delta for edited in edits if edited.status == "edited"]
    if changed and not all(path and path.is_file() for path in (*changed, candidate.theta)):
        raise WorkerError("read result", "edit", "the worker left no vectors")
    return candidate


def _read_edited(result: Mapping[str, Any], shared: tuple[Reading, ...], out: Path) -> Edited:
    return Edited(
        status=result["status"],
        reason=result.get("reason", ""),
        before=result.get("before", ""),
        after=result.get("after", result.get("before", "") if result["status"] == "already_known" else ""),
        old=result.get("old"),
        delta=_file(out, result.get("delta")),
        readings=(*read_readings(result), *shared),
        localisation=tuple(from_wire(ModuleScore, score) for score in result.get("localisation", ())),
        seconds=tuple((str(stage), float(seconds)) for stage, seconds in result.get("seconds", ())),
        soft_forgetting=tuple(from_wire(LatentReading, r) for r in result.get("soft_forgetting", ())),
    )


def read_readings(result: Mapping[str, Any]) -> tuple[Reading, ...]:
    return tuple(from_wire(Reading, reading) for reading in result.get("readings", ()))


def read_measured(result: Mapping[str, Any], count: int) -> list[bool]:
    """For each of `count` requests of a `measure` job, whether it is answered as wanted."""
    readings = [reading for reading in read_readings(result) if reading.suite is Suite.EFFICACY]
    if len(readings) != count:
        raise WorkerError("read result", "measure", f"{len(readings)} readings came for {count} facts")
    return [reading.value > 0.5 for reading in readings]


def _file(out: Path, name: str | None) -> Path | None:
    return out / name if name else None


def request(house: House, edit: Edit, live: Iterable[Edit] = ()) -> EditRequest:
    """What the editor may know of `edit`. Subjects whose own fact of this relation was edited are no
    neighbours: the base's answers, which neighbours are held to, are no longer wanted of them."""
    made = request_for(edit, relation_for(edit.key.relation, house.relations))
    relation = relation_key(edit.key.relation)
    edited = {other.key.subject.casefold() for other in live if relation_key(other.key.relation) == relation}
    kept = tuple(name for name in made.neighbours if name.casefold() not in edited)
    return replace(made, neighbours=kept)


def latest_of_each(live: Iterable[Edit]) -> tuple[Edit, ...]:
    """The live edits that still say what their fact is: a newer edit of a key hides the older ones."""
    return tuple({edit.key: edit for edit in live}.values())


def edit_job(house: House, batch: Sequence[Edit], staging: Path, out: Path) -> Job:
    """Edits of different facts, to be made one on top of the other."""
    keys = {edit.key for edit in batch}
    others = [other for other in latest_of_each(house.ledger.live_facts()) if other.key not in keys]
    recipes = [house.config.editing.recipe if e.recipe == FIRST_RECIPE else e.recipe for e in batch]
    return {
        **common(house.config, "edit"),
        "parent_theta": _blob(house, house.live_number),
        "edits": [
            {"request": to_wire(request(house, edit, (*others, *batch))), "recipe": recipe}
            for edit, recipe in zip(batch, recipes, strict=True)
        ],
        "live": [to_wire(replace(request(house, other), neighbours=())) for other in others],
        "fail_fast": False,
        "staging": str(staging),
        "out": str(out),
    }


def materialize_job(house: House, theta: Path | None, staging: Path, out: Path) -> Job:
    theta_path = None if theta is None else str(theta)
    return {
        **common(house.config, "materialize"),
        "theta": theta_path,
        "staging": str(staging),
        "out": str(out),
    }


def compose_job(house: House, deltas: Sequence[str], staging: Path, out: Path) -> Job:
    paths = [str(house.blobs.verified(delta)) for delta in deltas]
    return {**common(house.config, "compose"), "deltas": paths, "staging": str(staging), "out": str(out)}


def measure_job(house: House, model: Path, requests: Iterable[EditRequest]) -> Job:
    return {
        **common(house.config, "measure"),
        "model": str(model),
        "requests": [to_wire(r) for r in requests],
    }


def common(config: Config, kind: str) -> dict[str, Any]:
    """What every job on an initialised model is told."""
    return {
        "kind": kind,
        "base": str(config.layout.base),
        "cache": str(config.layout.cache),
        "dtype": config.model.dtype,
        "device": config.model.device,
    }


def _blob(house: House, generation: int) -> str | None:
    """Raises BlobError for vectors that aren't what was stored: the worker would fold anything."""
    theta = house.ledger.generation(generation).theta_blob
    return None if theta is None else str(house.blobs.verified(theta))


def theta_of(house: House, generation: int) -> Path | None:
    """The summed log-scale vectors of a generation; None for the base."""
    blob = _blob(house, generation)
    return None if blob is None else Path(blob)
