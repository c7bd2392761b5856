"""`status`: its first line says whether the model is current, and all of it fits one screen."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from daemon import control, cycle, rollback, waits
from daemon.config import SourceSettings
from daemon.console import columns
from daemon.fakes import FakeClock, FakeRunner, ScriptedFolder
from daemon.house import House
from daemon.inbox import Inbox
from daemon.ingest import ingest_ready
from daemon.run_files import PROGRESS, write
from store.lock import StateLock
from tests.daemon.conftest import Cli, Take, capital

Prepare = Callable[[House, Take, FakeRunner], object]


def first_line(palimpsest: Cli) -> str:
    status, text = palimpsest("status")
    assert status == 0
    return text.splitlines()[0]


def _live(house: House, take: Take, _runner: FakeRunner) -> None:
    take(capital("France", "Lyon"))
    cycle.step(house)


def _rolled_back(house: House, take: Take, runner: FakeRunner) -> None:
    _live(house, take, runner)
    rollback.to_generation(house, 0)


def _cancelled(house: House, take: Take, runner: FakeRunner) -> None:
    _rolled_back(house, take, runner)
    take(capital("Spain", "Seville"))
    control.execute(house, "cancel", {"edit": 2}, actor="test")


def _held(house: House, take: Take, runner: FakeRunner) -> None:
    runner.script["Spain"] = ["failed", "failed"]
    take(capital("Spain", "Seville"))
    cycle.step(house)
    cycle.step(house)
    take(capital("France", "Lyon"), capital("Italy", "Milan"))


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda house, take, runner: None, "current: every fact that is due is served"),
        (_live, "current: every fact that is due is served"),
        (
            lambda house, take, runner: take(capital("Italy", "Milan", effective_at="2090-01-01T00:00:00Z")),
            "current: every fact that is due is served",
        ),
        (_rolled_back, "current, but for 1 fact rolled back or cancelled by hand"),
        (_cancelled, "current, but for 2 facts rolled back or cancelled by hand"),
        (
            lambda house, take, runner: take(capital("France", "Lyon")),
            "1 edit behind: 1 queued; no daemon is running",
        ),
        (_held, "3 edits behind: 2 queued, 1 held for a human; no daemon is running"),
    ],
    ids=["base", "live", "future", "rolled back", "cancelled", "queued", "held"],
)
def test_the_first_line_says_whether_the_model_is_current(
    palimpsest: Cli, house: House, take: Take, runner: FakeRunner, prepare: Prepare, said: str
) -> None:
    """By each fact's newest edit that is due; what somebody took back by hand is no debt."""
    prepare(house, take, runner)
    assert first_line(palimpsest) == said
    found = palimpsest.json("status")[1]
    assert (found["summary"], found["current"]) == (said, said.startswith("current"))


def test_a_newer_edit_speaks_for_its_fact(palimpsest: Cli, take: Take, house: House) -> None:
    """What was superseded isn't missed, and a fact that was rolled back and edited anew is served."""
    take(capital("France", "Lyon"))
    take(capital("France", "Nice"))
    cycle.step(house)
    assert first_line(palimpsest).startswith("current:")
    rollback.to_generation(house, 0)
    take(capital("France", "Nantes"))
    cycle.step(house)
    assert first_line(palimpsest).startswith("current:")


def test_files_that_nobody_read_yet_leave_it_unknown(palimpsest: Cli, house: House) -> None:
    """Nobody can say whether facts are missing before the inbox was read; temporaries aren't input."""
    (house.layout.inbox / "facts.jsonl").write_text("{}")
    (house.layout.inbox / ".hidden").touch()
    assert first_line(palimpsest) == "not known: 1 file not read yet; no daemon is running"
    assert palimpsest.json("status")[1]["unread_files"] == 1


def test_what_was_rolled_back_last_is_named_with_its_reason(
    palimpsest: Cli, house: House, take: Take, clock: FakeClock
) -> None:
    """Of several the newest; none before the first."""
    assert "rolled back" not in palimpsest("status")[1]
    for subject, object in (("France", "Lyon"), ("Spain", "Seville")):
        take(capital(subject, object))
        cycle.step(house)
    rollback.to_generation(house, 0)
    clock.advance(3600)
    rollback.to_generation(house, 2, force=True)
    rollback.without_edit(house, 1)
    text = palimpsest("status")[1]
    assert (
        "rolled back generation 2 -> 3 at 2026-01-31T13:00: the live generation less\n"
        "            edit 1, never measured without it\n"
    ) in text
    found = palimpsest.json("status")[1]["rolled_back"]
    assert (found["from"], found["to"]) == (2, 3)


def test_status_is_one_screen_whatever_is_going_on(
    palimpsest: Cli, house: House, take: Take, runner: FakeRunner, clock: FakeClock
) -> None:
    """Edits in every state, refused files with wide names, a full model, sources that wait: 23 lines of 79
    columns, and nothing is left out of the JSON."""
    runner.retention = (0.93, 0.84, 0.83)
    runner.script |= {f"Land {n}": ["failed", "failed"] for n in range(30)}
    take(*(capital(f"Land {n}", "Stadt") for n in range(30)))
    for _ in range(60):
        cycle.step(house)
    take(capital("Cuba", "Habana"))
    control.execute(house, "cancel", {"edit": 31}, actor="test")
    take(capital("France", "Lyon"), capital("Spain", "Seville"))
    cycle.step(house)
    cycle.step(house)
    rollback.without_edit(house, 32)
    take(capital("Italy", "Milan"))
    cycle.step(house)
    take(capital("Greece", "Patras"), capital("Chad", "Sarh", source="wiki"))
    take(capital("Peru", "Cusco", effective_at="2090-01-01T00:00:00Z"))
    inbox = Inbox(house.layout, house.config.inbox, clock.monotonic)
    for n in range(5):
        ScriptedFolder(house.layout.inbox, clock).drop(
            f"{'首都一覧' * 12}{n}.jsonl", '{"subject": "France"}\n'
        )
        ingest_ready(house, inbox)
    strict = {"wiki": SourceSettings(require_approval=True)}
    waits.note(replace(house, config=replace(house.config, sources=strict)))
    assert "capacity" in cycle.step(house)
    control.execute(house, "pause", {}, actor="test")
    with StateLock(house.layout.state):
        write(house.layout, PROGRESS, {"edits": [35], "stage": "learn 3/24"})
        text = palimpsest("status")[1]
        lines = text.splitlines()
        found = palimpsest.json("status")[1]
    assert len(lines) <= 23
    assert max(map(columns, lines)) <= 79
    for word in ("30 held", "1 cancelled", "2 live", "1 rolled_back", "paused", "edit 35, learn 3/24"):
        assert word in text
    assert lines[0] == "32 edits behind: 2 queued, 30 held for a human"
    assert "rolled back generation 2 -> 3" in text
    assert text.count("\nwaiting ") == 2
    assert "held        edit 30: " in text
    assert "refused     5 files in failed/" in text
    assert lines[-1].startswith("held")
    assert lines[-1].endswith("more, see `palimpsest plan`")
    assert len(found["held"]) == 30
    assert len(json.dumps(found["refused"])) > 300
