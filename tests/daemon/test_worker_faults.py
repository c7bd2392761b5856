"""Workers that are killed, hang or measure nonsense: a few tries, then held or failed, and never served."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import cycle
from daemon.fakes import FakeClock, FakeRunner
from daemon.house import House
from daemon.recovery import recover
from daemon.runner import Limits, WorkerHandle
from store.facts import EditState
from store.trouble import Trouble, trouble_of
from tests.daemon.checks import check_state
from tests.daemon.conftest import Take, capital

# The real child's own entry point, with a job that goes wrong in the way its subject names.
CHILD = """
import errno, json, os, signal, sys, time
from pathlib import Path
from daemon import worker
def run(job, beat):
    way, out = job["edits"][0]["request"]["key"]["subject"], Path(job["out"])
    beat("learn")
    if way == "Killed": os.kill(os.getpid(), signal.SIGKILL)
    if way == "Hung": time.sleep(600)
    if way == "Torn": Path(sys.argv[1]).with_name("result.json").write_text('{"status": "edi'); os._exit(0)
    if way == "Full": raise OSError(errno.ENOSPC, "No space left on device")
    if way == "Full in words": raise ValueError("serializing: I/O error: No space left (os error 28)")
    for name in ("delta.safetensors", "theta.safetensors"): (out / name).write_text("[]")
    value = float("nan")
    reading = {"suite": "efficacy", "value": value, "low": value, "high": value, "n": 10, "answers": []}
    edited = {"status": "edited", "delta": "delta.safetensors", "readings": [reading]}
    return {"edits": [edited], "theta": "theta.safetensors"}
sys.exit(worker.main(Path(sys.argv[1]), run))
"""


@pytest.fixture
def with_children(house: House, tmp_path: Path, request: pytest.FixtureRequest) -> House:
    """The house with real child processes as its workers."""
    child = tmp_path / "child.py"
    child.write_text(CHILD)
    limits = Limits(heartbeat_seconds=1.0 if "Hung" in request.node.name else 60.0)
    command = (sys.executable, "-P", str(child))
    return replace(house, runner=WorkerHandle(house.layout.run, limits, command, poll_seconds=0.02))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("Killed", "the worker died: run job: edit: ended by SIGKILL .*out of memory"),
        ("Hung", "heartbeat stopped: run job: edit: no heartbeat for"),
        ("Torn", "the worker died: run job: edit: exit status 0 without a result"),
        ("NaN", "the measurement itself failed: .*the reading is not a number"),
    ],
)
def test_a_worker_that_breaks_is_tried_again_a_few_times_then_given_up(
    with_children: House, take: Take, clock: FakeClock, way: str, words: str
) -> None:
    """Each try waits longer; the last one leaves the edit failed with its reason, and nothing is served."""
    house = with_children
    take(capital(way, "Lyon"))
    assert "tried again" in cycle.step(house)
    assert cycle.step(house) == "nothing is due"
    clock.advance(31)
    assert "tried again" in cycle.step(house)
    clock.advance(61)
    assert cycle.step(house) == "edit 1 is failed after attempt 3"
    clock.advance(3600)
    assert cycle.step(house) == "nothing is due"
    edit = house.ledger.edit(1)
    assert edit.state is EditState.FAILED
    assert re.search(words, edit.reason), edit.reason
    assert house.live_number == 0
    check_state(house.config)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["Full", "Full in words"])
def test_a_worker_without_room_is_not_at_fault(with_children: House, take: Take, way: str) -> None:
    """No room for a worker's files is the machine's trouble: it is told as such and no attempt is used up."""
    house = with_children
    take(capital(way, "Lyon"))
    with pytest.raises(OSError, match="found no room") as caught:
        cycle.step(house)
    assert trouble_of(caught.value) is Trouble.FULL
    recover(house, passed="the disk was full")
    edit = house.ledger.edit(1)
    assert (edit.state, edit.attempt, edit.reason) == (EditState.PENDING, 0, "the disk was full")
    check_state(house.config)


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("unmeasured", "unrelated: not measured; unrelated crashed: ZeroDivisionError"),
        ("silent", "efficacy: not measured"),
    ],
)
def test_a_suite_that_crashes_or_says_nothing_holds_the_edit(
    house: House, take: Take, runner: FakeRunner, way: str, words: str
) -> None:
    """What wasn't measured is inconclusive: each recipe is tried, then a human must look; never served."""
    runner.script["France"] = way
    take(capital("France", "Lyon"))
    assert "will be tried again with recipe gentle" in cycle.step(house)
    assert cycle.step(house) == "edit 1 is held after attempt 2"
    assert [row["verdict"] for row in house.ledger.outcomes(1)] == ["inconclusive"] * 2
    assert words in house.ledger.edit(1).reason
    assert (house.live_number, house.models.numbers()) == (0, [0])
    check_state(house.config)


def test_readings_that_are_no_numbers_are_an_error_and_end_in_failed(
    house: House, take: Take, runner: FakeRunner, clock: FakeClock
) -> None:
    """Every suite NaN: the same recipe again, as nothing is known of it, up to the cap."""
    runner.script["France"] = "nan"
    take(capital("France", "Lyon"))
    for _ in range(3):
        cycle.step(house)
        clock.advance(3600)
    edit = house.ledger.edit(1)
    assert (edit.state, edit.recipe, edit.attempt) == (EditState.FAILED, "default", 3)
    assert [row["verdict"] for row in house.ledger.outcomes(1)] == ["error"] * 3
    assert house.live_number == 0


def test_a_clock_set_back_does_not_keep_an_edit_waiting(
    house: House, take: Take, runner: FakeRunner, clock: FakeClock
) -> None:
    """An edit that waits out a breakdown doesn't wait for the lost hour too."""
    runner.script["France"] = ["crash"]
    take(capital("France", "Lyon"))
    assert "tried again" in cycle.step(house)
    clock.advance(-2 * 3600)
    assert cycle.step(house) == "edit 1 is live in generation 1"


@pytest.mark.parametrize("hours", [-1, -24])
def test_a_clock_set_back_loses_and_repeats_nothing(
    house: House, take: Take, clock: FakeClock, hours: int
) -> None:
    """Files, edits, a date to come, a rollback and the periodic look all go on; the chain still holds."""
    first = take(capital("France", "Lyon"))
    assert cycle.step(house) == "edit 1 is live in generation 1"
    later = take(capital("Spain", "Seville", effective_at="2026-01-31T13:00:00Z"))
    clock.advance(3600 * hours)
    assert take(capital("Italy", "Turin")).result == first.result == later.result == "accepted"
    assert cycle.step(house) == "edit 3 is live in generation 2"
    assert cycle.step(house) == "nothing is due"
    assert recover(house) == []
    clock.advance(3600 * (1 - hours))
    assert cycle.step(house) == "edit 2 is live in generation 3"
    assert json.loads((house.models.gen_dir(3) / "model-00002-of-00002.safetensors").read_text()) == [
        ["France", "capital", "Lyon"], ["Italy", "capital", "Turin"], ["Spain", "capital", "Seville"],
    ]  # fmt: skip
    assert [len(house.ledger.outcomes(edit)) for edit in (1, 2, 3)] == [1, 1, 1]
    check_state(house.config)
