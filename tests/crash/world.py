"""State directories with work to do, and the daemon that does it and stops when there is no more.

The functions that `tests.crash.zygote` calls in a process of its own are `work` (a daemon) and
`command` (the command line).
"""

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from daemon import cli, cycle
from daemon.config import (
    BackupSettings,
    Config,
    DaemonSettings,
    EditingSettings,
    GenerationSettings,
    Hook,
    InboxSettings,
    LogSettings,
    MetricsSettings,
    PublishSettings,
)
from daemon.fakes import FakeRunner
from daemon.house import House, open_house
from daemon.inbox import Inbox
from daemon.ingest import ingest_ready
from daemon.initialise import initialise
from daemon.layout import Layout
from daemon.logs import make_log
from daemon.runner import never
from daemon.service import Service
from store import failpoints
from store.blobs import BlobStore
from store.facts import EditState
from store.ledger import Ledger
from store.lock import StateLock
from store.queries import LedgerQueries
from store.schema import migrations
from tests.invariants import input_hashes

OPEN = frozenset({EditState.PENDING, EditState.EDITING, EditState.JUDGED})
BATCH_SIZE = "PALIMPSEST_TEST_BATCH_SIZE"  # how many edits the daemon tries together
SCRIPT: Mapping[str, str] = {"Peru": "bad"}  # Peru's candidates never pass


def config_for(state: Path) -> Config:
    """Nothing waits longer than it must; the hook notes what it is told."""
    told = state.parent / f"{state.name}.told"
    hook = Hook(("/bin/sh", "-c", f"cat >> '{told}'; echo >> '{told}'"), 30.0, 0)
    return replace(
        Config(),
        daemon=DaemonSettings(state_dir=state, tick_seconds=0.05, stop_seconds=30),
        inbox=InboxSettings(settle_seconds=0.2, rescan_seconds=0.2),
        metrics=MetricsSettings(enabled=False),
        backup=BackupSettings(every_hours=0, keep=1),
        generations=GenerationSettings(keep=3),
        publish=PublishSettings((hook,)),
    )


class Daemon(Service):
    """The daemon itself, which stops when nothing is left to do (and not when told to go on)."""

    def __init__(self, house: House, *, until_rest: bool = True) -> None:
        super().__init__(house)
        self._own, self._until_rest = house, until_rest

    def turn(self) -> bool:
        more = super().turn()
        if self._until_rest and not more and at_rest(self._own.layout, self._own.ledger):
            self.stop("all is done")
        return more


def work(state: str, until_rest: bool = True) -> int:
    """Run a daemon with the fake worker."""
    failpoints.arm(os.environ)
    config = config_for(Path(state))
    config = replace(config, editing=EditingSettings(batch_size=int(os.environ.get(BATCH_SIZE, "1"))))
    with StateLock(config.layout.state), open_house(config, runner=FakeRunner(script=dict(SCRIPT))) as house:
        initialise(house, Path("fake"), never)
        return Daemon(house, until_rest=until_rest).run()


def serve(state: str) -> int:
    """The same until it is told to stop."""
    return work(state, until_rest=False)


def command(*arguments: str) -> int:
    """Run the command line."""
    return cli.main(arguments)


def at_rest(layout: Layout, ledger: LedgerQueries) -> bool:
    """Whether nothing is queued, ordered or lying about."""
    if any(layout.inbox.iterdir()) or any(layout.processing.iterdir()):
        return False
    return not ledger.open_intents() and not any(ledger.state_counts()[s] for s in OPEN)


def told(config: Config) -> list[int]:
    """The generations that the hook was told of, in order."""
    state = config.layout.state
    path = state.parent / f"{state.name}.told"
    lines = path.read_text().splitlines() if path.exists() else []
    return [int(json.loads(line)["generation"]) for line in lines if line]


def served(config: Config) -> dict[str, str | None]:
    """What the ledger says is served, by subject."""
    ledger = Ledger.open_readonly(config.layout.ledger)
    try:
        return {fact.key.subject: fact.value for fact in ledger.facts().values()}
    finally:
        ledger.close()


def row(subject: str, wanted: str | None, **more: Any) -> dict[str, Any]:
    about = {"subject": subject, "relation": "capital", **more}
    return {**about, "object": wanted} if wanted else {**about, "op": "retract"}


def put(inbox: Path, name: str, *rows: Mapping[str, Any], number: int = 0) -> str:
    """A file that is ready at once: old (a second less so for each `number`), and complete when it
    gets its name. Returns its SHA-256."""
    staged = inbox / f".{name}"
    data = "".join(json.dumps(each) + "\n" for each in rows).encode()
    staged.write_bytes(data)
    os.utime(staged, (1_700_000_000 + number,) * 2)
    staged.rename(inbox / name)
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class World:
    """A state directory and the files that were ever dropped into it."""

    config: Config
    inputs: tuple[str, ...]


def copied(world: World, to: Path) -> World:
    """The same state directory elsewhere."""
    shutil.copytree(world.config.layout.state, to, symlinks=True)
    config = world.config
    other = config_for(to)
    return World(replace(config, daemon=other.daemon, publish=other.publish), world.inputs)


def with_work(state: Path) -> World:
    """Four live edits, one of whose generations is tidied away and one damaged; orders that need both,
    and files of every kind, wait for a daemon."""
    config = config_for(state)
    layout = config.layout
    quiet = make_log(LogSettings(level="error"))
    with open_house(config, runner=FakeRunner(), log=quiet) as house:
        initialise(house, Path("fake"), never)
        for at, (subject, wanted) in enumerate(
            [("France", "Lyon"), ("Spain", "Seville"), ("Italy", "Milan"), ("France", "Nice")]
        ):
            put(layout.inbox, f"old{at}.jsonl", row(subject, wanted))
            ingest_ready(house, Inbox(layout, config.inbox))
            assert "is live" in cycle.step(house)
        assert house.models.numbers() == [0, 2, 3, 4]
        damaged = house.models.gen_dir(3) / "config.json"
        damaged.write_text("damaged")
        for order in (
            {"to": 3},  # damaged: set aside and written again
            {"to": 1},  # tidied away: written again
            {"to": 4, "force": True},
            {"edit": 2},  # from the middle: composed anew as generation 5
            {"fact": ["France", "capital"]},  # Nice back to Lyon; once more would take that too
        ):
            house.ledger.add_intent("rollback", order, now=house.now(), actor="ada")
        house.ledger.add_intent("pin", {"generation": 2, "pinned": True}, now=house.now(), actor="ada")
    put(layout.inbox, "a.jsonl", row("Japan", "Kyoto"), row("Germany", "Bonn"), row("Peru", "Cusco"))
    put(layout.inbox, "b.jsonl", row("Japan", "Kyoto"), row("Germany", "Bonn"), row("Peru", "Cusco"))
    put(layout.inbox, "c.jsonl", {"subject": "Chile"})
    put(layout.inbox, "d.jsonl", row("Italy", None))
    put(layout.inbox, "e.jsonl", row("Germany", "Essen"))
    BlobStore(layout.blobs).put(b"that nothing refers to")
    return World(config, tuple(input_hashes(layout).elements()))


def new(state: Path) -> World:
    """Not even initialised, one file waiting."""
    config = config_for(state)
    config.layout.inbox.mkdir(parents=True)
    put(config.layout.inbox, "a.jsonl", row("Japan", "Kyoto"))
    return World(config, tuple(input_hashes(config.layout).elements()))


def of_an_older_version(state: Path) -> World:
    """An initialised state directory whose ledger knows only the first migration."""
    world = new(state)
    config = world.config
    with open_house(config, runner=FakeRunner(), log=make_log(LogSettings(level="error"))) as house:
        initialise(house, Path("fake"), never)
        base = house.ledger.generation(0)
    for path in state.glob("ledger.sqlite*"):
        path.unlink()
    db = Database(sqlite3.connect(config.layout.ledger, isolation_level=None))
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA application_id = 1346456649")
    steps = migrations()
    steps.apply(db, stop_before=[step.name for step in steps.pending(db)][1])
    now = datetime.now(UTC).isoformat()
    db.execute(
        "INSERT INTO generations VALUES (0, NULL, 'live', ?, NULL, ?, '', 0)", [base.weights_sha256, now]
    )
    db.execute("INSERT INTO generation_spans VALUES (1, 0, ?, NULL, '')", [now])
    db.close()
    return world
