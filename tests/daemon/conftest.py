"""A state directory with a fake model, opened as a daemon would open it."""

import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from daemon import asking, cli, cycle
from daemon import house as houses
from daemon.config import Config, DaemonSettings, InboxSettings, LogSettings, MetricsSettings
from daemon.fakes import FakeClock, FakeRunner, ScriptedFolder
from daemon.house import House, open_house
from daemon.inbox import Inbox
from daemon.ingest import Ingested, ingest_ready
from daemon.initialise import initialise
from daemon.logs import make_log
from daemon.runner import never
from policies.relations import Relation, load_relations
from tests.daemon.fake_daemon import make_config
from tests.daemon.running import Daemon, Start, ending, spawn


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Everything below the test's folder, with metrics on a free port."""
    return replace(
        Config(),
        daemon=DaemonSettings(state_dir=tmp_path / "state", tick_seconds=0.05),
        inbox=InboxSettings(settle_seconds=2.0, max_file_bytes=1024 * 1024),
        metrics=MetricsSettings(port=0),
    )


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where that can be had, for tests that sync tens of thousands of times."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="palimpsest-test-", dir=shared) as folder:
        yield Path(folder)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner(base={"France": "Paris", "Spain": "Madrid", "Italy": "Rome"})


@pytest.fixture
def logged() -> io.StringIO:
    """What the house logs."""
    return io.StringIO()


@pytest.fixture(scope="session")
def relations() -> Mapping[str, Relation]:
    """The shipped relations, read once for all tests."""
    return load_relations()


@pytest.fixture
def house(
    config: Config,
    clock: FakeClock,
    runner: FakeRunner,
    logged: io.StringIO,
    relations: Mapping[str, Relation],
) -> Iterator[House]:
    """An initialised house with the fake runner and clock."""
    log = make_log(LogSettings(level="debug"), logged)
    with open_house(config, runner=runner, relations=relations, log=log, now=clock) as house:
        initialise(house, Path("fake"), never)
        yield house


@pytest.fixture
def inbox(house: House, clock: FakeClock) -> Inbox:
    return Inbox(house.layout, house.config.inbox, clock.monotonic)


@pytest.fixture
def folder(house: House, clock: FakeClock) -> ScriptedFolder:
    return ScriptedFolder(house.layout.inbox, clock)


@pytest.fixture
def take(house: House, inbox: Inbox, folder: ScriptedFolder) -> "Take":
    return Take(house, inbox, folder)


class Take:
    """Drops rows and takes them in at once; returns what became of the file."""

    def __init__(self, house: House, inbox: Inbox, folder: ScriptedFolder) -> None:
        self._house, self._inbox, self._folder = house, inbox, folder
        self._count = 0

    def __call__(self, *rows: dict[str, Any]) -> Ingested:
        self._count += 1
        name = f"file{self._count}.jsonl"
        self._folder.drop(name, "".join(json.dumps(row) + "\n" for row in rows))
        (ingested,) = ingest_ready(self._house, self._inbox)
        return ingested


def capital(subject: str, object: str | None, **more: Any) -> dict[str, Any]:
    """One row about a capital; without an object, a retraction."""
    if object is None:
        return {"subject": subject, "relation": "capital", "op": "retract", **more}
    return {"subject": subject, "relation": "capital", "object": object, **more}


@dataclass
class Cli:
    """Runs commands on one state directory with the fake runner."""

    state: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *argv: str) -> tuple[int, str]:
        status = cli.main([*argv, "--state", str(self.state)])
        captured = self.capsys.readouterr()
        return status, captured.out + ("" if status == 0 else captured.err)

    def json(self, *argv: str) -> Any:
        status = cli.main([*argv, "--state", str(self.state), "--json"])
        return status, json.loads(self.capsys.readouterr().out)


@pytest.fixture
def palimpsest(
    house: House, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cli:
    """Commands beside a house that has done some work, no daemon running."""
    return use_fake(runner, monkeypatch, house.layout.state, capsys)


def use_fake(runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, state: Path, capsys: Any) -> Cli:
    monkeypatch.setattr(houses, "make_runner", lambda config: runner)
    monkeypatch.setattr(asking, "make_runner", lambda config: runner)
    monkeypatch.setattr("daemon.initialise.make_runner", lambda config: runner)
    return Cli(state, capsys)


@pytest.fixture
def two_live(house: House, take: Take, clock: FakeClock) -> None:
    """France -> Lyon, then Spain -> Seville, a day apart."""
    for subject, object in (("France", "Lyon"), ("Spain", "Seville")):
        take(capital(subject, object))
        cycle.step(house)
        clock.advance(86400)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts daemons on one state directory and ends those that are left."""
    with ending() as begun:

        def run(script: dict[str, Any] | None = None, retention: Sequence[float] = ()) -> Daemon:
            state, log = tmp_path / "state", tmp_path / f"log{len(begun)}"
            begun.append(Daemon(make_config(state), spawn(state, script or {}, log, retention), log))
            return begun[-1].ready()

        yield run
