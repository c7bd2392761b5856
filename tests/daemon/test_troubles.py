"""A full disk and a locked ledger are waited out; a disk that fails ends the daemon, and the next start
finds everything."""

import errno
import io
import json
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.backups import every
from daemon.config import BackupSettings, Config, InboxSettings, MetricsSettings
from daemon.fakes import FakeClock, FakeRunner
from daemon.house import House, open_house
from daemon.initialise import initialise
from daemon.logs import make_log
from daemon.runner import Job, Result, never
from policies.relations import Relation
from store import connection
from store.errors import PalimpsestError
from store.facts import EditState
from tests.daemon.checks import check_inputs, check_served, check_state
from tests.daemon.conftest import capital
from tests.daemon.faulty import ALL, FaultyDisk, idle, run_until

FILES = {
    "a.jsonl": json.dumps(capital("France", "Lyon")) + "\n" + json.dumps(capital("Spain", "Seville")) + "\n",
    "b.jsonl": json.dumps({"subject": "Italy", "relation": "capital"}) + "\n",
}
INPUTS = [text.encode() for text in FILES.values()]


class Scenario:
    """Two files are dropped, one of them bad; two edits go live, the second is taken back; a backup."""

    def __init__(self, config: Config, template: Path, relations: Mapping[str, Relation]) -> None:
        self.config = replace(
            config,
            inbox=InboxSettings(settle_seconds=0.0, rescan_seconds=0.1),
            backup=BackupSettings(every_hours=1),
            metrics=MetricsSettings(enabled=False),
        )
        self._template, self._relations = template, relations
        self.log = io.StringIO()

    def begin(self) -> None:
        """A fresh state directory with the files in its inbox."""
        shutil.rmtree(self.config.layout.state, ignore_errors=True)
        shutil.copytree(self._template, self.config.layout.state, symlinks=True)
        for name, text in FILES.items():
            (self.config.layout.inbox / name).write_text(text)

    def open(self, runner: FakeRunner | None = None) -> AbstractContextManager[House]:
        """What a start of the daemon reads from the disk."""
        runner = runner or FakeRunner(base={"France": "Paris", "Spain": "Madrid"})
        log = make_log(self.config.logs, self.log)
        return open_house(self.config, runner=runner, relations=self._relations, log=log, now=FakeClock())

    def play(self, house: House, listen: Callable[[str], object] = str) -> list[str]:
        """Let a service do all that is to be done; `listen` hears each turn."""

        def done(said: str) -> bool:
            listen(said)
            live = house.ledger.live_generation()
            if idle(said) and live and live.edits == (1, 2) and not house.ledger.open_intents():
                house.ledger.add_intent("rollback", {"to": live.parent}, now=house.now(), actor="test")
                return False
            return idle(said) and house.ledger.edit(2).state is EditState.ROLLED_BACK

        return run_until(house, done)

    def check(self) -> None:
        """Everything came to its end, once."""
        check_state(self.config, INPUTS)
        with self.open() as house:
            live = house.ledger.live_generation()
            assert live is not None
            assert live.edits == (1,)
            assert [edit.state for edit in house.ledger.edits()] == [EditState.LIVE, EditState.ROLLED_BACK]
            assert (self.config.layout.failed / "b.jsonl.error.json").is_file()
            assert not list(self.config.layout.processing.iterdir())


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, relations: Mapping[str, Relation]) -> Path:
    """An initialised state directory whose backup is overdue, to be copied."""
    state = tmp_path_factory.mktemp("template") / "state"
    config = replace(Config(), daemon=replace(Config().daemon, state_dir=state))
    quiet = make_log(config.logs, io.StringIO())
    with open_house(config, runner=FakeRunner(), relations=relations, log=quiet, now=FakeClock()) as house:
        initialise(house, Path("fake"), never)
        house.ledger.set_setting("last_backup", "2020-01-01T00:00:00+00:00", now=house.now())
    return state


@pytest.fixture
def scenario(config: Config, memory: Path, template: Path, relations: Mapping[str, Relation]) -> Scenario:
    at = replace(config.daemon, state_dir=memory / "state")
    return Scenario(replace(config, daemon=at), template, relations)


def test_the_scenario_ends_as_its_checks_say(scenario: Scenario) -> None:
    """Without a fault the story has the end that the swept ones are held to."""
    scenario.begin()
    with scenario.open() as house:
        scenario.play(house)
    scenario.check()
    assert every(scenario.config.layout.backups)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(ALL))
def test_a_failing_disk_ends_the_daemon_and_the_next_start_recovers(scenario: Scenario, kind: str) -> None:
    """EIO on the Nth call of a kind, for every N that the story has: a clear error, never a wrong state."""
    for nth in range(1, 500):
        scenario.begin()
        disk = FaultyDisk(frozenset({kind}), nth, errno.EIO)
        fatal = None
        try:
            with disk.plugged_in(), scenario.open() as house:
                scenario.play(house)
        except PalimpsestError as error:
            fatal = error
        assert bool(fatal) == bool(disk.failed), f"{kind} {nth}: {fatal}"
        if fatal is None:
            break
        assert "Input/output error" in str(fatal) or "disk I/O error" in str(fatal)
        assert fatal.hint
        check_served(scenario.config)
        check_inputs(scenario.config, INPUTS)
        with scenario.open() as house:
            scenario.play(house)
        scenario.check()
    print(f"{kind}: {nth - 1} points")
    assert nth > 3


@pytest.mark.slow
def test_a_full_disk_is_waited_out_wherever_it_is_met(scenario: Scenario) -> None:
    """From the Nth write on nothing can be written any more, for every N: the daemon says so, serves what
    it served, and goes on once there is room, with nothing lost and no attempt used up."""
    for nth in range(1, 500):
        scenario.begin()
        disk = FaultyDisk(ALL, nth, errno.ENOSPC, lasting=True)
        waited: list[str] = []

        def listen(said: str, disk: FaultyDisk = disk, waited: list[str] = waited) -> None:
            check_served(scenario.config)
            if disk.broken and said.startswith("waiting"):
                sample = house.metrics.registry.get_sample_value
                assert sample("palimpsest_disk_full") == 1
                waited.append(said)
                if len(waited) == 2:
                    disk.mend()

        with scenario.open() as house, disk.plugged_in():
            scenario.play(house, listen)
            assert house.metrics.registry.get_sample_value("palimpsest_disk_full") == 0
            attempts = [edit.attempt for edit in house.ledger.edits()]
            for edit in house.ledger.edits():  # what recovery finished has its readings in the manifest
                assert (
                    house.ledger.outcomes(edit.id) or house.models.manifest(edit.generation or 0)["readings"]
                )
            errors = [house.ledger.intent(1)["result"].get("error")]
        scenario.check()
        assert (attempts, errors) == ([1, 1], [None]), (nth, disk.failed[:1])
        if not disk.failed:
            break
        assert waited == ["waiting: the disk is full"] * 2
    print(f"full: {nth - 1} points")
    assert nth > 30


class Meddler(FakeRunner):
    """Another process takes the ledger's lock as soon as a worker has begun, as a long backup might."""

    lock: "Lock | None" = None

    def run(self, job: Job, idle: Callable[[str], str | None] = never) -> Result:
        if self.lock is not None:
            self.lock.take()
            self.lock = None
        return super().run(job, idle)


class Lock:
    """The ledger's write lock, held by a connection of its own."""

    def __init__(self, ledger: Path) -> None:
        self._db = sqlite3.connect(ledger, isolation_level=None)

    def take(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        self._db.close()


@pytest.mark.parametrize("when", ["before anything is taken in", "while an edit is in work"])
def test_a_locked_ledger_is_waited_out(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """However often the ledger's own patience ends, the daemon lives, tries again and loses nothing."""
    assert connection.BUSY_SECONDS == 30
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.1)
    scenario.begin()
    runner = Meddler(base={"France": "Paris", "Spain": "Madrid"})
    waited: list[str] = []
    with scenario.open(runner) as house:
        lock = Lock(scenario.config.layout.ledger)
        if when == "while an edit is in work":
            runner.lock = lock
        else:
            lock.take()

        def listen(said: str) -> None:
            check_served(scenario.config)
            if said.startswith("waiting"):
                waited.append(said)
                if len(waited) == 3:
                    lock.release()

        scenario.play(house, listen)
        assert [edit.attempt for edit in house.ledger.edits()] == [1, 1]
    assert waited == ["waiting: another process holds the ledger"] * 3
    assert scenario.log.getvalue().count('"daemon.waits"') == 1
    scenario.check()


def test_a_full_ledger_alone_is_waited_out(scenario: Scenario) -> None:
    """SQLite's own word for no room, whatever the file system says, pauses as well."""
    scenario.begin()
    waited: list[str] = []
    with scenario.open() as house:
        pages = house.ledger._db.execute("PRAGMA page_count").fetchone()[0]
        house.ledger._db.execute(f"PRAGMA max_page_count = {pages}")

        def listen(said: str) -> None:
            if said.startswith("waiting"):
                waited.append(said)
                if len(waited) == 2:
                    house.ledger._db.execute("PRAGMA max_page_count = 1000000")

        scenario.play(house, listen)
    assert waited[0] == "waiting: the disk is full"
    scenario.check()


def test_a_backup_that_finds_no_room_stops_nothing(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is missed and said so; edits go on."""
    scenario.begin()
    disk = FaultyDisk(frozenset({"commit"}), 1, errno.ENOSPC)

    def no_copy(house: House) -> str:
        with disk.plugged_in():
            house.ledger.backup(house.layout.backups / "ledger-x.sqlite")
        return ""

    monkeypatch.setattr("daemon.backups.make", no_copy)
    with scenario.open() as house:
        said = scenario.play(house)
    assert disk.failed
    assert "backup.failed" in scenario.log.getvalue()
    assert not [text for text in said if text.startswith("waiting")]
    scenario.check()
