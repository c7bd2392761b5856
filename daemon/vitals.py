"""What the gauges show, read from the ledger and the disk.

Knows where each figure is. Doesn't know Prometheus.
"""

import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from daemon import capacity, control, waits
from daemon.house import House
from daemon.metrics import Vitals
from policies.gates import gates_for
from policies.sources import For
from store.errors import GenerationError
from store.facts import EditState, Op

_OPEN = (EditState.PENDING, EditState.EDITING, EditState.JUDGED)


def our_version() -> str:
    try:
        return version("palimpsest-daemon")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "unknown"


def describe(house: House) -> None:
    """Set the metrics that stay the same while the daemon runs."""
    gates = gates_for(Op.UPSERT, house.config.gates)
    try:
        sha256 = str(house.models.manifest(0)["weights_sha256"])
    except GenerationError:
        sha256 = ""
    thresholds = {gate.suite.value: gate.threshold for gate in gates}
    house.metrics.describe(our_version(), house.config.model.name, sha256, thresholds)


def take_vitals(house: House) -> Vitals:
    ledger, now = house.ledger, house.now()
    states = ledger.state_counts()
    waiting = [edit.dropped_at for edit in ledger.due_edits(now, limit=1000) if edit.dropped_at]
    last_backup = control.last_run(house, "backup")
    left, by_source = capacity.current(house), waits.current(house)
    wal = house.layout.ledger.with_name(house.layout.ledger.name + "-wal")
    return Vitals(
        queue_depth=sum(states.get(state, 0) for state in _OPEN),
        oldest_pending_age=max((now - min(waiting)).total_seconds(), 0.0) if waiting else 0.0,
        held=states.get(EditState.HELD, 0),
        live_generation=house.live_number,
        paused=control.is_paused(house),
        disk_free_bytes=shutil.disk_usage(house.layout.state).free,
        disk_full=house.room.lacking,
        ledger_bytes=_size(house.layout.ledger),
        wal_bytes=_size(wal),
        last_backup=last_backup.timestamp() if last_backup else 0.0,
        headroom=left.headroom,
        edits_left=left.edits_left,
        waiting={reason.value: by_source.count(reason) for reason in For},
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
