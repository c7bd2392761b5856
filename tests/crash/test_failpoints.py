"""A daemon killed, or failed, at every place between two durable writes, and started again."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from store import failpoints
from store.errors import EXIT_CONFIG, ConfigError
from store.failpoints import POINTS
from tests.crash.conftest import KILLED, MakeSite, Site
from tests.crash.world import served, told

ROOT = Path(__file__).resolve().parents[2]
PLACES = sorted(POINTS)

# What is served when the work is done, however often it was cut off.
SERVED: Mapping[str, Mapping[str, str | None]] = {
    "work": {
        "France": "Lyon",
        "Spain": None,
        "Italy": None,
        "Japan": "Kyoto",
        "Germany": "Essen",
        "Peru": None,
    },
    "new": {"Japan": "Kyoto"},
    "old": {"Japan": "Kyoto"},
}
COMMANDS = {"gc.blob": "gc", "backup.sealed": "backup", "backup.named": "backup", "backup.noted": "backup"}


def kind_of(place: str) -> str:
    """The state directory on which a daemon comes to this place."""
    if place.startswith("init.") or place == "ledger.created":
        return "new"
    if place.startswith(("migration.", "backup.")):
        return "old"
    return "work"


def reach(site: Site, place: str, action: str) -> int:
    """The status of a process that came to a place."""
    if place.startswith("recovery."):
        assert site.work("edit.taken:kill") == KILLED
    if place in COMMANDS:
        return site.command(COMMANDS[place], f"{place}:{action}")
    return site.work(f"{place}:{action}")


def assert_done(site: Site, kind: str) -> None:
    """All work is done as if nothing had happened, and engines were told of what is served."""
    assert site.violations(recovered=True) == []
    assert served(site.world.config) == SERVED[kind]
    live = (site.world.config.layout.model / "current").readlink().name
    assert told(site.world.config)[-1:] == [int(live)]


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_killed_anywhere_and_again_while_recovering(site: MakeSite, place: str) -> None:
    """SIGKILL loses nothing, breaks nothing, and the next daemon ends where it would have ended."""
    kind = kind_of(place)
    killed = site(kind)
    assert reach(killed, place, "kill") == KILLED, killed.log.read_text()
    assert killed.violations() == []
    assert killed.work("recovery.swept:kill") == KILLED
    assert killed.violations() == []
    assert killed.work("recovery.acted:kill") in (KILLED, 0)
    assert killed.violations() == []
    assert killed.work() == 0, killed.log.read_text()
    assert_done(killed, kind)


@pytest.mark.slow
@pytest.mark.parametrize("place", [p for p in PLACES if p.startswith(("edit.", "commit.", "serve."))])
def test_a_batch_killed_anywhere_ends_where_single_edits_do(site: MakeSite, place: str) -> None:
    """All of it or nothing is served after a kill, and in the end what single edits would have served."""
    killed = replace(site("work"), batch_size=4)
    assert reach(killed, place, "kill") == KILLED, killed.log.read_text()
    assert killed.violations() == []
    assert killed.work("recovery.acted:kill") in (KILLED, 0)
    assert killed.violations() == []
    assert killed.work() == 0, killed.log.read_text()
    assert_done(killed, "work")


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_an_error_anywhere_is_handled_or_ends_the_daemon(site: MakeSite, place: str) -> None:
    """EIO ends in a clean exit with everything in order, or is got over; the work is done either way."""
    kind = kind_of(place)
    failed = site(kind)
    assert reach(failed, place, "error") in (0, 1, 70), failed.log.read_text()
    assert "failpoint" in failed.log.read_text() or place == "gc.moved", "the place was reached, and told of"
    assert failed.violations() == []
    assert failed.work() == 0, failed.log.read_text()
    assert_done(failed, kind)


def test_each_place_is_said_once_and_no_other() -> None:
    """The table of places is what the code reaches."""
    files = [path for package in ("store", "policies", "daemon") for path in (ROOT / package).rglob("*.py")]
    said = [name for path in files for name in re.findall(r'\breach\("([^"]+)"\)', path.read_text("utf-8"))]
    assert sorted(said) == PLACES


@pytest.mark.parametrize(
    ("text", "cause", "hint"),
    [
        ("serve.swaped:kill", "no place 'serve.swaped'", "did you mean serve.swapped?"),
        ("x", "no place 'x'", "one of "),
        ("serve.swapped", "no action ''", "one of kill, error, delay"),
        ("serve.swapped:explode", "no action 'explode'", "one of kill, error, delay"),
        ("serve.swapped:kill:0", "'0' isn't a count", "NAME:ACTION:N"),
        ("serve.swapped:kill:soon", "'soon' isn't a count", "NAME:ACTION:N"),
    ],
)
def test_a_failpoint_that_makes_no_sense_is_refused(text: str, cause: str, hint: str) -> None:
    """Someone who mistypes one hears so at the start, and never thinks that nothing went wrong."""
    with pytest.raises(ConfigError) as caught:
        failpoints.arm({failpoints.VARIABLE: text})
    assert cause in caught.value.cause
    assert hint in caught.value.hint


@pytest.mark.slow
def test_the_command_line_refuses_an_unknown_failpoint() -> None:
    """Before it does anything else."""
    environment = {**os.environ, failpoints.VARIABLE: "nowhere:kill"}
    command = [sys.executable, "-m", "daemon.cli", "config", "check"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_CONFIG
    assert "there is no place 'nowhere'" in done.stderr


def test_an_error_comes_the_nth_time_only() -> None:
    """Recovery in one process isn't cut off again by the same failpoint."""
    act = failpoints.parse("serve.live:error:2")
    with failpoints.armed(act):
        failpoints.reach("serve.live")
        failpoints.reach("serve.swapped")
        with pytest.raises(OSError, match=r"serve\.live"):
            failpoints.reach("serve.live")
        failpoints.reach("serve.live")
    assert act.reached == 3


def test_a_delay_only_takes_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process goes on afterwards, each time."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    with failpoints.armed(failpoints.parse("serve.live:delay")):
        failpoints.reach("serve.live")
        failpoints.reach("serve.live")
    assert slept == [failpoints.DELAY_SECONDS] * 2


def test_nothing_is_armed_without_the_variable() -> None:
    """A place that is reached does nothing then."""
    failpoints.arm({})
    failpoints.reach("serve.live")
    assert failpoints._armed is None
