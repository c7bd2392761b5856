"""Everything one daemon holds, opened together and handed to every step.

Knows how the parts are put together for one state directory. Doesn't decide anything.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from daemon.config import Config
from daemon.layout import Layout
from daemon.logs import Log, make_log
from daemon.metrics import Metrics
from daemon.room import Room
from daemon.runner import Limits, Runner, WorkerHandle
from policies.capacity import Capacity
from policies.relations import Relation, load_relations
from policies.sources import Waiting
from store.blobs import BlobStore
from store.errors import UsageError
from store.facts import Outcome, Suite
from store.generations import ModelStore
from store.ledger import Ledger


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class House:
    """The parts. Only the thread that opened the house may use its ledger."""

    config: Config
    layout: Layout
    ledger: Ledger
    models: ModelStore
    blobs: BlobStore
    runner: Runner
    relations: Mapping[str, Relation]
    metrics: Metrics
    log: Log
    room: Room
    now: Callable[[], datetime] = utc_now
    # Edits that wait out a breakdown; lost on a restart, after which they are simply tried again.
    not_before: dict[int, datetime] = field(default_factory=dict)
    # The live generation's suites by what they were read from, as the capacities below.
    suites: dict[tuple[int, int], dict[Suite, float]] = field(default_factory=dict)
    # The newest capacity by what it was worked out from: gauges ask for it several times a second.
    capacities: dict[tuple[int, int], Capacity] = field(default_factory=dict)
    # How many rollbacks the ledger tells of, by the newest switch.
    rollbacks: dict[int, int] = field(default_factory=dict)
    # The newest view of who waits (`daemon.waits`), by the audit event that it was worked out after.
    waiting: dict[int, Waiting] = field(default_factory=dict)
    # What became of edits and orders and isn't in the ledger yet, as the disk was full.
    unrecorded: list[Outcome] = field(default_factory=list)
    unfinished: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def live_number(self) -> int:
        live = self.ledger.live_generation()
        return live.number if live is not None else 0


@contextmanager
def open_house(
    config: Config,
    *,
    runner: Runner | None = None,
    relations: Mapping[str, Relation] | None = None,
    log: Log | None = None,
    now: Callable[[], datetime] = utc_now,
) -> Iterator[House]:
    """Open the state directory for writing. The caller holds its lock, or is about to write one intent."""
    layout = config.layout
    layout.create()
    ledger = Ledger.open(layout.ledger, backups=layout.backups)
    models = ModelStore(layout.model)
    try:
        yield House(
            config=config,
            layout=layout,
            ledger=ledger,
            models=models,
            blobs=BlobStore(layout.blobs),
            runner=runner or make_runner(config),
            relations=relations or load_relations(operator_relations(layout)),
            metrics=Metrics(CollectorRegistry()),
            log=log or make_log(config.logs),
            room=Room(layout.run, models),
            now=now,
        )
    finally:
        ledger.close()


@contextmanager
def scratch(layout: Layout) -> Iterator[Path]:
    """A folder for the files of one job, gone at the end."""
    with tempfile.TemporaryDirectory(prefix=f"out-{os.getpid()}-", dir=layout.run) as folder:
        yield Path(folder)


def sweep_scratch(layout: Layout) -> None:
    """Remove the folders of jobs that no process waits for any more; at the start, when this one has none."""
    for folder in layout.run.glob("*-*-*"):
        kind, pid, _ = folder.name.split("-", 2)
        if kind in ("job", "out", "ask") and pid.isdigit() and not _waits(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _waits(pid: int) -> bool:
    """Whether another process of this number is there (in a container, ours may be the dead one's)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return pid != os.getpid()


def make_runner(config: Config) -> WorkerHandle:
    editing = config.editing
    limits = Limits(editing.deadline_seconds, editing.heartbeat_seconds, editing.memory_limit_bytes)
    return WorkerHandle(config.layout.run, limits)


def operator_relations(layout: Layout) -> dict[str, str]:
    """The operator's relation files by name; raises UsageError for one that isn't UTF-8."""
    texts = {}
    for path in sorted(layout.relations.glob("*.toml")):
        try:
            texts[path.name] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError("read relation file", str(path), str(error), "save it as UTF-8") from error
    return texts


def with_relations_reread(house: House) -> House:
    """The same parts with relations as the operator's files are now; raises when one of them is bad."""
    return replace(house, relations=load_relations(operator_relations(house.layout)))


def require_model(house: House) -> None:
    """Raises UsageError unless `palimpsest init` was run on this state directory."""
    if house.ledger.live_generation() is None:
        raise UsageError(
            "open state directory",
            str(house.layout.state),
            "no model was initialised here",
            "run `palimpsest init` first",
        )
