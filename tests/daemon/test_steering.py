"""Every order, given to a running daemon over its socket and carried out without one, does the same."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon import cli, control, control_client, cycle
from daemon.config import Config
from daemon.fakes import FakeRunner
from daemon.house import House
from daemon.status import is_running
from daemon.users import actor
from store.facts import EditState
from store.ledger import Ledger
from tests.daemon.conftest import Cli, Take, capital
from tests.daemon.fake_daemon import make_config
from tests.daemon.running import Daemon, ending, spawn

pytestmark = pytest.mark.slow

HELD = ["failed", "failed"]
SCRIPT: dict[str, str | list[str]] = {"Spain": HELD}
STRICT = "[sources.wiki]\nrequire_approval = true\n"
LIVE = capital("France", "Lyon")
ROWS = (LIVE, capital("Spain", "Seville"), capital("Peru", "Cusco", effective_at="2090-01-01T00:00:00Z"))
WAITS = capital("Italy", "Milan", source="wiki")


@dataclass(frozen=True, slots=True)
class Place:
    """A state directory where edit 1 is live, 2 held, 3 pending for long and 4 waits for approval."""

    config: Config
    running: bool

    def ledger(self) -> Ledger:
        return Ledger.open_readonly(self.config.layout.ledger)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Place]:
    """With a daemon process that owns it."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "config.toml").write_text(STRICT)
    with ending() as begun:
        log = tmp_path / "log"
        daemon = Daemon(make_config(state), spawn(state, SCRIPT, log), log)
        begun.append(daemon.ready())
        daemon.drop("a.jsonl", *ROWS)
        daemon.wait_for(lambda: daemon.state_of(2) is EditState.HELD, "held edit")
        daemon.drop("b.jsonl", WAITS)
        daemon.wait_for(lambda: daemon.state_of(4), "fourth edit")
        yield Place(daemon.config, True)


@pytest.fixture
def down(house: House, palimpsest: Cli, take: Take, runner: FakeRunner) -> Place:
    """With nobody but the command itself."""
    runner.script["Spain"] = list(HELD)
    (house.layout.state / "config.toml").write_text(STRICT)
    take(*ROWS)
    for _ in range(3):
        cycle.step(house)
    take(WAITS)
    return Place(house.config, False)


@pytest.fixture(params=["daemon up", "daemon down"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue("up" if request.param == "daemon up" else "down")
    assert is_running(found.config) == found.running
    with found.ledger() as ledger:
        states = [str(edit.state) for edit in ledger.edits()]
    assert states == ["live", "held", "pending", "pending"]
    return found


def _state(edit: int, *states: str) -> Callable[[Ledger], bool]:
    return lambda ledger: str(ledger.edit(edit).state) in states


def _serves_the_base(ledger: Ledger) -> bool:
    live = ledger.live_generation()
    return live is not None and live.number == 0 and _state(1, "rolled_back")(ledger)


ORDERS: Mapping[str, Callable[[Ledger], Any]] = {
    "pause": lambda ledger: ledger.get_setting("paused") is True,
    "resume": lambda ledger: ledger.get_setting("paused") is False,
    "cancel 3": _state(3, "cancelled"),
    "retry 2": _state(2, "pending", "editing", "judged", "live"),
    "approve 4": lambda ledger: ledger.approvals([4])[4][0]["actor"] == actor(os.geteuid()),
    "rollback --to 0": _serves_the_base,
    "rollback --edit 1": _serves_the_base,
    "rollback --fact France capital": _serves_the_base,
    "pin 1": lambda ledger: ledger.generation(1).pinned,
}


def test_every_kind_of_order_is_tried() -> None:
    """An order that the daemon takes has a command here."""
    assert {line.split()[0] for line in ORDERS} == control.KINDS


@pytest.mark.parametrize("line", ORDERS)
def test_an_order_does_the_same_with_and_without_a_daemon(
    place: Place, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 0, the ledger as wanted, one finished order in it with the user's name, and its result."""
    state = str(place.config.layout.state)
    assert cli.main([*line.split(), "--state", state, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    with place.ledger() as ledger:
        assert ORDERS[line](ledger)
        assert ledger.open_intents() == []
        order = ledger.intent(1)
        (given,) = [event for event in ledger.audit_events() if event["event"] == "order.given"]
    assert (order["kind"], order["actor"]) == (line.split(maxsplit=1)[0], actor(os.geteuid()))
    assert given["detail"]["actor"] == order["actor"]
    assert order["result"] == said
    answer = control_client.get(place.config, "/orders/1")
    assert answer == ((200, {"order": 1, "result": said}) if place.running else None)


@pytest.mark.parametrize(
    ("line", "code"),
    [("cancel 1", 1), ("retry 1", 1), ("rollback --edit 2", 64), ("pin 99", 1), ("approve 1", 1)],
)
def test_an_order_that_fails_says_the_same_with_and_without_a_daemon(
    place: Place, line: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same exit status, and an error that names what it was about."""
    state = str(place.config.layout.state)
    assert cli.main([*line.split(), "--state", state, "--json"]) == code
    error = json.loads(capsys.readouterr().out)["error"]
    assert line.rsplit(maxsplit=1)[-1] in error["subject"]
    assert error["cause"]


@pytest.mark.parametrize(
    "line", ["status", "approvals", "facts", "history", "explain 1", "explain 4", "plan"]
)
def test_a_view_is_the_same_with_and_without_a_daemon(
    place: Place, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reading needs no daemon and disturbs none; only who runs, and how fresh that is, differs."""
    state = str(place.config.layout.state)
    status = cli.main([*line.split(), "--state", state, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert status == (2 if line == "plan" else 0)
    if line == "status":
        assert (found["pid"] is not None) == place.running
        ending = "" if place.running else "; no daemon is running"
        assert found["summary"] == f"2 edits behind: 1 queued, 1 held for a human{ending}"
        assert found["waiting"]["approval"] == 1
    if line == "approvals":
        assert [row["edit"] for row in found] == [4]
    if line == "explain 4":
        assert found["waits"].startswith("approval")
