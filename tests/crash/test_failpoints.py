"""A daemon killed, or failed, at every place between two durable writes, and started again."""

from collections.abc import Mapping
from pathlib import Path

import pytest

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
COMMANDS = {"gc.blob": "gc", "backup.noted": "backup"}


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
