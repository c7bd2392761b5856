"""After a crash anywhere: what was half done is finished or undone, and a second look finds nothing."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from daemon import cycle
from daemon.commit import complete, open_intent
from daemon.fakes import FakeClock, FakeRunner, write_model
from daemon.house import House
from daemon.recovery import (
    Action,
    Disk,
    Drop,
    Finish,
    GiveUp,
    Halve,
    Point,
    Rebuild,
    Requeue,
    plan_recovery,
    recover,
)
from store.facts import Edit, EditState, FactKey, Generation, Op
from tests.daemon.conftest import Take, capital

NOW = datetime(2026, 1, 31, tzinfo=UTC)
EDITING = Edit(1, FactKey("France", "capital"), Op.UPSERT, "Lyon", (), None, (), EditState.EDITING, attempt=1)
JUDGED = replace(EDITING, state=EditState.JUDGED, generation=2)
LIVE = Generation(1, 0, "live", "aa", "blob", (9,), NOW)
BUILDING = Generation(2, 1, "building", "bb", "blob", (9, 1), NOW)
OTHER = replace(JUDGED, id=3, key=FactKey("Spain", "capital"))
ASIDE = replace(OTHER, generation=None)
BOTH = replace(BUILDING, edits=(9, 1, 3))


def disk(complete: set[int], current: int | None = 1, also: set[int] | None = None) -> Disk:
    return Disk(frozenset(complete), frozenset(complete | (also or set())), current)


@pytest.mark.parametrize(
    ("edits", "rows", "found", "expected"),
    [
        ([], [LIVE], disk({1}), []),
        ([EDITING], [LIVE], disk({1}), [Requeue(1)]),
        ([replace(EDITING, attempt=3)], [LIVE], disk({1}), [GiveUp(1)]),
        ([EDITING], [LIVE, BUILDING], disk({1}), [Drop(2, False), Requeue(1)]),
        ([JUDGED], [LIVE, BUILDING], disk({1}), [Drop(2, False), Requeue(1)]),
        ([JUDGED], [LIVE, BUILDING], disk({1}, also={2}), [Drop(2, True), Requeue(1)]),
        ([JUDGED], [LIVE, BUILDING], disk({1, 2}), [Finish(2)]),
        ([JUDGED], [LIVE, BUILDING], disk({1, 2}, current=2), [Finish(2)]),
        ([EDITING], [LIVE, BUILDING], disk({1, 2}), [Drop(2, True), Requeue(1)]),
        ([JUDGED], [LIVE, replace(BUILDING, parent=0)], disk({1, 2}), [Drop(2, True), Requeue(1)]),
        ([JUDGED], [LIVE, replace(BUILDING, weights_sha256="")], disk({1, 2}), [Drop(2, True), Requeue(1)]),
        ([], [LIVE, replace(BUILDING, edits=(8,))], disk({1, 2}), [Drop(2, True)]),
        ([EDITING, replace(EDITING, id=3)], [LIVE], disk({1}), [Halve((1, 3))]),
        ([replace(EDITING, attempt=3), replace(EDITING, id=3)], [LIVE], disk({1}), [Halve((1, 3))]),
        ([JUDGED, OTHER], [LIVE, BOTH], disk({1, 2}), [Finish(2)]),
        ([JUDGED, OTHER], [LIVE, BOTH], disk({1}), [Drop(2, False), Halve((1, 3))]),
        ([JUDGED], [LIVE, BOTH], disk({1, 2}), [Drop(2, True), Requeue(1)]),
        ([JUDGED, ASIDE], [LIVE, BOTH], disk({1, 2}), [Drop(2, True), Halve((1, 3))]),
        ([], [LIVE], disk({1}, current=None), [Point(1)]),
        ([], [LIVE], disk({1, 0}, current=0), [Point(1)]),
        ([], [LIVE], disk(set()), [Rebuild(1)]),
        ([], [], disk(set(), current=None), []),
    ],
)  # fmt: skip
def test_every_row_and_disk_has_one_way_out(
    edits: list[Edit], rows: list[Generation], found: Disk, expected: list[Action]
) -> None:
    """The table of recovery: a pure function of rows and disk."""
    assert plan_recovery(edits, rows, found, max_attempts=3) == expected


def test_what_the_machine_cut_off_goes_back_as_it_was() -> None:
    """A full disk says nothing of a batch: it isn't halved, and nobody is given up."""
    tried = [replace(EDITING, attempt=9), replace(EDITING, id=3)]
    assert plan_recovery(tried, [LIVE], disk({1}), max_attempts=None) == [Requeue(1), Requeue(3)]


def crash_after(house: House, take: Take, point: str) -> None:
    """Walk an edit up to a point of `daemon.commit` and leave everything as a crash would."""
    take(capital("France", "Lyon"))
    ledger = house.ledger
    ledger.transition(1, EditState.EDITING, reason="taken", now=house.now(), attempt=1)
    if point == "editing":
        return
    with house.models.staging("crash") as staging:
        theta = house.layout.run / "theta"
        theta.write_text('[["France", "capital", "Lyon"]]')
        write_model(house.models.base_dir, staging, [["France", "capital", "Lyon"]])
        intent = open_intent(house, theta, (1,), "passed")
        if point == "intent":
            return
        ledger.transition(1, EditState.JUDGED, reason="passed", now=house.now(), generation=1, delta_blob="d")
        if point == "judged":
            return
        complete(house, intent, staging, {})
    if point == "switched":
        house.models.promote(1)


@pytest.mark.parametrize("point", ["editing", "intent", "judged", "complete", "switched"])
def test_a_crash_at_any_point_ends_with_the_fact_live(house: House, take: Take, point: str) -> None:
    """Either the candidate is finished or the edit is made again; rows and disk agree in between."""
    crash_after(house, take, point)
    assert recover(house)
    assert house.models.current_number() == house.live_number
    assert recover(house) == []
    if point in ("complete", "switched"):
        assert house.ledger.edit(1).state is EditState.LIVE
    else:
        assert house.ledger.edit(1).state is EditState.PENDING
        assert "is live" in cycle.step(house)
    fact = house.ledger.fact(FactKey("France", "capital"))
    assert fact is not None
    assert fact.value == "Lyon"
    assert house.ledger.integrity() == []


def test_a_live_generation_that_was_lost_is_rebuilt(house: House, take: Take) -> None:
    """A directory that someone deleted comes back with the same bytes."""
    take(capital("France", "Lyon"))
    cycle.step(house)
    sha256 = house.ledger.generation(1).weights_sha256
    house.models.promote(0)
    house.models.delete(1)
    assert recover(house) == [Rebuild(1), Point(1)]
    assert house.models.manifest(1)["weights_sha256"] == sha256
    assert house.models.current_number() == 1


def test_staging_that_a_crash_left_is_swept(house: House) -> None:
    """Half-written models don't fill the disk."""
    left = house.layout.model / ".staging" / "left"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_text("x")
    recover(house)
    assert not left.exists()


def test_an_edit_that_brings_the_daemon_down_is_given_up(
    house: House, take: Take, runner: FakeRunner, clock: FakeClock
) -> None:
    """Tries are counted before they are made, so that a crash loop ends."""
    take(capital("France", "Lyon"))
    for attempt in (1, 2, 3):
        house.ledger.transition(1, EditState.EDITING, reason="taken", now=clock(), attempt=attempt)
        recover(house)
    assert house.ledger.edit(1).state is EditState.FAILED
