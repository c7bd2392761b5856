"""A state directory with a fake model, opened as a daemon would open it."""

import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Config, DaemonSettings, InboxSettings, LogSettings, MetricsSettings
from daemon.fakes import FakeClock, FakeRunner, ScriptedFolder
from daemon.house import House, open_house
from daemon.inbox import Inbox
from daemon.ingest import Ingested, ingest_ready
from daemon.initialise import initialise
from daemon.logs import make_log
from daemon.runner import never
from policies.relations import Relation, load_relations


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
